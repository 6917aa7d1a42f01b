//! One story, in which a zone is sick beyond doubt from the second minute on: each of these guardrails alone keeps it in
//! rotation.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use zoneward::domain::{CycleLength, Event, Mode, Pause, Period, Snapshot};
use zoneward::guard;
use zoneward::isolate::MemoryStore;
use zoneward::pipeline::{Pipeline, Settings};
use zoneward::ports::{IsolationStore, Observer};
use zoneward::sim::WorldObserver;

use crate::executor::{Records, start, world};

fn minute(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

/// The first eight minutes. Returns what held the zone back, and in which minute it was isolated.
async fn story(
    guard: guard::Settings,
    mut every_cycle: impl FnMut(&mut Pipeline, &mut Snapshot),
) -> (Vec<String>, Option<i64>) {
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let (store, records) = (Arc::new(MemoryStore::default()), Arc::new(Records::default()));
    let mut observer = WorldObserver::new(world(), cycle);
    let settings = Settings { mode: Mode::Enforce, guard, ..Settings::default() };
    let mut pipeline = Pipeline::new(settings, cycle, store.clone(), records.clone());
    for snapshot in observer.observe(minute(-15), start()).await.unwrap() {
        pipeline.learn(&snapshot);
    }
    for mut snapshot in observer.observe(start() + cycle.signed(), minute(8)).await.unwrap() {
        every_cycle(&mut pipeline, &mut snapshot);
        pipeline.tick(&mut observer, &snapshot, snapshot.time).await.unwrap();
    }
    let blocked = records.kept().into_iter().filter(|record| record.event == Event::Blocked);
    let why = blocked.map(|record| record.reason.unwrap().as_str().to_owned()).collect();
    let isolated = store.list().await.unwrap().first().map(|i| i.requested_at.duration_since(start()).as_mins());
    (why, isolated)
}

#[tokio::test]
async fn without_any_of_them_the_zone_is_isolated() {
    assert_eq!(story(guard::Settings::default(), |_, _| {}).await, (vec![], Some(2)));
}

#[tokio::test]
async fn a_pause_until_it_ends() {
    let on = Pause::On { since: start(), until: None, why: "release".into() };
    let pause = |pipeline: &mut Pipeline, snapshot: &mut Snapshot| {
        pipeline.pause(if snapshot.time < minute(6) { on.clone() } else { Pause::Off });
    };
    assert_eq!(story(guard::Settings::default(), pause).await, (vec!["paused".to_owned()], Some(6)));
}

#[tokio::test]
async fn a_blocked_window_until_it_ends() {
    let window = r#"[{"from": "23:00", "to": "00:06", "why": "batches"}]"#;
    let settings = guard::Settings { blocked_windows: serde_json::from_str(window).unwrap(), ..Default::default() };
    assert_eq!(story(settings, |_, _| {}).await, (vec!["blocked_window".to_owned()], Some(6)));
}
