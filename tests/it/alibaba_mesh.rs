//! The field of ASM's control plane, on a server that has it: what was in it comes back, and what is somebody's stays.

use serde_json::json;
use zoneward::domain::Zone;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::isolate::steps::mesh_asm::{MeshAsm, Settings};
use zoneward::isolate::steps::{Probe, RealStep, StepSettings};
use zoneward::ports::{IsolationStep, StepError};

use crate::alibaba_cloud::{Cloud, Fault};
use crate::contract::{self, Mark};
use crate::support::{root, run, stderr};

const WRITTEN: &str = "topology.kubernetes.io/zone=cn-hangzhou-h";

fn step(cloud: &Cloud) -> MeshAsm {
    let settings: Settings = serde_json::from_value(json!({
        "mesh_id": "c08ba3fd", "endpoint": cloud.url(), "unverified_api": "accept", "timeout": "1s",
    }))
    .unwrap();
    assert_eq!(settings.problems(), []);
    MeshAsm::new(settings, cloud.surroundings())
}

fn zone() -> Zone {
    Zone::new("cn-hangzhou-h")
}

fn labels(cloud: &Cloud) -> String {
    cloud.world().mesh.labels.clone().unwrap()
}

fn set(cloud: &Cloud, text: &str) {
    cloud.world().mesh.labels = Some(text.to_owned());
}

fn permanent<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
    match result {
        Err(StepError::Permanent { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_verb_may_run_twice_and_undo_restores_what_was() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    let receipt = step.capture(&zone()).await.unwrap();
    assert_eq!(step.capture(&zone()).await.unwrap(), receipt);
    for _ in 0..2 {
        step.apply(&zone(), &receipt, Share::NONE).await.unwrap();
        step.confirm(&zone(), &receipt, Share::NONE).await.unwrap();
    }
    assert_eq!((labels(&cloud).as_str(), cloud.world().changes), (WRITTEN, 1));
    assert!(step.confirm(&zone(), &receipt, Share::FULL).await.is_err(), "it is not undone yet");
    for _ in 0..2 {
        step.apply(&zone(), &receipt, Share::FULL).await.unwrap();
        step.confirm(&zone(), &receipt, Share::FULL).await.unwrap();
    }
    assert_eq!((labels(&cloud).as_str(), cloud.world().changes), ("", 2));
    step.apply(&zone(), &Receipt::default(), Share::FULL).await.unwrap();
    assert!(step.marked().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_somebodys_is_left_and_told() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    set(&cloud, "name=batch");
    let receipt = step.capture(&zone()).await.unwrap();
    let why = permanent(step.apply(&zone(), &receipt, Share::NONE).await);
    assert!(why.contains("is `name=batch` already, which is somebody's own"), "{why}");
    step.apply(&zone(), &receipt, Share::FULL).await.unwrap();
    assert_eq!((labels(&cloud).as_str(), cloud.world().changes), ("name=batch", 0));

    set(&cloud, "");
    let receipt = step.capture(&zone()).await.unwrap();
    step.apply(&zone(), &receipt, Share::NONE).await.unwrap();
    set(&cloud, "name=other");
    for share in [Share::NONE, Share::FULL] {
        let why = permanent(step.apply(&zone(), &receipt, share).await);
        assert!(why.contains("`name=other`: neither ``, as before the isolation, nor `topology"), "{why}");
    }
    assert_eq!(labels(&cloud), "name=other");
    // What was taken out of it by hand is written again, and is no drift at the end.
    set(&cloud, "");
    step.apply(&zone(), &receipt, Share::NONE).await.unwrap();
    assert_eq!(labels(&cloud), WRITTEN);
    set(&cloud, "");
    step.apply(&zone(), &receipt, Share::FULL).await.unwrap();

    // A person has isolated the same zone already: it stays so.
    set(&cloud, WRITTEN);
    let receipt = step.capture(&zone()).await.unwrap();
    step.apply(&zone(), &receipt, Share::NONE).await.unwrap();
    step.apply(&zone(), &receipt, Share::FULL).await.unwrap();
    assert_eq!(labels(&cloud), WRITTEN);
}

#[tokio::test]
async fn a_failure_at_any_call_is_told_and_undone() {
    for at in 0..4 {
        for fault in [Fault::Refuse(503, "ServiceUnavailable"), Fault::Throttle(3), Fault::Garbage] {
            let cloud = Cloud::start().await;
            let step = step(&cloud);
            let mut faults = vec![None; at];
            faults.push(Some(fault));
            cloud.next(&faults);
            let mut receipt = Receipt::default();
            let outcome = async {
                receipt = step.capture(&zone()).await?;
                step.apply(&zone(), &receipt, Share::NONE).await?;
                step.confirm(&zone(), &receipt, Share::NONE).await
            };
            assert!(matches!(outcome.await, Err(StepError::Transient { .. })), "{fault:?} at {at}");
            step.apply(&zone(), &receipt, Share::FULL).await.unwrap();
            step.confirm(&zone(), &receipt, Share::FULL).await.unwrap();
            assert_eq!(labels(&cloud), "", "{fault:?} at {at}");
        }
    }
}

#[tokio::test]
async fn a_mesh_that_is_not_ready_or_not_there_is_told() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    let receipt = step.capture(&zone()).await.unwrap();
    cloud.world().mesh.state = "upgrading";
    let error = step.apply(&zone(), &receipt, Share::NONE).await.unwrap_err();
    assert_eq!(error.to_string(), "the mesh c08ba3fd is upgrading: it takes a change once it is running");
    cloud.world().mesh.state = "running";
    cloud.world().denied.insert("UpdateMeshFeature");
    let why = permanent(step.apply(&zone(), &receipt, Share::NONE).await);
    assert!(why.ends_with("let the account's RAM policy allow servicemesh:UpdateMeshFeature on *"), "{why}");
    let other: Settings =
        serde_json::from_value(json!({"mesh_id": "other", "endpoint": cloud.url(), "unverified_api": "accept"}))
            .unwrap();
    let why = permanent(MeshAsm::new(other, cloud.surroundings()).capture(&zone()).await);
    assert!(why.ends_with("compare steps.mesh_asm.mesh_id, and whose credentials these are"), "{why}");
    // A mesh that takes the write and does not keep it is never confirmed.
    cloud.world().denied.clear();
    step.apply(&zone(), &receipt, Share::NONE).await.unwrap();
    cloud.world().mesh.labels = None;
    let error = step.confirm(&zone(), &receipt, Share::NONE).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("reads ``, and not `{WRITTEN}` yet")), "{error}");
}

#[tokio::test]
async fn people_are_told_what_is_not_known() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    let out = zone();
    let preview = |share| step.preview(&out, share);
    let changes = preview(Share::NONE).await.unwrap().changes;
    let becomes = format!("becomes `{WRITTEN}`; that this takes the zone out is not documented");
    assert!(changes[0].ends_with(&becomes), "{changes:?}");
    let hint_of = |probes: &[Probe]| match probes.last() {
        Some(Probe::Unsure { hint, .. }) => hint.clone(),
        other => panic!("{other:?}"),
    };
    let probes = step.probe().await;
    let (mesh, whose) =
        ("the mesh c08ba3fd (v1.22.6.12-g0f8d2a31-aliyun, running)", "the access key of the environment");
    assert_eq!(probes[0], Probe::Works(format!("{mesh} is read with the rights of {whose}")));
    assert!(matches!(&probes[1], Probe::Works(_)), "{probes:?}");
    assert!(hint_of(&probes).ends_with("or use steps.mesh_istio: this mesh is new enough for it"), "{probes:?}");
    cloud.world().mesh.version = "v1.18.2";
    cloud.world().mesh.labels = None;
    let probes = step.probe().await;
    assert!(hint_of(&probes).ends_with("this mesh is older than 1.22, which it takes"), "{probes:?}");
    assert!(
        matches!(&probes[1], Probe::Unsure { found, .. } if found.starts_with("the mesh does not say")),
        "{probes:?}"
    );
    assert_eq!(step.sweep(None).await, Ok(vec![]));
    set(&cloud, WRITTEN);
    let lines = step.sweep(None).await.unwrap();
    assert!(lines[0].starts_with("nothing by marks, as the mesh keeps none"), "{lines:?}");
    let changes = preview(Share::NONE).await.unwrap().changes;
    assert!(changes[0].ends_with("already, and stays so when the isolation ends"), "{changes:?}");
    assert_eq!(cloud.world().changes, 0);
}

/// The examples of the shipped configuration, taken out of their comments.
#[test]
fn the_shipped_examples_are_legal_but_for_what_nobody_has_confirmed() {
    let shipped = std::fs::read_to_string(root().join("config/default.yaml")).unwrap();
    let comments = shipped.lines().skip_while(|line| !line.starts_with("#  dns_alibaba:"));
    let examples = comments.take_while(|line| line.starts_with('#')).map(|line| format!("{}\n", &line[1..]));
    let examples: String = std::iter::once("steps:\n".to_owned()).chain(examples).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("examples.yaml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = run(&["check", "--config", path.to_str().unwrap()]);
        (output.status.code(), stderr(&output))
    };
    let (code, said) = check(&examples);
    let refused = "steps.mesh_asm.unverified_api: is not `accept`";
    assert!(code == Some(3) && said.contains(refused) && said.matches("steps.").count() == 2, "{said}");
    let (code, said) = check(&examples.replace("unverified_api: refuse", "unverified_api: accept"));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn the_shipped_policy_allows_every_call_that_is_made() {
    let policy = std::fs::read_to_string(root().join("deploy/alibaba/ram-policy.json")).unwrap();
    let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
    let actions = policy["Statement"].as_array().unwrap().iter().flat_map(|s| s["Action"].as_array().unwrap().clone());
    let actions: Vec<String> = actions.map(|action| action.as_str().unwrap().to_owned()).collect();
    let shifts = ["GetLoadBalancerAttribute", "StartShiftLoadBalancerZones", "CancelShiftLoadBalancerZones"];
    let of = |service: &str| shifts.map(|action| format!("{service}:{action}"));
    let mesh = ["DescribeServiceMeshDetail", "UpdateMeshFeature"].map(|action| format!("servicemesh:{action}"));
    assert_eq!(actions, [of("nlb").to_vec(), of("alb").to_vec(), mesh.to_vec()].concat());
}

#[tokio::test]
async fn the_field_keeps_to_the_contract() {
    let cloud = Cloud::start().await;
    let sight = || json!(labels(&cloud));
    contract::holds(&step(&cloud), Mark::Nowhere, ("cn-hangzhou-h", "cn-hangzhou-i"), sight).await;
}
