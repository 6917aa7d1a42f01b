//! The alerts that are shipped, as Prometheus' own tool understands them.

use std::process::Command;

use crate::support::{part, root, stderr, stdout};

#[test]
fn each_alert_fires_on_what_it_is_for_and_on_nothing_else() {
    for arguments in [["check", "rules", "deploy/alerts.yaml"], ["test", "rules", "tests/alerts.yaml"]] {
        let output = Command::new(part("promtool")).args(arguments).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn alerts_go_by_metrics_that_there_are() {
    let alerts = std::fs::read_to_string(root().join("deploy/alerts.yaml")).unwrap();
    let registered = std::fs::read_to_string(root().join("src/telemetry.rs")).unwrap();
    let words = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: Vec<&str> = words.filter_map(|word| word.strip_prefix("zoneward_")).collect();
    assert!(named.len() >= 7, "{named:?}");
    for name in named {
        let call = format!("registry.register(\"{}\"", name.trim_end_matches("_total"));
        assert!(registered.contains(&call), "zoneward_{name}");
    }
}
