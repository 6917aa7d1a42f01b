//! A mesh that nothing can change, seen as Prometheus would show it: counts are drawn around the true rates, pod by pod
//! and scrape by scrape. The loop is open: isolating a zone changes nothing here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use zoneward::domain::observation::coverage_gaps;
use zoneward::domain::verdict::{NEW_FOR, PodView, Suspect};
use zoneward::domain::{Calls, Cell, CycleLength, Gap, Period, PodAge, PodCalls, Ratio, Snapshot};
use zoneward::ports::{ObserveError, Observer};

use super::pod::{Counts, MEMORY, Pod, Sums};
use super::scenario::{Restart, Scenario, Scrapes, generator};
use super::truth::{OUTCOMES, STEP_S, Truth};

/// As in config/default.yaml: the age of the newest data asked for, and how long a series is known.
const OFFSET_S: f64 = 2.0;
const LOOKBACK_S: f64 = 300.0;
const MIN_COVERAGE: Ratio = Ratio::from_percent(50.0);

pub struct World {
    scenario: Arc<Scenario>,
    truth: Truth,
    start: Timestamp,
    cycle: CycleLength,
    rng: ChaCha8Rng,
    /// By service and zone, and there by variant, or by zone of the clients.
    served: Vec<Vec<Vec<Sums<OUTCOMES>>>>,
    called: Vec<Vec<Sums<2>>>,
    /// By service, and last the gateway: whom it calls.
    callees: Vec<Vec<usize>>,
    pods: Vec<Pod>,
    /// Those that ended within memory, and how many cycles ago.
    gone: VecDeque<(usize, Pod)>,
    restarts: VecDeque<Restart>,
    cycles: u64,
}

impl World {
    pub fn new(scenario: &Arc<Scenario>, start: Timestamp) -> Self {
        let services = scenario.services.len();
        let zones = scenario.zones.len();
        let callees_of = |caller: Option<usize>| {
            (0..services).filter(|callee| scenario.services[*callee].caller == caller).collect::<Vec<_>>()
        };
        let callees: Vec<Vec<usize>> = (0..services).map(|it| callees_of(Some(it))).chain([callees_of(None)]).collect();
        let mut world = Self {
            truth: Truth::new(scenario),
            start,
            cycle: CycleLength::at_least(Period::from_secs(scenario.scrape_s)),
            rng: generator(&scenario.family, scenario.seed, "pods"),
            served: vec![vec![Vec::new(); zones]; services],
            called: vec![vec![Sums::new(kept(scenario), 0); zones]; services],
            callees,
            pods: Vec::new(),
            gone: VecDeque::new(),
            restarts: scenario.restarts.iter().copied().collect(),
            cycles: 0,
            scenario: Arc::clone(scenario),
        };
        for zone in 0..zones {
            world.start_pods(None, zone, 1);
            for (service, it) in scenario.services.iter().enumerate() {
                world.start_pods(Some(service), zone, it.pods);
                world.assign((service, zone));
            }
        }
        world
    }

    pub const fn cycle(&self) -> CycleLength {
        self.cycle
    }

    fn start_pods(&mut self, service: Option<usize>, zone: usize, pods: usize) {
        let weights: Vec<f64> = (0..pods).map(|_| self.rng.random_range(0.9..1.1)).collect();
        let all: f64 = weights.iter().sum();
        for (index, weight) in weights.into_iter().enumerate() {
            let (name, node) = (self.pod_name(service, zone), self.node(zone, index));
            let pending = Counts::none(self.callees[service.unwrap_or(self.callees.len() - 1)].len());
            let age_s = OFFSET_S + self.rng.random_range(0.0..self.cycle.as_secs_f64());
            self.pods.push(Pod {
                service,
                zone,
                index,
                name,
                node,
                born_s: None,
                weight: weight / all,
                variant: 0,
                age_s,
                drawn_s: -age_s,
                scraped_s: None,
                pending,
                seen: VecDeque::new(),
            });
        }
    }

    fn pod_name(&mut self, service: Option<usize>, zone: usize) -> String {
        let app = service.map_or("istio-ingressgateway", |it| self.scenario.services[it].id.name.as_str());
        format!("{app}-{}-{:06x}", self.scenario.zones[zone], self.rng.random_range(0..0x0100_0000))
    }

    fn node(&self, zone: usize, pod: usize) -> Option<String> {
        let nodes = self.scenario.nodes_per_zone;
        (nodes > 0).then(|| format!("node-{}-{}", self.scenario.zones[zone], pod % nodes))
    }

    /// Finds out which effects concern which of a cell's pods.
    fn assign(&mut self, (service, zone): (usize, usize)) {
        let pods = || self.pods.iter().filter(|pod| pod.service == Some(service) && pod.zone == zone);
        let born_s = |pod: &Pod| pod.born_s.unwrap_or(f64::NEG_INFINITY);
        let limits: Vec<(u32, f64)> =
            pods().map(|pod| (self.truth.limits((service, zone), pod.index, born_s(pod)), pod.weight)).collect();
        let variants = self.truth.assign((service, zone), &limits);
        let steps = (self.truth.time_s() / STEP_S) as u64;
        let sums = &mut self.served[service][zone];
        sums.resize_with(self.truth.served[service][zone].variants.len(), || Sums::new(kept(&self.scenario), steps));
        let pods = self.pods.iter_mut().filter(|pod| pod.service == Some(service) && pod.zone == zone);
        pods.zip(variants).for_each(|(pod, variant)| pod.variant = variant);
    }

    fn look(&mut self) -> Snapshot {
        self.cycles += 1;
        let now_s = self.cycles as f64 * self.cycle.as_secs_f64();
        while self.truth.time_s() < now_s {
            self.renew_pods();
            self.truth.advance();
            for (cells, sums) in self.truth.served.iter().flatten().zip(self.served.iter_mut().flatten()) {
                sums.iter_mut().zip(&cells.variants).for_each(|(sums, variant)| sums.step(&variant.rates));
            }
            let called = self.truth.called.iter().flatten();
            self.called.iter_mut().flatten().zip(called).for_each(|(sums, rates)| sums.step(rates));
        }
        self.gone.iter_mut().for_each(|(cycles, _)| *cycles += 1);
        self.gone.retain(|(cycles, _)| *cycles < MEMORY);
        self.snapshot(now_s)
    }

    /// Replaces pods whose time has come by the next step's start.
    fn renew_pods(&mut self) {
        let until_s = self.truth.time_s() + STEP_S;
        while let Some(restart) = self.restarts.front().copied().filter(|it| it.at_s < until_s) {
            self.restarts.pop_front();
            let name = (!restart.same_name).then(|| self.pod_name(Some(restart.service), restart.zone));
            let is_it = |pod: &&mut Pod| {
                (pod.service, pod.zone, pod.index) == (Some(restart.service), restart.zone, restart.pod)
            };
            let Some(pod) = self.pods.iter_mut().find(is_it) else { continue };
            if name.is_some() {
                self.gone.push_back((0, pod.clone()));
            }
            pod.succeed(restart.back_s, name);
            self.assign((restart.service, restart.zone));
        }
    }

    fn snapshot(&mut self, now_s: f64) -> Snapshot {
        let time = self.start + SignedDuration::from_secs(now_s as i64);
        let mut snapshot =
            Snapshot { time, cells: self.cells(), coverage: BTreeMap::new(), gaps: Vec::new(), cluster: None };
        let troubles: Vec<Scrapes> =
            self.scenario.scrapes.iter().filter(|it| (it.start_s..it.end_s).contains(&now_s)).cloned().collect();
        let copies = troubles.iter().map(|it| it.copies).max().unwrap_or(1);
        let mut pods = std::mem::take(&mut self.pods);
        for pod in &mut pods {
            pod.open_cycle();
            let scrape_s = now_s - pod.age_s;
            if pod.born_s.is_some_and(|born_s| born_s >= scrape_s) {
                continue;
            }
            self.draw(pod, scrape_s);
            let coverage = snapshot.coverage.entry(self.scenario.zones[pod.zone].clone()).or_default();
            coverage.known += 1;
            if self.missed(pod.zone, &troubles) {
                continue;
            }
            coverage.up += 1;
            // Of a proxy that is new, or was not seen for long, nothing but where its counters stand is known.
            let known = pod.scraped_s.is_some_and(|at_s| scrape_s - at_s <= LOOKBACK_S);
            pod.scraped_s = Some(scrape_s);
            if known {
                std::mem::swap(&mut pod.pending, &mut pod.seen[0]);
                self.show(pod, f64::from(copies), &mut snapshot);
            }
            pod.pending.clear();
        }
        self.pods = pods;
        let zones = self.scenario.zones.iter();
        snapshot.gaps = coverage_gaps(zones, &snapshot.coverage, MIN_COVERAGE);
        if copies > 1 {
            snapshot.gaps.push(Gap::DuplicatedTargets { copies });
        }
        snapshot
    }

    fn cells(&self) -> BTreeMap<zoneward::domain::ServiceId, BTreeMap<zoneward::domain::Zone, Cell>> {
        let empty = || self.scenario.zones.iter().map(|zone| (zone.clone(), Cell::default())).collect();
        self.scenario.services.iter().map(|service| (service.id.clone(), empty())).collect()
    }

    fn missed(&mut self, zone: usize, troubles: &[Scrapes]) -> bool {
        let mut missed = self.scenario.noise.missed_scrapes.as_fraction();
        for it in troubles.iter().filter(|it| it.zones.is_empty() || it.zones.contains(&zone)) {
            let lost = if it.every_second_lost && self.cycles.is_multiple_of(2) { 1.0 } else { it.lost };
            missed = missed.max(lost);
        }
        self.rng.random_bool(missed)
    }

    /// Lets the pod count what happened since its last scrape.
    fn draw(&mut self, pod: &mut Pod, scrape_s: f64) {
        let from_s = std::mem::replace(&mut pod.drawn_s, scrape_s);
        if let Some(service) = pod.service {
            let expected = self.served[service][pod.zone][pod.variant].between(from_s, scrape_s);
            pod.pending.serve(&expected, pod.weight, &mut self.rng);
            let here = |it: &&super::scenario::Stray| (it.service, it.zone, 0) == (service, pod.zone, pod.index);
            let strays = self.scenario.strays.iter().filter(here).filter(|it| (from_s..scrape_s).contains(&it.at_s));
            let failed = strays.count() as f64;
            pod.pending.served += Calls { total: failed, failed };
        }
        for (nth, callee) in self.callees[pod.service.unwrap_or(self.callees.len() - 1)].iter().enumerate() {
            let expected = self.called[*callee][pod.zone].between(from_s, scrape_s);
            pod.pending.call(nth, expected, pod.weight, &mut self.rng);
        }
    }

    /// Adds what the newest scrape of a pod shows.
    fn show(&self, pod: &Pod, copies: f64, snapshot: &mut Snapshot) {
        let times = |calls: Calls| Calls { total: calls.total * copies, failed: calls.failed * copies };
        let zone = &self.scenario.zones[pod.zone];
        let mut cell = |service: usize, change: &mut dyn FnMut(&mut Cell)| {
            let cells = snapshot.cells.get_mut(&self.scenario.services[service].id);
            if let Some(cell) = cells.and_then(|zones| zones.get_mut(zone)) {
                change(cell);
            }
        };
        let seen = &pod.seen[0];
        if let Some(service) = pod.service {
            let mut durations = seen.histogram();
            durations.counts.iter_mut().for_each(|count| *count *= copies);
            cell(service, &mut |cell| {
                cell.served += times(seen.served);
                cell.latency.add(&durations);
            });
        }
        let callees = &self.callees[pod.service.unwrap_or(self.callees.len() - 1)];
        for (callee, calls) in callees.iter().zip(&seen.called) {
            cell(*callee, &mut |cell| cell.called += times(*calls));
        }
    }

    /// A pod over its newest cycles, as a closer look shows it; `None` if that is none of its business.
    fn pod_calls(&self, pod: &Pod, suspect: &Suspect, cycles: usize) -> Option<PodCalls> {
        if self.scenario.zones[pod.zone] != suspect.zone {
            return None;
        }
        let is_it = |service: usize| self.scenario.services[service].id == suspect.service;
        let callees = &self.callees[pod.service.unwrap_or(self.callees.len() - 1)];
        let callee = callees.iter().position(|callee| is_it(*callee));
        let serves = pod.service.is_some_and(is_it);
        let mut calls = PodCalls { pod: pod.name.clone(), node: pod.node.clone(), ..PodCalls::default() };
        for seen in pod.seen.iter().take(cycles) {
            match (suspect.view, callee) {
                (PodView::Servers, _) if serves => calls.calls += seen.served,
                (PodView::Durations, _) if serves => calls.latency.add(&seen.histogram()),
                (PodView::Clients, Some(callee)) => calls.calls += seen.called[callee],
                (PodView::Servers | PodView::Durations | PodView::Clients, _) => return None,
            }
        }
        Some(calls)
    }
}

/// Steps that are remembered: a pod's last stretch may have begun two scrapes ago.
fn kept(scenario: &Scenario) -> usize {
    (2.0 * (scenario.scrape_s as f64 + OFFSET_S) / STEP_S) as usize + 6
}

#[async_trait]
impl Observer for World {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        let cycles = (last.as_second() - first.as_second()) / self.cycle.seconds() + 1;
        Ok((0..cycles).map(|_| self.look()).collect())
    }

    async fn observe_pods(&mut self, suspect: &Suspect, _: Timestamp) -> Result<Vec<PodCalls>, ObserveError> {
        let new_since_s = self.cycles as f64 * self.cycle.as_secs_f64() - NEW_FOR.as_secs_f64();
        let age = |pod: &Pod| {
            // Of the time before the beginning nothing is known.
            let known = if new_since_s >= 0.0 { PodAge::Settled } else { PodAge::Unknown };
            pod.born_s.map_or(known, |born_s| if born_s > new_since_s { PodAge::New } else { known })
        };
        // A pod that has not been scraped yet is not there for anyone.
        let alive = self.pods.iter().filter(|pod| pod.scraped_s.is_some()).map(|pod| (0, age(pod), pod));
        let gone = self.gone.iter().map(|(ago, pod)| (*ago, PodAge::Gone, pod));
        let look = |(ago, age, pod): (usize, PodAge, &Pod)| {
            let calls = self.pod_calls(pod, suspect, suspect.cycles.saturating_sub(ago))?;
            Some(PodCalls { age, ..calls })
        };
        Ok(alive.chain(gone).filter_map(look).collect())
    }
}
