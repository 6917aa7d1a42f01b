//! Drills: a healthy zone is taken out on purpose, and given back as soon as anything speaks against it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use zoneward::domain::{CycleLength, Event, Isolation, Mode, Origin, Period, Record};
use zoneward::isolate::{Executor, MemoryStore};
use zoneward::pipeline::{Pipeline, Settings};
use zoneward::ports::{AuditError, AuditSink, IsolationStore, Observer};
use zoneward::sim::{self, Scenario, World, WorldObserver};

#[derive(Default)]
struct Records(Mutex<Vec<Record>>);

#[async_trait]
impl AuditSink for Records {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(record);
        Ok(())
    }
}

/// A mesh that has a drill of ten minutes at 00:05, and these faults.
struct Told {
    records: Vec<Record>,
    isolations: Vec<Isolation>,
    clean: bool,
}

async fn tell(minutes: i64, faults: &str) -> Told {
    tell_on(minutes, faults, None).await
}

/// Or the same, where from some minute on another replica decides, which has only read what was before.
async fn tell_on(minutes: i64, faults: &str, taken_over: Option<i64>) -> Told {
    let scenario = format!(
        "title: a test\nzones: [zone-a, zone-b, zone-c]\nservices: [{{name: web, errors: 0.05%, median_ms: 20}}]\n\
         requests_per_second: 60\nduration: 1h\nfaults: [{faults}]\nexpect: {{users_succeed: 0%}}\n"
    );
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let world = Arc::new(Mutex::new(World::new(Scenario::parse(&scenario).unwrap(), start, 1)));
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let (store, records) = (Arc::new(MemoryStore::default()), Arc::new(Records::default()));
    let mut observer = WorldObserver::new(Arc::clone(&world), cycle);
    let mut settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    settings.drills.lasts = Period::from_mins(10);
    settings.drills.schedule = serde_json::from_str(r#"[{"at": "00:05"}]"#).unwrap();
    let mut pipeline = Pipeline::new(settings.clone(), cycle, store.clone(), records.clone());
    let mut executor = Executor::trusting(sim::steps(&world), store.clone(), records.clone());
    let mut history = observer.observe(start - SignedDuration::from_mins(15), start).await.unwrap();
    history.iter().for_each(|snapshot| pipeline.learn(snapshot));
    let mut now = start;
    while now < start + SignedDuration::from_mins(minutes) {
        if taken_over.is_some_and(|minute| now == start + SignedDuration::from_mins(minute)) {
            pipeline = Pipeline::new(settings.clone(), cycle, store.clone(), records.clone());
            history.iter().for_each(|snapshot| pipeline.learn(snapshot));
        }
        now += cycle.signed();
        for snapshot in observer.observe(now, now).await.unwrap() {
            pipeline.tick(&mut observer, &snapshot, now).await.unwrap();
            history.push(snapshot);
        }
        executor.run_until_idle(now).await.unwrap();
    }
    let clean = world.lock().unwrap().clean();
    let isolations = store.list().await.unwrap();
    let records = records.0.lock().unwrap().clone();
    Told { records, isolations, clean }
}

impl Told {
    fn find(&self, event: Event) -> Option<&Record> {
        self.records.iter().find(|record| record.event == event)
    }
}

#[tokio::test]
async fn a_drill_that_others_bear_passes_and_its_zone_comes_back_by_shares() {
    let told = tell(27, "").await;
    let passed = told.find(Event::DrillPassed).unwrap_or_else(|| panic!("{:?}", told.records));
    assert_eq!(passed.time.to_string(), "2026-01-01T00:15:00Z");
    let drill = &told.isolations[0];
    assert!(told.isolations.len() == 1 && drill.spec.origin == Origin::Drill && drill.restored_at.is_some());
    assert!(told.find(Event::Recovering).is_some() && told.clean);
}

#[tokio::test]
async fn a_drill_is_broken_off_as_soon_as_another_zone_looks_sick_and_that_zone_is_isolated_in_earnest() {
    let told = tell(14, "{at: 8m, until: 1h, zones: [zone-b], errors: 20%}").await;
    let aborted = told.find(Event::DrillAborted).unwrap_or_else(|| panic!("{:?}", told.records));
    assert!(
        aborted.message.contains("zone-b looks sick") && aborted.time.to_string().as_str() <= "2026-01-01T00:08:30Z"
    );
    let real = told.isolations.iter().find(|isolation| isolation.spec.origin == Origin::Detector).unwrap();
    assert_eq!(real.zone().as_str(), "zone-b", "a drill is in the way of nothing");
    assert!(real.isolated_at.unwrap().to_string().as_str() <= "2026-01-01T00:10:00Z");
}

#[tokio::test]
async fn a_drill_is_broken_off_when_the_others_do_not_bear_it() {
    let told = tell(14, "{at: 7m, until: 1h, zones: [zone-b, zone-c], slowdown: 1.8x}").await;
    let aborted = told.find(Event::DrillAborted).unwrap_or_else(|| panic!("{:?}", told.records));
    assert!(aborted.message.starts_with("the drill of zone-a is broken off: "), "{}", aborted.message);
    assert!(told.isolations[0].restored_at.is_some() && told.clean, "its capacity is back at once");
    assert!(told.find(Event::RolledBack).is_none() && told.find(Event::DrillPassed).is_none());
}

#[tokio::test]
async fn whoever_takes_over_knows_from_the_metrics_what_was_before_the_zone_was_taken_out() {
    let faults = "{at: 2m, until: 1h, zones: [zone-b], errors: 12%}, \
                  {at: 9m, until: 1h, zones: [zone-a, zone-c], slowdown: 1.7x}";
    let told = tell_on(14, faults, Some(6)).await;
    let given_up = told.find(Event::RolledBack).unwrap_or_else(|| panic!("{:?}", told.records));
    assert!(given_up.message.contains("ms before (rollback.max_slowdown 1.5x)"), "{}", given_up.message);
    assert!(told.isolations[0].restored_at.is_some() && told.clean);
}

#[tokio::test]
async fn no_drill_begins_while_a_zone_is_not_healthy() {
    let told = tell(8, "{at: 4m, until: 1h, zones: [zone-b], errors: 3%}").await;
    let blocked = told.find(Event::DrillBlocked).unwrap_or_else(|| panic!("{:?}", told.records));
    assert!(blocked.message.contains("a drill waits until every zone is known to be healthy, which zone-b is not"));
    assert!(told.isolations.iter().all(|isolation| isolation.spec.origin != Origin::Drill));
}
