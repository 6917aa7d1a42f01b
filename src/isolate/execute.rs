//! Brings isolations as far as they get: forward while they are wanted, back once they expired or were called back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use tokio::sync::watch;

use super::ledger::{IllegalTransition, StepEvent};
use super::plan::{self, Next};
use super::unrecorded::Unrecorded;
use super::{verb, words};
use crate::domain::isolation::{OperatorHold, StepEntry, StepName};
use crate::domain::record::StepRecord;
use crate::domain::{Admission, Event, HoldReason, Isolation, Origin, Pause, Record, StepState, Zone};
use crate::guard::Passed;
use crate::ports::{AuditError, AuditSink, IsolationStep, IsolationStore, StoreError};

/// Between two looks at a step that is as wanted, unless something disturbs it.
const KEEP_EVERY: SignedDuration = SignedDuration::from_secs(5);

#[derive(Debug, Error)]
pub enum AdvanceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

/// Whether an isolation may begin: the guard on the newest data.
pub type Admit = dyn Fn(&Isolation, &[Isolation], &BTreeMap<Zone, OperatorHold>, Timestamp) -> Result<Passed, HoldReason>
    + Send
    + Sync;

/// Whether this replica is the one that acts, as of now.
pub type Leads = dyn Fn() -> bool + Send + Sync;

/// What came of a verb.
pub struct Done {
    episode: String,
    step: StepName,
    event: StepEvent,
    /// Whether the verb before it failed.
    after_failure: bool,
}

/// Runs the steps of every isolation.
///
/// Guarantees: guardrails are asked before the first verb; each change of the ledger is saved before the next verb of that
/// step runs, so that what may have been done is always on record; no step waits for another; every verb may run again
/// after a crash. Without any steps it is a rehearsal: it begins, expires and ends, and nothing is claimed to have been
/// done.
pub struct Executor {
    steps: Vec<Arc<dyn IsolationStep>>,
    store: Arc<dyn IsolationStore>,
    audit: Arc<dyn AuditSink>,
    admit: Box<Admit>,
    /// Asked before each verb and each admission.
    leads: Box<Leads>,
    pause: watch::Receiver<Pause>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    busy: BTreeSet<(String, StepName)>,
    kept_at: BTreeMap<(String, StepName), Timestamp>,
    /// Verbs of which nothing could be put on the ledger, so that they are done again: when that was.
    unsettled_at: BTreeMap<(String, StepName), Timestamp>,
    /// Records whose ledger could not be saved yet: they are not written again when it is tried again.
    said: BTreeSet<(String, Event, String)>,
    /// Episodes whose end by hand is noted as a hold.
    held: BTreeSet<String>,
    /// As they were when last looked at: those that have not ended.
    active: Vec<Isolation>,
}

impl Executor {
    pub fn new(
        steps: Vec<Arc<dyn IsolationStep>>,
        store: Arc<dyn IsolationStore>,
        audit: Arc<dyn AuditSink>,
        admit: Box<Admit>,
        leads: Box<Leads>,
    ) -> Self {
        let (running, busy) = (FuturesUnordered::new(), BTreeSet::new());
        let (kept_at, unsettled_at) = (BTreeMap::new(), BTreeMap::new());
        let (said, held) = (BTreeSet::new(), BTreeSet::new());
        let (_, pause) = watch::channel(Pause::Off);
        let active = Vec::new();
        Self { steps, store, audit, admit, leads, pause, running, busy, kept_at, unsettled_at, said, held, active }
    }

    /// Lets a person pause it.
    #[must_use]
    pub fn pausable(self, pause: watch::Receiver<Pause>) -> Self {
        Self { pause, ..self }
    }

    /// One whose requests were all admitted before.
    pub fn trusting(
        steps: Vec<Arc<dyn IsolationStep>>,
        store: Arc<dyn IsolationStore>,
        audit: Arc<dyn AuditSink>,
    ) -> Self {
        Self::new(steps, store, audit, Box::new(|_, _, _, _| Ok(Passed::default())), Box::new(|| true))
    }

    pub fn active(&self) -> &[Isolation] {
        &self.active
    }

    /// Whether the last look found a zone out of rotation.
    pub fn any_out(&self) -> bool {
        self.active.iter().any(Isolation::holds_zone_out)
    }

    /// Something changed that steps look at: they look at once.
    pub fn disturb(&mut self) {
        let follow = |name: &StepName| self.steps.iter().any(|step| step.name() == *name && step.follows_cluster());
        self.kept_at.retain(|(_, name), _| !follow(name));
    }

    /// Forgets the verbs that run: another replica acts from now on.
    pub fn abandon(&mut self) {
        self.running = FuturesUnordered::new();
        self.busy.clear();
        self.kept_at.clear();
        self.unsettled_at.clear();
    }

    /// Starts what is due, and waits for none of it. A failure with one isolation does not keep others from going on. The
    /// time is asked for each of them: what one takes to be put on record must not make old what the next is admitted on.
    pub async fn turn(&mut self, now: impl Fn() -> Timestamp + Send) -> Result<(), AdvanceError> {
        let mut isolations = self.store.list().await?;
        let known: BTreeSet<&String> = isolations.iter().filter(|i| i.active()).map(|i| &i.id).collect();
        self.kept_at.retain(|(episode, _), _| known.contains(episode));
        self.unsettled_at.retain(|(episode, _), _| known.contains(episode));
        self.said.retain(|(episode, _, _)| known.contains(episode));
        self.held.retain(|episode| known.contains(episode));
        let mut first_failure = Ok(());
        for at in 0..isolations.len() {
            if isolations[at].active() {
                let mut isolation = isolations[at].clone();
                let advanced = self.advance(&mut isolation, &isolations, now()).await;
                // The next one must know that this one may have begun. What could not be saved has not ended.
                if isolation.active() || advanced.is_ok() {
                    isolations[at] = isolation;
                }
                first_failure = first_failure.and(advanced);
            }
        }
        isolations.retain(Isolation::active);
        self.active = isolations;
        first_failure
    }

    /// The next verb to end; pending for ever while none runs.
    pub async fn ended(&mut self) -> Done {
        match self.running.next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Puts on the ledger what came of a verb. What can't be saved is done again, after a while.
    pub async fn settle(&mut self, done: Done, now: Timestamp) -> Result<(), AdvanceError> {
        let key = (done.episode.clone(), done.step.clone());
        self.busy.remove(&key);
        let settled = self.put_on_ledger(done, now).await;
        if settled.is_ok() {
            self.unsettled_at.remove(&key);
        } else {
            self.unsettled_at.insert(key, now);
        }
        settled
    }

    async fn put_on_ledger(&mut self, done: Done, now: Timestamp) -> Result<(), AdvanceError> {
        let key = (done.episode, done.step);
        if let StepEvent::Kept(mended) = &done.event {
            self.kept_at.insert(key.clone(), now);
            if !done.after_failure && mended.is_empty() {
                return Ok(());
            }
        }
        let isolations = self.store.list().await?;
        let Some(mut isolation) = isolations.iter().find(|i| i.id == key.0 && i.active()).cloned() else {
            return Ok(());
        };
        if let StepEvent::Kept(mended) = &done.event {
            if !mended.is_empty() {
                self.audit.append(words::mended(isolation.zone(), &key.1, mended, now)).await?;
            }
            if !done.after_failure {
                return Ok(());
            }
        }
        let mut unrecorded = Unrecorded::new(isolation.returning(now));
        let entry = isolation.steps.entry(key.1.clone()).or_default();
        let before = entry.clone();
        entry.record(done.event, now)?;
        let (state, error) = (entry.state, entry.last_error.clone().filter(|_| entry.failures > before.failures));
        // What is tried again and again in vain was said; that it got on is news, and if it is not saved, that it did not.
        let in_vain = entry.is_stuck() && before.is_stuck() && !self.unsettled_at.contains_key(&key);
        let worth_a_record = !in_vain && (state != before.state || (error.is_some() && before.last_error != error));
        if worth_a_record {
            let change = StepRecord { name: key.1, state, error };
            let record = words::step(isolation.zone(), change, now);
            unrecorded.take(self.say(&isolation, record).await)?;
        }
        self.save(&isolation).await?;
        let advanced = self.advance(&mut isolation, &isolations, now).await;
        unrecorded.end().and(advanced)
    }

    /// Runs until nothing is due, for worlds in which verbs take no time. What can't be put on record stops nothing that
    /// has begun.
    pub async fn run_until_idle(&mut self, now: Timestamp) -> Result<(), AdvanceError> {
        let mut result = self.turn(|| now).await;
        while matches!(result, Ok(()) | Err(AdvanceError::Audit(_))) {
            let Some(done) = self.running.next().await else { break };
            let settled = self.settle(done, now).await;
            result = result.and(settled);
        }
        result
    }

    /// Puts it on record, once for each time that the ledger gets on.
    async fn say(&mut self, isolation: &Isolation, record: Record) -> Result<(), AuditError> {
        let key =
            (isolation.id.clone(), record.event, record.step.as_ref().map(|s| s.name.to_string()).unwrap_or_default());
        if self.said.contains(&key) {
            return Ok(());
        }
        self.audit.append(record).await?;
        self.said.insert(key);
        Ok(())
    }

    async fn save(&mut self, isolation: &Isolation) -> Result<(), StoreError> {
        self.store.save(isolation).await?;
        self.said.retain(|(episode, _, _)| *episode != isolation.id);
        Ok(())
    }

    async fn advance(
        &mut self,
        isolation: &mut Isolation,
        all: &[Isolation],
        now: Timestamp,
    ) -> Result<(), AdvanceError> {
        if isolation.admitted_at().is_none() && !self.admitted(isolation, all, now).await? {
            return Ok(());
        }
        if self.paused(isolation, now).await? {
            return Ok(());
        }
        let returning = isolation.returning(now);
        let mut unrecorded = Unrecorded::new(returning);
        if returning && isolation.returning_since.is_none() {
            self.begin_return(isolation, &mut unrecorded, now).await?;
        }
        if isolation.edited {
            self.save(isolation).await?;
            isolation.edited = false;
        }
        let steps = self.wanted_steps(isolation);
        for step in &steps {
            isolation.steps.entry(step.name()).or_default();
        }
        for step in &steps {
            self.start(step, isolation, now);
        }
        // What a person gave back is not taken again; but a hold that can't be noted keeps no zone out.
        let mut held = Ok(());
        if let Some(since) = isolation.restore_requested_at.filter(|_| !self.held.contains(&isolation.id)) {
            held = self.hold(&isolation.zone().clone(), since, "it was given back by hand").await;
            if held.is_ok() {
                self.held.insert(isolation.id.clone());
            }
        }
        for change in orphans(isolation, &self.steps, returning) {
            let record = words::step(isolation.zone(), change, now);
            unrecorded.take(self.say(isolation, record).await)?;
            self.save(isolation).await?;
        }
        self.finish(isolation, (&steps, returning), &mut unrecorded, now).await?;
        held?;
        unrecorded.end()
    }

    /// Whether it stays as it is. That it should have ended is said.
    async fn paused(&mut self, isolation: &Isolation, now: Timestamp) -> Result<bool, AuditError> {
        let pause = self.pause.borrow().clone();
        let stops = pause.stops(isolation, now);
        if stops && (isolation.expired(now) || isolation.returning(now)) {
            self.say(isolation, words::overdue(isolation.zone(), &pause, now)).await?;
        }
        Ok(stops)
    }

    fn wanted_steps(&self, isolation: &Isolation) -> Vec<Arc<dyn IsolationStep>> {
        let begun = |name: &StepName| isolation.steps.contains_key(name);
        let wanted = |name: &StepName| isolation.spec.only.is_empty() || isolation.spec.only.contains(name);
        let steps = self.steps.iter().filter(|step| begun(&step.name()) || wanted(&step.name()));
        steps.cloned().collect()
    }

    /// Asks the guardrails. What they refuse is asked again until it ends; what the detector asked for ends at once, as it
    /// will ask again.
    async fn admitted(
        &mut self,
        isolation: &mut Isolation,
        all: &[Isolation],
        now: Timestamp,
    ) -> Result<bool, AdvanceError> {
        let zone = isolation.zone().clone();
        if isolation.returning(now) {
            isolation.restored_at = Some(now);
            let message = format!("{zone} was not isolated: {}", words::why_never_begun(isolation));
            self.say(isolation, Record::new(now, Event::Restored, message).zone(&zone)).await?;
            if let Some(since) = isolation.restore_requested_at.filter(|_| isolation.spec.origin == Origin::Detector) {
                self.hold(&zone, since, "its isolation was declined").await?;
            }
            self.save(isolation).await?;
            return Ok(false);
        }
        let answer = self.ask(isolation, all, now).await?;
        if !(self.leads)() {
            return Ok(false);
        }
        let by_hand = isolation.spec.origin != Origin::Detector;
        let refusal = match answer {
            Ok(passed) => {
                if by_hand || isolation.admission != Admission::Pending {
                    let record = Record::new(now, Event::Admitted, words::admitted(isolation)).zone(&zone);
                    self.say(isolation, passed.on(record)).await?;
                }
                isolation.admission = Admission::Admitted(now);
                self.save(isolation).await?;
                return Ok(true);
            }
            Err(reason) => reason,
        };
        let closed = !by_hand && isolation.spec.approved;
        let known = matches!(&isolation.admission, Admission::Refused(known) if known.as_str() == refusal.as_str());
        // That it waits for a person was said when it was recommended.
        if !known && refusal != HoldReason::NotApproved {
            let mut record = Record::new(now, Event::Refused, format!("{zone} is not isolated: {refusal}")).zone(&zone);
            record.reason = Some(refusal.clone());
            self.say(isolation, record).await?;
        }
        isolation.admission = Admission::Refused(refusal);
        isolation.restored_at = closed.then_some(now);
        if closed || !known || isolation.edited {
            self.save(isolation).await?;
        }
        Ok(false)
    }

    async fn ask(
        &mut self,
        isolation: &Isolation,
        all: &[Isolation],
        now: Timestamp,
    ) -> Result<Result<Passed, HoldReason>, AdvanceError> {
        if !isolation.spec.approved {
            return Ok(Err(HoldReason::NotApproved));
        }
        let known: Vec<StepName> = self.steps.iter().map(|step| step.name()).collect();
        if let Some(step) = isolation.spec.only.iter().find(|step| !known.contains(step)) {
            let names = known.iter().map(StepName::as_str).collect::<Vec<_>>().join(", ");
            let why = format!("no step `{step}` is configured; there are {names} (steps)");
            return Ok(Err(HoldReason::Invalid { why }));
        }
        let holds = self.store.holds().await?;
        Ok((self.admit)(isolation, all, &holds, now))
    }

    async fn hold(&mut self, zone: &Zone, since: Timestamp, why: &str) -> Result<(), AdvanceError> {
        let why = format!("{why}, and is not done again for the same fault");
        Ok(self.store.hold(zone, OperatorHold { since, why, until_healthy: true }).await?)
    }

    async fn begin_return(
        &mut self,
        isolation: &mut Isolation,
        unrecorded: &mut Unrecorded,
        now: Timestamp,
    ) -> Result<(), AdvanceError> {
        let zone = isolation.zone().clone();
        let rehearsal = self.steps.is_empty();
        let verb = if rehearsal { "would be" } else { "is" };
        let message = format!("{zone} {verb} given back, {}", words::why_returning(isolation));
        let mut record = Record::new(now, Event::Restore, message).zone(&zone);
        record.rehearsal = rehearsal;
        let recorded = unrecorded.take(self.say(isolation, record).await)?;
        isolation.returning_since = recorded.then_some(now);
        Ok(self.save(isolation).await?)
    }

    /// The step's next verb, if one is due.
    fn start(&mut self, step: &Arc<dyn IsolationStep>, isolation: &Isolation, now: Timestamp) {
        let key = (isolation.id.clone(), step.name());
        let Some(entry) = isolation.steps.get(&key.1) else { return };
        let next = plan::next(entry, isolation.wanted(step.granularity(), now), now);
        let lately = |times: &BTreeMap<(String, StepName), Timestamp>| {
            times.get(&key).is_some_and(|at| now.duration_since(*at).abs() < KEEP_EVERY)
        };
        let kept = lately(&self.kept_at);
        if lately(&self.unsettled_at) {
            return;
        }
        let due = match next {
            Next::Nothing => false,
            Next::Keep(_) => !kept,
            Next::Capture | Next::Apply(_) | Next::Confirm(_) | Next::Close => true,
        };
        if !due || !(self.leads)() || !self.busy.insert(key.clone()) {
            return;
        }
        let (step, receipt) = (Arc::clone(step), entry.receipt.clone().unwrap_or_default());
        let after_failure = entry.failures > 0;
        let zone = isolation.zone().clone();
        let pause = isolation.restore_requested_at.is_none().then(|| self.pause.clone());
        self.running.push(Box::pin(async move {
            let event = verb::run(step.as_ref(), &zone, &receipt, next, pause).await;
            Done { episode: key.0, step: key.1, event, after_failure }
        }));
    }

    /// Notes that every step is where it should be. It goes on record first: after a crash between the two a record stands
    /// twice, but none is lost.
    async fn finish(
        &mut self,
        isolation: &mut Isolation,
        (steps, returning): (&[Arc<dyn IsolationStep>], bool),
        unrecorded: &mut Unrecorded,
        now: Timestamp,
    ) -> Result<(), AdvanceError> {
        let undone = |entry: &StepEntry| entry.state == StepState::Undone;
        let confirmed = |step: &Arc<dyn IsolationStep>| {
            let share = step.granularity().of_share(isolation.spec.share);
            isolation.steps.get(&step.name()).is_some_and(|entry| entry.state == StepState::Confirmed { share })
        };
        let count = isolation.steps.len();
        let zone = isolation.zone().clone();
        let (event, message) = if returning && isolation.steps.values().all(undone) {
            isolation.restored_at = Some(now);
            (Event::Restored, format!("{zone} is back in rotation: every step was undone"))
        } else if !returning && isolation.isolated_at.is_none() && steps.iter().all(confirmed) {
            isolation.isolated_at = Some(now);
            let took = now.duration_since(isolation.requested_at).as_secs();
            (Event::Isolated, format!("{zone} is out of rotation: {count} steps confirmed within {took} s"))
        } else {
            return Ok(());
        };
        if count > 0 {
            let record = Record::new(now, event, message).zone(&zone);
            unrecorded.take(self.say(isolation, record).await)?;
        }
        Ok(self.save(isolation).await?)
    }
}

/// Steps that began and are not configured any more: nobody can undo them but a person. One that never began has nothing to
/// undo.
fn orphans(isolation: &mut Isolation, steps: &[Arc<dyn IsolationStep>], returning: bool) -> Vec<StepRecord> {
    let known: Vec<StepName> = steps.iter().map(|step| step.name()).collect();
    if returning {
        isolation.steps.retain(|name, entry| known.contains(name) || entry.state != StepState::Pending);
    }
    let lost = |(name, entry): &(&StepName, &mut StepEntry)| {
        !known.contains(name) && !matches!(entry.state, StepState::Pending | StepState::Undone | StepState::Stuck)
    };
    let entries = isolation.steps.iter_mut().filter(lost);
    entries
        .map(|(name, entry)| {
            entry.state = StepState::Stuck;
            entry.last_error = Some("the step is not configured any more".to_owned());
            StepRecord { name: name.clone(), state: entry.state, error: entry.last_error.clone() }
        })
        .collect()
}
