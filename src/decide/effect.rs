//! Whether the metrics show an isolation: the zone's server-side traffic before and after, and why some remains.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::domain::cluster::{Draining, Pod};
use crate::domain::{ClusterView, CycleLength, Effect, Isolation, Residual, ServiceId, Snapshot};

/// What may remain of a zone's traffic: connections kept alive, and what does not go through the mesh.
const RESIDUAL_SHARE: f64 = 0.05;
/// An isolation that has not shown by then is said to have no effect.
const PATIENCE: SignedDuration = SignedDuration::from_mins(3);
/// Services named among what remains.
const MOST_RESIDUALS: usize = 10;

/// The traffic of an isolation's zone in this cycle. Once shown, it stays so, however much comes back later. Without a
/// figure from before there is nothing to compare with.
pub fn effect(isolation: &Isolation, before_rps: f64, snapshot: &Snapshot, cycle: CycleLength) -> Option<Effect> {
    let admitted_at = isolation.admitted_at()?;
    if before_rps <= 0.0 {
        return None;
    }
    let zone = isolation.zone();
    let after_rps = snapshot.served_by(zone).total / cycle.as_secs_f64();
    let allowed_rps = before_rps * isolation.spec.share.as_fraction().max(RESIDUAL_SHARE);
    let shows = after_rps <= allowed_rps;
    let earlier = isolation.effect.as_ref().and_then(|effect| effect.shown_after_s);
    let shown_after_s = earlier.or_else(|| shows.then(|| snapshot.time.duration_since(admitted_at).as_secs().max(0)));
    Some(Effect {
        before_rps,
        after_rps,
        measured_at: snapshot.time,
        shown_after_s,
        residual: residual(isolation, snapshot, cycle),
    })
}

/// Whether an isolation should have shown by now, and has not.
pub fn ineffective(isolation: &Isolation, effect: &Effect, now: Timestamp) -> bool {
    !effect.shown() && isolation.admitted_at().is_some_and(|at| now.duration_since(at) >= PATIENCE)
}

fn residual(isolation: &Isolation, snapshot: &Snapshot, cycle: CycleLength) -> Vec<Residual> {
    let zone = isolation.zone();
    let mut rates: BTreeMap<&ServiceId, f64> = BTreeMap::new();
    for (service, zones) in &snapshot.cells {
        let total = zones.get(zone).map_or(0.0, |cell| cell.served.total);
        if total > 0.0 {
            rates.insert(service, total / cycle.as_secs_f64());
        }
    }
    let why = |service| why_traffic_remains(isolation, snapshot.cluster.as_ref(), service);
    let mut residual: Vec<Residual> =
        rates.into_iter().map(|(service, rps)| Residual { service: service.clone(), rps, why: why(service) }).collect();
    residual.sort_by(|a, b| b.rps.total_cmp(&a.rps).then_with(|| a.service.cmp(&b.service)));
    residual.truncate(MOST_RESIDUALS);
    residual
}

fn why_traffic_remains(isolation: &Isolation, cluster: Option<&ClusterView>, service: &ServiceId) -> String {
    let Some(cluster) = cluster else { return "the cluster can't be asked".to_owned() };
    if cluster.services.get(service).is_some_and(|service| service.headless) {
        return "a headless service: callers choose among its pods without the mesh".to_owned();
    }
    let here = |pod: &&Pod| pod.zone.as_ref() == Some(isolation.zone()) && pod.services.contains(service);
    let pods: Vec<&Pod> = cluster.pods.values().filter(here).collect();
    if pods.is_empty() {
        return "its pods are not known to the cluster".to_owned();
    }
    let drained = pods.iter().filter(|pod| pod.draining != Draining::No).count();
    if drained < pods.len() {
        let kept = pods.len() - drained;
        let exempt = pods.iter().find_map(|pod| pod.exempt.as_deref());
        return match exempt {
            Some(why) => format!("{kept} of {} pods are left alone: {why}", pods.len()),
            None => {
                format!("{kept} of {} pods are kept: too few are ready elsewhere, or a share was asked for", pods.len())
            }
        };
    }
    if pods.iter().all(|pod| !pod.in_mesh) {
        return "its pods are not in the mesh".to_owned();
    }
    "kept-alive connections, or callers outside the mesh".to_owned()
}
