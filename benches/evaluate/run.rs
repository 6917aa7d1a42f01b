//! One scenario through the real pipeline, and through the other methods.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use zoneward::decide;
use zoneward::domain::{Decision, Event, Mode, Pause, Record, Sight, Silences, Zone};
use zoneward::guard::{self, Situation};
use zoneward::isolate::{Executor, MemoryStore};
use zoneward::pipeline::{self, Pipeline};
use zoneward::ports::{AuditError, AuditSink, Observer};

use super::baselines::{self, Signals};
use super::bound::{Bound, bound};
use super::family::Family;
use super::scenario::Scenario;
use super::score::{Outcome, judge};
use super::world::World;

/// The first moment of every scenario.
const START: Timestamp = Timestamp::constant(1_767_571_200, 0);
/// A zone at fault anew after so long is another trip.
const QUIET_S: f64 = 300.0;
pub const OURS: &str = "zoneward";

/// What came of one scenario.
pub struct Run {
    pub scenario: Arc<Scenario>,
    pub bound: Bound,
    /// By method, ours first.
    pub outcomes: Vec<(&'static str, Outcome)>,
    /// Trips by our detector that were false or of a wrong zone, with isolation, cool-down and budget left out, so that
    /// one can't hide the next.
    pub false_trips: Vec<baselines::Decision>,
    /// What our detector put on record.
    pub story: Vec<Line>,
    pub seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub at_s: f64,
    pub event: String,
    pub zone: String,
    pub message: String,
}

/// Keeps what a reader of details wants to know.
#[derive(Default)]
struct Journal(Mutex<Vec<Record>>);

#[async_trait]
impl AuditSink for Journal {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        if matches!(record.event, Event::Suspect | Event::Isolate | Event::Blocked | Event::Clear) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        }
        Ok(())
    }
}

/// Deterministic for a family, a seed and settings.
pub async fn run(family: &Family, seed: u64, settings: &pipeline::Settings) -> anyhow::Result<Run> {
    let began = Instant::now();
    let scenario = Arc::new(Scenario::new(family, seed));
    let mut world = World::new(&scenario, START);
    let cycle = world.cycle();
    let (journal, store) = (Arc::new(Journal::default()), Arc::new(MemoryStore::default()));
    // The world is open: nothing that is done to it would show.
    let settings = pipeline::Settings { mode: Mode::Observe, ..settings.clone() };
    let mut pipeline = Pipeline::new(settings.clone(), cycle, store.clone(), journal.clone());
    let mut executor = Executor::trusting(Vec::new(), store, journal.clone());
    let mut signals = Signals::new(&scenario);
    let mut trips = Trips::default();
    for nth in 1..=(scenario.duration_s / cycle.as_secs_f64()) as i32 {
        let time = START + cycle.signed() * nth;
        for snapshot in world.observe(time, time).await? {
            pipeline.tick(&mut world, &snapshot, snapshot.time).await?;
            executor.run_until_idle(snapshot.time).await?;
            signals.take(&snapshot);
            let sight = pipeline.sight().context("a cycle left no sight")?;
            trips.take(&sight, &settings, &scenario.zones);
        }
    }
    let records = std::mem::take(&mut *journal.0.lock().unwrap_or_else(PoisonError::into_inner));
    let isolated = records.iter().filter(|record| record.event == Event::Isolate);
    let ours = isolated.filter_map(|it| decision(it.time, it.zone.as_ref()?, &scenario.zones)).collect();
    let decided = [(OURS, ours)].into_iter().chain(signals.decide());
    let outcomes = decided.map(|(method, decisions)| (method, judge(&scenario, decisions))).collect();
    let tripped = judge(&scenario, trips.found);
    Ok(Run {
        bound: scenario.fault.map(|fault| bound(&scenario, fault)).unwrap_or_default(),
        outcomes,
        false_trips: [tripped.false_ones, tripped.wrong_zone].concat(),
        story: records.iter().map(line).collect(),
        seconds: began.elapsed().as_secs_f64(),
        scenario,
    })
}

/// Moments in which a zone would be isolated if nothing had ever been.
#[derive(Default)]
struct Trips {
    found: Vec<baselines::Decision>,
    /// When each zone was last at fault.
    last_s: BTreeMap<usize, f64>,
}

impl Trips {
    fn take(&mut self, sight: &Sight, settings: &pipeline::Settings, zones: &[Zone]) {
        let (now, none) = (sight.snapshot.time, BTreeMap::new());
        let situation = Situation {
            snapshot: &sight.snapshot,
            assessment: &sight.assessment,
            cluster: None,
            isolations: &[],
            holds: &none,
            pause: &Pause::Off,
            silences: &Silences::default(),
            leads: true,
            acts: false,
        };
        for (zone, wanted) in decide::decide(&sight.assessment, &[], &settings.decide) {
            let Decision::Isolate(request) = wanted else { continue };
            let Some(decision) = decision(now, &zone, zones) else { continue };
            if guard::admit(&situation, &request, &settings.guard, now).is_ok() {
                let last_s = self.last_s.insert(decision.zone, decision.at_s);
                if last_s.is_none_or(|last_s| decision.at_s - last_s > QUIET_S) {
                    self.found.push(decision);
                }
            }
        }
    }
}

fn decision(time: Timestamp, zone: &Zone, zones: &[Zone]) -> Option<baselines::Decision> {
    let zone = zones.iter().position(|known| known == zone)?;
    Some(baselines::Decision { at_s: since_start_s(time), zone })
}

fn since_start_s(time: Timestamp) -> f64 {
    time.duration_since(START).as_secs_f64()
}

fn line(record: &Record) -> Line {
    Line {
        at_s: since_start_s(record.time),
        event: record.event.to_string(),
        zone: record.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        message: record.message.clone(),
    }
}
