//! A made-up mesh, as small as it may be: pods, nodes and addresses that steps change, and counts by service, zone and
//! cycle. No request is simulated; what users would get follows from which pods serve, and from the faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution, Poisson};
use zoneward::domain::cluster::{Draining, Node, Pod, PodId, Service};
use zoneward::domain::verdict::{PodView, Suspect};
use zoneward::domain::{
    Calls, Cell, ClusterView, Coverage, Histogram, PodAge, PodCalls, Probes, ServiceId, Snapshot, Zone,
};

use crate::story::{Disturbance, Kind, Story, What};

pub const CYCLE: i64 = 15;
/// Cycles before the start that can be asked for.
pub const PAST: i64 = 40 * CYCLE;
/// A Tuesday.
const START: i64 = 1_795_510_500;
const EDGES_MS: [f64; 6] = [10.0, 25.0, 50.0, 100.0, 250.0, f64::INFINITY];
const BASE_ERRORS: f64 = 0.001;
const MEDIAN_MS: f64 = 20.0;
pub const NODES: usize = 2;
/// How late the view of the cluster may be.
pub const OLDEST_VIEW: i64 = 20;

pub fn moment(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).expect("a moment of this century")
}

pub fn second(at: Timestamp) -> i64 {
    at.as_second() - START
}

/// A zone's pods, nodes and address, and who has marked them.
#[derive(Debug, Clone)]
pub struct Place {
    pub name: Zone,
    pub pods: Vec<PodState>,
    pub tainted: [bool; NODES],
    /// Whether the name has its address.
    pub listed: bool,
    /// Since when others have it cordoned.
    pub cordoned: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct PodState {
    pub service: usize,
    pub draining: Draining,
}

/// Points of failures of servers and of clients; how many times as slow all pods are, and one of them beside.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    servers: f64,
    clients: f64,
    slow: f64,
    slow_pod: f64,
}

impl Place {
    /// Whether anything of it carries our marks.
    pub fn marked(&self) -> bool {
        let ours = |pod: &PodState| matches!(pod.draining, Draining::Ours(_));
        self.tainted.contains(&true) || !self.listed || self.pods.iter().any(ours)
    }
}

#[derive(Debug)]
pub struct Mesh {
    pub places: Vec<Place>,
    pub services: Vec<ServiceId>,
    pods: usize,
    requests: f64,
    faults: Vec<Disturbance>,
    noise: ChaCha8Rng,
    cycles: BTreeMap<i64, BTreeMap<ServiceId, BTreeMap<Zone, Cell>>>,
    /// As the places were, oldest first.
    past: VecDeque<(i64, Vec<Place>)>,
}

impl Mesh {
    pub fn new(story: &Story) -> Self {
        let place = |nth: usize| Place {
            name: Zone::new(format!("zone-{}", ["a", "b", "c", "d"][nth])),
            pods: (0..story.services * story.pods)
                .map(|pod| PodState { service: pod / story.pods, draining: Draining::No })
                .collect(),
            tainted: [false; NODES],
            listed: true,
            cordoned: None,
        };
        let mut noise = ChaCha8Rng::seed_from_u64(story.seed);
        noise.set_stream(1);
        let is_fault = |disturbance: &&Disturbance| matches!(disturbance.what, What::Fault { .. });
        let mut mesh = Self {
            places: (0..story.zones).map(place).collect(),
            services: (0..story.services).map(|nth| ServiceId::new("shop", format!("service-{nth}"))).collect(),
            pods: story.pods,
            requests: story.requests,
            faults: story.disturbances.iter().filter(is_fault).cloned().collect(),
            noise,
            cycles: BTreeMap::new(),
            past: VecDeque::new(),
        };
        (1..=PAST / CYCLE).for_each(|nth| mesh.serve(nth * CYCLE - PAST));
        mesh
    }

    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.places.iter().map(|place| &place.name)
    }

    pub fn at(&self, zone: &Zone) -> Option<usize> {
        self.places.iter().position(|place| place.name == *zone)
    }

    /// Faults of a zone at a moment: what kind, and whether anything comes of it.
    pub fn faults_of(&self, zone: usize, now: i64) -> impl Iterator<Item = (Kind, &Disturbance)> {
        self.faults.iter().filter_map(move |fault| {
            let What::Fault { kind, zones, .. } = &fault.what else { return None };
            let since = zones.iter().find(|(at, _)| *at == zone).map(|(_, late)| fault.from + late)?;
            (since <= now && now < fault.until).then_some((*kind, fault))
        })
    }

    /// What is wrong with a zone's pods of a service.
    fn trouble(&self, zone: usize, service: usize, now: i64) -> Trouble {
        let mut trouble = Trouble { servers: 0.0, clients: 0.0, slow: 1.0, slow_pod: 1.0 };
        let one_out = self.places.iter().any(|place| place.pods.iter().any(|pod| pod.draining != Draining::No));
        for (kind, fault) in self.faults_of(zone, now) {
            let What::Fault { errors, slow, .. } = &fault.what else { continue };
            match kind {
                Kind::Pod if service > 0 => {}
                Kind::Flapping(period) if (now - fault.from) / period % 2 == 1 => {}
                Kind::Overload if !one_out => {}
                Kind::Clients => trouble.clients += errors,
                Kind::Pod => {
                    trouble.servers += errors / self.pods as f64;
                    trouble.slow_pod *= slow;
                }
                Kind::Zone | Kind::Regional | Kind::Staggered | Kind::Flapping(_) | Kind::Overload => {
                    trouble.servers += errors;
                    trouble.slow *= slow;
                }
            }
        }
        trouble
    }

    /// Of durations, by bucket.
    fn durations_of(&self, trouble: Trouble) -> [f64; 6] {
        let part = 1.0 / self.pods as f64;
        let (others, one) = (shares(trouble.slow), shares(trouble.slow * trouble.slow_pod));
        std::array::from_fn(|bucket| (1.0 - part) * others[bucket] + part * one[bucket])
    }

    fn serving(&self, zone: usize, service: usize) -> usize {
        let serves = |pod: &&PodState| pod.service == service && pod.draining == Draining::No;
        self.places[zone].pods.iter().filter(serves).count()
    }

    /// One cycle of requests, up to a moment.
    pub fn serve(&mut self, now: i64) {
        let mut cells = BTreeMap::new();
        for service in 0..self.services.len() {
            cells.insert(self.services[service].clone(), self.serve_one(service, now));
        }
        self.cycles.insert(now, cells);
    }

    fn serve_one(&mut self, service: usize, now: i64) -> BTreeMap<Zone, Cell> {
        let zones = 0..self.places.len();
        let serving: Vec<f64> = zones.clone().map(|zone| self.serving(zone, service) as f64).collect();
        // Half of the callers are outside, and come by the name; the others are pods, which stay where they are.
        let listed = self.places.iter().filter(|place| place.listed).count().max(1) as f64;
        let calling = |place: &Place| 0.5 / self.places.len() as f64 + if place.listed { 0.5 / listed } else { 0.0 };
        let calling: Vec<f64> = self.places.iter().map(calling).collect();
        let all = Poisson::new(self.requests).map_or(0.0, |poisson| poisson.sample(&mut self.noise)) as u64;
        let served = self.split(all, &serving);
        let troubles: Vec<Trouble> = zones.clone().map(|zone| self.trouble(zone, service, now)).collect();
        let failed: Vec<u64> = zones
            .clone()
            .map(|zone| binomial(&mut self.noise, served[zone], (BASE_ERRORS + troubles[zone].servers).min(0.95)))
            .collect();
        let called = self.split(all, &calling);
        let their_failures = self.split(failed.iter().sum(), &calling);
        let mut cells = BTreeMap::new();
        for zone in zones {
            let (total, failures) = (called[zone], their_failures[zone].min(called[zone]));
            let own = binomial(&mut self.noise, total - failures, troubles[zone].clients.min(0.95));
            let cell = Cell {
                served: Calls { total: served[zone] as f64, failed: failed[zone] as f64 },
                called: Calls { total: total as f64, failed: (failures + own) as f64 },
                latency: self.durations(served[zone] - failed[zone], troubles[zone]),
            };
            cells.insert(self.places[zone].name.clone(), cell);
        }
        cells
    }

    fn split(&mut self, mut count: u64, weights: &[f64]) -> Vec<u64> {
        let mut left: f64 = weights.iter().sum();
        let mut parts = Vec::with_capacity(weights.len());
        for weight in weights {
            let share = if left > 0.0 { (weight / left).min(1.0) } else { 0.0 };
            let part = binomial(&mut self.noise, count, share);
            parts.push(part);
            count -= part;
            left -= weight;
        }
        parts
    }

    fn durations(&mut self, count: u64, trouble: Trouble) -> Histogram {
        let shares = self.durations_of(trouble);
        let counts = self.split(count, &shares).into_iter().map(|count| count as f64).collect();
        Histogram { edges_ms: EDGES_MS.into(), counts }
    }

    /// What a cycle showed, whole; none of one that was not yet.
    pub fn snapshot(&self, second: i64) -> Option<Snapshot> {
        let cells = self.cycles.get(&second)?.clone();
        let up = (self.services.len() * self.pods) as u32;
        let coverage = self.zones().map(|zone| (zone.clone(), Coverage { known: up, up })).collect();
        Some(Snapshot { time: moment(second), cells, coverage, gaps: Vec::new(), cluster: None })
    }

    /// A closer look: what the zone served, shared out evenly, but for failures that are one pod's.
    pub fn pods(&self, suspect: &Suspect, second: i64) -> Vec<PodCalls> {
        let Some(zone) = self.at(&suspect.zone) else { return Vec::new() };
        let cycles = (0..suspect.cycles as i64).filter_map(|nth| self.cycles.get(&(second - nth * CYCLE)));
        let mut sum = Cell::default();
        for cell in cycles.filter_map(|cells| cells.get(&suspect.service)?.get(&suspect.zone)) {
            sum.served += cell.served;
            sum.called += cell.called;
            sum.latency.add(&cell.latency);
        }
        let alone = self.services.first() == Some(&suspect.service)
            && (0..suspect.cycles as i64)
                .any(|nth| self.faults_of(zone, second - nth * CYCLE).any(|(kind, _)| kind == Kind::Pod));
        let part = 1.0 / self.pods as f64;
        let of = |nth: usize| {
            let calls = match suspect.view {
                PodView::Clients => sum.called,
                PodView::Servers | PodView::Durations => sum.served,
            };
            let failed = match (alone, nth) {
                (false, _) => calls.failed * part,
                (true, 0) => (calls.failed - calls.total * BASE_ERRORS).max(0.0),
                (true, _) => calls.total * BASE_ERRORS * part,
            };
            let mut latency = sum.latency.clone();
            let all: f64 = latency.counts.iter().sum();
            for (count, usual) in latency.counts.iter_mut().zip(shares(1.0)) {
                *count = match (alone, nth) {
                    (false, _) => *count * part,
                    (true, 0) => (*count - usual * all * (1.0 - part)).max(0.0),
                    (true, _) => usual * all * part,
                };
            }
            let node = Some(node_name(&suspect.zone, nth % NODES));
            let calls = Calls { total: calls.total * part, failed };
            PodCalls { pod: format!("pod-{nth}"), node, age: PodAge::Settled, calls, latency }
        };
        (0..self.pods).map(of).collect()
    }

    /// Asks every pod of a zone.
    pub fn probe(&self, zone: usize, now: i64) -> Probes {
        let asked = self.places[zone].pods.len() as u32;
        let sick = (0..self.services.len()).map(|service| self.trouble(zone, service, now).servers).fold(0.0, f64::max);
        Probes { asked, failed: (sick.min(1.0) * f64::from(asked)).round() as u32, why: None }
    }

    /// Keeps how the places are, for those who will see it late.
    pub fn remember(&mut self, now: i64) {
        self.past.retain(|(at, _)| now - at <= OLDEST_VIEW);
        self.past.push_back((now, self.places.clone()));
    }

    fn places_at(&self, second: i64) -> &[Place] {
        self.past.iter().find(|(at, _)| *at >= second).map_or(&self.places, |(_, places)| places)
    }

    pub fn cluster(&self) -> ClusterView {
        self.view(&self.places, &self.places)
    }

    /// With nodes as they were then, and pods as they were at another time.
    pub fn cluster_at(&self, nodes: i64, pods: i64) -> ClusterView {
        self.view(self.places_at(nodes), self.places_at(pods))
    }

    fn view(&self, nodes: &[Place], pods: &[Place]) -> ClusterView {
        let mut view = ClusterView::default();
        for place in nodes {
            for nth in 0..NODES {
                let node = Node {
                    zone: Some(place.name.clone()),
                    available: place.cordoned.is_none(),
                    tainted: place.tainted[nth].then(|| place.name.clone()),
                    ..Node::default()
                };
                view.nodes.insert(node_name(&place.name, nth), node);
            }
        }
        for place in pods {
            for (nth, pod) in place.pods.iter().enumerate() {
                let id = PodId { namespace: "shop".to_owned(), name: format!("{}-{nth}", place.name) };
                let pod = Pod {
                    node: Some(node_name(&place.name, nth % NODES)),
                    zone: Some(place.name.clone()),
                    ready: true,
                    draining: pod.draining.clone(),
                    in_mesh: true,
                    services: BTreeSet::from([self.services[pod.service].clone()]),
                    ..Pod::default()
                };
                view.pods.insert(id, pod);
            }
        }
        view.services = self.services.iter().map(|service| (service.clone(), Service::default())).collect();
        view
    }
}

/// Of durations, by bucket: log-logistic around the median.
fn shares(slow: f64) -> [f64; 6] {
    let mut lower = 0.0;
    EDGES_MS.map(|edge| {
        let upper = 1.0 / (1.0 + (MEDIAN_MS * slow / edge).powi(3));
        upper - std::mem::replace(&mut lower, upper)
    })
}

fn node_name(zone: &Zone, nth: usize) -> String {
    format!("node-{zone}-{nth}")
}

fn binomial(noise: &mut ChaCha8Rng, count: u64, share: f64) -> u64 {
    Binomial::new(count, share.clamp(0.0, 1.0)).map_or(0, |binomial| binomial.sample(noise))
}
