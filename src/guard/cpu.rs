//! Have the endpoints and nodes that are left the CPU for what the zone's pods do now?

use jiff::{SignedDuration, Timestamp};

use super::{Outcome, Settings, Situation};
use crate::domain::cluster::{ClusterView, CpuUse, Load};
use crate::domain::{HoldReason, Ratio, Request, Zone};

/// What was measured longer ago says nothing of now.
const STALE_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// Fewer requests in a cycle don't tell how they are shared out.
const LEAST_REQUESTS: f64 = 100.0;
/// Of the pods, of which the use must be known to add it up.
const LEAST_KNOWN: f64 = 0.8;

/// Of each service that moves: its endpoints elsewhere against their limits, with as many times the use as they get times the
/// requests; and of all pods together: those elsewhere and the zone's, against what the nodes elsewhere have. Pods and nodes
/// that autoscalers may add are not counted.
pub(super) fn insufficient(
    situation: &Situation<'_>,
    request: &Request,
    settings: &Settings,
    now: Timestamp,
) -> Outcome {
    let Some(allowed) = settings.max_cpu.map(Ratio::as_fraction) else { return Outcome::Passed };
    let known = situation.snapshot.cluster.as_ref().and_then(|seen| seen.cpu_use.as_deref());
    let known = known.filter(|cpu| now.duration_since(cpu.seen_at).abs() <= STALE_AFTER);
    let (Some(cluster), Some(cpu)) = (situation.cluster, known) else { return Outcome::NotEvaluated };
    if situation.snapshot.global_gaps().next().is_some() {
        return Outcome::NotEvaluated;
    }
    let out = |zone: &Zone| *zone == request.zone || super::ours(situation).any(|out| out == zone);
    let mut seen = of_services(situation, request, (cluster, cpu), &out);
    seen.extend(of_nodes(request, (cluster, cpu), &out));
    match seen.into_iter().max_by(|a, b| a.then.total_cmp(&b.then)) {
        None => Outcome::NotEvaluated,
        Some(Outlook { of, now, then }) if then > allowed => {
            Outcome::Held(HoldReason::InsufficientCpu { of, now, then, allowed })
        }
        Some(_) => Outcome::Passed,
    }
}

/// What some endpoints or nodes use now, and what they would; of what they may.
struct Outlook {
    of: String,
    now: f64,
    then: f64,
}

fn of_services(
    situation: &Situation<'_>,
    request: &Request,
    (cluster, cpu): (&ClusterView, &CpuUse),
    out: &impl Fn(&Zone) -> bool,
) -> Vec<Outlook> {
    let moved = super::headroom::moved(cluster, request);
    let mut found = Vec::new();
    for (service, loads) in cluster.loads(cpu).into_iter().filter(|(service, _)| moved.contains(service)) {
        let Some(cells) = situation.snapshot.cells.get(service) else { continue };
        let served = |zone: &Zone| cells.get(zone).map_or(0.0, |cell| cell.served.total);
        let all: f64 = cells.keys().map(served).sum();
        let left: f64 = cells.keys().filter(|zone| !out(zone)).map(served).sum();
        let mut load = Load::default();
        loads.iter().filter(|(zone, _)| !out(zone)).for_each(|(_, of_zone)| load += *of_zone);
        if all >= LEAST_REQUESTS && left > 0.0 && load.limit > 0 {
            let of = format!("the endpoints of {service} that are left");
            found.push(Outlook { of, now: load.share(), then: load.share() * all / left });
        }
    }
    found
}

fn of_nodes(
    request: &Request,
    (cluster, cpu): (&ClusterView, &CpuUse),
    out: &impl Fn(&Zone) -> bool,
) -> Option<Outlook> {
    let stays = |name: &String| {
        let node = cluster.nodes.get(name)?;
        (node.available && node.zone.as_ref().is_some_and(|zone| !out(zone))).then_some(node)
    };
    let mut limits = cluster.nodes.keys().filter_map(stays).map(|node| node.cpu);
    let limit = limits.try_fold(0_u64, |sum, cpu| Some(sum.saturating_add(cpu?)))?;
    let (mut now, mut moves) = (Load { used: 0, limit }, 0_u64);
    let (mut pods, mut known) = (0_u32, 0_u32);
    for (id, pod) in &cluster.pods {
        let is_left = pod.node.as_ref().and_then(stays).is_some();
        let in_zone = pod.zone.as_ref() == Some(&request.zone) && pod.exempt.is_none();
        let is_moved = in_zone && pod.services.iter().any(|service| cluster.balanced(service));
        if !is_left && !is_moved {
            continue;
        }
        pods += 1;
        let Some(used) = cpu.pods.get(id) else { continue };
        known += 1;
        let sum = if is_left { &mut now.used } else { &mut moves };
        *sum = sum.saturating_add(*used);
    }
    let enough = limit > 0 && known > 0 && f64::from(known) >= LEAST_KNOWN * f64::from(pods);
    let then = Load { used: now.used.saturating_add(moves), limit };
    enough.then(|| Outlook { of: "the nodes that are left".to_owned(), now: now.share(), then: then.share() })
}
