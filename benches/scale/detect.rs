//! The detector alone, on snapshots made up here: the time of a step on one core, and its memory over a week.

use std::time::Instant;

use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zoneward::domain::observation::Coverage;
use zoneward::domain::{Calls, Cell, CycleLength, Histogram, Period, ServiceId, Snapshot, Zone};

use crate::mesh::ZONES;
use crate::process;
use crate::watch::{pipeline_of, settings};

const EDGES_MS: [f64; 20] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    f64::INFINITY,
];
/// Of three hundred requests, about so many between the edges.
const COUNTS: [u32; 20] = [1, 6, 70, 90, 90, 27, 10, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const START: Timestamp = Timestamp::constant(1_767_571_200, 0);
/// Cycles before a step is timed: all windows are full.
const WARM_UP: i32 = 60;

fn snapshot(services: usize, time: Timestamp, rng: &mut ChaCha8Rng) -> Snapshot {
    let mut cells = std::collections::BTreeMap::new();
    let edges: std::sync::Arc<[f64]> = EDGES_MS.into();
    for nth in 0..services {
        let of_zone = |zone: &str| {
            let counts: Vec<f64> = COUNTS.iter().map(|usual| f64::from(rng.random_range(0..=2 * usual))).collect();
            let total = counts.iter().sum::<f64>();
            let calls = Calls { total, failed: f64::from(rng.random_range(0..2)) };
            let latency = Histogram { edges_ms: std::sync::Arc::clone(&edges), counts };
            (Zone::new(zone), Cell { served: calls, called: calls, latency })
        };
        let id = ServiceId::new(format!("team-{:02}", nth % 20), format!("service-{nth:05}"));
        cells.insert(id, ZONES.map(of_zone).into_iter().collect());
    }
    let up = Coverage { known: 3, up: 3 };
    let coverage = ZONES.iter().map(|zone| (Zone::new(*zone), up)).collect();
    Snapshot { time, cells, coverage, gaps: Vec::new(), cluster: None }
}

/// Milliseconds of one step, judged and nothing fetched.
pub async fn step_ms(services: usize, steps: i32) -> f64 {
    let (mut rng, cycle) = (ChaCha8Rng::seed_from_u64(1), CycleLength::at_least(Period::from_secs(15)));
    let mut pipeline = pipeline_of(&settings("http://127.0.0.1:9"), cycle);
    let me = std::process::id();
    let mut cpu_s = 0.0;
    for nth in 0..WARM_UP + steps {
        let snapshot = snapshot(services, START + cycle.signed() * nth, &mut rng);
        let before = process::cpu_s(me);
        if nth < WARM_UP {
            pipeline.learn(&snapshot);
        } else {
            pipeline.tick(&mut Nobody, &snapshot, snapshot.time).await.unwrap();
            cpu_s += process::cpu_s(me) - before;
        }
    }
    cpu_s * 1000.0 / f64::from(steps)
}

/// Resident memory after the first two hours, and after each day.
pub async fn days_mib(services: usize, days: i32) -> Vec<f64> {
    let (mut rng, cycle) = (ChaCha8Rng::seed_from_u64(1), CycleLength::at_least(Period::from_secs(15)));
    let mut pipeline = pipeline_of(&settings("http://127.0.0.1:9"), cycle);
    let (hour, began) = (240, Instant::now());
    let mut seen = Vec::new();
    for nth in 0..=days * 24 * hour {
        let snapshot = snapshot(services, START + cycle.signed() * nth, &mut rng);
        pipeline.tick(&mut Nobody, &snapshot, snapshot.time).await.unwrap();
        if nth == 2 * hour || (nth > 0 && nth % (24 * hour) == 0) {
            seen.push(process::memory_mib(std::process::id()).0);
            eprintln!("{nth} cycles, {:.1} MiB, {:.0} s", seen[seen.len() - 1], began.elapsed().as_secs_f64());
        }
    }
    seen
}

/// There are no pods to look at.
struct Nobody;

#[async_trait::async_trait]
impl zoneward::ports::Observer for Nobody {
    async fn observe(
        &mut self,
        _first: Timestamp,
        _last: Timestamp,
    ) -> Result<Vec<Snapshot>, zoneward::ports::ObserveError> {
        Ok(Vec::new())
    }

    async fn observe_pods(
        &mut self,
        _suspect: &zoneward::domain::verdict::Suspect,
        _at: Timestamp,
    ) -> Result<Vec<zoneward::domain::PodCalls>, zoneward::ports::ObserveError> {
        Ok(Vec::new())
    }
}
