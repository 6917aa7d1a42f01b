//! What a step is to do next. Pure.

use jiff::Timestamp;

use crate::domain::isolation::{Share, StepEntry, StepState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Capture,
    Apply(Share),
    Confirm(Share),
    /// Never begun and no longer wanted.
    Close,
    Nothing,
}

/// The next verb on the way to the wanted share.
pub(super) fn next(entry: &StepEntry, wanted: Share, now: Timestamp) -> Next {
    let back = wanted == Share::FULL;
    match entry.state {
        StepState::Undone => Next::Nothing,
        StepState::Confirmed { share } if share == wanted => Next::Nothing,
        StepState::Pending if back => Next::Close,
        StepState::Pending
        | StepState::Captured
        | StepState::Applied { .. }
        | StepState::Confirmed { .. }
        | StepState::Stuck => match entry.retry_at {
            Some(at) if at > now => Next::Nothing,
            Some(_) | None => verb(entry.state, wanted),
        },
    }
}

fn verb(state: StepState, wanted: Share) -> Next {
    match state {
        StepState::Pending => Next::Capture,
        StepState::Applied { share } if share == wanted => Next::Confirm(share),
        // A crash may have come between the change and its record: what may be changed is undone, too.
        StepState::Captured | StepState::Applied { .. } | StepState::Confirmed { .. } | StepState::Stuck => {
            Next::Apply(wanted)
        }
        StepState::Undone => Next::Nothing,
    }
}
