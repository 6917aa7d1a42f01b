//! Several replicas on real servers: one is killed, stopped, cut off, in the sick zone itself, or can't put anything on
//! record; another goes on, and the zone goes out, and comes back, once.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use zoneward::domain::Period;

use crate::live::{mesh_of, scraped};
use crate::relay::{Fate, Relay, signal};
use crate::stage::Stage;
use crate::support::{Process, eventually, json_lines, run, stdout, text};

const SOON: Duration = Duration::from_mins(1);

/// Requests to `web` of the stage, of which a third fails in one zone after a while.
const STORY: &str = "
title: A gray failure, beside a cluster
zones: [zone-a, zone-b, zone-c]
services: [{name: web, errors: 0.1%, median_ms: 5}]
requests_per_second: 300
history: 10s
scrape_interval: 1s
duration: 10m
faults: [{at: 20s, until: 10m, zones: [zone-b], errors: 30%}]
expect: {isolate: zone-b, users_succeed: 99%}
";

/// The metrics of that mesh, beside a stage.
struct Metrics {
    config: PathBuf,
    _mesh: Process,
    _prometheus: Process,
    _folder: TempDir,
}

/// A fault must last so long.
fn metrics(stage: &Stage, shortest: &str) -> Metrics {
    let folder = tempfile::tempdir().unwrap();
    let mesh = mesh_of(folder.path(), STORY);
    let prometheus = scraped(&mesh, folder.path());
    let nowhere = "prometheus: {url: 'http://127.0.0.1:1', history: 1m}";
    let here = format!(
        "prometheus: {{url: '{}', history: 1m}}\ndetect: {{cycle: 2s}}\nservice: {{shortest: {shortest}, longest: 40s}}",
        prometheus.url()
    );
    let text = std::fs::read_to_string(stage.config()).unwrap();
    assert!(text.contains(nowhere));
    let config = stage.write("live.yaml", &text.replace(nowhere, &here));
    Metrics { config, _mesh: mesh, _prometheus: prometheus, _folder: folder }
}

fn journal(stage: &Stage, name: &str) -> Vec<Value> {
    json_lines(&stdout(&run(&["audit", "--directory", stage.path(name).to_str().unwrap(), "--output", "json"])))
}

fn of(records: &[Value], event: &str) -> Vec<Value> {
    records.iter().filter(|record| text(record, "event") == event).cloned().collect()
}

fn holder(stage: &Stage) -> String {
    let lease = stage.get(&["lease", "-n", "zoneward", "zoneward"]);
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn whoever_takes_over_in_the_middle_of_a_suspicion_has_seen_it_from_its_beginning() {
    let stage = Stage::new();
    let metrics = metrics(&stage, "24s");
    let leader = stage.daemon_on("zone-a-0", "one", &metrics.config);
    stage.leads("one");
    let _follower = stage.daemon_on("zone-c-0", "two", &metrics.config);
    let suspected = eventually("both suspect the zone", SOON, || {
        let (one, two) = (of(&journal(&stage, "one"), "suspect"), of(&journal(&stage, "two"), "suspect"));
        (!one.is_empty() && !two.is_empty()).then(|| text(&one[0], "time").parse::<Timestamp>().unwrap())
    });
    drop(leader);
    eventually("the other isolates it", SOON, || stage.is_out("zone-b").then_some(()));
    assert!(of(&journal(&stage, "one"), "isolate").is_empty());
    let two = journal(&stage, "two");
    assert_eq!((of(&two, "suspect").len(), of(&two, "clear").len()), (1, 0));
    let isolate = &of(&two, "isolate")[0];
    let words = text(isolate, "message");
    let lasted = words.split("alone in being worse, for ").nth(1).unwrap().split(" where ").next().unwrap();
    let lasted: Period = lasted.replace(' ', "").parse().unwrap();
    let since = text(isolate, "time").parse::<Timestamp>().unwrap() - lasted.signed();
    assert!(since <= suspected, "{words}: counted from {since}, suspected at {suspected}");
}

#[test]
fn who_is_in_the_sick_zone_or_has_no_disk_lets_another_act() {
    let stage = Stage::new();
    let metrics = metrics(&stage, "6s");
    let one = stage.daemon_on("zone-b-0", "one", &metrics.config);
    stage.leads("one");
    let two = stage.daemon_on("zone-a-0", "two", &metrics.config);
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    eventually("and confirmed so", SOON, || stage.condition("zone-b", "Isolated").filter(|c| c.0 == "True"));
    let handed_over = of(&journal(&stage, "one"), "handed_over");
    let why = text(&handed_over[0], "message");
    assert!(why.starts_with("zone-b is to be isolated, and this replica is in it: two-"), "{why}");
    assert!(why.contains(" in zone-a acts from now on"), "{why}");
    assert!(of(&journal(&stage, "one"), "step").is_empty(), "before its first write");
    assert_eq!(of(&journal(&stage, "two"), "isolated").len(), 1);
    assert!(holder(&stage).starts_with("two-"));
    for (replica, role) in [(&one, "This replica is a follower"), (&two, "<dd>leads</dd>")] {
        eventually("each page says who acts, and what is out", SOON, || {
            let (_, page) = replica.get("/");
            (page.contains(role) && page.contains("zone-b is isolated") && page.contains("dns_rfc2136")).then_some(())
        });
    }
    let seen: Value = serde_json::from_str(&one.get("/status.json").1).unwrap();
    assert_eq!((&seen["daemon"]["leads"], text(&seen["daemon"], "leader")), (&Value::Bool(false), &*holder(&stage)));

    // Its disk takes no more: the zone is given back all the same, and the other leads, which can say so.
    let grow_to = |most: &str| {
        let limit = format!("--fsize={most}:unlimited");
        assert!(Command::new("prlimit").args(["--pid", &two.id().to_string(), &limit]).status().unwrap().success());
    };
    grow_to("1");
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--timeout=60s"]);
    assert!(stage.is_clean());
    eventually("the other leads", SOON, || holder(&stage).starts_with("one-").then_some(()));
    let (status, why) = two.get("/readyz");
    assert!(status == 503 && why.contains("the audit journal can't be written: "), "{status} {why}");
    assert!(!two.get("/metrics").1.contains("\nzoneward_audit_failures_total 0\n"));
    grow_to("unlimited");
    eventually("it says what is missing from its journal", SOON, || {
        let unrecorded = of(&journal(&stage, "two"), "unrecorded");
        unrecorded.iter().any(|r| text(r, "message").contains("nothing could be put on record")).then_some(())
    });
    eventually("it is ready", SOON, || (two.get("/readyz").0 == 200).then_some(()));
    assert!(run(&["audit", "verify", "--directory", stage.path("two").to_str().unwrap()]).status.success());
}

#[test]
fn a_leader_that_is_cut_off_or_stopped_writes_nothing_once_another_may_lead() {
    let stage = Stage::new();
    let relay = Relay::start(&stage);
    let config = stage.config_of("relayed.yaml", relay.name_server);
    let one = stage.daemon_through("one", &config, &relay.kubeconfig(&stage));
    stage.leads("one");
    let two = stage.daemon("two");
    let confirmed = |zone: &str| {
        eventually("it is confirmed", SOON, || stage.condition(zone, "Isolated").filter(|c| c.0 == "True"));
    };
    let gives_back = |zone: &str| {
        stage.cluster.kubectl(&["delete", "zoneisolation", zone, "--timeout=60s"]);
        assert!(stage.is_clean());
    };
    stage.apply_isolation("zone-b", Duration::from_hours(1), "");
    confirmed("zone-b");

    // The name server is within its reach, and what it was to keep is given back by the other.
    relay.cut_off(true);
    relay.rule(|_| Fate::Pass);
    stage.leads("two");
    gives_back("zone-b");
    relay.cut_off(false);
    eventually("it follows", SOON, || stage.log("one").contains("this replica follows: two-").then_some(()));
    assert!(relay.writes().is_empty(), "{:?}", relay.writes());
    assert!(stage.is_clean());

    // It leads again, and stops in the middle of a step. What it was about to do is done, and undone, by another.
    assert!(two.terminate().success());
    eventually("it leads again", SOON, || {
        (stage.log("one").matches("this replica leads: it acts").count() == 2).then_some(())
    });
    let _three = stage.daemon("three");
    let process = one.id();
    relay.rule(move |write| if write.contains("/nodes/") { Fate::StopAfter(process) } else { Fate::Pass });
    stage.apply_isolation("zone-c", Duration::from_hours(1), ", steps: [taint]");
    stage.leads("three");
    confirmed("zone-c");
    assert_eq!(stage.tainted(), ["zone-c-0", "zone-c-1"]);
    gives_back("zone-c");
    let written = relay.writes();
    assert!(written.iter().any(|write| write.contains("/nodes/")), "{written:?}");
    signal("CONT", process);
    eventually("it follows", SOON, || stage.log("one").contains("this replica follows: three-").then_some(()));
    assert_eq!(relay.writes(), written);
    assert!(stage.is_clean());
    assert_eq!(one.get("/healthz").0, 200);
}
