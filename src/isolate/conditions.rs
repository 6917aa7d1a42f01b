//! What an isolation's conditions say of its ledger. Pure.

use jiff::Timestamp;

use super::resource::Condition;
use crate::domain::isolation::StepEntry;
use crate::domain::{Admission, HoldReason, Isolation, Stage, StepName, StepState};

/// The executor's conditions; `Ready` is the summary.
pub(super) fn conditions(isolation: &Isolation, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    let stuck: Vec<(&StepName, &StepEntry)> = isolation.steps.iter().filter(|(_, entry)| entry.is_stuck()).collect();
    let stuck_names = stuck.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let ended = !isolation.active();
    let (admitted, admitted_reason, why) = match &isolation.admission {
        Admission::Pending => ("Unknown", "Pending".to_owned(), "no guardrail was asked yet".to_owned()),
        Admission::Refused(reason @ HoldReason::NotApproved) => {
            let zone = isolation.zone();
            let how = format!("`zoneward approve {zone}`, or decline it by `zoneward restore {zone}`");
            ("False", camel_case(reason.as_str()), format!("{reason}: {how}. {}", isolation.spec.reason))
        }
        Admission::Refused(reason) => ("False", camel_case(reason.as_str()), reason.to_string()),
        Admission::Admitted(at) => ("True", "Admitted".to_owned(), format!("guardrails let it begin at {at:.0}")),
    };
    let out = isolation.isolated_at.is_some() && isolation.returning_since.is_none() && !ended;
    let isolated = if out {
        ("True", "StepsConfirmed", "every step was read back".to_owned())
    } else if ended {
        ("False", "Ended", "the isolation has ended".to_owned())
    } else if isolation.returning_since.is_some() {
        ("False", "Returning", format!("steps to undo: {}", names(isolation, |state| state != StepState::Undone)))
    } else if isolation.admitted_at().is_some() {
        let open = names(isolation, |state| !matches!(state, StepState::Confirmed { .. }));
        ("False", "InProgress", format!("not confirmed yet: {open}"))
    } else {
        ("False", "NotBegun", why.clone())
    };
    let stalled = if stuck.is_empty() {
        ("False", "Progressing", "no step is stuck".to_owned())
    } else {
        ("True", "StepStuck", format!("a person has to look: {}", errors(&stuck)))
    };
    let expired = isolation.restore_requested_at.is_none()
        && (isolation.expired(now) && (ended || isolation.returning_since.is_some()));
    let expired = if expired {
        ("True", "Expired", format!("it expired at {:.0}; it acts again once its spec changes", isolation.expires_at()))
    } else {
        ("False", "NotYet", format!("it expires at {:.0}", isolation.expires_at()))
    };
    let ready = summary(isolation, &why, &stuck_names, &admitted_reason, ended, out);
    let all = [
        ("Admitted", admitted, admitted_reason, why),
        ("Isolated", isolated.0, isolated.1.to_owned(), isolated.2),
        ("Stalled", stalled.0, stalled.1.to_owned(), stalled.2),
        ("Expired", expired.0, expired.1.to_owned(), expired.2),
        ("Ready", ready.0, ready.1, ready.2),
    ];
    all.into_iter()
        .map(|(type_, status, reason, message)| condition(type_, status.to_owned(), reason, &message, before, now))
        .collect()
}

/// What metrics say of it has another owner.
pub(super) fn of_course(isolation: &Isolation, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    let effective = isolation.effect.as_ref().map(|effect| {
        let (status, reason) = if effect.shown() { ("True", "TrafficFell") } else { ("False", "TrafficRemains") };
        let message = format!(
            "the zone's servers answered {:.1} requests/s before, and {:.1} at {:.0}",
            effect.before_rps, effect.after_rps, effect.measured_at
        );
        condition("Effective", status.to_owned(), reason.to_owned(), &message, before, now)
    });
    let recovering = isolation.recovery.as_ref().map(|recovery| {
        let status = if recovery.stage == Stage::Out { "False" } else { "True" };
        let message = match recovery.stage {
            Stage::Trial { share } => {
                format!("it gets {share} of its usual traffic since {:.0}: {}", recovery.since, recovery.why)
            }
            Stage::Out | Stage::Refilling | Stage::Ended => format!("since {:.0}: {}", recovery.since, recovery.why),
        };
        condition("Recovering", status.to_owned(), camel_case(recovery.stage.as_str()), &message, before, now)
    });
    effective.into_iter().chain(recovering).collect()
}

fn summary(
    isolation: &Isolation,
    why: &str,
    stuck: &str,
    admitted_reason: &str,
    ended: bool,
    out: bool,
) -> (&'static str, String, String) {
    if ended {
        return ("False", "Ended".to_owned(), "nothing of it is left".to_owned());
    }
    if !stuck.is_empty() {
        return ("False", "StepStuck".to_owned(), format!("a person has to look at {stuck}"));
    }
    if isolation.admitted_at().is_none() {
        return ("False", admitted_reason.to_owned(), why.to_owned());
    }
    if out {
        let until = isolation.expires_at();
        return ("True", "Isolated".to_owned(), format!("out of rotation until {until:.0}: {}", isolation.spec.reason));
    }
    if isolation.returning_since.is_some() {
        return ("False", "Returning".to_owned(), "it is being given back".to_owned());
    }
    ("False", "InProgress".to_owned(), "steps are being taken".to_owned())
}

fn condition(
    type_: &str,
    status: String,
    reason: String,
    message: &str,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let unchanged = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    let since = unchanged.map_or_else(|| super::convert::time(now), |c| c.last_transition_time.clone());
    let message = message.chars().take(2_048).collect();
    Condition { type_: type_.to_owned(), status, reason, message, last_transition_time: since }
}

fn names(isolation: &Isolation, wanted: impl Fn(StepState) -> bool) -> String {
    let names = isolation.steps.iter().filter(|(_, entry)| wanted(entry.state)).map(|(name, _)| name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn errors(stuck: &[(&StepName, &StepEntry)]) -> String {
    let said = |(name, entry): &(&StepName, &StepEntry)| {
        format!("{name}: {}", entry.last_error.as_deref().unwrap_or("no word why"))
    };
    stuck.iter().map(said).collect::<Vec<_>>().join("; ")
}

/// `another_zone_isolated` as `AnotherZoneIsolated`.
pub(super) fn camel_case(snake: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    snake.split('_').map(word).collect()
}
