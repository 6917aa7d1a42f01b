//! Weights for the whole mesh: on a real API server with the least rights what is written, refused and undone, and on a real
//! istiod with real Envoys what that does to calls.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::domain::{ClusterView, Zone};
use zoneward::isolate::steps::{Look, MeshDistribute, Preview, Probe, RealStep, mesh_distribute};
use zoneward::ports::{IsolationStep, StepError};

use crate::contract::{self, Mark};
use crate::istio::{Caller, REGION, SHARED_MESH_CONFIG, Server, configure_mesh};
use crate::istiod::{Mesh, ZONES, pod, tell};
use crate::stage::{ACCOUNT, Stage};
use crate::steps::{client, client_of, looking_at, view};
use crate::support::{eventually, strip};

/// An istiod as the API server knows it, that reads that `ConfigMap`.
fn istiod(shared: &str) -> String {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "istiod", "namespace": "istio-system", "labels": {"app": "istiod"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "istiod"}}, "template": {
            "metadata": {"labels": {"app": "istiod"}},
            "spec": {"containers": [{"name": "discovery", "image": "pilot:1.31.0",
                "env": [{"name": "SHARED_MESH_CONFIG", "value": shared}]}]}}}})
    .to_string()
}

struct Ground {
    stage: Stage,
    admin: Client,
    /// With the rights of deploy/rbac.yaml and of its block for this step.
    account: Client,
}

impl Ground {
    async fn new() -> Self {
        let stage = Stage::new();
        stage.cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}");
        stage.cluster.kubectl(&["label", "nodes", "--all", &format!("topology.kubernetes.io/region={REGION}")]);
        stage.cluster.apply(&istiod(SHARED_MESH_CONFIG));
        configure_mesh(&stage.cluster, "istio", "accessLogFile: /dev/stdout");
        stage.grant_weights();
        let admin = client(&stage.cluster).await;
        let account = client_of(&stage.cluster.kubeconfig_of(ACCOUNT)).await;
        Self { stage, admin, account }
    }

    async fn step(&self) -> MeshDistribute {
        self.step_looking(looking_at(view(&self.admin).await))
    }

    fn step_looking(&self, look: Arc<Look>) -> MeshDistribute {
        MeshDistribute::new(mesh_distribute::Settings::default(), &self.account, look)
    }

    /// The `ConfigMap`, but for identity, versions and times.
    fn map(&self) -> Option<Value> {
        let found =
            self.stage.cluster.try_kubectl(&["-n", "istio-system", "get", "cm", SHARED_MESH_CONFIG, "-o", "json"]);
        let mut map: Value = serde_json::from_str(&found.ok()?).unwrap();
        strip(&mut map);
        map["metadata"].as_object_mut().unwrap().retain(|key, _| !["uid", "creationTimestamp"].contains(&key.as_str()));
        Some(map)
    }

    /// Weights by zone, as istiod would read them.
    fn weights(&self) -> Value {
        let map = self.map().unwrap();
        let document: Value = serde_json::from_str(map["data"]["mesh"].as_str().unwrap()).unwrap();
        document["localityLbSetting"]["distribute"][0]["to"].clone()
    }

    /// Why nothing was begun; and nothing was written.
    async fn refusal(&self) -> String {
        let before = self.map();
        let (step, zone) = (self.step().await, Zone::new("zone-b"));
        let Err(StepError::Permanent { why }) = step.capture(&zone).await else { panic!("it was not refused") };
        let applied = step.apply(&zone, &Receipt::default(), Share::NONE).await;
        assert_eq!(applied, Err(StepError::Permanent { why: why.clone() }));
        assert_eq!(self.map(), before);
        why
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_may_run_twice_and_undo_restores_what_was() {
    let ground = Ground::new().await;
    let everything = ground.stage.everything();
    let (step, zone) = (ground.step().await, Zone::new("zone-b"));
    // It is made where it is not there; from then on it is as it was before.
    for round in 0..2 {
        let before = ground.map();
        let receipt = step.capture(&zone).await.unwrap();
        assert_eq!(step.capture(&zone).await.unwrap(), receipt);
        for (percent, weights) in [
            (0, json!({"region-1/zone-a/*": 50, "region-1/zone-c/*": 50})),
            (50, json!({"region-1/zone-a/*": 42, "region-1/zone-b/*": 17, "region-1/zone-c/*": 41})),
        ] {
            let share = Share::percent(percent);
            assert!(step.confirm(&zone, &receipt, share).await.is_err(), "not yet");
            for _ in 0..2 {
                step.apply(&zone, &receipt, share).await.unwrap();
                step.confirm(&zone, &receipt, share).await.unwrap();
            }
            assert_eq!(ground.weights(), weights, "{percent} %");
            assert_eq!(step.marked().await.unwrap(), [zone.clone()].into());
            assert!(step.confirm(&zone, &receipt, Share::FULL).await.is_err(), "it is not undone yet");
            assert!(step.drift(&zone, &receipt, share).await.unwrap().is_empty());
        }
        for receipt in [receipt, Receipt::default()] {
            step.apply(&zone, &receipt, Share::FULL).await.unwrap();
            step.confirm(&zone, &receipt, Share::FULL).await.unwrap();
        }
        assert!(step.marked().await.unwrap().is_empty());
        assert_eq!(ground.map().unwrap()["data"]["mesh"], "{}");
        assert!(round == 0 || ground.map() == before);
    }
    assert_eq!(ground.stage.everything(), everything, "no pod and no node was written to");
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_come_back_one_by_one_or_all_at_once_by_the_marks_alone() {
    let ground = Ground::new().await;
    let step = ground.step().await;
    let [a, b] = ["zone-a", "zone-b"].map(Zone::new);
    let none = Receipt::default();
    step.apply(&a, &none, Share::NONE).await.unwrap();
    step.apply(&b, &none, Share::NONE).await.unwrap();
    assert_eq!(ground.weights(), json!({"region-1/zone-c/*": 100}));
    assert_eq!(step.marked().await.unwrap(), [a.clone(), b.clone()].into());

    // As after a crash, and by who sees nothing of the cluster.
    let blind = ground.step_looking(Arc::new(|| Ok(ClusterView::default())));
    assert_eq!(blind.sweep(Some(&a)).await.unwrap().len(), 1);
    assert_eq!(ground.weights(), json!({"region-1/zone-a/*": 50, "region-1/zone-c/*": 50}));
    step.confirm(&b, &none, Share::NONE).await.unwrap();
    step.apply(&a, &none, Share::NONE).await.unwrap();
    assert_eq!(blind.sweep(None).await.unwrap().len(), 2);
    assert_eq!(ground.map().unwrap()["data"]["mesh"], "{}");
    assert!(blind.sweep(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn others_config_maps_are_not_touched() {
    let ground = Ground::new().await;
    let kubectl = |arguments: &[&str]| ground.stage.cluster.kubectl(&[&["-n", "istio-system"], arguments].concat());
    configure_mesh(&ground.stage.cluster, SHARED_MESH_CONFIG, "accessLogFile: /dev/stdout");
    let why = ground.refusal().await;
    assert!(why.contains("is not zoneward's") && why.contains("kubectl -n istio-system label configmap"), "{why}");
    kubectl(&["label", "configmap", SHARED_MESH_CONFIG, "app.kubernetes.io/managed-by=zoneward"]);
    let why = ground.refusal().await;
    assert!(why.contains("also sets `accessLogFile`"), "{why}");
    let step = ground.step().await;
    assert!(step.apply(&Zone::new("zone-b"), &Receipt::default(), Share::FULL).await.is_err(), "nor by undoing");
    assert!(
        step.probe().await.iter().any(|it| matches!(it, Probe::Broken { found, .. } if found.contains("accessLog")))
    );

    kubectl(&["patch", "configmap", SHARED_MESH_CONFIG, "-p", r#"{"data": {"mesh": ""}}"#]);
    step.apply(&Zone::new("zone-b"), &Receipt::default(), Share::NONE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_is_seen_and_mended() {
    let ground = Ground::new().await;
    let (step, zone, none) = (ground.step().await, Zone::new("zone-b"), Receipt::default());
    step.apply(&zone, &none, Share::NONE).await.unwrap();
    let before = ground.map();
    let changed = r#"{"data": {"mesh": "localityLbSetting: {distribute: []}"}}"#;
    ground.stage.cluster.kubectl(&["-n", "istio-system", "patch", "configmap", SHARED_MESH_CONFIG, "-p", changed]);
    assert!(step.confirm(&zone, &none, Share::NONE).await.is_err());
    let drift = step.drift(&zone, &none, Share::NONE).await.unwrap();
    assert!(drift.len() == 1 && drift[0].contains("was changed"), "{drift:?}");
    step.apply(&zone, &none, Share::NONE).await.unwrap();
    assert_eq!(ground.map(), before);

    ground.stage.cluster.kubectl(&["-n", "istio-system", "delete", "configmap", SHARED_MESH_CONFIG]);
    step.apply(&zone, &none, Share::NONE).await.unwrap();
    assert_eq!(ground.map(), before, "it is made anew");
    ground.stage.cluster.kubectl(&["-n", "istio-system", "delete", "configmap", SHARED_MESH_CONFIG]);
    step.apply(&zone, &none, Share::FULL).await.unwrap();
    step.confirm(&zone, &none, Share::FULL).await.unwrap();
    assert_eq!(ground.map(), None, "without it there is nothing to undo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_is_not_prepared_is_refused_before_anything_is_written() {
    let ground = Ground::new().await;
    let cluster = &ground.stage.cluster;
    let label = "topology.kubernetes.io/region";

    cluster.kubectl(&["label", "node", "zone-c-0", &format!("{label}-")]);
    assert!(
        ground.refusal().await.contains("without a region or a zone, whose pods would get no calls at all: zone-c-0")
    );
    cluster.kubectl(&["label", "node", "zone-c-0", &format!("{label}={REGION}")]);

    ground.stage.service("only", "{clusterIP: 10.0.0.11, selector: {app: only}, ports: [{port: 80}]}");
    ground.stage.pod("only-0", "only", "zone-b-0", "{}");
    assert!(ground.refusal().await.contains("would be lost: default/only"));
    let preview = ground.step().await.preview(&Zone::new("zone-b"), Share::NONE).await.unwrap();
    assert!(preview.changes[1].starts_with("REFUSED: ") && preview.changes[1].contains("default/only"), "{preview:?}");
    ground.stage.pod("only-1", "only", "zone-a-0", "{}");

    cluster.apply(&nowhere("192.0.2.9", 80));
    assert!(ground.refusal().await.contains("in no known zone, which would get no calls at all: default/web (1)"));
    cluster.kubectl(&["delete", "endpointslice", "legacy"]);

    cluster.kubectl(&["-n", "istio-system", "set", "env", "deployment/istiod", "SHARED_MESH_CONFIG-"]);
    let why = ground.refusal().await;
    assert!(why.contains("lacks SHARED_MESH_CONFIG"), "{why}");
    let probes = ground.step().await.probe().await;
    let told =
        |it: &Probe| matches!(it, Probe::Broken { hint: Some(hint), .. } if hint.contains("set env deployment/istiod"));
    assert!(probes.iter().any(told), "{probes:?}");
    // As the hint says.
    let shared = format!("SHARED_MESH_CONFIG={SHARED_MESH_CONFIG}");
    cluster.kubectl(&["-n", "istio-system", "set", "env", "deployment/istiod", &shared]);

    configure_mesh(cluster, "istio", "localityLbSetting: {enabled: true}");
    assert!(ground.refusal().await.contains("istio-system/istio sets localityLbSetting"));
    configure_mesh(cluster, "istio", "{}");

    let step = ground.step().await;
    let broken: Vec<Probe> = step.probe().await.into_iter().filter(|it| matches!(it, Probe::Broken { .. })).collect();
    assert_eq!(broken, []);
    assert_eq!(ground.map(), None, "a probe writes nothing");
    let Preview { changes, .. } = step.preview(&Zone::new("zone-b"), Share::NONE).await.unwrap();
    assert_eq!(changes, ["every client of the mesh weighs zones by istio-system/zoneward-mesh (zone-a 60, zone-c 40)"]);
    step.apply(&Zone::new("zone-b"), &Receipt::default(), Share::NONE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_rights_it_says_so() {
    let ground = Ground::new().await;
    let cluster = &ground.stage.cluster;
    cluster.kubectl(&["delete", "clusterrole", "zoneward-mesh-distribute"]);
    assert!(ground.refusal().await.contains("does the ClusterRole allow it?"));
    cluster.kubectl(&["-n", "istio-system", "delete", "role", "zoneward-mesh-distribute"]);
    let probes = ground.step().await.probe().await;
    assert!(probes.iter().any(|it| matches!(it, Probe::Broken { found, .. } if found.contains("can't be read"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_isolates_by_weights_and_gives_the_zone_back() {
    let ground = Ground::new().await;
    let stage = &ground.stage;
    let config = "mode: enforce\nprometheus: {url: 'http://127.0.0.1:1', history: 1m}\nkubernetes: {namespace: zoneward}\n\
                  steps: {mesh_istio: null, mesh_distribute: {}, taint: null}\n";
    let _daemon = stage.daemon_with("one", &stage.write("weights.yaml", config));
    stage.leads("one");
    stage.apply_isolation("zone-b", Duration::from_hours(1), "");
    let patience = Duration::from_mins(1);
    eventually("it is isolated", patience, || {
        stage.condition("zone-b", "Isolated").filter(|(status, ..)| status == "True").map(|_| ())
    });
    assert_eq!(ground.weights(), json!({"region-1/zone-a/*": 50, "region-1/zone-c/*": 50}));
    assert!(stage.drained().is_empty());
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b"]);
    assert_eq!(ground.map().unwrap()["data"]["mesh"], "{}", "deleting waits until it is undone");
}

/// A slice with an endpoint of `web` that no pod stands behind.
fn nowhere(address: &str, port: u16) -> String {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "legacy", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [address]}]})
    .to_string()
}

impl Mesh {
    /// With istiod's own word.
    fn weighing(&self, view: ClusterView) -> MeshDistribute {
        let settings = mesh_distribute::Settings { istiod: Some(self.istiod.url()), ..Default::default() };
        MeshDistribute::new(settings, &self.client, looking_at(view))
    }

    async fn weigh(&self, zone: &str, percent: u8) -> Instant {
        self.weigh_by(view(&self.client).await, zone, percent).await
    }

    /// Until it is confirmed.
    async fn weigh_by(&self, view: ClusterView, zone: &str, percent: u8) -> Instant {
        let (step, zone, receipt, share) =
            (self.weighing(view), Zone::new(zone), Receipt::default(), Share::percent(percent));
        let began = Instant::now();
        step.apply(&zone, &receipt, share).await.unwrap();
        while let Err(error) = step.confirm(&zone, &receipt, share).await {
            assert!(began.elapsed() < Duration::from_secs(10), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_take_a_zone_out_and_give_it_back_and_no_call_fails() {
    let mesh = Mesh::start().await;
    let began = Instant::now();
    let outside = Caller::start(&mesh.istiod, "outside", "zone-a", "web");
    let inside = Caller::start(&mesh.istiod, "inside", "zone-b", "web");
    let all: Vec<String> = ZONES.iter().flat_map(|zone| [pod(zone, 0), pod(zone, 1)]).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let others = [all[0], all[1], all[4], all[5]];
    outside.reaches_only(&all, began);

    let out = mesh.weigh("zone-b", 0).await;
    for caller in [&outside, &inside] {
        tell("zone-b gets no calls by its weight", caller.reaches_only(&others, out));
    }

    // Half of what it would have: a sixth of all.
    let shared = mesh.weigh("zone-b", 50).await;
    tell("a share is back", outside.reaches_only(&all, shared));
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let answers = outside.answers_since(since);
    let (of_b, of_all) = (answers[all[2]] + answers[all[3]], answers.values().sum::<usize>());
    let share = of_b as f64 / of_all as f64;
    assert!((0.13..0.21).contains(&share), "{of_b} of {of_all} calls");

    let undone = mesh.weigh("zone-b", 100).await;
    for caller in [&outside, &inside] {
        tell("all are back", caller.reaches_only(&all, undone));
    }

    // A service that comes to live only in a zone that is out is not lost.
    let out = mesh.weigh("zone-b", 0).await;
    outside.reaches_only(&others, out);
    let mut alone = view(&mesh.client).await;
    let elsewhere = |it: &Option<Zone>| it.as_ref().is_some_and(|zone| zone.as_str() != "zone-b");
    alone.pods.values_mut().filter(|pod| elsewhere(&pod.zone)).for_each(|pod| pod.ready = false);
    let drift =
        mesh.weighing(alone.clone()).drift(&Zone::new("zone-b"), &Receipt::default(), Share::NONE).await.unwrap();
    assert!(drift.iter().any(|it| it.contains("default/web are ready nowhere else")), "{drift:?}");
    let kept = mesh.weigh_by(alone, "zone-b", 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for zone in ["zone-a", "zone-c"] {
        (0..2).for_each(|nth| {
            mesh.cluster.kubectl(&["delete", "pod", &pod(zone, nth), "--force"]);
        });
    }
    outside.reaches_only(&[all[2], all[3]], kept);
    for caller in [outside, inside] {
        assert!(caller.finish() > 500);
    }
}

/// What Istio knows no zone of is lost by weights, but not if a rule exempts it: the preflight's word, seen in calls.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_zone_is_refused_and_a_rule_that_exempts_it_keeps_its_calls() {
    let mesh = Mesh::start().await;
    let resource = |plural: &str, kind: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.networking.istio.io")},
            "spec": {"group": "networking.istio.io", "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
        .to_string()
    };
    mesh.cluster.apply(&resource("destinationrules", "DestinationRule"));
    mesh.cluster.apply(&resource("serviceentries", "ServiceEntry"));
    let server = Server::start("legacy", Ipv4Addr::new(10, 1, 9, 1), 0);
    mesh.cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: legacy}, spec: {ports: [{name: http, port: 80, targetPort: 80}]}}",
    );
    mesh.cluster.apply(&nowhere("10.1.9.1", server.port()).replace("\"web\"", "\"legacy\""));
    let caller = Caller::start(&mesh.istiod, "caller", "zone-a", "legacy");
    let began = Instant::now();
    caller.reaches_only(&["legacy"], began);

    let zone = Zone::new("zone-b");
    let step = mesh.weighing(view(&mesh.client).await);
    let Err(StepError::Permanent { why }) = step.capture(&zone).await else { panic!("it was not refused") };
    assert!(why.contains("default/legacy (1)") && why.contains("localityLbSetting.enabled: false"), "{why}");

    let rule = json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "legacy", "namespace": "default"}, "spec": {"host": "legacy",
            "trafficPolicy": {"loadBalancer": {"localityLbSetting": {"enabled": false}}}}});
    mesh.cluster.apply(&rule.to_string());
    tokio::time::sleep(Duration::from_secs(2)).await;
    step.capture(&zone).await.unwrap();
    let out = mesh.weigh("zone-b", 0).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    caller.reaches_only(&["legacy"], out);
    caller.finish();

    // Without the rule the mesh would have lost it.
    let caller = Caller::start(&mesh.istiod, "caller", "zone-a", "legacy");
    mesh.cluster.kubectl(&["delete", "destinationrule", "legacy"]);
    caller.loses_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_keep_to_the_contract() {
    let ground = Ground::new().await;
    let step = ground.step().await;
    // The map is made where it is not there, and stays.
    step.apply(&Zone::new("zone-b"), &Receipt::default(), Share::NONE).await.unwrap();
    step.apply(&Zone::new("zone-b"), &Receipt::default(), Share::FULL).await.unwrap();
    let sight = || json!([ground.map(), ground.stage.everything()]);
    contract::holds(&step, Mark::OnWhatIsChanged, ("zone-b", "zone-c"), sight).await;
}
