//! The configuration changes while the daemon runs.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::live::{mesh, scraped};
use crate::support::{Process, eventually, free_address, json_lines, run, stdout, text, zoneward};

/// In fast motion; an operator's first edition.
const FIRST: &str = "
prometheus: {history: 1m, url: 'http://prometheus:9090'}
detect: {cycle: 1s}
service: {min_error_excess: 0.3%}
";

/// One service less, other floors; and two changes that take a start.
const SECOND: &str = "
mode: enforce
prometheus: {history: 1m, url: 'http://elsewhere:9090'}
detect: {cycle: 1s}
service: {min_error_excess: 0.5%}
services: [{match: default/mocka, ignore: true}]
";

const WRONG: &str = "
detect: {cycle: 1s}
service: {trip: 5 nats, suspect: 8 nats}
services: [{match: web}]
";

/// As a `ConfigMap` is updated: another file takes the name.
fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(&next, path).unwrap();
}

fn events(journal: &[Value], event: &str) -> Vec<String> {
    journal.iter().filter(|r| text(r, "event") == event).map(|r| text(r, "message").to_owned()).collect()
}

#[test]
fn a_new_edition_is_taken_over_and_a_wrong_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = mesh(folder.path());
    let prometheus = scraped(&mesh, folder.path());
    let (config, audit) = (folder.path().join("config.yaml"), folder.path().join("audit"));
    replace(&config, &FIRST.replace("http://prometheus:9090", &prometheus.url()));
    let address = free_address();
    let mut daemon = zoneward();
    daemon
        .args(["run", "--config", config.to_str().unwrap(), "--audit-directory", audit.to_str().unwrap()])
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .stderr(std::process::Stdio::null());
    let daemon = Process::start(&mut daemon, address, "/healthz");
    let journal = || json_lines(&stdout(&run(&["audit", "--directory", audit.to_str().unwrap(), "--output", "json"])));
    let on_record = |event: &str, times: usize| {
        eventually(event, Duration::from_secs(20), || {
            let said = events(&journal(), event);
            (said.len() >= times).then_some(said)
        })
    };
    let follows = |services: usize| {
        eventually(&format!("{services} services are followed"), Duration::from_secs(40), || {
            daemon.get("/metrics").1.contains(&format!("\nzoneward_services {services}\n")).then_some(())
        });
    };
    follows(2);

    replace(&config, SECOND);
    let changed = on_record("configuration_changed", 1);
    let expected = format!(
        "{} is taken over: service.min_error_excess, services; only a start takes over mode, prometheus.url",
        config.display()
    );
    assert_eq!(changed, [expected]);
    follows(1);
    assert_eq!(daemon.get("/readyz").0, 200, "it still reads the Prometheus that it was started with");

    replace(&config, WRONG);
    let refused = on_record("configuration_refused", 1);
    for problem in [
        "is not taken over, and the earlier edition stays",
        "service.suspect: 8 nats is above trip (5 nats)",
        "services[0].match: `web` does not name services",
    ] {
        assert!(refused[0].contains(problem), "missing: {problem}\n{}", refused[0]);
    }
    let judged = |metrics: &str| {
        let count = metrics.lines().find_map(|line| line.strip_prefix("zoneward_cycles_total "));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let three_more_cycles = || {
        let before = judged(&daemon.get("/metrics").1);
        eventually("three more cycles are judged", Duration::from_secs(20), || {
            (judged(&daemon.get("/metrics").1) >= before + 3).then_some(())
        });
    };
    // A file that is being written is no edition, and neither is the same text again as a new file.
    std::fs::write(&config, "\n").unwrap();
    three_more_cycles();
    replace(&config, WRONG);
    three_more_cycles();
    assert_eq!(daemon.get("/healthz").0, 200);
    follows(1);

    // The way back is on record, though it changes nothing.
    replace(&config, SECOND);
    let changed = on_record("configuration_changed", 2);
    let as_before =
        "is taken over: nothing new, it is as before the edition that was refused; only a start takes over mode";
    assert!(changed[1].contains(as_before), "{}", changed[1]);

    assert!(daemon.terminate().success());
    let journal = journal();
    assert_eq!(
        (events(&journal, "configuration_changed"), events(&journal, "configuration_refused")),
        (changed, refused)
    );
    assert!(run(&["audit", "verify", "--directory", audit.to_str().unwrap()]).status.success());
}
