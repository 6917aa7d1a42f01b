//! Thirty days in the embedded world: the pipeline, the executor and the journal of the daemon with its default settings, cycle
//! by cycle, with days and nights, roll-outs, glitches and faults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use zoneward::audit::{self, Journal, Source};
use zoneward::domain::{Bytes, CycleLength, Event, Isolation, Mode, Period, Record};
use zoneward::isolate::{Executor, MemoryStore};
use zoneward::pipeline::{self, Pipeline};
use zoneward::ports::{AuditError, AuditSink, IsolationStore, Observer};
use zoneward::settings::Settings;
use zoneward::sim::{self, Scenario, World, WorldObserver};

use super::account::{Account, Bounds, Entry, judge};
use super::plan::{self, Pace};
use super::{growth, process};
use crate::support::root;

const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
/// A Monday.
const START: Timestamp = Timestamp::constant(1_767_571_200, 0);
const DAY_S: i64 = 86_400;
const MINUTE: i64 = 60;
const WORLD: &str = "services:\n\
    - {name: mocka, errors: 0.1%, median_ms: 4, pods_per_zone: 1}\n\
    - {name: mockb, errors: 0.1%, median_ms: 5, pods_per_zone: 2}\n\
    - {name: mockc, errors: 0.1%, median_ms: 6, pods_per_zone: 3}\n\
    requests_per_second: 90\ndaily_swing: 40%\nhistory: 2h\nprobes: true";
const PACE: Pace = Pace {
    first: 60 * MINUTE,
    lasts: (15 * MINUTE, 90 * MINUTE),
    back: 90 * MINUTE,
    harmless: (5 * MINUTE, 20 * MINUTE),
    blip: (8, 20),
    unseen: (2 * MINUTE, 10 * MINUTE),
    gap: (30 * MINUTE, 240 * MINUTE),
    blips: 14,
    roll_outs: 7,
};
const BOUNDS: Bounds = Bounds { found: 5.0 * 60.0, back: 90.0 * 60.0, recovery: 0.0 };
/// Beside what is resident after the first day.
const GROWTH: f64 = 0.1;
const GROWTH_MIB: f64 = 4.0;
/// Of the journal.
const KEPT: Period = Period::from_hours(7 * 24);
const SEGMENT_MIB: usize = 1;
const ROOM_MIB: usize = 16;

/// The journal, and what in it says what became of a zone.
struct Sink {
    journal: Journal,
    entries: Mutex<Vec<Entry>>,
    written: Mutex<BTreeMap<Event, usize>>,
}

#[async_trait]
impl AuditSink for Sink {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        *self.written.lock().unwrap().entry(record.event).or_default() += 1;
        self.entries.lock().unwrap().extend(Entry::of(&record, START));
        self.journal.append(record).await
    }

    fn keeps_inputs(&self) -> bool {
        true
    }

    async fn keep_inputs(&self, time: Timestamp, file: Vec<u8>) -> Option<String> {
        self.journal.keep_inputs(time, file).await
    }
}

/// Of one day.
struct Day {
    resident_mib: f64,
    journal_mib: f64,
    files: usize,
}

struct Soak {
    world: Arc<Mutex<World>>,
    observer: WorldObserver,
    pipeline: Pipeline,
    store: Arc<MemoryStore>,
    executor: Executor,
    sink: Arc<Sink>,
    cycle: CycleLength,
    directory: PathBuf,
    days: Vec<Day>,
    problems: Vec<String>,
}

pub fn soak(days: i64, seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // In memory, as what is simulated can't wait for a disk that others keep busy.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (began, cpu_s) = (Instant::now(), process::cpu_s(std::process::id()));
    let troubles = plan::troubles(&mut ChaCha8Rng::seed_from_u64(seed), &PACE, &ZONES, days * DAY_S);
    let scenario =
        Scenario::parse(&plan::scenario(&troubles, &ZONES, &format!("{WORLD}\nduration: {}h", days * 24))).unwrap();
    let mut soak = Soak::new(scenario, seed, folder.path());
    runtime.block_on(soak.live(days));
    let entries = soak.sink.entries.lock().unwrap().clone();
    let account = judge(&troubles, &entries, &[], &BOUNDS);
    account.print();
    soak.print(&account);
    let cpu_s = process::cpu_s(std::process::id()) - cpu_s;
    println!("{days} days in {:.0} s, {cpu_s:.0} s of processor time", began.elapsed().as_secs_f64());
    soak.problems.extend(account.problems);
    soak.problems
}

impl Soak {
    fn new(scenario: Scenario, seed: u64, directory: &Path) -> Self {
        let settings = Settings::load(Some(&root().join("config/default.yaml")), BTreeMap::new()).unwrap().pipeline();
        let settings = pipeline::Settings { mode: Mode::Enforce, ..settings };
        let cycle = CycleLength::at_least(settings.detect.cycle);
        let journal = Journal::start(&audit::Settings {
            directory: directory.to_owned(),
            segment_size: Bytes::from_mib(SEGMENT_MIB),
            keep_for: KEPT,
            keep_size: Bytes::from_mib(ROOM_MIB),
            ..audit::Settings::default()
        });
        let sink = Arc::new(Sink { journal: journal.unwrap(), entries: Mutex::default(), written: Mutex::default() });
        let store = Arc::new(MemoryStore::default());
        let world = Arc::new(Mutex::new(World::new(scenario, START, seed)));
        Self {
            observer: WorldObserver::new(Arc::clone(&world), cycle),
            pipeline: Pipeline::new(settings, cycle, store.clone(), sink.clone()),
            executor: Executor::trusting(sim::steps(&world), store.clone(), sink.clone()),
            world,
            store,
            sink,
            cycle,
            directory: directory.to_owned(),
            days: Vec::new(),
            problems: Vec::new(),
        }
    }

    async fn live(&mut self, days: i64) {
        let before = self.world.lock().unwrap().now();
        for snapshot in self.observer.observe(before, START).await.unwrap() {
            self.pipeline.learn(&snapshot);
        }
        let end = START + SignedDuration::from_secs(days * DAY_S);
        let mut now = START;
        while now < end {
            now += SignedDuration::from_secs(1);
            self.world.lock().unwrap().run_until(now);
            if self.cycle.at_or_before(now) == now {
                for snapshot in self.observer.observe(now, now).await.unwrap() {
                    self.pipeline.tick(&mut self.observer, &snapshot, now).await.unwrap();
                }
                self.check(now).await;
            }
            self.executor.run_until_idle(now).await.unwrap();
            if now.duration_since(START).as_secs() % DAY_S == 0 {
                self.close_day();
            }
        }
    }

    /// As seen from outside: one zone out at most, and nothing left of what has ended.
    async fn check(&mut self, now: Timestamp) {
        let active = self.store.list().await.unwrap().iter().any(Isolation::active);
        let world = self.world.lock().unwrap();
        let out =
            world.sights(1).iter().filter(|it| it.draining_pods > 0 || !it.in_dns || it.tainted_nodes > 0).count();
        if out > 1 {
            self.problems.push(format!("{out} zones were out at {now}"));
        }
        if !active && !world.clean() {
            self.problems.push(format!("something was left changed at {now}"));
        }
    }

    fn close_day(&mut self) {
        let files: Vec<_> = std::fs::read_dir(&self.directory).unwrap().map(|file| file.unwrap()).collect();
        let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        let day = Day {
            resident_mib: process::memory_mib(std::process::id()).0,
            journal_mib: bytes as f64 / 1_048_576.0,
            files: files.len(),
        };
        println!(
            "day {:>2}: {:.1} MiB resident; journal {:.1} MiB in {} files",
            self.days.len() + 1,
            day.resident_mib,
            day.journal_mib,
            day.files
        );
        self.days.push(day);
    }

    fn print(&mut self, account: &Account) {
        println!("on record: {}", self.said());
        let points: Vec<(f64, f64)> =
            self.days.iter().enumerate().skip(1).map(|(nth, day)| (nth as f64, day.resident_mib)).collect();
        let resident: Vec<f64> = self.days.iter().map(|day| day.resident_mib).collect();
        let (first, last) = (resident[0], resident[resident.len() - 1]);
        let (grown, problem) = growth::judge("resident memory (MiB)", &points, GROWTH_MIB + GROWTH * first);
        self.problems.extend(problem);
        println!("resident after the first day {first:.1} MiB, after the last {last:.1} MiB; its line {grown} MiB");
        let most = self.days.iter().map(|day| day.journal_mib).fold(0.0, f64::max);
        if most > ROOM_MIB as f64 {
            self.problems.push(format!("the journal took {most:.1} MiB"));
        }
        let source = Source::Directory(self.directory.clone());
        match audit::verify(&source) {
            Ok(verified) => println!(
                "the journal verifies: {} entries in {} segments, {} before them retired",
                verified.entries, verified.segments, verified.retired
            ),
            Err(error) => self.problems.push(format!("the journal does not verify: {error}")),
        }
        let healthy = account.faults + account.harmless;
        println!("{healthy} troubles over {:.0} zone-days", self.days.len() as f64 * ZONES.len() as f64);
    }

    fn said(&self) -> String {
        let written = self.sink.written.lock().unwrap();
        written.iter().map(|(event, count)| format!("{count} {event}")).collect::<Vec<_>>().join(", ")
    }
}
