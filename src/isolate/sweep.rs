//! Undoes what no isolation accounts for: its object was lost, or somebody took its finalizer off.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use thiserror::Error;

use super::execute::AdvanceError;
use crate::domain::isolation::{OperatorHold, StepName};
use crate::domain::{Event, Isolation, Receipt, Record, Share, Zone};
use crate::ports::{AuditError, AuditSink, IsolationStep, IsolationStore, StepError, StoreError};

#[derive(Debug, Error)]
pub enum SweepError {
    #[error("{step}: {error}")]
    Step { step: StepName, error: StepError },
    #[error(transparent)]
    Advance(#[from] AdvanceError),
}

impl From<StoreError> for SweepError {
    fn from(error: StoreError) -> Self {
        Self::Advance(error.into())
    }
}

impl From<AuditError> for SweepError {
    fn from(error: AuditError) -> Self {
        Self::Advance(error.into())
    }
}

/// Looks again and again, and puts each find on record once.
#[derive(Default)]
pub struct Sweeper {
    found: BTreeSet<(StepName, Zone)>,
}

impl Sweeper {
    /// Looks for marks first and for isolations then: an isolation is saved before it marks anything, so a mark that none
    /// accounts for is left over. Returns how many steps had some. Every step is looked at; the first failure is told.
    pub async fn sweep(
        &mut self,
        steps: &[Arc<dyn IsolationStep>],
        store: &dyn IsolationStore,
        audit: &dyn AuditSink,
        now: Timestamp,
    ) -> Result<usize, SweepError> {
        let mut swept = 0;
        let mut result = Ok(());
        for step in steps {
            let failed = |error| SweepError::Step { step: step.name(), error };
            let marked = match step.marked().await {
                Ok(marked) => marked,
                Err(error) => {
                    result = result.and(Err(failed(error)));
                    continue;
                }
            };
            let isolations: Vec<Isolation> = if marked.is_empty() { Vec::new() } else { store.list().await? };
            let accounted = |zone: &Zone| isolations.iter().any(|i| i.holds_zone_out() && i.zone() == zone);
            let left_over: Vec<Zone> = marked.into_iter().filter(|zone| !accounted(zone)).collect();
            self.found.retain(|(name, zone)| *name != step.name() || left_over.contains(zone));
            for zone in left_over {
                swept += 1;
                let find = (step.name(), zone.clone());
                if !self.found.contains(&find) {
                    // Once the marks are gone, nothing tells any more that a person wanted the zone back.
                    let why = "its isolation was taken away by hand".to_owned();
                    let hold = OperatorHold { since: now, why, until_healthy: true };
                    if let Err(error) = store.hold(&zone, hold).await {
                        result = result.and(Err(error.into()));
                        continue;
                    }
                    self.found.insert(find);
                    let message =
                        format!("{zone}: no isolation accounts for marks of the step {}: they go", step.name());
                    let said = audit.append(Record::new(now, Event::Restore, message).zone(&zone)).await;
                    result = result.and(said.map_err(Into::into));
                }
                let undone = step.apply(&zone, &Receipt::default(), Share::FULL).await;
                result = result.and(undone.map_err(failed));
            }
        }
        result.map(|()| swept)
    }
}
