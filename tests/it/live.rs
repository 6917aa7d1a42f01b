//! A real Prometheus scrapes the exported mesh while `zoneward run` watches; then the stretch is judged again.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::support::{
    Process, alertmanager, decisions, eventually, free_address, json_lines, prometheus, run, stderr, stdout, text,
    whatever_the_source, zoneward,
};

/// Forty seconds of health, then a fault in one zone.
const STORY: &str = "
title: A gray failure, live
zones: [zone-a, zone-b, zone-c]
services:
  - {name: mocka, errors: 0.1%, median_ms: 4}
  - {name: mockb, errors: 0.1%, median_ms: 5}
requests_per_second: 300
history: 10s
scrape_interval: 1s
duration: 10m
faults:
  - {at: 30s, until: 10m, zones: [zone-b], services: [mockb], errors: 30%}
expect: {isolate: zone-b, users_succeed: 99%}
";

/// The default configuration in fast motion.
const CONFIG: &str = "
prometheus: {history: 5m}
detect: {cycle: 2s}
service: {shortest: 6s, longest: 12s}
";

/// The mesh of the story, from its beginning.
pub fn mesh(folder: &Path) -> Process {
    mesh_of(folder, STORY)
}

pub fn mesh_of(folder: &Path, text: &str) -> Process {
    let story = folder.join("story.yaml");
    std::fs::write(&story, text).unwrap();
    let address = free_address();
    let mut mesh = zoneward();
    mesh.args(["demo", "--export", &address.to_string(), "--scenario", story.to_str().unwrap()]);
    Process::start(&mut mesh, address, "/targets")
}

/// A Prometheus that scrapes it every second.
pub fn scraped(mesh: &Process, folder: &Path) -> Process {
    let scrape = format!(
        "scrape_configs:\n- job_name: mesh\n  http_sd_configs: [{{url: '{}/targets', refresh_interval: 5s}}]",
        mesh.url()
    );
    prometheus(3, folder, &scrape)
}

#[test]
fn a_fault_is_decided_on_live_and_its_backtest_and_its_recording_agree() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("alerts")).unwrap();
    let on_call = alertmanager(&path("alerts"));
    let notify = format!("notify: {{alertmanager: {{urls: ['{}']}}}}\n", on_call.url());
    std::fs::write(path("config.yaml"), format!("{CONFIG}{notify}")).unwrap();

    let mesh = mesh(folder.path());
    let prometheus = scraped(&mesh, folder.path());

    let address = free_address();
    let mut daemon = zoneward();
    daemon
        .args(["run", "--config", path("config.yaml").to_str().unwrap()])
        .args(["--audit-directory", path("audit").to_str().unwrap()])
        .env("ZONEWARD_PROMETHEUS__URL", prometheus.url())
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .stderr(std::process::Stdio::null());
    let daemon = Process::start(&mut daemon, address, "/healthz");
    let audit = path("audit");
    let journal = || json_lines(&stdout(&run(&["audit", "--directory", audit.to_str().unwrap(), "--output", "json"])));
    eventually("zone-b is to be isolated", Duration::from_mins(2), || {
        journal().iter().any(|r| text(r, "event") == "isolate").then_some(())
    });
    assert_eq!(daemon.get("/readyz"), (200, "ok\n".to_owned()));
    let (_, metrics) = daemon.get("/metrics");
    assert!(metrics.contains(r#"zoneward_zone_verdict{zone="zone-b",verdict="zone_fault"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"zoneward_audit_records_total{event="isolate"} 1"#), "{metrics}");
    eventually("who is on call is told", Duration::from_secs(10), || {
        let (_, alerts) = on_call.get("/api/v2/alerts");
        (alerts.contains("ZonewardZoneFault") && alerts.contains("zone-b would be isolated for 1h")).then_some(())
    });
    eventually("that is counted", Duration::from_secs(10), || {
        let sent = r#"zoneward_notifications_total{target="alertmanager",outcome="sent"}"#;
        daemon.get("/metrics").1.contains(sent).then_some(())
    });
    // Those of isolations are scraped only where one is carried out.
    let of_isolations =
        |name: &String| ["zoneward_isolation_", "zoneward_zone_isolated"].iter().any(|it| name.starts_with(it));
    for name in crate::deploy::metrics_named().into_iter().filter(|name| !of_isolations(name)) {
        let scraped = |line: &str| line.split(['{', ' ']).next() == Some(&name);
        assert!(metrics.lines().any(scraped), "{name}, of the dashboard or an alert: {metrics}");
    }
    crate::page::is_served(&daemon, "zone-b");
    assert!(daemon.terminate().success());

    let records = journal();
    let isolated = records.iter().find(|r| text(r, "event") == "isolate").unwrap();
    assert_eq!(text(isolated, "zone"), "zone-b");
    assert_eq!(isolated["rehearsal"], true, "observe mode has no hands");
    let message = text(isolated, "message");
    assert!(message.starts_with("zone-b would be isolated for 1h") && message.contains("default/mockb"), "{message}");

    let again = run(&["audit", "--from", audit.to_str().unwrap(), "replay", text(isolated, "id")]);
    assert!(stdout(&again).contains("byte-identical"), "decided anew: {}{}", stdout(&again), stderr(&again));

    let time = |r: &serde_json::Value| text(r, "time").parse::<Timestamp>().unwrap();
    let first = (time(&records[0]) - Duration::from_mins(5)).to_string();
    let last = records.iter().rev().find(|r| text(r, "event") != "stopped").map(time).unwrap().to_string();
    let (config, recording, url) = (path("config.yaml"), path("stretch.gz"), prometheus.url());
    let (config, recording) = (["--config", config.to_str().unwrap()], recording.to_str().unwrap());
    let stretch = ["--prometheus", &url, "--start", &first, "--end", &last];
    let said = |command: &str, more: &[&str]| {
        let output = run(&[&[command][..], &config, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let again = json_lines(&said("backtest", &[&stretch[..], &["--output", "json"]].concat()));
    assert_eq!(decisions(&again), decisions(&records), "live, and judged again");
    said("record", &[&stretch[..], &["--output", recording]].concat());
    let replayed = json_lines(&said("backtest", &["--recording", recording, "--output", "json"]));
    assert_eq!(whatever_the_source(replayed), whatever_the_source(again), "from Prometheus, and from its recording");
}
