//! Every story in `config/scenarios` ends as its file expects, and every time alike.

use crate::reclassification::LATE;
use crate::support::{json_lines, root, run, stderr, stdout, text};

const SEEDS: [&str; 3] = ["1", "2", "3"];

#[test]
fn every_scenario_ends_as_its_file_expects() {
    let mut told = 0;
    for entry in std::fs::read_dir(root().join("config/scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        for seed in SEEDS {
            let file = path.to_str().unwrap();
            let output = run(&["demo", "--scenario", file, "--seed", seed, "--speed", "max", "--output", "json"]);
            let lines = json_lines(&stdout(&output));
            let summary = lines.last().unwrap_or_else(|| panic!("{file}: {}", stderr(&output)));
            assert!(output.status.success(), "{file}, seed {seed}: {}", text(summary, "message"));
            told += 1;
        }
    }
    assert!(told >= 24, "only {told} stories");
}

#[test]
fn the_demo_tells_the_whole_loop_in_order() {
    let output = run(&["demo", "--speed", "max", "--output", "json"]);
    let lines = json_lines(&stdout(&output));
    let events: Vec<&str> = lines.iter().map(|line| text(line, "event")).collect();
    let mut at = 0;
    let expected = [
        "fault",
        "suspect",
        "isolate",
        "step",
        "isolated",
        "effective",
        "repair",
        "recovering",
        "step",
        "restore",
        "step",
        "restored",
        "summary",
    ];
    for event in expected {
        let found = events[at..].iter().position(|e| *e == event);
        at += found.unwrap_or_else(|| panic!("no `{event}` in its place: {events:?}")) + 1;
    }
    assert_eq!(at, events.len(), "the summary is the last line");
    for step in ["mesh", "dns", "taint"] {
        let states: Vec<&str> =
            lines.iter().filter(|l| l["step"]["name"] == step).map(|l| text(&l["step"], "state")).collect();
        let back = states.len() - 2;
        assert_eq!(
            (&states[..3], &states[back..]),
            (&["captured", "applied", "confirmed"][..], &["applied", "undone"][..])
        );
    }
    let effective = lines.iter().find(|line| text(line, "event") == "effective").unwrap();
    assert_eq!(effective["effective"]["after_rps"], 0.0, "the zone's traffic falls to nothing");
}

#[test]
fn equal_seeds_tell_equal_stories_and_others_do_not() {
    let tell = |seed| stdout(&run(&["demo", "--seed", seed, "--speed", "max", "--output", "json"]));
    assert_eq!(tell("7"), tell("7"));
    assert_ne!(tell("7"), tell("8"));
}

#[test]
fn a_story_that_does_not_end_well_says_so_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("never-mended.yaml");
    let story = std::fs::read_to_string(root().join("config/scenarios/gray-zone.yaml")).unwrap();
    std::fs::write(&path, story.replace("until: 10m", "until: 1h")).unwrap();
    let output = run(&["demo", "--scenario", path.to_str().unwrap(), "--speed", "max", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&stdout(&output));
    assert_eq!(lines.last().unwrap()["figures"]["as_expected"], false);
}

#[test]
fn people_are_told_in_plain_words() {
    let output = run(&["demo", "--speed", "max"]);
    let story = stdout(&output);
    for words in ["the world breaks", "is to be isolated for 1h", "is back in rotation", "as expected"] {
        assert!(story.contains(words), "{words}: {story}");
    }
}

#[test]
fn a_fault_that_turns_out_to_be_regional_gives_the_capacity_back_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("regional-late.yaml");
    std::fs::write(&path, LATE).unwrap();
    let output = run(&["demo", "--scenario", path.to_str().unwrap(), "--speed", "max", "--output", "json"]);
    let lines = json_lines(&stdout(&output));
    let at = |event: &str| lines.iter().find(|l| text(l, "event") == event).map(|l| text(l, "time").to_owned());
    assert_eq!(at("isolate").unwrap(), "2026-01-01T00:02:30Z");
    let given_back = at("restored").unwrap_or_else(|| panic!("{}", stdout(&output)));
    assert_eq!(at("reclassified").as_ref(), Some(&given_back), "in the same cycle");
    assert!(given_back.as_str() <= "2026-01-01T00:04:15Z", "within three cycles of the others' fault: {given_back}");
}
