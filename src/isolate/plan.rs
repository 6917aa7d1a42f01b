//! What a step is to do next. Pure.

use jiff::Timestamp;

use crate::domain::isolation::{Share, StepEntry, StepState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Capture,
    Apply(Share),
    Confirm(Share),
    /// It is as wanted: newcomers are brought in line, and what somebody changed is mended.
    Keep(Share),
    /// Never begun and no longer wanted.
    Close,
    Nothing,
}

/// The next verb on the way to the wanted share.
pub(super) fn next(entry: &StepEntry, wanted: Share, now: Timestamp) -> Next {
    if entry.waits(now) && !matches!(entry.state, StepState::Pending if wanted == Share::FULL) {
        return Next::Nothing;
    }
    match entry.state {
        StepState::Undone if wanted == Share::FULL => Next::Nothing,
        StepState::Pending if wanted == Share::FULL => Next::Close,
        // What was given back on the way to recovery is taken again after a relapse.
        StepState::Pending | StepState::Undone => Next::Capture,
        StepState::Confirmed { share } if share == wanted => Next::Keep(share),
        StepState::Applied { share } if share == wanted => Next::Confirm(share),
        // A crash may have come between the change and its record: what may be changed is undone, too.
        StepState::Captured | StepState::Applied { .. } | StepState::Confirmed { .. } | StepState::Stuck => {
            Next::Apply(wanted)
        }
    }
}
