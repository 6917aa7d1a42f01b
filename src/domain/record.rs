//! What goes on record: every change of mind, with its evidence and a sentence for people.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::isolation::{Effect, StepName, StepState};
use super::{Evidence, HoldReason, Verdict, Zone};

/// One entry of the audit journal, and one line of a backtest's or demo's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The cycle it belongs to.
    pub time: Timestamp,
    pub event: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// For people, with the numbers.
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<HoldReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effect>,
    /// What each guardrail said, in the order in which they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guardrails: Vec<Guardrail>,
    /// Guardrails that could not be evaluated, as they need what was not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_evaluated: Vec<String>,
    /// What guardrails warn of, and let pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// SHA-256 of the file that holds what it was decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Whether it was only a rehearsal: decided in earnest, with no hands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rehearsal: bool,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub figures: serde_json::Map<String, serde_json::Value>,
}

impl Record {
    pub fn new(time: Timestamp, event: Event, message: impl Into<String>) -> Self {
        Self {
            time,
            event,
            zone: None,
            message: message.into(),
            services: Vec::new(),
            signals: Vec::new(),
            evidence: Vec::new(),
            verdict: None,
            reason: None,
            step: None,
            effective: None,
            guardrails: Vec::new(),
            not_evaluated: Vec::new(),
            warnings: Vec::new(),
            inputs: None,
            rehearsal: false,
            figures: serde_json::Map::new(),
        }
    }

    #[must_use]
    pub fn zone(mut self, zone: &Zone) -> Self {
        self.zone = Some(zone.clone());
        self
    }

    /// Also fills in the services and signals that it names.
    #[must_use]
    pub fn evidence(mut self, evidence: &[Evidence]) -> Self {
        for item in evidence {
            let service = item.service.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
            let signal = item.signal.as_str().to_owned();
            if !self.services.contains(&service) {
                self.services.push(service);
            }
            if !self.signals.contains(&signal) {
                self.signals.push(signal);
            }
        }
        self.evidence = evidence.to_vec();
        self
    }

    #[must_use]
    pub fn figure(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.figures.insert(name.to_owned(), value.into());
        self
    }
}

/// Its name, what it said, and the figures for people, as far as there are any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guardrail(pub String, pub GuardrailSaid, pub String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardrailSaid {
    Passed,
    Held,
    Warned,
    NotEvaluated,
    Overridden,
}

impl GuardrailSaid {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Held => "held",
            Self::Warned => "warned",
            Self::NotEvaluated => "not evaluated",
            Self::Overridden => "overridden",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub name: StepName,
    #[serde(flatten)]
    pub state: StepState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A process began to write.
    Started,
    Stopped,
    /// The journal could not be written for a while: until then nothing was begun, and what was seen is not on record.
    Unrecorded,
    /// The oldest entries are removed, as they are too old or too many.
    Retired,
    /// This replica lets another one act.
    HandedOver,
    /// A new edition of the configuration is in effect, or is wrong and is not.
    ConfigurationChanged,
    ConfigurationRefused,
    /// A person paused zoneward, or the pause keeps something waiting; it goes on.
    Paused,
    Resumed,
    /// A zone is worse than its peers, beyond chance.
    Suspect,
    /// A suspect zone is not isolated, and why.
    Blocked,
    /// A zone is to be isolated.
    Isolate,
    /// A person has looked at past isolations, which are on no budget any more.
    Acknowledged,
    /// An isolation that somebody asked for may begin, or may not, and why.
    Admitted,
    Refused,
    /// A fault that one zone was isolated for has reached another.
    Reclassified,
    /// A suspect zone is like its peers again.
    Clear,
    /// What made a zone stand out for a day is taken for its normal state.
    Adopted,
    /// The data began, or ceased, to allow a judgement.
    Gap,
    Observed,
    /// A step of an isolation changed its state.
    Step,
    /// What joined an isolated zone, or was changed there by others, is as it should be again.
    Mended,
    /// Every step has confirmed the isolation.
    Isolated,
    /// The metrics show the isolation, or do not.
    Effective,
    Ineffective,
    /// An isolation did harm or no good, and is given up.
    RolledBack,
    /// What came of a drill: it could not begin, was broken off, or lasted its time.
    DrillBlocked,
    DrillAborted,
    DrillPassed,
    /// An isolated zone is on its way back, or has got worse again on it.
    Recovering,
    Relapsed,
    /// A zone is to be given back.
    Restore,
    /// Every step was undone.
    Restored,
    /// The embedded world broke something, or mended it.
    Fault,
    Repair,
    Summary,
}

impl Event {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Unrecorded => "unrecorded",
            Self::Retired => "retired",
            Self::HandedOver => "handed_over",
            Self::ConfigurationChanged => "configuration_changed",
            Self::ConfigurationRefused => "configuration_refused",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Suspect => "suspect",
            Self::Blocked => "blocked",
            Self::Isolate => "isolate",
            Self::Acknowledged => "acknowledged",
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Reclassified => "reclassified",
            Self::Mended => "mended",
            Self::Clear => "clear",
            Self::Adopted => "adopted",
            Self::Gap => "gap",
            Self::Observed => "observed",
            Self::Step => "step",
            Self::Isolated => "isolated",
            Self::Effective => "effective",
            Self::Ineffective => "ineffective",
            Self::RolledBack => "rolled_back",
            Self::DrillBlocked => "drill_blocked",
            Self::DrillAborted => "drill_aborted",
            Self::DrillPassed => "drill_passed",
            Self::Recovering => "recovering",
            Self::Relapsed => "relapsed",
            Self::Restore => "restore",
            Self::Restored => "restored",
            Self::Fault => "fault",
            Self::Repair => "repair",
            Self::Summary => "summary",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
