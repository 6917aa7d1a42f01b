//! A fault that turns out to be regional, while the store of isolations fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use zoneward::domain::isolation::{IsolationSpec, OperatorHold};
use zoneward::domain::{CycleLength, Event, Isolation, Mode, Period, Record, Zone};
use zoneward::isolate::{Executor, MemoryStore};
use zoneward::pipeline::{Pipeline, Settings};
use zoneward::ports::{AuditError, AuditSink, IsolationStore, Observer, StoreError};
use zoneward::sim::{Scenario, World, WorldObserver, steps};

/// A fault reaches one zone a minute and a half before the others.
pub const LATE: &str = "\
title: A regional fault reaches one zone a minute and a half before the others; the capacity goes back as soon as that shows
zones: [cn-hangzhou-g, cn-hangzhou-h, cn-hangzhou-k]
services:
  - {name: mocka, errors: 0.05%, median_ms: 4}
  - {name: mockb, errors: 0.05%, median_ms: 5}
requests_per_second: 90
duration: 16m
faults:
  - {at: 2m, until: 9m, zones: [cn-hangzhou-h], services: [mockb], errors: 30%}
  - {at: 3m 30s, until: 9m, zones: [cn-hangzhou-g, cn-hangzhou-k], services: [mockb], errors: 30%}
expect: {users_succeed: 0%}
";

#[derive(Default)]
struct Records(Mutex<Vec<Record>>);

#[async_trait]
impl AuditSink for Records {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(record);
        Ok(())
    }
}

/// Does not take the first attempts to give a zone back.
struct Failing {
    inner: MemoryStore,
    attempts: Mutex<u32>,
}

const FAILING_ATTEMPTS: u32 = 3;

#[async_trait]
impl IsolationStore for Failing {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        self.inner.list().await
    }

    async fn create(&self, spec: IsolationSpec, now: Timestamp) -> Result<(), StoreError> {
        self.inner.create(spec, now).await
    }

    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError> {
        self.inner.save(isolation).await
    }

    async fn save_course(&self, isolation: &Isolation) -> Result<(), StoreError> {
        if isolation.ended_as().is_some() {
            *self.attempts.lock().unwrap() += 1;
            if *self.attempts.lock().unwrap() <= FAILING_ATTEMPTS {
                return Err(StoreError::NotActive(isolation.zone().clone()));
            }
        }
        self.inner.save_course(isolation).await
    }

    async fn holds(&self) -> Result<BTreeMap<Zone, OperatorHold>, StoreError> {
        self.inner.holds().await
    }

    async fn hold(&self, zone: &Zone, hold: OperatorHold) -> Result<(), StoreError> {
        self.inner.hold(zone, hold).await
    }

    async fn release(&self, zone: &Zone, since: Timestamp) -> Result<(), StoreError> {
        self.inner.release(zone, since).await
    }
}

#[tokio::test]
async fn it_is_on_record_once_however_often_the_store_must_be_asked() {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let world = Arc::new(Mutex::new(World::new(Scenario::parse(LATE).unwrap(), start, 1)));
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let store = Arc::new(Failing { inner: MemoryStore::default(), attempts: Mutex::default() });
    let records = Arc::new(Records::default());
    let mut observer = WorldObserver::new(Arc::clone(&world), cycle);
    let mut executor = Executor::trusting(steps(&world), store.clone(), records.clone());
    let settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    let mut pipeline = Pipeline::new(settings, cycle, store.clone(), records.clone());
    let history = observer.observe(start - SignedDuration::from_mins(15), start).await.unwrap();
    history.iter().for_each(|snapshot| pipeline.learn(snapshot));
    let mut failed = 0;
    for cycles in 1..=28 {
        let now = start + cycle.signed() * cycles;
        for snapshot in observer.observe(now, now).await.unwrap() {
            failed += u32::from(pipeline.tick(&mut observer, &snapshot, now).await.is_err());
        }
        executor.run_until_idle(now).await.unwrap();
    }
    assert_eq!(failed, FAILING_ATTEMPTS);
    let kept = records.0.lock().unwrap().clone();
    assert_eq!(kept.iter().filter(|record| record.event == Event::Reclassified).count(), 1);
    assert!(kept.iter().any(|record| record.event == Event::Restored), "and then it is given back");
}
