//! Observe, detect, decide, guard, audit, request: one cycle is a dozen lines.

mod course;
mod drill;
mod inputs;
mod judge;
mod notes;
mod outcome;
mod recovery;
mod replay;
mod scene;

pub use inputs::Inputs;
pub use replay::ReplayError;
pub use scene::{Scene, Surroundings, overview};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use tokio::sync::watch;

use self::course::Course;
use crate::decide;
use crate::detect::{self, History};
use crate::domain::{
    CycleLength, Decision, Event, Finding, Gap, Guardrail, HoldReason, Isolation, IsolationSpec, Mode, OperatorHold,
    Origin, Pause, Record, Request, ServiceId, Share, Sight, Silences, Snapshot, Zone,
};
use crate::guard::{self, Situation};
use crate::ports::{AuditError, AuditSink, IsolationStore, Observer, StoreError};

/// Cycles over which a zone's traffic before an isolation is averaged, and those after which it is judged.
const TRAFFIC_CYCLES: usize = 4;
/// Cycles for which a gap must last to be worth a record.
const GAP_CYCLES: u32 = 3;
/// Cycles in a row in which a zone must be healthy for an operator's hold to end.
const HEALED_CYCLES: u32 = 20;
/// A second zone that gets worse within this time of an isolation was part of the same trouble.
const RECLASSIFIED_WITHIN: SignedDuration = SignedDuration::from_mins(5);
/// What a person acknowledged longer ago was put on record by an earlier process.
const ACKNOWLEDGED_LATELY: SignedDuration = SignedDuration::from_mins(5);
/// With this share of the first one's severity it is as bad.
const AS_BAD: f64 = 0.5;

/// Settings of the stages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    pub detect: detect::Settings,
    pub decide: decide::Settings,
    pub guard: guard::Settings,
    pub rollback: decide::RollbackSettings,
    pub recovery: decide::RecoverySettings,
    pub drills: decide::DrillSettings,
    pub mode: Mode,
}

#[derive(Debug, Error)]
pub enum TickError {
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

type GapKey = (&'static str, Option<Zone>);

fn gap_key(gap: &Gap) -> GapKey {
    (gap.as_str(), gap.zone().cloned())
}

/// What was last put on record of a zone.
#[derive(Debug, Clone, Default)]
struct Standing {
    suspect: bool,
    held_by: Option<String>,
    /// Whether a wish to isolate it is on record, and not stored yet.
    asked: bool,
    /// When the isolation began of which it is on record that its fault was regional.
    reclassified: Option<Timestamp>,
    /// Requests that its servers answered in the newest cycles in which it was not isolated.
    served: VecDeque<f64>,
    ineffective: bool,
    /// Since when its isolation does harm or no good, and of which such time it is on record.
    failing_since: Option<Timestamp>,
    rolled_back: Option<Timestamp>,
    /// Since when the drill lasted that it is on record to have passed.
    drill_passed: Option<Timestamp>,
    /// Of its recovery.
    signs: decide::Signs,
    /// Of the fault that it was last isolated for.
    severity: f64,
    /// Services that were worse in other zones, too, at that time, as they call it.
    worse_elsewhere: BTreeSet<ServiceId>,
    /// Cycles in a row in which it was healthy, in rotation.
    healthy_cycles: u32,
}

/// The state of one mesh under watch.
pub struct Pipeline {
    settings: Settings,
    history: History,
    standings: BTreeMap<Zone, Standing>,
    /// For how many cycles each kind of gap has lasted, and its newest figures.
    gaps: BTreeMap<GapKey, (u32, Gap)>,
    /// Of the newest cycles, as far back as the minute before an isolation that is still watched.
    figures: VecDeque<(Timestamp, BTreeMap<Zone, decide::Figures>)>,
    /// When a scheduled drill was last tried.
    drill_tried: Option<Timestamp>,
    store: Arc<dyn IsolationStore>,
    audit: Arc<dyn AuditSink>,
    /// Whether this replica is the one that acts.
    leads: bool,
    pause: Pause,
    silences: Silences,
    /// When a person last acknowledged a zone's isolations.
    acknowledged: BTreeMap<Zone, Timestamp>,
    /// What the newest cycle read of isolations and holds, and what each zone did lately: to be shown.
    ledger: (Vec<Isolation>, BTreeMap<Zone, OperatorHold>),
    course: Course,
    sight: Arc<watch::Sender<Option<Arc<Sight>>>>,
    /// What this cycle's decisions rest on.
    inputs: inputs::Keeping,
}

impl Pipeline {
    pub fn new(
        settings: Settings,
        cycle: CycleLength,
        store: Arc<dyn IsolationStore>,
        audit: Arc<dyn AuditSink>,
    ) -> Self {
        let history = History::new(&settings.detect, cycle);
        let (standings, gaps, figures) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let (pause, silences, acknowledged, sight) = Default::default();
        Self {
            settings,
            history,
            standings,
            gaps,
            figures,
            drill_tried: None,
            store,
            audit,
            leads: true,
            pause,
            silences,
            acknowledged,
            ledger: Default::default(),
            course: Course::new(cycle),
            sight,
            inputs: inputs::Keeping::default(),
        }
    }

    pub const fn history(&self) -> &History {
        &self.history
    }

    /// What the newest cycle saw, and what was made of it.
    pub fn sight(&self) -> Option<Arc<Sight>> {
        self.sight.borrow().clone()
    }

    /// Lets somebody else see it too, before anything is made of it.
    pub fn show_to(&mut self, others: Arc<watch::Sender<Option<Arc<Sight>>>>) {
        self.sight = others;
    }

    /// From the next cycle on other settings apply. How far it may go stays.
    pub fn retune(&mut self, settings: Settings) {
        self.history.retune(&settings.detect);
        self.settings = Settings { mode: self.settings.mode, ..settings };
    }

    /// Says whether this replica is the one that acts.
    pub const fn lead(&mut self, leads: bool) {
        self.leads = leads;
    }

    /// Says whether a person has paused it.
    pub fn pause(&mut self, pause: Pause) {
        self.pause = pause;
    }

    /// Says what is known of planned maintenance.
    pub fn silence(&mut self, silences: Silences) {
        self.silences = silences;
    }

    fn acts(&self) -> bool {
        self.leads && self.settings.mode != Mode::Observe
    }

    /// Takes in a past cycle, of which nothing is decided.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        self.learn_alike(snapshot, 1);
    }

    /// Takes in so many past cycles, all of them alike, of which this is the last.
    pub fn learn_alike(&mut self, snapshot: &Snapshot, cycles: u32) {
        self.history.push_alike(snapshot, cycles, &self.settings.detect);
        self.remember_figures(snapshot);
        self.course.learn(snapshot);
    }

    /// Begins to learn anew. What stands, and is on record, stays known.
    pub fn forget_past(&mut self) {
        self.history = History::new(&self.settings.detect, self.history.cycle());
        self.figures.clear();
    }

    /// One cycle.
    pub async fn tick(
        &mut self,
        observer: &mut dyn Observer,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<(), TickError> {
        let before = self.before_cycle();
        self.history.push(snapshot, &self.settings.detect);
        let (assessment, looks) = self.judge(observer, snapshot, now).await;
        let sight = Arc::new(Sight { snapshot: snapshot.clone(), assessment });
        self.sight.send_replace(Some(Arc::clone(&sight)));
        self.course.judged(&sight);
        let mut isolations = self.store.list().await?;
        let holds = self.store.holds().await?;
        self.ledger = (isolations.clone(), holds.clone());
        self.begin_inputs(before, (&sight, looks), &isolations, &holds, now);
        // With what this cycle adds to them.
        let mut known = isolations.clone();
        self.note_gaps(&sight, &isolations).await?;
        self.note_acknowledged(&isolations, now).await?;
        let mut stored = Ok(());
        for (zone, decision) in decide::decide(&sight.assessment, &isolations, &self.settings.decide) {
            let Some(finding) = sight.assessment.zones.get(&zone) else { continue };
            self.note_suspicion(&zone, finding, &decision, snapshot.time).await?;
            match decision {
                Decision::Hold(reason) => self.hold(&zone, finding, reason, snapshot.time).await?,
                // What can't be stored of one zone keeps nothing back of the others.
                Decision::Isolate(request) => {
                    match self.isolate(request, &sight, finding, (&mut known, &holds), now).await {
                        Err(TickError::Store(error)) => stored = stored.and(Err(error)),
                        other => other?,
                    }
                }
            }
        }
        self.note_effect(snapshot, &mut isolations).await?;
        self.remember_figures(snapshot);
        if !self.pause.is_on() {
            self.roll_back(snapshot, &mut isolations, now).await?;
        }
        if self.acts() && self.pause.is_off() {
            self.watch_drills(&sight, &mut isolations, now).await?;
            self.recover(observer, &sight, &mut isolations, now).await?;
            self.begin_drill(&sight, &holds, now).await?;
        }
        self.note_adopted(snapshot.time).await?;
        stored?;
        self.reclassify(&sight, &mut isolations, now).await?;
        self.end_holds(&sight, &isolations, &holds).await
    }

    /// A fault that is held back for another reason than its age goes on record whenever the reason changes.
    async fn hold(
        &mut self,
        zone: &Zone,
        finding: &Finding,
        reason: HoldReason,
        time: Timestamp,
    ) -> Result<(), AuditError> {
        if matches!(reason, HoldReason::AlreadyIsolated | HoldReason::NotApproved) {
            // The wish was stored, though no answer said so.
            self.standings.entry(zone.clone()).or_default().asked = false;
        }
        let worth_a_record = match reason {
            HoldReason::NoFault
            | HoldReason::NotYetPersistent { .. }
            | HoldReason::NotApproved
            | HoldReason::AlreadyIsolated
            | HoldReason::StaleData { .. } => false,
            HoldReason::NotLeader
            | HoldReason::Paused { .. }
            | HoldReason::UnhealthyZones { .. }
            | HoldReason::OperatorHold { .. }
            | HoldReason::PlannedMaintenance { .. }
            | HoldReason::BlockedWindow { .. }
            | HoldReason::Invalid { .. }
            | HoldReason::UnseenCluster
            | HoldReason::UnknownZone { .. }
            | HoldReason::Refused { .. }
            | HoldReason::TooNarrow { .. }
            | HoldReason::SingleInstance { .. }
            | HoldReason::SingleNode { .. }
            | HoldReason::RolloutInProgress { .. }
            | HoldReason::FaultElsewhere { .. }
            | HoldReason::RegionalFault
            | HoldReason::AnotherZoneIsolated { .. }
            | HoldReason::TooFewHealthyZones { .. }
            | HoldReason::UnreachableService { .. }
            | HoldReason::CapacityTrap { .. }
            | HoldReason::InsufficientHeadroom { .. }
            | HoldReason::InsufficientCpu { .. }
            | HoldReason::CoolingDown { .. }
            | HoldReason::BudgetSpent { .. } => finding.persistent,
        };
        if worth_a_record { self.blocked(zone, finding, (reason, Vec::new()), time).await } else { Ok(()) }
    }

    async fn blocked(
        &mut self,
        zone: &Zone,
        finding: &Finding,
        (reason, said): (HoldReason, Vec<Guardrail>),
        time: Timestamp,
    ) -> Result<(), AuditError> {
        let standing = self.standings.entry(zone.clone()).or_default();
        // It is no longer wished for: the next wish is another.
        standing.asked = false;
        if standing.held_by.replace(reason.as_str().to_owned()).as_deref() == Some(reason.as_str()) {
            return Ok(());
        }
        let message = format!("{zone} is not isolated: {reason}. Seen: {}", notes::strongest(finding));
        let mut record = Record::new(time, Event::Blocked, message).evidence(&finding.evidence);
        record.verdict = Some(finding.verdict.clone());
        record.reason = Some(reason);
        record.guardrails = said;
        self.record(record, Some(zone)).await
    }

    /// What guardrails look at, in this cycle.
    fn situation<'a>(
        &'a self,
        sight: &'a Sight,
        isolations: &'a [Isolation],
        holds: &'a BTreeMap<Zone, OperatorHold>,
    ) -> Situation<'a> {
        Situation {
            snapshot: &sight.snapshot,
            assessment: &sight.assessment,
            cluster: sight.snapshot.cluster.as_ref(),
            isolations,
            holds,
            pause: &self.pause,
            silences: &self.silences,
            leads: self.leads,
            acts: self.settings.mode != Mode::Observe,
        }
    }

    async fn isolate(
        &mut self,
        request: Request,
        sight: &Sight,
        finding: &Finding,
        (isolations, holds): (&mut Vec<Isolation>, &BTreeMap<Zone, OperatorHold>),
        now: Timestamp,
    ) -> Result<(), TickError> {
        let snapshot = &sight.snapshot;
        let situation = self.situation(sight, isolations, holds);
        let outcomes = guard::examine(&situation, &request, &self.settings.guard, now);
        let said = guard::said(&outcomes, &situation, &request, &self.settings.guard, now);
        let passed = match guard::settle(outcomes) {
            Ok(passed) => guard::Passed { said, ..passed },
            Err(reason) => return Ok(self.blocked(&request.zone, finding, (reason, said), snapshot.time).await?),
        };
        let zone = request.zone;
        let message = format!(
            "{zone} {} isolated for {}: alone in being worse, for {} where {} suffice: {}",
            match self.settings.mode {
                Mode::Observe => "would be",
                Mode::Recommend => "should, once a person approves, be",
                Mode::Enforce => "is to be",
            },
            request.expires_after,
            finding.lasted,
            finding.needed,
            notes::strongest(finding)
        );
        let mut record = Record::new(snapshot.time, Event::Isolate, message.clone()).evidence(&request.evidence);
        record.verdict = Some(finding.verdict.clone());
        let record = passed.on(record);
        let standing = self.standings.entry(zone.clone()).or_default();
        standing.held_by = None;
        standing.worse_elsewhere = self.history.worse_elsewhere(&zone);
        standing.severity = finding.evidence.iter().map(|e| e.severity).fold(0.0, f64::max);
        // What could not be stored in the last cycle is on record.
        if !standing.asked {
            self.record(record, Some(&zone)).await?;
            self.standings.entry(zone.clone()).or_default().asked = true;
        }
        let spec = IsolationSpec {
            zone,
            origin: request.origin,
            reason: message,
            evidence: request.evidence.iter().map(ToString::to_string).collect(),
            expires_at: now + request.expires_after.signed(),
            share: Share::NONE,
            only: BTreeSet::new(),
            overrides: BTreeSet::new(),
            approved: self.settings.mode != Mode::Recommend,
        };
        let zone = spec.zone.clone();
        let created = self.store.create(spec, now).await;
        if let Err(StoreError::Impossible(why)) = created {
            let reason = HoldReason::Invalid { why };
            return Ok(self.blocked(&zone, finding, (reason, Vec::new()), snapshot.time).await?);
        }
        if created.is_ok() {
            *isolations = self.store.list().await?;
            self.standings.entry(zone).or_default().asked = false;
        }
        Ok(created?)
    }

    /// A fault that reaches a second zone soon after the first was isolated is no zone's: the capacity goes back at once.
    async fn reclassify(
        &mut self,
        sight: &Sight,
        isolations: &mut [Isolation],
        now: Timestamp,
    ) -> Result<(), TickError> {
        let recent = |isolation: &&mut Isolation| {
            let began = isolation.admitted_at().filter(|_| isolation.holds_zone_out() && !isolation.returning(now));
            isolation.spec.origin == Origin::Detector
                && began.is_some_and(|at| now.duration_since(at) <= RECLASSIFIED_WITHIN)
        };
        let acts = self.leads && !self.pause.is_on();
        let Some(isolation) = isolations.iter_mut().find(recent).filter(|_| acts) else { return Ok(()) };
        let zone = &isolation.zone().clone();
        // More load alone makes the others a little slower: only what is about as bad is the same fault.
        let Some(standing) = self.standings.get(zone) else { return Ok(()) };
        let mut others = self.history.zones().iter().filter(|other| *other != zone);
        let as_bad = others.find_map(|other| {
            let before = &standing.worse_elsewhere;
            let (service, worse) = self.history.left_its_past(other, before, &self.settings.detect)?;
            (standing.severity > 0.0 && worse >= AS_BAD * standing.severity).then_some((other, service))
        });
        let Some((second, service)) = as_bad else { return Ok(()) };
        let message = format!(
            "{service} has become as bad in {second} soon after {zone} was isolated: the fault is regional, and {zone} is given \
             back"
        );
        let record = Record::new(sight.snapshot.time, Event::Reclassified, message);
        let standing = self.standings.entry(zone.clone()).or_default();
        // While it can't be stored, each cycle tries anew.
        let began = isolation.admitted_at();
        if std::mem::replace(&mut standing.reclassified, began) != began {
            self.record(record, Some(zone)).await?;
        }
        isolation.end("its fault turned out to be regional".to_owned(), now);
        Ok(self.store.save_course(isolation).await?)
    }

    async fn record(&mut self, mut record: Record, zone: Option<&Zone>) -> Result<(), AuditError> {
        record.zone = zone.cloned();
        record.rehearsal = self.settings.mode == Mode::Observe && record.event == Event::Isolate;
        if matches!(record.event, Event::Suspect | Event::Blocked | Event::Isolate) && record.verdict.is_some() {
            let at_any_rate = record.event == Event::Isolate;
            self.cite_inputs(&mut record, at_any_rate).await;
        }
        self.audit.append(record).await
    }
}
