//! The documents: each command that they give is run as it stands there, one document after the other, on a mesh with a past, a
//! cluster and a daemon; and each alert has its page in the runbook.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::backfill::{backfill, samples, story};
use crate::cluster::Cluster;
use crate::live::mesh_of;
use crate::support::{Process, eventually, free_address, part, prometheus, root, stderr, stdout, zoneward};

const DOCUMENTS: [&str; 5] =
    ["deploy/alibaba/README.md", "README.md", "config/README.md", "deploy/RUNBOOK.md", "deploy/README.md"];

/// What runs elsewhere, by how it begins, and where.
const ELSEWHERE: [(&str, &str); 13] = [
    ("cargo run --release -- demo", "scenarios.rs tells its story"),
    ("make test", "this is it"),
    ("make e2e", "CI runs it"),
    ("make image", "there is no Docker; `make e2e` runs the executable in an empty root"),
    ("zoneward run", "the daemon of this test, and of many"),
    ("zoneward demo --export", "the mesh of this test"),
    ("kubectl -n zoneward exec", "no kubelet runs pods here; the same `check` runs outside"),
    ("kubectl -n zoneward port-forward", "no kubelet runs pods here; live.rs looks at the page of a daemon"),
    ("kubectl create namespace zoneward", "deploy.rs"),
    ("helm install", "deploy.rs"),
    ("kubectl apply --server-side -k .", "deploy.rs"),
    ("kubectl apply -f deploy/uninstall.yaml", "deploy.rs"),
    ("kubectl delete -f deploy/daemon.yaml", "deploy.rs"),
];

/// Healthy, and scraped every second.
const MESH: &str = "
title: A healthy mesh, live
zones: [cn-hangzhou-g, cn-hangzhou-h, cn-hangzhou-k]
services:
  - {name: mocka, errors: 0.1%, median_ms: 4}
  - {name: mockb, errors: 0.1%, median_ms: 5}
requests_per_second: 300
history: 10s
scrape_interval: 1s
duration: 1h
faults: []
expect: {users_succeed: 99%}
";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in the shell blocks of a document: a command a line, or more where one goes on.
fn commands(path: &str) -> Vec<String> {
    let (mut found, mut inside, mut begun) = (Vec::new(), false, String::new());
    for line in read(path).lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => match line.strip_suffix('\\') {
                Some(part) => begun += part,
                None if begun.is_empty() && (line.trim().is_empty() || line.starts_with('#')) => {}
                // Within quotes a command goes on.
                None if (begun.clone() + line.split(" # ").next().unwrap()).matches('\'').count() % 2 == 1 => {
                    begun = format!("{begun}{line}\n");
                }
                None => found.push(std::mem::take(&mut begun) + line),
            },
            _ => {}
        }
    }
    assert!(!inside && begun.is_empty(), "{path}: a block does not end");
    found
}

/// A reader's machine.
struct Desk {
    folder: TempDir,
    environment: BTreeMap<&'static str, String>,
    daemon: Process,
    _mesh: Process,
    _prometheus: Process,
    _cluster: Cluster,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let past = story("gray-zone.yaml").replace("duration: 25m", "duration: 9m");
        backfill(folder.path(), &samples(&past, Default::default()).0);
        let mesh = mesh_of(folder.path(), MESH);
        let jobs =
            format!("[{{job_name: mesh, http_sd_configs: [{{url: '{}/targets', refresh_interval: 5s}}]}}]", mesh.url());
        let prometheus = prometheus(3, folder.path(), &format!("scrape_configs: {jobs}"));
        let cluster = Cluster::start();
        cluster.apply(&read("deploy/crd.yaml"));
        cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: zoneward}}");
        cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}");
        cluster.apply(
            "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: \
             telemetries.telemetry.istio.io}, spec: {group: telemetry.istio.io, names: {kind: Telemetry, plural: telemetries}, \
             scope: Namespaced, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, \
             x-kubernetes-preserve-unknown-fields: true}}}]}}",
        );
        cluster.apply(
            "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}",
        );
        for zone in ["cn-hangzhou-g", "cn-hangzhou-h", "cn-hangzhou-k"] {
            cluster.node(zone, zone);
            cluster.apply(&format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: web-{zone}, labels: {{app: web}}}}, spec: {{nodeName: {zone}, \
                 containers: [{{name: app, image: app}}, {{name: istio-proxy, image: proxy}}]}}}}"
            ));
            let ready = r#"{"status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}]}}"#;
            let pod = format!("web-{zone}");
            cluster.kubectl(&["patch", "pod", &pod, "--subresource=status", "--type=merge", "-p", ready]);
        }
        for name in ["config", "deploy"] {
            std::os::unix::fs::symlink(root().canonicalize().unwrap().join(name), path(name)).unwrap();
        }
        std::fs::write(path("mine.yaml"), "service: {trip: 12 nats}\n").unwrap();
        std::fs::create_dir(path("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_zoneward"), path("bin/zoneward")).unwrap();
        std::os::unix::fs::symlink(part("kubectl"), path("bin/kubectl")).unwrap();
        let address = free_address();
        let environment: BTreeMap<&'static str, String> = [
            ("KUBECONFIG", cluster.kubeconfig().display().to_string()),
            ("HOME", folder.path().display().to_string()),
            ("PATH", format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap())),
            ("ZONEWARD_PROMETHEUS__URL", prometheus.url()),
            ("ZONEWARD_PROMETHEUS__HISTORY", "5m".to_owned()),
            ("ZONEWARD_DETECT__CYCLE", "2s".to_owned()),
            ("ZONEWARD_GUARD__COOL_DOWN", "0s".to_owned()),
            ("ZONEWARD_MODE", "enforce".to_owned()),
        ]
        .into();
        let mut daemon = zoneward();
        daemon.current_dir(folder.path()).args(["run", "--audit-directory", "./audit"]).envs(&environment);
        daemon.env("ZONEWARD_SERVE__LISTEN", address.to_string());
        daemon.stderr(std::fs::File::create(path("daemon.log")).unwrap());
        let daemon = Process::start(&mut daemon, address, "/healthz");
        let desk = Self { folder, environment, daemon, _mesh: mesh, _prometheus: prometheus, _cluster: cluster };
        desk.wait_until_it_acts_and_knows_every_zone();
        desk
    }

    fn wait_until_it_acts_and_knows_every_zone(&self) {
        let healthy =
            |text: &str| text.matches("verdict=\"healthy\"} 1").count() == 3 && text.contains("zoneward_leader 1");
        eventually("it acts, and every zone is healthy", Duration::from_mins(2), || {
            healthy(&self.daemon.get("/metrics").1).then_some(())
        });
    }

    /// As it stands there, but for the address of Prometheus and the folder.
    fn run(&self, command: &str) -> Result<(), String> {
        let here = command.replace("http://localhost:9090", &self.environment["ZONEWARD_PROMETHEUS__URL"]);
        let mut shell = Command::new("bash");
        shell.current_dir(self.folder.path()).args(["-c", &here]).envs(&self.environment);
        if command.contains("--start") {
            // The past was scraped as usual.
            shell.env_remove("ZONEWARD_DETECT__CYCLE");
        }
        let output = shell.output().unwrap();
        // These two find out what is wrong, and here something is.
        let looks = ["zoneward check", "zoneward preflight"].iter().any(|look| command.starts_with(look));
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) if looks && !stdout(&output).is_empty() => Ok(()),
            code => Err(format!("`{command}` ends with {code:?}: {}{}", stdout(&output), stderr(&output))),
        }
    }
}

#[test]
fn every_command_of_the_documents_works_as_it_stands_there() {
    let desk = Desk::new();
    let (mut unused, mut ran, mut failed): (BTreeSet<&str>, usize, Vec<String>) =
        (ELSEWHERE.iter().map(|(begins, _)| *begins).collect(), 0, Vec::new());
    for document in DOCUMENTS {
        for command in commands(document) {
            if let Some((begins, _)) = ELSEWHERE.iter().find(|(begins, _)| command.starts_with(begins)) {
                unused.remove(begins);
                continue;
            }
            ran += 1;
            failed.extend(desk.run(&command).err().map(|why| format!("{document}: {why}")));
        }
        desk.run("zoneward resume").unwrap();
    }
    let log = std::fs::read_to_string(desk.folder.path().join("daemon.log")).unwrap();
    assert!(failed.is_empty(), "{}\nThe daemon: {log}", failed.join("\n"));
    assert!(ran > 30, "{ran} commands");
    assert_eq!(unused, BTreeSet::new(), "no document gives these any more");
}

#[test]
fn the_runbook_has_a_page_for_each_alert_and_none_for_others() {
    let runbook = read("deploy/RUNBOOK.md");
    let pages: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let rules = read("deploy/alerts.yaml");
    let of_prometheus = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let of_prometheus = of_prometheus.map(|rest| rest.split(' ').next().unwrap());
    let told = read("README.md");
    let of_notify = told.lines().filter_map(|line| line.strip_prefix("| `Zoneward")?.split('`').next());
    let of_notify: BTreeSet<String> = of_notify.map(|name| format!("Zoneward{name}")).collect();
    assert_eq!(of_notify.len(), 8, "as src/notify/alerts.rs has them");
    let alerts: BTreeSet<&str> = of_prometheus.chain(of_notify.iter().map(String::as_str)).collect();
    assert_eq!(pages, alerts);
    for page in runbook.split("### ").skip(1) {
        for part in ["**Means**", "**Look at**", "**Do**"] {
            assert!(page.contains(part), "{part} of {}", page.lines().next().unwrap_or_default());
        }
    }
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    for document in DOCUMENTS.iter().chain(&["deploy/webhook.md"]) {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let Some(path) = link.split('#').next().filter(|path| !path.is_empty() && !path.contains("://")) else {
                continue;
            };
            assert!(folder.join(path).exists(), "{document} leads to {path}");
        }
    }
}
