//! How a step's entry changes: one match over state and event; anything else is illegal.

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use crate::domain::isolation::{Receipt, STUCK_AFTER, Share, StepEntry, StepState};
use crate::ports::StepError;

const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// A wait is longer by up to one part in so many, so that steps that failed together don't come back together.
const JITTER: i32 = 4;

/// What came of a verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepEvent {
    Captured(Receipt),
    Applied(Share),
    Confirmed(Share),
    /// It was as wanted, or is so again: what was mended.
    Kept(Vec<String>),
    Failed(StepError),
    /// It was never begun, so there is nothing to undo.
    NothingToUndo,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a step that is {state} can't become so by {event}: this is a defect of zoneward")]
pub struct IllegalTransition {
    state: &'static str,
    event: String,
}

impl StepEntry {
    /// Moves on by what came of a verb.
    pub fn record(&mut self, event: StepEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        use StepState::{Applied, Captured, Confirmed, Pending, Stuck, Undone};
        let state =
            match (self.state, event) {
                (Pending | Undone, StepEvent::Captured(receipt)) => {
                    self.receipt = Some(receipt);
                    Captured
                }
                (Pending, StepEvent::NothingToUndo) => Undone,
                (Captured | Applied { .. } | Confirmed { .. } | Stuck, StepEvent::Applied(share)) => Applied { share },
                (Applied { share: applied }, StepEvent::Confirmed(share)) if applied == share => {
                    if share == Share::FULL { Undone } else { Confirmed { share } }
                }
                (state @ Confirmed { .. }, StepEvent::Kept(_)) => state,
                (
                    state @ (Pending | Captured | Applied { .. } | Confirmed { .. } | Undone | Stuck),
                    StepEvent::Failed(error),
                ) => {
                    return {
                        self.fail(state, &error, now);
                        Ok(())
                    };
                }
                (state, event) => return Err(IllegalTransition { state: state.as_str(), event: format!("{event:?}") }),
            };
        // What was in vain for long may fail again at reading back: a person is called until that is over.
        if !(self.is_stuck() && matches!(state, Applied { .. })) {
            (self.failures, self.last_error) = (0, None);
        }
        (self.state, self.retry_at) = (state, None);
        Ok(())
    }

    /// Whether it is not yet to be tried again. Nothing waits longer than was ever set: then the clock was set back.
    pub(super) fn waits(&self, now: Timestamp) -> bool {
        self.retry_at.is_some_and(|at| at > now && at.duration_since(now) <= LONGEST_WAIT + LONGEST_WAIT / JITTER)
    }

    /// Waits longer each time. What may have been changed and can't be moved on calls for a person.
    fn fail(&mut self, state: StepState, error: &StepError, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let (retry_after, permanent) = match error {
            StepError::Transient { retry_after, .. } => (*retry_after, false),
            StepError::Permanent { .. } => (LONGEST_WAIT, true),
        };
        let doubled = SignedDuration::from_secs(1 << self.failures.min(6));
        let wait = retry_after.max(if state == StepState::Stuck { LONGEST_WAIT } else { doubled / 2 });
        if permanent {
            self.failures = self.failures.max(STUCK_AFTER);
        }
        let touched = !matches!(state, StepState::Pending | StepState::Undone);
        self.state = if touched && (permanent || self.failures >= STUCK_AFTER) { StepState::Stuck } else { state };
        self.retry_at = Some(now + spread(wait.min(LONGEST_WAIT), now));
        self.last_error = Some(error.to_string());
    }
}

/// By what the moment has below a second, so that the same moment always gives the same.
fn spread(wait: SignedDuration, now: Timestamp) -> SignedDuration {
    // Knuth's multiplier: moments that are close by give fractions that are not.
    let fraction = f64::from((now.subsec_nanosecond() as u32).wrapping_mul(2_654_435_761)) / f64::from(u32::MAX);
    wait + (wait / JITTER).mul_f64(fraction)
}
