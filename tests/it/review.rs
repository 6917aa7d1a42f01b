//! A journal reviewed: what was decided is told with its numbers, and decided again from what it rested on.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{json_lines, run, stderr, stdout, text};

/// The demo's story, as its journal keeps it.
fn journal(folder: &Path, scenario: &str) -> PathBuf {
    let directory = folder.join("audit");
    let scenario = format!("config/scenarios/{scenario}.yaml");
    let output =
        run(&["demo", "--scenario", &scenario, "--speed", "max", "--output", "json", "--journal", path(&directory)]);
    assert!(output.status.success(), "{}", stderr(&output));
    directory
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn audit(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run(&[&["audit", "--from", path(directory)], arguments].concat());
    (output.status.code().unwrap(), stdout(&output) + &stderr(&output))
}

fn entries(directory: &Path) -> Vec<Value> {
    json_lines(&audit(directory, &["--output", "json"]).1)
}

fn id(entry: &Value) -> &str {
    text(entry, "id")
}

fn of<'a>(entries: &'a [Value], event: &str) -> &'a Value {
    entries.iter().find(|entry| text(entry, "event") == event).unwrap_or_else(|| panic!("no {event}: {entries:#?}"))
}

#[test]
fn a_decision_is_told_with_its_numbers_its_guardrails_and_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let directory = journal(folder.path(), "gray-zone");
    let all = entries(&directory);
    let decided = of(&all, "isolate");
    let (code, told) = audit(&directory, &["show", id(decided)]);
    assert_eq!(code, 0, "{told}");
    for words in [
        id(decided),
        "What was seen",
        "(n = ",
        "in its peers",
        "points [",
        "Suspect since",
        "a fault of this zone alone",
        "too_few_healthy_zones",
        "2 healthy would be left, and 1 must",
        "0 of 3 of this zone in 24 h",
        "The whole story",
        "effective",
        "restored",
        "audit replay",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (_, told) = audit(&directory, &["show", &id(decided)[..6], "--output", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let events: Vec<&str> = told["story"].as_array().unwrap().iter().map(|entry| text(entry, "event")).collect();
    assert_eq!((events[0], events[1], events[events.len() - 1]), ("fault", "suspect", "restored"), "{events:?}");
    assert!(told["entry"]["guardrails"].as_array().unwrap().len() >= 20, "each has its say: {told}");
}

#[test]
fn every_decision_is_made_again_byte_by_byte() {
    for scenario in ["gray-zone", "regional", "one-bad-pod"] {
        let folder = tempfile::tempdir().unwrap();
        let directory = journal(folder.path(), scenario);
        let all = entries(&directory);
        let citing: Vec<&Value> = all.iter().filter(|entry| entry["inputs"].is_string()).collect();
        let must = |event: &&str| all.iter().any(|entry| text(entry, "event") == *event);
        for event in ["isolate", "blocked"].iter().filter(|event| must(event)) {
            assert!(citing.iter().any(|entry| text(entry, "event") == *event), "{scenario}: no {event} cites any");
        }
        assert!(!citing.is_empty(), "{scenario}");
        for entry in citing {
            let (code, said) = audit(&directory, &["replay", id(entry)]);
            assert_eq!(code, 0, "{scenario}: {said}");
            assert!(said.contains("byte-identical"), "{said}");
        }
        let step = all.iter().find(|entry| entry["inputs"].is_null()).unwrap();
        let (code, said) = audit(&directory, &["replay", id(step)]);
        assert!(code == 1 && said.contains("cites no inputs"), "{said}");
    }
}

/// Writes the journal anew, with every hash right: as somebody would who knows how.
fn forge(file: &Path, change: impl Fn(&str) -> String) {
    use sha2::{Digest, Sha256};
    let text = std::fs::read_to_string(file).unwrap();
    let mut previous = "0".repeat(64);
    let mut forged = String::new();
    for (n, line) in text.lines().enumerate() {
        let (_, record) = line.split_once("\"record\":").unwrap();
        let record = change(record.strip_suffix('}').unwrap());
        let mut hasher = Sha256::new();
        hasher.update(&previous);
        hasher.update((n as u64).to_be_bytes());
        hasher.update(&record);
        let hash = hex::encode(hasher.finalize());
        forged += &format!("{{\"n\":{n},\"hash\":\"{hash}\",\"prev\":\"{previous}\",\"record\":{record}}}\n");
        previous = hash;
    }
    std::fs::write(file, forged).unwrap();
}

#[test]
fn what_was_forged_is_found_by_deciding_again() {
    let folder = tempfile::tempdir().unwrap();
    let directory = journal(folder.path(), "gray-zone");
    let files = |prefix: &str| {
        let files = std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect::<Vec<_>>()
    };
    // The chain is whole, and yet it was not decided so.
    forge(&files("audit-")[0], |record| {
        record.replace("\"persistent\"", "\"x\"").replacen("\"seen\":0.", "\"seen\":0.9", 1)
    });
    assert_eq!(audit(&directory, &["verify"]).0, 0);
    let all = entries(&directory);
    let forged = id(of(&all, "isolate"));
    let (code, said) = audit(&directory, &["replay", forged]);
    assert!(code == 1 && said.contains("differs, first in evidence.0.seen"), "{said}");

    for file in files("inputs-") {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let (code, said) = audit(&directory, &["replay", forged]);
    assert!(code == 1 && said.contains("was changed after it was written: its SHA-256 is"), "{said}");
    for file in files("inputs-") {
        std::fs::remove_file(file).unwrap();
    }
    let (code, said) = audit(&directory, &["replay", forged]);
    assert!(code == 1 && said.contains("it was retired, or removed"), "{said}");
}

#[test]
fn a_page_for_the_post_mortem_tells_the_stories_of_a_stretch() {
    let folder = tempfile::tempdir().unwrap();
    let directory = journal(folder.path(), "gray-zone");
    let page = folder.path().join("page.html");
    let (code, said) = audit(&directory, &["report", "--since", "2026-01-01", path(&page)]);
    assert_eq!(code, 0, "{said}");
    let html = std::fs::read_to_string(&page).unwrap();
    let all = entries(&directory);
    for words in [
        "Isolated: cn-hangzhou-h once",
        "whole: ",
        "every step confirmed",
        "shown by the traffic",
        "back in rotation",
        "requests answered per second",
        "guardrails passed",
        "zoneward audit replay",
        id(of(&all, "isolate")),
        id(of(&all, "restored")),
    ] {
        assert!(html.contains(words), "{words}");
    }
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"), "one file alone");
    assert!(html.contains("<path class=\"curve own\""), "its evidence is drawn");
    let (code, said) = audit(&directory, &["report", "--zone", "nowhere", path(&page)]);
    assert!(code == 1 && said.contains("nothing is on record of nowhere"), "{said}");
    let (code, said) = audit(&directory, &["report", "no/such/folder/page.html"]);
    assert!(code == 1 && said.contains("there is no folder"), "{said}");
}
