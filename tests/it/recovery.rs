//! How isolations end by what is seen: on evidence, by shares, after relapses; and by rollback, when they do harm or no good.

use serde_json::Value;

use crate::support::{json_lines, run, stderr, stdout, text};

/// Three zones, a chain of two services, and what goes wrong.
fn story(minutes: u32, more: &str, faults: &[&str]) -> Vec<Value> {
    let scenario = format!(
        "title: a test\nzones: [zone-a, zone-b, zone-c]\nservices:\n  - {{name: web, errors: 0.05%, median_ms: 5}}\n  \
         - {{name: db, pods_per_zone: 4, errors: 0.05%, median_ms: 5}}\nrequests_per_second: 60\nduration: {minutes}m\n{more}\n\
         faults: [{}]\nexpect: {{users_succeed: 0%}}\n",
        faults.iter().map(|fault| format!("{{zones: [zone-b], {fault}}}")).collect::<Vec<_>>().join(", ")
    );
    tell(&scenario)
}

fn tell(scenario: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("story.yaml");
    std::fs::write(&path, scenario).unwrap();
    let output = run(&["demo", "--scenario", path.to_str().unwrap(), "--speed", "max", "--output", "json"]);
    let lines = json_lines(&stdout(&output));
    assert!(lines.last().is_some_and(|line| text(line, "event") == "summary"), "{}", stderr(&output));
    lines
}

/// What was decided, in order: each event but steps, with the minute of the story.
fn course(lines: &[Value]) -> Vec<(String, f64)> {
    let told = ["isolate", "recovering", "relapsed", "rolled_back", "reclassified", "restore", "restored", "blocked"];
    let minute = |line: &Value| {
        let at: jiff::Timestamp = text(line, "time").parse().unwrap();
        at.duration_since("2026-01-01T00:00:00Z".parse().unwrap()).as_secs_f64() / 60.0
    };
    let told = lines.iter().filter(|line| told.contains(&text(line, "event")));
    told.map(|line| (text(line, "event").to_owned(), minute(line))).collect()
}

fn events(course: &[(String, f64)]) -> Vec<&str> {
    course.iter().map(|(event, _)| event.as_str()).collect()
}

const BACK: [&str; 7] = ["recovering", "recovering", "recovering", "recovering", "recovering", "recovering", "restore"];

#[test]
fn a_zone_whose_pods_answer_comes_back_by_shares_and_dns_last() {
    let lines = story(21, "probes: true", &["at: 2m, until: 6m, errors: 30%"]);
    let course = course(&lines);
    assert_eq!(events(&course), [&["isolate"], &BACK[..], &["restored"]].concat(), "{course:?}");
    let first = course[1].1;
    assert!((10.0..13.0).contains(&first), "five minutes after the fault: {course:?}");
    let steps: Vec<(&str, u64)> = lines
        .iter()
        .filter(|line| line["step"]["state"] == "applied" && line["step"]["share"] != 0)
        .map(|line| (text(&line["step"], "name"), line["step"]["share"].as_u64().unwrap()))
        .collect();
    let order = [("taint", 100), ("mesh", 5), ("mesh", 25), ("mesh", 50), ("mesh", 100), ("dns", 100)];
    assert_eq!(steps, order, "new pods first, then traffic by shares, then what comes back as a whole");
    assert_eq!(lines.last().unwrap()["figures"]["clean"], true);
}

#[test]
fn a_zone_that_gets_worse_again_on_its_way_is_taken_out_again_and_tried_later() {
    let lines = story(46, "probes: true", &["at: 2m, until: 6m, errors: 30%", "at: 14m, until: 24m, errors: 30%"]);
    let course = course(&lines);
    let relapse = course.iter().find(|(event, _)| event == "relapsed").unwrap_or_else(|| panic!("{course:?}"));
    assert!((14.0..15.0).contains(&relapse.1), "within a minute of the fault: {course:?}");
    let tried_again = course.iter().find(|(event, at)| event == "recovering" && *at > relapse.1).unwrap();
    assert!(tried_again.1 >= 28.0, "five minutes after the second fault, and ten after the relapse: {course:?}");
    assert_eq!(events(&course).iter().filter(|event| **event == "isolate").count(), 1, "one episode: {course:?}");
    assert_eq!(course.last().unwrap().0, "restored", "{course:?}");
    let why = lines.iter().find(|line| text(line, "event") == "relapsed").unwrap();
    assert!(text(why, "message").contains("db fails") || text(why, "message").contains("web fails"), "{why}");
}

#[test]
fn without_anything_that_shows_its_recovery_it_stays_out_until_it_expires_and_then_comes_by_shares() {
    let lines = story(24, "isolation_expires_after: 10m", &["at: 2m, until: 4m, errors: 30%"]);
    let course = course(&lines);
    assert_eq!(events(&course), [&["isolate"], &BACK[..], &["restored"]].concat(), "{course:?}");
    assert!(course[1].1 >= 12.4, "not before it expired: {course:?}");
    assert!(lines.iter().any(|line| text(line, "message").contains("its isolation expired at")));
}

#[test]
fn a_zone_that_is_still_sick_when_its_isolation_expires_is_not_given_back() {
    let lines = story(20, "isolation_expires_after: 5m", &["at: 2m, until: 1h, errors: 30%"]);
    let course = course(&lines);
    let again_and_again = ["recovering", "recovering", "relapsed"];
    assert_eq!(events(&course), [&["isolate"], &again_and_again[..], &again_and_again[..]].concat(), "{course:?}");
}

/// Zone-b fails so much, and long after it was taken out something happens to the others.
fn after_isolation(errors: &str, others: &str) -> Vec<Value> {
    tell(&format!(
        "title: a test\nzones: [zone-a, zone-b, zone-c]\nservices:\n  - {{name: web, errors: 0.05%, median_ms: 20, \
         calls_next: false}}\nrequests_per_second: 90\nduration: 14m\nfaults:\n  - {{zones: [zone-b], at: 2m, until: 20m, \
         errors: {errors}}}\n  - {{zones: [zone-a, zone-c], at: 9m, until: 20m, {others}}}\nexpect: {{users_succeed: 0%}}\n"
    ))
}

#[test]
fn an_isolation_that_slows_the_other_zones_down_is_given_up_and_not_repeated() {
    let lines = after_isolation("12%", "slowdown: 1.7x");
    let course = course(&lines);
    let acted: Vec<&str> = events(&course).into_iter().filter(|event| *event != "blocked").collect();
    assert_eq!(acted, ["isolate", "rolled_back", "restore", "restored"], "{course:?}");
    let record = lines.iter().find(|line| text(line, "event") == "rolled_back").unwrap();
    let said = text(record, "message");
    assert!(said.contains("ms before (rollback.max_slowdown 1.5x)") && said.contains("a person should look"), "{said}");
    let held: Vec<&str> =
        lines.iter().filter(|line| text(line, "event") == "blocked").map(|line| text(line, "message")).collect();
    assert!(held.iter().any(|held| held.contains("an operator holds it")), "no loop: {held:?}");
    assert_eq!(lines.last().unwrap()["figures"]["clean"], true);
}

#[test]
fn an_isolation_that_does_no_good_is_given_up() {
    let lines = after_isolation("6%", "errors: 1.8%");
    let course = course(&lines);
    let acted: Vec<&str> = events(&course).into_iter().filter(|event| *event != "blocked").collect();
    assert_eq!(acted, ["isolate", "rolled_back", "restore", "restored"], "{course:?}");
    let record = lines.iter().find(|line| text(line, "event") == "rolled_back").unwrap();
    assert!(text(record, "message").contains("it does no good: "), "{record}");
}
