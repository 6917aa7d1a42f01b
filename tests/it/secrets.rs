//! Secrets reach nobody but whom they are for, whatever is answered: servers that quote all that they were sent, in every
//! way; files that can't be used; settings with a secret where none belongs. All at the most that the logs can say.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bind::KEY_NAME;
use crate::planted::{self, Request, Server, none_in, none_under};
use crate::secured::secured;
use crate::stage::{ACCOUNT, NAME, Stage};
use crate::support::{Process, eventually, free_address, json_lines, run, stderr, stdout, text, zoneward};

const SOON: Duration = Duration::from_secs(30);
const ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/web/50dc6c495c0c9188";

/// Everything that came, in each of the places that somebody reads a reason from.
fn quoting(request: &Request, nth: usize) -> (u16, String) {
    let quoted = format!("{}\n{}", request.head, request.body);
    // One of the headers that carry secrets first, so that what is cut off has them.
    let first = request.head.lines().filter(|line| line.contains("planted") || line.contains("Basic "));
    let quoted = format!("{}; {quoted}", first.collect::<Vec<_>>().join("; "));
    let object = json!({
        "status": "error", "errorType": "execution", "error": quoted, "why": quoted, "found": quoted, "done": false,
        "Code": "Forbidden", "Message": quoted, "message": quoted, "RequestId": quoted, "__type": "AccessDeniedException",
        "changes": [quoted], "zones": quoted, "receipt": {"it": quoted}, "warnings": [quoted],
    });
    let string = json!(quoted).to_string();
    match nth % 6 {
        0 => (401, object.to_string()),
        1 => (403, quoted),
        2 => (500, string),
        3 => (200, string),
        4 => (200, object.to_string()),
        _ => (400, json!([quoted]).to_string()),
    }
}

/// With a secret wherever one may be given.
fn config(stage: &Stage, folder: &Path, server: &Server) -> String {
    let url = format!("http://{}", server.address);
    let file = |name: &str| planted::file(folder, name).display().to_string();
    format!(
        "mode: enforce\n\
         prometheus:\n  url: {url}\n  history: 1m\n  bearer_token_file: {prometheus}\n  \
         headers: [{{name: X-Key, value_file: {key}}}, {{name: X-Plain, value: planted-plain-value}}]\n\
         detect: {{cycle: 1s}}\n\
         kubernetes: {{namespace: zoneward}}\n\
         guard:\n  silences: {{alertmanager: '{url}', bearer_token_file: {silences}}}\n\
         notify:\n  alertmanager: {{urls: ['{url}'], bearer_token_file: {alertmanager}, resend: 5s}}\n  \
         webhook:\n    url: {url}/hooks/planted-path-of-a-hook?access_token=planted-query-of-a-hook\n    \
         events: [started, blocked, isolate, admitted, step, isolated, stopped]\n    bearer_token_file: {hook}\n    \
         headers: [{{name: X-Key, value_file: {hook_key}}}]\n\
         steps:\n  mesh_istio: {{}}\n  taint: {{}}\n  \
         webhook:\n    url: {url}/zones?token=planted-query-of-a-step\n    secret_file: {secret}\n    \
         headers: [{{name: X-Key, value_file: {step_key}}}]\n  \
         dns_rfc2136:\n    server: {dns}\n    zone: example.org.\n    key_name: {KEY_NAME}\n    key_file: {tsig}\n    \
         records: [{{name: {NAME}, addresses: {{zone-a: [192.0.2.1], zone-b: [192.0.2.2]}}}}]\n  \
         dns_alibaba: {{load_balancers: [{{kind: nlb, id: nlb-1, region: cn-hangzhou, endpoint: '{url}'}}]}}\n  \
         dns_aws_arc: {{resources: ['{ARN}'], endpoint: '{url}', zone_ids: {{zone-b: use1-az1}}}}\n",
        prometheus = file("prometheus"),
        key = file("key"),
        silences = file("silences"),
        alertmanager = file("alertmanager"),
        hook = file("hook"),
        hook_key = file("hook-key"),
        secret = file("secret"),
        step_key = file("step-key"),
        dns = stage.bind.address(),
        tsig = stage.bind.key_file().display(),
    )
}

fn surrounded(command: &mut Command) -> &mut Command {
    command
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full")
        .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "planted-id-of-alibaba")
        .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "planted-secret-of-alibaba")
        .env("ALIBABA_CLOUD_SECURITY_TOKEN", "planted/token+of=alibaba==")
        .env("AWS_ACCESS_KEY_ID", "planted-id-of-aws")
        .env("AWS_SECRET_ACCESS_KEY", "planted-secret-of-aws")
        .env("AWS_SESSION_TOKEN", "planted/token+of=aws==")
        .stdin(Stdio::null())
}

fn said(what: &str, output: &Output) -> String {
    let said = stdout(output) + &stderr(output);
    none_in(what, said.as_bytes());
    said
}

#[test]
fn a_server_that_quotes_all_that_it_was_sent_brings_no_secret_to_light() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(quoting);
    let config = stage.write("quoted.yaml", &config(&stage, folder.path(), &server));
    let person = |arguments: &[&str]| {
        let mut command = zoneward();
        command.args(&arguments[..1]).arg("--config").arg(&config).args(&arguments[1..]);
        let output = surrounded(&mut command).env("KUBECONFIG", stage.cluster.kubeconfig()).output().unwrap();
        said(&arguments.join(" "), &output)
    };
    // Each server asked, each way of answering met.
    for _ in 0..6 {
        let told = person(&["check", "--connect"]);
        assert!(told.contains("<hidden>"), "it is quoted, without the secret: {told}");
    }

    let (address, log) = (free_address(), stage.path("log"));
    let mut command = zoneward();
    command.arg("run").arg("--config").arg(&config).arg("--audit-directory").arg(stage.path("audit"));
    surrounded(&mut command)
        .env("KUBECONFIG", stage.cluster.kubeconfig_of(ACCOUNT))
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .stdout(std::fs::File::create(stage.path("out")).unwrap())
        .stderr(std::fs::File::create(&log).unwrap());
    let daemon = Process::start(&mut command, address, "/healthz");
    let logged = |words: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(words);
    eventually("it leads", SOON, || logged("this replica leads").then_some(()));
    stage.apply_isolation("zone-b", Duration::from_hours(1), "");
    eventually("steps are tried and refused", SOON, || {
        let object = stage.isolation("zone-b")?.to_string();
        ["webhook", "dns_alibaba", "dns_aws_arc"].iter().all(|step| object.contains(step)).then_some(())?;
        object.contains("<hidden>").then_some(())
    });
    eventually("events are lost to the webhook", SOON, || logged("an event is lost to the webhook").then_some(()));
    for path in ["/", "/status.json", "/metrics", "/readyz", "/healthz"] {
        none_in(path, daemon.get(path).1.as_bytes());
    }
    person(&["status"]);
    person(&["preflight", "zone-b"]);
    for kind in ["zoneisolations", "zones.zoneward.io", "events", "configmaps", "leases", "pods", "nodes"] {
        none_in(kind, stage.cluster.kubectl(&["get", kind, "-A", "-o", "yaml"]).as_bytes());
    }
    assert!(daemon.terminate().success());
    for path in ["out", "log"] {
        none_in(path, &std::fs::read(stage.path(path)).unwrap());
    }
    assert!(none_under(&stage.path("audit")) > 0);
    let audit = stage.path("audit").display().to_string();
    said("audit", &run(&["audit", "--from", &audit, "--output", "json"]));
    // All of them were in use, and where they are meant to be.
    for sent in ["prometheus", "key", "silences", "alertmanager", "hook", "hook-key", "step-key"] {
        assert!(server.got(&format!("planted-{sent}-of-the-tests")), "{sent} was never sent");
    }
    assert!(server.got("planted/token+of=aws==") && server.got("planted/token+of=alibaba=="));
    // What is told to others has none.
    server.bodies().iter().for_each(|body| none_in("a body", body.as_bytes()));
}

/// Behind TLS, of nobody's authority: every client asks, and none goes on. Nothing can switch that off.
#[test]
fn a_certificate_of_nobody_is_refused_by_all_that_call() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let impostor = secured(folder.path());
    let server = Server { address: impostor.address, requests: Arc::default() };
    let yaml = config(&stage, folder.path(), &server).replace("http://", "https://");
    let config = stage.write("tls.yaml", &yaml);
    let mut command = zoneward();
    command.args(["check", "--connect", "--output", "json", "--config"]).arg(&config);
    let checked = surrounded(&mut command)
        .env("KUBECONFIG", stage.cluster.kubeconfig())
        .env("RUST_LOG", "warn")
        .output()
        .unwrap();
    said("check", &checked);
    let findings = json_lines(&stdout(&checked));
    for what in ["prometheus", "guard.silences", "steps.webhook", "steps.dns_alibaba", "steps.dns_aws_arc"] {
        let refused = |it: &Value| {
            text(it, "what") == what && text(it, "level") != "ok" && text(it, "found").contains("certificate")
        };
        assert!(findings.iter().any(refused), "{what} trusts it: {findings:?}");
    }
    let (address, log) = (free_address(), stage.path("tls.log"));
    let mut command = zoneward();
    command.args(["run", "--config"]).arg(&config).arg("--audit-directory").arg(stage.path("tls"));
    surrounded(&mut command)
        .env("KUBECONFIG", stage.cluster.kubeconfig_of(ACCOUNT))
        .env("ZONEWARD_MODE", "observe")
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .env("RUST_LOG", "debug")
        .stderr(std::fs::File::create(&log).unwrap());
    let daemon = Process::start(&mut command, address, "/healthz");
    eventually("who is told is not trusted either", SOON, || {
        let log = std::fs::read_to_string(&log).unwrap();
        let refused = |words: &str| log.lines().any(|line| line.contains(words) && line.contains("certificate"));
        (refused("the webhook is sent again") && refused("planned maintenance can't be asked for")).then_some(())
    });
    assert!(daemon.terminate().success());
}

#[test]
fn a_password_and_what_it_is_sent_as_are_in_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(quoting);
    let password = planted::file(folder.path(), "password");
    let config = folder.path().join("config.yaml");
    let yaml = format!(
        "prometheus: {{url: 'http://{}', basic_auth: {{username: reader, password_file: {}}}}}",
        server.address,
        password.display()
    );
    std::fs::write(&config, yaml).unwrap();
    for _ in 0..6 {
        let mut command = zoneward();
        let output = surrounded(command.args(["backtest", "--start", "2026-01-01", "--end", "2026-01-02"]))
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        said("backtest", &output);
    }
    assert!(server.got("Basic cmVhZGVyOnBsYW50ZWQt") || server.got("basic cmVhZGVyOnBsYW50ZWQt"));
}

#[test]
fn a_secret_where_none_belongs_is_refused_without_being_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    let check = |yaml: &str, wanted: &str| {
        std::fs::write(&config, yaml).unwrap();
        for form in ["table", "json"] {
            let mut command = zoneward();
            command.args(["check", "--output", form, "--config", config.to_str().unwrap()]);
            let output = surrounded(&mut command).output().unwrap();
            assert_eq!(output.status.code(), Some(3), "{yaml}: {}", stdout(&output));
            let said = said(yaml, &output);
            assert!(said.contains(wanted), "{yaml}: {said}");
        }
    };
    let steps =
        "key_name: k, zone: a.org., server: '127.0.0.1:53', records: [{name: a.a.org., addresses: {a: [192.0.2.1]}}]";
    let webhook = "steps: {webhook: {secret_file: /s, url: ";
    let arc = format!("steps: {{dns_aws_arc: {{resources: ['{ARN}'], endpoint: ");
    for (yaml, wanted) in [
        ("prometheus: {url: 'http://me:planted@host'}".to_owned(), "prometheus.url: holds a name or a password"),
        ("prometheus: {url: 'http://host/?token=planted'}".to_owned(), "prometheus.url: has a query"),
        ("prometheus: {url: 'htps://me:planted@host'}".to_owned(), "`htps://…@host` is not an http"),
        ("prometheus: {basic_auth: 'me:planted'}".to_owned(), "prometheus.basic_auth: "),
        ("prometheus: {basic_auth: {username: me, password: planted}}".to_owned(), "unknown field `password`"),
        ("prometheus: {headers: ['X-Key: planted']}".to_owned(), "prometheus.headers[0]: "),
        ("prometheus: {headers: {X-Key: planted}}".to_owned(), "prometheus.headers: "),
        ("prometheus: {bearer_token_file: [planted]}".to_owned(), "prometheus.bearer_token_file: "),
        ("prometheus: {bearer_token: planted}".to_owned(), "unknown field `bearer_token`"),
        ("guard: {silences: {alertmanager: 'http://me:planted@host'}}".to_owned(), "guard.silences.alertmanager: "),
        ("notify: {alertmanager: {urls: ['http://me:planted@host']}}".to_owned(), "notify.alertmanager.urls[0]: "),
        ("notify: {alertmanager: {urls: ['http://host?planted']}}".to_owned(), "notify.alertmanager.urls[0]: "),
        ("notify: {webhook: {url: 'https://me:planted@host'}}".to_owned(), "notify.webhook.url: "),
        ("notify: {webhook: 'https://host?planted'}".to_owned(), "notify.webhook: "),
        (format!("{webhook}'https://me:planted@host'}}}}"), "steps.webhook.url: "),
        (format!("{arc}'https://me:planted@host'}}}}"), "steps.dns_aws_arc.endpoint: "),
        (
            "steps: {mesh_istio: null, mesh_distribute: {istiod: 'http://me:planted@h'}}".to_owned(),
            "mesh_distribute.istiod: ",
        ),
        (
            "steps: {dns_alibaba: {load_balancers: [{kind: nlb, id: n, region: r, endpoint: 'https://me:planted@h'}]}}"
                .to_owned(),
            "load_balancers[0].endpoint: ",
        ),
        (format!("steps: {{dns_rfc2136: {{{steps}, key_file: /k, secret: planted}}}}"), "unknown field `secret`"),
        ("prometheus:\n  basic_auth: {username: me, password: planted\nmode: x".to_owned(), ""),
        ("prometheus:\n  password: planted\n\tmode: x".to_owned(), ""),
    ] {
        check(&yaml, wanted);
    }
}

#[test]
fn files_that_can_t_be_used_are_named_and_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name).display().to_string()
    };
    let server = Server::start(|_, _| (200, "{}".to_owned()));
    let two_lines = path("two-lines", b"planted-first\nplanted-second");
    let no_text = path("no-text", b"planted\xff\x00planted");
    let check = |yaml: &str, kubeconfig: &str| {
        let config = path("config.yaml", yaml.as_bytes());
        let mut command = zoneward();
        command.args(["check", "--connect", "--config", &config]);
        let output = surrounded(&mut command).env("KUBECONFIG", kubeconfig).output().unwrap();
        said(yaml, &output)
    };
    let url = format!("url: 'http://{}'", server.address);
    for file in [&two_lines, &no_text] {
        for key in ["bearer_token_file", "ca_file"] {
            let told = check(&format!("prometheus: {{{url}, {key}: {file}}}"), "/none");
            assert!(told.contains(&format!("prometheus.{key}")), "{told}");
        }
        let told = check(&format!("prometheus: {{{url}, headers: [{{name: X-Key, value_file: {file}}}]}}"), "/none");
        assert!(told.contains("prometheus.headers"), "{told}");
        let told = check(
            &format!(
                "{{prometheus: {{{url}}}, guard: {{silences: {{alertmanager: 'http://{}', bearer_token_file: {file}}}}}}}",
                server.address
            ),
            "/none",
        );
        assert!(told.contains("guard.silences.bearer_token_file"), "{told}");
    }
    let kubeconfig = |user: &str| {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: it, clusters: [{{name: it, cluster: {{server: \
             'https://127.0.0.1:1'}}}}], users: [{{name: it, user: {user}}}], contexts: [{{name: it, context: {{cluster: \
             it, user: it}}}}]}}\n"
        )
    };
    for broken in [
        kubeconfig("{token: [planted-token]}"),
        kubeconfig("{token: planted-token, client-key-data: planted}"),
        kubeconfig("{token: \"planted\\ntoken\"}"),
        kubeconfig("{username: me, password: planted"),
        format!("{}planted", kubeconfig("{token: planted-token}")),
    ] {
        let kubeconfig = path("kubeconfig", broken.as_bytes());
        for context in ["null", "it"] {
            let yaml = format!("{{mode: enforce, kubernetes: {{context: {context}}}, prometheus: {{{url}}}}}");
            check(&yaml, &kubeconfig);
        }
    }
}
