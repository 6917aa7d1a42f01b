//! Names from labels, which anybody may set who runs a pod: they are text, and nothing else, wherever they come to; on a real
//! Prometheus, from the series to the page.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use zoneward::domain::Zone;
use zoneward::isolate::KubernetesStore;

use crate::backfill::{Spoil, backfilled_prometheus, samples, start};
use crate::cluster::Cluster;
use crate::support::{json_lines, root, stderr, stdout, text, whatever_the_source, zoneward};

/// HTML, ends of strings in `PromQL`, escapes of terminals, ends of lines, other directions of writing, paths, templates.
const SERVICE: &str = "\"><script>alert(1)</script>\u{1b}[2J\u{1b}]0;owned\u{7}\nFORGED";
const OTHER: &str = "x\"} or vector(1) # \\ {{ .Values }} %s $1";
const NAMESPACE: &str = "</title><img src=x onerror=alert(1)>\u{9b}31m";
const SICK: &str = "../../etc/passwd\r\nFORGED \u{202e}live\u{2066}";
const WELL: &str = "'; DROP TABLE zones; --\u{1b}c";

const STORY: &str = "
title: A gray failure in a mesh of strange names
zones: [zone-a, zone-b, zone-c]
services:
  - {name: mocka, errors: 0.1%, median_ms: 4}
  - {name: mockb, errors: 0.1%, median_ms: 5}
requests_per_second: 150
history: 10s
scrape_interval: 5s
duration: 6m
faults:
  - {at: 3m, until: 10m, zones: [zone-b], services: [mockb], errors: 40%}
expect: {isolate: zone-b, users_succeed: 90%}
";

/// As the text formats of metrics have it.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn hostile_samples(long: &str) -> String {
    let mut text = samples(STORY, Spoil::Nothing).0;
    for (key, name, value) in [
        ("destination_service_name", "mockb", SERVICE),
        ("destination_service_name", "mocka", &format!("{OTHER}{long}")),
        ("destination_service_namespace", "default", NAMESPACE),
        ("locality", "zone-b", SICK),
        ("locality", "zone-c", WELL),
    ] {
        let known = format!("{key}=\"{name}\"");
        assert!(text.contains(&known), "{known}");
        text = text.replace(&known, &format!("{key}=\"{}\"", label(value)));
    }
    text
}

/// Nothing in it moves a cursor, commands a terminal, begins a line of its own or turns the direction of writing.
fn is_inert(what: &str, bytes: &[u8]) -> String {
    let text = commands_nothing(what, bytes);
    let forged = |line: &str| line.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with("FORGED");
    assert!(!text.lines().any(forged), "{what} has a line of somebody else's: {text}");
    text
}

fn commands_nothing(what: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap_or_else(|e| panic!("{what}: {e}"));
    for c in ['\u{1b}', '\u{7}', '\r', '\u{9b}', '\u{202e}', '\u{2066}', '\0'] {
        assert!(!text.contains(c), "{what} has {c:?}: {text}");
    }
    text
}

fn said(arguments: &[&str], output: &Output) -> String {
    let what = arguments.join(" ");
    let told = is_inert(&what, &output.stdout);
    let logged = is_inert(&format!("{what}, on standard error"), &output.stderr);
    assert!(output.status.success(), "{what}: {told}{logged}");
    told
}

fn page(path: &Path) -> String {
    let html = is_inert("a page", &std::fs::read(path).unwrap());
    for tag in ["<script", "<img", "<svg onload", "onerror=alert(1)>"] {
        assert!(!html.contains(tag), "{tag}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)"), "it is shown as what it is");
    html
}

#[test]
fn names_that_mean_harm_do_none_from_the_metrics_to_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let long = "ü".repeat(5_000);
    let prometheus = backfilled_prometheus(3, folder.path(), &hostile_samples(&long));
    let end = start() + std::time::Duration::from_mins(6);
    let run = |arguments: &[&str]| {
        let mut command = zoneward();
        command.args(arguments).env("RUST_LOG", "info").env("ZONEWARD_PROMETHEUS__URL", prometheus.url());
        command.env("ZONEWARD_PROMETHEUS__HISTORY", "2m").output().unwrap()
    };
    let told = |arguments: &[&str]| said(arguments, &run(arguments));
    let (begin, end) = (start().to_string(), end.to_string());
    let stretch = ["--start", begin.as_str(), "--end", end.as_str()];

    let checked = run(&["check", "--connect", "--at", &end]);
    let checked = is_inert("check", &checked.stdout);
    assert!(checked.contains("etc/passwd") && checked.contains("script"), "{checked}");

    let table = told(&[&["backtest", "--report", &path("day.html")][..], &stretch].concat());
    assert!(table.contains("would be isolated"), "{table}");
    assert!(table.len() < 200_000, "a name is cut: {} bytes", table.len());
    page(Path::new(&path("day.html")));

    let lines = told(&[&["backtest", "--output", "json"][..], &stretch].concat());
    let records = json_lines(&lines);
    let isolated = records.iter().find(|r| text(r, "event") == "isolate").unwrap();
    assert_eq!(text(isolated, "zone"), SICK, "programs get it as it is");
    // A question that a name had broken out of would be refused, or answer of something else.
    let gaps = records.iter().filter(|r| text(r, "event") == "gap").map(|r| text(r, "message"));
    assert!(gaps.clone().all(|gap| !gap.contains("refused")), "{:?}", gaps.collect::<Vec<_>>());
    let of_service = format!("{NAMESPACE}/{SERVICE}");
    assert!(isolated["evidence"].as_array().unwrap().iter().all(|it| text(it, "service") == of_service), "{isolated}");

    told(&[&["record", "--output", &path("stretch.gz")][..], &stretch].concat());
    let replayed = json_lines(&told(&["backtest", "--output", "json", "--recording", &path("stretch.gz")]));
    assert_eq!(whatever_the_source(replayed), whatever_the_source(records), "the same from its recording");
}

#[test]
fn the_journal_and_all_that_is_told_from_it_have_them_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let yaml = STORY
        .replace("mockb", &serde_json::to_string(SERVICE).unwrap())
        .replace("zone-b", &serde_json::to_string(SICK).unwrap())
        .replace("zone-c", &serde_json::to_string(WELL).unwrap())
        // The demo tells its story's own words as they are, and wraps lines where it likes.
        .replace("\\nFORGED", "");
    std::fs::write(path("story.yaml"), yaml).unwrap();
    let run = |arguments: &[&str]| zoneward().args(arguments).env("RUST_LOG", "info").output().unwrap();
    let told = |arguments: &[&str]| said(arguments, &run(arguments));
    let journal = path("audit");
    let demo = run(&["demo", "--speed", "max", "--scenario", &path("story.yaml"), "--journal", &journal]);
    commands_nothing("demo", &demo.stdout);
    let logged = commands_nothing("the log of the demo", &demo.stderr);
    assert!(logged.contains("would be") || logged.contains("isolate"), "{logged}");
    for entry in std::fs::read_dir(&journal).unwrap() {
        let entry = entry.unwrap().path();
        let name = entry.file_name().unwrap().to_str().unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)), "{name}");
        let bytes = std::fs::read(&entry).unwrap();
        match entry.extension().and_then(|it| it.to_str()) {
            Some("gz") => drop(MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut Vec::new()).unwrap()),
            _ => drop(is_inert("the journal", &bytes)),
        }
    }
    let list = told(&["audit", "--from", &journal]);
    assert!(list.contains("etc/passwd"), "{list}");
    let entries = json_lines(&told(&["audit", "--from", &journal, "--output", "json"]));
    let isolated = entries.iter().find(|r| text(r, "event") == "isolate").unwrap();
    assert_eq!(text(isolated, "zone"), SICK.replace("\nFORGED", ""));
    told(&["audit", "--from", &journal, "show", text(isolated, "id")]);
    let again = told(&["audit", "--from", &journal, "replay", text(isolated, "id")]);
    assert!(again.contains("byte-identical"), "{again}");
    told(&["audit", "--from", &journal, "verify"]);
    told(&["audit", "--from", &journal, "report", &path("story.html")]);
    page(Path::new(&path("story.html")));
}

/// Answers anything by these bytes.
fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _read = stream.read(&mut [0; 8 * 1024]);
            let _gone = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            let _gone = stream.write_all(answer);
        }
    });
    format!("http://{address}")
}

#[test]
fn an_answer_of_bytes_that_are_no_text_is_refused_in_words_that_are() {
    for answer in [
        &b"{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"locality\":\"\xff\xfe\x1b[2J\"},\"values\":[[1,\"1\"]]}]}}"[..],
        b"{\"status\":\"error\",\"errorType\":\"execution\",\"error\":\"\\u001b[2J\\r\\nFORGED \\u202e\"}",
        b"\xff\xfe\x1b[2J\x07\r\nFORGED",
    ] {
        let output = zoneward()
            .args(["backtest", "--start", "2026-01-01T00:00:00Z", "--end", "2026-01-01T00:05:00Z", "--output", "json"])
            .env("ZONEWARD_PROMETHEUS__URL", answering(answer))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
        is_inert("the error", &output.stderr);
        assert_eq!(stdout(&output), "", "nothing is decided");
    }
}

#[tokio::test]
async fn a_zone_whose_name_would_lead_elsewhere_in_the_api_is_no_object_there() {
    let cluster = Cluster::start();
    cluster.apply(&std::fs::read_to_string(root().join("deploy/crd.yaml")).unwrap());
    let store = KubernetesStore::new(&crate::steps::client(&cluster).await);
    let zones = ["zone-a", SICK, "../zones/zone-b", "zone-c?x", "zone-d/status", "", "Zone_E", OTHER];
    let verdicts: BTreeMap<Zone, &str> = zones.iter().map(|zone| (Zone::new(*zone), "healthy")).collect();
    // A kind that has just been defined is served a moment later.
    let mut noted = store.note_verdicts(&verdicts, Timestamp::UNIX_EPOCH).await;
    for _ in 0..100 {
        if noted.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        noted = store.note_verdicts(&verdicts, Timestamp::UNIX_EPOCH).await;
    }
    noted.unwrap();
    assert_eq!(cluster.kubectl(&["get", "zones.zoneward.io", "-o", "name"]).trim(), "zone.zoneward.io/zone-a");
    for zone in ["../zones/zone-a", "a?b"] {
        let output = zoneward()
            .args(["isolate", zone, "--reason", "x", "--for", "1h"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .output()
            .unwrap();
        assert!(stderr(&output).contains("can't be the name of a zone"), "{}", stderr(&output));
    }
}
