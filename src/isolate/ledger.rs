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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HALF: Share = Share::percent(50);
    const OUT: StepState = StepState::Applied { share: Share::NONE };
    const READ_BACK: StepState = StepState::Confirmed { share: Share::NONE };
    const STATES: [StepState; 6] =
        [StepState::Pending, StepState::Captured, OUT, READ_BACK, StepState::Undone, StepState::Stuck];

    /// A whole second: waits that begin then are not spread.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn entry(state: StepState) -> StepEntry {
        StepEntry { state, ..StepEntry::default() }
    }

    fn forbidden() -> StepEvent {
        StepEvent::Failed(StepError::Permanent { why: "forbidden".into() })
    }

    fn no_answer() -> StepEvent {
        StepEvent::Failed(StepError::soon("no answer"))
    }

    #[test]
    fn each_event_leads_on_from_some_states_and_from_the_others_is_a_defect() {
        let ways = |event: &StepEvent| -> Vec<(StepState, StepState)> {
            let way = |state: StepState| {
                let mut entry = entry(state);
                entry.record(event.clone(), at(0)).ok().map(|()| (state, entry.state))
            };
            STATES.into_iter().filter_map(way).collect()
        };
        let captured = StepState::Captured;
        let again = ways(&StepEvent::Captured(Receipt::default()));
        assert_eq!(again, [(StepState::Pending, captured), (StepState::Undone, captured)]);
        assert_eq!(ways(&StepEvent::NothingToUndo), [(StepState::Pending, StepState::Undone)]);
        let half = StepState::Applied { share: HALF };
        let applied = ways(&StepEvent::Applied(HALF));
        assert_eq!(applied, [captured, OUT, READ_BACK, StepState::Stuck].map(|state| (state, half)));
        assert_eq!(ways(&StepEvent::Confirmed(Share::NONE)), [(OUT, READ_BACK)]);
        assert!(ways(&StepEvent::Confirmed(HALF)).is_empty(), "what is read back is what was applied last");
        assert_eq!(ways(&StepEvent::Kept(Vec::new())), [(READ_BACK, READ_BACK)]);
        assert_eq!(ways(&no_answer()), STATES.map(|state| (state, state)), "tried again from where it is");
    }

    #[test]
    fn a_zone_that_has_all_of_its_traffic_again_is_undone() {
        let mut entry = entry(StepState::Applied { share: Share::FULL });
        entry.record(StepEvent::Confirmed(Share::FULL), at(0)).unwrap();
        assert_eq!(entry.state, StepState::Undone);
    }

    #[test]
    fn failures_wait_longer_each_time_and_the_sixth_calls_a_person() {
        let mut entry = entry(StepState::Captured);
        let waits = [(); 8].map(|()| {
            entry.record(no_answer(), at(0)).unwrap();
            (entry.retry_at.unwrap().duration_since(at(0)).as_secs(), entry.state == StepState::Stuck)
        });
        let doubled = [1, 2, 4, 8, 16].map(|seconds| (seconds, false)).to_vec();
        assert_eq!(waits.to_vec(), [doubled, vec![(32, true), (60, true), (60, true)]].concat());
    }

    #[test]
    fn a_wait_is_as_long_as_the_other_side_asks_for_up_to_a_minute() {
        let wait = |retry_after: SignedDuration| {
            let mut entry = entry(StepState::Captured);
            let busy = StepError::Transient { why: "busy".into(), retry_after };
            entry.record(StepEvent::Failed(busy), at(0)).unwrap();
            entry.retry_at.unwrap().duration_since(at(0))
        };
        assert_eq!(wait(SignedDuration::from_secs(20)), SignedDuration::from_secs(20));
        assert_eq!(wait(SignedDuration::from_mins(10)), LONGEST_WAIT);
    }

    #[test]
    fn what_another_try_cannot_mend_calls_a_person_at_once_and_is_stuck_where_something_may_be_changed() {
        for state in STATES {
            let mut entry = entry(state);
            entry.record(forbidden(), at(0)).unwrap();
            let touched = !matches!(state, StepState::Pending | StepState::Undone);
            assert_eq!(entry.state, if touched { StepState::Stuck } else { state });
            assert!(entry.is_stuck(), "{state:?}");
            assert_eq!((entry.retry_at, entry.last_error.as_deref()), (Some(at(60)), Some("forbidden")));
        }
        let mut never_begun = entry(StepState::Pending);
        (0..7).for_each(|_| never_begun.record(no_answer(), at(0)).unwrap());
        assert_eq!(never_begun.state, StepState::Pending, "there is nothing to restore");
    }

    #[test]
    fn success_forgets_failures_but_what_was_stuck_has_to_be_read_back_first() {
        let failed = |state, failures| StepEntry {
            failures,
            retry_at: Some(at(5)),
            last_error: Some("no answer".into()),
            ..entry(state)
        };
        let mut once = failed(StepState::Captured, 3);
        once.record(StepEvent::Applied(Share::NONE), at(6)).unwrap();
        assert_eq!(once, entry(OUT));
        let mut stuck = failed(StepState::Stuck, STUCK_AFTER);
        stuck.record(StepEvent::Applied(Share::FULL), at(6)).unwrap();
        let applied = StepState::Applied { share: Share::FULL };
        assert_eq!(stuck, StepEntry { retry_at: None, ..failed(applied, STUCK_AFTER) });
        stuck.record(StepEvent::Confirmed(Share::FULL), at(7)).unwrap();
        assert_eq!(stuck, entry(StepState::Undone));
    }

    #[test]
    fn nothing_waits_for_longer_than_was_ever_set_as_after_the_clock_was_set_back() {
        let waits = |retry_s| StepEntry { retry_at: Some(at(retry_s)), ..entry(StepState::Captured) }.waits(at(0));
        assert_eq!([-1, 0, 1, 75, 76].map(waits), [false, false, true, true, false]);
        assert!(!entry(StepState::Captured).waits(at(0)));
    }

    #[test]
    fn steps_that_failed_together_come_back_apart_by_up_to_a_quarter_of_their_wait() {
        let wait = |nanosecond| spread(LONGEST_WAIT, Timestamp::new(1_800_000_000, nanosecond).unwrap());
        assert_eq!(wait(0), LONGEST_WAIT);
        let waits: BTreeSet<SignedDuration> = (1..=100).map(|nth| wait(7_919 * nth)).collect();
        let (shortest, longest) = (waits.first().unwrap().as_secs(), waits.last().unwrap().as_secs());
        assert!(waits.len() == 100 && (60..62).contains(&shortest) && (73..75).contains(&longest), "{waits:?}");
    }
}
