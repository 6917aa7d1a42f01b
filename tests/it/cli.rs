//! The command line: messages, exit codes, the configuration file, the journal's review.

use std::path::Path;

use crate::support::{json_lines, root, run, stderr, stdout, text, zoneward};

fn check(yaml: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, yaml).unwrap();
    let output = run(&["check", "--config", path.to_str().unwrap()]);
    (output.status.code().unwrap(), stderr(&output) + &stdout(&output))
}

#[test]
fn every_problem_of_a_configuration_is_named_at_once_with_its_path() {
    let (code, said) = check(
        "prometeus: {}\n\
         prometheus: {url: 'ftp://x', matchers: [cluster]}\n\
         detect: {cycle: 15}\n\
         service: {trip: 5 nats, suspect: 8 nats, min_error_excess: 0.3, typo: 1}\n\
         guard: {min_healthy_zones: 0}\n\
         services: [{match: web}, {match: a/b, critcal: true}]\n",
    );
    assert_eq!(code, 3);
    let expected = [
        "the configuration has 10 problems",
        "prometeus: unknown field",
        "prometheus.url: `ftp://x` is not an http:// or https:// address",
        "prometheus.matchers[0]: `cluster` is not a label matcher",
        "detect.cycle: `15` is not a number with its unit, such as 15s",
        "service.suspect: 8 nats is above trip (5 nats)",
        "service.min_error_excess: `0.3` is not a number with its unit, such as 0.3%",
        "service.typo: unknown field",
        "guard.min_healthy_zones: 0 would allow to isolate the last zone",
        "services[0].match: `web` does not name services",
        "services[1].critcal: unknown field",
    ];
    for line in expected {
        assert!(said.contains(line), "missing: {line}\n{said}");
    }
}

#[test]
fn what_is_illegal_for_one_service_is_named_by_its_path_as_it_is_for_all() {
    let cases = [
        ("suspect: 20 nats", "suspect: 20 nats is above trip (13 nats)"),
        ("trip: 5 nats", "suspect: 6 nats is above trip (5 nats)"),
        ("clear: 30s", "clear: 30s is outside 1m to 1h"),
        ("clear: 61m", "clear: 1h 1m is outside 1m to 1h"),
        ("shortest: 2m", "shortest: 2m is above longest (1m 15s)"),
        ("longest: 20s", "shortest: 30s is above longest (20s)"),
        ("longest: 6m", "longest: 6m is above 5m"),
        ("shortest_window: 2m, longest_window: 1m", "shortest_window: 2m is above longest_window (1m)"),
        ("shortest_window: 6m", "shortest_window: 6m is above 5m"),
        ("min_requests: many", "min_requests: `many` is not a whole number"),
        ("failures: {response_codes: [5yy]}", "failures.response_codes[0]: "),
    ];
    for (wrong, problem) in cases {
        let (code, said) = check(&format!("service: {{{wrong}}}"));
        assert!(code == 3 && said.contains(&format!("service.{problem}")), "{wrong}: {said}");
        assert!(said.contains("has 1 problem:"), "{wrong}: {said}");
        let (code, said) = check(&format!("services: [{{match: a/b, ignore: true}}, {{match: a/c, {wrong}}}]"));
        assert!(code == 3 && said.contains(&format!("services[1].{problem}")), "{wrong}: {said}");
        assert!(said.contains("has 1 problem:"), "{wrong}: {said}");
    }
}

#[test]
fn what_is_legal_and_of_no_use_is_said() {
    let of_failures = "service: {failures: {response_codes: [6xx, 5xx]}}";
    for (yaml, said) in [
        (of_failures, "6xx is no response of a server that failed"),
        ("services: [{match: a/b, ignore: true, critical: true}]", "true, of what is not looked at"),
        ("", "sets nothing, so all is by default"),
        ("# all of it\n#mode: enforce\n", "sets nothing, so all is by default"),
    ] {
        let (code, told) = check(yaml);
        assert!(code == 0 && told.contains("warning") && told.contains(said), "{yaml}: {told}");
    }
    let (code, told) = check("mode: observe");
    assert!(code == 0 && !told.contains("warning"), "{told}");
}

#[test]
fn a_value_of_the_wrong_kind_is_told_as_what_to_write() {
    for (yaml, said) in [
        (
            "guard: {max_isolated_zones: one}",
            "guard.max_isolated_zones: `one` is not a whole number, 0 or more, such as 3",
        ),
        (
            "guard: {max_isolated_zones: -1}",
            "guard.max_isolated_zones: `-1` is not a whole number, 0 or more, such as 3",
        ),
        (
            "guard: {max_isolated_zones: 1.5}",
            "guard.max_isolated_zones: `1.5` is not a whole number, 0 or more, such as 3",
        ),
        ("audit: {stdout: 3}", "audit.stdout: `3` is not true or false"),
        ("prometheus: 9090", "prometheus: `9090` is not a section"),
        ("services: {match: a/b}", "services: a section is not a list, such as [a, b]"),
        ("prometheus: {labels: {target: pod}}", "prometheus.labels.target: must be a list, such as [a, b]"),
    ] {
        let (code, told) = check(yaml);
        assert!(code == 3 && told.contains(said), "{yaml}: {told}");
        assert!(!["u32", "usize", "struct", "sequence"].iter().any(|word| told.contains(word)), "{told}");
    }
}

#[test]
fn an_override_may_change_every_setting_of_a_service() {
    let usual = serde_json::to_value(zoneward::domain::ServiceSettings::default()).unwrap();
    let mut change = usual.as_object().unwrap().clone();
    assert!(change.len() >= 17, "{change:?}");
    change.insert("match".to_owned(), "payments/*".into());
    let (code, said) = check(&serde_json::json!({ "services": [change] }).to_string());
    assert_eq!(code, 0, "{said}");

    // What is legal only together is judged together with the usual settings.
    let (code, said) = check("service: {longest: 4m}\nservices: [{match: a/b, shortest: 3m}]");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn wrong_units_are_refused_with_an_example() {
    for (yaml, hint) in [
        ("detect: {cycle: 15 parsecs}", "such as 15s, 2m or 1h"),
        ("detect: {min_affected_share: 120%}", "between 0% and 100%"),
        ("service: {min_slowdown: 0.5x}", "write 1x or more"),
        ("service: {trip: 10}", "such as 10 nats"),
        ("prometheus: {max_response: 64}", "such as 64MiB"),
        ("prometheus: {lookback: 30s}", "below four times detect.cycle"),
        ("service: {failures: {response_codes: [5yy]}}", "a class such as 5xx"),
        ("mode: [", "the configuration can't be read"),
    ] {
        let (code, said) = check(yaml);
        assert_eq!(code, 3, "{yaml}: {said}");
        assert!(said.contains(hint), "{yaml}: {said}");
    }
}

#[test]
fn the_shipped_configuration_says_the_defaults() {
    let file = root().join("config/default.yaml");
    let shipped = zoneward::settings::Settings::load(Some(&file), Default::default()).unwrap();
    assert_eq!(shipped, zoneward::settings::Settings::default());
}

/// The keys of a tree, each by its path.
fn keys(tree: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    if let serde_json::Value::Object(map) = tree {
        for (key, value) in map {
            let path = format!("{path}/{key}");
            found.push(path.clone());
            keys(value, &path, found);
        }
    }
}

#[test]
fn the_shipped_configuration_names_every_setting() {
    let file = root().join("config/default.yaml");
    let source = config::File::from(file.as_path());
    let shipped: serde_json::Value =
        config::Config::builder().add_source(source).build().unwrap().try_deserialize().unwrap();
    let defaults = serde_json::to_value(zoneward::settings::Settings::default()).unwrap();
    let (mut named, mut known) = (Vec::new(), Vec::new());
    keys(&shipped, "", &mut named);
    keys(&defaults, "", &mut known);
    named.sort();
    known.sort();
    assert_eq!(named, known);
}

#[test]
fn variables_go_over_the_file_and_kubernetes_own_are_let_be() {
    let output = zoneward()
        .args(["check", "--config", "config/default.yaml"])
        .env("ZONEWARD_PROMETHEUS__URL", "not an address")
        .env("ZONEWARD_SERVICE_HOST", "10.0.0.1")
        .env("ZONEWARD_PORT_9900_TCP_PROTO", "tcp")
        .output()
        .unwrap();
    let said = stderr(&output);
    assert!(said.contains("1 problem:") && said.contains("prometheus.url: `not an address`"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let output = run(&["check", "--config", "no/such/file.yaml"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("no/such/file.yaml"), "{}", stderr(&output));
}

#[test]
fn secrets_are_read_from_files_and_a_missing_one_is_named_without_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, "prometheus: {url: 'http://127.0.0.1:9', bearer_token_file: /no/such/token}").unwrap();
    let output = run(&["check", "--connect", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no/such/token can't be read (prometheus.bearer_token_file)"));
}

#[test]
fn a_command_line_that_is_wrong_exits_with_2() {
    assert_eq!(run(&["backtest"]).status.code(), Some(2));
    assert_eq!(run(&["demo", "--speed", "fast"]).status.code(), Some(2));
    let reversed = run(&[
        "backtest",
        "--config",
        "config/default.yaml",
        "--start",
        "2026-01-02T00:00:00Z",
        "--end",
        "2026-01-01T00:00:00Z",
    ]);
    assert_eq!(reversed.status.code(), Some(1));
    assert!(stderr(&reversed).contains("must be later than --start"));
}

#[test]
fn a_report_that_can_t_be_written_is_refused_before_anything_is_read() {
    let arguments = ["backtest", "--config", "config/default.yaml", "--prometheus", "http://127.0.0.1:9"];
    let stretch = ["--start", "2026-01-01", "--end", "2026-01-02"];
    for (file, why) in [("no/such/folder/page.html", "there is no folder no/such/folder"), ("config", "it is a folder")]
    {
        let output = run(&[&arguments[..], &stretch, &["--report", file]].concat());
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains(&format!("--report: {file} can't be written")) && said.contains(why), "{said}");
    }
}

/// A journal as a real process leaves it: Prometheus can't be reached, so there is little in it.
fn journal(folder: &Path) {
    journal_and_log(folder, std::process::Stdio::null(), std::process::Stdio::null());
}

fn journal_and_log(folder: &Path, out: std::process::Stdio, err: std::process::Stdio) {
    let address = crate::support::free_address();
    let mut command = zoneward();
    command
        .args(["run", "--config", "config/default.yaml", "--audit-directory", folder.to_str().unwrap()])
        .env("ZONEWARD_PROMETHEUS__URL", "http://127.0.0.1:9")
        .env("ZONEWARD_DETECT__CYCLE", "1s")
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .env("ZONEWARD_AUDIT__STDOUT", "true")
        .args(["--log-format", "json"])
        .stdout(out)
        .stderr(err);
    let daemon = crate::support::Process::start(&mut command, address, "/healthz");
    crate::support::eventually("a gap is on record", std::time::Duration::from_secs(20), || {
        let entries = stdout(&run(&["audit", "--directory", folder.to_str().unwrap(), "--output", "json"]));
        entries.contains("\"event\":\"gap\"").then_some(())
    });
    assert!(daemon.terminate().success(), "SIGTERM is a clean stop");
}

#[test]
fn the_journal_is_listed_filtered_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    journal(folder.path());
    let list = |more: &[&str]| {
        let output = run(&[&["audit", "--directory", directory, "--output", "json"], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        json_lines(&stdout(&output))
    };
    let all = list(&[]);
    let events: Vec<&str> = all.iter().map(|entry| text(entry, "event")).collect();
    assert_eq!((events[0], events[events.len() - 1]), ("started", "stopped"));
    let gaps = list(&["--event", "gap"]);
    assert!(!gaps.is_empty() && gaps.len() < all.len());
    assert!(gaps.iter().all(|e| text(e, "message").contains("can't be reached")));
    assert_eq!(list(&["--zone", "nowhere"]).len(), 0);
    assert_eq!(list(&["--since", "2020-01-01T00:00:00Z"]).len(), all.len());
    assert_eq!(list(&["--since", "2100-01-01T00:00:00Z"]).len(), 0);
    assert_eq!(run(&["audit", "--event", "isolated_by_aliens"]).status.code(), Some(2));

    let verify = || run(&["audit", "verify", "--directory", directory]);
    assert!(verify().status.success(), "{}", stderr(&verify()));
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("started", "stopped", 1)).unwrap();
    let broken = verify();
    assert_eq!(broken.status.code(), Some(1));
    assert!(stdout(&broken).contains("line 1: was changed after it was written"), "{}", stdout(&broken));
}

/// With something on standard input.
fn piped(arguments: &[&str], input: &str) -> std::process::Output {
    use std::io::Write as _;
    let mut command = zoneward();
    command.args(arguments).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_daemon_s_own_log_holds_its_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, log) = (folder.path().join("audit"), folder.path().join("log"));
    // As a container's runtime does: both into one.
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
    journal_and_log(&audit, file.try_clone().unwrap().into(), file.into());
    let log = std::fs::read_to_string(&log).unwrap();
    let from_directory = run(&["audit", "--from", audit.to_str().unwrap(), "--output", "json"]);
    let from_log = piped(&["audit", "--from", "-", "--output", "json"], &log);
    assert_eq!(stdout(&from_log), stdout(&from_directory));
    assert!(stderr(&from_log).contains("other lines were passed over"), "{}", stderr(&from_log));

    let verified = piped(&["audit", "verify", "--from", "-"], &log);
    assert!(verified.status.success() && stdout(&verified).starts_with("whole: "), "{}", stdout(&verified));
    // A log's beginning may be gone; what is left of it may not be changed.
    let first = log.find("{\"n\":0").unwrap();
    let rest = log[first..].split_once('\n').unwrap().1;
    let verified = piped(&["audit", "verify", "--from", "-"], rest);
    assert!(verified.status.success(), "{}", stdout(&verified));
    assert!(stdout(&verified).contains("nothing is known of what was before"), "{}", stdout(&verified));
    let broken = piped(&["audit", "verify", "--from", "-"], &rest.replace("as was asked", "as was asked for"));
    assert_eq!(broken.status.code(), Some(1), "{}", stdout(&broken));
    let nothing = piped(&["audit", "--from", "-"], "no journal\n");
    assert!(stderr(&nothing).contains("standard input has no audit journal"), "{}", stderr(&nothing));
}

#[test]
fn an_empty_journal_is_an_error_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["audit", "--directory", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has no audit journal"));
}

#[test]
fn the_shipped_custom_resources_are_those_of_the_binary() {
    let shipped = std::fs::read_to_string(root().join("deploy/crd.yaml")).unwrap();
    assert_eq!(stdout(&run(&["crd"])), shipped, "`zoneward crd > deploy/crd.yaml` mends it");
}

#[test]
fn steps_are_checked_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("steps.yaml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = run(&["check", "--config", path.to_str().unwrap()]);
        (output.status.code(), stderr(&output))
    };
    let dns = "steps: {dns_rfc2136: {server: nowhere, zone: example.org., key_name: k, key_file: /k, \
               records: [{name: api.example.com., addresses: {zone-a: [192.0.2.1], zone-b: [192.0.2.1]}}]}}";
    let (code, said) = check(dns);
    assert_eq!(code, Some(3));
    for problem in ["steps.dns_rfc2136.server: `nowhere`", "steps.dns_rfc2136.records[0]"] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    let (code, said) = check("steps: {mesh_istio: null, taint: null}");
    assert!(code == Some(3) && said.contains("no step is left"), "{said}");
    let (code, said) = check("steps: {mesh_istio: {min_ready_elsewhere: 0}}");
    assert!(code == Some(3) && said.contains("without any endpoint"), "{said}");
    let (code, said) = check("steps: {mesh_distribute: {config_map: istio, istiod_token_file: /t}}");
    assert_eq!(code, Some(3));
    for problem in
        ["mesh_distribute.config_map: `istio` is the mesh's own", "no use without istiod", "mesh_istio: null"]
    {
        assert!(said.contains(problem), "{problem}: {said}");
    }
}

#[test]
fn acting_without_a_cluster_says_what_is_missing() {
    for arguments in [&["status"][..], &["restore", "zone-a"], &["preflight", "zone-a"]] {
        let output = zoneward()
            .args(arguments)
            .env("KUBECONFIG", "/no/such/kubeconfig")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains("no Kubernetes API is known") && said.contains("kubeconfig"), "{said}");
    }
}

#[test]
fn a_person_must_say_why_and_for_how_long() {
    for (arguments, hint) in [
        (&["isolate", "zone-a", "--for", "2h"][..], "--reason"),
        (&["isolate", "zone-a", "--reason", "x"], "--for"),
        (&["isolate", "zone-a", "--reason", "x", "--for", "90h"], "outside 1m to 72h"),
        (&["isolate", "zone-a", "--reason", "x", "--for", "2h", "--override", "another-zone-isolated"], "cooling-down"),
        (&["restore"], "<ZONE|--all|--expired>"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(hint), "{arguments:?}: {}", stderr(&output));
    }
}
