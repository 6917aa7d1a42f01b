//! Sees the embedded world as Prometheus would show it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::pod::{Counters, Durations, EDGES_MS, Pod, Reporter};
use super::world::{NAMESPACE, World};
use crate::domain::observation::coverage_gaps;
use crate::domain::verdict::{PodView, Suspect};
use crate::domain::{Calls, Cell, CycleLength, Histogram, PodCalls, Probes, Ratio, ServiceId, Snapshot, Zone};
use crate::ports::{ObserveError, Observer};

/// As in the default configuration.
const MIN_COVERAGE: Ratio = Ratio::from_percent(50.0);
/// Cycles of requests by pod that are remembered for a closer look.
const POD_MEMORY: usize = 32;

/// Reads the world's scraped counters; asking for a cycle lets the world run up to it.
pub struct WorldObserver {
    world: Arc<Mutex<World>>,
    cycle: CycleLength,
    by_pod: VecDeque<BTreeMap<(String, ServiceId), Cell>>,
}

impl WorldObserver {
    pub const fn new(world: Arc<Mutex<World>>, cycle: CycleLength) -> Self {
        Self { world, cycle, by_pod: VecDeque::new() }
    }

    fn look(&mut self, time: Timestamp) -> Snapshot {
        let mut world = lock(&self.world);
        world.run_until(time);
        let mut snapshot = Snapshot {
            time,
            cells: BTreeMap::new(),
            coverage: BTreeMap::new(),
            gaps: Vec::new(),
            cluster: Some(world.cluster_view()),
        };
        let mut by_pod = BTreeMap::new();
        for pod in &mut world.pods {
            let coverage = snapshot.coverage.entry(pod.zone.clone()).or_default();
            coverage.known += 1;
            coverage.up += u32::from(pod.up);
            for (service, reporter, failed, gained) in increments(pod) {
                let cells = snapshot.cells.entry(service.clone()).or_default();
                let cell = cells.entry(pod.zone.clone()).or_default();
                let total = gained.total() as f64;
                let calls = Calls { total, failed: if failed { total } else { 0.0 } };
                let of_pod: &mut Cell = by_pod.entry((pod.name.clone(), service)).or_default();
                for cell in [cell, of_pod] {
                    match reporter {
                        Reporter::Source => cell.called += calls,
                        Reporter::Destination => cell.served += calls,
                    }
                    if reporter == Reporter::Destination && !failed {
                        add(&mut cell.latency, &gained);
                    }
                }
            }
        }
        drop(world);
        snapshot.gaps = coverage_gaps(snapshot.coverage.keys(), &snapshot.coverage, MIN_COVERAGE);
        self.by_pod.push_front(by_pod);
        self.by_pod.truncate(POD_MEMORY);
        snapshot
    }
}

pub(super) fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a pod's scraped counters gained since the last cycle; of a pod not seen before, nothing, as its past is unknown.
fn increments(pod: &mut Pod) -> Vec<(ServiceId, Reporter, bool, Durations)> {
    let Some(scraped) = pod.scraped.clone() else { return Vec::new() };
    let gained = |earlier: &Counters| {
        let gain = |(key, durations): (&super::pod::SeriesKey, &Durations)| {
            let gained = earlier.get(key).map_or(*durations, |before| durations.since(before));
            (ServiceId::new(NAMESPACE, key.destination.clone()), key.reporter, key.ending.failed(), gained)
        };
        scraped.iter().map(gain).collect()
    };
    let gains = pod.reported.as_ref().map_or_else(Vec::new, gained);
    pod.reported = Some(scraped);
    gains
}

fn add(to: &mut Histogram, durations: &Durations) {
    if to.edges_ms.is_empty() {
        to.edges_ms = EDGES_MS.into();
        to.counts = vec![0.0; EDGES_MS.len()];
    }
    to.counts.iter_mut().zip(durations.counts).for_each(|(a, b)| *a += b as f64);
}

#[async_trait]
impl Observer for WorldObserver {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        let mut snapshots = Vec::new();
        let mut next = self.cycle.at_or_after(first);
        while next <= last {
            snapshots.push(self.look(next));
            next += self.cycle.signed();
        }
        Ok(snapshots)
    }

    async fn observe_pods(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Vec<PodCalls>, ObserveError> {
        let world = lock(&self.world);
        let concerned = |pod: &&Pod| match suspect.view {
            PodView::Servers | PodView::Durations => pod.service == suspect.service.name,
            PodView::Clients => true,
        };
        let pods = world.pods.iter().filter(|pod| pod.zone == suspect.zone).filter(concerned);
        let calls = |pod: &Pod| {
            let key = (pod.name.clone(), suspect.service.clone());
            let age = pod.age(at);
            let mut seen = PodCalls { pod: pod.name.clone(), age, ..PodCalls::default() };
            for cell in self.by_pod.iter().take(suspect.cycles).filter_map(|cycle| cycle.get(&key)) {
                match suspect.view {
                    PodView::Servers => seen.calls += cell.served,
                    PodView::Clients => seen.calls += cell.called,
                    PodView::Durations => seen.latency.add(&cell.latency),
                }
            }
            seen
        };
        Ok(pods.map(calls).collect())
    }

    async fn probe(&mut self, zone: &Zone) -> Option<Probes> {
        lock(&self.world).probe(zone)
    }
}
