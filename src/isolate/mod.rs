//! Takes a zone out of rotation and gives it back: the one executor, whoever asked.

mod ledger;
mod plan;
mod store;

pub use ledger::{IllegalTransition, StepEvent};
pub use store::MemoryStore;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use thiserror::Error;

use self::plan::Next;
use crate::domain::isolation::{Share, StepEntry, StepName};
use crate::domain::record::StepRecord;
use crate::domain::{Event, Isolation, Record, StepState, Zone};
use crate::ports::{AuditError, AuditSink, IsolationStep, IsolationStore, StoreError};

#[derive(Debug, Error)]
pub enum AdvanceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

/// Brings one isolation as far as it gets now: forward while it is wanted, back once it expired or was called back.
///
/// Guarantees: each change of the ledger is saved before the next verb of that step runs, so that what may have been
/// done is always on record; steps run side by side, and none waits for another; every verb may run again after a crash.
/// Without any steps it is a rehearsal: it begins, expires and ends, and nothing is claimed to have been done.
pub async fn advance(
    isolation: &mut Isolation,
    steps: &[Arc<dyn IsolationStep>],
    store: &dyn IsolationStore,
    audit: &dyn AuditSink,
    now: Timestamp,
) -> Result<(), AdvanceError> {
    if !isolation.active() {
        return Ok(());
    }
    let returning = isolation.returning(now);
    let mut trouble = Trouble::default();
    if returning && isolation.returning_since.is_none() {
        let verb = if steps.is_empty() { "would be" } else { "is" };
        let message = format!("{} {verb} given back, {}", isolation.zone, why_returning(isolation));
        let mut record = Record::new(now, Event::Restore, message).zone(&isolation.zone);
        record.rehearsal = steps.is_empty();
        match audit.append(record).await {
            Ok(()) => isolation.returning_since = Some(now),
            Err(error) => trouble.take(Err(error), returning)?,
        }
        store.save(isolation).await?;
    }
    let wanted = if returning { Share::FULL } else { isolation.share };
    for step in steps {
        isolation.steps.entry(step.name()).or_default();
    }
    let mut running = FuturesUnordered::new();
    for step in steps {
        running.extend(run_next(step, isolation, wanted, now));
    }
    while let Some((step, event)) = running.next().await {
        let name = step.name();
        let entry = isolation.steps.entry(name.clone()).or_default();
        let before = entry.state;
        entry.record(event, now)?;
        let change =
            (entry.state != before).then(|| StepRecord { name, state: entry.state, error: entry.last_error.clone() });
        if let Some(change) = change {
            trouble.take(audit.append(step_record(&isolation.zone, change, now)).await, returning)?;
        }
        store.save(isolation).await?;
        running.extend(run_next(step, isolation, wanted, now));
    }
    drop(running);
    for change in orphans(isolation, steps) {
        trouble.take(audit.append(step_record(&isolation.zone, change, now)).await, returning)?;
        store.save(isolation).await?;
    }
    finish(isolation, store, audit, (returning, now), &mut trouble).await?;
    trouble.end()
}

/// What could not be put on record. Nothing is changed without a record; but a zone is given back all the same.
#[derive(Debug, Default)]
struct Trouble(Option<AuditError>);

impl Trouble {
    fn take(&mut self, recorded: Result<(), AuditError>, returning: bool) -> Result<(), AuditError> {
        match recorded {
            Err(error) if returning => {
                self.0.get_or_insert(error);
                Ok(())
            }
            other => other,
        }
    }

    fn end(self) -> Result<(), AdvanceError> {
        self.0.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Steps that began and are not configured any more: nobody can undo them but a person.
fn orphans(isolation: &mut Isolation, steps: &[Arc<dyn IsolationStep>]) -> Vec<StepRecord> {
    let known: Vec<StepName> = steps.iter().map(|step| step.name()).collect();
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

/// Advances every isolation that has not ended.
pub async fn advance_all(
    steps: &[Arc<dyn IsolationStep>],
    store: &dyn IsolationStore,
    audit: &dyn AuditSink,
    now: Timestamp,
) -> Result<(), AdvanceError> {
    for mut isolation in store.list().await?.into_iter().filter(Isolation::active) {
        advance(&mut isolation, steps, store, audit, now).await?;
    }
    Ok(())
}

/// The step's next verb, if one is due.
fn run_next<'a>(
    step: &'a Arc<dyn IsolationStep>,
    isolation: &Isolation,
    wanted: Share,
    now: Timestamp,
) -> Option<impl Future<Output = (&'a Arc<dyn IsolationStep>, StepEvent)> + use<'a>> {
    let entry = isolation.steps.get(&step.name())?;
    let next = plan::next(entry, wanted, now);
    let receipt = entry.receipt.clone().unwrap_or_default();
    let zone = isolation.zone.clone();
    match next {
        Next::Nothing => None,
        Next::Capture | Next::Apply(_) | Next::Confirm(_) | Next::Close => Some(async move {
            let event = match next {
                Next::Capture => step.capture(&zone).await.map(StepEvent::Captured),
                Next::Apply(share) => step.apply(&zone, &receipt, share).await.map(|()| StepEvent::Applied(share)),
                Next::Confirm(share) => {
                    step.confirm(&zone, &receipt, share).await.map(|()| StepEvent::Confirmed(share))
                }
                Next::Nothing | Next::Close => Ok(StepEvent::NothingToUndo),
            };
            (step, event.unwrap_or_else(StepEvent::Failed))
        }),
    }
}

/// Notes that every step is where it should be. It goes on record first: after a crash between the two a record stands
/// twice, but none is lost.
async fn finish(
    isolation: &mut Isolation,
    store: &dyn IsolationStore,
    audit: &dyn AuditSink,
    (returning, now): (bool, Timestamp),
    trouble: &mut Trouble,
) -> Result<(), AdvanceError> {
    let all = |state: StepState| isolation.steps.values().all(|entry| entry.state == state);
    let count = isolation.steps.len();
    let zone = isolation.zone.clone();
    let (event, message) = if returning && all(StepState::Undone) {
        isolation.restored_at = Some(now);
        (Event::Restored, format!("{zone} is back in rotation: every step was undone"))
    } else if !returning && isolation.isolated_at.is_none() && all(StepState::Confirmed { share: isolation.share }) {
        isolation.isolated_at = Some(now);
        let took = now.duration_since(isolation.requested_at).as_secs();
        (Event::Isolated, format!("{zone} is out of rotation: {count} steps confirmed within {took} s"))
    } else {
        return Ok(());
    };
    if count > 0 {
        trouble.take(audit.append(Record::new(now, event, message).zone(&zone)).await, returning)?;
    }
    Ok(store.save(isolation).await?)
}

fn why_returning(isolation: &Isolation) -> &'static str {
    if isolation.restore_requested_at.is_some() { "as was asked" } else { "as its isolation expired" }
}

fn step_record(zone: &Zone, change: StepRecord, now: Timestamp) -> Record {
    let name: &StepName = &change.name;
    let message = match (change.state, &change.error) {
        (StepState::Pending, _) => format!("{name}: not begun"),
        (StepState::Captured, _) => format!("{name}: the state before is on record"),
        (StepState::Applied { share }, _) => format!("{name}: set to {share} of the usual traffic, to be confirmed"),
        (StepState::Confirmed { share }, _) => format!("{name}: read back, {share} of the usual traffic"),
        (StepState::Undone, _) => format!("{name}: undone, as it was before"),
        (StepState::Stuck, Some(error)) => {
            format!("{name}: stuck, a person has to look ({error}); the receipt says what to restore")
        }
        (StepState::Stuck, None) => format!("{name}: stuck, a person has to look"),
    };
    let mut record = Record::new(now, Event::Step, message).zone(zone);
    record.step = Some(change);
    record
}
