//! One verb of a step, within its time, and cut short by a pause.

use std::time::Duration;

use tokio::sync::watch;

use super::ledger::StepEvent;
use super::plan::Next;
use crate::domain::{Pause, Receipt, Share, Zone};
use crate::ports::{IsolationStep, StepError};

/// Steps bound their own calls; this bounds what they forgot.
const LONGEST: Duration = Duration::from_mins(5);

/// Runs it. What is cut short may have been done in part, as after a crash.
pub(super) async fn run(
    step: &dyn IsolationStep,
    zone: &Zone,
    receipt: &Receipt,
    next: Next,
    pause: Option<watch::Receiver<Pause>>,
) -> StepEvent {
    let verb = async {
        match next {
            Next::Capture => step.capture(zone).await.map(StepEvent::Captured),
            Next::Apply(share) => step.apply(zone, receipt, share).await.map(|()| StepEvent::Applied(share)),
            Next::Keep(share) => keep(step, zone, receipt, share).await.map(StepEvent::Kept),
            Next::Confirm(share) => step.confirm(zone, receipt, share).await.map(|()| StepEvent::Confirmed(share)),
            Next::Nothing | Next::Close => Ok(StepEvent::NothingToUndo),
        }
    };
    let late = || StepError::soon(format!("it took more than {} s", LONGEST.as_secs()));
    let bounded = async { tokio::time::timeout(LONGEST, verb).await.unwrap_or_else(|_| Err(late())) };
    let done = match pause {
        None => bounded.await,
        Some(pause) => tokio::select! {
            done = bounded => done,
            why = paused(pause) => Err(StepError::soon(format!("it was cut short, as {why}"))),
        },
    };
    done.unwrap_or_else(StepEvent::Failed)
}

/// Mends what is not as it was applied. Says what that was.
async fn keep(
    step: &dyn IsolationStep,
    zone: &Zone,
    receipt: &Receipt,
    share: Share,
) -> Result<Vec<String>, StepError> {
    let drift = step.drift(zone, receipt, share).await?;
    step.apply(zone, receipt, share).await?;
    Ok(drift)
}

/// Comes back once a person has paused it, for sure.
pub(super) async fn paused(mut pause: watch::Receiver<Pause>) -> Pause {
    let on = pause.wait_for(Pause::is_on).await.map(|on| on.clone());
    match on {
        Ok(on) => on,
        // Nobody can pause it any more.
        Err(_) => std::future::pending().await,
    }
}
