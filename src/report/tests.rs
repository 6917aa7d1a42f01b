use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::story::{AFTER, BEFORE, Kind, MOST_PLOTTED};
use super::{About, Collector, Report};
use crate::domain::{
    Assessment, Calls, Cell, Coverage, CycleLength, Event, Evidence, Finding, Gap, Histogram, HoldReason, Nats, Period,
    Record, ServiceId, Sight, Signal, Snapshot, Verdict, Zone,
};

const CYCLE: i64 = 15;

fn cycle() -> CycleLength {
    CycleLength::at_least(Period::from_secs(CYCLE))
}

fn at(cycles: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(CYCLE * cycles)
}

fn collector(cycles: i64) -> Collector {
    Collector::new(About {
        start: at(0),
        end: at(cycles),
        cycle: cycle(),
        settings: vec![("detect.cycle", "15s".into())],
    })
}

fn zones() -> Vec<Zone> {
    ["zone-a", "zone-b", "zone-c"].map(Zone::new).into()
}

fn cell(failed: f64) -> Cell {
    let calls = Calls { total: 100.0, failed };
    let latency = Histogram { edges_ms: [10.0, 100.0, f64::INFINITY].into(), counts: vec![60.0, 39.0, 1.0] };
    Cell { served: calls, called: calls, latency }
}

fn cells(services: &[ServiceId], zones: &[Zone]) -> BTreeMap<ServiceId, BTreeMap<Zone, Cell>> {
    let row = |_: &ServiceId| zones.iter().map(|zone| (zone.clone(), cell(1.0))).collect();
    services.iter().map(|service| (service.clone(), row(service))).collect()
}

fn sight(time: Timestamp, cells: BTreeMap<ServiceId, BTreeMap<Zone, Cell>>, zones: &[Zone]) -> Arc<Sight> {
    let coverage = zones.iter().map(|zone| (zone.clone(), Coverage { known: 3, up: 3 })).collect();
    let judged = zones.iter().map(|zone| (zone.clone(), Finding::healthy())).collect();
    let snapshot = Snapshot { time, cells, coverage, gaps: Vec::new(), cluster: None };
    Arc::new(Sight { snapshot, assessment: Assessment { time, zones: judged, unsettled: Default::default() } })
}

fn evidence(service: &ServiceId, signal: Signal) -> Evidence {
    Evidence {
        service: Some(service.clone()),
        signal,
        vantage: signal.vantage(),
        nats: Nats::new(20.0),
        peers_alike: false,
        seen: 0.2,
        expected: 0.01,
        excess_low: 0.1,
        excess_high: 0.3,
        zone_requests: 500.0,
        peers_seen: 0.01,
        peer_requests: 1000.0,
        window: Period::from_secs(60),
        bad_cycles: 4,
        window_cycles: 4,
        severity: 0.2,
    }
}

fn record(time: Timestamp, event: Event, zone: &Zone, evidence: &[Evidence]) -> Record {
    let mut record = Record::new(time, event, format!("{zone}: {event}")).zone(zone).evidence(evidence);
    record.verdict = Some(Verdict::ZoneFault);
    record.reason = (event != Event::Isolate).then_some(HoldReason::RegionalFault);
    record
}

fn finished(collector: Collector) -> Report {
    collector.finish(Record::new(at(0), Event::Summary, "so it was").figure("cycles", 7))
}

#[test]
fn a_decision_is_told_with_what_led_to_it_and_what_followed() {
    let (web, zones) = (ServiceId::new("shop", "web"), zones());
    let all: Vec<Evidence> = Signal::ALL.map(|signal| evidence(&web, signal)).into();
    let mut collector = collector(240);
    for i in 0..=240 {
        let records = match i {
            100 => vec![record(at(i), Event::Suspect, &zones[0], &all)],
            102 => vec![record(at(i), Event::Isolate, &zones[0], &all)],
            200 => vec![record(at(i), Event::Restore, &zones[0], &[])],
            _ => Vec::new(),
        };
        collector.cycle(&sight(at(i), cells(std::slice::from_ref(&web), &zones), &zones), &records);
    }
    let report = finished(collector);
    let [story] = report.stories.told.as_slice() else { panic!("{:?}", report.stories.told) };
    assert_eq!((story.kind, story.suspect_since, story.ended), (Kind::Isolated, Some(at(100)), Some(at(200))));
    assert!(story.figures.len() > 3);
    for figure in &story.figures {
        let (first, last) = (figure.points[0].0, figure.points[figure.points.len() - 1].0);
        assert_eq!((first, last), (at(102) - BEFORE, at(102) + AFTER), "{:?}", figure.measure);
        assert!(figure.points.iter().all(|(_, values)| values.len() == 3), "{:?}", figure.measure);
        assert_eq!(figure.zones()[0], &zones[0], "the zone concerned comes first");
    }
    let html = report.html();
    assert!(html.contains("zone-a: isolate") && html.contains("would have been isolated, once"));
    assert_eq!(html.matches("<figure>").count(), story.figures.len());
    assert!(!html.contains("NaN") && !html.contains("class=\"class"), "what is drawn is drawn");
}

#[test]
fn a_fault_that_ends_undecided_is_held_back_for_the_reason_it_had() {
    let (web, zones) = (ServiceId::new("shop", "web"), zones());
    let mut collector = collector(40);
    for i in 0..=40 {
        let event = [(10, Event::Suspect), (20, Event::Clear)].into_iter().find(|(when, _)| *when == i);
        let records: Vec<Record> = event
            .map(|(_, event)| record(at(i), event, &zones[1], &[evidence(&web, Signal::ServerErrors)]))
            .into_iter()
            .collect();
        collector.cycle(&sight(at(i), cells(std::slice::from_ref(&web), &zones), &zones), &records);
    }
    let report = finished(collector);
    assert_eq!(report.stories.told[0].ended, Some(at(20)));
    assert_eq!(report.stories.held["regional_fault"].count, 1);
    assert!(report.html().contains("Nothing would have been isolated: a zone was suspect once"));
}

#[test]
fn however_much_happens_the_page_stays_small() {
    let zones = zones();
    let services: Vec<ServiceId> = (0..100).map(|i| ServiceId::new("shop", format!("service-{i}"))).collect();
    let all: Vec<Evidence> = services.iter().map(|service| evidence(service, Signal::SlowRequests)).collect();
    let cells = cells(&services, &zones);
    let mut collector = collector(1500);
    for i in 0..=1500 {
        let zone = &zones[i as usize % 3];
        let event = if i % 500 == 499 { Event::Isolate } else { Event::Blocked };
        collector.cycle(&sight(at(i), cells.clone(), &zones), &[record(at(i), event, zone, &all)]);
        assert!(collector.kept_cycles() <= 61, "a quarter of an hour");
    }
    let report = finished(collector);
    let plotted = report.stories.told.iter().filter(|story| !story.figures.is_empty());
    assert_eq!(plotted.clone().count(), MOST_PLOTTED);
    assert_eq!(plotted.filter(|story| story.kind == Kind::Isolated).count(), 3, "the weightiest have curves");
    assert_eq!((report.stories.isolations, report.stories.held["regional_fault"].count), (3, 1498));
    let html = report.html();
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    assert!(html.contains("more, which are only counted"));
}

#[test]
fn names_from_labels_are_text_and_nothing_else() {
    let web = ServiceId::new("<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>");
    let zones = vec![Zone::new("</title><script>"), Zone::new("'\"><svg onload=alert(1)>")];
    let mut collector = collector(3);
    let all = [evidence(&web, Signal::ServerErrors)];
    collector.cycle(&sight(at(0), cells(std::slice::from_ref(&web), &zones), &zones), &[]);
    let records = zones.iter().map(|zone| record(at(1), Event::Isolate, zone, &all)).collect::<Vec<_>>();
    collector.cycle(&sight(at(1), cells(&[web], &zones), &zones), &records);
    let html = finished(collector).html();
    for forbidden in ["<script", "<img", "<svg onload"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn where_nothing_happened_or_nothing_was_seen_the_page_says_so() {
    let (web, zones) = (ServiceId::new("shop", "web"), zones());
    let mut quiet = collector(3);
    quiet.cycle(&sight(at(0), cells(&[web], &zones), &zones), &[]);
    let html = finished(quiet).html();
    assert!(html.contains("All was well") && html.contains("There was no gap"), "{html}");

    let mut blind = collector(3);
    let gap = Gap::NoRequests { metric: "istio_requests_total".into() };
    let snapshot = Snapshot::unobserved(at(0), gap.clone());
    let assessment = Assessment { time: at(0), zones: BTreeMap::new(), unsettled: Default::default() };
    let mut record = Record::new(at(0), Event::Gap, format!("nothing is decided, as {gap}"));
    record.verdict = Some(Verdict::Inconclusive { gaps: vec![gap] });
    blind.cycle(&Arc::new(Sight { snapshot, assessment }), &[record]);
    let html = finished(blind).html();
    assert!(html.contains("Nothing could be judged") && html.contains("there is no istio_requests_total"), "{html}");
}

#[test]
fn a_file_is_written_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    super::write(&path, "old").unwrap();
    super::write(&path, "new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    std::fs::create_dir(folder.path().join("taken.html")).unwrap();
    assert!(super::check(&folder.path().join("taken.html")).is_err());
    assert!(super::write(&folder.path().join("taken.html"), "x").is_err());
    assert!(super::check(&folder.path().join("nowhere/page.html")).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half done is left");
}
