//! The house stays simple to see: who may import whom, and how large a room may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::root;

/// Module, what it may import of the crate, and of libraries beside std.
const IMPORTS: [(&str, &[&str], &[&str]); 23] = [
    ("domain", &["domain"], &["serde", "serde_json", "jiff", "globset", "regex"]),
    ("ports", &["domain"], &["async_trait", "jiff", "thiserror"]),
    ("detect", &["domain"], &["statrs", "serde", "jiff"]),
    ("decide", &["domain"], &["serde", "jiff"]),
    ("guard", &["domain"], &["serde", "jiff"]),
    (
        "observe",
        &["domain", "ports"],
        &[
            "prometheus_http_query",
            "reqwest",
            "base64",
            "flate2",
            "futures",
            "regex",
            "serde",
            "serde_json",
            "jiff",
            "async_trait",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
        ],
    ),
    (
        "kubernetes",
        &["domain", "ports"],
        &["kube", "k8s_openapi", "futures", "tokio", "tokio_util", "jiff", "serde", "thiserror"],
    ),
    ("http", &["domain"], &["reqwest", "serde", "thiserror"]),
    ("alertmanager", &["domain", "guard", "http"], &["serde", "serde_json", "jiff", "tokio", "tokio_util", "tracing"]),
    (
        "alibaba",
        &["domain", "ports"],
        &[
            "reqwest",
            "aws_lc_rs",
            "sha2",
            "hex",
            "rand",
            "tokio",
            "jiff",
            "serde",
            "serde_json",
            "thiserror",
            "tracing",
        ],
    ),
    (
        "isolate",
        &["domain", "ports", "guard", "kubernetes", "alibaba"],
        &[
            "kube",
            "k8s_openapi",
            "hickory_net",
            "hickory_proto",
            "aws_config",
            "aws_sdk_arczonalshift",
            "reqwest",
            "hmac",
            "sha2",
            "hex",
            "base64",
            "futures",
            "tokio",
            "tokio_util",
            "jiff",
            "schemars",
            "serde",
            "serde_json",
            "serde_saphyr",
            "async_trait",
            "thiserror",
        ],
    ),
    (
        "notify",
        &["domain", "ports", "kubernetes", "http"],
        &[
            "kube",
            "k8s_openapi",
            "futures",
            "jiff",
            "serde",
            "serde_json",
            "sha2",
            "hex",
            "tokio",
            "tokio_util",
            "tracing",
        ],
    ),
    (
        "leadership",
        &["domain", "ports", "kubernetes"],
        &["kube", "k8s_openapi", "tokio", "tokio_util", "jiff", "serde", "serde_json", "async_trait"],
    ),
    (
        "audit",
        &["domain", "ports"],
        &["sha2", "hex", "serde", "serde_json", "jiff", "tokio", "async_trait", "thiserror", "tracing"],
    ),
    (
        "pipeline",
        &["domain", "detect", "decide", "guard", "ports"],
        &["jiff", "thiserror", "tokio", "flate2", "serde", "serde_json", "async_trait"],
    ),
    ("serve", &[], &["axum", "hyper", "hyper_util", "serde", "tokio", "tokio_util"]),
    ("telemetry", &["domain"], &["tracing_subscriber", "prometheus_client"]),
    (
        "settings",
        &[
            "domain",
            "observe",
            "detect",
            "decide",
            "guard",
            "audit",
            "serve",
            "pipeline",
            "isolate",
            "kubernetes",
            "notify",
        ],
        &["config", "schemars", "serde", "serde_json", "serde_path_to_error", "thiserror"],
    ),
    (
        "sim",
        &["domain", "ports"],
        &[
            "rand",
            "rand_chacha",
            "rand_distr",
            "statrs",
            "config",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "axum",
            "tokio",
            "tokio_util",
            "jiff",
            "async_trait",
            "thiserror",
        ],
    ),
    ("report", &["domain"], &["jiff", "maud"]),
    ("cli", &["*"], &["*"]),
    ("main", &["*"], &["*"]),
    ("lib", &["*"], &["*"]),
];

const LONGEST_FILE: usize = 500;

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found.sort();
    found
}

fn module(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The part of a file that ships.
fn shipped(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

/// First path segments after `use`, and after `crate::` anywhere.
fn imports(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let names = rest.trim_start_matches('{');
            own.extend(names.split([':', ';', ',', '}', ' ', '(', ')', '>', '<']).take(1).map(str::to_owned));
            if rest.starts_with('{') {
                own.extend(
                    rest.trim_matches(['{', '}', ';']).split(", ").map(|n| n.split("::").next().unwrap().to_owned()),
                );
            }
        }
        if let Some(rest) = line.strip_prefix("use ") {
            let first = rest.split([':', ';', ' ']).next().unwrap();
            let a_crate = first.starts_with(|c: char| c.is_ascii_lowercase());
            if a_crate && !["std", "core", "crate", "super", "self"].contains(&first) {
                foreign.push(first.to_owned());
            }
        }
    }
    (own, foreign)
}

#[test]
fn modules_import_only_what_they_may() {
    let allowed: BTreeMap<&str, (&[&str], &[&str])> = IMPORTS.iter().map(|(m, own, ext)| (*m, (*own, *ext))).collect();
    let mut wrong = Vec::new();
    for path in sources() {
        let of_tests = path.parent().is_some_and(|folder| folder.ends_with("tests"));
        if of_tests || path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let module = module(&path);
        let (own_allowed, foreign_allowed) =
            allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is in no row"));
        let (own, foreign) = imports(&shipped(&path));
        let bad_own = own
            .into_iter()
            .filter(|name| *name != module && !own_allowed.contains(&"*") && !own_allowed.contains(&name.as_str()));
        let bad_foreign = foreign.into_iter().filter(|name| {
            !foreign_allowed.contains(&"*")
                && !foreign_allowed.contains(&name.as_str())
                && !own_allowed.contains(&name.as_str())
        });
        wrong.extend(bad_own.chain(bad_foreign).map(|name| format!("{}: {name}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_one_file_knows_the_client() {
    let knows = |path: &PathBuf| shipped(path).contains("prometheus_http_query::Client");
    let files: Vec<PathBuf> = sources().into_iter().filter(knows).collect();
    assert_eq!(files, [root().join("src/observe/api.rs")]);
}

/// What is pure although the rest of its module is not.
const PURE_FILES: [&str; 13] = [
    "notify/alerts.rs",
    "isolate/ledger.rs",
    "isolate/plan.rs",
    "isolate/words.rs",
    "isolate/conditions.rs",
    "isolate/convert.rs",
    "isolate/resource.rs",
    "isolate/steps/mesh_istio/plan.rs",
    "isolate/steps/dns_alibaba/plan.rs",
    "alibaba/sign.rs",
    "isolate/steps/mesh_distribute/preflight.rs",
    "isolate/steps/mesh_distribute/weights.rs",
    "kubernetes/view.rs",
];

#[test]
fn the_core_is_pure() {
    let pure = |path: &&PathBuf| {
        ["domain", "detect", "decide", "guard"].contains(&module(path).as_str())
            || PURE_FILES.iter().any(|file| **path == root().join("src").join(file))
    };
    assert!(PURE_FILES.iter().all(|file| root().join("src").join(file).exists()));
    for path in sources().iter().filter(pure) {
        let text = shipped(path);
        for banned in [
            "async ",
            "tracing::",
            "std::fs",
            "std::net",
            "std::env",
            "Instant",
            "::now()",
            "HashMap",
            "println!",
            "crate::observe",
            "crate::isolate",
            "Api<",
        ] {
            assert!(!text.contains(banned), "{}: {banned}", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_and_none_is_a_drawer() {
    for path in sources() {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{}: {lines} lines", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(!["utils", "util", "common", "helpers", "manager", "misc"].contains(&name), "{}", path.display());
    }
}
