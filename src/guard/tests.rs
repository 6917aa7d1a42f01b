use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::domain::cluster::{Draining, Node, Pod, PodId, Service, Workload, WorkloadId, ZoneSpread};
use crate::domain::silence::{Silence, SilencedZones};
use crate::domain::{Admission, Calls, Cell, ClusterView, Finding, Gap, IsolationSpec, Origin, Period, Share};

const NOW: i64 = 1_800_000_000;

struct World {
    snapshot: Snapshot,
    assessment: Assessment,
    isolations: Vec<Isolation>,
    holds: BTreeMap<Zone, OperatorHold>,
    pause: Pause,
    silences: Silences,
    request: Request,
    acts: bool,
    settings: Settings,
}

/// Three nodes a zone, and two ready endpoints of `default/web` in each.
fn cluster(zones: &[Zone]) -> ClusterView {
    let mut view = ClusterView::default();
    view.services.insert(ServiceId::new("default", "web"), Service::default());
    for zone in zones {
        for i in 0..3 {
            view.nodes
                .insert(format!("{zone}-{i}"), Node { zone: Some(zone.clone()), available: true, ..Node::default() });
        }
        for i in 0..2 {
            add_pod(&mut view, "web", zone, i);
        }
    }
    view
}

fn add_pod(view: &mut ClusterView, service: &str, zone: &Zone, nth: usize) {
    let id = PodId { namespace: "default".into(), name: format!("{service}-{zone}-{nth}") };
    let services = [ServiceId::new("default", service)].into();
    view.pods.insert(id, Pod { zone: Some(zone.clone()), ready: true, services, ..Pod::default() });
}

fn zone(letter: char) -> Zone {
    Zone::new(format!("zone-{letter}"))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

impl World {
    /// Three zones, of which `zone-b` is at fault; two endpoints of `default/web` in each.
    fn new() -> Self {
        let zones = ['a', 'b', 'c'].map(zone);
        let sick = Finding { verdict: Verdict::ZoneFault, ..Finding::healthy() };
        let findings =
            zones.iter().map(|z| (z.clone(), if *z == zone('b') { sick.clone() } else { Finding::healthy() }));
        Self {
            snapshot: Snapshot {
                time: at(0),
                cells: BTreeMap::new(),
                coverage: BTreeMap::new(),
                gaps: Vec::new(),
                cluster: Some(cluster(&zones)),
            },
            assessment: Assessment { time: at(0), zones: findings.collect(), unsettled: Default::default() },
            isolations: Vec::new(),
            holds: BTreeMap::new(),
            pause: Pause::Off,
            silences: Silences::default(),
            request: Request {
                zone: zone('b'),
                origin: Origin::Detector,
                expires_after: Period::from_hours(1),
                evidence: Vec::new(),
                overrides: BTreeSet::new(),
            },
            acts: true,
            settings: Settings { max_cpu: None, ..Settings::default() },
        }
    }

    fn admit(&self, now_s: i64) -> Result<Vec<&'static str>, HoldReason> {
        self.pass(now_s).map(|passed| passed.not_evaluated)
    }

    fn pass(&self, now_s: i64) -> Result<Passed, HoldReason> {
        let situation = Situation {
            snapshot: &self.snapshot,
            assessment: &self.assessment,
            cluster: self.snapshot.cluster.as_ref(),
            isolations: &self.isolations,
            holds: &self.holds,
            pause: &self.pause,
            silences: &self.silences,
            leads: true,
            acts: self.acts,
        };
        let admitted = admit(&situation, &self.request, &self.settings, at(now_s));
        standing::agrees(&situation, &self.request, &self.settings, at(now_s), &admitted);
        admitted
    }

    fn held(&self) -> String {
        self.admit(0).map_or_else(|reason| reason.as_str().to_owned(), |_| "admitted".to_owned())
    }

    fn cluster(&mut self) -> &mut ClusterView {
        self.snapshot.cluster.as_mut().unwrap()
    }

    fn past_isolation(&mut self, letter: char, requested_s: i64, restored_s: Option<i64>) {
        let spec = IsolationSpec {
            zone: zone(letter),
            origin: Origin::Detector,
            reason: "test".into(),
            evidence: Vec::new(),
            expires_at: at(requested_s + 3600),
            share: Share::NONE,
            only: Default::default(),
            overrides: Default::default(),
            approved: true,
        };
        let mut isolation = Isolation::new(requested_s.to_string(), spec, at(requested_s));
        isolation.admission = Admission::Admitted(at(requested_s));
        isolation.restored_at = restored_s.map(at);
        self.isolations.push(isolation);
    }
}

#[test]
fn a_lone_fault_on_fresh_data_is_admitted() {
    assert_eq!(World::new().admit(0), Ok(vec![]));
}

#[test]
fn what_needs_a_cluster_is_named_where_there_is_none() {
    let mut world = World::new();
    world.snapshot.cluster = None;
    assert_eq!(world.held(), "unseen_cluster", "nothing is done to what can't be seen");
    world.acts = false;
    let missing =
        ["unknown_zone", "zones_out_by_others", "unreachable_service", "capacity_trap", "insufficient_headroom"];
    assert_eq!(world.admit(0), Ok(missing.to_vec()));
}

#[test]
fn old_data_holds() {
    let world = World::new();
    assert!(world.admit(60).is_ok());
    assert_eq!(world.admit(61).unwrap_err().as_str(), "stale_data");
}

#[test]
fn a_gap_that_concerns_all_zones_holds() {
    let mut world = World::new();
    world.snapshot.gaps.push(Gap::QueryFailed { why: "down".into() });
    assert_eq!(world.held(), "stale_data");
}

#[test]
fn a_regional_verdict_on_another_zone_holds() {
    let mut world = World::new();
    let other = world.assessment.zones.get_mut(&zone('c')).unwrap();
    (other.verdict, other.persistent) = (Verdict::RegionalFault, true);
    assert_eq!(world.held(), "regional_fault");
}

#[test]
fn a_second_zone_is_never_isolated_by_default() {
    let mut world = World::new();
    world.past_isolation('a', -100, None);
    assert_eq!(world.held(), "another_zone_isolated");
    world.isolations[0].restored_at = Some(at(-1));
    assert_eq!(world.held(), "admitted");
}

fn cordon(world: &mut World, node: &str) {
    world.cluster().nodes.get_mut(node).unwrap().available = false;
}

#[test]
fn a_zone_that_others_cordoned_counts_as_out() {
    let mut world = World::new();
    cordon(&mut world, "zone-c-0");
    assert_eq!(world.held(), "admitted", "one node of three is not the zone");
    cordon(&mut world, "zone-c-1");
    assert_eq!(world.held(), "another_zone_isolated");
}

#[test]
fn zones_that_cannot_be_seen_are_not_healthy_ones() {
    let mut world = World::new();
    for letter in ['a', 'c'] {
        world.snapshot.gaps.push(Gap::ScrapesLost { zone: zone(letter), coverage: Default::default() });
    }
    assert_eq!(world.held(), "too_few_healthy_zones");
}

#[test]
fn zones_that_others_took_out_are_not_healthy_ones() {
    let mut world = World::new();
    world.settings.max_isolated_zones = 3;
    world.settings.min_healthy_zones = 2;
    assert_eq!(world.held(), "admitted");
    cordon(&mut world, "zone-c-0");
    cordon(&mut world, "zone-c-1");
    assert_eq!(world.held(), "too_few_healthy_zones");
}

#[test]
fn a_zone_whose_clients_suffer_from_the_sick_zone_is_itself_healthy() {
    let mut world = World::new();
    for letter in ['a', 'c'] {
        let verdict = Verdict::FaultElsewhere { why: "servers in zone-b".into() };
        world.assessment.zones.get_mut(&zone(letter)).unwrap().verdict = verdict;
    }
    assert_eq!(world.held(), "admitted");
}

#[test]
fn a_service_that_runs_nowhere_else_holds() {
    let mut world = World::new();
    world.cluster().services.insert(ServiceId::new("default", "ledger"), Service::default());
    add_pod(world.cluster(), "ledger", &zone('b'), 0);
    assert_eq!(world.held(), "unreachable_service");
    world.settings.unreachable_services = Unreachable::Skip;
    let said = world.pass(0).unwrap().warnings[0].to_string();
    assert!(said.contains("elsewhere for default/ledger: the mesh goes on to call them in the zone"), "{said}");
    world.settings.unreachable_services = Unreachable::Hold;
    add_pod(world.cluster(), "ledger", &zone('a'), 0);
    assert_eq!(world.held(), "admitted");
    world.settings.min_ready_elsewhere = 2;
    assert_eq!(world.held(), "unreachable_service", "the mesh step would leave it alone");
    world.settings.min_ready_elsewhere = 1;
    let elsewhere = PodId { namespace: "default".into(), name: "ledger-zone-a-0".into() };
    world.cluster().pods.get_mut(&elsewhere).unwrap().draining = Draining::Others;
    assert_eq!(world.held(), "unreachable_service", "a pod that others drain serves nobody");
}

#[test]
fn a_zone_just_given_back_cools_down() {
    let mut world = World::new();
    world.past_isolation('b', -4000, Some(-60));
    assert_eq!(world.admit(0).unwrap_err(), HoldReason::CoolingDown { until: at(15 * 60 - 60) });
    world.isolations[0].restored_at = Some(at(-15 * 60));
    assert_eq!(world.held(), "admitted");
}

#[test]
fn the_daily_budget_ends() {
    let mut world = World::new();
    for hours in [20, 10, 5] {
        world.past_isolation('b', -hours * 3600, Some(-hours * 3600 + 600));
    }
    assert_eq!(world.held(), "budget_spent");
    world.isolations[0].requested_at = at(-24 * 3600);
    assert_eq!(world.held(), "admitted");
}

#[test]
fn what_waits_to_begin_takes_no_zone_out() {
    let mut world = World::new();
    world.past_isolation('a', -100, None);
    world.isolations[0].admission = Admission::Refused(HoldReason::NotApproved);
    assert_eq!(world.held(), "admitted");
}

#[test]
fn what_the_detector_asked_for_ends_with_the_fault() {
    let mut world = World::new();
    world.assessment.zones.insert(zone('b'), Finding::healthy());
    assert_eq!(world.held(), "no_fault");
    world.request.origin = Origin::Operator;
    assert_eq!(world.held(), "admitted", "a person needs no fault");
}

#[test]
fn an_operators_hold_binds_the_detector_alone() {
    let mut world = World::new();
    let hold = OperatorHold { since: at(-60), why: "given back by hand".into(), until_healthy: true };
    world.holds.insert(zone('b'), hold);
    assert_eq!(world.held(), "operator_hold");
    world.request.origin = Origin::Operator;
    assert_eq!(world.held(), "admitted");
}

#[test]
fn a_person_may_override_advice_by_name_but_no_promise() {
    let mut world = World::new();
    world.request.origin = Origin::Operator;
    world.past_isolation('b', -4000, Some(-60));
    assert_eq!(world.held(), "cooling_down");
    world.request.overrides = ["cooling_down".to_owned()].into();
    assert_eq!(world.held(), "admitted");
    world.past_isolation('a', -100, None);
    assert_eq!(world.held(), "another_zone_isolated");
    world.request.overrides = ["another_zone_isolated".to_owned()].into();
    assert_eq!(world.held(), "invalid");
}

#[test]
fn without_metrics_a_person_counts_the_zones_that_take_pods() {
    let mut world = World::new();
    world.request.origin = Origin::Operator;
    world.request.overrides = ["stale_data".to_owned()].into();
    world.snapshot.gaps.push(Gap::QueryFailed { why: "down".into() });
    world.assessment.zones.clear();
    assert_eq!(world.held(), "admitted");
    world.cluster().nodes.retain(|_, node| node.zone == Some(zone('b')));
    assert_eq!(world.held(), "too_few_healthy_zones");
}

#[test]
fn a_zone_that_has_no_nodes_is_none() {
    let mut world = World::new();
    world.request.zone = zone('x');
    world.request.origin = Origin::Operator;
    let reason = world.admit(0).unwrap_err();
    assert_eq!(reason.to_string(), "no node is in a zone zone-x; there are zone-a, zone-b, zone-c");
}

#[test]
fn somebodys_ended_object_stands_in_the_detectors_way() {
    let mut world = World::new();
    world.past_isolation('b', -90_000, Some(-89_000));
    assert_eq!(world.held(), "admitted");
    world.isolations[0].remains = true;
    assert_eq!(world.held(), "invalid");
}

#[test]
fn who_does_not_lead_does_nothing() {
    let world = World::new();
    let situation = Situation {
        snapshot: &world.snapshot,
        assessment: &world.assessment,
        cluster: None,
        isolations: &[],
        holds: &world.holds,
        pause: &world.pause,
        silences: &world.silences,
        leads: false,
        acts: true,
    };
    let held = admit(&situation, &world.request, &world.settings, at(0)).unwrap_err();
    assert_eq!(held, HoldReason::NotLeader);
}

#[test]
fn of_isolations_that_are_about_to_begin_the_first_one_does() {
    let mut world = World::new();
    world.past_isolation('a', -10, None);
    world.past_isolation('b', -5, None);
    world.isolations.iter_mut().for_each(|isolation| isolation.admission = Admission::Pending);
    assert_eq!(world.held(), "another_zone_isolated");
    world.isolations[0].requested_at = at(-1);
    assert_eq!(world.held(), "admitted");
    world.isolations.remove(1);
    assert_eq!(world.held(), "another_zone_isolated", "what is not asked for yet comes after what is");
}

#[test]
fn a_zone_with_our_marks_is_out_whatever_is_on_record() {
    let mut world = World::new();
    world.cluster().nodes.get_mut("zone-c-0").unwrap().tainted = Some(zone('c'));
    assert_eq!(world.held(), "another_zone_isolated");
}

#[test]
fn those_that_are_left_must_bear_the_load() {
    let served = |world: &mut World, requests: [f64; 3]| {
        let cell = |total: f64| Cell { served: Calls { total, failed: 0.0 }, ..Cell::default() };
        let zones = ['a', 'b', 'c'].map(zone).into_iter().zip(requests.map(cell)).collect();
        world.snapshot.cells.insert(ServiceId::new("default", "web"), zones);
    };
    let mut world = World::new();
    served(&mut world, [3000.0, 3000.0, 3000.0]);
    assert_eq!(world.admit(0), Ok(vec![]), "half as much again for each endpoint");

    // The zone has six of ten endpoints: with the rest down elsewhere, one endpoint would carry it all.
    let mut world = World::new();
    (2..6).for_each(|nth| add_pod(world.cluster(), "web", &zone('b'), nth));
    for pod in world.cluster().pods.values_mut().filter(|pod| pod.zone == Some(zone('a'))) {
        pod.ready = false;
    }
    served(&mut world, [0.0, 6000.0, 2000.0]);
    let held = world.admit(0).unwrap_err();
    assert_eq!(
        held,
        HoldReason::InsufficientHeadroom { service: ServiceId::new("default", "web"), growth: 4.0, allowed: 2.5 }
    );
    assert!(held.to_string().contains("would get 4.0 times the requests that the busiest get now"), "{held}");
    world.request.overrides.insert("insufficient_headroom".to_owned());
    assert_eq!(world.admit(0), Ok(vec![]));
    world.request.overrides.clear();
    served(&mut world, [0.0, 60.0, 20.0]);
    assert_eq!(world.admit(0), Ok(vec![]), "a handful of requests overloads nobody");
    served(&mut world, [0.0, 0.0, 2000.0]);
    assert_eq!(world.admit(0), Ok(vec![]), "what serves nothing moves nothing");
}

#[test]
fn a_zone_that_comes_back_sick_again_and_again_cools_down_longer_each_time() {
    let until = |restored_s: &[i64]| {
        let mut world = World::new();
        world.settings.max_isolations_per_day = 100;
        restored_s.iter().for_each(|s| world.past_isolation('b', s - 60, Some(*s)));
        match world.admit(0) {
            Err(HoldReason::CoolingDown { until }) => Some(until.duration_since(at(0)).as_mins()),
            _ => None,
        }
    };
    assert_eq!(until(&[0]), Some(15));
    assert_eq!(until(&[-7200, 0]), Some(30));
    assert_eq!(until(&[-10800, -7200, 0]), Some(60));
    assert_eq!(until(&[-86_400, 0]), Some(15), "a day later it is forgotten");
    assert_eq!(until(&[-7200, -1900]), None);
}

mod capacity;
mod counted;
mod limits;
mod standing;
mod told;
