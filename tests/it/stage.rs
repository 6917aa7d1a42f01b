//! A cluster in three zones, a name server, and the daemon with its least rights: what acting is tested on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::bind::{Bind, KEY_NAME};
use crate::cluster::Cluster;
use crate::support::{Process, eventually, free_address, root, stderr, stdout, strip, zoneward};

/// The account that deploy/rbac.yaml is for.
pub const ACCOUNT: &str = "zoneward";
pub const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
pub const NAME: &str = "api.example.org.";

pub struct Stage {
    pub cluster: Cluster,
    pub bind: Bind,
    folder: TempDir,
}

impl Stage {
    /// Two nodes and two ready pods of `web` in each zone.
    pub fn new() -> Self {
        let cluster = Cluster::start_with_users(&[ACCOUNT]);
        let records = ["api 60 IN A 192.0.2.1", "api 60 IN A 192.0.2.2", "api 60 IN A 192.0.2.3"];
        let stage = Self { cluster, bind: Bind::start("example.org.", &records), folder: tempfile::tempdir().unwrap() };
        stage.cluster.apply(&std::fs::read_to_string(root().join("deploy/crd.yaml")).unwrap());
        stage.grant();
        stage.service("web", "{clusterIP: 10.0.0.10, selector: {app: web}, ports: [{port: 80}]}");
        for zone in ZONES {
            for nth in 0..2 {
                stage.cluster.node(&format!("{zone}-{nth}"), zone);
                stage.pod(&format!("web-{zone}-{nth}"), "web", &format!("{zone}-{nth}"), "{}");
            }
        }
        stage
    }

    /// deploy/rbac.yaml, for a user instead of a service account.
    fn grant(&self) {
        let rbac = std::fs::read_to_string(root().join("deploy/rbac.yaml")).unwrap();
        let account = "{kind: ServiceAccount, name: zoneward, namespace: zoneward}";
        let user = format!("{{kind: User, name: {ACCOUNT}, apiGroup: rbac.authorization.k8s.io}}");
        assert_eq!(rbac.matches(account).count(), 7);
        self.cluster.apply(&rbac.replace(account, &user));
    }

    /// The block that is only for `steps.mesh_distribute`, for that user.
    pub fn grant_weights(&self) {
        let rbac = std::fs::read_to_string(root().join("deploy/rbac.yaml")).unwrap();
        let (_, block) = rbac.split_once("managed-by: zoneward.\n").unwrap();
        let block = block.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap())).collect::<String>();
        let account = "{kind: ServiceAccount, name: zoneward, namespace: zoneward}";
        let user = format!("{{kind: User, name: {ACCOUNT}, apiGroup: rbac.authorization.k8s.io}}");
        assert_eq!(block.matches(account).count(), 2);
        self.cluster.apply(&block.replace(account, &user));
    }

    pub fn service(&self, name: &str, spec: &str) {
        self.cluster.apply(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {spec}}}"));
    }

    /// A ready pod, as a kubelet would report it.
    pub fn pod(&self, name: &str, app: &str, node: &str, annotations: &str) {
        self.cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {app}}}, annotations: {annotations}}}, \
             spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: app, image: app}}, \
             {{name: istio-proxy, image: proxy}}]}}}}"
        ));
        self.ready(name, true);
    }

    pub fn ready(&self, pod: &str, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = format!(
            r#"{{"status": {{"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{{"ip": "10.1.0.1"}}],
            "conditions": [{{"type": "Ready", "status": "{status}"}}]}}}}"#
        );
        self.cluster.kubectl(&["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    /// Metrics are nowhere: people act with `stale-data` overridden, and what expires comes back without evidence.
    pub fn config(&self) -> PathBuf {
        self.config_of("config.yaml", self.bind.address())
    }

    /// The same, with the name server elsewhere.
    pub fn config_of(&self, name: &str, name_server: SocketAddr) -> PathBuf {
        let text = format!(
            "mode: enforce\n\
             prometheus: {{url: 'http://127.0.0.1:1', history: 1m}}\n\
             guard: {{cool_down: 1h}}\n\
             recovery: {{mode: timer}}\n\
             kubernetes: {{namespace: zoneward}}\n\
             steps:\n  mesh_istio: {{}}\n  taint: {{}}\n  dns_rfc2136:\n    server: {server}\n    zone: example.org.\n    \
             key_name: {KEY_NAME}\n    key_file: {key}\n    timeout: 2s\n    records:\n    - name: {NAME}\n      addresses: \
             {{zone-a: [192.0.2.1], zone-b: [192.0.2.2], zone-c: [192.0.2.3]}}\n",
            server = name_server,
            key = self.bind.key_file().display(),
        );
        self.write(name, &text)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The daemon, with the rights of deploy/rbac.yaml and no more.
    pub fn daemon(&self, name: &str) -> Process {
        self.daemon_with(name, &self.config())
    }

    pub fn daemon_with(&self, name: &str, config: &Path) -> Process {
        self.daemon_through(name, config, &self.cluster.kubeconfig_of(ACCOUNT))
    }

    pub fn daemon_through(&self, name: &str, config: &Path, kubeconfig: &Path) -> Process {
        self.start(name, "", config, kubeconfig)
    }

    /// One that runs on that node.
    pub fn daemon_on(&self, node: &str, name: &str, config: &Path) -> Process {
        self.start(name, node, config, &self.cluster.kubeconfig_of(ACCOUNT))
    }

    fn start(&self, name: &str, node: &str, config: &Path, kubeconfig: &Path) -> Process {
        let address = free_address();
        // A file that may grow no more is an error to it, and not its end.
        let mut command = Command::new("sh");
        command
            .current_dir(root())
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_zoneward")])
            .arg("run")
            .arg("--config")
            .arg(config)
            .arg("--audit-directory")
            .arg(self.path(name))
            .env("KUBECONFIG", kubeconfig)
            .env_remove("RUST_LOG")
            .env("HOSTNAME", name)
            .env("NODE_NAME", node)
            .env("ZONEWARD_SERVE__LISTEN", address.to_string())
            .stderr(std::fs::File::create(self.path(&format!("{name}.log"))).unwrap());
        Process::start(&mut command, address, "/healthz")
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Waits until the replica acts.
    pub fn leads(&self, name: &str) {
        eventually("it leads", Duration::from_mins(1), || self.log(name).contains("this replica leads").then_some(()));
    }

    /// A person at the command line.
    pub fn person(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = zoneward();
        command.args(&arguments[..1]).arg("--config").arg(self.config()).args(&arguments[1..]);
        command.env("KUBECONFIG", self.cluster.kubeconfig()).stdin(Stdio::null());
        command
    }

    pub fn said(&self, arguments: &[&str]) -> String {
        let output = self.person(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    }

    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.person(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
        stderr(&output)
    }

    /// As `kubectl get` has it, and sooner where it is often asked for.
    pub fn get(&self, arguments: &[&str]) -> Value {
        if let Some(path) = path(arguments) {
            return self.cluster.read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        let text = self.cluster.kubectl(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Names of pods that carry the label.
    pub fn drained(&self) -> Vec<String> {
        self.names(&["pods", "-A", "-l", "istio.io/draining=zoneward"])
    }

    pub fn names(&self, arguments: &[&str]) -> Vec<String> {
        let items = self.get(arguments)["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn tainted(&self) -> Vec<String> {
        let nodes = self.get(&["nodes"])["items"].as_array().unwrap().clone();
        let ours = |node: &&Value| node["spec"]["taints"].to_string().contains("zoneward.io/isolated");
        nodes.iter().filter(ours).map(|node| node["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn addresses(&self) -> Vec<String> {
        let lines = self.bind.dig(NAME, "A");
        lines.iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    }

    /// Whether the zone is out in every way, and no other in any: two pods, two nodes, one address.
    pub fn is_out(&self, zone: &str) -> bool {
        let of_zone = |kind: &str| vec![format!("{kind}{zone}-0"), format!("{kind}{zone}-1")];
        let address = format!("192.0.2.{}", ZONES.iter().position(|it| *it == zone).unwrap() + 1);
        let left: Vec<String> = (1..=3).map(|i| format!("192.0.2.{i}")).filter(|it| *it != address).collect();
        self.drained() == of_zone("web-") && self.tainted() == of_zone("") && self.addresses() == left
    }

    pub fn is_clean(&self) -> bool {
        self.drained().is_empty() && self.tainted().is_empty() && self.addresses().len() == 3
    }

    /// Nodes and pods as they are, but for versions and times.
    pub fn everything(&self) -> Value {
        let mut all = vec![self.get(&["nodes"]), self.get(&["pods", "-A"])];
        all.iter_mut().for_each(strip);
        serde_json::json!(all)
    }

    pub fn isolation(&self, zone: &str) -> Option<Value> {
        self.cluster.read(&path(&["zoneisolations", zone])?).ok()
    }

    pub fn condition(&self, zone: &str, type_: &str) -> Option<(String, String, String)> {
        let object = self.isolation(zone)?;
        let conditions = object["status"]["conditions"].as_array()?.clone();
        let found = conditions.into_iter().find(|condition| condition["type"] == type_)?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// A `ZoneIsolation` as a person would apply it; `more` goes into the spec.
    pub fn apply_isolation(&self, zone: &str, expires_in: Duration, more: &str) {
        let expires = Self::in_future(expires_in);
        self.cluster.apply(&format!(
            "{{apiVersion: zoneward.io/v1alpha1, kind: ZoneIsolation, metadata: {{name: {zone}}}, \
             spec: {{reason: 'a test', expiresAt: '{expires}', overrides: [stale_data]{more}}}}}"
        ));
    }

    #[allow(clippy::disallowed_methods, reason = "a test that lives in real time")]
    pub fn in_future(span: Duration) -> String {
        (jiff::Timestamp::now() + span).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

fn path(arguments: &[&str]) -> Option<String> {
    let (kind, rest) = arguments.split_first()?;
    let prefix = match *kind {
        "nodes" | "pods" | "services" | "namespaces" | "configmaps" | "events" => format!("/api/v1/{kind}"),
        "endpointslices" => format!("/apis/discovery.k8s.io/v1/{kind}"),
        "zoneisolation" | "zoneisolations" => "/apis/zoneward.io/v1alpha1/zoneisolations".to_owned(),
        "zones.zoneward.io" => "/apis/zoneward.io/v1alpha1/zones".to_owned(),
        _ => return None,
    };
    let in_no_namespace = *kind == "nodes" || prefix.contains("zoneward.io");
    match rest {
        ["-A"] => Some(prefix),
        [] if in_no_namespace => Some(prefix),
        ["-A", "-l", selector] => Some(format!("{prefix}?labelSelector={selector}")),
        ["-n", namespace] if *kind == "events" => Some(format!("/api/v1/namespaces/{namespace}/events")),
        [name] if in_no_namespace => Some(format!("{prefix}/{name}")),
        _ => None,
    }
}
