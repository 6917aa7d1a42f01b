//! What the executor puts on record, in words.

use jiff::Timestamp;

use crate::domain::isolation::StepName;
use crate::domain::record::StepRecord;
use crate::domain::{Event, Isolation, Origin, Pause, Record, StepState, Zone};

pub(super) fn why_returning(isolation: &Isolation) -> String {
    if isolation.restore_requested_at.is_some() {
        "as was asked".to_owned()
    } else if let Some(why) = isolation.ended_as() {
        format!("as {why}")
    } else if isolation.recovery.is_some() {
        "as its isolation expired, and its way back by shares took too long".to_owned()
    } else {
        "as its isolation expired".to_owned()
    }
}

pub(super) const fn why_never_begun(isolation: &Isolation) -> &'static str {
    if isolation.restore_requested_at.is_some() { "it was declined before it began" } else { "it has expired" }
}

pub(super) fn admitted(isolation: &Isolation) -> String {
    let spec = &isolation.spec;
    let overrides = if spec.overrides.is_empty() {
        String::new()
    } else {
        format!(", overriding {}", spec.overrides.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    let who = match spec.origin {
        Origin::Detector => "a person approved",
        Origin::Operator => "a person asked",
        Origin::Drill => "a drill",
    };
    format!("{} is to be isolated until {:.0}, as {who}{overrides}: {}", spec.zone, isolation.expires_at(), spec.reason)
}

pub(super) fn step(zone: &Zone, change: StepRecord, now: Timestamp) -> Record {
    let name: &StepName = &change.name;
    let message = match (change.state, &change.error) {
        (StepState::Stuck, Some(error)) => {
            format!("{name}: stuck, a person has to look ({error}); the receipt says what to restore")
        }
        (StepState::Stuck, None) => format!("{name}: stuck, a person has to look"),
        (state, Some(error)) => format!("{name}: {}, and tried again: {error}", state.as_str()),
        (StepState::Pending, None) => format!("{name}: not begun"),
        (StepState::Captured, None) => format!("{name}: the state before is on record"),
        (StepState::Applied { share }, None) => format!("{name}: set to {share} of the usual traffic, to be confirmed"),
        (StepState::Confirmed { share }, None) => format!("{name}: read back, {share} of the usual traffic"),
        (StepState::Undone, None) => format!("{name}: undone, as it was before"),
    };
    let mut record = Record::new(now, Event::Step, message).zone(zone);
    record.step = Some(change);
    record
}

pub(super) fn mended(zone: &Zone, step: &StepName, mended: &[String], now: Timestamp) -> Record {
    Record::new(now, Event::Mended, format!("{step}: {}", mended.join("; "))).zone(zone)
}

pub(super) fn overdue(zone: &Zone, pause: &Pause, now: Timestamp) -> Record {
    let message = format!(
        "{zone} is due to be given back, and stays as it is, as {pause}. `zoneward restore {zone}` gives it back all the same"
    );
    Record::new(now, Event::Paused, message).zone(zone)
}
