//! From fault to return on real parts, each a process of its own: API server, controllers, scheduler, name server,
//! Prometheus, the mesh, and `zoneward run` in enforce and in recommend mode. Prints what happened, and when. Every secret
//! is a planted one, and at the end all that was put out is searched for them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that tells a story, and fails by panicking")]

#[path = "../it/bind.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod bind;
#[path = "../it/cluster.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod cluster;
mod image;
mod mesh;
#[path = "../it/planted.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod planted;
mod scene;
mod soak;
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use bind::Bind;
use cluster::Cluster;
use planted::{Server, none_in, none_under};
use scene::{Mesh, NAME, deployment_anywhere};
use support::{
    Process, alertmanager, eventually, free_address, json_lines, prometheus, root, run, stdout, text, zoneward,
};

const PATIENCE: Duration = Duration::from_mins(2);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("mesh") => return mesh::run(&scene::told(&arguments[2..])),
        Some("soak") => return soak::run(&arguments[2..]),
        _ => {}
    }
    image::runs_in_an_empty_root();
    println!("The executable of the image, in an empty root: ok");
    if arguments.get(1).map(String::as_str) == Some("image") {
        return;
    }
    let article = Setting {
        title: "The article's own mesh: two zones, one replica a service and zone; enforce",
        zones: &["cn-hangzhou-h", "cn-hangzhou-k"],
        sick: "cn-hangzhou-h",
        replicas: 1,
        manifests: std::fs::read_to_string(root().join("tests/e2e/article.yaml")).unwrap(),
        mode: "enforce",
        zone_from: "label",
        targets: "/targets",
        faults: "- {at: 35s, until: 1h, zones: [cn-hangzhou-h], services: [mockc], errors: 30%}\n\
                 - {at: 80s, until: 1h, zones: [cn-hangzhou-k], slowdown: 2x}",
        more: "rollback: {lasting: 6s}",
        end: given_up,
    };
    let labelled = Setting {
        title: "Three zones, two replicas each; scrape configurations map pod labels, and metrics name no zone; recommend, \
                and a person approves",
        zones: &["zone-a", "zone-b", "zone-c"],
        sick: "zone-b",
        replicas: 2,
        manifests: scene::workloads(&["zone-a", "zone-b", "zone-c"], 2),
        mode: "recommend",
        zone_from: "node",
        targets: "/targets/labelled",
        faults: "- {at: 35s, until: 2m, zones: [zone-b], services: [mockc], errors: 30%}\n\
                 - {at: 205s, until: 1h, zones: [zone-b, zone-c], slowdown: 2x}",
        more: "isolate: {expires_after: 1m}\nrollback: {lasting: 6s}\nrecovery: {refill: 10s, trial: 6s, back_off: 5s}",
        end: back_by_shares_and_drilled,
    };
    let settings = [article, labelled];
    // Side by side, as each waits more than it works.
    std::thread::scope(|stories| {
        for setting in &settings {
            stories.spawn(|| play(setting));
        }
    });
    println!("\n{} passed, 0 failed", settings.len());
}

struct Setting {
    title: &'static str,
    zones: &'static [&'static str],
    sick: &'static str,
    replicas: usize,
    manifests: String,
    mode: &'static str,
    zone_from: &'static str,
    targets: &'static str,
    faults: &'static str,
    /// Of the configuration.
    more: &'static str,
    /// How its isolation ends.
    end: fn(&mut Stage<'_>),
}

/// The other zone does not bear the traffic.
fn given_up(stage: &mut Stage<'_>) {
    stage.tell_until("rolled_back");
    stage.tell_until("restored");
}

/// The isolation expires while the zone is sick, and again when it is well; then another zone is taken out for a drill,
/// which the others do not bear.
fn back_by_shares_and_drilled(stage: &mut Stage<'_>) {
    stage.tell_until("relapsed");
    let status = stage.person(&["status"]);
    assert!(status.contains("it was worse again"), "{status}");
    stage.tell_until("restored");
    let shares: Vec<&String> = stage.messages.iter().filter(|said| said.contains("usual east-west traffic")).collect();
    let last = shares.iter().rev().take(4).rev().map(|said| said.split_whitespace().nth(2).unwrap());
    assert_eq!(last.collect::<Vec<_>>(), ["5", "25", "50", "100"], "{shares:?}");
    let output = stage.person(&["drill", "zone-a", "--for", "10m"]);
    assert!(output.contains("is out of rotation"), "{output}");
    stage.tell_until("drill_aborted");
    stage.tell_until_said("restored", "zone-a");
}

impl Setting {
    /// Which story it is of, and how long after its fault.
    fn tell(&self, when: &str, what: &str) {
        println!("{:<9} {when:>6}  {what}", self.mode);
    }

    fn healthy(&self) -> impl Iterator<Item = &'static str> {
        self.zones.iter().copied().filter(|zone| *zone != self.sick)
    }

    /// Half a minute of health, then a third of mockc's requests fail in one zone.
    fn scenario(&self) -> String {
        format!(
            "title: A gray failure on real parts\nzones: [{zones}]\nservices:\n\
             - {{name: mocka, errors: 0.1%, median_ms: 4}}\n- {{name: mockb, errors: 0.1%, median_ms: 5}}\n\
             - {{name: mockc, errors: 0.1%, median_ms: 6}}\nrequests_per_second: 300\nhistory: 10s\nscrape_interval: 1s\n\
             duration: 1h\nfaults:\n{faults}\n\
             expect: {{isolate: {sick}, users_succeed: 99%}}\n",
            zones = self.zones.join(", "),
            sick = self.sick,
            faults = self.faults,
        )
    }
}

/// Everything of one setting that runs.
struct Stage<'a> {
    setting: &'a Setting,
    cluster: Cluster,
    bind: Bind,
    folder: tempfile::TempDir,
    config: PathBuf,
    fault: Timestamp,
    /// What was printed.
    messages: Vec<String>,
    prometheus: Process,
    alertmanager: Process,
    /// Who is told of each event: it fails at first, and quotes what it was sent.
    hook: Server,
    _mesh: Mesh,
}

fn play(setting: &Setting) {
    setting.tell("", &format!("== {}", setting.title));
    let mut stage = Stage::set(setting);
    let before = scene::everything(&stage.cluster).unwrap();
    let pods = before["pods"].as_array().unwrap().len();
    setting.tell("", &format!("{pods} pods serve in {} zones", setting.zones.len()));
    let daemon = stage.daemon();
    if setting.mode == "recommend" {
        stage.tell_until("isolate");
        assert!(stage.drained().is_empty() && stage.tainted().is_empty(), "nothing is done before a person approves");
        let output = stage.person(&["approve", setting.sick]);
        assert!(output.contains("is out of rotation"), "{output}");
    }
    stage.tell_until("effective");
    stage.check_is_out();
    if setting.replicas > 1 {
        stage.check_new_pods_stay_away();
    }
    stage.check_users();
    let status = stage.person(&["status"]);
    assert!(status.contains("Isolated") && status.contains("requests/s before"), "{status}");

    (setting.end)(&mut stage);
    assert_eq!(scene::everything(&stage.cluster).unwrap(), before, "all is exactly as before");
    assert_eq!(stage.bind.dig(NAME, "A").len(), setting.zones.len());
    assert!(stage.bind.dig(&format!("_zoneward.{NAME}"), "TXT").is_empty());
    setting.tell(&stage.clock(), "nodes, pods and addresses are exactly as before");
    if setting.mode == "enforce" {
        stage.tell_until_said("blocked", "an operator holds it");
        assert!(stage.drained().is_empty(), "what was given up is not taken again for the same fault");
    }
    stage.no_secret_is_shown(&daemon);
    assert!(daemon.terminate().success());
    stage.no_secret_is_kept();
}

impl<'a> Stage<'a> {
    fn set(setting: &'a Setting) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = scene::cluster(setting.zones);
        cluster.apply(ISTIO);
        // Istio's resources are served a moment after their definitions.
        eventually("the manifests are applied", PATIENCE, || cluster.try_apply(&setting.manifests).ok());
        let bind = scene::name_server(setting.zones);

        let scenario = folder.path().join("scenario.yaml");
        std::fs::write(&scenario, setting.scenario()).unwrap();
        let listen = free_address();
        let pods = setting.zones.len() * (3 * setting.replicas + 1);
        let (mesh, fault) = Mesh::start(&scenario, listen, (&cluster, &bind), setting.zones, pods);
        let scrape = format!(
            "scrape_configs:\n- job_name: mesh\n  http_sd_configs: [{{url: 'http://{listen}{}', refresh_interval: 1s}}]",
            setting.targets
        );
        let prometheus = prometheus(3, folder.path(), &scrape);
        let alerts = folder.path().join("alerts");
        std::fs::create_dir(&alerts).unwrap();
        let alertmanager = alertmanager(&alerts);
        let hook = Server::start(|request, before| {
            if before == 0 { (500, format!("{}\n{}", request.head, request.body)) } else { (200, String::new()) }
        });
        let secret = |name: &str| planted::file(folder.path(), name).display().to_string();
        let config = folder.path().join("config.yaml");
        let text = format!(
            "mode: {mode}\nprometheus:\n  url: '{url}'\n  history: 5m\n  zone_from: {zone_from}\n  {auth}\n  \
             headers: [{{name: X-Key, value_file: {key_of_prometheus}}}]\n\
             guard: {{silences: {{alertmanager: '{alerts}', bearer_token_file: {token_of_silences}}}}}\n\
             notify:\n  alertmanager: {{urls: ['{alerts}'], bearer_token_file: {token_of_alerts}}}\n  \
             webhook:\n    url: 'http://{hook}/planted-path-of-a-hook?token=planted-query-of-a-hook'\n    \
             bearer_token_file: {token_of_hook}\n    headers: [{{name: X-Key, value_file: {key_of_hook}}}]\n\
             detect: {{cycle: 2s}}\nservice: {{shortest: 6s, longest: 12s}}\nkubernetes: {{namespace: zoneward}}\n\
             {more}\n{steps}",
            mode = setting.mode,
            more = setting.more,
            zone_from = setting.zone_from,
            url = prometheus.url(),
            // What there is no password for takes any.
            auth = if setting.mode == "enforce" {
                format!("bearer_token_file: {}", secret("token-of-prometheus"))
            } else {
                format!("basic_auth: {{username: reader, password_file: {}}}", secret("password"))
            },
            key_of_prometheus = secret("key-of-prometheus"),
            alerts = alertmanager.url(),
            token_of_silences = secret("token-of-silences"),
            token_of_alerts = secret("token-of-alerts"),
            hook = hook.address,
            token_of_hook = secret("token-of-hook"),
            key_of_hook = secret("key-of-hook"),
            steps = scene::dns_step(&bind, setting.zones),
        );
        std::fs::write(&config, text).unwrap();
        let messages = Vec::new();
        Self { setting, cluster, bind, folder, config, fault, messages, prometheus, alertmanager, hook, _mesh: mesh }
    }

    fn daemon(&self) -> Process {
        let address = free_address();
        let mut command = zoneward();
        command
            .args(["run", "--config", self.config.to_str().unwrap(), "--audit-directory"])
            .arg(self.folder.path().join("audit"))
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("ZONEWARD_SERVE__LISTEN", address.to_string())
            .env("ZONEWARD_AUDIT__STDOUT", "true")
            .env("RUST_LOG", "trace")
            .stdout(std::fs::File::create(self.folder.path().join("daemon.out")).unwrap())
            .stderr(std::fs::File::create(self.folder.path().join("daemon.log")).unwrap());
        Process::start(&mut command, address, "/healthz")
    }

    fn person(&self, arguments: &[&str]) -> String {
        let (succeeded, said) = self.asked(arguments);
        assert!(succeeded, "{arguments:?}: {said}");
        said
    }

    /// Whether it went well, and what it said.
    fn asked(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = zoneward();
        command.args(&arguments[..1]).arg("--config").arg(&self.config).args(&arguments[1..]);
        let output = command.env("KUBECONFIG", self.cluster.kubeconfig()).output().unwrap();
        let said = format!("{}{}", stdout(&output), support::stderr(&output));
        none_in(&arguments.join(" "), said.as_bytes());
        (output.status.success(), said)
    }

    /// Seconds since the fault began.
    #[allow(clippy::disallowed_methods, reason = "it lives in real time")]
    fn clock(&self) -> String {
        format!("{:+}s", Timestamp::now().duration_since(self.fault).as_secs())
    }

    /// Prints the journal as it grows, until there is such an event.
    fn tell_until(&mut self, event: &str) {
        self.tell_until_said(event, "");
    }

    fn tell_until_said(&mut self, event: &str, words: &str) {
        let audit = self.folder.path().join("audit");
        let read = || json_lines(&stdout(&run(&["audit", "--directory", audit.to_str().unwrap(), "--output", "json"])));
        let (fault, log) = (self.fault, self.folder.path().join("daemon.log"));
        let (told, setting) = (&mut self.messages, self.setting);
        let mut found = false;
        let until = Instant::now() + PATIENCE;
        while !found {
            for record in read().iter().skip(told.len()) {
                let at: Timestamp = text(record, "time").parse().unwrap();
                let since = format!("{:+}s", at.duration_since(fault).as_secs());
                setting.tell(&since, &format!("{:<10} {}", text(record, "event"), text(record, "message")));
                found |= text(record, "event") == event && text(record, "message").contains(words);
                told.push(text(record, "message").to_owned());
            }
            // At the finest level most of it is what libraries do.
            let logged = || std::fs::read_to_string(&log).unwrap_or_default();
            let ours = |line: &&str| [" INFO ", " WARN ", "ERROR "].iter().any(|level| line.contains(level));
            let said = || logged().lines().filter(ours).collect::<Vec<_>>().join("\n");
            assert!(Instant::now() < until, "there was no `{event}`; the daemon said:\n{}", said());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn names(&self, arguments: &[&str]) -> Vec<String> {
        let text = self.cluster.kubectl(&[&["get", "-o", "name"], arguments].concat());
        text.lines().map(str::to_owned).collect()
    }

    fn drained(&self) -> Vec<String> {
        self.names(&["pods", "-l", "istio.io/draining=zoneward"])
    }

    fn tainted(&self) -> Vec<String> {
        let jsonpath =
            "jsonpath={range .items[?(@.spec.taints[*].key=='zoneward.io/isolated')]}{.metadata.name}{'\\n'}{end}";
        let text = self.cluster.kubectl(&["get", "nodes", "-o", jsonpath]);
        text.lines().map(str::to_owned).collect()
    }

    fn check_is_out(&self) {
        let (drained, tainted, addresses) = (self.drained(), self.tainted(), self.bind.dig(NAME, "A"));
        assert!(drained.len() >= 3 * self.setting.replicas, "{drained:?}");
        assert!(drained.iter().all(|pod| pod.contains(self.setting.sick)), "{drained:?}");
        assert_eq!(tainted.len(), 2);
        assert!(tainted.iter().all(|node| node.contains(self.setting.sick)), "{tainted:?}");
        let addresses: Vec<&str> = addresses.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        let expected: Vec<String> = scene::addresses(self.setting.zones)
            .into_iter()
            .filter(|(_, zone)| *zone != self.setting.sick)
            .map(|(ip, _)| ip)
            .collect();
        assert_eq!(addresses, expected);
        let clock = self.clock();
        let figures = format!("kubectl: {} pods labelled, {} nodes tainted", drained.len(), tainted.len());
        self.setting.tell(&clock, &figures);
        self.setting.tell(&clock, &format!("dig: {NAME} has {}", addresses.join(", ")));
    }

    /// The real scheduler goes by the taint.
    fn check_new_pods_stay_away(&self) {
        self.cluster.apply(&deployment_anywhere("newcomer", 4));
        let jsonpath = "jsonpath={.items[*].spec.nodeName}";
        let nodes = eventually("new pods are scheduled", PATIENCE, || {
            let text = self.cluster.kubectl(&["get", "pods", "-l", "app=newcomer", "-o", jsonpath]);
            let nodes: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            (nodes.len() == 4).then_some(nodes)
        });
        assert!(self.setting.healthy().any(|zone| nodes[0].contains(zone)));
        assert!(!nodes.iter().any(|node| node.contains(self.setting.sick)), "{nodes:?}");
        self.cluster.kubectl(&["delete", "deployment", "newcomer"]);
        eventually("they are gone", PATIENCE, || self.names(&["pods", "-l", "app=newcomer"]).is_empty().then_some(()));
        let sick = self.setting.sick;
        self.setting.tell(&self.clock(), &format!("4 new pods were scheduled, none of them in {sick}"));
    }

    /// As users meet the mesh at its gateways, by what Prometheus scraped.
    fn check_users(&self) {
        let gateway = "istio_requests_total{reporter=\"source\",source_workload=\"istio-ingressgateway\"";
        let query = format!("sum(rate({gateway},response_code=\"200\"}}[10s]))/sum(rate({gateway}}}[10s]))");
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let succeed = eventually("users are well again", PATIENCE, || {
            let (_, body) = self.prometheus.get(&format!("/api/v1/query?query={encoded}"));
            let answer: Value = serde_json::from_str(&body).ok()?;
            let share: f64 = answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
            (share > 0.99).then_some(share)
        });
        self.setting.tell(&self.clock(), &format!("{:.2} % of users' requests succeed", 100.0 * succeed));
    }

    /// Neither by the daemon, nor by the API server, nor to who is told, nor by any command that looks back.
    fn no_secret_is_shown(&self, daemon: &Process) {
        for path in ["/", "/status.json", "/metrics", "/readyz", "/healthz"] {
            none_in(path, daemon.get(path).1.as_bytes());
        }
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let kinds = ["zoneisolations", "zones.zoneward.io", "events", "configmaps", "leases", "pods", "nodes"];
        for kind in kinds {
            none_in(kind, self.cluster.kubectl(&["get", kind, "-A", "-o", "yaml"]).as_bytes());
        }
        none_in("alerts", self.alertmanager.get("/api/v2/alerts").1.as_bytes());
        let told = self.hook.bodies();
        assert!(told.len() > 5, "{told:?}");
        told.iter().for_each(|body| none_in("an event", body.as_bytes()));
        for secret in ["token-of-hook", "key-of-hook", "query-of-a-hook"] {
            assert!(self.hook.got(&format!("planted-{secret}")), "{secret} is sent to whom it is for");
        }
        let audit = path("audit");
        let entries = json_lines(&stdout(&run(&["audit", "--from", &audit, "--output", "json"])));
        let decided = entries.iter().find(|entry| text(entry, "event") == "isolate").unwrap();
        let (id, fault) = (text(decided, "id"), self.fault.to_string());
        let until = text(decided, "time");
        // It may find something: series that the drain renamed are there twice for a while.
        let (_, checked) = self.asked(&["check", "--connect"]);
        assert!(checked.contains("steps.dns_rfc2136"), "{checked}");
        let mut looks_back = vec![
            vec!["status"],
            vec!["status", "--output", "json"],
            vec!["audit", "--from", &audit],
            vec!["audit", "--from", &audit, "show", id],
            vec!["audit", "--from", &audit, "replay", id],
        ];
        let (report, stretch, backtest) = (path("report.html"), path("stretch.gz"), path("backtest.html"));
        looks_back.push(vec!["audit", "--from", &audit, "report", &report]);
        // Where zones are looked up, the past can't be judged again.
        if self.setting.zone_from == "label" {
            looks_back.push(vec!["record", "--start", &fault, "--end", until, "--output", &stretch]);
            looks_back.push(vec!["backtest", "--recording", &stretch, "--report", &backtest]);
        }
        for arguments in looks_back {
            self.person(&arguments);
        }
    }

    /// Neither in what it logged, nor in its journal, nor in any file that commands wrote.
    fn no_secret_is_kept(&self) {
        let past: &[&str] = if self.setting.zone_from == "label" { &["backtest.html", "stretch.gz"] } else { &[] };
        for file in [&["daemon.log", "daemon.out", "report.html"], past].concat() {
            let bytes = std::fs::read(self.folder.path().join(file)).unwrap();
            assert!(!bytes.is_empty(), "{file}");
            none_in(file, &bytes);
            if file.ends_with("gz") {
                none_in(file, &planted::unpacked(&self.folder.path().join(file)));
            }
        }
        let files = none_under(&self.folder.path().join("audit"));
        let logged = std::fs::metadata(self.folder.path().join("daemon.log")).unwrap().len() >> 20;
        self.setting.tell(
            &self.clock(),
            &format!("no secret in {logged} MiB of log, {files} files of journal, and all else that was put out"),
        );
    }
}

/// What the article's manifests need of Istio's definitions.
const ISTIO: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gateways.networking.istio.io}
spec:
  group: networking.istio.io
  names: {kind: Gateway, plural: gateways}
  scope: Namespaced
  versions:
  - {name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualservices.networking.istio.io}
spec:
  group: networking.istio.io
  names: {kind: VirtualService, plural: virtualservices}
  scope: Namespaced
  versions:
  - {name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
";
