//! What isolating a zone does to the calls of a mesh, on a real istiod and real Envoys: seen in the calls, not in what
//! zoneward wrote.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use kube::Client;
use zoneward::domain::Zone;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::isolate::steps::MeshIstio;
use zoneward::ports::IsolationStep;

use crate::cluster::Cluster;
use crate::istio::{Caller, Istiod, REGION, SHARED_MESH_CONFIG, Server, configure_mesh};
use crate::steps::{client, looking_at, view};

pub const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];

/// Two pods of `web` in each of three zones, that run, and a headless service of the same pods.
pub struct Mesh {
    pub istiod: Istiod,
    servers: Vec<Server>,
    pub client: Client,
    pub cluster: Cluster,
}

impl Mesh {
    pub async fn start() -> Self {
        let mut cluster = Cluster::start();
        cluster.controllers();
        let istiod = Istiod::start(&cluster);
        let client = client(&cluster).await;
        let mut mesh = Self { istiod, servers: vec![], client, cluster };
        for zone in ZONES {
            mesh.cluster.node(zone, zone);
            mesh.cluster.kubectl(&["label", "node", zone, &format!("topology.kubernetes.io/region={REGION}")]);
            (0..2).for_each(|nth| mesh.pod(zone, nth));
        }
        for (name, more) in [("web", ""), ("web-peers", "clusterIP: None, ")] {
            mesh.cluster.apply(&format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, \
                 spec: {{{more}selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: {}}}]}}}}",
                mesh.servers[0].port()
            ));
        }
        mesh
    }

    /// A ready pod.
    fn pod(&mut self, zone: &str, nth: u8) {
        self.unready_pod(zone, nth);
        self.ready(zone, nth);
    }

    fn unready_pod(&mut self, zone: &str, nth: u8) {
        let name = pod(zone, nth);
        let port = self.servers.first().map_or(0, Server::port);
        self.servers.push(Server::start(&name, address(zone, nth), port));
        self.cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: web}}}}, spec: {{nodeName: {zone}, \
             containers: [{{name: app, image: app}}, {{name: istio-proxy, image: proxy}}]}}}}"
        ));
    }

    /// As a kubelet reports it.
    fn ready(&self, zone: &str, nth: u8) {
        let ip = address(zone, nth);
        let status = format!(
            r#"{{"status": {{"phase": "Running", "podIP": "{ip}", "podIPs": [{{"ip": "{ip}"}}],
            "conditions": [{{"type": "Ready", "status": "True"}}]}}}}"#
        );
        let patch = ["--subresource=status", "--type=merge", "-p", &status];
        self.cluster.kubectl(&[&["patch", "pod", &pod(zone, nth)], &patch[..]].concat());
    }

    async fn drain(&self, zone: &str, percent: u8) -> Instant {
        let step = MeshIstio::new(Default::default(), &self.client, looking_at(view(&self.client).await));
        let began = Instant::now();
        step.apply(&Zone::new(zone), &Receipt::default(), Share::percent(percent)).await.unwrap();
        began
    }

    fn draining(&self, pod: &str) -> String {
        self.cluster.kubectl(&["get", "pod", pod, "-o", r"jsonpath={.metadata.labels.istio\.io/draining}"])
    }
}

pub fn pod(zone: &str, nth: u8) -> String {
    format!("web-{zone}-{nth}")
}

fn address(zone: &str, nth: u8) -> Ipv4Addr {
    let zone = ZONES.iter().position(|it| *it == zone).unwrap();
    Ipv4Addr::new(10, 1, zone as u8, nth + 1)
}

#[allow(clippy::print_stdout, reason = "what it takes is worth a look")]
pub fn tell(what: &str, after: Duration) {
    println!("{what} after {:.2} s", after.as_secs_f64());
    assert!(after < Duration::from_secs(5), "{what} after {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_zone_gets_no_calls_and_no_call_fails() {
    let mut mesh = Mesh::start().await;
    let began = Instant::now();
    let outside = Caller::start(&mesh.istiod, "outside", "zone-a", "web");
    let inside = Caller::start(&mesh.istiod, "inside", "zone-b", "web");
    let [a0, a1, b0, b1, c0, c1] =
        ["web-zone-a-0", "web-zone-a-1", "web-zone-b-0", "web-zone-b-1", "web-zone-c-0", "web-zone-c-1"];
    for caller in [&outside, &inside] {
        caller.reaches_only(&[a0, a1, b0, b1, c0, c1], began);
    }

    let drained = mesh.drain("zone-b", 0).await;
    tell("zone-b gets no calls", outside.reaches_only(&[a0, a1, c0, c1], drained));
    tell("nor from its own pods", inside.reaches_only(&[a0, a1, c0, c1], drained));

    let [b2, b3] = ["web-zone-b-2", "web-zone-b-3"];
    mesh.pod("zone-b", 2);
    outside.reaches_only(&[a0, a1, b2, c0, c1], drained);
    let drained = mesh.drain("zone-b", 0).await;
    tell("nor does a newcomer", outside.reaches_only(&[a0, a1, c0, c1], drained));

    mesh.unready_pod("zone-b", 3);
    mesh.drain("zone-b", 0).await;
    let ready = Instant::now();
    mesh.ready("zone-b", 3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!outside.answers_since(ready).contains_key(b3), "one that is drained before it is ready gets none at all");

    let shared = mesh.drain("zone-b", 50).await;
    let back: Vec<&str> = [b0, b1, b2, b3].into_iter().filter(|pod| mesh.draining(pod).is_empty()).collect();
    assert_eq!(back.len(), 2, "half of four");
    let expected: Vec<&str> = [&[a0, a1], back.as_slice(), &[c0, c1]].concat();
    tell("a share is back", outside.reaches_only(&expected, shared));

    let undone = mesh.drain("zone-b", 100).await;
    for caller in [&outside, &inside] {
        tell("all are back", caller.reaches_only(&[a0, a1, b0, b1, b2, b3, c0, c1], undone));
    }
    for caller in [outside, inside] {
        assert!(caller.finish() > 500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_drain_stays_theirs_and_headless_services_are_out_of_reach() {
    let mesh = Mesh::start().await;
    let began = Instant::now();
    let caller = Caller::start(&mesh.istiod, "caller", "zone-a", "web");
    mesh.cluster.kubectl(&["label", "pod", "web-zone-b-1", "istio.io/draining=maintenance"]);
    let others = ["web-zone-a-0", "web-zone-a-1", "web-zone-c-0", "web-zone-c-1"];
    let with_b = ["web-zone-a-0", "web-zone-a-1", "web-zone-b-0", "web-zone-c-0", "web-zone-c-1"];
    caller.reaches_only(&with_b, began);

    let drained = mesh.drain("zone-b", 0).await;
    caller.reaches_only(&others, drained);
    assert_eq!([mesh.draining("web-zone-b-0"), mesh.draining("web-zone-b-1")], ["zoneward", "maintenance"]);
    let undone = mesh.drain("zone-b", 100).await;
    caller.reaches_only(&with_b, undone);
    assert_eq!([mesh.draining("web-zone-b-0"), mesh.draining("web-zone-b-1")], ["", "maintenance"]);

    // Callers choose the address of a headless service's pod themselves: there are no endpoints to leave a pod out of.
    assert_eq!(caller.discovery_of("web").await, "EDS");
    assert_eq!(caller.discovery_of("web-peers").await, "ORIGINAL_DST");
    caller.finish();
}

/// The other way, which the config map that `SHARED_MESH_CONFIG` names opens: weights by zone for the whole mesh.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_the_shared_mesh_config_leaves_out_gets_no_calls() {
    let mesh = Mesh::start().await;
    let began = Instant::now();
    let caller = Caller::start(&mesh.istiod, "caller", "zone-b", "web");
    let all: Vec<String> = ZONES.iter().flat_map(|zone| [pod(zone, 0), pod(zone, 1)]).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    caller.reaches_only(&all, began);
    assert!(!mesh.istiod.mesh_config().contains("distribute"), "{}", mesh.istiod.mesh_config());

    let distribute = format!(
        "localityLbSetting: {{distribute: [{{from: '*', to: {{'{REGION}/zone-a/*': 50, '{REGION}/zone-c/*': 50}}}}]}}"
    );
    let written = Instant::now();
    configure_mesh(&mesh.cluster, SHARED_MESH_CONFIG, &distribute);
    tell("zone-b has no weight", caller.reaches_only(&[all[0], all[1], all[4], all[5]], written));
    assert!(mesh.istiod.mesh_config().contains("distribute"), "{}", mesh.istiod.mesh_config());

    let written = Instant::now();
    configure_mesh(&mesh.cluster, SHARED_MESH_CONFIG, "");
    tell("every zone is as before", caller.reaches_only(&all, written));
    caller.finish();
}
