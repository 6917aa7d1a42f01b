//! Clocks that jump, and verbs that never end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use zoneward::domain::isolation::{Granularity, Receipt, Share, StepEntry, StepName};
use zoneward::domain::{Event, HoldReason, Isolation, IsolationSpec, OperatorHold, Record, StepState, Zone};
use zoneward::isolate::Executor;
use zoneward::ports::{AuditError, AuditSink, IsolationStep, IsolationStore, StepError};
use zoneward::sim::steps;

use crate::executor::{Fail, Records, Store, Verb, executor, sabotaged, start, wish, world};

#[tokio::test]
async fn a_clock_that_jumps_delays_no_step_for_longer_than_it_would_have_waited() {
    for verb in [Verb::Apply, Verb::Confirm, Verb::Keep] {
        let world = world();
        let steps = sabotaged(&world, 0, verb, Fail::Before);
        let (store, records) = (Arc::<Store>::default(), Arc::<Records>::default());
        let mut wish = wish();
        wish.expires_at = start() + SignedDuration::from_hours(3);
        store.create(wish, start()).await.unwrap();
        let mut executor = executor(&steps, &store, &records);
        // A look every ten seconds on a clock that is an hour fast at first, then set right, then set back by a minute.
        let fast = SignedDuration::from_hours(1);
        for (set, looks) in [(fast, 2), (SignedDuration::ZERO, 7), (SignedDuration::from_mins(-1), 14)] {
            for look in 0..looks {
                let now = start() + set + SignedDuration::from_secs(10 * look);
                executor.run_until_idle(now).await.unwrap();
            }
            let isolation = store.list().await.unwrap().pop().unwrap();
            let confirmed = |entry: &StepEntry| matches!(entry.state, StepState::Confirmed { .. });
            assert!(set == fast || isolation.steps.values().all(confirmed), "{verb:?}, {set:?}: {isolation:?}");
        }
    }
}

/// Answers nothing, ever.
struct Silent(Arc<dyn IsolationStep>);

#[async_trait]
impl IsolationStep for Silent {
    fn name(&self) -> StepName {
        self.0.name()
    }

    fn granularity(&self) -> Granularity {
        self.0.granularity()
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        self.0.capture(zone).await
    }

    async fn apply(&self, _: &Zone, _: &Receipt, _: Share) -> Result<(), StepError> {
        std::future::pending().await
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.0.confirm(zone, receipt, share).await
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        self.0.marked().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_verb_that_never_ends_is_one_that_failed_and_the_other_steps_do_not_wait_for_it() {
    let world = world();
    let mut all = steps(&world);
    all[0] = Arc::new(Silent(Arc::clone(&all[0])));
    let (store, records) = (Arc::<Store>::default(), Arc::<Records>::default());
    store.create(wish(), start()).await.unwrap();
    executor(&all, &store, &records).run_until_idle(start()).await.unwrap();
    let isolation = store.list().await.unwrap().pop().unwrap();
    let entry = |name: &str| isolation.steps[&StepName::new(name)].clone();
    assert_eq!(entry("mesh").last_error.as_deref(), Some("it took more than 300 s"));
    let out = StepState::Confirmed { share: Share::NONE };
    assert_eq!((entry("dns").state, entry("taint").state), (out, out));
}

/// Cannot be read back, and counts how often it was applied.
struct Unreadable {
    inner: Arc<dyn IsolationStep>,
    applied: AtomicU32,
}

#[async_trait]
impl IsolationStep for Unreadable {
    fn name(&self) -> StepName {
        self.inner.name()
    }

    fn granularity(&self) -> Granularity {
        self.inner.granularity()
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        self.inner.capture(zone).await
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.inner.apply(zone, receipt, share).await
    }

    async fn confirm(&self, _: &Zone, _: &Receipt, _: Share) -> Result<(), StepError> {
        Err(StepError::Permanent { why: "nobody may read it".into() })
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        self.inner.marked().await
    }
}

#[tokio::test]
async fn what_can_be_done_but_not_read_back_calls_for_a_person_once_and_without_a_pause() {
    let world = world();
    let mut all = steps(&world);
    all[1] = Arc::new(Unreadable { inner: Arc::clone(&all[1]), applied: AtomicU32::new(0) });
    let (store, records) = (Arc::<Store>::default(), Arc::<Records>::default());
    store.create(wish(), start()).await.unwrap();
    let mut executor = executor(&all, &store, &records);
    for second in 0..500 {
        executor.run_until_idle(start() + SignedDuration::from_secs(second)).await.unwrap();
        let isolation = store.list().await.unwrap().pop().unwrap();
        let entry = &isolation.steps[&StepName::new("dns")];
        assert!(entry.failures >= 6 && entry.last_error.is_some(), "at {second} s: {entry:?}");
    }
    let told = records.kept().iter().filter(|record| record.message.contains("nobody may read it")).count();
    assert_eq!(told, 1);
}

/// Does not keep what it is given.
#[derive(Default)]
struct FullDisk(AtomicU32);

#[async_trait]
impl AuditSink for FullDisk {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        let captured = record.event == Event::Step && self.0.fetch_add(1, Ordering::Relaxed) < 1;
        if captured || record.event != Event::Step { Ok(()) } else { Err(std::io::Error::other("no space").into()) }
    }
}

#[tokio::test]
async fn what_cannot_be_put_on_record_is_not_done_over_and_over_at_once() {
    let world = world();
    let step = Arc::new(Unreadable { inner: Arc::clone(&steps(&world)[1]), applied: AtomicU32::new(0) });
    let store = Arc::<Store>::default();
    store.create(wish(), start()).await.unwrap();
    let all: Vec<Arc<dyn IsolationStep>> = vec![step.clone()];
    let mut executor = Executor::trusting(all, store.clone(), Arc::new(FullDisk::default()));
    for tenth in 0..100 {
        let _no_space = executor.run_until_idle(start() + SignedDuration::from_millis(100 * tenth)).await;
    }
    let applied = step.applied.load(Ordering::Relaxed);
    assert!((1..=3).contains(&applied), "{applied} times in ten seconds");
}

#[tokio::test]
async fn each_zone_is_admitted_on_what_is_known_when_it_is_its_turn() {
    let (store, records) = (Arc::<Store>::default(), Arc::<Records>::default());
    for zone in ["zone-a", "zone-b"] {
        store.create(IsolationSpec { zone: Zone::new(zone), ..wish() }, start()).await.unwrap();
    }
    let asked = Arc::<Mutex<Vec<i64>>>::default();
    let admit = {
        let asked = Arc::clone(&asked);
        move |_: &Isolation, _: &[Isolation], _: &BTreeMap<Zone, OperatorHold>, now: Timestamp| {
            asked.lock().unwrap().push(now.duration_since(start()).as_secs());
            Err(HoldReason::NotLeader)
        }
    };
    let mut executor =
        Executor::new(steps(&world()), store.clone(), records.clone(), Box::new(admit), Box::new(|| true));
    // What comes of the first takes a minute to be put on record.
    let minutes = AtomicU32::new(0);
    let clock = || start() + SignedDuration::from_mins(minutes.fetch_add(1, Ordering::Relaxed).into());
    executor.turn(clock).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [0, 60]);
}
