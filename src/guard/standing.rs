//! How every guardrail stands towards isolating a zone now, with its current value and what it needs.
//!
//! The rules are asked, not repeated: what a guardrail that lets pass has counted, it tells under limits that let nothing
//! pass.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{GUARDRAILS, Guardrail, Outcome, Settings, Situation};
use crate::domain::overview::{Answer, GuardrailState, Ruling, bounded};
use crate::domain::{Factor, HoldReason, Origin, Period, Ratio, Request, Zone};

/// Those that are about who asks, or about a drill: they say nothing of the zone.
const BESIDE_THE_POINT: [&str; 3] = ["not_leader", "invalid", "unhealthy_zones"];

/// What each guardrail says of isolating the zone now; and whether that would be admitted, if zoneward wished it, and if a
/// person did.
///
/// Pure. Whether this replica is the one that acts is left out, as another would.
pub fn standing(
    situation: &Situation<'_>,
    zone: &Zone,
    settings: &Settings,
    now: Timestamp,
) -> (Vec<GuardrailState>, [Answer; 2]) {
    let situation = &Situation { leads: true, ..*situation };
    let of = |origin| Request {
        zone: zone.clone(),
        origin,
        expires_after: Period::from_hours(1),
        evidence: Vec::new(),
        overrides: BTreeSet::new(),
    };
    let (own, by_hand) = (of(Origin::Detector), of(Origin::Operator));
    let (mut states, mut answers) = (Vec::new(), [(); 2].map(|()| Answer { admitted: true, ..Answer::default() }));
    for guardrail in &GUARDRAILS {
        let outcomes = [&own, &by_hand].map(|request| (guardrail.check)(situation, request, settings, now));
        for (answer, outcome) in answers.iter_mut().zip(&outcomes) {
            if let (Outcome::Held(reason), true) = (outcome, answer.admitted) {
                *answer = held(guardrail, reason);
            }
        }
        if !BESIDE_THE_POINT.contains(&guardrail.name) {
            let value = || value(guardrail, situation, (&own, settings), now);
            states.push(state(guardrail, &outcomes, value));
        }
    }
    (states, answers)
}

fn held(guardrail: &Guardrail, reason: &HoldReason) -> Answer {
    Answer {
        admitted: false,
        why: Some(bounded(&reason.to_string())),
        held_by: Some(guardrail.name.to_owned()),
        overridable: guardrail.overridable,
    }
}

fn state(guardrail: &Guardrail, [own, by_hand]: &[Outcome; 2], value: impl Fn() -> Option<String>) -> GuardrailState {
    let (ruling, says) = match own {
        Outcome::Passed | Outcome::Overridden(_) => (Ruling::Passes, value().unwrap_or_else(|| "–".to_owned())),
        Outcome::Held(reason) => (Ruling::Holds, bounded(&reason.to_string())),
        Outcome::Warned(reason) => (Ruling::Warns, bounded(&reason.to_string())),
        Outcome::NotEvaluated => (Ruling::NotEvaluated, "what it needs is not known".to_owned()),
    };
    GuardrailState {
        name: guardrail.name.to_owned(),
        ruling,
        says,
        person_passes: !matches!(by_hand, Outcome::Held(_)),
        overridable: guardrail.overridable,
    }
}

/// What a guardrail that lets pass has counted.
pub(super) fn value(
    guardrail: &Guardrail,
    situation: &Situation<'_>,
    (request, settings): (&Request, &Settings),
    now: Timestamp,
) -> Option<String> {
    let under = |limits: &Settings| match (guardrail.check)(situation, request, limits, now) {
        Outcome::Held(reason) => Some(reason),
        Outcome::Passed | Outcome::Warned(_) | Outcome::NotEvaluated | Outcome::Overridden(_) => None,
    };
    let strictest = || Settings {
        max_isolated_zones: 0,
        min_healthy_zones: u32::MAX,
        max_isolations_per_day: 0,
        max_isolations_per_day_of_all: 0,
        max_load_growth: Factor::new(0.0),
        max_cpu: Some(Ratio::from_percent(0.0)),
        ..settings.clone()
    };
    let counted = |reason: HoldReason| in_words(&reason, settings);
    let said = match guardrail.name {
        "paused" => "it is not paused".to_owned(),
        "unseen_cluster" if situation.cluster.is_none() => "not needed to rehearse".to_owned(),
        "unseen_cluster" => "it is seen".to_owned(),
        "unknown_zone" => {
            let nodes = situation.cluster?.zones().get(&request.zone).map_or(0, |zone| zone.nodes);
            format!("{nodes} nodes are in it")
        }
        "stale_data" => {
            let age = now.duration_since(situation.snapshot.time).max(SignedDuration::ZERO).as_secs();
            format!("{age} s old, and up to {} will do", settings.stale_after)
        }
        "no_fault" => "it alone is worse".to_owned(),
        "operator_hold" => "no person holds it".to_owned(),
        "blocked_window" => format!("none is open, of {}", settings.blocked_windows.len()),
        "planned_maintenance" if settings.silences.is_none() => "no Alertmanager is asked (guard.silences)".to_owned(),
        "planned_maintenance" => "no silence names it".to_owned(),
        "regional_fault" => "no other zone got worse with it".to_owned(),
        "unreachable_service" => {
            format!("each has at least {} ready endpoints elsewhere", settings.min_ready_elsewhere)
        }
        "capacity_trap" => "none is known".to_owned(),
        "cooling_down" => format!("not within {} of an isolation", settings.cool_down),
        "insufficient_headroom" => under(&strictest())
            .map_or_else(|| Some("no service is busy enough to overload another zone".to_owned()), counted)?,
        "insufficient_cpu" if settings.max_cpu.is_none() => "it is not asked about (guard.max_cpu)".to_owned(),
        "budget_spent" => {
            let of_all = Settings { max_isolations_per_day: u32::MAX, ..strictest() };
            let both = [strictest(), of_all].iter().filter_map(under).filter_map(counted).collect::<Vec<_>>();
            both.join("; ")
        }
        _ => under(&strictest()).and_then(counted)?,
    };
    Some(said)
}

/// A count, and its limit as it is set.
fn in_words(reason: &HoldReason, settings: &Settings) -> Option<String> {
    if let HoldReason::AnotherZoneIsolated { zones, rehearsed, .. } = reason {
        let names = zones.iter().map(Zone::as_str).collect::<Vec<_>>().join(", ");
        let out = match (zones.is_empty(), rehearsed) {
            (true, _) => "out: none".to_owned(),
            (false, true) => format!("would be out: {names}"),
            (false, false) => format!("out: {names}"),
        };
        return Some(format!("{out}; allowed: {}", settings.max_isolated_zones));
    }
    if let HoldReason::TooFewHealthyZones { healthy, .. } = reason {
        return Some(format!("{healthy} healthy would be left, and {} must", settings.min_healthy_zones));
    }
    if let HoldReason::InsufficientHeadroom { service, growth, .. } = reason {
        let allowed = settings.max_load_growth.times();
        return Some(format!(
            "at most {growth:.1} times the requests, for endpoints of {service}; up to {allowed:.1} times will do"
        ));
    }
    if let (HoldReason::InsufficientCpu { of, now, then, .. }, Some(allowed)) = (reason, settings.max_cpu) {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let (now, then, allowed) = (percent(*now), percent(*then), percent(allowed.as_fraction()));
        return Some(format!("{of} would use {then} of their CPU, {now} now; up to {allowed} will do"));
    }
    if let HoldReason::BudgetSpent { isolations, of_all, .. } = reason {
        let (whose, allowed) = if *of_all {
            ("of all zones", settings.max_isolations_per_day_of_all)
        } else {
            ("of this zone", settings.max_isolations_per_day)
        };
        return Some(format!("{isolations} of {allowed} {whose} in 24 h"));
    }
    None
}
