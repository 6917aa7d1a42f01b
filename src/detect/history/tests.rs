use std::sync::Arc;

use jiff::SignedDuration;

use super::super::compare::Look;
use super::super::staged::{self, Said, calls};
use super::*;
use crate::domain::verdict::PodView;
use crate::domain::{Calls, Cell, Coverage, Histogram, Nats, Period, Ratio, ServiceOverride};

fn minute(nth: u32) -> Snapshot {
    let time = Timestamp::constant(1_764_000_000, 0) + SignedDuration::from_mins(i64::from(nth));
    let cell = |zone: u32| {
        let (total, failed) = (f64::from(200 + 10 * (nth * 7 % 5)), f64::from((nth + zone) % 3));
        let edges_ms = Arc::from([5.0, 25.0, f64::INFINITY]);
        let latency = Histogram { edges_ms, counts: vec![total / 2.0, total / 4.0, total / 4.0] };
        Cell { served: Calls { total, failed }, called: Calls { total, failed }, latency }
    };
    let cells = (0..3).map(|zone| (Zone::new(format!("zone-{zone}")), cell(zone))).collect();
    let cells = BTreeMap::from([(ServiceId::new("default", "mocka"), cells)]);
    Snapshot { time, cells, gaps: Vec::new(), coverage: BTreeMap::new(), cluster: None }
}

#[test]
fn cycles_alike_teach_the_same_taken_in_one_by_one_or_together() {
    let settings = Settings::default();
    let new = || History::new(&settings, CycleLength::at_least(Period::from_secs(15)));
    let (mut one_by_one, mut together) = (new(), new());
    for nth in 0..60 {
        let snapshot = minute(nth);
        for back in (0..4).rev() {
            let time = snapshot.time - one_by_one.cycle().signed() * back;
            one_by_one.push(&Snapshot { time, ..snapshot.clone() }, &settings);
        }
        together.push_alike(&snapshot, 4, &settings);
    }
    let learned = |history: &History| {
        let track = history.tracks.values().next().unwrap();
        format!("{:?} {:?} {:?} {:?}", track.past, track.noise, track.recent, history.times)
    };
    assert_eq!(learned(&one_by_one), learned(&together));
}

#[test]
fn buckets_are_merged_into_the_coarser_one_that_holds_them() {
    let own_ms = [1.0, 5.0, 10.0, f64::INFINITY];
    let counts = [1.0, 2.0, 4.0, 8.0];
    assert_eq!(coarsen(&own_ms, &counts, &own_ms), counts);
    assert_eq!(coarsen(&own_ms, &counts, &[5.0, f64::INFINITY]), [3.0, 12.0]);
    assert_eq!(coarsen(&own_ms, &counts, &[1.0, 5.0, f64::INFINITY]), [1.0, 2.0, 12.0]);
}

#[test]
fn newer_figures_of_a_zone_are_mixed_in_as_what_was_known_of_it_fades() {
    let frame = |n: f64| Frame {
        served: vec![n; 2],
        served_failed: vec![2.0 * n; 2],
        called: vec![3.0 * n; 2],
        called_failed: vec![4.0 * n; 2],
        latency: vec![vec![5.0 * n]; 2],
    };
    let mut known = frame(8.0);
    known.mix(&frame(1.0), 1, 0.5);
    assert_eq!((known.served, known.served_failed), (vec![8.0, 5.0], vec![16.0, 10.0]));
    assert_eq!((known.called, known.called_failed), (vec![24.0, 15.0], vec![32.0, 20.0]));
    assert_eq!(known.latency, [[40.0], [25.0]]);
}

#[test]
fn a_frame_forgets_one_zone() {
    let mut frame = Frame { latency: vec![vec![5.0]; 2], ..Frame::empty(2, 1) };
    for column in [&mut frame.served, &mut frame.served_failed, &mut frame.called, &mut frame.called_failed] {
        *column = vec![1.0, 2.0];
    }
    frame.clear(0);
    assert_eq!((frame.served, frame.served_failed), (vec![0.0, 2.0], vec![0.0, 2.0]));
    assert_eq!((frame.called, frame.called_failed), (vec![0.0, 2.0], vec![0.0, 2.0]));
    assert_eq!(frame.latency, [[0.0], [5.0]]);
}

#[test]
fn buckets_without_an_end_end_with_the_last_edge_that_counts() {
    assert_eq!(coarsen(&[1.0, 5.0, 10.0], &[1.0, 2.0, 4.0], &[1.0, 5.0]), [1.0, 6.0]);
}

fn names(services: impl IntoIterator<Item = ServiceId>) -> Vec<String> {
    services.into_iter().map(|service| service.name).collect()
}

#[test]
fn other_settings_apply_from_now_on_and_what_is_ignored_is_dropped() {
    let mut history = staged::history(2, &["cart", "search"]);
    let mut settings = Settings { half_life: Period::from_hours(2), ..Settings::default() };
    let mut change = ServiceOverride::of("*/cart".parse().unwrap());
    change.ignore = Some(true);
    settings.services.usual.trip = Nats::new(20.0);
    settings.services.overrides = vec![change];
    history.retune(&settings);
    assert_eq!(names(history.tracks.keys().cloned()), ["search"]);
    assert_eq!(history.tracks[&staged::service("search")].settings.trip, Nats::new(20.0));
    assert_eq!(history.scale.longest_freeze, 480);
}

#[test]
fn what_was_seen_is_remembered_cycle_by_cycle() {
    let mut history = staged::empty();
    assert!(history.seen_lately().is_empty() && history.seen().is_none());
    let seen = [1, 2, 3].map(|nth| {
        let of = |zone: usize| staged::cell(calls((10 * nth + zone) as f64, 1.0), calls((7 * nth) as f64, 0.0));
        let cells = (0..2).flat_map(|zone| ["cart", "search"].map(|name| (name, zone, of(zone))));
        // One of the services has only come.
        let cells: Vec<_> = cells.filter(|(name, ..)| nth > 1 || *name == "cart").collect();
        staged::snapshot(nth, &cells)
    });
    seen.iter().for_each(|snapshot| history.push(snapshot, &Settings::default()));
    assert_eq!(history.seen_lately(), seen);
    assert_eq!((history.seen(), history.services()), (Some(staged::at(3)), 2));
    assert_eq!(history.zones(), [staged::zone(0), staged::zone(1)]);
    assert_eq!([0, 1, 2].map(|nth| history.times[nth]), [3, 2, 1].map(staged::at));
}

#[test]
fn a_zone_is_watched_until_it_was_calm_for_long_enough() {
    let mut history = staged::history(2, &["cart"]);
    history.watched = vec![1, 0];
    assert_eq!([0, 1, 2].map(|nth| history.watched(&staged::zone(nth))), [true, false, false]);
    let cells = [("cart", 0, staged::cell(calls(100.0, 0.0), calls(0.0, 0.0)))];
    history.watched = vec![5, 5];
    history.push(&staged::snapshot(1, &cells), &Settings::default());
    assert_eq!(history.watched, [4, 5], "what is silent is not calm");
    history.start_anew(&staged::zone(1));
    assert_eq!(history.watched, [4, 0]);
}

#[test]
fn what_looks_suspicious_or_did_lately_is_a_hint() {
    let hints = |watched: [u32; 2], said: &[Said<'_>]| {
        let mut history = staged::history(2, &["cart"]);
        staged::say(&mut history, 1, said);
        history.watched = watched.to_vec();
        history.hints()
    };
    assert!(!hints([0, 0], &[]));
    assert!(hints([0, 1], &[]));
    assert!(hints([0, 0], &[("cart", 1, Signal::Latency, staged::bad())]));
    assert!(hints([0, 0], &[("", 1, Signal::Latency, staged::bad())]), "of all services together");
}

#[test]
fn a_zone_has_traffic_whose_servers_answered_or_whose_clients_called() {
    let mut history = staged::empty();
    let of = |served, called| staged::cell(calls(served, 0.0), calls(called, 0.0));
    let cells = [("cart", 0, of(1.0, 0.0)), ("cart", 1, of(0.0, 1.0)), ("cart", 2, of(0.0, 0.0))];
    history.push(&staged::snapshot(0, &cells), &Settings::default());
    assert_eq!([0, 1, 2].map(|nth| history.has_traffic(nth)), [true, true, false]);
}

#[test]
fn what_has_become_normal_is_told_by_service_and_zone() {
    let mut history = staged::history(2, &["cart", "search"]);
    assert!(history.adopted().is_empty());
    history.tracks.get_mut(&staged::service("search")).unwrap().adopted = vec![1];
    assert_eq!(history.adopted(), [(staged::service("search"), staged::zone(1))]);
}

#[test]
fn what_has_left_its_past_the_most_is_told_where_it_is_beyond_doubt() {
    let left = |before: &[&str], said: &[(&str, Signal, Look)]| {
        let mut history = staged::history(2, &["cart", "search"]);
        let said: Vec<Said<'_>> = said.iter().map(|(name, signal, look)| (*name, 0, *signal, *look)).collect();
        staged::say(&mut history, 1, &said);
        let before = before.iter().map(|name| staged::service(name)).collect();
        assert_eq!(history.left_its_past(&staged::zone(1), &before, &Settings::default()), None, "nor elsewhere");
        let most = history.left_its_past(&staged::zone(0), &before, &Settings::default());
        most.map(|(service, severity)| (service.name.clone(), severity))
    };
    let look = staged::bad_as_all();
    let more = Look { own: 0.2, ..look };
    let both = [("cart", Signal::ServerErrors, look), ("search", Signal::ServerErrors, more)];
    assert_eq!(left(&[], &both), Some(("search".to_owned(), 0.2)));
    assert_eq!(left(&["search"], &both), Some(("cart".to_owned(), 0.1)), "what was bad before is not told");
    let slower = ("search", Signal::Latency, Look { own: 1.0, ..look });
    assert_eq!(left(&[], &[both[0], slower]), Some(("cart".to_owned(), 0.1)), "twice as slow is as 9 % that fail");
    let trip = 13.0 + 6.0_f64.ln();
    for doubtful in [
        ("cart", Signal::ClientErrors, look),
        ("cart", Signal::ServerErrors, Look { live: false, ..look }),
        ("cart", Signal::ServerErrors, Look { own_nats: trip - 0.1, ..look }),
        ("cart", Signal::ServerErrors, Look { own: 0.0029, ..look }),
    ] {
        assert_eq!(left(&[], &[doubtful]), None);
    }
}

#[test]
fn services_are_worse_elsewhere_whose_servers_have_two_nats_against_them_in_another_zone() {
    let worse = |zone: usize, signal, own_nats| {
        let mut history = staged::history(3, &["cart", "search"]);
        staged::say(&mut history, 1, &[("search", zone, signal, Look { own_nats, ..staged::alike() })]);
        names(history.worse_elsewhere(&staged::zone(1)))
    };
    assert_eq!(worse(2, Signal::Latency, 2.0), ["search"]);
    assert!(worse(2, Signal::Latency, 1.9).is_empty());
    assert!(worse(1, Signal::Latency, 18.0).is_empty(), "in the zone itself");
    assert!(worse(2, Signal::ClientErrors, 18.0).is_empty(), "clients may suffer from the zone");
}

#[test]
fn half_of_the_evidence_for_a_suspicion_is_worth_a_closer_look() {
    let suspects = |z| {
        let mut history = staged::history(2, &["cart"]);
        staged::say(&mut history, 1, &[("cart", 1, Signal::SlowRequests, Look { z, ..staged::bad() })]);
        history.suspects()
    };
    let (service, zone) = (staged::service("cart"), staged::zone(1));
    let suspect = Suspect { service, zone, view: PodView::Durations, cycles: 8 };
    assert_eq!(suspects(6.0_f64.sqrt() + 0.01), BTreeSet::from([suspect]));
    assert!(suspects(6.0_f64.sqrt() - 0.01).is_empty());
}

#[test]
fn chances_of_a_false_alarm_are_shared_out_by_weighted_traffic() {
    let shares = |served: [f64; 2]| {
        let mut history = staged::history(1, &["cart", "search"]);
        for (track, served) in history.tracks.values_mut().zip(served) {
            track.past.recent.served = vec![served];
        }
        history.tracks.get_mut(&staged::service("search")).unwrap().settings.weight = Ratio::from_percent(50.0);
        history.share_out_chances();
        history.tracks.values().map(|track| track.share).collect::<Vec<_>>()
    };
    assert_eq!(shares([300.0, 200.0]), [0.75, 0.25]);
    assert_eq!(shares([0.0, 0.0]), [0.5, 0.5], "where none is known, evenly");
}

#[test]
fn a_service_is_followed_until_it_had_no_request_for_a_day() {
    let mut history = staged::history(2, &["cart", "search"]);
    history.tracks.get_mut(&staged::service("search")).unwrap().idle = 24 * 240 - 2;
    let left = [1, 2].map(|cycle| {
        let cells = [("cart", 0, staged::cell(calls(100.0, 0.0), calls(0.0, 0.0)))];
        history.push(&staged::snapshot(cycle, &cells), &Settings::default());
        names(history.tracks.keys().cloned()).join(", ")
    });
    assert_eq!(left, ["cart, search", "cart"]);
}

/// What is known of the second zone in a snapshot with these gaps, and of the gaps in the four after it.
fn after(gaps: Vec<Gap>) -> (History, Vec<Vec<Gap>>) {
    let mut history = staged::history(2, &["cart"]);
    let both = |cycle| {
        let cells = [0, 1].map(|zone| ("cart", zone, staged::cell(calls(100.0, 1.0), calls(50.0, 1.0))));
        staged::snapshot(cycle, &cells)
    };
    let coverage = BTreeMap::from([(staged::zone(1), Coverage { known: 3, up: 1 })]);
    history.push(&Snapshot { coverage, gaps, ..both(1) }, &Settings::default());
    let just_then = history.clone();
    let mut all = vec![history.gaps.clone()];
    for cycle in 2..6 {
        history.push(&both(cycle), &Settings::default());
        all.push(history.gaps.clone());
    }
    (just_then, all)
}

#[test]
fn a_zone_that_was_lost_is_not_judged_by_its_first_two_cycles() {
    let lost = Gap::ScrapesLost { zone: staged::zone(1), coverage: Coverage { known: 3, up: 1 } };
    let (then, gaps) = after(vec![lost.clone()]);
    let one = vec![lost.clone()];
    assert_eq!(gaps, [one.clone(), one.clone(), one.clone(), Vec::new(), Vec::new()]);
    let track = &then.tracks[&staged::service("cart")];
    assert_eq!([0, 1].map(|zone| track.recent.traffic(zone, 0)), [(100.0, 50.0), (0.0, 0.0)]);
    let too_few = Gap::TooFewZonesScraped { zones: vec![staged::zone(0)] };
    let (then, gaps) = after(vec![too_few.clone()]);
    assert_eq!(gaps, [vec![too_few], one.clone(), one, Vec::new(), Vec::new()], "nor where too few are left");
    assert_eq!(then.seen(), Some(staged::at(0)), "of such a cycle nothing is known");
}

#[test]
fn cycles_of_which_nothing_is_known_make_what_was_seen_older() {
    let mut history = staged::history(2, &["cart"]);
    staged::say(&mut history, 1, &[("cart", 0, Signal::Latency, Look { effect: 0.5, ..staged::bad() })]);
    for (cycle, back, after_gap) in [(1, 0, false), (3, 1, true), (6, 3, true)] {
        let cells = [("cart", 0, staged::cell(calls(100.0, 0.0), calls(0.0, 0.0)))];
        history.push(&staged::snapshot(cycle, &cells), &Settings::default());
        let watch = history.tracks[&staged::service("cart")].watches.get(Signal::Latency, 0);
        assert_eq!((0..5).find(|back| watch.effect(*back) == Some(0.5)), Some(back), "at cycle {cycle}");
        let kept = serde_json::to_value(watch).unwrap();
        assert_eq!(kept["after_gap"], after_gap, "at cycle {cycle}");
    }
    assert_eq!(history.times, [6, 3, 1, 0].map(staged::at));
}

#[test]
fn what_was_seen_of_a_zone_is_forgotten_where_it_starts_anew() {
    let mut history = staged::history(2, &["cart"]);
    let bad = |zone| [("cart", zone, Signal::Latency, staged::bad()), ("", zone, Signal::Latency, staged::bad())];
    staged::say(&mut history, 1, &[bad(0), bad(1)].concat());
    history.start_anew(&staged::zone(0));
    history.start_anew(&staged::zone(7));
    let track = &history.tracks[&staged::service("cart")];
    for watches in [&track.watches, &history.pooled] {
        assert_eq!([0, 1].map(|zone| watches.suspicious(zone)), [false, true]);
    }
    assert_eq!([0, 1].map(|zone| track.traffic(zone)), [(0.0, 0.0), (100.0, 50.0)]);
}
