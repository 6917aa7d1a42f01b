//! Can the endpoints that are left carry what the zone's carry now?

use jiff::Timestamp;

use super::{Outcome, Settings, Situation};
use crate::domain::{HoldReason, Request, ServiceId, Zone};

/// Fewer requests in a cycle overload no endpoint.
const LEAST_REQUESTS: f64 = 10.0;

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
    for (service, endpoints) in cluster.ready_endpoints() {
        let Some(cells) = situation.snapshot.cells.get(service) else { continue };
        let requests = |zone: &Zone| cells.get(zone).map_or(0.0, |cell| cell.served.total);
        let left: u32 = endpoints.iter().filter(|(zone, _)| !out(zone)).map(|(_, count)| count).sum();
        let all: f64 = cells.keys().map(requests).sum();
        if left == 0 || requests(&request.zone) == 0.0 || all / f64::from(left) < LEAST_REQUESTS {
            continue;
        }
        let each = endpoints.iter().map(|(zone, count)| requests(zone) / f64::from(*count));
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
