use super::super::compare::Look;
use super::super::corroborate::Rival;
use super::super::staged::{self, Said, calls};
use super::*;
use crate::domain::verdict::PodView;

/// By service: the pod that explains it, the node that does, and how many new pods of how many.
type By = (Option<&'static str>, Option<&'static str>, Option<(u32, u32)>);

fn explained(services: &[By]) -> Explained {
    let mut explained = Explained::default();
    let owned = |name: &str| name.to_owned();
    services.iter().for_each(|(pod, node, new)| explained.add(pod.map(owned), node.map(owned), *new));
    explained
}

#[test]
fn what_explains_every_service_is_said_and_a_roll_out_first() {
    let verdict = |services: &[By]| explained(services).verdict();
    assert_eq!(verdict(&[(Some("a"), None, None)]), Some(Verdict::InstanceFault { pod: "a".into() }));
    assert_eq!(
        verdict(&[(Some("a"), Some("n"), None), (None, Some("n"), None)]),
        Some(Verdict::NodeFault { node: "n".into() })
    );
    assert_eq!(
        verdict(&[(Some("a"), Some("n"), Some((1, 3))), (None, None, Some((2, 4)))]),
        Some(Verdict::RolloutInProgress { new_pods: 3, pods: 7 })
    );
    assert_eq!(verdict(&[]), None);
}

#[test]
fn what_explains_one_service_alone_explains_nothing() {
    let none: By = (None, None, None);
    for other in [none, (None, Some("m"), None)] {
        for one in [(Some("a"), None, None), (None, Some("n"), None), (None, None, Some((1, 3)))] {
            let both = explained(&[one, other]);
            assert!(both.by_nothing(), "{one:?} and {other:?}");
            assert_eq!(both.verdict(), None);
        }
    }
    assert!(!explained(&[(Some("a"), None, None)]).by_nothing());
    assert!(!explained(&[(None, Some("n"), None); 2]).by_nothing());
    assert!(!explained(&[(None, None, Some((1, 3))); 2]).by_nothing());
}

fn judged(history: &History, pods: &Pods) -> Assessment {
    detect(history, pods, &Settings::default(), staged::at(99))
}

fn finding(history: &History, nth: usize) -> Finding {
    judged(history, &Pods::new()).zones.remove(&staged::zone(nth)).unwrap()
}

fn verdicts(history: &History) -> Vec<Verdict> {
    judged(history, &Pods::new()).zones.into_values().map(|finding| finding.verdict).collect()
}

fn inconclusive(gap: Gap) -> Verdict {
    Verdict::Inconclusive { gaps: vec![gap] }
}

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-6, "{value}, and not {expected}");
}

/// With 40.5 nats, which leave no doubt.
fn sure() -> Look {
    Look { z: 9.0, own_nats: 40.5, error: 0.01, peers: 200.0, peers_seen: 0.005, ..staged::bad() }
}

#[test]
fn a_gap_of_all_zones_leaves_every_zone_in_doubt_and_a_zones_own_that_zone() {
    let mut history = staged::history(2, &["cart"]);
    staged::say(&mut history, 1, &[]);
    assert_eq!(verdicts(&history), [Verdict::Healthy, Verdict::Healthy]);
    assert_eq!(judged(&history, &Pods::new()).time, staged::at(0));
    let lost = Gap::ScrapesLost { zone: staged::zone(1), coverage: Default::default() };
    history.gaps = vec![lost.clone()];
    assert_eq!(verdicts(&history), [Verdict::Healthy, inconclusive(lost.clone())]);
    let failed = Gap::QueryFailed { why: "refused".to_owned() };
    history.gaps = vec![lost, failed.clone()];
    assert_eq!(verdicts(&history), [inconclusive(failed.clone()), inconclusive(failed)]);
}

#[test]
fn silence_and_a_lack_of_peers_or_of_data_are_not_health() {
    let with_traffic = |zones: [f64; 3]| {
        let mut history = staged::empty();
        let of = |nth: usize| ("cart", nth, staged::cell(calls(zones[nth], 0.0), calls(0.0, 0.0)));
        history.push(&staged::snapshot(0, &[0, 1, 2].map(of)), &Settings::default());
        verdicts(&history)
    };
    let [first, second, third] = [0, 1, 2].map(staged::zone);
    let silent = |zone: &Zone| inconclusive(Gap::NoTraffic { zone: zone.clone() });
    let little = |zone: &Zone| inconclusive(Gap::TooLittleData { zone: zone.clone() });
    let no_peer = inconclusive(Gap::NoPeer { zone: first.clone() });
    assert_eq!(with_traffic([9.0, 0.0, 0.0]), [no_peer, silent(&second), silent(&third)]);
    assert_eq!(with_traffic([9.0, 9.0, 0.0]), [little(&first), little(&second), silent(&third)]);
}

#[test]
fn how_large_a_fault_is_in_a_zone_is_a_mean_over_services_by_the_root_of_their_requests() {
    let mut history = staged::history(2, &["cart", "pay", "search"]);
    let of = |name, weight, effect, z| -> Said<'_> {
        (name, 1, Signal::ServerErrors, Look { z, effect, weight, ..staged::bad() })
    };
    let said = [of("cart", 100.0, 0.1, 6.0), of("pay", 400.0, 0.4, 6.0), of("search", 900.0, 0.9, 4.0)];
    staged::say(&mut history, 1, &said);
    let typical = typical_sizes(&history);
    near(typical[0][1], (10.0 * 0.1 + 20.0 * 0.4) / 30.0);
    assert!(typical[0][0] <= 0.0 && typical[5][1] <= 0.0, "where none trips there is none");
    let severities = finding(&history, 1).evidence.into_iter().map(|evidence| evidence.severity);
    severities.zip([0.3, 0.1]).for_each(|(severity, expected)| near(severity, expected));
}

#[test]
fn a_fault_that_has_lasted_is_told_with_its_evidence_and_its_pods_are_to_be_seen() {
    let mut history = staged::history(2, &["cart"]);
    staged::say(&mut history, 3, &[("cart", 1, Signal::ServerErrors, sure())]);
    let (found, evidence) = (finding(&history, 1), finding(&history, 1).evidence.remove(0));
    // An effect of 10 %, above the knee of 7.6 %, must last for (7.6 / 10)² of 75 s.
    let (lasted, needed) = (Period::from_secs(45), Period::from_secs(44));
    assert_eq!((found.verdict, found.persistent), (Verdict::ZoneFault, true));
    assert_eq!((found.lasted, found.needed), (lasted, needed));
    for (value, expected) in [
        (evidence.nats.get(), 40.5),
        (evidence.seen, 0.11),
        (evidence.expected, 0.01),
        (evidence.excess_low, 0.1 - 1.959_964 * 0.01),
        (evidence.excess_high, 0.1 + 1.959_964 * 0.01),
        (evidence.zone_requests, 100.0),
        (evidence.peer_requests, 200.0),
        (evidence.peers_seen, 0.005),
        (evidence.severity, 0.1),
    ] {
        near(value, expected);
    }
    assert_eq!((evidence.service, evidence.signal), (Some(staged::service("cart")), Signal::ServerErrors));
    assert_eq!((evidence.window, evidence.window_cycles, evidence.bad_cycles), (Period::from_secs(30), 2, 2));
    let (service, zone) = (staged::service("cart"), staged::zone(1));
    let suspect = Suspect { service, zone, view: PodView::Servers, cycles: 8 };
    assert_eq!(judged(&history, &Pods::new()).unsettled, BTreeSet::from([suspect.clone()]));
    let pod = |(pod, failed): (&str, f64)| PodCalls {
        pod: pod.to_owned(),
        calls: calls(1000.0, failed),
        ..PodCalls::default()
    };
    let seen = |failed: [f64; 3]| {
        let pods = ["a", "b", "c"].into_iter().zip(failed).map(pod).collect();
        let mut judged = judged(&history, &BTreeMap::from([(suspect.clone(), pods)]));
        assert!(judged.unsettled.is_empty());
        judged.zones.remove(&staged::zone(1)).unwrap().verdict
    };
    assert_eq!(seen([300.0, 2.0, 2.0]), Verdict::InstanceFault { pod: "a".to_owned() });
    assert_eq!(seen([100.0; 3]), Verdict::ZoneFault);
}

#[test]
fn a_fault_that_has_not_lasted_is_told_and_no_pods_are_asked_for() {
    let mut history = staged::history(2, &["cart"]);
    staged::say(&mut history, 2, &[("cart", 1, Signal::ServerErrors, sure())]);
    let found = finding(&history, 1);
    assert_eq!((found.verdict, found.persistent), (Verdict::ZoneFault, false));
    assert_eq!(found.lasted, Period::from_secs(30));
    assert!(judged(&history, &Pods::new()).unsettled.is_empty());
}

#[test]
fn a_fault_that_the_newest_cycles_do_not_show_is_not_there_any_more() {
    let mut history = staged::history(2, &["cart"]);
    staged::say(&mut history, 5, &[("cart", 1, Signal::ServerErrors, sure())]);
    staged::say(&mut history, 1, &[]);
    let scale = history.scale;
    let track = history.tracks.get_mut(&staged::service("cart")).unwrap();
    let mut looks = [(); SIGNALS].map(|()| vec![staged::alike(); 2]);
    looks[0][1] = sure();
    track.watches.take(4, &looks, (&scale, 14.8), &track.settings);
    let found = finding(&history, 1);
    assert_eq!((found.lasted, found.persistent), (Period::from_secs(75), false));
}

#[test]
fn what_got_worse_in_every_zone_is_held_against_its_own_past() {
    let evidence = |signal, own| {
        let mut history = staged::history(2, &["cart"]);
        let look = Look { own, error: 0.01, peers: 200.0, ..staged::bad_as_all() };
        staged::say(&mut history, 3, &[0, 1].map(|nth| ("cart", nth, signal, look)));
        let mut found = finding(&history, 1);
        assert_eq!((found.verdict, found.persistent), (Verdict::RegionalFault, false));
        let evidence = found.evidence.remove(0);
        assert!(found.evidence.is_empty() && evidence.peers_alike);
        assert_eq!((evidence.service, evidence.signal), (Some(staged::service("cart")), signal));
        assert_eq!((evidence.window, evidence.window_cycles, evidence.bad_cycles), (Period::from_secs(30), 2, 0));
        near(evidence.nats.get(), 18.0);
        near(evidence.excess_low, own - 1.959_964 * 0.01);
        near(evidence.excess_high, own + 1.959_964 * 0.01);
        near(evidence.zone_requests, 100.0);
        near(evidence.peer_requests, 200.0);
        (evidence.seen, evidence.expected, evidence.severity)
    };
    let check = |(a, b, c): (f64, f64, f64), expected: [f64; 3]| {
        [a, b, c].into_iter().zip(expected).for_each(|(value, expected)| near(value, expected));
    };
    check(evidence(Signal::ServerErrors, 0.1), [0.11, 0.01, 0.1]);
    check(evidence(Signal::Latency, 1.0), [2.0, 1.0, 0.09]);
}

#[test]
fn a_regional_fault_lasts_for_as_long_as_the_zone_has_left_its_past() {
    let mut history = staged::empty();
    let mut push = |cycle: usize, failed| {
        let cells = [0, 1].map(|nth| ("cart", nth, staged::cell(calls(1000.0, failed), calls(0.0, 0.0))));
        history.push(&staged::snapshot(cycle, &cells), &Settings::default());
        finding(&history, 1)
    };
    (0..40).for_each(|cycle| assert!(push(cycle, 1.0).evidence.is_empty()));
    for (cycle, persistent) in [(1, false), (2, true), (3, true)] {
        let found = push(39 + cycle, 300.0);
        assert_eq!((found.verdict, found.persistent), (Verdict::RegionalFault, persistent));
        assert_eq!((found.lasted, found.needed), (Period::from_secs(15 * cycle as i64), Period::from_secs(30)));
        assert_eq!(found.evidence[0].bad_cycles, cycle.min(2) as u32);
    }
}

#[test]
fn a_zone_is_not_accused_where_another_is_as_bad_or_servers_elsewhere_are() {
    let mut history = staged::history(3, &["cart", "search"]);
    staged::say(&mut history, 3, &[("cart", 1, Signal::ServerErrors, sure())]);
    rivals(&mut history, Signal::ServerErrors);
    assert_eq!(verdicts(&history), [Verdict::Healthy, Verdict::RegionalFault, Verdict::Healthy]);
    let clients = ["cart", "search"].map(|name| (name, 1, Signal::ClientErrors, sure()));
    let servers = Look { z: 4.0, ..sure() };
    let mut history = staged::history(3, &["cart", "search"]);
    let servers = ["cart", "search"].map(|name| (name, 2, Signal::ServerErrors, servers));
    staged::say(&mut history, 3, &[clients, servers].concat());
    let why = "its clients fail because of servers in zone-2".to_owned();
    assert_eq!(finding(&history, 1).verdict, Verdict::FaultElsewhere { why });
}

/// Each zone has one that is as bad.
fn rivals(history: &mut History, signal: Signal) {
    let mut rivals = [(); SIGNALS].map(|()| vec![Rival { excess: 0.0, nats: 0.0 }; history.zones.len()]);
    rivals[signal as usize].fill(Rival { excess: 0.1, nats: 20.0 });
    for track in history.tracks.values_mut() {
        track.watches.note_rivals(&[rivals.clone(), rivals.clone()], &track.settings);
    }
}

#[test]
fn a_link_is_broken_where_clients_of_two_zones_fail_alike() {
    let mut history = staged::history(3, &["cart", "search"]);
    let clients = |nth| ["cart", "search"].map(|name| (name, nth, Signal::ClientErrors, sure()));
    staged::say(&mut history, 3, &[clients(0), clients(1)].concat());
    rivals(&mut history, Signal::ClientErrors);
    let broken = |zone, other| inconclusive(Gap::Partition { zone: staged::zone(zone), other: staged::zone(other) });
    assert_eq!(verdicts(&history), [broken(0, 1), broken(1, 0), Verdict::Healthy]);
}

#[test]
fn a_link_is_broken_too_where_neither_end_stands_out_from_its_peers() {
    let partition = |look: Look, also: &[Said<'_>]| {
        let mut history = staged::history(3, &["cart"]);
        let clients = [0, 1].map(|nth| ("cart", nth, Signal::ClientErrors, look));
        staged::say(&mut history, 3, &[&clients, also].concat());
        verdicts(&history)
    };
    let broken = |zone, other| inconclusive(Gap::Partition { zone: staged::zone(zone), other: staged::zone(other) });
    let look = staged::bad_as_all();
    assert_eq!(partition(look, &[]), [broken(0, 1), broken(1, 0), Verdict::Healthy]);
    let servers = ("cart", 2, Signal::ServerErrors, Look { own_nats: 6.0, ..look });
    for (look, also) in [
        (Look { live: false, ..look }, [].as_slice()),
        (Look { own_nats: 14.7, ..look }, &[]),
        (Look { own: 0.0029, ..look }, &[]),
        (look, &[servers]),
    ] {
        assert_eq!(partition(look, also), [const { Verdict::Healthy }; 3], "{look:?}");
    }
}

/// In each of two zones services have so many requests, served and called. In the second zone some are sick, as they were for
/// so many cycles, and no other client is looked at.
fn breadth(traffic: &[(&str, f64, f64)], sick: &[(usize, &str, Signal)], critical: bool) -> Finding {
    let mut history = staged::empty();
    let of = |served, called| staged::cell(calls(served, 0.0), calls(called, 0.0));
    let cells = traffic.iter().flat_map(|(name, s, c)| [0, 1].map(|nth| (*name, nth, of(*s, *c))));
    history.push(&staged::snapshot(0, &cells.collect::<Vec<_>>()), &Settings::default());
    history.tracks.get_mut(&staged::service("cart")).unwrap().settings.critical = critical;
    let unseen = Look { live: false, ..staged::alike() };
    let none = traffic.iter().map(|(name, ..)| (*name, 1, Signal::ClientErrors, unseen));
    for cycle in (1..=3).rev() {
        let sick = sick.iter().filter(|(cycles, ..)| *cycles >= cycle);
        let sick = sick.map(|(_, name, signal)| (*name, 1, *signal, sure()));
        staged::say(&mut history, 1, &none.clone().chain(sick).collect::<Vec<_>>());
    }
    finding(&history, 1)
}

#[test]
fn a_fault_is_worth_a_zone_that_carries_enough_of_its_traffic() {
    let (servers, clients) = (Signal::ServerErrors, Signal::ClientErrors);
    let of = |main: (f64, f64), signal| {
        breadth(&[("cart", 100.0, 40.0), ("main", main.0, main.1)], &[(3, "cart", signal)], false)
    };
    assert_eq!(of((4900.0, 0.0), servers).verdict, Verdict::ZoneFault);
    assert_eq!(of((0.0, 1960.0), clients).verdict, Verdict::ZoneFault);
    let minor = |affected_share| Verdict::ServiceFault { affected_share, needed_share: 0.02 };
    assert_eq!(of((7900.0, 0.0), servers).verdict, minor(100.0 / 8000.0));
    assert_eq!(of((0.0, 3960.0), clients).verdict, minor(40.0 / 4000.0));
}

#[test]
fn a_fault_is_worth_a_zone_of_a_critical_service_of_three_or_of_all_together() {
    let traffic = [("cart", 10.0, 0.0), ("main", 9970.0, 0.0), ("pay", 10.0, 0.0), ("search", 10.0, 0.0)];
    let [cart, pay, search] = ["cart", "pay", "search"].map(|name| (3, name, Signal::ServerErrors));
    let verdict = |sick: &[(usize, &str, Signal)], critical| breadth(&traffic, sick, critical).verdict;
    let minor = |affected_share| Verdict::ServiceFault { affected_share, needed_share: 0.02 };
    assert_eq!(verdict(&[cart, pay], false), minor(0.002));
    assert_eq!(verdict(&[cart], true), Verdict::ZoneFault, "it is critical");
    assert_eq!(verdict(&[pay], true), minor(0.001), "another is");
    assert_eq!(verdict(&[cart, pay, search], false), Verdict::ZoneFault);
    assert_eq!(verdict(&[(3, "", Signal::ServerErrors)], false), Verdict::ZoneFault);
    let slow = |(cycles, name, _)| (cycles, name, Signal::ClientErrors);
    assert_eq!(verdict(&[cart, slow(pay), slow(search)], false), minor(0.001), "of one vantage");
}

#[test]
fn services_count_towards_a_lasting_fault_whose_own_has_lasted() {
    let traffic = [("cart", 10.0, 0.0), ("main", 9970.0, 0.0), ("pay", 10.0, 0.0), ("search", 10.0, 0.0)];
    let since = |cycles: [usize; 3]| {
        let sick = ["cart", "pay", "search"]
            .into_iter()
            .zip(cycles)
            .map(|(name, cycles)| (cycles, name, Signal::ServerErrors));
        let found = breadth(&traffic, &sick.collect::<Vec<_>>(), false);
        (found.persistent, found.verdict)
    };
    assert_eq!(since([3, 3, 3]), (true, Verdict::ZoneFault));
    let minor = Verdict::ServiceFault { affected_share: 0.002, needed_share: 0.02 };
    assert_eq!(since([3, 3, 1]), (true, minor));
    assert_eq!(since([1, 1, 1]), (false, Verdict::ZoneFault), "where none has lasted all count");
}
