//! The JSON Schema of the configuration says what `zoneward check` says; completions and the plugin's name.

use std::os::unix::fs::symlink;
use std::process::Command;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};

use crate::support::{part, root, run, stderr, stdout, zoneward};

struct Schema(Schemas, SchemaIndex);

impl Schema {
    fn printed() -> Self {
        let text = stdout(&run(&["schema"]));
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", serde_json::from_str(&text).unwrap()).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        Self(schemas, index)
    }

    fn refuses(&self, configuration: &Value) -> Option<String> {
        self.0.validate(configuration, self.1).err().map(|error| error.to_string())
    }
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

/// The same with an unknown key in each section, one at a time: where, and the whole.
fn with_unknown_keys(whole: &Value) -> Vec<(String, Value)> {
    fn sections(value: &Value, path: &str, found: &mut Vec<String>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, child)| (key.clone(), child)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(i, child)| (i.to_string(), child)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        // Zones and the like are names of people's own.
        let free = ["addresses", "zones", "zone_ids"].iter().any(|name| path.ends_with(&format!("/{name}")));
        if value.is_object() && !free {
            found.push(path.to_owned());
        }
        children.into_iter().for_each(|(key, child)| sections(child, &format!("{path}/{key}"), found));
    }
    let mut paths = Vec::new();
    sections(whole, "", &mut paths);
    let with = |path: String| {
        let mut changed = whole.clone();
        changed.pointer_mut(&path).unwrap().as_object_mut().unwrap().insert("unheard_of".into(), json!(1));
        (path, changed)
    };
    paths.into_iter().map(with).collect()
}

const EXAMPLES: [&str; 3] =
    ["config/examples/alibaba-asm.yaml", "config/examples/istio.yaml", "config/examples/aws.yaml"];

#[test]
fn the_examples_are_right_and_so_is_the_schema_about_them() {
    let schema = Schema::printed();
    for path in EXAMPLES {
        let checked = run(&["check", "--config", path]);
        assert!(checked.status.success(), "{path}: {}{}", stdout(&checked), stderr(&checked));
    }
    for path in [&["config/default.yaml", "deploy/config.yaml"][..], &EXAMPLES].concat() {
        let configuration = yaml(path);
        assert_eq!(schema.refuses(&configuration), None, "{path}");
        for (section, changed) in with_unknown_keys(&configuration) {
            assert!(schema.refuses(&changed).is_some(), "{path} takes an unknown key in `{section}`");
        }
    }
}

#[test]
fn what_an_editor_would_let_pass_is_what_the_daemon_takes() {
    let schema = Schema::printed();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let cases = [
        ("mode: recommend", true),
        ("mode: sometimes", false),
        ("detect: {cycle: 30s}", true),
        ("detect: {cycle: 1m 10s}", true),
        ("detect: {cycle: 30}", false),
        ("service: {min_error_excess: 0.5 %}", true),
        ("service: {min_error_excess: 0.5}", false),
        ("service: {trip: 20 nats, min_slowdown: 1.2x}", true),
        ("service: {min_slowdown: 20%}", false),
        ("services: [{match: payments/*, trip: 20 nats}]", true),
        ("services: [{match: payments, trip: 20 nats}]", false),
        ("services: [{trip: 20 nats}]", false),
        ("services: [{match: a/b, failures: {response_codes: [5xx, 429, '0']}}]", true),
        ("steps: {mesh_istio: null}", true),
        ("steps: {webhook: {url: 'https://lb.example.org'}}", false),
        ("steps: {webhook: {url: 'https://lb.example.org', secret_file: /s}}", true),
        ("guard: {blocked_windows: [{from: '10:00', to: '11:00', why: release, days: [mon]}]}", true),
        ("guard: {blocked_windows: [{from: '10:00', to: '11:00', why: release, days: [monday]}]}", false),
        ("prometheus: {max_response: 64MiB, basic_auth: {username: a}}", false),
    ];
    for (text, right) in cases {
        let refused = schema.refuses(&serde_saphyr::from_str(text).unwrap());
        assert_eq!(refused.is_none(), right, "the schema of `{text}`: {refused:?}");
        std::fs::write(&file, text).unwrap();
        let checked = run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(checked.status.code() != Some(3), right, "the check of `{text}`: {}", stderr(&checked));
    }
}

#[test]
fn each_setting_has_its_words_and_the_schema_that_editors_read_is_the_newest() {
    let printed = stdout(&run(&["schema"]));
    let schema: Value = serde_json::from_str(&printed).unwrap();
    let words = |path: &str| schema.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    assert_eq!(words("/properties/detect/properties/cycle/default"), "15s");
    let cycle = words("/properties/detect/properties/cycle/description");
    assert!(cycle.starts_with("between two looks"), "{cycle}");
    let server = "/properties/steps/properties/dns_rfc2136/properties/server/description";
    assert!(words(server).starts_with("the primary name server"), "{}", words(server));
    let kept = std::fs::read_to_string(root().join("config/schema.json")).unwrap();
    assert!(kept == printed, "config/schema.json is out of date: make config/schema.json");
}

#[test]
fn shells_complete_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && stdout(&output).contains("preflight"), "{shell}: {}", stderr(&output));
    }
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(zoneward isol); COMP_CWORD=1; \
                  _zoneward zoneward isol zoneward; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_zoneward")]).output().unwrap();
    assert_eq!(stdout(&output), "isolate\n", "{}", stderr(&output));
}

#[test]
fn kubectl_finds_it_as_a_plugin_that_knows_its_name() {
    let folder = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_zoneward"), folder.path().join("kubectl-zoneward")).unwrap();
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(part("kube"));
        command.arg("kubectl").args(arguments).env("PATH", folder.path()).env("HOME", folder.path());
        command.output().unwrap()
    };
    let help = kubectl(&["zoneward", "isolate", "--help"]);
    assert!(stdout(&help).contains("Usage: kubectl zoneward isolate"), "{}{}", stdout(&help), stderr(&help));
    let wrong = kubectl(&["zoneward", "isolate"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
    assert!(stdout(&zoneward().arg("--help").output().unwrap()).contains("Usage: zoneward <COMMAND>"));
}
