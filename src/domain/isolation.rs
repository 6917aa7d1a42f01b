//! An isolation: who asked for it, until when, and how far each step has come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{HoldReason, Recovery, ServiceId, Stage, Zone};

/// However it is asked for, and edited meanwhile.
pub const LONGEST_ISOLATION: SignedDuration = SignedDuration::from_hours(72);
/// A way back by shares that takes longer is cut short: what can't be judged must not keep a zone out.
const LONGEST_RETURN: SignedDuration = SignedDuration::from_hours(2);

/// One episode of a zone out of rotation. The spec is what is wanted; the rest is the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isolation {
    /// Tells episodes of a zone apart.
    pub id: String,
    pub spec: IsolationSpec,
    /// Which edition of the spec this is, and whether the ledger is still of another.
    pub generation: i64,
    pub edited: bool,
    pub requested_at: Timestamp,
    /// Set when somebody wants the zone back before it expires.
    pub restore_requested_at: Option<Timestamp>,
    pub admission: Admission,
    pub steps: BTreeMap<StepName, StepEntry>,
    /// When every step had confirmed the isolation, when its undoing began, and when every step was undone.
    pub isolated_at: Option<Timestamp>,
    pub returning_since: Option<Timestamp>,
    pub restored_at: Option<Timestamp>,
    pub effect: Option<Effect>,
    /// How far it is on its way back, if that goes by evidence.
    pub recovery: Option<Recovery>,
    /// Whether it has ended and yet stays, as it is somebody's own: no other of its zone can be made beside it.
    pub remains: bool,
    /// When a person looked at it: it is on no budget any more.
    pub acknowledged_at: Option<Timestamp>,
}

/// What is wanted of an isolation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IsolationSpec {
    pub zone: Zone,
    pub origin: Origin,
    pub reason: String,
    /// What the detector saw, in sentences, strongest first.
    pub evidence: Vec<String>,
    pub expires_at: Timestamp,
    /// What share of the zone's usual traffic it may have.
    pub share: Share,
    /// The steps to take; none named is all.
    pub only: BTreeSet<StepName>,
    /// Guardrails that need not pass, by name.
    pub overrides: BTreeSet<String>,
    /// Whether a person, or the mode, lets it act.
    pub approved: bool,
}

/// Whether guardrails let an isolation begin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    #[default]
    Pending,
    Refused(HoldReason),
    Admitted(Timestamp),
}

impl Isolation {
    pub fn new(id: String, spec: IsolationSpec, now: Timestamp) -> Self {
        Self {
            id,
            spec,
            generation: 0,
            edited: false,
            requested_at: now,
            restore_requested_at: None,
            admission: Admission::Pending,
            steps: BTreeMap::new(),
            isolated_at: None,
            returning_since: None,
            restored_at: None,
            effect: None,
            recovery: None,
            remains: false,
            acknowledged_at: None,
        }
    }

    pub const fn zone(&self) -> &Zone {
        &self.spec.zone
    }

    /// When it ends by itself: as was asked, but never later than the longest isolation after it began.
    pub fn expires_at(&self) -> Timestamp {
        let latest = self.admitted_at().and_then(|at| at.checked_add(LONGEST_ISOLATION).ok());
        latest.map_or(self.spec.expires_at, |latest| self.spec.expires_at.min(latest))
    }

    pub fn expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at()
    }

    /// When it ends whatever is seen. A way back that goes by evidence gets time for it, within the longest isolation.
    pub fn ends_at(&self) -> Timestamp {
        let expires_at = self.expires_at();
        let Some(recovery) = &self.recovery else { return expires_at };
        let begins_at = recovery.not_before.map_or(expires_at, |at| at.max(expires_at));
        let ends_at = begins_at.checked_add(LONGEST_RETURN).unwrap_or(begins_at);
        let latest = self.admitted_at().and_then(|at| at.checked_add(LONGEST_ISOLATION).ok());
        latest.map_or(ends_at, |latest| ends_at.min(latest)).max(expires_at)
    }

    /// All is to be given back now, and why.
    pub fn end(&mut self, why: String, now: Timestamp) {
        let relapses = self.recovery.as_ref().map_or(0, |recovery| recovery.relapses);
        self.recovery = Some(Recovery { stage: Stage::Ended, since: now, why, relapses, not_before: None });
    }

    /// Why it ended by what was seen, if so.
    pub fn ended_as(&self) -> Option<&str> {
        self.recovery.as_ref().filter(|recovery| recovery.stage == Stage::Ended).map(|recovery| recovery.why.as_str())
    }

    /// Whether all of the zone is to be given back. Once that has begun, there is no way but to its end.
    pub fn returning(&self, now: Timestamp) -> bool {
        self.returning_since.is_some()
            || self.restore_requested_at.is_some()
            || self.ended_as().is_some()
            || now >= self.ends_at()
    }

    /// What a step is to give the zone now. On the way back new pods come first, then traffic by shares, and last what
    /// can only be given back as a whole.
    pub fn wanted(&self, granularity: Granularity, now: Timestamp) -> Share {
        if self.returning(now) {
            return Share::FULL;
        }
        let isolated = granularity.of_share(self.spec.share);
        match (granularity, self.recovery.as_ref().map(|recovery| recovery.stage)) {
            (Granularity::NewPods, Some(Stage::Refilling | Stage::Trial { .. })) => Share::FULL,
            (Granularity::Pods | Granularity::Weights, Some(Stage::Trial { share })) => isolated.max(share),
            _ => isolated,
        }
    }

    /// Whether it has not ended: it waits to begin, or the zone is, or may still be, out of rotation.
    pub const fn active(&self) -> bool {
        self.restored_at.is_none()
    }

    pub const fn admitted_at(&self) -> Option<Timestamp> {
        match self.admission {
            Admission::Admitted(at) => Some(at),
            Admission::Pending | Admission::Refused(_) => None,
        }
    }

    /// Whether the zone is, or may be, out of rotation on its account.
    pub const fn holds_zone_out(&self) -> bool {
        self.active() && self.admitted_at().is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// zoneward's own judgement.
    Detector,
    /// A person, or what a person set up.
    Operator,
    /// A healthy zone is taken out on purpose, to know that the others bear it.
    Drill,
}

/// A step's name, such as `mesh`, `dns` or `taint`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepName(String);

impl StepName {
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How much of its usual traffic a zone gets, in percent: 0 while isolated, 100 in health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u8);

impl Share {
    pub const NONE: Self = Self(0);
    pub const FULL: Self = Self(100);

    /// At most 100.
    pub const fn percent(percent: u8) -> Self {
        Self(if percent > 100 { 100 } else { percent })
    }

    pub const fn as_percent(self) -> u8 {
        self.0
    }

    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// How finely a step can give traffic back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    Pods,
    /// Hundredths of all traffic, so that a small share is a rough one.
    Weights,
    /// Where new pods may come, which is no traffic yet.
    NewPods,
    AllOrNothing,
}

impl Granularity {
    /// What a step gives a zone that is to have a share: with all or nothing, nothing until it may have all.
    pub fn of_share(self, share: Share) -> Share {
        match self {
            Self::Pods | Self::Weights => share,
            Self::NewPods | Self::AllOrNothing if share < Share::FULL => Share::NONE,
            Self::NewPods | Self::AllOrNothing => Share::FULL,
        }
    }
}

/// The state before the change: what undo restores. Bounded; per-object state lives as a marker on the object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Receipt(pub BTreeMap<String, String>);

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepEntry {
    pub state: StepState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// Failures in a row, and when to try again.
    pub failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Failures in a row after which a person is called. The step is tried again all the same.
pub const STUCK_AFTER: u32 = 6;

impl StepEntry {
    /// Stuck by name, or so often in vain that it might as well be.
    pub const fn is_stuck(&self) -> bool {
        matches!(self.state, StepState::Stuck) || self.failures >= STUCK_AFTER
    }
}

impl Default for StepEntry {
    fn default() -> Self {
        Self { state: StepState::Pending, receipt: None, failures: 0, retry_at: None, last_error: None }
    }
}

/// How far a step has come. `Applied` may have been done in part; `Confirmed` was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StepState {
    Pending,
    Captured,
    Applied {
        share: Share,
    },
    Confirmed {
        share: Share,
    },
    Undone,
    /// Neither forward nor back without a person; the receipt says what to restore.
    Stuck,
}

impl StepState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Captured => "captured",
            Self::Applied { .. } => "applied",
            Self::Confirmed { .. } => "confirmed",
            Self::Undone => "undone",
            Self::Stuck => "stuck",
        }
    }
}

/// What the metrics say about an isolation: requests per second that the zone's servers answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    pub before_rps: f64,
    pub after_rps: f64,
    pub measured_at: Timestamp,
    /// How long after its admission the traffic had fallen to what may remain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_after_s: Option<i64>,
    /// The traffic that remains, the most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residual: Vec<Residual>,
}

impl Effect {
    pub fn shown(&self) -> bool {
        self.shown_after_s.is_some()
    }
}

/// Traffic that a service's servers in the zone still answer, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    pub service: ServiceId,
    pub rps: f64,
    pub why: String,
}

/// An operator wants no automatic isolation of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorHold {
    pub since: Timestamp,
    pub why: String,
    /// Whether it ends by itself once the zone is healthy: it came of a restore, and lasts as long as that fault.
    pub until_healthy: bool,
}
