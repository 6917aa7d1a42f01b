//! Recorded stretches, replayed without Prometheus: the whole way from what is seen to what is decided.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::{decisions, json_lines, root, run, stderr, stdout, text};

/// Forty minutes of a made-up mesh of four services in three zones, whose proxies a real Prometheus scraped every 15 s
/// (not the embedded world's: another generator, whose numbers nothing here was tuned on). From 00:45:08 to 00:55:08 a
/// fifth of the requests to mockb and mockc fail in cn-hangzhou-j.
///
/// Made by `zoneward record --start 2025-01-06T00:30:00Z --end 2025-01-06T01:10:00Z`, with the default configuration.
const GRAY_ZONE: &str = "gray-zone.gz";

/// The like, of a roll-out from 00:45 on: zone by zone all pods of three services are replaced, and fail a little while
/// they are new.
///
/// Made by `zoneward record --start 2025-01-21T00:30:00Z --end 2025-01-21T01:10:00Z`, with the default configuration.
const ROLLOUT: &str = "rollout.gz";

fn shipped(name: &str) -> PathBuf {
    root().join("tests/recordings").join(name)
}

fn replay(recording: &Path, more: &[&str]) -> Output {
    let usual = ["backtest", "--config", "config/default.yaml", "--recording", recording.to_str().unwrap()];
    run(&[&usual[..], &["--output", "json"], more].concat())
}

fn replayed(recording: &Path, more: &[&str]) -> Vec<Value> {
    let output = replay(recording, more);
    assert!(output.status.success(), "{}", stderr(&output));
    json_lines(&stdout(&output))
}

fn refused(output: &Output, expected: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(stdout(output), "", "nothing is decided");
    assert!(said.contains(expected), "missing: {expected}\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

fn decided(time: &str, event: &str, zone: &str) -> (String, String, String) {
    (time.to_owned(), event.to_owned(), zone.to_owned())
}

#[test]
fn a_gray_zone_is_isolated_when_it_was_and_by_the_evidence_that_it_was() {
    let records = replayed(&shipped(GRAY_ZONE), &[]);
    let expected = [
        decided("2025-01-06T00:45:30Z", "suspect", "cn-hangzhou-j"),
        decided("2025-01-06T00:45:45Z", "isolate", "cn-hangzhou-j"),
        decided("2025-01-06T01:10:00Z", "clear", "cn-hangzhou-j"),
    ];
    assert_eq!(decisions(&records), expected);
    let isolated = records.iter().find(|r| text(r, "event") == "isolate").unwrap();
    assert_eq!(isolated["services"], serde_json::json!(["default/mockb", "default/mockc"]));
    assert_eq!(isolated["signals"], serde_json::json!(["server_errors"]));
    let sentence = "default/mockb fails 14.7 % (n = 450) against 0.00 % in its peers (n = 722)";
    assert!(text(isolated, "message").contains(sentence), "{}", text(isolated, "message"));
}

#[test]
fn a_roll_out_isolates_nothing_and_is_said_to_be_one() {
    let records = replayed(&shipped(ROLLOUT), &[]);
    let events: Vec<String> = decisions(&records).into_iter().map(|(_, event, _)| event).collect();
    assert!(!events.contains(&"isolate".to_owned()), "{events:?}");
    let held = records.iter().filter(|r| text(r, "event") == "blocked");
    let held: Vec<(&str, &str)> = held.map(|r| (text(r, "zone"), text(&r["reason"], "hold"))).collect();
    assert_eq!(held, [("cn-hangzhou-j", "rollout_in_progress")]);
}

#[test]
fn a_part_of_a_recording_can_be_replayed() {
    let before = ["--start", "2025-01-06T00:35:00Z", "--end", "2025-01-06T00:45:00Z"];
    let records = replayed(&shipped(GRAY_ZONE), &before);
    assert_eq!(decisions(&records), [], "the fault came later");
    assert_eq!(records.last().unwrap()["figures"]["cycles"], 41);

    let wider = ["--start", "2025-01-01", "--end", "2125-01-01"];
    let (wide, whole) = (replayed(&shipped(GRAY_ZONE), &wider), replayed(&shipped(GRAY_ZONE), &[]));
    assert_eq!(decisions(&wide), decisions(&whole), "there is no more than all of it");
}

#[test]
fn more_sensitive_settings_find_the_closer_looks_that_they_want() {
    let folder = tempfile::tempdir().unwrap();
    let sensitive = folder.path().join("sensitive.yaml");
    std::fs::write(&sensitive, "service: {trip: 8 nats, suspect: 5 nats}").unwrap();
    let sensitive = sensitive.to_str().unwrap();
    let recording = shipped(ROLLOUT);
    let output =
        run(&["backtest", "--config", sensitive, "--recording", recording.to_str().unwrap(), "--output", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let records = json_lines(&stdout(&output));
    let blind: Vec<&str> = records.iter().map(|r| text(r, "message")).filter(|m| m.contains("closer look")).collect();
    assert_eq!(blind, Vec::<&str>::new());
    let held = records.iter().filter(|r| text(r, "event") == "blocked");
    let held: Vec<(&str, &str)> = held.map(|r| (text(r, "zone"), text(&r["reason"], "hold"))).collect();
    let rollout = |zone| (zone, "rollout_in_progress");
    assert_eq!(
        held,
        [rollout("cn-hangzhou-j"), rollout("cn-hangzhou-i")],
        "pods are seen where usual settings ask for none"
    );
}

#[test]
fn what_is_no_recording_or_not_whole_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let whole = std::fs::read(shipped(GRAY_ZONE)).unwrap();
    let missing = folder.path().join("missing.gz");
    let named = |path: &Path, problem: &str| format!("{}{problem}", path.display());
    refused(&replay(&missing, &[]), &named(&missing, ": No such file or directory (os error 2)\n"));
    refused(&replay(folder.path(), &[]), "Is a directory");
    for (name, content, problem) in [
        ("empty.gz", &b""[..], ", line 1: it is cut off"),
        (
            "text.gz",
            b"this is a sentence of a dozen words, and no gzip at all",
            ", line 1: it is no recording of format 1",
        ),
        ("begun.gz", &whole[..5], ", line 1: it is cut off"),
    ] {
        let path = file(name, content);
        refused(&replay(&path, &[]), &named(&path, problem));
    }

    let cut = file("cut.gz", &whole[..whole.len() / 2]);
    let said = stderr(&replay(&cut, &[]));
    refused(&replay(&cut, &[]), "it is cut off");
    assert!(said.contains(&named(&cut, ", line ")), "{said}");

    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0xff;
    let damaged = file("damaged.gz", &damaged);
    refused(&replay(&damaged, &[]), &named(&damaged, ", line "));
}

#[test]
fn a_stretch_that_a_recording_does_not_hold_is_refused_with_the_one_it_does() {
    for outside in [["--start", "2025-02-01"], ["--end", "2025-01-06"]] {
        let output = replay(&shipped(GRAY_ZONE), &outside);
        refused(&output, "gray-zone.gz is about 2025-01-06T00:30:00Z to 2025-01-06T01:10:00Z, and nothing else");
    }
    let reversed = ["--start", "2025-01-06T01:00:00Z", "--end", "2025-01-06T00:40:00Z"];
    refused(&replay(&shipped(GRAY_ZONE), &reversed), "must be later than --start");
}

#[test]
fn a_backtest_is_of_a_recording_or_of_a_stretch_in_prometheus() {
    let both = replay(&shipped(GRAY_ZONE), &["--prometheus", "http://127.0.0.1:9"]);
    assert_eq!(both.status.code(), Some(2));
    assert!(
        stderr(&both).contains("'--recording <FILE>' cannot be used with '--prometheus <URL>'"),
        "{}",
        stderr(&both)
    );
    let (start, end) = (["--start", "2025-01-06"], ["--end", "2025-01-07"]);
    for (given, missing) in
        [(&[][..], "--start <TIME>\n  --end <TIME>"), (&start, "--end <TIME>"), (&end, "--start <TIME>")]
    {
        let asked = run(&[&["backtest", "--prometheus", "http://127.0.0.1:9"], given].concat());
        assert_eq!(asked.status.code(), Some(2));
        let said = stderr(&asked);
        assert!(said.contains(&format!("required arguments were not provided:\n  {missing}\n")), "{said}");
    }
}
