use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::domain::cluster::ZoneNodes;
use crate::domain::{ClusterView, Finding, Gap, Origin, Period};

const NOW: i64 = 1_800_000_000;

struct World {
    snapshot: Snapshot,
    assessment: Assessment,
    isolations: Vec<Isolation>,
    settings: Settings,
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
        let endpoints = zones.iter().map(|z| (z.clone(), 2)).collect();
        let cluster = ClusterView {
            zones: zones.iter().map(|z| (z.clone(), ZoneNodes { nodes: 3, unavailable: 0 })).collect(),
            ready_endpoints: BTreeMap::from([(ServiceId::new("default", "web"), endpoints)]),
        };
        Self {
            snapshot: Snapshot {
                time: at(0),
                cells: BTreeMap::new(),
                coverage: BTreeMap::new(),
                gaps: Vec::new(),
                cluster: Some(cluster),
            },
            assessment: Assessment { time: at(0), zones: findings.collect(), unsettled: Default::default() },
            isolations: Vec::new(),
            settings: Settings::default(),
        }
    }

    fn admit(&self, now_s: i64) -> Result<Vec<&'static str>, HoldReason> {
        let request = Request {
            zone: zone('b'),
            origin: Origin::Detector,
            expires_after: Period::from_hours(1),
            evidence: Vec::new(),
        };
        let situation =
            Situation { snapshot: &self.snapshot, assessment: &self.assessment, isolations: &self.isolations };
        admit(&situation, &request, &self.settings, at(now_s))
    }

    fn held(&self) -> &'static str {
        self.admit(0).map_or_else(|reason| reason.as_str(), |_| "admitted")
    }

    fn cluster(&mut self) -> &mut ClusterView {
        self.snapshot.cluster.as_mut().unwrap()
    }

    fn past_isolation(&mut self, letter: char, requested_s: i64, restored_s: Option<i64>) {
        let mut isolation =
            Isolation::new(zone(letter), Origin::Detector, "test".into(), at(requested_s), Period::from_hours(1));
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
    assert_eq!(world.admit(0), Ok(vec!["zones_out_by_others", "unreachable_service"]));
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

#[test]
fn a_zone_that_others_cordoned_counts_as_out() {
    let mut world = World::new();
    world.cluster().zones.insert(zone('c'), ZoneNodes { nodes: 3, unavailable: 2 });
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
    let only_here = BTreeMap::from([(zone('b'), 1), (zone('a'), 0)]);
    world.cluster().ready_endpoints.insert(ServiceId::new("default", "ledger"), only_here);
    assert_eq!(world.held(), "unreachable_service");
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
