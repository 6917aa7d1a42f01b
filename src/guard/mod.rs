//! What stands before every first write: an ordered table of guardrails, one function each.

mod settings;

pub use settings::Settings;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::domain::{Assessment, HoldReason, Isolation, Request, ServiceId, Snapshot, Verdict, Zone};

/// What guardrails look at.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub snapshot: &'a Snapshot,
    pub assessment: &'a Assessment,
    /// Active and past.
    pub isolations: &'a [Isolation],
}

/// What one guardrail says.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Passed,
    Held(HoldReason),
    /// What it needs was not there.
    NotEvaluated,
}

type Guardrail = fn(&Situation<'_>, &Request, &Settings, Timestamp) -> Outcome;

/// In the order in which they are named when several hold.
const GUARDRAILS: [(&str, Guardrail); 8] = [
    ("stale_data", stale_data),
    ("regional_fault", regional_fault),
    ("another_zone_isolated", another_zone_isolated),
    ("zones_out_by_others", zones_out_by_others),
    ("too_few_healthy_zones", too_few_healthy_zones),
    ("unreachable_service", unreachable_service),
    ("cooling_down", cooling_down),
    ("budget_spent", budget_spent),
];

/// Lets a request pass, with the guardrails that could not be evaluated, or says the first reason why not.
///
/// Pure; met by detector and person alike.
pub fn admit(
    situation: &Situation<'_>,
    request: &Request,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<&'static str>, HoldReason> {
    let mut not_evaluated = Vec::new();
    for (name, guardrail) in GUARDRAILS {
        match guardrail(situation, request, settings, now) {
            Outcome::Passed => {}
            Outcome::Held(reason) => return Err(reason),
            Outcome::NotEvaluated => not_evaluated.push(name),
        }
    }
    Ok(not_evaluated)
}

fn held_if(condition: bool, reason: impl FnOnce() -> HoldReason) -> Outcome {
    if condition { Outcome::Held(reason()) } else { Outcome::Passed }
}

fn stale_data(situation: &Situation<'_>, _: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    let age = now.duration_since(situation.snapshot.time);
    let gaps: Vec<String> = situation.snapshot.global_gaps().map(ToString::to_string).collect();
    if !gaps.is_empty() {
        return Outcome::Held(HoldReason::StaleData { why: gaps.join("; ") });
    }
    held_if(age > settings.stale_after.signed(), || HoldReason::StaleData {
        why: format!("it is {} s old (guard.stale_after)", age.as_secs()),
    })
}

fn regional_fault(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    let regional = |(zone, finding): (&Zone, &crate::domain::Finding)| {
        *zone != request.zone && finding.verdict == Verdict::RegionalFault && finding.persistent
    };
    held_if(situation.assessment.zones.iter().any(regional), || HoldReason::RegionalFault)
}

fn another_zone_isolated(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    too_many_out(ours(situation), request, settings)
}

/// The same, counting zones that others cordoned or tainted.
fn zones_out_by_others(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    let Some(cluster) = &situation.snapshot.cluster else { return Outcome::NotEvaluated };
    let others = cluster.zones.iter().filter(|(_, nodes)| nodes.is_out()).map(|(zone, _)| zone);
    too_many_out(ours(situation).chain(others), request, settings)
}

fn ours<'a>(situation: &Situation<'a>) -> impl Iterator<Item = &'a Zone> + use<'a> {
    situation.isolations.iter().filter(|isolation| isolation.active()).map(|isolation| &isolation.zone)
}

fn too_many_out<'a>(out: impl Iterator<Item = &'a Zone>, request: &Request, settings: &Settings) -> Outcome {
    let out: BTreeSet<&Zone> = out.filter(|zone| **zone != request.zone).collect();
    held_if(out.len() as u32 + 1 > settings.max_isolated_zones, || HoldReason::AnotherZoneIsolated {
        zones: out.into_iter().cloned().collect(),
        allowed: settings.max_isolated_zones,
    })
}

/// Of the zones that would be left, those known to be healthy.
fn too_few_healthy_zones(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    let isolated = |zone: &Zone| situation.isolations.iter().any(|i| i.active() && i.zone == *zone);
    let lost = |zone: &Zone| situation.snapshot.gaps.iter().any(|gap| gap.zone() == Some(zone));
    let left = situation.assessment.zones.iter().filter(|(zone, finding)| {
        **zone != request.zone && finding.verdict.leaves_zone_usable() && !isolated(zone) && !lost(zone)
    });
    let healthy = left.count() as u32;
    held_if(healthy < settings.min_healthy_zones, || HoldReason::TooFewHealthyZones {
        healthy,
        needed: settings.min_healthy_zones,
    })
}

fn unreachable_service(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    let Some(cluster) = &situation.snapshot.cluster else { return Outcome::NotEvaluated };
    let only_here = cluster.ready_endpoints.iter().filter(|(_, zones)| {
        let ready =
            |here: bool| zones.iter().filter(|(z, _)| (**z == request.zone) == here).map(|(_, n)| n).sum::<u32>();
        ready(true) > 0 && ready(false) == 0
    });
    let services: Vec<ServiceId> = only_here.map(|(service, _)| service.clone()).collect();
    held_if(!services.is_empty(), || HoldReason::UnreachableService { services })
}

fn cooling_down(situation: &Situation<'_>, request: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    let past = situation.isolations.iter().filter(|i| i.zone == request.zone);
    let until = past.filter_map(|i| i.restored_at).max().map(|at| at + settings.cool_down.signed());
    match until {
        Some(until) if now < until => Outcome::Held(HoldReason::CoolingDown { until }),
        Some(_) | None => Outcome::Passed,
    }
}

fn budget_spent(situation: &Situation<'_>, request: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    let day = SignedDuration::from_hours(24);
    let recent = situation.isolations.iter().filter(|i| i.zone == request.zone && i.requested_at + day > now);
    let isolations = recent.count() as u32;
    held_if(isolations >= settings.max_isolations_per_day, || HoldReason::BudgetSpent {
        isolations,
        allowed: settings.max_isolations_per_day,
    })
}

#[cfg(test)]
mod tests;
