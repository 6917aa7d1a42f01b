//! What the decisions of a cycle rest on, kept as a file from which they can be made again.
//!
//! Compressed JSON: `zcat` shows it. It holds the detector's memory before the cycle, all that was seen in it, the settings
//! in effect, and what guardrails looked at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Pipeline, Settings};
use crate::detect::{self, History};
use crate::domain::verdict::Suspect;
use crate::domain::{
    CycleLength, Isolation, Mode, OperatorHold, Pause, PodCalls, Record, Services, Sight, Silences, Snapshot, Zone,
};
use crate::{decide, guard};

pub(super) const FORMAT: u32 = 1;
/// Services by zones; more would take too long to write, and too much room, in memory above all.
const MOST_CELLS: usize = 6_000;
/// Files in an hour, those of wishes to isolate aside.
const MOST_AN_HOUR: usize = 20;

/// A closer look, or why there was none.
pub(super) type Looks = Vec<(Suspect, Result<Vec<PodCalls>, String>)>;

/// What stands in such a file.
#[derive(Serialize, Deserialize)]
pub struct Inputs {
    #[serde(rename = "zoneward_inputs")]
    pub(super) format: u32,
    /// Of zoneward: another one may judge otherwise.
    pub version: String,
    pub now: Timestamp,
    pub(super) leads: bool,
    pub(super) pause: Pause,
    pub(super) silences: Silences,
    pub(super) isolations: Vec<Isolation>,
    pub(super) holds: BTreeMap<Zone, OperatorHold>,
    settings: InEffect,
    pub(super) looks: Looks,
    pub(super) snapshot: Snapshot,
    pub(super) history: History,
}

/// Settings that decisions depend on.
#[derive(Serialize, Deserialize)]
struct InEffect {
    mode: Mode,
    detect: detect::Settings,
    services: Services,
    isolate: decide::Settings,
    guard: guard::Settings,
    min_ready_elsewhere: u32,
    taints_nodes: bool,
}

impl InEffect {
    fn of(settings: &Settings) -> Self {
        Self {
            mode: settings.mode,
            detect: settings.detect.clone(),
            services: settings.detect.services.clone(),
            isolate: settings.decide.clone(),
            guard: settings.guard.clone(),
            min_ready_elsewhere: settings.guard.min_ready_elsewhere,
            taints_nodes: settings.guard.taints_nodes,
        }
    }
}

impl Inputs {
    pub(super) fn settings(&self) -> Settings {
        let InEffect { mode, detect, services, isolate, guard, min_ready_elsewhere, taints_nodes } = &self.settings;
        Settings {
            detect: detect::Settings { services: services.clone(), ..detect.clone() },
            decide: isolate.clone(),
            guard: guard::Settings {
                min_ready_elsewhere: *min_ready_elsewhere,
                taints_nodes: *taints_nodes,
                ..guard.clone()
            },
            mode: *mode,
            ..Settings::default()
        }
    }

    pub const fn cycle(&self) -> CycleLength {
        self.history.cycle()
    }

    fn file(&self) -> std::io::Result<Vec<u8>> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut out, self)?;
        out.finish()
    }
}

/// Of the cycle under way, as long as nothing was decided.
struct Pending {
    history: History,
    sight: Arc<Sight>,
    looks: Looks,
    isolations: Vec<Isolation>,
    holds: BTreeMap<Zone, OperatorHold>,
    now: Timestamp,
}

/// The inputs of one cycle: written with its first decision, and cited by all of them.
#[derive(Default)]
pub(super) struct Keeping {
    pending: Option<Pending>,
    kept: Option<String>,
    lately: VecDeque<Timestamp>,
}

impl Pipeline {
    /// The detector's memory before a cycle that may decide: that takes a cycle that looked suspicious before, unless one
    /// is as long as a fault must last.
    pub(super) fn before_cycle(&self) -> Option<History> {
        let small = self.history.services() * self.history.zones().len() <= MOST_CELLS;
        let one_decides = self.history.cycle().signed() >= self.settings.detect.services.usual.shortest.signed();
        let may_decide = one_decides || self.history.hints();
        (self.audit.keeps_inputs() && small && may_decide).then(|| self.history.clone())
    }

    pub(super) fn begin_inputs(
        &mut self,
        before: Option<History>,
        (sight, looks): (&Arc<Sight>, Looks),
        isolations: &[Isolation],
        holds: &BTreeMap<Zone, OperatorHold>,
        now: Timestamp,
    ) {
        self.inputs.kept = None;
        self.inputs.pending = before.map(|history| Pending {
            history,
            sight: Arc::clone(sight),
            looks,
            isolations: isolations.to_vec(),
            holds: holds.clone(),
            now,
        });
    }

    /// Lets a decision cite what it rests on. Nothing of it keeps a decision from being made.
    pub(super) async fn cite_inputs(&mut self, record: &mut Record, at_any_rate: bool) {
        if self.inputs.kept.is_none() {
            let now = record.time;
            let an_hour_ago = now - SignedDuration::from_hours(1);
            self.inputs.lately.retain(|at| *at > an_hour_ago);
            if self.inputs.lately.len() >= MOST_AN_HOUR && !at_any_rate {
                return;
            }
            let Some(pending) = self.inputs.pending.take() else { return };
            self.inputs.lately.push_back(now);
            let inputs = self.inputs_of(pending);
            // To write a large mesh takes a moment, in which all else goes on.
            let file = tokio::task::spawn_blocking(move || inputs.file()).await;
            let Ok(Ok(file)) = file else { return };
            self.inputs.kept = self.audit.keep_inputs(now, file).await;
        }
        record.inputs.clone_from(&self.inputs.kept);
    }

    fn inputs_of(&self, pending: Pending) -> Inputs {
        let Pending { history, sight, looks, isolations, holds, now } = pending;
        Inputs {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
            leads: self.leads,
            pause: self.pause.clone(),
            silences: self.silences.clone(),
            isolations,
            holds,
            settings: InEffect::of(&self.settings),
            looks,
            snapshot: sight.snapshot.clone(),
            history,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::domain::{Assessment, Calls, Cell, Histogram, Period, ServiceId};
    use crate::isolate::MemoryStore;
    use crate::ports::{AuditError, AuditSink};

    struct Nowhere;

    #[async_trait::async_trait]
    impl AuditSink for Nowhere {
        async fn append(&self, _: Record) -> Result<(), AuditError> {
            Ok(())
        }
    }

    /// A mesh of so many services in three zones, as it is after an hour.
    fn inputs(services: usize) -> Inputs {
        let settings = Settings::default();
        let cycle = CycleLength::at_least(Period::from_secs(15));
        let (store, audit) = (Arc::new(MemoryStore::default()), Arc::new(Nowhere));
        let mut pipeline = Pipeline::new(settings, cycle, store, audit);
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let edges_ms: Arc<[f64]> = (0..20).map(|i| if i < 19 { 1.6_f64.powi(i) } else { f64::INFINITY }).collect();
        let mut snapshot = Snapshot {
            time: Timestamp::UNIX_EPOCH,
            cells: BTreeMap::new(),
            coverage: BTreeMap::new(),
            gaps: Vec::new(),
            cluster: None,
        };
        for _ in 0..240 {
            snapshot.time += cycle.signed();
            for service in 0..services {
                let mut cell = || {
                    let total = f64::from(random.random_range(380..420_u32));
                    let calls = Calls { total, failed: f64::from(random.random_range(0..3_u32)) };
                    let share = |i: usize| if (3..11).contains(&i) { 60.0 } else { 0.0 };
                    let counts = (0..20).map(|i| (share(i) * random.random_range(0.5..1.5_f64)).round()).collect();
                    Cell { served: calls, called: calls, latency: Histogram { edges_ms: edges_ms.clone(), counts } }
                };
                let cells = ["zone-a", "zone-b", "zone-c"].map(|zone| (Zone::new(zone), cell()));
                snapshot.cells.insert(ServiceId::new("default", format!("service-{service}")), cells.into());
            }
            pipeline.learn(&snapshot);
        }
        let assessment = Assessment { time: snapshot.time, zones: BTreeMap::new(), unsettled: BTreeSet::new() };
        let (now, history) = (snapshot.time, pipeline.history.clone());
        let sight = Arc::new(Sight { snapshot, assessment });
        let pending =
            Pending { history, sight, looks: Vec::new(), isolations: Vec::new(), holds: BTreeMap::new(), now };
        pipeline.inputs_of(pending)
    }

    #[test]
    fn what_is_kept_is_read_back_to_the_last_bit_and_small() {
        let inputs = inputs(10);
        let file = inputs.file().unwrap();
        assert!(file.len() < 10 * 12_000, "{} bytes for ten services", file.len());
        let again = Inputs::read(&file).unwrap();
        assert!(again.file().unwrap() == file, "as it was");

        let mut other = inputs;
        other.format = FORMAT + 1;
        let error = Inputs::read(&other.file().unwrap()).err().unwrap().to_string();
        assert!(error.contains("its format is 2, and this zoneward reads 1"), "{error}");
        let error = Inputs::read(b"no gzip").err().unwrap().to_string();
        assert!(error.contains("it is no file of inputs"), "{error}");
    }
}
