//! How things stand, as the status page and `/status.json` tell it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::isolation::{Effect, StepEntry, StepName, StepState};
use super::record::Record;
use super::{
    Admission, Calls, CycleLength, Event, Evidence, Isolation, Mode, Origin, Pause, Recovery, ServiceId, Share, Signal,
    Verdict, Zone,
};

/// Of the shape of `/status.json`: it grows when a key changes its meaning, or goes.
pub const VERSION: u32 = 1;
/// Of a text that somebody else wrote, or that names many things.
const LONGEST_TEXT: usize = 2_000;

/// What is known at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    pub version: u32,
    pub now: Timestamp,
    pub headline: Headline,
    pub daemon: DaemonState,
    pub prometheus: Look,
    pub zones: Vec<ZoneState>,
    /// Those that are worse come first.
    pub services: Vec<ServiceState>,
    /// Strongest first.
    pub evidence: Vec<Series>,
    /// Active ones first, then past ones, the newest first.
    pub isolations: Vec<IsolationState>,
    /// The newest first.
    pub records: Vec<Entry>,
}

/// The answer in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Headline {
    pub state: State,
    pub text: String,
}

/// The process, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DaemonState {
    pub zoneward: String,
    pub mode: Mode,
    /// This replica, where several may act.
    pub replica: Option<String>,
    /// Whether it is the one that acts; in observe mode none is.
    pub leads: bool,
    /// Who is, as far as this replica knows.
    pub leader: Option<String>,
    pub paused: Option<String>,
    /// Why nothing can be put on record, and so nothing begun.
    pub unrecorded: Option<String>,
    /// What else keeps it from its work.
    pub trouble: Option<String>,
}

/// The last look at Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Look {
    pub url: String,
    pub cycle_s: i64,
    /// The newest cycle that was judged or tried, and the newest of which something was known.
    pub cycle: Option<Timestamp>,
    pub seen: Option<Timestamp>,
    /// Why no zone can be judged.
    pub gaps: Vec<String>,
    pub services: usize,
}

/// How a zone is, from the calmest to the loudest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Healthy,
    /// It can't be told.
    Unknown,
    /// Worse, but not the zone alone, or not for long enough.
    Suspect,
    /// It comes back.
    Returning,
    Isolated,
    /// It is being taken out.
    Isolating,
    /// It alone is worse, and has been for long enough.
    Faulty,
    /// A person is to approve its isolation.
    Waiting,
    /// A step can go neither forward nor back without a person.
    Stuck,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ZoneState {
    pub zone: Zone,
    pub state: State,
    pub why: String,
    /// Since when it is so, as far back as this process knows.
    pub since: Option<Timestamp>,
    pub verdict: Verdict,
    /// A person wants no automatic isolation of it.
    pub hold: Option<String>,
    /// Proxies that were scraped, of those known.
    pub scraped: Option<(u32, u32)>,
    /// Whether an isolation would be admitted now: by zoneward itself, and by hand.
    pub by_itself: Answer,
    pub by_hand: Answer,
    pub guardrails: Vec<GuardrailState>,
    /// The newest cycles, oldest first.
    pub course: Vec<Moment>,
}

/// Whether something would be admitted; if not, why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub admitted: bool,
    pub why: Option<String>,
    /// The name of what holds it, a guardrail or the verdict, and whether a person may override it.
    pub held_by: Option<String>,
    pub overridable: bool,
}

/// What one guardrail says of isolating a zone now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardrailState {
    pub name: String,
    pub ruling: Ruling,
    /// Its current value, and what it needs.
    pub says: String,
    /// Whether it lets a person pass all the same.
    pub person_passes: bool,
    pub overridable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    Holds,
    Warns,
    NotEvaluated,
    Passes,
}

/// One zone in one cycle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    pub time: Timestamp,
    /// Requests that its servers answered, and calls that its clients made; nothing where nothing was seen.
    pub served: Option<Calls>,
    pub called: Option<Calls>,
    pub judged: Judged,
}

/// How a zone was judged in one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    Healthy,
    Worse,
    /// It could not be.
    Not,
    /// It was before this process began.
    Past,
}

impl Judged {
    pub const fn by(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Healthy => Self::Healthy,
            Verdict::Inconclusive { .. } => Self::Not,
            Verdict::ZoneFault
            | Verdict::ServiceFault { .. }
            | Verdict::InstanceFault { .. }
            | Verdict::NodeFault { .. }
            | Verdict::RolloutInProgress { .. }
            | Verdict::RegionalFault
            | Verdict::FaultElsewhere { .. } => Self::Worse,
        }
    }
}

/// One service, zone by zone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceState {
    pub service: ServiceId,
    pub zones: BTreeMap<Zone, Standing>,
}

impl ServiceState {
    pub fn worst(&self) -> Compared {
        self.zones.values().map(|standing| standing.compared).max().unwrap_or(Compared::NoTraffic)
    }
}

/// One service in one zone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    pub compared: Compared,
    /// Requests that the zone's servers answered in the newest minute, and the share of them that failed.
    pub requests_per_second: f64,
    pub failed: Option<f64>,
    /// What stands out the most.
    pub signal: Option<Signal>,
    /// The evidence of it against chance, what was seen and what was expected: shares, or for latency factors.
    pub nats: f64,
    pub seen: f64,
    pub expected: f64,
}

/// What comparing a service's zones says of one, from the least to the most that stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    NoTraffic,
    Alike,
    /// Too little is known of it.
    Unknown,
    /// Perhaps by chance.
    Suspicious,
    /// Beyond chance.
    Worse,
}

/// One piece of evidence, cycle by cycle: how much more than expected was seen in each zone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    pub zone: Zone,
    pub evidence: Evidence,
    /// Oldest first; a cycle or a zone of which nothing is known is not in it.
    pub excess: Vec<(Timestamp, BTreeMap<Zone, f64>)>,
}

/// An isolation's ledger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IsolationState {
    pub zone: Zone,
    pub state: State,
    pub origin: Origin,
    /// In observe mode nothing is done.
    pub rehearsal: bool,
    pub reason: String,
    pub evidence: Vec<String>,
    pub share: Share,
    pub requested_at: Timestamp,
    pub admitted_at: Option<Timestamp>,
    /// Why guardrails do not let it begin.
    pub refused: Option<String>,
    pub overrides: Vec<String>,
    pub isolated_at: Option<Timestamp>,
    pub returning_since: Option<Timestamp>,
    pub restored_at: Option<Timestamp>,
    pub expires_at: Timestamp,
    pub steps: Vec<StepLine>,
    pub effect: Option<Effect>,
    pub recovery: Option<Recovery>,
    pub acknowledged_at: Option<Timestamp>,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepLine {
    pub name: StepName,
    #[serde(flatten)]
    pub state: StepState,
    /// A person has to look.
    pub stuck: bool,
    pub failures: u32,
    pub retry_at: Option<Timestamp>,
    pub error: Option<String>,
}

/// What was put on record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    pub time: Timestamp,
    pub event: Event,
    pub zone: Option<Zone>,
    pub message: String,
    pub rehearsal: bool,
}

impl Entry {
    pub fn of(record: &Record) -> Self {
        Self {
            time: record.time,
            event: record.event,
            zone: record.zone.clone(),
            message: bounded(&record.message),
            rehearsal: record.rehearsal,
        }
    }
}

impl IsolationState {
    pub fn of(isolation: &Isolation, rehearsal: bool, now: Timestamp) -> Self {
        let steps = isolation.steps.iter().map(|(name, entry)| StepLine {
            name: name.clone(),
            state: entry.state,
            stuck: entry.is_stuck(),
            failures: entry.failures,
            retry_at: entry.retry_at,
            error: entry.last_error.as_deref().map(bounded),
        });
        let refused = match &isolation.admission {
            Admission::Refused(reason) => Some(bounded(&reason.to_string())),
            Admission::Pending | Admission::Admitted(_) => None,
        };
        Self {
            zone: isolation.zone().clone(),
            state: state_of(isolation, now),
            origin: isolation.spec.origin,
            rehearsal,
            reason: bounded(&isolation.spec.reason),
            evidence: isolation.spec.evidence.iter().map(|item| bounded(item)).collect(),
            share: isolation.spec.share,
            requested_at: isolation.requested_at,
            admitted_at: isolation.admitted_at(),
            refused,
            overrides: isolation.spec.overrides.iter().cloned().collect(),
            isolated_at: isolation.isolated_at,
            returning_since: isolation.returning_since,
            restored_at: isolation.restored_at,
            expires_at: isolation.expires_at(),
            steps: steps.collect(),
            effect: isolation.effect.clone(),
            recovery: isolation.recovery.clone(),
            acknowledged_at: isolation.acknowledged_at,
        }
    }

    pub const fn active(&self) -> bool {
        self.restored_at.is_none()
    }

    /// Steps that a person has to look at, and what they say.
    pub fn stuck(&self) -> impl Iterator<Item = String> {
        let stuck = self.steps.iter().filter(|step| step.stuck);
        stuck.map(|step| format!("{}: {}", step.name, step.error.as_deref().unwrap_or("no word why")))
    }
}

/// Where an isolation puts its zone.
fn state_of(isolation: &Isolation, now: Timestamp) -> State {
    if !isolation.active() {
        return State::Healthy;
    }
    if isolation.steps.values().any(StepEntry::is_stuck) {
        return State::Stuck;
    }
    if isolation.admitted_at().is_none() {
        return State::Waiting;
    }
    let on_its_way = |recovery: &Recovery| recovery.stage != super::Stage::Out;
    if isolation.returning(now) || isolation.recovery.as_ref().is_some_and(on_its_way) {
        return State::Returning;
    }
    if isolation.isolated_at.is_some() { State::Isolated } else { State::Isolating }
}

impl Look {
    pub const fn blind(&self) -> bool {
        !self.gaps.is_empty()
    }
}

/// A pause in words, if there is one.
pub fn paused(pause: &Pause) -> Option<String> {
    (!pause.is_off()).then(|| bounded(&pause.to_string()))
}

/// What is shown of a text of any length.
pub fn bounded(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
}

/// Cycles of a course: an hour, and no more than can be told apart by eye.
pub const fn course_cycles(cycle: CycleLength) -> usize {
    let cycles = 3600 / cycle.seconds();
    if cycles > 240 { 240 } else { cycles as usize }
}
