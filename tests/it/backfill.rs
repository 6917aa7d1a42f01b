//! A past stretch on the real servers: Prometheus 2 and 3, and `VictoriaMetrics`.
//!
//! The embedded world is scraped as Prometheus would scrape it, and loaded as history; what a backtest then says is
//! known beforehand.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use zoneward::domain::cluster::PodId;
use zoneward::domain::{CycleLength, Period};
use zoneward::observe::PrometheusObserver;
use zoneward::sim::{Scenario, World};

use crate::support::{
    Process, decisions, free_address, json_lines, part, prometheus, prometheus_looking_back, root, run, stderr, stdout,
    text, whatever_the_source,
};

const STORY_START: &str = "2026-11-01T01:00:00Z";

/// How the history is spoilt on its way into the store.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Spoil {
    #[default]
    Nothing,
    /// Two replicas of Prometheus, not de-duplicated.
    Duplicate,
    /// No Telemetry tag.
    NoZoneLabel,
    /// `up` is not stored.
    NoUp,
    /// From some moment on a pod label is mapped onto every series of one zone.
    Relabelled,
    /// For three minutes Prometheus itself scrapes nothing.
    Silence,
    /// From the third minute on half of one zone's proxies don't answer.
    HalfLost,
    /// From the third minute on Prometheus, which is in one zone, reaches no other.
    CutOff,
}

pub fn start() -> Timestamp {
    STORY_START.parse().unwrap()
}

pub fn story(file: &str) -> String {
    std::fs::read_to_string(root().join("config/scenarios").join(file)).unwrap()
}

/// The samples of a story in the `OpenMetrics` format, each with its time in seconds.
pub fn samples(yaml: &str, spoil: Spoil) -> (String, Scenario) {
    let scenario = Scenario::parse(yaml).unwrap();
    let interval = scenario.scrape_interval.signed().as_secs();
    let mut world = World::new(scenario.clone(), start(), 1);
    let end = start() + scenario.duration.signed();
    let mut out = String::new();
    while world.now() < end {
        let now = world.now() + SignedDuration::from_secs(1);
        world.run_until(now);
        let story_s = now.duration_since(start()).as_secs();
        if spoil == Spoil::Silence && (180..360).contains(&story_s) {
            continue;
        }
        if now.as_second().rem_euclid(interval) == 0 {
            // Kubelets are scraped on three paths, under one job and instance.
            for path in ["metrics", "cadvisor", "probes"] {
                writeln!(out, "up{{job=\"kubelet\",instance=\"node\",metrics_path=\"/{path}\"}} 1 {}", now.as_second())
                    .unwrap();
            }
        }
        for (i, target) in world.targets().iter().enumerate() {
            let phase = (i as i64 * 7) % interval;
            if now.as_second().rem_euclid(interval) != phase {
                continue;
            }
            let labels: Vec<String> = target.labels().iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
            let labels = labels.join(",");
            let in_h = target.pod.contains("-hangzhou-h-");
            let lost = story_s >= 180
                && match spoil {
                    Spoil::HalfLost => in_h && i % 2 == 0,
                    Spoil::CutOff => !in_h,
                    Spoil::Nothing
                    | Spoil::Duplicate
                    | Spoil::NoZoneLabel
                    | Spoil::NoUp
                    | Spoil::Relabelled
                    | Spoil::Silence => false,
                };
            let metrics = world.metrics(&target.pod).filter(|_| !lost);
            let replicas: &[&str] = if spoil == Spoil::Duplicate { &["a", "b"] } else { &[""] };
            for replica in replicas {
                let labels = if replica.is_empty() {
                    labels.clone()
                } else {
                    format!("{labels},prometheus_replica=\"{replica}\"")
                };
                if spoil != Spoil::NoUp {
                    let up = u8::from(metrics.is_some());
                    writeln!(out, "up{{job=\"sim\",{labels}}} {up} {}", now.as_second()).unwrap();
                }
                for line in metrics.iter().flat_map(|m| m.lines()).filter(|line| !line.starts_with('#')) {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let series = series.strip_suffix('}').unwrap();
                    let series = if spoil == Spoil::NoZoneLabel {
                        let at = series.find(",locality=").unwrap();
                        let next = series[at + 1..].find(',').map_or(series.len(), |comma| at + 1 + comma);
                        series[..at].to_owned() + &series[next..]
                    } else {
                        series.to_owned()
                    };
                    let relabelled = spoil == Spoil::Relabelled && story_s > 420 && in_h;
                    let more = if relabelled { ",istio_io_draining=\"zoneward\"" } else { "" };
                    writeln!(out, "{series},{labels}{more}}} {value} {}", now.as_second()).unwrap();
                }
            }
        }
    }
    out.push_str("# EOF\n");
    (out, scenario)
}

/// Two minutes of a story, healthy ones.
pub fn samples_of_story(file: &str) -> String {
    samples(&story(file).replace("duration: 25m", "duration: 2m"), Spoil::Nothing).0
}

pub fn backfilled_prometheus(major: u32, folder: &Path, samples: &str) -> Process {
    backfill(folder, samples);
    prometheus(major, folder, "")
}

pub fn backfill(folder: &Path, samples: &str) {
    let file = folder.join("samples.txt");
    std::fs::write(&file, samples).unwrap();
    let output = Command::new(part("promtool"))
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(&file)
        .arg(folder.join("tsdb"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

pub fn victoria_metrics(folder: &Path, samples: &str) -> Process {
    let address = free_address();
    let mut command = Command::new(part("victoria-metrics"));
    command
        .arg(format!("-storageDataPath={}", folder.join("vm").display()))
        .arg(format!("-httpListenAddr={address}"))
        .args(["-retentionPeriod=100y", "-loggerLevel=ERROR", "-search.latencyOffset=0s"]);
    let server = Process::start(&mut command, address, "/health");
    // Its import wants milliseconds.
    let lines: String =
        samples.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}000\n")).collect();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!("POST /api/v1/import/prometheus HTTP/1.0\r\nContent-Length: {}\r\n\r\n", lines.len());
    std::io::Write::write_all(&mut stream, (head + &lines).as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.contains(" 204 "), "{answer}");
    assert_eq!(server.get("/internal/force_flush").0, 200);
    server
}

fn backtest(server: &Process, scenario: &Scenario) -> (Vec<Value>, String) {
    backtest_with(server, scenario, &[])
}

fn backtest_with(server: &Process, scenario: &Scenario, more: &[&str]) -> (Vec<Value>, String) {
    let from = (start() - scenario.history.signed()).to_string();
    let to = (start() + scenario.duration.signed()).to_string();
    let url = server.url();
    let usual = ["backtest", "--config", "config/default.yaml", "--prometheus", &url, "--start", &from, "--end", &to];
    let output = run(&[&usual[..], &["--output", "json"], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    (json_lines(&stdout(&output)), stderr(&output))
}

fn events(records: &[Value], event: &str) -> Vec<String> {
    let of = records.iter().filter(|r| text(r, "event") == event);
    of.map(|r| format!("{} {}", text(r, "zone"), text(r, "message"))).collect()
}

fn check_connect(server: &Process, at: Timestamp) -> (Option<i32>, Vec<Value>) {
    let output = crate::support::zoneward()
        .args(["check", "--connect", "--config", "config/default.yaml", "--output", "json", "--at", &at.to_string()])
        .env("ZONEWARD_PROMETHEUS__URL", server.url())
        .output()
        .unwrap();
    (output.status.code(), json_lines(&stdout(&output)))
}

fn finding<'a>(findings: &'a [Value], what: &str) -> &'a Value {
    findings
        .iter()
        .find(|f| text(f, "what").contains(what))
        .unwrap_or_else(|| panic!("no finding on {what}: {findings:?}"))
}

#[test]
fn three_servers_give_the_same_decisions_on_the_same_history() {
    let (samples, scenario) =
        samples(&story("gray-zone.yaml").replace("duration: 25m", "duration: 9m"), Spoil::Nothing);
    let mut said = Vec::new();
    for server in ["2", "3", "victoria-metrics"] {
        let folder = tempfile::tempdir().unwrap();
        let server = match server {
            "victoria-metrics" => victoria_metrics(folder.path(), &samples),
            major => backfilled_prometheus(major.parse().unwrap(), folder.path(), &samples),
        };
        let (records, _) = backtest(&server, &scenario);
        let isolated = records.iter().find(|r| text(r, "event") == "isolate").expect("an isolation");
        assert_eq!(text(isolated, "zone"), "cn-hangzhou-h");
        let fault = start() + scenario.faults[0].at.signed();
        let delay = text(isolated, "time").parse::<Timestamp>().unwrap().duration_since(fault);
        assert!(delay.as_secs() <= 60, "after {} s", delay.as_secs());
        let need_a_cluster =
            "unknown_zone zones_out_by_others unreachable_service capacity_trap insufficient_headroom insufficient_cpu";
        let need_a_cluster: Vec<&str> = need_a_cluster.split(' ').collect();
        assert_eq!(isolated["not_evaluated"], serde_json::json!(need_a_cluster));
        said.push(decisions(&records));
    }
    assert_eq!(said[0], said[1], "Prometheus 2 and 3");
    assert_eq!(said[0], said[2], "Prometheus and VictoriaMetrics");
}

#[test]
fn a_report_shows_the_decision_its_evidence_and_every_zone() {
    let (samples, scenario) =
        samples(&story("gray-zone.yaml").replace("duration: 25m", "duration: 9m"), Spoil::Nothing);
    let folder = tempfile::tempdir().unwrap();
    let server = backfilled_prometheus(3, folder.path(), &samples);
    let page = folder.path().join("page.html");
    let (records, said) = backtest_with(&server, &scenario, &["--report", page.to_str().unwrap()]);
    assert!(said.contains("the report is in"), "{said}");
    assert_eq!(decisions(&records), decisions(&backtest(&server, &scenario).0), "it changes nothing that is printed");

    let html = std::fs::read_to_string(&page).unwrap();
    let isolated = records.iter().find(|r| text(r, "event") == "isolate").unwrap();
    assert!(html.contains(text(isolated, "message")), "the decision's sentence");
    assert!(html.contains("<svg class=\"lanes\"") && html.contains("<svg class=\"plot\""));
    for zone in ["cn-hangzhou-g", "cn-hangzhou-h", "cn-hangzhou-k"] {
        assert!(html.contains(&format!(">{zone}</text>")), "a lane of {zone}");
    }
    for elsewhere in ["http:", "https:", "src=", "<script", "@import", "url(h"] {
        assert!(!html.contains(elsewhere), "{elsewhere}: the page needs nothing from elsewhere");
    }

    drop(server);
    let unseen = folder.path().join("unseen.html");
    let to = (start() + scenario.duration.signed()).to_string();
    let url = "http://127.0.0.1:9";
    let arguments = ["backtest", "--config", "config/default.yaml", "--prometheus", url, "--start", STORY_START];
    let output = run(&[&arguments[..], &["--end", &to, "--report", unseen.to_str().unwrap()]].concat());
    assert_eq!((output.status.code(), unseen.exists()), (Some(1), false), "{}", stderr(&output));
}

#[test]
fn a_recording_gives_the_records_that_the_prometheus_gives_it_was_made_from() {
    // Less evidence will do, and sooner, than when it was recorded: pods are looked at in other cycles.
    let sensitive = "service: {trip: 8 nats, suspect: 5 nats, shortest: 15s, longest: 30s}";
    let gray_zone = story("gray-zone.yaml").replace("duration: 25m", "duration: 9m");
    // So mild that it is just noticed.
    let mild_pod = story("one-bad-pod.yaml").replace("errors: 50%", "errors: 4%").replace("second: 120", "second: 20");
    for (name, yaml) in [("zone", gray_zone), ("pod", mild_pod), ("roll-out", story("rollout.yaml"))] {
        let (samples, scenario) = samples(&yaml, Spoil::Nothing);
        let folder = tempfile::tempdir().unwrap();
        let server = backfilled_prometheus(3, folder.path(), &samples);
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("sensitive.yaml"), sensitive).unwrap();
        let from = (start() - scenario.history.signed()).to_string();
        let to = (start() + scenario.duration.signed()).to_string();
        let (recording, url) = (path("stretch.gz"), server.url());
        let stretch = ["--prometheus", &url, "--start", &from, "--end", &to];
        let said = |command: &str, config: &str, more: &[&str]| {
            let output = run(&[&[command, "--config", config][..], more].concat());
            assert!(output.status.success(), "{}", stderr(&output));
            stdout(&output)
        };
        said("record", "config/default.yaml", &[&stretch[..], &["--output", &recording]].concat());
        for config in ["config/default.yaml", &path("sensitive.yaml")] {
            let records = json_lines(&said("backtest", config, &[&stretch[..], &["--output", "json"]].concat()));
            let replayed = json_lines(&said("backtest", config, &["--recording", &recording, "--output", "json"]));
            assert_eq!(whatever_the_source(replayed), whatever_the_source(records), "{name} with {config}");
        }
    }
}

#[test]
fn a_story_in_which_nothing_is_to_be_isolated_isolates_nothing() {
    for file in ["scrapes-lost.yaml", "rollout.yaml", "one-bad-pod.yaml", "one-slow-pod.yaml", "one-bad-client.yaml"] {
        let (samples, scenario) = samples(&story(file), Spoil::Nothing);
        let folder = tempfile::tempdir().unwrap();
        let (records, _) = backtest(&backfilled_prometheus(2, folder.path(), &samples), &scenario);
        assert_eq!(events(&records, "isolate"), Vec::<String>::new(), "{file}");
        if file.starts_with("one-") {
            let held = records.iter().any(|r| r["reason"]["hold"] == "single_instance");
            assert!(held, "{file}: {:?}", events(&records, "blocked"));
        }
        if file == "scrapes-lost.yaml" {
            let gaps = events(&records, "gap");
            assert!(gaps.iter().any(|g| g.starts_with("cn-hangzhou-h") && g.contains("were scraped")), "{gaps:?}");
        }
    }
}

#[test]
fn check_connect_finds_all_in_order_on_a_good_mesh() {
    let (samples, scenario) = samples(&story("healthy.yaml").replace("duration: 2h", "duration: 2m"), Spoil::Nothing);
    let folder = tempfile::tempdir().unwrap();
    let server = backfilled_prometheus(3, folder.path(), &samples);
    let (code, findings) = check_connect(&server, start() + scenario.duration.signed());
    assert_eq!(code, Some(0), "{findings:?}");
    assert!(findings.iter().all(|f| text(f, "level") == "ok"), "{findings:?}");
    assert!(text(finding(&findings, "istio_requests_total"), "found").contains("3 services"));
    assert!(text(finding(&findings, "scrape interval"), "found").starts_with("15s"));
    assert!(text(finding(&findings, "zone label"), "found").contains("cn-hangzhou-h (33 %"));
}

#[test]
fn doubled_counts_are_refused() {
    let yaml = story("gray-zone.yaml").replace("duration: 25m", "duration: 5m");
    let (samples, scenario) = samples(&yaml, Spoil::Duplicate);
    let folder = tempfile::tempdir().unwrap();
    let server = backfilled_prometheus(2, folder.path(), &samples);
    let (records, _) = backtest(&server, &scenario);
    assert_eq!(events(&records, "isolate").len(), 0);
    let gaps = events(&records, "gap");
    assert!(gaps.iter().any(|gap| gap.contains("every target is stored 2 times")), "{gaps:?}");
    let (code, findings) = check_connect(&server, start() + scenario.duration.signed());
    assert_eq!(code, Some(1));
    assert!(text(finding(&findings, "completeness"), "found").contains("stored 2 times"));
}

#[test]
fn without_a_zone_label_nothing_is_decided_and_the_way_to_get_one_is_said() {
    let yaml = story("gray-zone.yaml").replace("duration: 25m", "duration: 5m");
    let (samples, scenario) = samples(&yaml, Spoil::NoZoneLabel);
    let folder = tempfile::tempdir().unwrap();
    let server = backfilled_prometheus(3, folder.path(), &samples);
    let (records, _) = backtest(&server, &scenario);
    assert_eq!(events(&records, "isolate").len(), 0);
    let gaps = events(&records, "gap");
    let said =
        |gap: &String| gap.contains("`locality` is empty on every series") && gap.contains("xds.node.locality.zone");
    assert!(gaps.iter().any(said), "{gaps:?}");
    let (code, findings) = check_connect(&server, start() + scenario.duration.signed());
    assert_eq!(code, Some(1));
    assert!(text(finding(&findings, "zone label"), "hint").contains("attach_metadata"));
}

#[test]
fn without_up_nothing_is_decided() {
    let yaml = story("gray-zone.yaml").replace("duration: 25m", "duration: 5m");
    let (samples, scenario) = samples(&yaml, Spoil::NoUp);
    let folder = tempfile::tempdir().unwrap();
    let server = backfilled_prometheus(2, folder.path(), &samples);
    let (records, _) = backtest(&server, &scenario);
    assert_eq!(events(&records, "isolate").len(), 0);
    let gaps = events(&records, "gap");
    assert!(gaps.iter().any(|gap| gap.contains("`up` is not stored")), "{gaps:?}");
}

/// Decisions from some moment of the story on.
fn decisions_from(records: &[Value], minutes: i64) -> Vec<(String, String, String)> {
    let from = start() + SignedDuration::from_mins(minutes);
    decisions(records).into_iter().filter(|(time, ..)| time.parse::<Timestamp>().unwrap() >= from).collect()
}

#[test]
fn a_label_that_appears_on_every_series_of_a_zone_is_not_a_burst() {
    // A bad minute in all zones long ago: whoever takes a lifetime's count for an increment sees it in one zone now.
    let faults = "faults: [{at: 1s, until: 1m, zones: [cn-hangzhou-g, cn-hangzhou-h, cn-hangzhou-k], errors: 60%}]";
    let yaml = story("healthy.yaml")
        .replace("duration: 2h", "duration: 12m")
        .replace("expect:", &format!("{faults}\nexpect:"));
    let (samples, scenario) = samples(&yaml, Spoil::Relabelled);
    for major in [2, 3] {
        let folder = tempfile::tempdir().unwrap();
        backfill(folder.path(), &samples);
        let (records, _) = backtest(&prometheus_looking_back(major, folder.path(), "", "5s"), &scenario);
        assert_eq!(decisions_from(&records, 7), [], "Prometheus {major}");
    }
}

#[test]
fn a_prometheus_that_scrapes_nothing_shows_no_health() {
    let yaml = story("healthy.yaml").replace("duration: 2h", "duration: 9m");
    let (samples, scenario) = samples(&yaml, Spoil::Silence);
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = backtest(&backfilled_prometheus(3, folder.path(), &samples), &scenario);
    for event in ["gap", "observed"] {
        let said = events(&records, event);
        assert!(said.iter().any(|gap| gap.contains("no zone has a proxy that is up")), "{event}: {records:?}");
    }
    let after: Vec<_> = decisions_from(&records, 3).into_iter().filter(|(_, event, _)| event != "clear").collect();
    assert_eq!(after, []);
}

#[test]
fn a_zone_of_which_half_is_not_scraped_is_no_sick_one() {
    let yaml = story("healthy.yaml").replace("duration: 2h", "duration: 12m");
    let (samples, scenario) = samples(&yaml, Spoil::HalfLost);
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = backtest(&backfilled_prometheus(3, folder.path(), &samples), &scenario);
    assert_eq!(decisions_from(&records, 3), []);
}

#[test]
fn a_prometheus_in_the_sick_zone_that_sees_no_other_decides_nothing_and_says_so() {
    let (samples, scenario) = samples(&story("gray-zone.yaml").replace("duration: 25m", "duration: 9m"), Spoil::CutOff);
    let fault = scenario.faults[0].at.signed().as_mins();
    assert!(fault < 3, "the zone is sick before it is cut off");
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = backtest(&backfilled_prometheus(3, folder.path(), &samples), &scenario);
    let late: Vec<_> = decisions_from(&records, 4).into_iter().filter(|(_, event, _)| event == "isolate").collect();
    assert_eq!(late, []);
    let gaps = events(&records, "gap");
    assert!(gaps.iter().any(|gap| gap.contains("Prometheus may sit inside a zone that is cut off")), "{gaps:?}");
}

#[tokio::test]
async fn the_cpu_that_pods_use_is_the_sum_of_their_containers() {
    let folder = tempfile::tempdir().unwrap();
    let series = |pod: &str, container: &str| {
        format!("container_cpu_usage_seconds_total{{namespace=\"shop\",pod=\"{pod}\",container=\"{container}\"}}")
    };
    let mut samples = String::new();
    // The row of the pod itself, and that of what holds its network, are not counted twice.
    for (series, cores) in [
        (series("web-1", "app"), 0.4),
        (series("web-1", "istio-proxy"), 0.1),
        (series("web-1", ""), 0.5),
        (series("web-2", "app"), 0.0),
    ] {
        for second in (0..=300).step_by(15) {
            let (total, at) = (f64::from(second) * cores, start().as_second() + i64::from(second));
            writeln!(samples, "{series} {total} {at}").unwrap();
        }
    }
    let server = backfilled_prometheus(3, folder.path(), &(samples + "# EOF\n"));
    let settings = zoneward::observe::Settings { url: server.url(), ..Default::default() };
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let mut observer = PrometheusObserver::new(settings, cycle).unwrap();
    let seen = observer.cpu_use(start() + SignedDuration::from_secs(300)).await.unwrap().unwrap();
    let of = |pod: &str| seen.pods[&PodId { namespace: "shop".into(), name: pod.into() }];
    assert_eq!((of("web-1"), of("web-2"), seen.pods.len()), (500, 0, 2));
    let long_ago = observer.cpu_use(start() - SignedDuration::from_hours(1)).await.unwrap();
    assert_eq!(long_ago, None, "where no container is counted nothing is known");
}

#[test]
fn rare_scrapes_lengthen_the_cycle_and_too_rare_ones_decide_nothing() {
    let yaml = story("gray-zone.yaml").replace("history: 15m", "history: 40m").replace("duration: 25m", "duration: 9m");
    let minute = yaml.replace("faults:", "scrape_interval: 1m\nfaults:");
    let (minute_samples, scenario) = samples(&minute, Spoil::Nothing);
    let folder = tempfile::tempdir().unwrap();
    let (records, said) = backtest(&backfilled_prometheus(3, folder.path(), &minute_samples), &scenario);
    assert!(said.contains("judging every 1m instead of every 15s"), "{said}");
    let isolated = events(&records, "isolate");
    assert!(isolated.first().is_some_and(|zone| zone.starts_with("cn-hangzhou-h")), "{records:?}");

    let rare = yaml.replace("faults:", "scrape_interval: 2m\nfaults:");
    let (rare_samples, scenario) = samples(&rare, Spoil::Nothing);
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = backtest(&backfilled_prometheus(2, folder.path(), &rare_samples), &scenario);
    assert_eq!(events(&records, "isolate").len(), 0);
    let gaps = events(&records, "gap");
    assert!(gaps.iter().any(|gap| gap.contains("too rarely for prometheus.lookback")), "{gaps:?}");
}

#[test]
fn a_large_answer_is_asked_for_in_halves_and_gives_the_same_decisions() {
    let (samples, scenario) =
        samples(&story("gray-zone.yaml").replace("duration: 25m", "duration: 9m"), Spoil::Nothing);
    let folder = tempfile::tempdir().unwrap();
    let server = backfilled_prometheus(2, folder.path(), &samples);
    let (whole, _) = backtest(&server, &scenario);
    let from = (start() - scenario.history.signed()).to_string();
    let to = (start() + scenario.duration.signed()).to_string();
    let small = |limit: &str| {
        crate::support::zoneward()
            .args(["backtest", "--config", "config/default.yaml", "--start", &from, "--end", &to, "--output", "json"])
            .env("ZONEWARD_PROMETHEUS__URL", server.url())
            .env("ZONEWARD_PROMETHEUS__MAX_RESPONSE", limit)
            .output()
            .unwrap()
    };
    let halves = small("64KiB");
    assert!(halves.status.success(), "{}", stderr(&halves));
    let records = json_lines(&stdout(&halves));
    assert_eq!(decisions(&records), decisions(&whole));
    let queries = |records: &[Value]| records.last().unwrap()["figures"]["queries"].as_u64().unwrap();
    assert!(queries(&records) > queries(&whole), "{} and {} queries", queries(&records), queries(&whole));

    let hopeless = small("1KiB");
    assert_eq!(hopeless.status.code(), Some(1));
    assert!(stderr(&hopeless).contains("prometheus.max_response"), "{}", stderr(&hopeless));
}
