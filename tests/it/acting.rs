//! Acting on a real API server and a real name server: a zone goes out and comes back, whoever asked, whatever happens.

use std::time::Duration;

use serde_json::Value;

use crate::stage::{ACCOUNT, Stage, ZONES};
use crate::support::{eventually, json_lines, run, stdout, text};

const SOON: Duration = Duration::from_secs(30);
const BY_HAND: [&str; 6] = ["--reason", "disk failures", "--for", "2h", "--override", "stale-data"];

fn isolate(zone: &str) -> Vec<&str> {
    [&["isolate", zone][..], &BY_HAND].concat()
}

#[test]
fn a_zone_goes_out_by_hand_with_its_newcomers_and_comes_back_exactly_as_it_was() {
    let stage = Stage::new();
    // Others' taint and cordon in the zone, and what is to be left alone.
    stage.cluster.kubectl(&["taint", "node", "zone-b-0", "team=blue:NoSchedule"]);
    stage.cluster.kubectl(&["cordon", "zone-b-1"]);
    stage.pod("never", "web", "zone-b-0", "{zoneward.io/isolate: never}");
    stage.service("peers", "{clusterIP: None, selector: {app: peer}, ports: [{port: 80}]}");
    stage.pod("peer-zone-b", "peer", "zone-b-0", "{}");
    stage.pod("theirs-zone-b", "web", "zone-b-0", "{}");
    stage.cluster.kubectl(&["label", "pod", "theirs-zone-b", "istio.io/draining=by-somebody"]);
    let before = stage.everything();
    let _daemon = stage.daemon("one");
    stage.leads("one");

    let told = stage.said(&isolate("zone-b"));
    for line in [
        "mesh_istio       Confirmed at 0 %",
        "dns_rfc2136      Confirmed at 0 %",
        "taint            Confirmed at 0 %",
        "is out of rotation",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(stage.drained(), ["web-zone-b-0", "web-zone-b-1"]);
    assert_eq!(stage.tainted(), ["zone-b-0", "zone-b-1"]);
    assert_eq!(stage.addresses(), ["192.0.2.1", "192.0.2.3"]);
    let (_, reason, message) = stage.condition("zone-b", "Ready").unwrap();
    assert!(reason == "Isolated" && message.contains("disk failures"), "{reason}: {message}");
    let status = stage.said(&["status"]);
    assert!(status.contains("Isolated") && status.contains("taint Confirmed"), "{status}");
    let twice = stage.refused(&isolate("zone-b"));
    assert!(twice.contains("there is a ZoneIsolation zone-b already"), "{twice}");
    let second = stage.refused(&isolate("zone-c"));
    assert!(second.contains("zone-b is out already, and at most 1 may be"), "{second}");

    // Newcomers, and somebody who takes the taint off.
    stage.cluster.node("zone-b-2", "zone-b");
    stage.cluster.kubectl(&["taint", "node", "zone-b-1", "zoneward.io/isolated-"]);
    eventually("newcomers are tainted, and the taint is put back", SOON, || (stage.tainted().len() == 3).then_some(()));
    stage.pod("web-zone-b-2", "web", "zone-b-2", "{}");
    eventually("a new pod is drained", SOON, || (stage.drained().len() == 3).then_some(()));

    // Too few are left elsewhere: the zone's pods serve again, until they are ready.
    let elsewhere = ["web-zone-a-0", "web-zone-a-1", "web-zone-c-0", "web-zone-c-1"];
    elsewhere.iter().for_each(|pod| stage.ready(pod, false));
    eventually("pods are given back", Duration::from_secs(5), || stage.drained().is_empty().then_some(()));
    stage.ready("web-zone-a-0", true);
    eventually("pods are drained again", SOON, || (stage.drained().len() == 3).then_some(()));
    elsewhere.iter().for_each(|pod| stage.ready(pod, true));

    let told = stage.said(&["restore", "zone-b"]);
    assert!(told.contains("zone-b is back in rotation"), "{told}");
    stage.cluster.kubectl(&["delete", "pod", "web-zone-b-2", "--force"]);
    stage.cluster.kubectl(&["delete", "node", "zone-b-2"]);
    assert_eq!(stage.everything(), before);
    assert!(stage.is_clean());

    // The zone remembers.
    let again = stage.refused(&isolate("zone-b"));
    assert!(again.contains("it was isolated not long ago") && again.contains("--override cooling-down"), "{again}");
    let zone = stage.get(&["zones.zoneward.io", "zone-b"]);
    assert_eq!(zone["status"]["episodes"].as_array().unwrap().len(), 1, "{zone}");
    assert!(zone["status"]["operatorHold"]["why"].as_str().unwrap().contains("given back by hand"), "{zone}");
    assert!(stage.names(&["zoneisolations"]).is_empty(), "what was refused is not left to begin later");
    let events = stage.get(&["events", "-n", "default"]).to_string();
    for reason in ["Admitted", "Isolated", "Restore", "Restored"] {
        assert!(events.contains(&format!("\"reason\":\"{reason}\"")), "{reason}: {events}");
    }
    let journal = stage.path("one");
    let records = json_lines(&stdout(&run(&["audit", "--directory", journal.to_str().unwrap(), "--output", "json"])));
    let admitted = records.iter().find(|record| text(record, "event") == "admitted").unwrap();
    assert!(text(admitted, "message").contains("overriding stale_data: disk failures"), "{admitted}");
    let mended = |what: &str| records.iter().any(|r| text(r, "event") == "mended" && text(r, "message").contains(what));
    assert!(mended("nodes joined, or lost the taint, and get it: zone-b-"), "{records:?}");
    assert!(mended("1 pods joined, or lost the label, and get it: default/web-zone-b-2"), "{records:?}");
}

#[test]
fn what_people_apply_acts_expires_stays_and_acts_again_only_when_changed() {
    let stage = Stage::new();
    let _daemon = stage.daemon("one");
    stage.leads("one");

    // Bad ones.
    let no_end = "{apiVersion: zoneward.io/v1alpha1, kind: ZoneIsolation, metadata: {name: zone-b}, spec: {reason: x}}";
    let bad = stage.write("no-end.yaml", no_end);
    let refused = stage.cluster.try_kubectl(&["apply", "-f", bad.to_str().unwrap()]).unwrap_err();
    assert!(refused.contains("spec.expiresAt: Required value"), "{refused}");
    stage.apply_isolation("zone-x", Duration::from_mins(1), "");
    let no_such = eventually("a zone that is none is refused", SOON, || stage.condition("zone-x", "Admitted"));
    assert_eq!((no_such.0.as_str(), no_such.1.as_str()), ("False", "UnknownZone"));
    assert!(no_such.2.contains("no node is in a zone zone-x; there are zone-a, zone-b, zone-c"), "{no_such:?}");
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-x"]);
    stage.cluster.apply(
        "{apiVersion: zoneward.io/v1alpha1, kind: ZoneIsolation, metadata: {name: zone-c}, \
         spec: {reason: past, expiresAt: '2020-01-01T00:00:00Z', overrides: [stale_data]}}",
    );
    let past = eventually("what has expired never begins", SOON, || stage.condition("zone-c", "Expired"));
    assert_eq!(past.0, "True");
    assert!(stage.is_clean());
    stage.apply_isolation("zone-a", Duration::from_mins(1), ", steps: [teleport]");
    let step = eventually("a step that is none is refused", SOON, || stage.condition("zone-a", "Admitted"));
    assert!(step.2.contains("no step `teleport` is configured; there are mesh_istio, dns_rfc2136, taint"), "{step:?}");
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-a", "zone-c"]);

    // What the detector recommends can be declined, and then is not recommended again for the same fault.
    let expires = Stage::in_future(Duration::from_mins(10));
    stage.cluster.apply(&format!(
        "{{apiVersion: zoneward.io/v1alpha1, kind: ZoneIsolation, metadata: {{name: zone-b, finalizers: [zoneward.io/undo]}}, \
         spec: {{origin: Detector, approved: false, reason: 'a fault', expiresAt: '{expires}'}}}}"
    ));
    eventually("it waits", SOON, || stage.condition("zone-b", "Admitted").filter(|a| a.1 == "NotApproved"));
    let told = stage.said(&["restore", "zone-b"]);
    assert!(told.contains("was not isolated, and will not be"), "{told}");
    let hold = stage.get(&["zones.zoneward.io", "zone-b"])["status"]["operatorHold"].to_string();
    assert!(hold.contains("its isolation was declined"), "{hold}");

    // One that waits for approval, and takes one step at half the traffic.
    stage.apply_isolation(
        "zone-b",
        Duration::from_mins(10),
        ", approved: false, steps: [mesh_istio], sharePercent: 50",
    );
    let waits = eventually("it waits for approval", SOON, || stage.condition("zone-b", "Admitted"));
    assert_eq!((waits.0.as_str(), waits.1.as_str()), ("False", "NotApproved"));
    assert!(stage.is_clean());
    let told = stage.said(&["approve", "zone-b"]);
    assert!(told.contains("approved. a test") && told.contains("out of rotation"), "{told}");
    assert_eq!((stage.drained().len(), stage.tainted().len(), stage.addresses().len()), (1, 0, 3));
    // Edited in mid-flight: all of it, and its end is near.
    let patch =
        format!(r#"{{"spec": {{"sharePercent": 0, "expiresAt": "{}"}}}}"#, Stage::in_future(Duration::from_secs(8)));
    stage.cluster.kubectl(&["patch", "zoneisolation", "zone-b", "--type=merge", "-p", &patch]);
    eventually("all pods are drained", SOON, || (stage.drained().len() == 2).then_some(()));
    // An end that is too far away is none, and keeps nothing else from being looked after.
    stage.cluster.apply(
        "{apiVersion: zoneward.io/v1alpha1, kind: ZoneIsolation, metadata: {name: zone-c}, \
         spec: {reason: for ever, expiresAt: '9999-12-31T23:59:59Z', overrides: [stale_data]}}",
    );
    eventually("what would last for ever is refused", SOON, || {
        stage.condition("zone-c", "Admitted").filter(|admitted| admitted.2.contains("72h is the most"))
    });
    let expired = || stage.condition("zone-b", "Expired").filter(|expired| expired.0 == "True");
    eventually("it expires", SOON, || expired().filter(|_| stage.is_clean()));
    eventually("it ends", SOON, || stage.condition("zone-b", "Ready").filter(|ready| ready.1 == "Ended"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(stage.is_clean(), "an expired object does not act again");

    // Changed, it is a new episode.
    stage.apply_isolation("zone-b", Duration::from_mins(10), ", steps: [], sharePercent: 0, approved: true");
    let held = eventually("it cools down", SOON, || {
        stage.condition("zone-b", "Admitted").filter(|admitted| admitted.1 == "CoolingDown")
    });
    assert_eq!(held.0, "False");
    let patch = r#"{"spec": {"overrides": ["stale_data", "cooling-down"]}}"#;
    stage.cluster.kubectl(&["patch", "zoneisolation", "zone-b", "--type=merge", "-p", patch]);
    eventually("the zone is out", SOON, || stage.is_out("zone-b").then_some(()));
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--timeout=30s"]);
    assert!(stage.is_clean(), "kubectl delete returns once all is undone");
}

#[test]
fn a_crash_a_lost_api_server_and_a_new_leader_lose_nothing() {
    let mut stage = Stage::new();
    let first = stage.daemon("first");
    stage.leads("first");
    let _second = stage.daemon("second");
    stage.said(&isolate("zone-b"));
    assert!(!stage.log("second").contains("this replica leads"), "one acts");

    // The API server goes for a while: nobody leads, and all is held as it is.
    stage.cluster.stop_api_server();
    eventually("a leader that is cut off leads no more", SOON, || {
        stage.log("first").contains("leads no more").then_some(())
    });
    stage.cluster.start_api_server();
    let led = |name: &str| stage.log(name).matches("this replica leads: it acts").count();
    eventually("one leads again", SOON, || (led("first") + led("second") == 2).then_some(()));
    assert!(stage.is_out("zone-b"));

    // The leader dies without a word; the other takes over, and undoes.
    drop(first);
    stage.leads("second");
    let told = stage.said(&["restore", "zone-b"]);
    assert!(told.contains("every step was undone"), "{told}");
    assert!(stage.is_clean());
}

#[test]
fn marks_alone_suffice_to_give_everything_back() {
    let stage = Stage::new();
    let before = stage.everything();
    let daemon = stage.daemon("one");
    stage.leads("one");
    stage.said(&isolate("zone-b"));
    // The object is lost, and the daemon finds what it left.
    let take_off = r#"{"metadata": {"finalizers": null}}"#;
    stage.cluster.kubectl(&["patch", "zoneisolation", "zone-b", "--type=merge", "-p", take_off]);
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b"]);
    eventually("marks that nothing accounts for are undone", SOON, || stage.is_clean().then_some(()));
    let journal = stage.path("one");
    let told = stdout(&run(&["audit", "--directory", journal.to_str().unwrap()]));
    assert!(told.contains("no isolation accounts for marks of the step dns_rfc2136"), "{told}");
    assert_eq!(stage.everything(), before);

    // The daemon is gone.
    stage.said(&isolate("zone-b"));
    drop(daemon);
    let approved = stage.refused(&isolate("zone-b"));
    assert!(approved.contains("there is a ZoneIsolation zone-b already"), "{approved}");
    let ignored = stage.refused(&["restore", "zone-b"]);
    assert!(ignored.contains("no daemon does it") && ignored.contains("zoneward restore --all"), "{ignored}");
    // Even the ledger is lost.
    stage.cluster.kubectl(&["patch", "zoneisolation", "zone-b", "--type=merge", "-p", take_off]);
    stage.cluster.kubectl(&["delete", "crd", "zoneisolations.zoneward.io"]);
    assert!(stage.is_out("zone-b"));
    let told = stage.said(&["restore", "--all"]);
    assert!(told.contains("every zone is back in rotation") && told.contains("192.0.2.2"), "{told}");
    assert!(stage.is_clean());
    assert_eq!(stage.everything(), before);
    let again = stage.said(&["restore", "--all"]);
    assert!(again.contains("nothing of ours was left"), "{again}");

    // Without the custom resources everybody says what is missing.
    let hint = "are the custom resources installed? (`zoneward crd | kubectl apply -f -`)";
    for arguments in [&["status"][..], &["restore", "zone-b"], &["approve", "zone-b"]] {
        let said = stage.refused(arguments);
        assert!(said.contains(hint), "{arguments:?}: {said}");
    }
    let nobody = stage.refused(&isolate("zone-b"));
    assert!(
        nobody.contains("nobody acts") && nobody.contains("is silent"),
        "at once, and not after a minute: {nobody}"
    );
    let _daemon = stage.daemon("two");
    eventually("the daemon says it", SOON, || stage.log("two").contains(hint).then_some(()));
}

#[test]
fn a_right_that_is_missing_is_named_and_stalls_one_step_alone() {
    let stage = Stage::new();
    let all = check(&stage);
    let found = |all: &[Value], what: &str| {
        let found = all.iter().find(|finding| text(finding, "what") == what);
        found.map_or_else(|| panic!("{what}: {all:?}"), |f| (text(f, "level").to_owned(), text(f, "found").to_owned()))
    };
    assert_eq!(found(&all, "rights").0, "ok", "deploy/rbac.yaml is enough: {all:?}");
    assert_eq!(found(&all, "custom resources").0, "ok");
    assert_eq!(found(&all, "steps.dns_rfc2136").0, "ok", "{all:?}");
    assert!(found(&all, "zones of nodes").1.contains("zone-a (2 nodes), zone-b (2 nodes)"));

    let rules = r#"[{"op": "replace", "path": "/rules/0/resources", "value": ["nodes"]}]"#;
    stage.cluster.kubectl(&["patch", "clusterrole", "zoneward-act", "--type=json", "-p", rules]);
    eventually("the missing right is named", SOON, || {
        (found(&check(&stage), "rights").1.contains("patch pods")).then_some(())
    });
    let _daemon = stage.daemon("one");
    stage.leads("one");
    stage.apply_isolation("zone-b", Duration::from_mins(10), "");
    let stalled = eventually("it is stalled", SOON, || stage.condition("zone-b", "Stalled").filter(|s| s.0 == "True"));
    assert!(stalled.2.contains("mesh_istio: ") && stalled.2.contains("does the ClusterRole allow it?"), "{stalled:?}");
    assert!(stalled.2.contains("cannot patch resource \"pods\""), "{stalled:?}");
    eventually("the other steps are not delayed", SOON, || {
        (stage.tainted().len() == 2 && stage.addresses().len() == 2).then_some(())
    });
    let all = r#"[{"op": "replace", "path": "/rules/0/resources", "value": ["nodes", "pods"]}]"#;
    stage.cluster.kubectl(&["patch", "clusterrole", "zoneward-act", "--type=json", "-p", all]);
    eventually("mended, it goes on by itself", Duration::from_secs(90), || stage.is_out("zone-b").then_some(()));
}

#[test]
fn what_cannot_be_saved_is_not_done_and_a_wrong_key_is_named_but_not_shown() {
    let stage = Stage::new();
    // Reads work, writes to the ledger do not.
    let statuses = r#"[{"op": "replace", "path": "/rules/3/resources", "value": ["zones/status"]}]"#;
    stage.cluster.kubectl(&["patch", "clusterrole", "zoneward-act", "--type=json", "-p", statuses]);
    let right = std::fs::read_to_string(stage.bind.key_file()).unwrap();
    let wrong = "d3Jvbmcgc2VjcmV0IG9mIHRoZSB0ZXN0cyEhISEhISE=";
    std::fs::write(stage.bind.key_file(), wrong).unwrap();
    let daemon = stage.daemon("one");
    stage.leads("one");
    stage.apply_isolation("zone-b", Duration::from_mins(10), "");
    eventually("it is said", SOON, || {
        let log = stage.log("one");
        (log.contains("isolations are held as they are") && log.contains("cannot patch resource")).then_some(())
    });
    assert!(stage.is_clean(), "nothing is done that is not on record");
    let statuses =
        r#"[{"op": "replace", "path": "/rules/3/resources", "value": ["zoneisolations/status", "zones/status"]}]"#;
    stage.cluster.kubectl(&["patch", "clusterrole", "zoneward-act", "--type=json", "-p", statuses]);

    let dns = || stage.get(&["zoneisolation", "zone-b"])["status"]["steps"].to_string();
    eventually("the name server's refusal is told", SOON, || {
        dns().contains("is not that of its key `zoneward-key`").then_some(())
    });
    eventually("the other steps are taken", SOON, || {
        let done = (stage.drained().len(), stage.tainted().len(), stage.addresses().len());
        (done == (2, 2, 3)).then_some(())
    });
    std::fs::write(stage.bind.key_file(), &right).unwrap();
    eventually("with the right key it goes on", Duration::from_secs(90), || stage.is_out("zone-b").then_some(()));
    std::fs::write(stage.bind.key_file(), wrong).unwrap();
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--wait=false"]);
    // That a person has to look is said wherever one may be looking.
    let metric = r#"zoneward_isolation_step{zone="zone-b",step="dns_rfc2136",state="stuck"} 1"#;
    eventually("a metric", SOON, || daemon.get("/metrics").1.contains(metric).then_some(()));
    assert!(stage.condition("zone-b", "Stalled").is_some_and(|stalled| stalled.0 == "True"));
    assert!(stage.said(&["status"]).contains("dns_rfc2136 Stuck"), "{}", stage.said(&["status"]));
    let aloud = "dns_rfc2136: stuck, a person has to look";
    eventually("an Event", SOON, || stage.get(&["events", "-n", "default"]).to_string().contains(aloud).then_some(()));
    assert!(stdout(&run(&["audit", "--directory", stage.path("one").to_str().unwrap()])).contains(aloud));
    let everything = stage.log("one") + &dns() + &stage.get(&["events", "-n", "default"]).to_string();
    for secret in [wrong, right.trim(), ACCOUNT_TOKEN] {
        assert!(!everything.contains(secret), "no secret is shown");
    }
    std::fs::write(stage.bind.key_file(), &right).unwrap();
    eventually("with the right key it is undone", Duration::from_secs(90), || stage.is_clean().then_some(()));
}

#[test]
fn never_two_zones_whoever_asked_when_and_whatever_was_lost() {
    let stage = Stage::new();
    // Both wait when the daemon comes.
    stage.apply_isolation("zone-a", Duration::from_mins(10), "");
    stage.apply_isolation("zone-b", Duration::from_mins(10), "");
    let daemon = stage.daemon("one");
    let held = eventually("the second is held", SOON, || {
        stage.condition("zone-b", "Admitted").filter(|admitted| admitted.1 == "AnotherZoneIsolated")
    });
    assert!(held.2.contains("zone-a is out already"), "{held:?}");
    eventually("the first is out", SOON, || {
        stage.condition("zone-a", "Isolated").filter(|isolated| isolated.0 == "True")
    });
    assert!(stage.is_out("zone-a"));

    // Its object is lost; its marks still count.
    let take_off = r#"{"metadata": {"finalizers": null}}"#;
    stage.cluster.kubectl(&["patch", "zoneisolation", "zone-a", "--type=merge", "-p", take_off]);
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-a"]);
    while !stage.is_clean() {
        let out: Vec<&str> =
            ZONES.into_iter().filter(|zone| stage.tainted().iter().any(|n| n.contains(zone))).collect();
        assert!(out.len() <= 1, "{out:?}");
        if stage.is_out("zone-b") {
            break;
        }
    }
    eventually("once the first is given back, the second begins", SOON, || stage.is_out("zone-b").then_some(()));
    let hold = stage.get(&["zones.zoneward.io", "zone-a"])["status"]["operatorHold"].to_string();
    assert!(hold.contains("taken away by hand"), "{hold}");

    // A pod that lost its note is given back all the same.
    stage.cluster.kubectl(&["annotate", "pod", "web-zone-b-0", "zoneward.io/isolated-zone-"]);
    let without_dns = stage.write("without-dns.yaml", "kubernetes: {namespace: zoneward}");
    stage.said(&["restore", "zone-b"]);
    assert!(stage.is_clean());

    // Not by a person whose configuration lacks a step, either.
    stage.said(&[&isolate("zone-c")[..], &["--override", "regional-fault"]].concat());
    drop(daemon);
    let mut command = crate::support::zoneward();
    command.args(["restore", "--all", "--config"]).arg(&without_dns).env("KUBECONFIG", stage.cluster.kubeconfig());
    let output = command.output().unwrap();
    let said = crate::support::stderr(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("dns_rfc2136 of zone-c (api.example.org. 192.0.2.3 60)"),
        "{said}"
    );
    assert_eq!(stage.names(&["zoneisolations"]), ["zone-c"], "what is to be restored stays on record");
    stage.said(&["restore", "--all"]);
    assert!(stage.is_clean() && stage.names(&["zoneisolations"]).is_empty());
}

#[test]
fn nothing_is_done_to_a_cluster_that_cannot_be_seen() {
    let stage = Stage::new();
    let nodes = r#"[{"op": "replace", "path": "/rules/0/resources", "value": ["nodes"]}]"#;
    stage.cluster.kubectl(&["patch", "clusterrole", "zoneward-observe", "--type=json", "-p", nodes]);
    let _daemon = stage.daemon("one");
    stage.leads("one");
    stage.apply_isolation("zone-b", Duration::from_mins(10), "");
    let held = eventually("it is held", SOON, || stage.condition("zone-b", "Admitted").filter(|a| a.0 == "False"));
    assert_eq!(held.1, "UnseenCluster");
    assert!(stage.is_clean());
    eventually("why is said", SOON, || stage.log("one").contains("pods can't be read").then_some(()));
}

/// The token of the daemon's account in its kubeconfig.
const ACCOUNT_TOKEN: &str = "token: zoneward";

/// As the daemon's account.
fn check(stage: &Stage) -> Vec<Value> {
    let mut command = crate::support::zoneward();
    command.args(["check", "--connect", "--output", "json", "--config"]).arg(stage.config());
    let output = command.env("KUBECONFIG", stage.cluster.kubeconfig_of(ACCOUNT)).output().unwrap();
    json_lines(&stdout(&output))
}

#[test]
fn a_daemon_that_starts_before_the_api_server_acts_once_it_is_there() {
    let mut stage = Stage::new();
    stage.cluster.stop_api_server();
    let _daemon = stage.daemon("one");
    eventually("it says so", SOON, || stage.log("one").contains("Lease zoneward can't be read").then_some(()));
    stage.cluster.start_api_server();
    stage.leads("one");
    stage.said(&isolate("zone-b"));
    assert!(stage.is_out("zone-b"));
}

#[test]
fn preflight_says_what_would_move_what_would_not_and_what_speaks_against_it() {
    let stage = Stage::new();
    stage.service("ledger", "{clusterIP: 10.0.0.11, selector: {app: ledger}, ports: [{port: 80}]}");
    stage.pod("ledger-0", "ledger", "zone-b-0", "{}");
    let output = stage.person(&["preflight", "zone-b"]);
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in [
        "2 pods drained: default/web (2)",
        "api.example.org. loses 192.0.2.2",
        "2 nodes take no new pods: zone-b-0, zone-b-1",
        "0 endpoints of default/ledger are ready elsewhere",
        "no ready endpoint elsewhere for default/ledger",
        "stale_data",
        "it would not be isolated",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(stage.is_clean() && stage.names(&["zoneisolations"]).is_empty());
    let output = stage.person(&[&isolate("zone-b")[..], &["--override", "unreachable-service", "--dry-run"]].concat());
    let told = stdout(&output);
    assert!(output.status.success() && told.contains("it would be isolated"), "{told}");
    for name in ["stale_data", "unreachable_service"] {
        assert!(told.lines().any(|line| line.contains("overridden") && line.contains(name)), "{name}: {told}");
    }
    assert!(stage.is_clean() && stage.names(&["zoneisolations"]).is_empty());
}
