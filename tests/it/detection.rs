//! What the detector promises, whatever the numbers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zoneward::detect::{History, Pods, Settings, detect};
use zoneward::domain::{
    Calls, Cell, CycleLength, Gap, Histogram, Period, PodAge, PodCalls, Ratio, ServiceId, ServiceOverride, Services,
    Snapshot, Verdict, Zone,
};

const CYCLES: usize = 100;
const FAULT_FROM: usize = 60;
/// By then it is known what is usual.
const WARM: usize = 10;

/// Requests of one cell: how many, what share fails (as its servers see it, and as its clients do), how slow.
#[derive(Clone, Copy)]
struct Traffic {
    requests: f64,
    failing: f64,
    clients_failing: f64,
    slowdown: f64,
    /// Share of the requests that reach the servers.
    reaching: f64,
}

const HEALTHY: Traffic =
    Traffic { requests: 600.0, failing: 0.002, clients_failing: 0.002, slowdown: 1.0, reaching: 1.0 };
const SERVICES: [&str; 2] = ["cart", "search"];

fn zones(count: usize) -> Vec<Zone> {
    (0..count).map(|i| Zone::new(format!("zone-{i}"))).collect()
}

fn cell(traffic: Traffic, rng: &mut ChaCha8Rng) -> Cell {
    let wobble = |rng: &mut ChaCha8Rng, share: f64| 1.0 + share * (rng.random::<f64>() - 0.5);
    let total = (traffic.requests * wobble(rng, 0.2)).round();
    let failed = (total * traffic.failing * wobble(rng, 0.5)).round();
    let median_ms = 20.0 * traffic.slowdown * wobble(rng, 0.02);
    let edges_ms: std::sync::Arc<[f64]> = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, f64::INFINITY].into();
    let below = |edge: f64| if edge.is_finite() { 1.0 / (1.0 + (median_ms / edge).powf(2.5)) } else { 1.0 };
    let mut last = 0.0;
    let counts = edges_ms
        .iter()
        .map(|edge| {
            let share = below(*edge) - last;
            last = below(*edge);
            ((total - failed) * share).round()
        })
        .collect();
    let reaching = Calls { total: (total * traffic.reaching).round(), failed: (failed * traffic.reaching).round() };
    let refused = (total * traffic.clients_failing * wobble(rng, 0.5)).round();
    Cell { served: reaching, called: Calls { total, failed: refused }, latency: Histogram { edges_ms, counts } }
}

/// Of snapshots in which too few zones are left to compare, the gap says so alone, as the observer has it.
fn too_few_left(names: &[Zone], gaps: Vec<Gap>) -> Vec<Gap> {
    let lost = |zone: &&Zone| gaps.iter().any(|gap| gap.zone() == Some(*zone));
    let left: Vec<Zone> = names.iter().filter(|zone| !lost(zone)).cloned().collect();
    if left.len() < 2 { vec![Gap::TooFewZonesScraped { zones: left }] } else { gaps }
}

/// Lets a history see two services alike, and returns each zone's verdicts that lasted.
fn judge(names: &[Zone], traffic: impl Fn(usize, usize) -> Option<Traffic>, seed: u64) -> BTreeMap<Zone, Vec<Verdict>> {
    judge_services(names, &SERVICES, &Settings::default(), |_, zone, step| traffic(zone, step), seed)
}

fn judge_services(
    names: &[Zone],
    services: &[&str],
    settings: &Settings,
    traffic: impl Fn(usize, usize, usize) -> Option<Traffic>,
    seed: u64,
) -> BTreeMap<Zone, Vec<Verdict>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let mut history = History::new(settings, cycle);
    let mut verdicts: BTreeMap<Zone, Vec<Verdict>> = BTreeMap::new();
    for step in 0..CYCLES {
        let time = Timestamp::from_second(1_800_000_000 + 15 * step as i64).unwrap();
        let mut snapshot =
            Snapshot { time, cells: BTreeMap::new(), coverage: BTreeMap::new(), gaps: Vec::new(), cluster: None };
        for (service, name) in services.iter().enumerate() {
            let cells = snapshot.cells.entry(ServiceId::new("shop", *name)).or_default();
            for (i, zone) in names.iter().enumerate() {
                if let Some(traffic) = traffic(service, i, step) {
                    cells.insert(zone.clone(), cell(traffic, &mut rng));
                } else {
                    let gap = Gap::ScrapesLost { zone: zone.clone(), coverage: Default::default() };
                    if !snapshot.gaps.contains(&gap) {
                        snapshot.gaps.push(gap);
                    }
                }
            }
        }
        if snapshot.gaps.len() == names.len() {
            // Nobody looked.
            continue;
        }
        snapshot.gaps = too_few_left(names, snapshot.gaps);
        history.push(&snapshot, settings);
        let assessment = detect(&history, &Pods::new(), settings, time);
        for (zone, finding) in assessment.zones.into_iter().filter(|_| step >= WARM) {
            let seen = verdicts.entry(zone).or_default();
            if finding.persistent || matches!(finding.verdict, Verdict::Inconclusive { .. }) {
                seen.push(finding.verdict);
            }
        }
    }
    verdicts
}

fn accused(verdicts: &BTreeMap<Zone, Vec<Verdict>>) -> Vec<&Zone> {
    verdicts.iter().filter(|(_, seen)| seen.contains(&Verdict::ZoneFault)).map(|(zone, _)| zone).collect()
}

#[test]
fn what_began_everywhere_while_a_zone_had_no_requests_is_not_held_against_the_other() {
    // Both fail from then on; one of them shows it, as it alone has requests.
    let (away, back) = (FAULT_FROM - 8, FAULT_FROM + 20);
    let traffic = |zone: usize, step: usize| {
        let requests = if zone == 1 && (away..back).contains(&step) { 0.0 } else { HEALTHY.requests };
        let failing = if step >= FAULT_FROM { 0.06 } else { HEALTHY.failing };
        Some(Traffic { requests, failing, clients_failing: failing, ..HEALTHY })
    };
    for seed in 0..5 {
        let verdicts = judge(&zones(2), traffic, seed);
        assert!(accused(&verdicts).is_empty(), "seed {seed}: {verdicts:?}");
    }
    // And what begins in one zone once the other is back is found in it.
    let traffic = |zone: usize, step: usize| {
        let requests = if zone == 1 && (away - 30..away - 10).contains(&step) { 0.0 } else { HEALTHY.requests };
        let failing = if zone == 0 && step >= FAULT_FROM { 0.06 } else { HEALTHY.failing };
        Some(Traffic { requests, failing, clients_failing: failing, ..HEALTHY })
    };
    assert_eq!(accused(&judge(&zones(2), traffic, 0)), [&Zone::new("zone-0")]);
}

#[test]
fn one_failing_zone_is_found_among_two_three_and_four() {
    for count in [2, 3, 4] {
        let names = zones(count);
        let sick = Traffic { failing: 0.15, ..HEALTHY };
        let verdicts =
            judge(&names, |zone, step| Some(if zone == 1 && step >= FAULT_FROM { sick } else { HEALTHY }), 1);
        assert_eq!(accused(&verdicts), [&names[1]], "of {count} zones");
    }
}

#[test]
fn one_slow_zone_is_found_among_two_three_and_four() {
    for count in [2, 3, 4] {
        let names = zones(count);
        let slow = Traffic { slowdown: 2.0, ..HEALTHY };
        let verdicts =
            judge(&names, |zone, step| Some(if zone == 0 && step >= FAULT_FROM { slow } else { HEALTHY }), 2);
        assert_eq!(accused(&verdicts), [&names[0]], "of {count} zones");
    }
}

#[test]
fn the_healthiest_zone_is_never_accused() {
    let names = zones(3);
    let better = Traffic { failing: 0.0002, slowdown: 0.7, ..HEALTHY };
    let verdicts = judge(&names, |zone, step| Some(if zone == 2 && step >= FAULT_FROM { better } else { HEALTHY }), 3);
    assert!(accused(&verdicts).is_empty(), "{verdicts:?}");
}

#[test]
fn all_zones_alike_are_never_accused_however_bad() {
    for (failing, slowdown) in [(0.5, 1.0), (0.002, 4.0), (0.2, 3.0)] {
        let bad = Traffic { failing, slowdown, ..HEALTHY };
        let verdicts = judge(&zones(3), |_, step| Some(if step >= FAULT_FROM { bad } else { HEALTHY }), 4);
        assert!(accused(&verdicts).is_empty(), "failing {failing}, slowdown {slowdown}: {verdicts:?}");
    }
}

#[test]
fn a_fault_that_begins_everywhere_at_once_is_called_regional_in_every_zone() {
    for count in [2, 3, 4] {
        for sick in [Traffic { failing: 0.1, ..HEALTHY }, Traffic { slowdown: 1.8, ..HEALTHY }] {
            let names = zones(count);
            let verdicts = judge(&names, |_, step| Some(if step >= FAULT_FROM { sick } else { HEALTHY }), 16);
            for (zone, seen) in &verdicts {
                assert!(seen.contains(&Verdict::RegionalFault), "{zone} of {count}: {seen:?}");
            }
            assert!(accused(&verdicts).is_empty(), "nothing would be gained by isolating one");
        }
    }
}

#[test]
fn traffic_alone_accuses_nobody() {
    for requests in [30.0, 6000.0] {
        let other = Traffic { requests, ..HEALTHY };
        let verdicts =
            judge(&zones(3), |zone, step| Some(if zone == 1 && step >= FAULT_FROM { other } else { HEALTHY }), 5);
        assert!(accused(&verdicts).is_empty(), "{requests} requests: {verdicts:?}");
    }
}

#[test]
fn a_lost_zone_is_inconclusive_and_its_return_causes_nothing() {
    let names = zones(3);
    let lost = |zone: usize, step: usize| if zone == 1 && (60..80).contains(&step) { None } else { Some(HEALTHY) };
    let verdicts = judge(&names, lost, 6);
    assert!(accused(&verdicts).is_empty());
    let inconclusive = verdicts[&names[1]].iter().filter(|v| matches!(v, Verdict::Inconclusive { .. })).count();
    assert_eq!(inconclusive, 22, "while it is lost, and two cycles more: {:?}", verdicts[&names[1]]);
}

/// Failures of four cycles, one too few to act on; a cycle in which these zones are not seen; then other failures.
fn around_a_gap(unseen: &[usize], first: f64, then: f64, seed: u64) -> BTreeMap<Zone, Vec<Verdict>> {
    let sick = |failing: f64| Some(Traffic { failing, ..HEALTHY });
    let traffic = |zone: usize, step: usize| match step {
        64 if unseen.contains(&zone) => None,
        60..64 if zone == 0 => sick(first),
        65.. if zone == 0 => sick(then),
        _ => Some(HEALTHY),
    };
    judge(&zones(2), traffic, seed)
}

#[test]
fn a_fault_that_ended_while_nothing_was_seen_is_no_fault() {
    for seed in 0..4 {
        for (unseen, how) in [(&[0][..], "one of two zones was lost"), (&[0, 1], "nobody looked")] {
            let ended = around_a_gap(unseen, 0.03, HEALTHY.failing, seed);
            assert!(accused(&ended).is_empty(), "{how}, seed {seed}: {ended:?}");
            let lasts = around_a_gap(unseen, 0.03, 0.03, seed);
            assert_eq!(accused(&lasts), [&zones(2)[0]], "{how}, seed {seed}");
        }
    }
}

#[test]
fn a_zone_without_requests_is_not_called_healthy() {
    let names = zones(3);
    let silent = Traffic { requests: 0.0, ..HEALTHY };
    let verdicts = judge(&names, |zone, step| Some(if zone == 0 && step >= FAULT_FROM { silent } else { HEALTHY }), 7);
    let last = verdicts[&names[0]].last().unwrap();
    assert_eq!(*last, Verdict::Inconclusive { gaps: vec![Gap::NoTraffic { zone: names[0].clone() }] });
}

#[test]
fn the_last_zone_with_requests_has_no_peer() {
    let names = zones(2);
    let silent = Traffic { requests: 0.0, ..HEALTHY };
    let verdicts = judge(&names, |zone, step| Some(if zone == 0 && step >= FAULT_FROM { silent } else { HEALTHY }), 8);
    let last = verdicts[&names[1]].last().unwrap();
    assert_eq!(*last, Verdict::Inconclusive { gaps: vec![Gap::NoPeer { zone: names[1].clone() }] });
}

#[test]
fn the_order_of_zones_does_not_matter() {
    let names = zones(3);
    let renamed: Vec<Zone> = ["zone-9", "zone-5", "zone-7"].into_iter().map(Zone::new).collect();
    let sick = Traffic { failing: 0.05, ..HEALTHY };
    let fault = |zone: usize, step: usize| Some(if zone == 1 && step >= FAULT_FROM { sick } else { HEALTHY });
    let (one, other) = (judge(&names, fault, 9), judge(&renamed, fault, 9));
    for (name, new_name) in names.iter().zip(&renamed) {
        let kinds = |seen: &[Verdict]| seen.iter().map(Verdict::as_str).collect::<Vec<_>>();
        assert_eq!(kinds(&one[name]), kinds(&other[new_name]));
    }
}

#[test]
fn a_standing_difference_is_no_fault() {
    let older = Traffic { slowdown: 1.3, failing: 0.004, ..HEALTHY };
    let verdicts = judge(&zones(3), |zone, _| Some(if zone == 2 { older } else { HEALTHY }), 10);
    assert!(accused(&verdicts).is_empty(), "{verdicts:?}");
}

/// The third of three services carries one request in a hundred, and fails in one zone.
fn minor_service_fails(change: impl Fn(&mut ServiceOverride)) -> Vec<Verdict> {
    let mut minor = ServiceOverride::of("shop/minor".parse().unwrap());
    change(&mut minor);
    let services = Services { overrides: vec![minor], ..Services::default() };
    let settings = Settings { services, ..Settings::default() };
    let names = zones(3);
    let verdicts = judge_services(
        &names,
        &["cart", "search", "minor"],
        &settings,
        |service, zone, step| {
            let sick = service == 2 && zone == 1 && step >= FAULT_FROM;
            let requests = if service == 2 { 60.0 } else { 3000.0 };
            Some(Traffic { requests, failing: if sick { 0.5 } else { 0.002 }, ..HEALTHY })
        },
        11,
    );
    assert!(verdicts[&names[0]].is_empty() && verdicts[&names[2]].is_empty());
    verdicts[&names[1]].clone()
}

#[test]
fn a_minor_service_is_not_worth_a_zone() {
    let verdicts = minor_service_fails(|_| {});
    assert!(!verdicts.is_empty());
    for verdict in verdicts {
        let Verdict::ServiceFault { affected_share, needed_share } = verdict else { panic!("{verdict:?}") };
        assert!(affected_share < needed_share, "{affected_share}");
    }
}

#[test]
fn a_minor_service_that_is_critical_is_worth_a_zone() {
    assert!(minor_service_fails(|minor| minor.critical = Some(true)).contains(&Verdict::ZoneFault));
}

#[test]
fn a_service_that_is_ignored_or_below_its_own_floor_accuses_nobody() {
    assert_eq!(minor_service_fails(|minor| minor.ignore = Some(true)), []);
    assert_eq!(minor_service_fails(|minor| minor.min_error_excess = Some(Ratio::from_percent(80.0))), []);
}

#[test]
fn clients_that_fail_alone_accuse_their_zone() {
    let names = zones(3);
    let cut_off = Traffic { clients_failing: 0.15, ..HEALTHY };
    let verdicts =
        judge(&names, |zone, step| Some(if zone == 2 && step >= FAULT_FROM { cut_off } else { HEALTHY }), 12);
    assert_eq!(accused(&verdicts), [&names[2]]);
}

#[test]
fn clients_that_fail_because_of_servers_elsewhere_do_not() {
    let names = zones(2);
    let verdicts = judge(
        &names,
        |zone, step| {
            let faulty = step >= FAULT_FROM;
            Some(Traffic {
                failing: if faulty && zone == 0 { 0.2 } else { 0.002 },
                clients_failing: match (faulty, zone) {
                    (true, 1) => 0.2,
                    (true, _) => 0.05,
                    (false, _) => 0.002,
                },
                ..HEALTHY
            })
        },
        13,
    );
    assert_eq!(accused(&verdicts), [&names[0]]);
    let elsewhere = verdicts[&names[1]].iter().any(|v| matches!(v, Verdict::FaultElsewhere { .. }));
    assert!(elsewhere, "{:?}", verdicts[&names[1]]);
}

#[test]
fn suspicion_does_not_outlive_hours_of_blindness() {
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let settings = Settings::default();
    let mut history = History::new(&settings, CycleLength::at_least(Period::from_secs(15)));
    let names = zones(3);
    let sick = Traffic { failing: 0.05, ..HEALTHY };
    let mut lasted = Vec::new();
    // Health, three sick cycles, two hours of nothing, three sick cycles.
    for step in (0..63).chain(543..546) {
        let time = Timestamp::from_second(1_800_000_000 + 15 * step).unwrap();
        let cells = names.iter().enumerate().map(|(i, zone)| {
            let traffic = if i == 0 && step >= 60 { sick } else { HEALTHY };
            (zone.clone(), cell(traffic, &mut rng))
        });
        let snapshot = Snapshot {
            time,
            cells: BTreeMap::from([(ServiceId::new("shop", "cart"), cells.collect())]),
            coverage: BTreeMap::new(),
            gaps: Vec::new(),
            cluster: None,
        };
        history.push(&snapshot, &settings);
        lasted.push(detect(&history, &Pods::new(), &settings, time).zones[&names[0]].lasted);
    }
    assert!(lasted[62] >= Period::from_secs(30), "{:?}", &lasted[60..]);
    assert_eq!(lasted[65], Period::from_secs(0), "too little is known after the hole: {:?}", &lasted[60..]);
}

#[test]
fn a_watch_that_has_only_begun_calls_nobody_healthy() {
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    let settings = Settings::default();
    let mut history = History::new(&settings, CycleLength::at_least(Period::from_secs(15)));
    let names = zones(3);
    let verdicts: Vec<bool> = (0..12)
        .map(|step| {
            let time = Timestamp::from_second(1_800_000_000 + 15 * step).unwrap();
            let cells = names.iter().map(|zone| (zone.clone(), cell(HEALTHY, &mut rng))).collect();
            let snapshot = Snapshot {
                time,
                cells: BTreeMap::from([(ServiceId::new("shop", "cart"), cells)]),
                coverage: BTreeMap::new(),
                gaps: Vec::new(),
                cluster: None,
            };
            history.push(&snapshot, &settings);
            detect(&history, &Pods::new(), &settings, time).zones[&names[0]].verdict == Verdict::Healthy
        })
        .collect();
    assert_eq!(verdicts, [[false; 8].as_slice(), &[true; 4]].concat());
}

#[test]
fn sums_over_series_with_different_buckets_say_nothing() {
    let mixed = [(10.0, 20.0), (20.0, 8.0), (50.0, 22.0), (f64::INFINITY, 30.0)];
    assert_eq!(Histogram::from_cumulative(&mixed), Histogram::default());
}

#[test]
fn a_minor_service_is_not_worth_a_zone_because_few_others_are_called_through_the_mesh() {
    // The main service is entered from outside: its calls have no client in the mesh. All client traffic is the minor one's.
    let settings = Settings::default();
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let (mut history, mut rng) = (History::new(&settings, cycle), ChaCha8Rng::seed_from_u64(17));
    let names = zones(3);
    let mut lasting = Vec::new();
    for step in 0..CYCLES {
        let time = Timestamp::from_second(1_800_000_000 + 15 * step as i64).unwrap();
        let mut cells: BTreeMap<ServiceId, BTreeMap<Zone, Cell>> = BTreeMap::new();
        for (i, zone) in names.iter().enumerate() {
            let main = Cell { called: Calls::default(), ..cell(Traffic { requests: 30_000.0, ..HEALTHY }, &mut rng) };
            let failing = if i == 1 && step >= FAULT_FROM { 0.5 } else { 0.002 };
            let minor = cell(Traffic { requests: 60.0, failing, ..HEALTHY }, &mut rng);
            cells.entry(ServiceId::new("shop", "main")).or_default().insert(zone.clone(), main);
            cells.entry(ServiceId::new("shop", "minor")).or_default().insert(zone.clone(), minor);
        }
        let snapshot = Snapshot { time, cells, coverage: BTreeMap::new(), gaps: Vec::new(), cluster: None };
        history.push(&snapshot, &settings);
        let finding = detect(&history, &Pods::new(), &settings, time).zones.remove(&names[1]).unwrap();
        if finding.persistent {
            lasting.push(finding.verdict);
        }
    }
    assert!(!lasting.is_empty());
    assert!(lasting.iter().all(|v| matches!(v, Verdict::ServiceFault { .. })), "{lasting:?}");
}

/// What a closer look at four pods on two nodes makes of a lasting fault of 15 % in one zone; `failing` is each pod's share.
fn closer_look(failing: [f64; 4]) -> Verdict {
    closer_look_at(|nth| PodCalls {
        node: Some(format!("node-{}", nth / 2)),
        calls: Calls { total: 1_200.0, failed: 1_200.0 * failing[nth] },
        ..PodCalls::default()
    })
}

/// The same, of pods that are as `pod` says.
fn closer_look_at(pod: impl Fn(usize) -> PodCalls) -> Verdict {
    let settings = Settings::default();
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let (mut history, mut rng) = (History::new(&settings, cycle), ChaCha8Rng::seed_from_u64(11));
    let names = zones(3);
    let mut time = Timestamp::UNIX_EPOCH;
    for step in 0..80 {
        time = Timestamp::from_second(1_800_000_000 + 15 * step).unwrap();
        let mut snapshot =
            Snapshot { time, cells: BTreeMap::new(), coverage: BTreeMap::new(), gaps: Vec::new(), cluster: None };
        for name in SERVICES {
            let cells = snapshot.cells.entry(ServiceId::new("shop", name)).or_default();
            for (i, zone) in names.iter().enumerate() {
                let sick = name == "cart" && i == 1 && step >= FAULT_FROM as i64;
                let traffic = if sick { Traffic { failing: 0.15, ..HEALTHY } } else { HEALTHY };
                cells.insert(zone.clone(), cell(traffic, &mut rng));
            }
        }
        history.push(&snapshot, &settings);
        detect(&history, &Pods::new(), &settings, time);
    }
    let mut pods = Pods::new();
    let mut assessment = detect(&history, &pods, &settings, time);
    assert!(!assessment.unsettled.is_empty(), "a closer look is asked for");
    while !assessment.unsettled.is_empty() {
        for suspect in assessment.unsettled {
            let pods_seen = (0..4).map(|nth| PodCalls { pod: format!("cart-{nth}"), ..pod(nth) }).collect();
            pods.insert(suspect, pods_seen);
        }
        assessment = detect(&history, &pods, &settings, time);
    }
    assessment.zones[&names[1]].verdict.clone()
}

#[test]
fn a_closer_look_tells_a_bad_pod_a_bad_node_and_a_bad_zone_apart() {
    assert_eq!(closer_look([0.15; 4]), Verdict::ZoneFault);
    assert_eq!(closer_look([0.002, 0.002, 0.002, 0.6]), Verdict::InstanceFault { pod: "cart-3".into() });
    assert_eq!(closer_look([0.002, 0.002, 0.3, 0.3]), Verdict::NodeFault { node: "node-1".into() });
}

/// Of three zones, seen by their clients and by their servers.
fn judge_calls(traffic: impl Fn(usize) -> Traffic) -> (Vec<Zone>, BTreeMap<Zone, Vec<Verdict>>) {
    let names = zones(3);
    let verdicts = judge(&names, |zone, step| Some(if step >= FAULT_FROM { traffic(zone) } else { HEALTHY }), 12);
    (names, verdicts)
}

#[test]
fn a_zone_whose_servers_are_not_reached_is_named_though_all_clients_suffer_alike() {
    let (names, verdicts) = judge_calls(|zone| {
        let reaching = if zone == 2 { 0.1 } else { 1.0 };
        Traffic { clients_failing: 0.3, reaching, ..HEALTHY }
    });
    // Without a closer look at its pods the zone is what it comes to.
    assert_eq!(accused(&verdicts), [&names[2]], "{verdicts:?}");
}

#[test]
fn a_zone_that_merely_gets_less_traffic_is_not_accused() {
    let (_, verdicts) = judge_calls(|zone| Traffic { reaching: if zone == 2 { 0.1 } else { 1.0 }, ..HEALTHY });
    assert!(accused(&verdicts).is_empty(), "{verdicts:?}");
}

#[test]
fn a_broken_link_between_two_zones_is_neither_ones_fault() {
    let (names, verdicts) = judge_calls(|zone| {
        let cut = zone < 2;
        Traffic { clients_failing: if cut { 0.3 } else { 0.002 }, reaching: if cut { 0.7 } else { 1.0 }, ..HEALTHY }
    });
    assert!(accused(&verdicts).is_empty(), "{verdicts:?}");
    let partition = |zone: &Zone, other: &Zone| Gap::Partition { zone: zone.clone(), other: other.clone() };
    let said = |verdict: &Verdict| verdict.gaps().contains(&partition(&names[0], &names[1]));
    assert!(verdicts[&names[0]].iter().any(said), "it is said what it may be: {verdicts:?}");
}

/// A closer look at four pods of the zone that fails as a whole.
fn ages(ages: [PodAge; 4], failing: [f64; 4]) -> Verdict {
    closer_look_at(|nth| PodCalls {
        age: ages[nth],
        calls: Calls { total: 1_200.0, failed: 1_200.0 * failing[nth] },
        ..PodCalls::default()
    })
}

#[test]
fn while_a_roll_out_replaces_pods_it_may_be_the_version_that_is_worse() {
    use PodAge::{Gone, New, Settled, Unknown};
    assert_eq!(ages([Gone, New, New, New], [0.15; 4]), Verdict::RolloutInProgress { new_pods: 3, pods: 3 });
    let in_new_ones = ages([Settled, Settled, New, New], [0.002, 0.002, 0.3, 0.3]);
    assert_eq!(in_new_ones, Verdict::RolloutInProgress { new_pods: 2, pods: 4 });
    assert_eq!(ages([Settled, Settled, New, New], [0.15; 4]), Verdict::ZoneFault, "scaled out while it fails");
    assert_eq!(ages([Unknown; 4], [0.15; 4]), Verdict::ZoneFault, "nothing is known to be new");
}

#[test]
fn a_fault_that_creeps_in_is_not_learned_as_normal() {
    let names = zones(3);
    let creeping = |step: usize| (step as f64 - 200.0).max(0.0) / 1000.0 * 0.05;
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let settings = Settings::default();
    let mut history = History::new(&settings, CycleLength::at_least(Period::from_secs(15)));
    // Five points in four hours: each hour's growth alone is hardly noticed.
    let found = (0..1200).any(|step| {
        let time = Timestamp::from_second(1_800_000_000 + 15 * step as i64).unwrap();
        let traffic = |zone| if zone == 1 { Traffic { failing: 0.002 + creeping(step), ..HEALTHY } } else { HEALTHY };
        let cells = names.iter().enumerate().map(|(i, zone)| (zone.clone(), cell(traffic(i), &mut rng))).collect();
        let cells = [(ServiceId::new("shop", "cart"), cells)].into();
        let snapshot = Snapshot { time, cells, coverage: BTreeMap::new(), gaps: Vec::new(), cluster: None };
        history.push(&snapshot, &settings);
        let assessment = detect(&history, &Pods::new(), &settings, time);
        assessment.zones[&names[1]].persistent
    });
    assert!(found, "the zone is noticed while its errors grow");
}
