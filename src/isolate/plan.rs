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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const NONE: Share = Share::NONE;
    const HALF: Share = Share::percent(50);
    const FULL: Share = Share::FULL;

    #[test]
    fn the_next_verb_follows_from_what_was_done_and_what_is_wanted() {
        use StepState::{Applied, Captured, Confirmed, Pending, Stuck, Undone};
        for (state, wanted, verb) in [
            (Pending, NONE, Next::Capture),
            (Pending, HALF, Next::Capture),
            (Pending, FULL, Next::Close),
            (Captured, NONE, Next::Apply(NONE)),
            (Captured, FULL, Next::Apply(FULL)),
            (Applied { share: NONE }, NONE, Next::Confirm(NONE)),
            (Applied { share: NONE }, HALF, Next::Apply(HALF)),
            (Applied { share: FULL }, FULL, Next::Confirm(FULL)),
            (Confirmed { share: NONE }, NONE, Next::Keep(NONE)),
            (Confirmed { share: NONE }, FULL, Next::Apply(FULL)),
            (Confirmed { share: HALF }, NONE, Next::Apply(NONE)),
            (Undone, FULL, Next::Nothing),
            (Undone, NONE, Next::Capture),
            (Stuck, NONE, Next::Apply(NONE)),
            (Stuck, FULL, Next::Apply(FULL)),
        ] {
            let entry = StepEntry { state, ..StepEntry::default() };
            assert_eq!(next(&entry, wanted, NOW), verb, "{state:?}, {wanted} wanted");
        }
    }

    #[test]
    fn what_failed_waits_but_what_was_never_begun_is_closed_at_once() {
        let soon = NOW + jiff::SignedDuration::from_secs(1);
        let of = |state, wanted| next(&StepEntry { state, retry_at: Some(soon), ..StepEntry::default() }, wanted, NOW);
        for (state, wanted) in [(StepState::Captured, FULL), (StepState::Pending, NONE), (StepState::Undone, NONE)] {
            assert_eq!(of(state, wanted), Next::Nothing, "{state:?}, {wanted} wanted");
        }
        assert_eq!(of(StepState::Pending, FULL), Next::Close);
    }
}
