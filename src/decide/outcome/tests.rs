use std::sync::Arc;

use super::*;
use crate::domain::cluster::{CpuUse, Pod, PodId, Service};
use crate::domain::{Cell, ClusterView, IsolationSpec, Recovery, ServiceId, Share};

fn figures_of(failed: f64, mean_ms: f64) -> Figures {
    let calls = Calls { total: 1000.0, failed };
    let saturated = Calls { total: 1000.0, failed: 0.0 };
    Figures { served: calls, called: calls, answered: 1000.0, answered_ms: 1000.0 * mean_ms, saturated }
}

/// The zone and the others, by failed requests of a thousand and mean duration.
fn picture(zone: (f64, f64), others: (f64, f64)) -> Picture {
    Picture { zone: figures_of(zone.0, zone.1), others: figures_of(others.0, others.1) }
}

/// Nothing of the zone any more.
fn without(others: (f64, f64)) -> Picture {
    Picture { zone: Figures::default(), others: figures_of(others.0, others.1) }
}

fn judge(before: &Picture, after: &Picture) -> Option<String> {
    let settings = Settings::default();
    harm(before, after, &settings).or_else(|| no_good(before, after, &settings))
}

#[test]
fn an_isolation_that_takes_the_failures_away_stands() {
    assert_eq!(judge(&picture((200.0, 10.0), (1.0, 10.0)), &without((1.0, 10.0))), None);
    assert_eq!(judge(&picture((1.0, 40.0), (1.0, 10.0)), &without((1.0, 10.0))), None);
}

#[test]
fn the_others_may_get_a_little_worse_but_not_more() {
    let before = picture((200.0, 10.0), (1.0, 10.0));
    assert_eq!(judge(&before, &without((20.0, 14.0))), None);
    assert!(judge(&before, &without((22.0, 10.0))).unwrap().contains("rollback.max_error_excess 2%"));
    assert!(judge(&before, &without((1.0, 16.0))).unwrap().contains("rollback.max_slowdown 1.5x"));
}

#[test]
fn endpoints_that_are_left_may_not_be_driven_to_their_limits() {
    let before = picture((200.0, 10.0), (1.0, 10.0));
    let mut after = without((1.0, 10.0));
    after.others.saturated.failed = 190.0;
    assert_eq!(judge(&before, &after), None);
    after.others.saturated.failed = 210.0;
    assert!(judge(&before, &after).unwrap().contains("limits serve 21 % of the other zones' requests"));
    after.others.saturated = Calls::default();
    assert_eq!(judge(&before, &after), None, "where nothing is known nothing is said");
}

#[test]
fn what_stays_as_bad_as_it_was_did_no_good() {
    let failing = judge(&picture((30.0, 10.0), (0.0, 10.0)), &without((14.0, 10.0))).unwrap();
    assert_eq!(
        failing,
        "it does no good: 1.40 % of all calls fail, as before (1.50 %; 0.00 % without the zone) \
         (rollback.min_improvement 30%)"
    );
    let slow = judge(&picture((0.0, 20.0), (0.0, 10.0)), &without((0.0, 14.0))).unwrap();
    assert!(slow.contains("a call takes 14 ms, as before (15 ms; 10 ms without the zone)"), "{slow}");
}

#[test]
fn a_healthy_zone_that_a_person_takes_out_can_do_no_good_and_none_is_claimed() {
    assert_eq!(judge(&picture((1.0, 10.0), (1.0, 10.0)), &without((1.0, 10.0))), None);
}

#[test]
fn a_handful_of_calls_says_nothing() {
    let few = |mut picture: Picture| {
        for figures in [&mut picture.zone, &mut picture.others] {
            (figures.served.total, figures.called.total, figures.answered) = (50.0, 50.0, 50.0);
        }
        picture
    };
    assert_eq!(judge(&few(picture((20.0, 10.0), (0.0, 10.0))), &few(without((40.0, 90.0)))), None);
}

#[test]
fn it_is_watched_for_a_day_at_the_most_and_what_is_lasting_lasts_no_longer() {
    let wrong = |watch, lasting| -> Vec<&'static str> {
        let settings =
            Settings { watch: Period::from_secs(watch), lasting: Period::from_secs(lasting), ..Settings::default() };
        settings.problems().into_iter().map(|(key, _)| key).collect()
    };
    assert!(wrong(86_400, 86_400).is_empty() && wrong(60, 1).is_empty());
    assert_eq!(wrong(86_401, 60), ["watch"]);
    assert_eq!(wrong(60, 0), ["lasting"]);
    assert_eq!(wrong(60, 61), ["lasting"]);
}

fn zone(letter: char) -> Zone {
    Zone::new(format!("zone-{letter}"))
}

/// In each zone `web` and `db`; only of `web` is known how much of its CPU it uses: at its limit in `zone-a`, below in `zone-b`.
fn snapshot() -> Snapshot {
    let edges_ms: Arc<[f64]> = [10.0, 20.0, f64::INFINITY].into();
    let cell = |total: f64| Cell {
        served: Calls { total, failed: 1.0 },
        called: Calls { total: 2.0 * total, failed: 3.0 },
        latency: Histogram { edges_ms: Arc::clone(&edges_ms), counts: vec![2.0, 1.0, 1.0] },
    };
    let (web, db) = (ServiceId::new("default", "web"), ServiceId::new("default", "db"));
    let mut cluster = ClusterView::default();
    let mut cpu = CpuUse { seen_at: Timestamp::UNIX_EPOCH, pods: BTreeMap::new() };
    cluster.services.insert(web.clone(), Service::default());
    for (letter, used) in [('a', 950), ('b', 949)] {
        let id = PodId { namespace: "default".into(), name: format!("web-{letter}") };
        cpu.pods.insert(id.clone(), used);
        let services = [web.clone()].into();
        let pod = Pod { zone: Some(zone(letter)), ready: true, services, cpu_limit: Some(1_000), ..Pod::default() };
        cluster.pods.insert(id, pod);
    }
    cluster.cpu_use = Some(Arc::new(cpu));
    let cells = |total: f64| ['a', 'b'].map(|letter| (zone(letter), cell(total))).into();
    let cells = [(web, cells(100.0)), (db, cells(50.0))].into();
    let (coverage, gaps) = (BTreeMap::new(), Vec::new());
    Snapshot { time: Timestamp::UNIX_EPOCH, cells, coverage, gaps, cluster: Some(cluster) }
}

/// Of both services together.
fn summed(saturated: f64) -> Figures {
    Figures {
        served: Calls { total: 150.0, failed: 2.0 },
        called: Calls { total: 300.0, failed: 6.0 },
        answered: 8.0,
        // Two of 5 ms, one of 15 ms, and one of no less than 20 ms, twice.
        answered_ms: 90.0,
        saturated: Calls { total: 100.0, failed: saturated },
    }
}

#[test]
fn a_zones_figures_are_those_of_its_services_together() {
    assert_eq!(figures(&snapshot()), [(zone('a'), summed(100.0)), (zone('b'), summed(0.0))].into());
}

#[test]
fn a_picture_holds_one_zone_against_all_others_over_all_cycles() {
    let cycles = [figures(&snapshot()), figures(&snapshot())];
    let twice = |figures: Figures| {
        let mut twice = figures;
        twice += figures;
        twice
    };
    let picture = Picture::of(&zone('b'), cycles.iter());
    assert_eq!(picture, Picture { zone: twice(summed(0.0)), others: twice(summed(100.0)) });
}

#[test]
fn what_is_just_as_much_as_is_allowed_is_allowed() {
    let before = picture((200.0, 10.0), (0.0, 10.0));
    assert_eq!(judge(&before, &without((20.0, 10.0))), None);
    assert_eq!(judge(&before, &without((0.0, 15.0))), None);
    let mut after = without((0.0, 10.0));
    after.others.saturated.failed = 200.0;
    assert_eq!(judge(&before, &after), None);
    let mut crowded = before;
    (crowded.others.saturated.failed, after.others.saturated.failed) = (150.0, 150.0);
    assert_eq!(judge(&crowded, &after), None, "it was so before");
}

#[test]
fn failures_that_only_clients_see_count_too() {
    let (mut before, mut after) = (picture((0.0, 10.0), (0.0, 10.0)), without((0.0, 10.0)));
    (before.zone.called.failed, after.others.called.failed) = (60.0, 30.0);
    let said = judge(&before, &after).unwrap();
    assert!(said.starts_with("it does no good: 3.00 % of all calls fail, as before (3.00 %; 0.00 %"), "{said}");
}

#[test]
fn a_zone_that_is_hardly_slower_than_the_others_can_do_no_good_by_going() {
    assert_eq!(judge(&picture((1.0, 10.4), (1.0, 10.0)), &without((1.0, 10.2))), None);
}

/// Out since second 0.
fn isolation(origin: Origin, stage: Option<Stage>) -> Isolation {
    let now = Timestamp::UNIX_EPOCH;
    let spec = IsolationSpec {
        zone: zone('b'),
        origin,
        reason: "test".into(),
        evidence: Vec::new(),
        expires_at: now,
        share: Share::NONE,
        only: Default::default(),
        overrides: Default::default(),
        approved: true,
    };
    let recovery = stage.map(|stage| Recovery { stage, since: now, why: String::new(), relapses: 0, not_before: None });
    Isolation { isolated_at: Some(now), recovery, ..Isolation::new("1".into(), spec, now) }
}

#[test]
fn it_is_judged_from_the_first_whole_minute_after_it_for_ten_minutes_while_the_zone_is_out() {
    let (bad, worse) = (picture((200.0, 10.0), (0.0, 10.0)), without((100.0, 10.0)));
    let said = |isolation: &Isolation, settings: &Settings, second| {
        let now = Timestamp::from_second(second).unwrap();
        failing(isolation, (&bad, &worse), settings, (now, SignedDuration::from_mins(1))).is_some()
    };
    let own = isolation(Origin::Detector, None);
    assert_eq!([60, 61, 600, 601].map(|second| said(&own, &Settings::default(), second)), [false, true, true, false]);
    let off = Settings { enabled: false, ..Settings::default() };
    assert!(!said(&own, &off, 61));
    let refilling = isolation(Origin::Detector, Some(Stage::Refilling));
    let out = isolation(Origin::Detector, Some(Stage::Out));
    assert!(!said(&refilling, &Settings::default(), 61) && said(&out, &Settings::default(), 61));
    let begun = Isolation { isolated_at: None, ..own };
    assert!(!said(&begun, &Settings::default(), 61), "not every step has confirmed");
}

#[test]
fn a_drill_may_do_harm_and_need_do_no_good() {
    let now = Timestamp::from_second(61).unwrap();
    let said = |origin, after: &Picture| {
        let before = picture((30.0, 10.0), (0.0, 10.0));
        let (isolation, settings) = (isolation(origin, None), Settings::default());
        failing(&isolation, (&before, after), &settings, (now, SignedDuration::from_mins(1)))
    };
    assert!(said(Origin::Drill, &without((30.0, 10.0))).unwrap().contains("rollback.max_error_excess"));
    assert_eq!(said(Origin::Drill, &without((14.0, 10.0))), None);
    assert!(said(Origin::Operator, &without((14.0, 10.0))).unwrap().contains("rollback.min_improvement"));
}
