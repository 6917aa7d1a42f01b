//! Undoes what no isolation accounts for: its object was lost, or somebody took its finalizer off.

use std::sync::Arc;

use jiff::Timestamp;

use super::execute::AdvanceError;
use crate::domain::{Event, Isolation, Receipt, Record, Share};
use crate::ports::{AuditSink, IsolationStep, IsolationStore};

/// Looks for marks first and for isolations then: an isolation is saved before it marks anything, so a mark that none
/// accounts for is left over. Returns how many steps had some. One that can't be looked at is looked at next time.
pub async fn sweep(
    steps: &[Arc<dyn IsolationStep>],
    store: &dyn IsolationStore,
    audit: &dyn AuditSink,
    now: Timestamp,
) -> Result<usize, AdvanceError> {
    let mut swept = 0;
    for step in steps {
        let marked = step.marked().await.unwrap_or_default();
        if marked.is_empty() {
            continue;
        }
        let isolations: Vec<Isolation> = store.list().await?;
        for zone in marked {
            if isolations.iter().any(|isolation| isolation.holds_zone_out() && *isolation.zone() == zone) {
                continue;
            }
            swept += 1;
            let message =
                format!("{zone}: no isolation accounts for the marks of the step {}: they are undone", step.name());
            audit.append(Record::new(now, Event::Restore, message).zone(&zone)).await?;
            // What fails is found again.
            let _found_again = step.apply(&zone, &Receipt::default(), Share::FULL).await;
        }
    }
    Ok(swept)
}
