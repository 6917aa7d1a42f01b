//! The executor on steps that fail at any point: every run ends where it should, and says what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use zoneward::domain::isolation::{Granularity, IsolationSpec, OperatorHold, Receipt, Share, StepName};
use zoneward::domain::{Event, Isolation, Origin, Record, StepState, Zone};
use zoneward::isolate::{Executor, MemoryStore, Sweeper};
use zoneward::ports::{AuditError, AuditSink, IsolationStep, IsolationStore, StepError, StoreError};
use zoneward::sim::{Scenario, World, steps};

/// Fails the nth time, as when the process dies there.
#[derive(Default)]
struct Crash {
    nth: usize,
    count: Mutex<usize>,
}

impl Crash {
    fn at(nth: usize) -> Self {
        Self { nth, count: Mutex::new(0) }
    }

    fn now(&self) -> bool {
        let mut count = self.count.lock().unwrap();
        *count += 1;
        *count == self.nth
    }
}

#[derive(Default)]
pub struct Records {
    kept: Mutex<Vec<Record>>,
    crash: Crash,
}

impl Records {
    pub fn kept(&self) -> Vec<Record> {
        self.kept.lock().unwrap().clone()
    }
}

#[async_trait]
impl AuditSink for Records {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        if self.crash.now() {
            return Err(std::io::Error::other("no space left").into());
        }
        self.kept.lock().unwrap().push(record);
        Ok(())
    }
}

#[derive(Default)]
pub struct Store {
    inner: MemoryStore,
    crash: Crash,
}

#[async_trait]
impl IsolationStore for Store {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        self.inner.list().await
    }

    async fn create(&self, spec: IsolationSpec, now: Timestamp) -> Result<(), StoreError> {
        self.inner.create(spec, now).await
    }

    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError> {
        if self.crash.now() {
            return Err(StoreError::NotActive(isolation.zone().clone()));
        }
        self.inner.save(isolation).await
    }

    async fn save_course(&self, isolation: &Isolation) -> Result<(), StoreError> {
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

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fail {
    /// Before it has any effect.
    Before,
    /// After its effect, as when the answer is lost.
    After,
    Permanently,
}

/// A verb on its way: the first look at the zone, out, read back, kept so, and back again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Capture,
    Apply,
    Confirm,
    Keep,
    Undo,
    ConfirmUndone,
}

const VERBS: [Verb; 6] = [Verb::Capture, Verb::Apply, Verb::Confirm, Verb::Keep, Verb::Undo, Verb::ConfirmUndone];

/// Fails one verb of a real step, once or for good, and runs every verb twice.
struct Saboteur {
    inner: Arc<dyn IsolationStep>,
    applied: Mutex<bool>,
    failed: Mutex<bool>,
    verb: Verb,
    fail: Fail,
}

impl Saboteur {
    fn due(&self, verb: Verb) -> bool {
        let mut failed = self.failed.lock().unwrap();
        let due = verb == self.verb && (self.fail == Fail::Permanently || !*failed);
        *failed |= due;
        due
    }

    fn error(&self) -> StepError {
        match self.fail {
            Fail::Before | Fail::After => {
                StepError::Transient { why: "the answer was lost".into(), retry_after: SignedDuration::from_secs(1) }
            }
            Fail::Permanently => StepError::Permanent { why: "not allowed".into() },
        }
    }
}

#[async_trait]
impl IsolationStep for Saboteur {
    fn name(&self) -> StepName {
        self.inner.name()
    }

    fn granularity(&self) -> Granularity {
        self.inner.granularity()
    }

    fn follows_cluster(&self) -> bool {
        self.inner.follows_cluster()
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        if self.due(Verb::Capture) {
            return Err(self.error());
        }
        self.inner.capture(zone).await?;
        self.inner.capture(zone).await
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let again = std::mem::replace(&mut *self.applied.lock().unwrap(), share != Share::FULL);
        let due = self.due(match (share, again) {
            (Share::FULL, _) => Verb::Undo,
            (_, false) => Verb::Apply,
            (_, true) => Verb::Keep,
        });
        if due && self.fail != Fail::After {
            return Err(self.error());
        }
        self.inner.apply(zone, receipt, share).await?;
        self.inner.apply(zone, receipt, share).await?;
        if due { Err(self.error()) } else { Ok(()) }
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if self.due(if share == Share::FULL { Verb::ConfirmUndone } else { Verb::Confirm }) {
            return Err(self.error());
        }
        self.inner.confirm(zone, receipt, share).await?;
        self.inner.confirm(zone, receipt, share).await
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        self.inner.marked().await
    }
}

pub fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

pub fn world() -> Arc<Mutex<World>> {
    Arc::new(Mutex::new(World::new(Scenario::article().unwrap(), start(), 1)))
}

pub fn sick() -> Zone {
    Zone::new("cn-hangzhou-h")
}

/// Ten minutes of the sick zone out of rotation.
pub fn wish() -> IsolationSpec {
    IsolationSpec {
        zone: sick(),
        origin: Origin::Operator,
        reason: "test".into(),
        evidence: Vec::new(),
        expires_at: start() + SignedDuration::from_mins(10),
        share: Share::NONE,
        only: BTreeSet::new(),
        overrides: BTreeSet::new(),
        approved: true,
    }
}

pub fn executor(steps: &[Arc<dyn IsolationStep>], store: &Arc<Store>, records: &Arc<Records>) -> Executor {
    Executor::trusting(steps.to_vec(), store.clone(), records.clone())
}

/// Isolates for ten minutes, advancing every second for twenty, each time from what is stored. Says how it ended, what
/// is on record, whether the zone was out, and how often a crash cut it short.
async fn run_with(
    steps: &[Arc<dyn IsolationStep>],
    world: &Mutex<World>,
    (store, records): (&Arc<Store>, &Arc<Records>),
) -> (Isolation, Vec<Record>, bool, usize) {
    store.create(wish(), start()).await.unwrap();
    let mut executor = executor(steps, store, records);
    let (mut isolated, mut crashes) = (false, 0);
    for second in 0..1200 {
        let now = start() + SignedDuration::from_secs(second);
        if executor.run_until_idle(now).await.is_err() {
            crashes += 1;
            // A new process knows nothing but what is stored.
            executor = self::executor(steps, store, records);
        }
        if second == 590 {
            isolated = world.lock().unwrap().sights(1).iter().all(|zone| {
                let out = zone.draining_pods == zone.pods && !zone.in_dns && zone.tainted_nodes > 0;
                out == (zone.zone == sick())
            });
        }
    }
    let kept = records.kept.lock().unwrap().clone();
    (store.list().await.unwrap().pop().unwrap(), kept, isolated, crashes)
}

async fn run(steps: &[Arc<dyn IsolationStep>], world: &Mutex<World>) -> (Isolation, Vec<Record>, bool) {
    let (isolation, records, isolated, crashes) = run_with(steps, world, (&Arc::default(), &Arc::default())).await;
    assert_eq!(crashes, 0);
    (isolation, records, isolated)
}

#[tokio::test]
async fn a_crash_at_any_save_or_record_is_resumed_and_loses_no_record() {
    let events = |records: &[Record]| records.iter().map(|r| (r.event, r.message.clone())).collect::<BTreeSet<_>>();
    let whole = world();
    let expected = events(&run(&steps(&whole), &whole).await.1);
    let mut crashed = 0;
    for nth in 1..40 {
        for in_store in [true, false] {
            let world = world();
            let (at_save, at_record) = if in_store { (nth, 0) } else { (0, nth) };
            let store = Arc::new(Store { crash: Crash::at(at_save), ..Store::default() });
            let records = Arc::new(Records { crash: Crash::at(at_record), ..Records::default() });
            let (isolation, kept, isolated, crashes) = run_with(&steps(&world), &world, (&store, &records)).await;
            let case = format!("crash {nth}, {}", if in_store { "save" } else { "record" });
            crashed += crashes;
            assert!(isolated, "{case}");
            assert!(isolation.restored_at.is_some() && world.lock().unwrap().clean(), "{case}: {isolation:?}");
            // Said or not, depending on how long it took; all else must be there.
            let timeless = |set: &BTreeSet<(Event, String)>| {
                set.iter().filter(|(event, _)| *event != Event::Isolated).cloned().collect::<BTreeSet<_>>()
            };
            let (kept, expected) = (timeless(&events(&kept)), timeless(&expected));
            assert!(kept.is_subset(&expected), "{case}");
            // On the way back a record that can't be written is reported, and must not hold up the undoing.
            let lost = expected.len() - kept.len();
            assert!(lost == 0 || (!in_store && lost == 1 && crashes == 1), "{case}: {lost} records lost");
        }
    }
    assert!(crashed >= 30, "only {crashed} crashes");
}

pub fn sabotaged(world: &Arc<Mutex<World>>, step: usize, verb: Verb, fail: Fail) -> Vec<Arc<dyn IsolationStep>> {
    let mut all = steps(world);
    let inner = Arc::clone(&all[step]);
    all[step] = Arc::new(Saboteur { inner, applied: Mutex::default(), failed: Mutex::default(), verb, fail });
    all
}

#[tokio::test]
async fn a_failure_at_any_call_of_any_step_is_got_over_and_undone() {
    for step in 0..3 {
        for verb in VERBS {
            for fail in [Fail::Before, Fail::After] {
                let world = world();
                let (isolation, _, isolated) = run(&sabotaged(&world, step, verb, fail), &world).await;
                let case = format!("step {step}, {verb:?}, {fail:?}");
                assert!(isolated, "{case}: the zone is out after all");
                assert!(isolation.restored_at.is_some(), "{case}: {isolation:?}");
                assert!(isolation.steps.values().all(|entry| entry.state == StepState::Undone), "{case}");
                assert!(world.lock().unwrap().clean(), "{case}: nothing is left changed");
            }
        }
    }
}

#[tokio::test]
async fn a_step_that_can_never_be_undone_is_stuck_aloud_and_delays_no_other() {
    let world = world();
    let (isolation, records, isolated) = run(&sabotaged(&world, 1, Verb::Undo, Fail::Permanently), &world).await;
    assert!(isolated);
    let state = |name: &str| isolation.steps[&StepName::new(name)].state;
    assert_eq!((state("mesh"), state("dns"), state("taint")), (StepState::Undone, StepState::Stuck, StepState::Undone));
    let stuck = isolation.steps[&StepName::new("dns")].receipt.clone().unwrap();
    assert_eq!(stuck.0["was_listed"], "true", "the receipt says what to restore");
    assert!(isolation.active(), "an isolation that is stuck has not ended");
    let aloud = |r: &Record| r.event == Event::Step && r.message.contains("stuck, a person has to look (not allowed)");
    assert!(records.iter().any(aloud));
}

#[tokio::test]
async fn a_step_that_cannot_begin_holds_nothing_up() {
    let world = world();
    let (isolation, records, _) = run(&sabotaged(&world, 0, Verb::Capture, Fail::Permanently), &world).await;
    assert!(isolation.restored_at.is_some(), "what was never begun needs no undoing: {isolation:?}");
    assert!(!records.iter().any(|r| r.event == Event::Isolated), "and an isolation in part is not called one");
    assert!(world.lock().unwrap().clean());
}

#[tokio::test]
async fn a_share_gives_back_some_pods_of_each_service() {
    let world = world();
    let all = steps(&world);
    let mesh = &all[0];
    let drained = || world.lock().unwrap().sights(1).into_iter().find(|z| z.zone == sick()).unwrap().draining_pods;
    let receipt = mesh.capture(&sick()).await.unwrap();
    for (percent, expected) in [(0, 6), (50, 3), (25, 3), (100, 0), (0, 6)] {
        mesh.apply(&sick(), &receipt, Share::percent(percent)).await.unwrap();
        mesh.confirm(&sick(), &receipt, Share::percent(percent)).await.unwrap();
        assert_eq!(drained(), expected, "at {percent} %");
    }
}

#[tokio::test]
async fn the_last_address_is_never_withdrawn() {
    let world = world();
    let all = steps(&world);
    let dns = &all[1];
    for zone in ["cn-hangzhou-g", "cn-hangzhou-k"] {
        let zone = Zone::new(zone);
        let receipt = dns.capture(&zone).await.unwrap();
        dns.apply(&zone, &receipt, Share::NONE).await.unwrap();
    }
    let receipt = dns.capture(&sick()).await.unwrap();
    let error = dns.apply(&sick(), &receipt, Share::NONE).await.unwrap_err();
    assert!(matches!(error, StepError::Permanent { .. }), "{error}");
}

struct FullDisk;

#[async_trait]
impl AuditSink for FullDisk {
    async fn append(&self, _: Record) -> Result<(), AuditError> {
        Err(std::io::Error::other("no space left").into())
    }
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_zone_from_being_given_back() {
    let (world, store) = (world(), Arc::new(Store::default()));
    let all = steps(&world);
    store.create(wish(), start()).await.unwrap();
    executor(&all, &store, &Arc::default()).run_until_idle(start()).await.unwrap();
    assert!(!world.lock().unwrap().clean());

    let later = start() + SignedDuration::from_mins(11);
    let mut on_full_disk = Executor::trusting(all, store.clone(), Arc::new(FullDisk));
    let error = on_full_disk.run_until_idle(later).await.unwrap_err();
    assert!(format!("{error}").contains("journal"), "it is said: {error}");
    assert!(world.lock().unwrap().clean(), "and the zone is back");
    assert!(store.list().await.unwrap()[0].restored_at.is_some());
}

#[tokio::test]
async fn a_step_that_is_not_configured_any_more_is_stuck_and_not_called_undone() {
    let (world, store, records) = (world(), Arc::new(Store::default()), Arc::new(Records::default()));
    let all = steps(&world);
    store.create(wish(), start()).await.unwrap();
    executor(&all, &store, &records).run_until_idle(start()).await.unwrap();
    let later = start() + SignedDuration::from_mins(11);
    executor(&all[..1], &store, &records).run_until_idle(later).await.unwrap();
    let isolation = store.list().await.unwrap().pop().unwrap();
    assert!(isolation.active(), "{isolation:?}");
    assert_eq!(isolation.steps[&StepName::new("mesh")].state, StepState::Undone);
    assert_eq!(isolation.steps[&StepName::new("dns")].state, StepState::Stuck);
    let kept = records.kept.lock().unwrap();
    assert!(kept.iter().any(|r| r.message.contains("dns: stuck") && r.message.contains("not configured any more")));
    assert!(!kept.iter().any(|r| r.event == Event::Restored));
}

#[tokio::test]
async fn a_step_that_never_began_and_is_not_configured_any_more_keeps_no_isolation_open() {
    let (world, store, records) = (world(), Arc::new(Store::default()), Arc::new(Records::default()));
    let all = sabotaged(&world, 1, Verb::Capture, Fail::Permanently);
    store.create(wish(), start()).await.unwrap();
    executor(&all, &store, &records).run_until_idle(start()).await.unwrap();
    let without = [Arc::clone(&all[0]), Arc::clone(&all[2])];
    let later = start() + SignedDuration::from_mins(11);
    executor(&without, &store, &records).run_until_idle(later).await.unwrap();
    assert!(!store.list().await.unwrap().pop().unwrap().active());
}

#[tokio::test]
async fn marks_that_no_isolation_accounts_for_are_undone_and_others_stay() {
    let (world, store, records) = (world(), Arc::new(Store::default()), Arc::new(Records::default()));
    let all = steps(&world);
    for step in [&all[0], &all[2]] {
        let receipt = step.capture(&sick()).await.unwrap();
        step.apply(&sick(), &receipt, Share::NONE).await.unwrap();
    }
    let isolated = Zone::new("cn-hangzhou-k");
    store.create(IsolationSpec { zone: isolated.clone(), ..wish() }, start()).await.unwrap();
    executor(&all, &store, &records).run_until_idle(start()).await.unwrap();

    let mut sweeper = Sweeper::default();
    assert_eq!(sweeper.sweep(&all, store.as_ref(), records.as_ref(), start()).await.unwrap(), 2);
    let changed = |zone: &Zone| {
        let sights = world.lock().unwrap().sights(1);
        let sight = sights.iter().find(|sight| sight.zone == *zone).unwrap();
        (sight.draining_pods > 0, sight.tainted_nodes > 0)
    };
    assert_eq!((changed(&sick()), changed(&isolated)), ((false, false), (true, true)));
    let said = |r: &&Record| r.event == Event::Restore && r.zone == Some(sick());
    assert_eq!(records.kept.lock().unwrap().iter().filter(said).count(), 2, "it is on record");
    assert_eq!(sweeper.sweep(&all, store.as_ref(), records.as_ref(), start()).await.unwrap(), 0);
}

#[tokio::test]
async fn marks_go_with_a_full_disk_too_and_whoever_took_the_isolation_away_wins() {
    let (world, store) = (world(), Arc::new(Store::default()));
    let records = Arc::new(Records { crash: Crash::at(1), ..Records::default() });
    let all = steps(&world);
    all[0].apply(&sick(), &Receipt::default(), Share::NONE).await.unwrap();
    let mut sweeper = Sweeper::default();
    let swept = sweeper.sweep(&all, store.as_ref(), records.as_ref(), start()).await;
    assert!(swept.unwrap_err().to_string().contains("no space left"));
    assert!(world.lock().unwrap().sights(1).iter().all(|sight| sight.draining_pods == 0));
    assert!(store.holds().await.unwrap()[&sick()].until_healthy, "it is not isolated again for the same fault");
}
