//! Servers that work by halves, and objects that are lost in mid-flight: all is tried again, said aloud, and ended.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::relay::{Fate, Relay};
use crate::stage::{ACCOUNT, Stage};
use crate::support::{Process, eventually, root, stderr, stdout, zoneward};

const SOON: Duration = Duration::from_mins(1);

fn stage() -> (Stage, Relay) {
    let stage = Stage::new();
    let relay = Relay::start(&stage);
    (stage, relay)
}

fn daemon(stage: &Stage, relay: &Relay) -> Process {
    let config = stage.config_of("relayed.yaml", relay.name_server);
    let daemon = stage.daemon_through("one", &config, &relay.kubeconfig(stage));
    stage.leads("one");
    daemon
}

fn isolate(stage: &Stage) {
    stage.apply_isolation("zone-b", Duration::from_hours(1), "");
}

fn step<'a>(status: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let steps = status["status"]["steps"].as_array().unwrap();
    steps.iter().find(|step| step["name"] == name).unwrap()
}

#[test]
fn writes_that_are_refused_once_each_are_made_again_out_and_back() {
    let (stage, relay) = stage();
    let before = stage.everything();
    let _daemon = daemon(&stage, &relay);
    let refused_once = || {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        move |write: &str| {
            let (count, times) = (seen.len(), seen.entry(write.to_owned()).or_default());
            *times += 1;
            if *times == 1 { Fate::Refuse([429, 500, 503, 504][count % 4]) } else { Fate::Pass }
        }
    };
    relay.rule(refused_once());
    isolate(&stage);
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    eventually("and confirmed so", SOON, || stage.condition("zone-b", "Isolated").filter(|c| c.0 == "True"));
    relay.rule(refused_once());
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--timeout=60s"]);
    assert!(stage.is_clean());
    assert_eq!(stage.everything(), before);
}

#[test]
fn an_api_server_that_takes_no_writes_begins_nothing_and_holds_what_is() {
    let (stage, relay) = stage();
    let _daemon = daemon(&stage, &relay);
    let no_writes = |_: &str| Fate::Refuse(500);
    relay.rule(no_writes);
    isolate(&stage);
    eventually("it is tried", SOON, || (relay.writes().len() > 2).then_some(()));
    assert!(stage.is_clean(), "without its ledger nothing is begun: {:?}", relay.writes());
    let said = eventually("it is said", SOON, || {
        let log = stage.log("one");
        log.contains("isolations are held as they are").then_some(log)
    });
    assert!(said.contains("relayed trouble"), "{said}");
    relay.rule(|_| Fate::Pass);
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    eventually("and confirmed so", SOON, || stage.condition("zone-b", "Isolated").filter(|c| c.0 == "True"));

    relay.rule(no_writes);
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--wait=false"]);
    eventually("it is tried", SOON, || (relay.writes().len() > 2).then_some(()));
    relay.rule(|_| Fate::Pass);
    eventually("the zone is back", SOON, || stage.is_clean().then_some(()));
}

#[test]
fn a_server_that_never_answers_keeps_no_other_step_waiting_and_is_told_of() {
    let (stage, relay) = stage();
    let _daemon = daemon(&stage, &relay);
    relay.rule(|write| if write == "UPDATE" { Fate::Swallow } else { Fate::Pass });
    isolate(&stage);
    let status = eventually("the name server's silence is told of", SOON, || {
        let status = stage.get(&["zoneisolation", "zone-b"]);
        let told = status["status"]["steps"].as_array().is_some_and(|steps| {
            steps.iter().any(|step| step["name"] == "dns_rfc2136" && step["lastError"].is_string())
        });
        told.then_some(status)
    });
    for name in ["mesh_istio", "taint"] {
        assert_eq!(step(&status, name)["state"], "Confirmed", "{status}");
    }
    assert!(step(&status, "dns_rfc2136")["lastError"].to_string().contains("within 2s"), "{status}");
    relay.rule(|_| Fate::Pass);
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--timeout=60s"]);
    assert!(stage.is_clean());
}

#[test]
fn taking_the_custom_resource_away_gives_every_zone_back_first() {
    let (stage, relay) = stage();
    let before = stage.everything();
    let _daemon = daemon(&stage, &relay);
    isolate(&stage);
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    stage.cluster.kubectl(&["delete", "crd", "zoneisolations.zoneward.io", "--timeout=60s"]);
    assert!(stage.is_clean(), "it went once all was undone");
    assert_eq!(stage.everything(), before);
}

/// What a manifest's container is run with, by a person's hand and with the rights of the daemon's account.
fn run_as_in(stage: &Stage, manifest: &str) -> std::process::Output {
    let manifest = std::fs::read_to_string(root().join("deploy").join(manifest)).unwrap();
    stage.cluster.apply(&manifest);
    let line = manifest.lines().find_map(|line| line.trim().strip_prefix("args: [")).unwrap();
    let config = stage.config().display().to_string();
    let arguments: Vec<String> =
        line.trim_end_matches(']').split(", ").map(|it| it.replace("/etc/zoneward/config.yaml", &config)).collect();
    zoneward().args(arguments).env("KUBECONFIG", stage.cluster.kubeconfig_of(ACCOUNT)).output().unwrap()
}

fn said(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

#[test]
fn a_watchdog_gives_back_what_expired_once_every_replica_is_dead() {
    let (stage, relay) = stage();
    let before = stage.everything();
    let running = daemon(&stage, &relay);
    stage.apply_isolation("zone-b", Duration::from_hours(1), "");
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    let first = said(&run_as_in(&stage, "watchdog.yaml"));
    assert!(first.contains("nothing to do: one-") && first.contains("acts, and gives back what expires"), "{first}");

    drop(running);
    stage.cluster.kubectl(&["delete", "lease", "-n", "zoneward", "zoneward"]);
    assert_eq!(said(&run_as_in(&stage, "watchdog.yaml")), "nothing is overdue\n");
    let past = r#"{"spec": {"expiresAt": "2026-01-01T00:00:00Z"}}"#;
    stage.cluster.kubectl(&["patch", "zoneisolation", "zone-b", "--type=merge", "-p", past]);
    let told = said(&run_as_in(&stage, "watchdog.yaml"));
    assert!(told.contains("zone-b is overdue since 2026-01-01T00:00:00Z"), "{told}");
    assert!(told.contains("taint: undone on zone-b-0, zone-b-1"), "{told}");
    assert!(stage.is_clean());
    assert_eq!(stage.everything(), before);
    // What people do about the zone from then on is theirs.
    stage.cluster.kubectl(&["label", "pod", "web-zone-b-0", "istio.io/draining=zoneward"]);
    let told = said(&run_as_in(&stage, "watchdog.yaml"));
    assert!(told.contains("zone-b was given back already"), "{told}");
    assert_eq!(stage.drained(), ["web-zone-b-0"]);
    // The daemon that comes back ends it, and says so.
    let _daemon = daemon(&stage, &relay);
    eventually("it ends", SOON, || stage.condition("zone-b", "Expired").filter(|c| c.0 == "True"));
    eventually("all is undone", SOON, || stage.condition("zone-b", "Isolated").filter(|c| c.0 == "False"));
}

#[test]
fn an_uninstall_gives_everything_back_and_leaves_nothing_that_would_hold_a_deletion() {
    let (stage, relay) = stage();
    let before = stage.everything();
    let running = daemon(&stage, &relay);
    stage.apply_isolation("zone-b", Duration::from_hours(1), "");
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    drop(running);
    let told = said(&run_as_in(&stage, "uninstall.yaml"));
    assert!(told.contains("every zone is back in rotation"), "{told}");
    stage.cluster.kubectl(&["delete", "-f", root().join("deploy/crd.yaml").to_str().unwrap(), "--timeout=30s"]);
    assert!(stage.is_clean());
    assert_eq!(stage.everything(), before);
}

#[test]
fn what_nobody_can_undo_is_let_go_of_only_when_asked_and_named() {
    let (stage, relay) = stage();
    let running = daemon(&stage, &relay);
    stage.apply_isolation("zone-b", Duration::from_hours(1), "");
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    drop(running);
    let without_dns = stage.write("without-dns.yaml", "kubernetes: {namespace: zoneward}").display().to_string();
    let restore_all = |more: &[&str]| {
        let mut command = zoneward();
        command.args(["restore", "--all", "--config", &without_dns]).args(more);
        command.env("KUBECONFIG", stage.cluster.kubeconfig()).output().unwrap()
    };
    let refused = restore_all(&[]);
    assert!(stderr(&refused).contains("their ZoneIsolations stay"), "{}", stderr(&refused));
    assert_eq!(stage.names(&["zoneisolations"]), ["zone-b"]);
    let let_go = restore_all(&["--remove-finalizers"]);
    assert_eq!(let_go.status.code(), Some(1));
    let lost = "nobody will restore these: dns_rfc2136 of zone-b (api.example.org. 192.0.2.2 60)";
    assert!(stderr(&let_go).contains(lost), "{}", stderr(&let_go));
    assert!(stage.names(&["zoneisolations"]).is_empty());
}
