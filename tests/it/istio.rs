//! A mesh on a real istiod: Envoys as clients that get clusters and endpoints from it, and pods that answer HTTP.
//!
//! Envoy here lacks Istio's own filters, so its listener and route are its own, and what Istio configures without them are
//! clusters and endpoints. No pod has a network: a library between Envoy and libc (tests/istio/loopback.c) connects it to
//! 127.1.x.y in place of 10.1.x.y, as an endpoint slice may have no loopback address.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, Daemon, isolated};
use crate::support::{eventually, free_address, get, root};

pub const REGION: &str = "region-1";
/// Of istiod's own, for what the administrators of the mesh leave to another.
pub const SHARED_MESH_CONFIG: &str = "zoneward-mesh";
const OWN_NAMESPACE: &str = "istio-system";
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Istiod {
    _daemon: Daemon,
    http: SocketAddr,
    xds: SocketAddr,
    _folder: TempDir,
}

impl Istiod {
    /// No CA, hence no mTLS, and no webhooks: all it does is to configure proxies.
    pub fn start(cluster: &Cluster) -> Self {
        cluster.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {OWN_NAMESPACE}}}}}"));
        configure_mesh(cluster, "istio", "enableAutoMtls: false");
        let (http, xds, monitoring) = (free_address(), free_address(), free_address());
        let folder = tempfile::tempdir().unwrap();
        let mut command = isolated("istiod", folder.path());
        command
            .arg("discovery")
            .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
            .arg(format!("--httpAddr={http}"))
            .arg(format!("--grpcAddr={xds}"))
            .arg(format!("--monitoringAddr={monitoring}"))
            .args(["--httpsAddr=", "--secureGRPCAddr=", "--ctrlz_address=127.0.0.1", "--ctrlz_port=0"])
            .env("POD_NAMESPACE", OWN_NAMESPACE)
            .env("POD_NAME", "istiod")
            .env("SHARED_MESH_CONFIG", SHARED_MESH_CONFIG)
            .envs(["ENABLE_CA_SERVER", "INJECT_ENABLED", "PILOT_ENABLE_METADATA_EXCHANGE"].map(|name| (name, "false")))
            .env("PILOT_CERT_PROVIDER", "none");
        let mut daemon = Daemon::start(&mut command, folder.path().join("istiod.log"));
        daemon.wait_until(|| get(http, "/ready").is_some_and(|(status, _)| status == 200));
        Self { _daemon: daemon, http, xds, _folder: folder }
    }

    /// Where it tells what it does.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The mesh configuration in force.
    pub fn mesh_config(&self) -> String {
        get(self.http, "/debug/mesh").unwrap().1
    }
}

/// Writes one of the config maps that istiod reads its mesh configuration from.
pub fn configure_mesh(cluster: &Cluster, name: &str, yaml: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": OWN_NAMESPACE},
        "data": {"mesh": yaml}});
    cluster.apply(&object.to_string());
}

/// A process of a pod, which answers with the pod's name.
pub struct Server {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `pod` is its address as the cluster knows it; port 0 is any.
    pub fn start(name: &str, pod: Ipv4Addr, port: u16) -> Self {
        let [_, _, x, y] = pod.octets();
        let listener = TcpListener::bind((Ipv4Addr::new(127, 1, x, y), port)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (Arc::clone(&stop), name.to_owned());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !stopped.load(Ordering::Relaxed)) {
                let (Ok(stream), name) = (stream, name.clone()) else { continue };
                std::thread::spawn(move || answer(stream, &name));
            }
        });
        Self { stop, address, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
        let _gone = self.thread.take().map(JoinHandle::join);
    }
}

/// Until the caller hangs up. Requests have no body.
fn answer(mut stream: TcpStream, name: &str) {
    let mut buffer = [0; 4096];
    let mut request = Vec::new();
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        request.extend_from_slice(&buffer[..length]);
        while let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            request.drain(..end + 4);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Who answered a request that began then, if anybody did.
struct Call {
    began: Instant,
    answered_by: Result<String, String>,
}

/// A pod that calls one service through its Envoy, hundreds of times a second, without retries.
pub struct Caller {
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    admin: SocketAddr,
    _envoy: Daemon,
    _folder: TempDir,
}

impl Caller {
    pub fn start(istiod: &Istiod, name: &str, zone: &str, service: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listen, admin) = (free_address(), free_address());
        let bootstrap = bootstrap(istiod, name, zone, service, listen, admin);
        std::fs::write(folder.path().join("envoy.json"), bootstrap.to_string()).unwrap();
        let mut command = isolated("envoy", folder.path());
        command
            .args(["--config-path", "envoy.json", "--concurrency", "1", "--log-level", "warning"])
            .arg("--disable-hot-restart")
            .env("LD_PRELOAD", loopback(&folder));
        let mut envoy = Daemon::start(&mut command, folder.path().join("envoy.log"));
        envoy.wait_until(|| get(listen, "/").is_some_and(|(status, _)| status == 200));

        let calls = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (made, stopped) = (Arc::clone(&calls), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answered_by = match get(listen, "/") {
                    Some((200, name)) => Ok(name),
                    other => Err(format!("{other:?}")),
                };
                made.lock().unwrap().push(Call { began, answered_by });
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { calls, stop, thread: Some(thread), admin, _envoy: envoy, _folder: folder }
    }

    /// Who answered how many of the calls since then. No call may fail.
    pub fn answers_since(&self, since: Instant) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for call in self.calls.lock().unwrap().iter().filter(|call| call.began >= since) {
            let name = call.answered_by.as_ref().unwrap_or_else(|e| panic!("a call failed: {e}"));
            *answers.entry(name.clone()).or_default() += 1;
        }
        answers
    }

    /// Waits until exactly these answer, for so long that another would have been seen. Returns how long after `since` the
    /// last other one did, or the last of these did for the first time.
    pub fn reaches_only(&self, pods: &[&str], since: Instant) -> Duration {
        const WINDOW: Duration = Duration::from_secs(2);
        eventually(&format!("calls reach {pods:?}"), PATIENCE, || {
            let answers = self.answers_since(Instant::now().checked_sub(WINDOW)?);
            let calls: usize = answers.values().sum();
            (calls > 12 * pods.len() && answers.keys().eq(pods)).then_some(())
        });
        let calls = self.calls.lock().unwrap();
        let names = |call: &Call| call.answered_by.clone().unwrap_or_default();
        let after: Vec<&Call> = calls.iter().filter(|call| call.began >= since).collect();
        let last_other = after.iter().rfind(|call| !pods.contains(&names(call).as_str()));
        let firsts = pods.iter().filter_map(|pod| after.iter().find(|call| names(call) == **pod));
        firsts.chain(last_other).map(|call| call.began - since).max().unwrap_or_default()
    }

    /// Waits until no call is answered.
    pub fn loses_all(&self) {
        eventually("every call fails", PATIENCE, || {
            let calls = self.calls.lock().unwrap();
            let mut last = calls.iter().rev().take(3);
            last.all(|call| call.answered_by.is_err()).then_some(())
        });
    }

    /// How Envoy finds the endpoints of a service, as istiod told it.
    pub async fn discovery_of(&self, service: &str) -> String {
        let dump: Value =
            reqwest::get(format!("http://{}/config_dump", self.admin)).await.unwrap().json().await.unwrap();
        let dumps = dump["configs"].as_array().unwrap().iter();
        let mut clusters = dumps.flat_map(|it| it["dynamic_active_clusters"].as_array().cloned().unwrap_or_default());
        let found = clusters.find(|it| it["cluster"]["name"] == cluster_name(service)).unwrap();
        found["cluster"]["type"].as_str().unwrap().to_owned()
    }

    /// How many calls there were, all of them answered.
    pub fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let calls = self.calls.lock().unwrap();
        let failed: Vec<&String> = calls.iter().filter_map(|call| call.answered_by.as_ref().err()).collect();
        assert!(failed.is_empty(), "{} of {} calls failed: {:?}", failed.len(), calls.len(), failed.first());
        calls.len()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn bootstrap(istiod: &Istiod, name: &str, zone: &str, service: &str, listen: SocketAddr, admin: SocketAddr) -> Value {
    let address = |it: SocketAddr| json!({"socket_address": {"address": it.ip(), "port_value": it.port()}});
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster_name(service)}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "http_protocol_options": {"accept_http_10": true},
        "route_config": {"validate_clusters": false, "virtual_hosts": [{"name": service, "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    json!({
        "node": {
            "id": format!("sidecar~10.1.255.1~{name}.default~default.svc.cluster.local"),
            "cluster": format!("{name}.default"),
            "locality": {"region": REGION, "zone": zone},
            "metadata": {"NAMESPACE": "default", "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.31.0"},
        },
        "admin": {"address": address(admin)},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "istiod"}}]},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        // Should the library be missing, nothing leaves this machine for a pod's address.
        "cluster_manager": {"upstream_bind_config": {"source_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "clusters": [{
                "name": "istiod",
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}},
                "load_assignment": {"cluster_name": "istiod",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(istiod.xds)}}]}]},
            }],
            "listeners": [{"name": "calls", "address": address(listen), "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        },
    })
}

/// As Istio names what a service's callers balance over.
fn cluster_name(service: &str) -> String {
    format!("outbound|80||{service}.default.svc.cluster.local")
}

fn loopback(folder: &TempDir) -> PathBuf {
    let library = folder.path().join("loopback.so");
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(root().join("tests/istio/loopback.c"))
        .arg("-ldl");
    assert!(command.status().unwrap().success(), "{command:?}");
    library
}
