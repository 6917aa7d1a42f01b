//! The process that plays the mesh: it runs the pods that the real scheduler placed, as a kubelet would, and routes calls
//! only by what it reads back: endpoint slices, the draining label, and the addresses that the real name server gives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zoneward::domain::Zone;
use zoneward::sim::{Scenario, Seen, SeenPod, World, export};

use crate::support::part;

/// What the process is told.
pub struct Told {
    pub scenario: String,
    pub listen: SocketAddr,
    pub name_server: SocketAddr,
    pub name: String,
    /// Address to zone.
    pub addresses: BTreeMap<String, Zone>,
    /// Pods to wait for before time begins.
    pub pods: usize,
}

#[allow(clippy::disallowed_methods, reason = "it lives in real time")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[tokio::main]
pub async fn run(told: &Told) {
    let client = Client::try_default().await.unwrap();
    let mut kubelet = Kubelet { client: client.clone(), addressed: 0 };
    let seen = loop {
        kubelet.run_pods().await;
        let seen = try_to_look(&client, told).await;
        if let Some(seen) = seen.filter(|seen| seen.pods.iter().filter(|pod| pod.ready).count() >= told.pods) {
            break seen;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let scenario = Scenario::parse(&std::fs::read_to_string(&told.scenario).unwrap()).unwrap();
    let began = now();
    let story_start = began + scenario.history.signed();
    let fault = story_start + scenario.faults[0].at.signed();
    let mut world = World::new(scenario, story_start, 1);
    world.follow(&seen);
    let world = Arc::new(Mutex::new(world));
    let listener = TcpListener::bind(told.listen).await.unwrap();
    tokio::spawn(export(listener, Arc::clone(&world), CancellationToken::new()));
    std::io::stdout().write_all(format!("{fault}\n").as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
    let living = Arc::clone(&world);
    tokio::spawn(async move {
        loop {
            let lived = SignedDuration::from_secs(now().duration_since(began).as_secs());
            living.lock().unwrap().run_until(began + lived);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    // As long as something can't be read, the mesh goes on as it last knew.
    loop {
        kubelet.run_pods().await;
        if let Some(seen) = try_to_look(&client, told).await {
            world.lock().unwrap().follow(&seen);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

struct Kubelet {
    client: Client,
    addressed: u32,
}

impl Kubelet {
    /// Pods that have a node, and do not run yet, run; those that are to go, go.
    async fn run_pods(&mut self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let Ok(list) = pods.list(&ListParams::default()).await else { return };
        for pod in list.items.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())) {
            let runs = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
            if pod.metadata.deletion_timestamp.is_some() {
                let _gone = pods.delete(&pod.name_any(), &kube::api::DeleteParams::default().grace_period(0)).await;
            } else if !runs {
                self.addressed += 1;
                let ip = format!("10.244.{}.{}", self.addressed / 250, self.addressed % 250 + 1);
                let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                    "conditions": [{"type": "Ready", "status": "True"}]}});
                let _gone = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
            }
        }
    }
}

async fn try_to_look(client: &Client, told: &Told) -> Option<Seen> {
    let all = ListParams::default();
    let nodes = Api::<Node>::all(client.clone()).list(&all).await.ok()?;
    let zone_of: BTreeMap<String, Zone> = nodes
        .items
        .iter()
        .filter_map(|node| Some((node.name_any(), Zone::new(node.labels().get("topology.kubernetes.io/zone")?))))
        .collect();
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default").list(&all).await.ok()?;
    let mut ready: BTreeSet<String> = BTreeSet::new();
    for endpoint in slices.items.iter().flat_map(|slice| &slice.endpoints) {
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true) {
            ready.extend(endpoint.target_ref.as_ref().and_then(|target| target.name.clone()));
        }
    }
    let pods = Api::<Pod>::namespaced(client.clone(), "default").list(&all).await.ok()?;
    let seen = |pod: &Pod| {
        Some(SeenPod {
            name: pod.name_any(),
            service: pod.labels().get("app")?.clone(),
            zone: zone_of.get(pod.spec.as_ref()?.node_name.as_ref()?)?.clone(),
            ready: ready.contains(&pod.name_any()),
            draining: pod.labels().get("istio.io/draining").cloned(),
        })
    };
    Some(Seen { pods: pods.items.iter().filter_map(seen).collect(), listed: listed(told)? })
}

fn listed(told: &Told) -> Option<BTreeSet<Zone>> {
    let port = told.name_server.port().to_string();
    let output = Command::new(part("dig"))
        .args(["-r", "@127.0.0.1", "-p", &port, "+short", "+time=1", "+tries=1", &told.name, "A"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().filter_map(|line| told.addresses.get(line.trim()).cloned()).collect())
}
