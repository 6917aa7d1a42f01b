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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cluster::{PodId, Service};
    use crate::domain::isolation::IsolationSpec;
    use crate::domain::{Admission, Calls, Cell, Origin, Period, Share, Zone};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn zone() -> Zone {
        Zone::new("zone-b")
    }

    /// Admitted at second 0, and read back a second later.
    fn isolation() -> Isolation {
        let spec = IsolationSpec {
            zone: zone(),
            origin: Origin::Operator,
            reason: "test".into(),
            evidence: Vec::new(),
            expires_at: at(3600),
            share: Share::NONE,
            only: Default::default(),
            overrides: Default::default(),
            approved: true,
        };
        let mut isolation = Isolation::new("1".into(), spec, at(0));
        (isolation.admission, isolation.isolated_at) = (Admission::Admitted(at(0)), Some(at(1)));
        isolation
    }

    /// What services of the zone served in the last ten seconds; each has one pod there, drained unless it is said.
    fn seen(second: i64, served: &[(&str, f64)]) -> Snapshot {
        let mut cluster = ClusterView::default();
        let mut cells: BTreeMap<ServiceId, BTreeMap<Zone, Cell>> = BTreeMap::new();
        for (name, total) in served {
            let service = ServiceId::new("default", *name);
            let served = Calls { total: *total, failed: 0.0 };
            cells.insert(service.clone(), [(zone(), Cell { served, ..Cell::default() })].into());
            cluster.services.insert(service.clone(), Service { headless: *name == "peers" });
            let pod = Pod {
                zone: Some(zone()),
                draining: if *name == "kept" { Draining::No } else { Draining::Ours(zone()) },
                exempt: (*name == "kept").then(|| "it says so".to_owned()),
                in_mesh: *name != "plain",
                services: [service].into(),
                ..Pod::default()
            };
            cluster.pods.insert(PodId { namespace: "default".into(), name: (*name).to_owned() }, pod);
        }
        let (coverage, gaps) = (BTreeMap::new(), Vec::new());
        Snapshot { time: at(second), cells, coverage, gaps, cluster: Some(cluster) }
    }

    fn judge(isolation: &Isolation, before_rps: f64, snapshot: &Snapshot) -> Option<Effect> {
        effect(isolation, before_rps, snapshot, CycleLength::at_least(Period::from_secs(10)))
    }

    #[test]
    fn an_isolation_shows_once_a_twentieth_is_left_and_says_how_soon() {
        let mut isolation = isolation();
        let early = judge(&isolation, 100.0, &seen(10, &[("web", 60.0)])).unwrap();
        assert!(!early.shown() && (early.after_rps - 6.0).abs() < 1e-9);
        let shown = judge(&isolation, 100.0, &seen(20, &[("web", 50.0)])).unwrap();
        assert_eq!(shown.shown_after_s, Some(20));
        isolation.effect = Some(shown);
        let later = judge(&isolation, 100.0, &seen(30, &[("web", 500.0)])).unwrap();
        assert_eq!(later.shown_after_s, Some(20), "what was shown stays so");
    }

    #[test]
    fn with_a_share_as_much_may_remain() {
        let mut isolation = isolation();
        isolation.spec.share = Share::percent(25);
        assert!(judge(&isolation, 100.0, &seen(10, &[("web", 240.0)])).unwrap().shown());
        assert!(!judge(&isolation, 100.0, &seen(10, &[("web", 260.0)])).unwrap().shown());
    }

    #[test]
    fn without_a_figure_from_before_nothing_is_claimed() {
        assert_eq!(judge(&isolation(), 0.0, &seen(10, &[("web", 0.0)])), None);
    }

    #[test]
    fn what_remains_is_named_with_its_reason_the_most_first() {
        let mut snapshot = seen(10, &[("web", 10.0), ("peers", 40.0), ("kept", 30.0), ("plain", 20.0), ("quiet", 0.0)]);
        let drained = Pod {
            zone: Some(zone()),
            draining: Draining::Ours(zone()),
            services: [ServiceId::new("default", "kept")].into(),
            ..Pod::default()
        };
        let id = PodId { namespace: "default".into(), name: "kept-2".into() };
        snapshot.cluster.as_mut().unwrap().pods.insert(id, drained);
        let effect = judge(&isolation(), 100.0, &snapshot).unwrap();
        let rates: Vec<f64> = effect.residual.iter().map(|residual| residual.rps).collect();
        assert_eq!(rates, [4.0, 3.0, 2.0, 1.0], "a second");
        let said: Vec<(&str, &str)> =
            effect.residual.iter().map(|r| (r.service.name.as_str(), r.why.as_str())).collect();
        assert_eq!(
            said,
            [
                ("peers", "a headless service: callers choose among its pods without the mesh"),
                ("kept", "1 of 2 pods are left alone: it says so"),
                ("plain", "its pods are not in the mesh"),
                ("web", "kept-alive connections, or callers outside the mesh"),
            ]
        );
    }

    #[test]
    fn after_three_minutes_without_effect_it_is_said() {
        let isolation = isolation();
        let effect = judge(&isolation, 100.0, &seen(10, &[("web", 600.0)])).unwrap();
        assert!(!ineffective(&isolation, &effect, at(179)));
        assert!(ineffective(&isolation, &effect, at(180)));
    }
}
