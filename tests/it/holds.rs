//! An operator's hold: it binds the detector for as long as the fault lasts, and no longer.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use zoneward::domain::{CycleLength, Event, HoldReason, Mode, OperatorHold, Period, Record, Zone};
use zoneward::isolate::MemoryStore;
use zoneward::pipeline::{Pipeline, Settings};
use zoneward::ports::{AuditError, AuditSink, IsolationStore, Observer};
use zoneward::sim::{Scenario, World, WorldObserver};

#[derive(Default)]
struct Records(Mutex<Vec<Record>>);

#[async_trait]
impl AuditSink for Records {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(record);
        Ok(())
    }
}

/// The article's story, with a fault from the second to the tenth minute, told to a daemon that enforces.
async fn tell(hold: OperatorHold) -> (Arc<MemoryStore>, Vec<Record>) {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let world = Arc::new(Mutex::new(World::new(Scenario::article().unwrap(), start, 1)));
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let (store, records) = (Arc::new(MemoryStore::default()), Arc::new(Records::default()));
    store.hold(&Zone::new("cn-hangzhou-h"), hold).await.unwrap();
    let mut observer = WorldObserver::new(Arc::clone(&world), cycle);
    let settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    let mut pipeline = Pipeline::new(settings, cycle, store.clone(), records.clone());
    let history = observer.observe(start - SignedDuration::from_mins(15), start).await.unwrap();
    history.iter().for_each(|snapshot| pipeline.learn(snapshot));
    for snapshot in observer.observe(start + cycle.signed(), start + SignedDuration::from_mins(30)).await.unwrap() {
        pipeline.tick(&mut observer, &snapshot, snapshot.time).await.unwrap();
    }
    let kept = records.0.lock().unwrap().clone();
    (store, kept)
}

fn hold(until_healthy: bool) -> OperatorHold {
    let since = "2025-12-31T23:59:00Z".parse().unwrap();
    OperatorHold { since, why: "given back by hand".into(), until_healthy }
}

#[tokio::test]
async fn what_was_given_back_by_hand_is_held_through_the_fault_and_let_go_once_the_zone_is_healthy() {
    let (store, records) = tell(hold(true)).await;
    assert!(store.list().await.unwrap().is_empty(), "nothing is isolated");
    let held = records.iter().find(|r| matches!(r.reason, Some(HoldReason::OperatorHold { .. }))).unwrap();
    assert!(held.event == Event::Blocked && held.message.contains("given back by hand"), "{held:?}");
    let end = records.iter().find(|r| r.message.contains("the hold of")).unwrap();
    let mended: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    let healthy_for = end.time.duration_since(mended);
    assert!(healthy_for >= SignedDuration::from_mins(5), "not before it was healthy for a while: {healthy_for}");
    assert!(store.holds().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_an_operator_wrote_down_stays_until_the_operator_takes_it_away() {
    let (store, records) = tell(hold(false)).await;
    assert!(store.list().await.unwrap().is_empty());
    assert!(!records.iter().any(|r| r.message.contains("the hold of")));
    assert_eq!(store.holds().await.unwrap().len(), 1);
}
