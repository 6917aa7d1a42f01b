//! Guardrails on a real API server: what would strand workloads is found there, and a person resets the budget.

use std::time::Duration;

use serde_json::Value;

use crate::stage::Stage;
use crate::support::{eventually, json_lines, run, stderr, stdout, text, zoneward};

const SOON: Duration = Duration::from_secs(30);

/// A `StatefulSet`'s pod with a volume of zone-b, a `Deployment`'s that is strictly spread, and a budget over `web`.
const BOUND: &str = "
{apiVersion: v1, kind: PersistentVolume, metadata: {name: pv-1}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce],
  csi: {driver: disks.example.org, volumeHandle: d-1}, claimRef: {namespace: default, name: data-ledger-0}, nodeAffinity: {required: {
  nodeSelectorTerms: [{matchExpressions: [{key: disks.example.org/zone, operator: In, values: [zone-b]}]}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ledger-0, labels: {app: ledger}, ownerReferences: [
  {apiVersion: apps/v1, kind: StatefulSet, name: ledger, uid: u-1, controller: true}]}, spec: {nodeName: zone-b-0,
  containers: [{name: app, image: app}], volumes: [{name: data, persistentVolumeClaim: {claimName: data-ledger-0}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api-5f7d-1, labels: {app: api, pod-template-hash: 5f7d}, ownerReferences: [
  {apiVersion: apps/v1, kind: ReplicaSet, name: api-5f7d, uid: u-2, controller: true}]}, spec: {nodeName: zone-b-1,
  containers: [{name: app, image: app}], topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone,
  whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: api}}}]}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web}, spec: {minAvailable: 1,
  selector: {matchLabels: {app: web}}}}
";

/// What the guardrail says in a preflight of zone-b, and why.
fn preflight(stage: &Stage, config: &std::path::Path, guardrail: &str) -> (String, String) {
    let mut command = zoneward();
    command.args(["preflight", "zone-b", "--output", "json", "--config"]).arg(config);
    let output = command.env("KUBECONFIG", stage.cluster.kubeconfig()).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)));
    let all = told["guardrails"].as_array().unwrap().clone();
    let found = all.iter().find(|it| it["name"] == guardrail).unwrap_or_else(|| panic!("{guardrail}: {told}"));
    (text(found, "says").to_owned(), text(found, "why").to_owned())
}

#[test]
fn what_would_be_stranded_is_found_and_a_person_resets_the_budget() {
    let stage = Stage::new();
    stage.cluster.apply(BOUND);
    let usual = std::fs::read_to_string(stage.config()).unwrap();
    let with =
        |name: &str, more: &str| stage.write(name, &usual.replace("cool_down: 1h", &format!("cool_down: 1h, {more}")));
    let traps = [
        "StatefulSet default/ledger: 1 of its pods can be in zone-b alone, by the volume of its PersistentVolumeClaim data-ledger-0",
        "Deployment default/api: spread strictly over zones (maxSkew 1), 4 new pods fit elsewhere, and more stay pending",
        "PodDisruptionBudgets that count the drained pods, so drain no nodes elsewhere meanwhile: default/web",
    ];
    let (says, why) = preflight(&stage, &stage.config(), "capacity_trap");
    assert_eq!(says, "warns", "{why}");
    traps.iter().for_each(|trap| assert!(why.contains(trap), "{trap}: {why}"));
    assert_eq!(preflight(&stage, &with("hold.yaml", "capacity_traps: hold"), "capacity_trap").0, "NO");

    // The daemon sees it too, with its least rights, and puts it on record.
    let _daemon = stage.daemon_with("one", &with("once.yaml", "max_isolations_per_day: 1"));
    stage.leads("one");
    let by_hand = ["isolate", "zone-b", "--reason", "x", "--for", "1h", "--override", "stale-data"];
    stage.said(&by_hand);
    let journal = stage.path("one");
    let on_record = |event: &str| {
        let told = stdout(&run(&["audit", "--directory", journal.to_str().unwrap(), "--output", "json"]));
        json_lines(&told).into_iter().find(|record| text(record, "event") == event)
    };
    let warnings = on_record("admitted").unwrap()["warnings"].to_string();
    traps.iter().for_each(|trap| assert!(warnings.contains(trap), "{trap}: {warnings}"));
    stage.said(&["restore", "zone-b"]);

    let again = [&by_hand[..], &["--override", "cooling-down"]].concat();
    let spent = stage.refused(&again);
    assert!(spent.contains("it was isolated 1 times in 24 h, and 1 are allowed"), "{spent}");
    assert!(spent.contains("--override budget-spent"), "{spent}");
    let unknown = stage.refused(&["acknowledge", "zone-x"]);
    assert!(unknown.contains("there is no Zone zone-x"), "{unknown}");
    // As moments are whole seconds, not in the second in which it was asked for.
    std::thread::sleep(Duration::from_secs(1));
    let told = stage.said(&["acknowledge", "--all"]);
    assert!(told.contains("zone-b: its budget begins anew at"), "{told}");
    stage.said(&again);
    eventually("it is on record", SOON, || on_record("acknowledged"));
    stage.said(&["restore", "zone-b"]);
}
