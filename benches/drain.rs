//! How long the mesh step takes for five thousand pods, at its default pace, on a real API server. Prints the times;
//! `make drain`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints, and fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::domain::{ClusterView, Zone};
use zoneward::isolate::steps::{Look, MeshIstio, mesh_istio};
use zoneward::kubernetes;
use zoneward::ports::IsolationStep;

#[allow(dead_code, reason = "shared with the integration tests")]
#[path = "../tests/it/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "shared with the integration tests")]
#[path = "../tests/it/support.rs"]
mod support;

const PODS: usize = 5000;
/// Requests under way while the pods are made.
const CONCURRENCY: usize = 32;

async fn pod(api: &Api<Pod>, nth: usize, node: &str) {
    let name = format!("web-{node}-{nth}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "app"}]}
    });
    api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let ready = json!({"status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
}

#[tokio::main]
async fn main() {
    let cluster = cluster::Cluster::start();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, \
         spec: {clusterIP: 10.0.0.10, selector: {app: web}, ports: [{port: 80}]}}",
    );
    for zone in ["zone-a", "zone-b"] {
        cluster.node(zone, zone);
    }
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pod(&pods, 0, "zone-a").await;
    stream::iter(0..PODS).for_each_concurrent(CONCURRENCY, |nth| pod(&pods, nth, "zone-b")).await;
    let view: ClusterView = kubernetes::read(&client, &kubernetes::Settings::default()).await.unwrap();
    let look: Arc<Look> = Arc::new(move || Ok(view.clone()));
    let settings = mesh_istio::Settings::default();
    println!("{PODS} pods in the zone, {} a second", settings.pods_per_second);
    let step = MeshIstio::new(settings, &client, look);
    let zone = Zone::new("zone-b");
    for (what, share, left) in [("drained", Share::NONE, PODS), ("given back", Share::FULL, 0)] {
        let began = Instant::now();
        step.apply(&zone, &Receipt::default(), share).await.unwrap();
        let applied = began.elapsed();
        step.confirm(&zone, &Receipt::default(), share).await.unwrap();
        let selector = ListParams::default().labels("istio.io/draining=zoneward");
        let names: BTreeSet<String> = pods
            .list_metadata(&selector)
            .await
            .unwrap()
            .items
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect();
        assert_eq!(names.len(), left);
        println!(
            "{what} in {:.1} s, read back {:.1} s later",
            applied.as_secs_f64(),
            began.elapsed().as_secs_f64() - applied.as_secs_f64()
        );
    }
}
