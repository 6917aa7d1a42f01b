//! A real Prometheus scrapes the exported mesh while `zoneward run` watches; then the stretch is judged again.

use std::time::Duration;

use jiff::Timestamp;

use crate::support::{
    Process, decisions, eventually, free_address, json_lines, prometheus, run, stderr, stdout, text, zoneward,
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

#[test]
fn a_fault_is_decided_on_live_and_its_backtest_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("story.yaml"), STORY).unwrap();
    std::fs::write(path("config.yaml"), CONFIG).unwrap();

    let mesh_address = free_address();
    let mut mesh = zoneward();
    mesh.args(["demo", "--export", &mesh_address.to_string(), "--scenario", path("story.yaml").to_str().unwrap()]);
    let mesh = Process::start(&mut mesh, mesh_address, "/targets");
    let scrape = format!(
        "scrape_configs:\n- job_name: mesh\n  http_sd_configs: [{{url: '{}/targets', refresh_interval: 5s}}]",
        mesh.url()
    );
    let prometheus = prometheus(3, folder.path(), &scrape);

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
    eventually("zone-b is to be isolated", Duration::from_secs(120), || {
        journal().iter().any(|r| text(r, "event") == "isolate").then_some(())
    });
    assert_eq!(daemon.get("/readyz"), (200, "ok\n".to_owned()));
    let (_, metrics) = daemon.get("/metrics");
    assert!(metrics.contains(r#"zoneward_zone_verdict{zone="zone-b",verdict="zone_fault"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"zoneward_audit_records_total{event="isolate"} 1"#), "{metrics}");
    assert!(daemon.terminate().success());

    let records = journal();
    let isolated = records.iter().find(|r| text(r, "event") == "isolate").unwrap();
    assert_eq!(text(isolated, "zone"), "zone-b");
    assert_eq!(isolated["rehearsal"], true, "observe mode has no hands");
    let message = text(isolated, "message");
    assert!(message.starts_with("zone-b would be isolated for 1h") && message.contains("default/mockb"), "{message}");

    let time = |r: &serde_json::Value| text(r, "time").parse::<Timestamp>().unwrap();
    let first = (time(&records[0]) - Duration::from_secs(300)).to_string();
    let last = records.iter().rev().find(|r| text(r, "event") != "stopped").map(time).unwrap().to_string();
    let again = run(&[
        "backtest",
        "--config",
        path("config.yaml").to_str().unwrap(),
        "--prometheus",
        &prometheus.url(),
        "--start",
        &first,
        "--end",
        &last,
        "--output",
        "json",
    ]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(decisions(&json_lines(&stdout(&again))), decisions(&records), "live, and judged again");
}
