//! What is read of the real servers is what happened: each count once, whatever becomes of scrapes and proxies, and whatever
//! parts it is read in.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use zoneward::domain::observation::Coverage;
use zoneward::domain::{Calls, Cell, CycleLength, Period, ServiceId, Snapshot, Zone};
use zoneward::observe::{PrometheusObserver, Recall, Settings};
use zoneward::ports::Observer;

use crate::backfill::{backfilled_prometheus, samples_of_story, start, victoria_metrics};
use crate::support::Process;

fn observer(server: &Process, change: impl FnOnce(&mut Settings)) -> PrometheusObserver {
    let mut settings = Settings { url: server.url(), ..Settings::default() };
    change(&mut settings);
    PrometheusObserver::new(settings, CycleLength::at_least(Period::from_secs(15))).unwrap()
}

fn cycle(nth: i32) -> Timestamp {
    start() + SignedDuration::from_secs(15) * nth
}

/// A zone's series at a proxy: code, and after each of 25 scrapes how many there were, if it was there.
type Counter = fn(i32) -> Option<i32>;

const LAST: i32 = 24;
/// The story is told in the 20th scrape.
const PROXIES: [(&str, &str, &str, Counter); 7] = [
    ("a1", "zone-a", "200", |nth| Some(100 + 10 * nth)),
    // A failure that this proxy never had, though it is known: seven of them at once.
    ("a1", "zone-a", "503", |nth| (nth >= 20).then_some(7 + 2 * (nth - 20))),
    // Restarted.
    ("a2", "zone-a", "200", |nth| Some(if nth < 20 { 500 + 10 * nth } else { 4 + 10 * (nth - 20) })),
    // Not scraped twice.
    ("a3", "zone-a", "200", |nth| (nth != 19 && nth != 20).then_some(10 * nth)),
    ("b1", "zone-b", "200", |nth| Some(10 * nth)),
    // New, or back after a long time: of what it counts nothing is known.
    ("b2", "zone-b", "200", |nth| (nth >= 20).then_some(1000 + 10 * nth)),
    // Gone.
    ("b3", "zone-b", "200", |nth| (nth < 15).then_some(10 * nth)),
];

fn story() -> String {
    let mut out = String::new();
    for nth in 0..=LAST {
        // Five seconds before the cycle that sees it.
        let at = cycle(nth).as_second() - 5;
        for (pod, zone, code, counter) in PROXIES {
            let Some(count) = counter(nth) else { continue };
            let target = format!("instance=\"{pod}\",namespace=\"default\",pod=\"web-{pod}\"");
            let service = "destination_service_name=\"web\",destination_service_namespace=\"default\"";
            let labels = format!("{service},response_code=\"{code}\",locality=\"{zone}\",{target}");
            if code == "200" {
                writeln!(out, "up{{job=\"sim\",{target}}} 1 {at}").unwrap();
                for (le, half) in [("10", 2), ("+Inf", 1)] {
                    let metric = "istio_request_duration_milliseconds_bucket";
                    let count = count / half;
                    writeln!(out, "{metric}{{reporter=\"destination\",le=\"{le}\",{labels}}} {count} {at}").unwrap();
                }
            }
            for reporter in ["destination", "source"] {
                writeln!(out, "istio_requests_total{{reporter=\"{reporter}\",{labels}}} {count} {at}").unwrap();
            }
        }
    }
    out + "# EOF\n"
}

fn cell<'a>(snapshot: &'a Snapshot, zone: &str) -> &'a Cell {
    &snapshot.cells[&ServiceId::new("default", "web")][&Zone::new(zone)]
}

#[tokio::test]
async fn each_request_counts_once_whatever_becomes_of_scrapes_and_proxies() {
    let calls = |total: i32, failed: i32| Calls { total: f64::from(total), failed: f64::from(failed) };
    for server in ["2", "3", "victoria-metrics"] {
        let folder = tempfile::tempdir().unwrap();
        let running = match server {
            "victoria-metrics" => victoria_metrics(folder.path(), &story()),
            major => backfilled_prometheus(major.parse().unwrap(), folder.path(), &story()),
        };
        let mut observer = observer(&running, |_| ());
        let seen = observer.observe(cycle(18), cycle(22)).await.unwrap();
        let zone_a: Vec<Calls> = seen.iter().map(|snapshot| cell(snapshot, "zone-a").served).collect();
        let expected = [calls(30, 0), calls(20, 0), calls(10 + 7 + 4, 7), calls(10 + 2 + 10 + 30, 2), calls(32, 2)];
        assert_eq!(zone_a, expected, "{server}");
        let zone_b: Vec<Calls> = seen.iter().map(|snapshot| cell(snapshot, "zone-b").served).collect();
        assert_eq!(zone_b, [calls(10, 0), calls(10, 0), calls(10, 0), calls(20, 0), calls(20, 0)], "{server}");
        assert!(seen.iter().all(|s| cell(s, "zone-a").called == cell(s, "zone-a").served), "{server}: both vantages");
        let durations = &cell(&seen[0], "zone-a").latency;
        assert_eq!((&durations.edges_ms[..], &durations.counts[..]), (&[10.0, f64::INFINITY][..], &[15.0, 15.0][..]));
        assert_eq!(seen[0].coverage[&Zone::new("zone-a")], Coverage { known: 3, up: 3 }, "{server}");
        // Read for a start, older cycles are shared out evenly, and nothing is lost.
        let (mut times, mut sum) = (Vec::new(), Calls::default());
        let recall = Recall { exact_cycles: 2, merged_cycles: 4 };
        let learn = |snapshot: &Snapshot, alike: u32| {
            for back in (0..alike as i32).rev() {
                let time = snapshot.time - SignedDuration::from_secs(15) * back;
                times.push(time);
                if time > cycle(4) && time <= cycle(16) {
                    sum += cell(snapshot, "zone-a").served;
                }
            }
        };
        let recalled = observer.recall((cycle(4), cycle(22)), recall, learn).await.unwrap();
        assert_eq!((recalled, times.len()), (times.len(), 22), "{server}");
        assert!(times.windows(2).all(|pair| pair[1] == pair[0] + SignedDuration::from_secs(15)), "{server}: {times:?}");
        assert_eq!(sum, calls(12 * 30, 0), "{server}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_read_in_parts_and_nothing_differs() {
    let samples = samples_of_story("gray-zone.yaml");
    let folder = tempfile::tempdir().unwrap();
    let server = backfilled_prometheus(3, folder.path(), &samples);
    let (first, last) = (start() + SignedDuration::from_secs(30), start() + SignedDuration::from_secs(60));
    let mut whole = observer(&server, |_| ());
    let expected = whole.observe(first, last).await.unwrap();
    assert!(expected.iter().all(|snapshot| snapshot.cells.len() == 3), "{expected:?}");
    let mut in_parts = observer(&server, |settings| settings.max_response = "16KiB".parse().unwrap());
    assert_eq!(in_parts.observe(first, last).await.unwrap(), expected);
    assert!(in_parts.queries().len() > whole.queries().len(), "not by cycles alone");
    let before = in_parts.usage().failed_queries;
    in_parts.observe(first, first).await.unwrap();
    assert_eq!(in_parts.usage().failed_queries, before, "how many parts it takes is remembered");

    let mut hopeless = observer(&server, |settings| settings.max_response = "1KiB".parse().unwrap());
    let said = hopeless.observe(first, first).await.unwrap_err().to_string();
    assert!(said.contains("prometheus.max_response") && said.contains("prometheus.matchers"), "{said}");
}
