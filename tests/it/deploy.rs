//! deploy/: the chart as the real Helm renders and installs it, the manifests as kustomize builds them, both on a real API
//! server, and the dashboard and alerts by what the daemon says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, TOKEN, isolated};
use crate::support::{eventually, json_lines, part, root, stderr, stdout, text, zoneward};

const SOON: Duration = Duration::from_secs(30);
const RESTRICTED: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: zoneward, labels: \
                          {pod-security.kubernetes.io/enforce: restricted}}}";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// By kind, namespace and name.
type Objects = BTreeMap<(String, String, String), Value>;

fn objects(yaml: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let key = |it: &Value| {
        let metadata = &it["metadata"];
        (text(it, "kind").to_owned(), text(metadata, "namespace").to_owned(), text(metadata, "name").to_owned())
    };
    documents.into_iter().filter(|document| !document.is_null()).map(|document| (key(&document), document)).collect()
}

struct Tools(TempDir);

impl Tools {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn output(&self, part: &str, arguments: &[&str]) -> String {
        let output = isolated(part, self.0.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{part} {arguments:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    }

    fn helm(&self, arguments: &[&str]) -> String {
        self.output("helm", arguments)
    }

    fn render(&self, values: &[&str]) -> Objects {
        let chart = root().join("deploy/chart").display().to_string();
        objects(&self.helm(&[&["template", "zoneward", &chart, "-n", "zoneward"], values].concat()))
    }

    /// A folder that takes deploy/ as its base, with what it has for monitoring.
    fn overlay(&self) -> String {
        let here = self.0.path().canonicalize().unwrap().join("overlay");
        let deploy = root().join("deploy").canonicalize().unwrap();
        let up = "../".repeat(here.components().count() - 1);
        let deploy = format!("{up}{}", deploy.strip_prefix("/").unwrap().display());
        std::fs::create_dir_all(&here).unwrap();
        let text = format!("resources: [{deploy}]\ncomponents: [{deploy}/monitoring]\n");
        std::fs::write(here.join("kustomization.yaml"), text).unwrap();
        here.display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// The specs of all pods that these objects would make.
fn pods(objects: &Objects) -> Vec<(String, Value)> {
    let of = |object: &Value| match text(object, "kind") {
        "CronJob" => Some(object["spec"]["jobTemplate"]["spec"]["template"].clone()),
        "Deployment" | "Job" => Some(object["spec"]["template"].clone()),
        _ => None,
    };
    objects.iter().filter_map(|((_, _, name), object)| Some((name.clone(), of(object)?))).collect()
}

fn find<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|((k, _, n), _)| k == kind && n == name);
    found.map_or_else(|| panic!("no {kind} {name}"), |(_, object)| object)
}

fn config_of(objects: &Objects) -> Value {
    let text = find(objects, "ConfigMap", "zoneward")["data"]["config.yaml"].as_str().unwrap().to_owned();
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn the_chart_and_the_manifests_are_the_same_objects() {
    let tools = Tools::new();
    let with = ["--api-versions", "monitoring.coreos.com/v1", "--set", "rbac.externalDns=true"];
    let mut chart = tools.render(&with);
    let mut plain = objects(&tools.output("kube", &["kubectl", "kustomize", &tools.overlay()]));
    // Helm makes the namespace and runs the job by itself; both read the configuration with or without its comments.
    plain.retain(|(kind, _, _), _| kind != "Namespace");
    plain.append(&mut objects(&read("deploy/uninstall.yaml")));
    assert_eq!(config_of(&chart), config_of(&plain));
    for objects in [&mut chart, &mut plain] {
        let of_config = ("ConfigMap".to_owned(), "zoneward".to_owned(), "zoneward".to_owned());
        objects.get_mut(&of_config).unwrap()["data"].take();
    }
    // What only the chart says: that an uninstall keeps definitions, and that a change of configuration is a roll-out.
    for ((kind, _, _), object) in &mut chart {
        let kept = object["metadata"].as_object_mut().unwrap();
        if kind == "CustomResourceDefinition" {
            assert_eq!(kept.remove("annotations"), Some(json!({"helm.sh/resource-policy": "keep"})));
        }
        if kind == "Deployment" {
            let annotations = object["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap();
            assert!(annotations.remove("checksum/config").is_some());
        }
    }
    assert_eq!(chart.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for (key, object) in &chart {
        assert_eq!(object, &plain[key], "{key:?}");
    }
}

#[test]
fn every_pod_is_outside_the_mesh_runs_anywhere_and_may_do_nothing_on_its_node() {
    let chart = Tools::new().render(&[]);
    let pods = pods(&chart);
    assert_eq!(pods.len(), 3, "the daemon, the watchdog, and the job that cleans up");
    for (name, pod) in pods {
        assert_eq!(pod["metadata"]["annotations"]["sidecar.istio.io/inject"], "false", "{name}");
        let tolerated = pod["spec"]["tolerations"].to_string();
        assert!(tolerated.contains(r#""key":"zoneward.io/isolated","operator":"Exists""#), "{name}: {tolerated}");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
        for wanted in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
            assert!(container["resources"].pointer(wanted).is_some(), "{name}: {wanted}");
        }
    }
}

#[test]
fn values_change_what_they_say() {
    let tools = Tools::new();
    let values = "{config: {mode: enforce, steps: {mesh_istio: null, taint: {}}}, persistence: {enabled: true}, \
                  env: [{name: A, value: b}], volumes: [{name: key, secret: {secretName: key}}], \
                  volumeMounts: [{name: key, mountPath: /key}], podSpec: {priorityClassName: high}, \
                  image: {repository: registry.example.org/zoneward, tag: v9}, monitoring: false, replicas: 3}";
    let values = tools.write("values.yaml", values);
    let chart = root().join("deploy/chart").display().to_string();
    let elsewhere = ["template", "zoneward", &chart, "-n", "elsewhere", "-f", &values];
    let rendered = tools.helm(&[&elsewhere[..], &["--api-versions", "monitoring.coreos.com/v1"]].concat());
    let objects = objects(&rendered);

    // A step that is taken out stays so, and the Lease is in the release's namespace, like the roles.
    let config = config_of(&objects);
    assert_eq!(config["steps"], json!({"mesh_istio": null, "taint": {}}));
    assert_eq!((&config["mode"], &config["kubernetes"]), (&json!("enforce"), &json!({"namespace": "elsewhere"})));
    assert_eq!(config["prometheus"]["url"], "http://prometheus.istio-system:9090");
    let checked = tools.write("config.yaml", &serde_json::to_string(&config).unwrap());
    assert!(zoneward().args(["check", "--config", &checked]).status().unwrap().success());
    assert!(
        rendered.contains("'system:serviceaccount:elsewhere:zoneward'") && !rendered.contains("namespace: zoneward")
    );
    assert!(!rendered.contains("monitoring.coreos.com"));

    for (name, pod) in pods(&objects) {
        let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
        assert_eq!(container["image"], "registry.example.org/zoneward:v9", "{name}");
        assert_eq!(spec["priorityClassName"], "high", "{name}");
        for (list, wanted) in [(&container["env"], "A"), (&spec["volumes"], "key"), (&container["volumeMounts"], "key")]
        {
            assert!(list.as_array().unwrap().iter().any(|it| it["name"] == wanted), "{name}: {list}");
        }
    }
    let daemon = find(&objects, "Deployment", "zoneward");
    assert_eq!(daemon["spec"]["replicas"], 3);
    let spec = &daemon["spec"]["template"]["spec"];
    let of = |list: &Value, name: &str| list.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    let claim = json!({"name": "audit", "persistentVolumeClaim": {"claimName": "zoneward-audit"}});
    assert_eq!(of(&spec["volumes"], "audit"), claim);
    assert_eq!(of(&spec["containers"][0]["volumeMounts"], "audit")["subPathExpr"], "$(POD_NAME)", "each its own");
    let claim = find(&objects, "PersistentVolumeClaim", "zoneward-audit");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));

    let observing = tools.render(&["--set", "rbac.act=false"]);
    let roles = observing.keys().filter(|(kind, _, _)| kind.ends_with("Role")).map(|(_, _, name)| name.as_str());
    assert_eq!(roles.collect::<Vec<_>>(), ["zoneward-observe"]);
    assert_eq!(pods(&observing).len(), 1, "nothing to give back");
    assert!(
        find(&tools.render(&["--set", "rbac.meshDistribute=true"]), "Role", "zoneward-mesh-distribute").is_object()
    );
}

/// Definitions that take anything, for the kinds of other projects.
fn stub(group: &str, version: &str, kind: &str) -> String {
    let (singular, plural) = (
        kind.to_lowercase(),
        if kind == "Telemetry" { "telemetries".to_owned() } else { format!("{}s", kind.to_lowercase()) },
    );
    format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {plural}.{group}}}, \
         spec: {{group: {group}, scope: Namespaced, names: {{kind: {kind}, plural: {plural}, singular: {singular}}}, \
         versions: [{{name: {version}, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, \
         x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}\n---\n"
    )
}

/// A pod of each kind, as its controller would make it, by the rules of the namespace.
fn admits_pods(cluster: &Cluster, objects: &Objects, tools: &Tools) {
    for (name, template) in pods(objects) {
        let mut pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
        pod["metadata"]["name"] = json!(name);
        let dry_run = |pod: &Value| {
            let file = tools.write("pod.json", &pod.to_string());
            cluster.try_kubectl(&["create", "-n", "zoneward", "--dry-run=server", "-f", &file])
        };
        dry_run(&pod).unwrap();
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        assert!(dry_run(&pod).unwrap_err().contains("violates PodSecurity"), "{name}");
    }
}

/// `zoneward check --connect` by the token of the account that was installed, of that configuration.
fn rights_of_account(cluster: &Cluster, tools: &Tools, config: &Value) -> (String, String) {
    let token = cluster.kubectl(&["create", "token", "-n", "zoneward", "zoneward"]);
    let admin = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let kubeconfig = tools.write(
        "account.kubeconfig",
        &admin.replace(&format!("token: {TOKEN}admin"), &format!("token: {}", token.trim())),
    );
    let config = tools.write("config.yaml", &config.to_string());
    let mut check = zoneward();
    check.args(["check", "--connect", "--output", "json", "--config", &config]).env("KUBECONFIG", kubeconfig);
    check.env("ZONEWARD_PROMETHEUS__URL", "http://127.0.0.1:1").env("ZONEWARD_MODE", "enforce");
    let findings = json_lines(&stdout(&check.output().unwrap()));
    let rights = findings.iter().find(|it| text(it, "what") == "rights").unwrap_or_else(|| panic!("{findings:?}"));
    (text(rights, "level").to_owned(), text(rights, "found").to_owned())
}

#[test]
fn helm_and_kustomize_install_upgrade_and_uninstall_on_a_real_api_server() {
    let (cluster, tools) = (Cluster::start(), Tools::new());
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let chart = root().join("deploy/chart").display().to_string();
    let values = |path: &str| root().join(path).display().to_string();
    cluster.apply(RESTRICTED);
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}");
    let upgrade = |more: &[&str]| {
        let usual = ["upgrade", "--install", "zoneward", &chart, "-n", "zoneward", "--kubeconfig", &kubeconfig];
        tools.helm(&[&usual[..], more].concat());
        let manifest = tools.helm(&["get", "manifest", "zoneward", "-n", "zoneward", "--kubeconfig", &kubeconfig]);
        admits_pods(&cluster, &objects(&manifest), &tools);
        objects(&manifest)
    };
    // Without Prometheus Operator, and only to observe.
    let observing = upgrade(&["--set", "rbac.act=false"]);
    assert!(!observing.keys().any(|(kind, _, _)| kind == "ServiceMonitor"));
    let (level, lacks) = rights_of_account(&cluster, &tools, &config_of(&observing));
    assert!(level != "ok" && lacks.contains("patch pods"), "{level}: {lacks}");

    let stubs = stub("monitoring.coreos.com", "v1", "ServiceMonitor")
        + &stub("monitoring.coreos.com", "v1", "PrometheusRule")
        + &stub("monitoring.coreos.com", "v1", "PodMonitor")
        + &stub("telemetry.istio.io", "v1", "Telemetry");
    cluster.apply(&stubs);
    eventually("the kinds are served", SOON, || {
        let kinds = ["servicemonitors", "prometheusrules", "podmonitors", "telemetries"];
        kinds.iter().all(|kind| cluster.try_kubectl(&["get", kind]).is_ok()).then_some(())
    });
    let acting = upgrade(&["--set", "config.mode=enforce,persistence.enabled=true,telemetry.enabled=true"]);
    for (kind, name) in
        [("ServiceMonitor", "zoneward"), ("PrometheusRule", "zoneward"), ("Telemetry", "zoneward-locality")]
    {
        find(&acting, kind, name);
    }
    assert_eq!(rights_of_account(&cluster, &tools, &config_of(&acting)).0, "ok");
    for (example, platform, annotation) in [
        ("alibaba-asm", "alibaba", "pod-identity.alibabacloud.com/role-name"),
        ("aws", "aws", "eks.amazonaws.com/role-arn"),
    ] {
        let file = format!("configFile={}", values(&format!("config/examples/{example}.yaml")));
        let installed = upgrade(&["-f", &values(&format!("deploy/{platform}/values.yaml")), "--set-file", &file]);
        assert!(find(&installed, "ServiceAccount", "zoneward")["metadata"]["annotations"][annotation].is_string());
        let config = config_of(&installed);
        assert!(config["steps"].as_object().unwrap().len() == 3, "{config}");
        assert_eq!(rights_of_account(&cluster, &tools, &config).0, "ok");
    }
    // The job of the hook takes a kubelet, and is tested by itself.
    tools.helm(&["uninstall", "zoneward", "-n", "zoneward", "--no-hooks", "--kubeconfig", &kubeconfig]);
    assert_eq!(cluster.try_kubectl(&["get", "-n", "zoneward", "deployments", "-o", "name"]), Ok(String::new()));
    assert!(cluster.kubectl(&["get", "crd", "zones.zoneward.io"]).contains("zones"), "with the past of zones");

    for _again in 0..2 {
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", &tools.overlay()]);
    }
    cluster.apply(&read("deploy/istio/podmonitor.yaml"));
    cluster.apply(&read("deploy/uninstall.yaml"));
    let plain = objects(&tools.output("kube", &["kubectl", "kustomize", &tools.overlay()]));
    admits_pods(&cluster, &plain, &tools);
    assert_eq!(rights_of_account(&cluster, &tools, &config_of(&plain)).0, "ok");
    upgrade(&["--take-ownership", "--force-conflicts"]);
}

#[test]
fn roles_allow_the_daemon_what_it_is_checked_for_and_nothing_more() {
    let objects = objects(&read("deploy/rbac.yaml"));
    let list =
        |value: &Value| value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut allowed = BTreeSet::new();
    for (kind, name) in [
        ("ClusterRole", "zoneward-observe"),
        ("ClusterRole", "zoneward-act"),
        ("Role", "zoneward"),
        ("Role", "zoneward-events"),
    ] {
        for rule in find(&objects, kind, name)["rules"].as_array().unwrap() {
            for (group, resource) in list(&rule["apiGroups"])
                .iter()
                .flat_map(|g| list(&rule["resources"]).into_iter().map(move |r| (g.clone(), r)))
            {
                allowed.extend(list(&rule["verbs"]).into_iter().map(|verb| format!("{verb} {resource} {group}")));
            }
        }
    }
    // Only to say which Istio there is; without it the check says that it can't tell.
    assert!(allowed.remove("list deployments apps"));
    let checked =
        zoneward::cli::needed_rights().map(|(group, resource, verb)| format!("{verb} {resource} {group}")).collect();
    assert_eq!(allowed, checked);
}

#[test]
fn prometheus_understands_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let expressions: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| text(target, "expr"))
        .collect();
    assert!(expressions.len() >= 15 && panels.iter().all(|panel| !text(panel, "description").is_empty()));
    let rules: Vec<Value> =
        expressions.iter().enumerate().map(|(i, expr)| json!({"record": format!("panel:{i}"), "expr": expr})).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), json!({"groups": [{"name": "a", "rules": rules}]}).to_string())
        .unwrap();
    promtool(folder.path(), &["check", "rules", "rules.yaml"]);
}

/// What the dashboard and the alerts ask for of zoneward, wherever in their files.
pub fn metrics_named() -> BTreeSet<String> {
    let files = [read("deploy/monitoring/dashboard.json"), read("deploy/alerts.yaml")];
    let words = files.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| word.starts_with("zoneward_")).map(str::to_owned).collect()
}

fn promtool(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(part("promtool")).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

#[test]
fn prometheus_adds_the_zone_of_the_node_to_what_it_scrapes_from_sidecars() {
    let mut config: Value = serde_saphyr::from_str(&read("deploy/istio/scrape.yaml")).unwrap();
    let job = config["scrape_configs"][0].as_object_mut().unwrap();
    // The same rules for Prometheus Operator, whose names are spelled in another way.
    let monitor: Value = serde_saphyr::from_str(&read("deploy/istio/podmonitor.yaml")).unwrap();
    let spelled = job["relabel_configs"]
        .to_string()
        .replace("source_labels", "sourceLabels")
        .replace("target_label", "targetLabel");
    let rules = &monitor["spec"]["podMetricsEndpoints"][0]["relabelings"];
    assert_eq!(serde_json::from_str::<Value>(&spelled).unwrap(), *rules);
    assert_eq!(monitor["spec"]["attachMetadata"], json!({"node": true}));
    // What Kubernetes would tell of a pod's ports comes from a file.
    let found = job.remove("kubernetes_sd_configs").unwrap();
    assert_eq!(found, json!([{"role": "pod", "attach_metadata": {"node": true}}]));
    job.insert("file_sd_configs".to_owned(), json!([{"files": ["targets.json"]}]));
    let port = |name: &str| {
        json!({"targets": ["10.0.0.1:15090"], "labels": {"__meta_kubernetes_pod_container_port_name": name,
            "__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_name": "web-1",
            "__meta_kubernetes_pod_node_name": "node-1",
            "__meta_kubernetes_node_label_topology_kubernetes_io_zone": "zone-b"}})
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.yaml"), config.to_string()).unwrap();
    let targets = json!([port("http-envoy-prom"), port("http")]);
    std::fs::write(folder.path().join("targets.json"), targets.to_string()).unwrap();
    let arguments = ["check", "service-discovery", "--timeout=1s", "config.yaml", "istio-proxies"];
    let told: Value = serde_json::from_str(&promtool(folder.path(), &arguments)).unwrap();
    let kept: Vec<&Value> =
        told.as_array().unwrap().iter().map(|it| &it["labels"]).filter(|it| it["locality"].is_string()).collect();
    let [labels] = kept[..] else { panic!("{told}") };
    for (label, wanted) in [("locality", "zone-b"), ("namespace", "shop"), ("pod", "web-1"), ("node", "node-1")] {
        assert_eq!(labels[label], wanted, "{labels}");
    }
}
