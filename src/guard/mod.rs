//! What stands before every first write: an ordered table of guardrails, one function each.

mod cpu;
mod headroom;
mod settings;
mod standing;
mod traps;
mod window;

pub use settings::{Policy, Settings, SilencesSettings, Unreachable};
pub use standing::standing;
pub use window::BlockedWindow;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::domain::isolation::LONGEST_ISOLATION;
use crate::domain::{
    Admission, Assessment, ClusterView, Finding, Guardrail as Said, GuardrailSaid, HoldReason, Isolation, OperatorHold,
    Origin, Pause, Record, Request, ServiceId, Silences, Snapshot, Verdict, Zone,
};

/// Silences that were seen longer ago may lack the newest.
const SILENCES_STALE_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// What guardrails look at.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub snapshot: &'a Snapshot,
    pub assessment: &'a Assessment,
    /// As new as can be had; `None` where the cluster can't be asked.
    pub cluster: Option<&'a ClusterView>,
    /// Active and past.
    pub isolations: &'a [Isolation],
    pub holds: &'a BTreeMap<Zone, OperatorHold>,
    pub pause: &'a Pause,
    pub silences: &'a Silences,
    /// Whether this replica is the one that acts.
    pub leads: bool,
    /// Whether what passes is done, and not rehearsed only.
    pub acts: bool,
}

/// What one guardrail says.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Passed,
    Held(HoldReason),
    /// Let pass, but people should know.
    Warned(HoldReason),
    /// What it needs was not there.
    NotEvaluated,
    /// Somebody said that it need not pass; what it would have said.
    Overridden(HoldReason),
}

type Check = fn(&Situation<'_>, &Request, &Settings, Timestamp) -> Outcome;

struct Guardrail {
    name: &'static str,
    /// Whether a person, who knows more than metrics tell, may say that it need not pass. Never more zones out than
    /// allowed, and never fewer healthy ones: that is not for sale.
    overridable: bool,
    check: Check,
}

const fn promised(name: &'static str, check: Check) -> Guardrail {
    Guardrail { name, overridable: false, check }
}

const fn advised(name: &'static str, check: Check) -> Guardrail {
    Guardrail { name, overridable: true, check }
}

/// In the order in which they are named when several hold.
const GUARDRAILS: [Guardrail; 21] = [
    promised("not_leader", not_leader),
    promised("invalid", invalid),
    promised("paused", paused),
    promised("unseen_cluster", unseen_cluster),
    promised("unknown_zone", unknown_zone),
    advised("stale_data", stale_data),
    promised("no_fault", no_fault),
    promised("unhealthy_zones", unhealthy_zones),
    promised("operator_hold", operator_hold),
    advised("blocked_window", blocked_window),
    advised("planned_maintenance", planned_maintenance),
    advised("regional_fault", regional_fault),
    promised("another_zone_isolated", another_zone_isolated),
    promised("zones_out_by_others", zones_out_by_others),
    promised("too_few_healthy_zones", too_few_healthy_zones),
    advised("unreachable_service", unreachable_service),
    advised("capacity_trap", traps::capacity),
    advised("insufficient_headroom", headroom::insufficient),
    advised("insufficient_cpu", cpu::insufficient),
    advised("cooling_down", cooling_down),
    advised("budget_spent", budget_spent),
];

/// Those that a request may override.
pub fn overridable() -> impl Iterator<Item = &'static str> {
    GUARDRAILS.iter().filter(|guardrail| guardrail.overridable).map(|guardrail| guardrail.name)
}

/// What each guardrail says, in order.
///
/// Pure; met by detector and person alike.
pub fn examine(
    situation: &Situation<'_>,
    request: &Request,
    settings: &Settings,
    now: Timestamp,
) -> Vec<(&'static str, Outcome)> {
    let outcome = |guardrail: &Guardrail| match (guardrail.check)(situation, request, settings, now) {
        Outcome::Held(reason) if guardrail.overridable && request.overrides.contains(guardrail.name) => {
            Outcome::Overridden(reason)
        }
        said @ (Outcome::Passed
        | Outcome::Held(_)
        | Outcome::Warned(_)
        | Outcome::NotEvaluated
        | Outcome::Overridden(_)) => said,
    };
    GUARDRAILS.iter().map(|guardrail| (guardrail.name, outcome(guardrail))).collect()
}

/// What each guardrail said, for the record. What it has counted is told of zoneward's own wishes.
pub fn said(
    outcomes: &[(&'static str, Outcome)],
    situation: &Situation<'_>,
    request: &Request,
    settings: &Settings,
    now: Timestamp,
) -> Vec<Said> {
    let counted = |guardrail: &Guardrail| {
        let own = request.origin == Origin::Detector;
        own.then(|| standing::value(guardrail, situation, (request, settings), now)).flatten().unwrap_or_default()
    };
    let one = |(guardrail, (name, outcome)): (&Guardrail, &(&'static str, Outcome))| {
        let (said, why) = match outcome {
            Outcome::Passed => (GuardrailSaid::Passed, counted(guardrail)),
            Outcome::NotEvaluated => (GuardrailSaid::NotEvaluated, String::new()),
            Outcome::Held(reason) => (GuardrailSaid::Held, reason.to_string()),
            Outcome::Warned(reason) => (GuardrailSaid::Warned, reason.to_string()),
            Outcome::Overridden(reason) => (GuardrailSaid::Overridden, reason.to_string()),
        };
        Said((*name).to_owned(), said, why)
    };
    GUARDRAILS.iter().zip(outcomes).map(one).collect()
}

/// What is to be known of a request that may pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Passed {
    /// What each guardrail said.
    pub said: Vec<Said>,
    /// Guardrails that could not be evaluated.
    pub not_evaluated: Vec<&'static str>,
    pub warnings: Vec<HoldReason>,
}

impl Passed {
    /// Puts it on record.
    #[must_use]
    pub fn on(&self, mut record: Record) -> Record {
        record.guardrails.clone_from(&self.said);
        record.not_evaluated = self.not_evaluated.iter().map(|name| (*name).to_owned()).collect();
        record.warnings = self.warnings.iter().map(ToString::to_string).collect();
        record
    }
}

/// Lets a request pass, or says the first reason why not.
pub fn admit(
    situation: &Situation<'_>,
    request: &Request,
    settings: &Settings,
    now: Timestamp,
) -> Result<Passed, HoldReason> {
    let outcomes = examine(situation, request, settings, now);
    let said = said(&outcomes, situation, request, settings, now);
    settle(outcomes).map(|passed| Passed { said, ..passed })
}

/// Whether all of it lets a request pass, or the first reason why not.
pub fn settle(outcomes: Vec<(&'static str, Outcome)>) -> Result<Passed, HoldReason> {
    let mut passed = Passed::default();
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Passed | Outcome::Overridden(_) => {}
            Outcome::Held(reason) => return Err(reason),
            Outcome::Warned(reason) => passed.warnings.push(reason),
            Outcome::NotEvaluated => passed.not_evaluated.push(name),
        }
    }
    Ok(passed)
}

fn held_if(condition: bool, reason: impl FnOnce() -> HoldReason) -> Outcome {
    if condition { Outcome::Held(reason()) } else { Outcome::Passed }
}

fn not_leader(situation: &Situation<'_>, _: &Request, _: &Settings, _: Timestamp) -> Outcome {
    held_if(!situation.leads, || HoldReason::NotLeader)
}

fn invalid(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    let known = |name: &String| overridable().any(|guardrail| guardrail == name);
    if let Some(name) = request.overrides.iter().find(|name| !known(name)) {
        let names = overridable().collect::<Vec<_>>().join(", ");
        let why = format!("`{name}` is no guardrail that can be overridden; these can: {names}");
        return Outcome::Held(HoldReason::Invalid { why });
    }
    if request.expires_after.signed() > LONGEST_ISOLATION {
        let why = format!("it would last {}, and 72h is the most: nobody remembers longer", request.expires_after);
        return Outcome::Held(HoldReason::Invalid { why });
    }
    let in_the_way = |i: &Isolation| i.remains && *i.zone() == request.zone && request.origin == Origin::Detector;
    if situation.isolations.iter().any(in_the_way) {
        let why = format!(
            "the ended ZoneIsolation {} is somebody's own, and stands in the way of a new one: delete it",
            request.zone
        );
        return Outcome::Held(HoldReason::Invalid { why });
    }
    Outcome::Passed
}

fn paused(situation: &Situation<'_>, _: &Request, _: &Settings, _: Timestamp) -> Outcome {
    held_if(!situation.pause.is_off(), || HoldReason::Paused { why: situation.pause.to_string() })
}

/// Nothing is done to a cluster that can't be seen; a rehearsal may do without.
fn unseen_cluster(situation: &Situation<'_>, _: &Request, _: &Settings, _: Timestamp) -> Outcome {
    held_if(situation.acts && situation.cluster.is_none(), || HoldReason::UnseenCluster)
}

fn unknown_zone(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    let Some(cluster) = situation.cluster else { return Outcome::NotEvaluated };
    let zones = cluster.zones();
    held_if(!zones.contains_key(&request.zone), || {
        let zones = zones.keys().map(|zone| zone.as_str()).collect::<Vec<_>>().join(", ");
        HoldReason::UnknownZone { why: format!("no node is in a zone {}; there are {zones}", request.zone) }
    })
}

fn stale_data(situation: &Situation<'_>, _: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    stale(situation, settings, now).map_or(Outcome::Passed, |why| Outcome::Held(HoldReason::StaleData { why }))
}

fn stale(situation: &Situation<'_>, settings: &Settings, now: Timestamp) -> Option<String> {
    let age = now.duration_since(situation.snapshot.time);
    let gaps: Vec<String> = situation.snapshot.global_gaps().map(ToString::to_string).collect();
    if !gaps.is_empty() {
        return Some(gaps.join("; "));
    }
    if age < -settings.stale_after.signed() {
        return Some(format!("it is of {} s from now: the clock was set back", -age.as_secs()));
    }
    (age > settings.stale_after.signed()).then(|| format!("it is {} s old (guard.stale_after)", age.as_secs()))
}

/// What the detector asked for holds as long as it sees why.
fn no_fault(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    let verdict = situation.assessment.zones.get(&request.zone).map(|finding| &finding.verdict);
    held_if(request.origin == Origin::Detector && verdict != Some(&Verdict::ZoneFault), || HoldReason::NoFault)
}

/// A drill is for times in which nothing is wrong.
fn unhealthy_zones(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    let unhealthy = |(_, finding): &(&Zone, &Finding)| finding.verdict != Verdict::Healthy;
    let zones: Vec<Zone> = situation.assessment.zones.iter().filter(unhealthy).map(|(zone, _)| zone.clone()).collect();
    held_if(request.origin == Origin::Drill && !zones.is_empty(), || HoldReason::UnhealthyZones { zones })
}

/// Concerns what no person asked for.
fn operator_hold(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    match situation.holds.get(&request.zone) {
        Some(hold) if request.origin != Origin::Operator => {
            Outcome::Held(HoldReason::OperatorHold { since: hold.since, why: hold.why.clone() })
        }
        Some(_) | None => Outcome::Passed,
    }
}

/// Concerns what no person asked for. Of several windows the one that ends last is named.
fn blocked_window(_: &Situation<'_>, request: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    if request.origin == Origin::Operator {
        return Outcome::Passed;
    }
    let open = settings.blocked_windows.iter().filter_map(|window| Some((window.ends(now)?, &window.why)));
    open.max_by_key(|(end, _)| *end)
        .map_or(Outcome::Passed, |(until, why)| Outcome::Held(HoldReason::BlockedWindow { until, why: why.clone() }))
}

/// Concerns what no person asked for. A silence that was seen lasts until its end, even if it can't be seen any more.
fn planned_maintenance(situation: &Situation<'_>, request: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    if request.origin == Origin::Operator || settings.silences.is_none() {
        return Outcome::Passed;
    }
    if let Some(silence) = situation.silences.of(&request.zone, now) {
        return Outcome::Held(HoldReason::PlannedMaintenance {
            silence: silence.id.clone(),
            by: silence.by.clone(),
            until: silence.ends_at,
            why: silence.why.clone(),
        });
    }
    let fresh = situation.silences.seen_at.is_some_and(|at| now.duration_since(at) <= SILENCES_STALE_AFTER);
    if fresh { Outcome::Passed } else { Outcome::NotEvaluated }
}

fn regional_fault(situation: &Situation<'_>, request: &Request, _: &Settings, _: Timestamp) -> Outcome {
    let regional = |(zone, finding): (&Zone, &Finding)| {
        *zone != request.zone && finding.verdict == Verdict::RegionalFault && finding.persistent
    };
    held_if(situation.assessment.zones.iter().any(regional), || HoldReason::RegionalFault)
}

fn another_zone_isolated(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    too_many_out(ours(situation).chain(about_to_begin(situation, request)), &[], (situation, request, settings))
}

/// Isolations that no guardrail was asked of yet, and that were asked for before this one.
fn about_to_begin<'a>(situation: &Situation<'a>, request: &'a Request) -> impl Iterator<Item = &'a Zone> {
    let order = |isolation: &'a Isolation| (isolation.requested_at, isolation.zone());
    let own = situation.isolations.iter().find(|i| i.active() && *i.zone() == request.zone).map(order);
    let waits = |i: &&Isolation| i.active() && i.spec.approved && i.admission == Admission::Pending;
    let first = move |i: &&'a Isolation| own.is_none_or(|own| order(i) < own);
    situation.isolations.iter().filter(waits).filter(first).map(Isolation::zone)
}

/// The same, counting zones that others cordoned or tainted, and those that carry our marks, whatever is on record.
fn zones_out_by_others(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    let Some(cluster) = situation.cluster else { return Outcome::NotEvaluated };
    let zones = cluster.zones();
    let others = zones.iter().filter(|(_, nodes)| nodes.is_out()).map(|(zone, _)| *zone);
    let others: Vec<&Zone> = others.chain(cluster.marked()).collect();
    too_many_out(ours(situation), &others, (situation, request, settings))
}

fn ours<'a>(situation: &Situation<'a>) -> impl Iterator<Item = &'a Zone> + use<'a> {
    situation.isolations.iter().filter(|isolation| isolation.holds_zone_out()).map(Isolation::zone)
}

/// Of our own, which are only said to be out where nothing is done, and of others'.
fn too_many_out<'a>(
    ours: impl Iterator<Item = &'a Zone>,
    others: &[&'a Zone],
    (situation, request, settings): (&Situation<'_>, &Request, &Settings),
) -> Outcome {
    let out: BTreeSet<&Zone> = ours.chain(others.iter().copied()).filter(|zone| **zone != request.zone).collect();
    held_if(out.len() as u32 + 1 > settings.max_isolated_zones, || HoldReason::AnotherZoneIsolated {
        rehearsed: !situation.acts && !out.iter().any(|zone| others.contains(zone)),
        zones: out.into_iter().cloned().collect(),
        allowed: settings.max_isolated_zones,
    })
}

/// Of the zones that would be left, also by others, those known to be healthy. Where a person acts without metrics, those
/// that take pods.
fn too_few_healthy_zones(situation: &Situation<'_>, request: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    let others = situation.cluster.map(ClusterView::zones).unwrap_or_default();
    let by_others = |zone: &Zone| others.get(zone).is_some_and(|nodes| nodes.is_out());
    let left = |zone: &Zone| *zone != request.zone && !by_others(zone) && !ours(situation).any(|out| out == zone);
    let healthy = if stale(situation, settings, now).is_none() {
        let lost = |zone: &Zone| situation.snapshot.gaps.iter().any(|gap| gap.zone() == Some(zone));
        let usable =
            |(zone, finding): &(&Zone, &Finding)| left(zone) && finding.verdict.leaves_zone_usable() && !lost(zone);
        situation.assessment.zones.iter().filter(usable).count()
    } else if situation.cluster.is_some() {
        others.keys().filter(|zone| left(zone)).count()
    } else {
        return Outcome::NotEvaluated;
    } as u32;
    held_if(healthy < settings.min_healthy_zones, || HoldReason::TooFewHealthyZones {
        healthy,
        needed: settings.min_healthy_zones,
    })
}

fn unreachable_service(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    let Some(cluster) = situation.cluster else { return Outcome::NotEvaluated };
    let needed = settings.min_ready_elsewhere;
    let short = cluster.services_short_elsewhere(&request.zone, needed);
    let services: Vec<ServiceId> = short.into_keys().cloned().collect();
    if services.is_empty() {
        return Outcome::Passed;
    }
    match settings.unreachable_services {
        Unreachable::Hold => Outcome::Held(HoldReason::UnreachableService { services, needed, left_alone: false }),
        Unreachable::Skip => Outcome::Warned(HoldReason::UnreachableService { services, needed, left_alone: true }),
    }
}

/// Episodes that took the zone out, or may have. Drills keep nothing from being done in earnest.
fn past<'a>(situation: &Situation<'a>, request: &Request) -> impl Iterator<Item = &'a Isolation> + use<'a> {
    let is_drill = request.origin == Origin::Drill;
    let counts = move |i: &&Isolation| i.admitted_at().is_some() && (is_drill || i.spec.origin != Origin::Drill);
    situation.isolations.iter().filter(counts)
}

fn cooling_down(situation: &Situation<'_>, request: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    let day = SignedDuration::from_hours(24);
    let of_zone = past(situation, request).filter(|isolation| *isolation.zone() == request.zone);
    let of_a_day = of_zone.filter_map(|isolation| isolation.restored_at.filter(|at| *at + day > now));
    let restored: Vec<Timestamp> = of_a_day.collect();
    // A zone that comes back sick again and again is given longer each time.
    let times = 1 << restored.len().saturating_sub(1).min(10);
    match restored.into_iter().max().map(|at| at + (settings.cool_down.signed() * times).min(day)) {
        Some(until) if now < until => Outcome::Held(HoldReason::CoolingDown { until }),
        Some(_) | None => Outcome::Passed,
    }
}

/// Of the zone, and of all together. What a person has acknowledged is on neither.
fn budget_spent(situation: &Situation<'_>, request: &Request, settings: &Settings, now: Timestamp) -> Outcome {
    let day = SignedDuration::from_hours(24);
    let recent = || past(situation, request).filter(|i| i.acknowledged_at.is_none() && i.requested_at + day > now);
    let of_zone = recent().filter(|isolation| *isolation.zone() == request.zone).count();
    let spent = |isolations: usize, allowed: u32, of_all: bool| {
        let isolations = isolations as u32;
        (isolations >= allowed).then_some(HoldReason::BudgetSpent { isolations, allowed, of_all })
    };
    spent(of_zone, settings.max_isolations_per_day, false)
        .or_else(|| spent(recent().count(), settings.max_isolations_per_day_of_all, true))
        .map_or(Outcome::Passed, Outcome::Held)
}

#[cfg(test)]
mod tests;
