//! Can the endpoints that are left carry what the zone's carry now?

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Outcome, Settings, Situation};
use crate::domain::{ClusterView, HoldReason, Request, ServiceId, Zone};

/// Fewer requests in a cycle, some ten a second, overload no endpoint.
const LEAST_REQUESTS: f64 = 150.0;

/// Of each balanced service that serves from the zone: all its requests, over the ready endpoints of the other zones,
/// against what those of the busiest zone get now and are known to bear. Autoscalers may add some later: none is counted.
pub(super) fn insufficient(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    let Some(cluster) = situation.cluster else { return Outcome::NotEvaluated };
    if situation.snapshot.global_gaps().next().is_some() {
        return Outcome::NotEvaluated;
    }
    let allowed = settings.max_load_growth.times();
    let out = |zone: &Zone| *zone == request.zone || super::ours(situation).any(|out| out == zone);
    let mut worst: Option<(&ServiceId, f64)> = None;
    let (seen, moved) =
        (situation.snapshot.cluster.as_ref().map(ClusterView::ready_endpoints), moved(cluster, request));
    for (service, endpoints) in cluster.ready_endpoints() {
        let Some(cells) = situation.snapshot.cells.get(service) else { continue };
        let requests = |zone: &Zone| cells.get(zone).map_or(0.0, |cell| cell.served.total);
        let left: u32 = endpoints.iter().filter(|(zone, _)| !out(zone)).map(|(_, count)| count).sum();
        let all: f64 = cells.keys().map(requests).sum();
        if !moved.contains(service)
            || left == 0
            || requests(&request.zone) == 0.0
            || all / f64::from(left) < LEAST_REQUESTS
        {
            continue;
        }
        // Endpoints that went unready since the requests were counted shared them.
        let then = |zone: &Zone| seen.as_ref()?.get(service)?.get(zone).copied();
        let count = |zone: &Zone, now: u32| f64::from(now.max(then(zone).unwrap_or(0)));
        let each = endpoints.iter().map(|(zone, now)| requests(zone) / count(zone, *now));
        let busiest = each.fold(LEAST_REQUESTS, f64::max);
        let growth = all / f64::from(left) / busiest;
        if growth > allowed && worst.is_none_or(|(_, known)| growth > known) {
            worst = Some((service, growth));
        }
    }
    worst.map_or(Outcome::Passed, |(service, growth)| {
        Outcome::Held(HoldReason::InsufficientHeadroom { service: service.clone(), growth, allowed })
    })
}

/// Services whose requests go elsewhere: some of their pods in the zone may be taken out.
pub(super) fn moved<'a>(cluster: &'a ClusterView, request: &Request) -> BTreeSet<&'a ServiceId> {
    let pods = cluster.pods.values().filter(|pod| pod.zone.as_ref() == Some(&request.zone) && pod.exempt.is_none());
    pods.flat_map(|pod| &pod.services).collect()
}
