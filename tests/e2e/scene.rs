//! What every story on real parts is set up from, and how it looks from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use serde_json::Value;
use zoneward::domain::Zone;

use crate::bind::Bind;
use crate::cluster::Cluster;
use crate::mesh;
use crate::support::{root, strip};

/// The name of the load balancer.
pub const NAME: &str = "api.example.org.";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// One address a zone.
pub fn addresses<'a>(zones: &[&'a str]) -> BTreeMap<String, &'a str> {
    (1..).map(|i| format!("192.0.2.{i}")).zip(zones.iter().copied()).collect()
}

pub fn name_server(zones: &[&str]) -> Bind {
    let records: Vec<String> = addresses(zones).keys().map(|ip| format!("api 5 IN A {ip}")).collect();
    Bind::start("example.org.", &records.iter().map(String::as_str).collect::<Vec<_>>())
}

/// With zoneward's resources, two nodes a zone, and gateways.
pub fn cluster(zones: &[&str]) -> Cluster {
    let mut cluster = Cluster::start();
    cluster.controllers();
    cluster.apply(&std::fs::read_to_string(root().join("deploy/crd.yaml")).unwrap());
    cluster.apply(&std::fs::read_to_string(root().join("deploy/rbac.yaml")).unwrap());
    for zone in zones {
        for nth in 0..2 {
            cluster.node(&format!("node-{zone}-{nth}"), zone);
        }
        cluster.apply(&deployment("istio-ingressgateway", zone, 1));
    }
    cluster.apply(&service("istio-ingressgateway"));
    cluster
}

/// The three services of the stories in every zone.
pub fn workloads(zones: &[&str], replicas: usize) -> String {
    let mut manifests = Vec::new();
    for app in ["mocka", "mockb", "mockc"] {
        manifests.push(service(app));
        manifests.extend(zones.iter().map(|zone| deployment(app, zone, replicas)));
    }
    manifests.join("\n---\n")
}

/// The process that plays the mesh.
pub struct Mesh(Child);

impl Mesh {
    /// Waits until its pods run; then time begins. Returns when the scenario's first fault begins.
    pub fn start(
        scenario: &Path,
        scraped_at: std::net::SocketAddr,
        cast: (&Cluster, &Bind),
        zones: &[&str],
        pods: usize,
    ) -> (Self, Timestamp) {
        let (cluster, bind) = cast;
        let addresses: Vec<String> = addresses(zones).iter().map(|(ip, zone)| format!("{ip}={zone}")).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("mesh")
            .arg(scenario)
            .args([scraped_at.to_string(), bind.address().to_string(), pods.to_string(), addresses.join(",")])
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let fault = line.trim().parse().unwrap_or_else(|e| panic!("the mesh did not start: {e}"));
        (Self(child), fault)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// What the process of `Mesh` is told on its command line.
pub fn told(arguments: &[String]) -> mesh::Told {
    let addresses = arguments[4].split(',').map(|pair| pair.split_once('=').unwrap());
    mesh::Told {
        scenario: arguments[0].clone(),
        listen: arguments[1].parse().unwrap(),
        name_server: arguments[2].parse().unwrap(),
        name: NAME.to_owned(),
        addresses: addresses.map(|(address, zone)| (address.to_owned(), Zone::new(zone))).collect(),
        pods: arguments[3].parse().unwrap(),
    }
}

/// Whole objects, but for versions and times.
pub fn everything(cluster: &Cluster) -> Result<Value, String> {
    let of = |path: &str| -> Result<Value, String> {
        let mut list = cluster.read(path)?;
        strip(&mut list);
        Ok(list["items"].take())
    };
    Ok(serde_json::json!({
        "nodes": of("/api/v1/nodes")?,
        "pods": of("/api/v1/namespaces/default/pods")?,
        "services": of("/api/v1/namespaces/default/services")?,
    }))
}

/// Zones that carry a mark of an isolation, on nodes, pods or by a missing address.
pub fn marked(everything: &Value, listed: &[String], zones: &[&str]) -> BTreeSet<String> {
    let (nodes, pods) = (everything["nodes"].as_array().unwrap(), everything["pods"].as_array().unwrap());
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let zone = |node: &Value| node["metadata"]["labels"][ZONE_LABEL].as_str().unwrap_or_default().to_owned();
    let zone_of: BTreeMap<String, String> = nodes.iter().map(|node| (name(node), zone(node))).collect();
    let tainted = nodes.iter().filter(|node| {
        node["spec"]["taints"]
            .as_array()
            .is_some_and(|all| all.iter().any(|taint| taint["key"] == "zoneward.io/isolated"))
    });
    let drained = pods.iter().filter(|pod| pod["metadata"]["labels"]["istio.io/draining"] == "zoneward");
    let mut marked: BTreeSet<String> = tainted.map(zone).collect();
    marked.extend(drained.filter_map(|pod| zone_of.get(pod["spec"]["nodeName"].as_str()?).cloned()));
    let addresses = addresses(zones);
    let missing = addresses.iter().filter(|(ip, _)| !listed.iter().any(|line| line.rsplit(' ').next() == Some(ip)));
    marked.extend(missing.map(|(_, zone)| (*zone).to_owned()));
    marked
}

/// The steps that every story takes, in the daemon's configuration.
pub fn dns_step(bind: &Bind, zones: &[&str]) -> String {
    let zones: Vec<String> = addresses(zones).iter().map(|(ip, zone)| format!("{zone}: [{ip}]")).collect();
    format!(
        "steps:\n  dns_rfc2136:\n    server: {server}\n    zone: example.org.\n    key_name: {name}\n    key_file: {key}\n    \
         records:\n    - {{name: {NAME}, addresses: {{{zones}}}}}\n",
        server = bind.address(),
        name = crate::bind::KEY_NAME,
        key = bind.key_file().display(),
        zones = zones.join(", "),
    )
}

pub fn service(app: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {app}}}, \
         spec: {{selector: {{app: {app}}}, ports: [{{name: http, port: 8000}}]}}}}"
    )
}

pub fn deployment(app: &str, zone: &str, replicas: usize) -> String {
    workload(&format!("{app}-{zone}"), app, replicas, &format!("nodeSelector: {{{ZONE_LABEL}: {zone}}}, "))
}

pub fn deployment_anywhere(app: &str, replicas: usize) -> String {
    workload(app, app, replicas, "")
}

fn workload(name: &str, app: &str, replicas: usize, place: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: {replicas}, \
         selector: {{matchLabels: {{app: {app}}}}}, template: {{metadata: {{labels: {{app: {app}}}}}, \
         spec: {{{place}terminationGracePeriodSeconds: 0, containers: [{{name: default, image: app}}]}}}}}}}}"
    )
}
