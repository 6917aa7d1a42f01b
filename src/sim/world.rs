//! The world: time, traffic, faults, scrapes, and what steps have changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cluster::Cluster;
use super::mesh::{self, Endpoint, Wander};
use super::pod::{Durations, Ending, Pod, Reporter, SeriesKey};
use super::scenario::{Fault, Scenario};
use crate::domain::cluster::{self, Draining};
use crate::domain::{ClusterView, Probes, ServiceId, Zone};

pub(super) const NAMESPACE: &str = "default";
pub(super) const GATEWAY: &str = "istio-ingressgateway";
/// The taint and the label value that the steps write.
pub(super) const MARK: &str = "zoneward";
/// How long resolvers keep an address that was withdrawn.
const DNS_TTL_S: f64 = 20.0;
const DAY_S: i64 = 86_400;
/// Of the day: from nine o'clock on there is more traffic than at its mean.
const BUSIER_FROM: f64 = 9.0 / 24.0;
/// Seconds over which users' experience is averaged.
const USERS_WINDOW: usize = 60;

/// What users get at the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Users {
    pub requests: u64,
    pub failed: u64,
}

impl Users {
    pub fn success_ratio(self) -> f64 {
        if self.requests == 0 { 1.0 } else { 1.0 - self.failed as f64 / self.requests as f64 }
    }
}

/// One zone, as a person would see it over the last seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneSight {
    pub zone: Zone,
    pub requests_per_second: f64,
    pub failed_ratio: f64,
    pub draining_pods: usize,
    pub pods: usize,
    pub in_dns: bool,
    pub tainted_nodes: usize,
}

/// What a real cluster and name server say of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub pods: Vec<SeenPod>,
    /// Zones whose addresses the load balancer's name has.
    pub listed: BTreeSet<Zone>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPod {
    pub name: String,
    pub service: String,
    pub zone: Zone,
    pub ready: bool,
    /// The value of `istio.io/draining`.
    pub draining: Option<String>,
}

fn push_bounded<T>(ring: &mut VecDeque<T>, newest: T) {
    if ring.len() == USERS_WINDOW {
        ring.pop_front();
    }
    ring.push_back(newest);
}

/// Deterministic for a scenario and a seed.
pub struct World {
    scenario: Scenario,
    story_start: Timestamp,
    now: Timestamp,
    rng: ChaCha8Rng,
    pub(super) pods: Vec<Pod>,
    pub(super) cluster: Cluster,
    /// Share of users' traffic by zone: follows DNS with its time to live.
    entering: BTreeMap<Zone, f64>,
    error_noise: BTreeMap<(String, Zone), Wander>,
    latency_noise: BTreeMap<(String, Zone), Wander>,
    users: VecDeque<Users>,
    served: BTreeMap<Zone, VecDeque<(u64, u64)>>,
    born: u64,
}

impl World {
    /// The story begins at `story_start`; the world begins earlier, by the scenario's history.
    pub fn new(scenario: Scenario, story_start: Timestamp, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let zones = scenario.zones.clone();
        let share = 1.0 / zones.len() as f64;
        let keys = || {
            let names = scenario.services.iter().map(|s| s.name.clone());
            names.flat_map(|name| zones.iter().map(move |zone| (name.clone(), zone.clone()))).collect::<Vec<_>>()
        };
        let mut world = Self {
            now: story_start - scenario.history.signed(),
            story_start,
            pods: Vec::new(),
            cluster: Cluster::new(&zones),
            entering: zones.iter().map(|zone| (zone.clone(), share)).collect(),
            error_noise: keys().into_iter().map(|key| (key, Wander::new(0.3, 45.0))).collect(),
            latency_noise: keys().into_iter().map(|key| (key, Wander::new(0.02, 60.0))).collect(),
            users: VecDeque::new(),
            served: BTreeMap::new(),
            born: 0,
            rng: ChaCha8Rng::from_rng(&mut rng),
            scenario,
        };
        let apps: Vec<(String, usize)> = std::iter::once((GATEWAY.to_owned(), 1))
            .chain(world.scenario.services.iter().map(|s| (s.name.clone(), s.pods_per_zone)))
            .collect();
        for (app, pods) in apps {
            for zone in &zones {
                (0..pods).for_each(|_| world.start_pod(&app, zone));
            }
        }
        world
    }

    pub const fn now(&self) -> Timestamp {
        self.now
    }

    pub const fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    pub const fn story_start(&self) -> Timestamp {
        self.story_start
    }

    /// Lets time pass, second by second.
    pub fn run_until(&mut self, time: Timestamp) {
        while self.now < time {
            self.now += SignedDuration::from_secs(1);
            self.second();
        }
    }

    /// What users got over the last minute.
    pub fn users(&self) -> Users {
        self.users.iter().rev().take(USERS_WINDOW).fold(Users::default(), |sum, second| Users {
            requests: sum.requests + second.requests,
            failed: sum.failed + second.failed,
        })
    }

    /// Each zone, over the last `seconds`.
    pub fn sights(&self, seconds: usize) -> Vec<ZoneSight> {
        let sight = |zone: &Zone| {
            let served = self.served.get(zone).into_iter().flatten();
            let (n, x) = served.rev().take(seconds).fold((0, 0), |(n, x), (a, b)| (n + a, x + b));
            let pods = || self.pods.iter().filter(|pod| pod.zone == *zone && pod.service != GATEWAY);
            ZoneSight {
                zone: zone.clone(),
                requests_per_second: n as f64 / seconds.max(1) as f64,
                failed_ratio: x as f64 / n.max(1) as f64,
                draining_pods: pods().filter(|pod| pod.draining.is_some()).count(),
                pods: pods().count(),
                in_dns: self.cluster.dns.contains(zone),
                tainted_nodes: self.cluster.nodes.values().filter(|n| n.zone == *zone && !n.taints.is_empty()).count(),
            }
        };
        self.scenario.zones.iter().map(sight).collect()
    }

    /// Whether nothing that a step changes is left changed.
    pub fn clean(&self) -> bool {
        self.pods.iter().all(|pod| pod.draining.is_none()) && self.cluster.clean(&self.scenario.zones)
    }

    /// What guardrails may ask of the cluster. Our own taint does not make a zone unavailable.
    pub(super) fn cluster_view(&self) -> ClusterView {
        let mut view = ClusterView::default();
        for (name, it) in &self.cluster.nodes {
            let available = it.taints.iter().all(|taint| taint == MARK);
            let node = cluster::Node {
                zone: Some(it.zone.clone()),
                available,
                tainted: it.taints.contains(MARK).then(|| it.zone.clone()),
                ..cluster::Node::default()
            };
            view.nodes.insert(name.clone(), node);
        }
        for pod in self.pods.iter().filter(|pod| pod.service != GATEWAY) {
            let service = ServiceId::new(NAMESPACE, pod.service.clone());
            let id = cluster::PodId { namespace: NAMESPACE.to_owned(), name: pod.name.clone() };
            let draining = match pod.draining.as_deref() {
                None => Draining::No,
                Some(MARK) => Draining::Ours(pod.zone.clone()),
                Some(_) => Draining::Others,
            };
            let seen = cluster::Pod {
                uid: pod.name.clone(),
                zone: Some(pod.zone.clone()),
                ready: true,
                draining,
                in_mesh: true,
                services: [service.clone()].into(),
                ..cluster::Pod::default()
            };
            view.services.entry(service).or_default();
            view.pods.insert(id, seen);
        }
        view
    }

    pub(super) fn lost_scrapes(&self, zone: &Zone) -> bool {
        self.faults().any(|fault| fault.scrapes_lost && fault.zones.contains(zone))
    }

    fn faults(&self) -> impl Iterator<Item = &Fault> {
        let story_time = self.now.duration_since(self.story_start);
        self.scenario.faults.iter().filter(move |fault| fault.active(story_time))
    }

    /// A new pod in the zone, or where pods may still be scheduled.
    fn start_pod(&mut self, service: &str, zone: &Zone) {
        let schedulable = self.scenario.zones.iter().filter(|z| self.cluster.schedulable(z)).cloned();
        let zone = if self.cluster.schedulable(zone) { Some(zone.clone()) } else { schedulable.into_iter().next() };
        let Some(zone) = zone else { return };
        self.born += 1;
        let name = format!("{service}-{zone}-{:04x}", (self.born * 40_503) & 0xffff);
        self.add_pod(name, service, zone);
    }

    fn add_pod(&mut self, name: String, service: &str, zone: Zone) {
        let interval = self.scenario.scrape_interval.signed().as_secs();
        self.pods.push(Pod {
            name,
            service: service.to_owned(),
            zone,
            born: (self.now > self.story_start - self.scenario.history.signed()).then_some(self.now),
            draining: None,
            ready: true,
            counters: BTreeMap::new(),
            phase_s: self.rng.random_range(0..interval),
            scraped: None,
            reported: None,
            up: true,
        });
    }

    /// From now on pods and addresses are those of a real cluster and name server: calls go where these say.
    pub fn follow(&mut self, seen: &Seen) {
        self.pods.retain(|pod| seen.pods.iter().any(|it| it.name == pod.name));
        for it in &seen.pods {
            if !self.pods.iter().any(|pod| pod.name == it.name) {
                self.add_pod(it.name.clone(), &it.service, it.zone.clone());
            }
            for pod in self.pods.iter_mut().filter(|pod| pod.name == it.name) {
                pod.ready = it.ready;
                pod.draining.clone_from(&it.draining);
            }
        }
        self.cluster.dns.clone_from(&seen.listed);
    }

    fn second(&mut self) {
        let rng = &mut self.rng;
        self.error_noise.values_mut().chain(self.latency_noise.values_mut()).for_each(|noise| noise.step(rng));
        self.restart_pods();
        self.follow_dns();
        self.traffic();
        self.scrape();
    }

    fn restart_pods(&mut self) {
        let story_time = self.now.duration_since(self.story_start);
        let due: Vec<_> = self.scenario.restarts.iter().filter(|r| r.at.signed() == story_time).cloned().collect();
        for restart in due {
            let leaving = |pod: &Pod| pod.service == restart.service && pod.zone == restart.zone;
            let count = self.pods.iter().filter(|pod| leaving(pod)).count();
            self.pods.retain(|pod| !leaving(pod));
            (0..count).for_each(|_| self.start_pod(&restart.service, &restart.zone));
        }
    }

    fn follow_dns(&mut self) {
        let listed = self.cluster.dns.len().max(1) as f64;
        for (zone, share) in &mut self.entering {
            let target = if self.cluster.dns.contains(zone) { 1.0 / listed } else { 0.0 };
            *share += (target - *share) / DNS_TTL_S;
            if target == 0.0 && *share < 1e-3 {
                *share = 0.0;
            }
        }
    }

    /// How likely each pod of a service is to fail a request, and how long it takes, given what its own calls meet.
    fn endpoints(&self, index: usize, next: &[Endpoint]) -> Vec<Endpoint> {
        let service = &self.scenario.services[index];
        let mean = |f: &dyn Fn(&Endpoint) -> f64| next.iter().map(f).sum::<f64>() / next.len().max(1) as f64;
        let mut rank: BTreeMap<&Zone, usize> = BTreeMap::new();
        let mut endpoints = Vec::new();
        for (pod, it) in self.pods.iter().enumerate().filter(|(_, pod)| pod.service == service.name) {
            let nth = rank.entry(&it.zone).or_default();
            *nth += 1;
            let key = (service.name.clone(), it.zone.clone());
            let mut failure = service.errors.as_fraction() * self.error_noise.get(&key).map_or(1.0, Wander::factor);
            let mut median_ms = f64::from(service.median_ms) * self.latency_noise.get(&key).map_or(1.0, Wander::factor);
            for fault in self.faults().filter(|f| f.touches(&service.name, &it.zone)) {
                if fault.pods.is_none_or(|pods| *nth <= pods) {
                    failure += fault.errors.map_or(0.0, super::super::domain::quantity::Ratio::as_fraction);
                    median_ms *= fault.slowdown.map_or(1.0, super::super::domain::quantity::Factor::times);
                }
            }
            let calls_next = service.calls_next && index + 1 < self.scenario.services.len();
            let downstream = if calls_next {
                let unreachable =
                    if next.is_empty() { 1.0 } else { self.connect_failure(&service.name, &it.zone, *nth - 1) };
                1.0 - (1.0 - unreachable) * (1.0 - mean(&|e| e.failure))
            } else {
                0.0
            };
            let waited_ms = if calls_next { mean(&|e| e.median_ms) } else { 0.0 };
            endpoints.push(Endpoint {
                pod,
                failure: 1.0 - (1.0 - failure.clamp(0.0, 1.0)) * (1.0 - downstream),
                median_ms: median_ms + waited_ms,
            });
        }
        endpoints
    }

    /// A request to each pod of the zone, beside its traffic.
    pub(super) fn probe(&mut self, zone: &Zone) -> Option<Probes> {
        if !self.scenario.probes {
            return None;
        }
        let mut probes = Probes::default();
        for endpoint in self.chain().into_iter().flatten() {
            let pod = &self.pods[endpoint.pod];
            if pod.zone != *zone {
                continue;
            }
            probes.asked += 1;
            if self.rng.random_bool(endpoint.failure.clamp(0.0, 1.0)) {
                probes.failed += 1;
                probes.why.get_or_insert_with(|| format!("{} fails when asked", pod.name));
            }
        }
        Some(probes)
    }

    /// The endpoints of every service, in the order of calls.
    fn chain(&self) -> Vec<Vec<Endpoint>> {
        let count = self.scenario.services.len();
        let mut chain: Vec<Vec<Endpoint>> = vec![Vec::new(); count];
        for index in (0..count).rev() {
            let next: Vec<Endpoint> = chain.get(index + 1).map_or_else(Vec::new, |all| self.undrained(all));
            chain[index] = self.endpoints(index, &next);
        }
        chain
    }

    /// Of calls by a service's nth pod in the zone.
    fn connect_failure(&self, caller: &str, zone: &Zone, nth: usize) -> f64 {
        let concerned = |f: &&Fault| f.touches(caller, zone) && f.pods.is_none_or(|pods| nth < pods);
        let failures = self.faults().filter(concerned).filter_map(|f| f.connect_failures);
        failures.map(super::super::domain::quantity::Ratio::as_fraction).sum::<f64>().min(1.0)
    }

    /// One second of calls, from the gateway down the chain.
    fn traffic(&mut self) {
        let chain = self.chain();
        let day = self.now.as_second().rem_euclid(DAY_S) as f64 / DAY_S as f64;
        let swing = self.scenario.daily_swing.as_fraction() * (std::f64::consts::TAU * (day - BUSIER_FROM)).sin();
        let rate = f64::from(self.scenario.requests_per_second) * (1.0 + swing);
        let mut calling: BTreeMap<Zone, f64> =
            self.entering.iter().map(|(zone, share)| (zone.clone(), share * rate)).collect();
        let mut caller = GATEWAY.to_owned();
        let mut users = Users::default();
        let mut served: BTreeMap<Zone, (u64, u64)> = BTreeMap::new();
        for (index, endpoints) in chain.iter().enumerate() {
            let service = self.scenario.services[index].clone();
            let reachable = self.undrained(endpoints);
            let mut answered: BTreeMap<Zone, f64> = BTreeMap::new();
            for (zone, rate) in calling {
                for (ending, pod, calls) in self.call(&caller, &zone, &service.name, rate, &reachable) {
                    if caller == GATEWAY {
                        users.requests += calls;
                        users.failed += if ending.failed() { calls } else { 0 };
                    }
                    let Some(pod) = pod.filter(|_| ending != Ending::ConnectFailure) else { continue };
                    let zone = self.pods[pod].zone.clone();
                    *answered.entry(zone.clone()).or_default() += calls as f64;
                    let sum = served.entry(zone).or_default();
                    *sum = (sum.0 + calls, sum.1 + if ending.failed() { calls } else { 0 });
                }
            }
            if !service.calls_next {
                break;
            }
            calling = answered;
            caller = service.name;
        }
        push_bounded(&mut self.users, users);
        for zone in &self.scenario.zones {
            push_bounded(self.served.entry(zone.clone()).or_default(), served.get(zone).copied().unwrap_or_default());
        }
    }

    fn undrained(&self, endpoints: &[Endpoint]) -> Vec<Endpoint> {
        endpoints.iter().filter(|e| self.pods[e.pod].ready && self.pods[e.pod].draining.is_none()).copied().collect()
    }

    /// The calls of one zone's clients to one service in this second, counted on both sides: by ending and server.
    fn call(
        &mut self,
        caller: &str,
        zone: &Zone,
        service: &str,
        rate: f64,
        endpoints: &[Endpoint],
    ) -> Vec<(Ending, Option<usize>, u64)> {
        let callers: Vec<usize> =
            (0..self.pods.len()).filter(|i| self.pods[*i].service == caller && self.pods[*i].zone == *zone).collect();
        if callers.is_empty() || rate <= 0.0 {
            return Vec::new();
        }
        let key = |reporter, ending| SeriesKey {
            reporter,
            source: caller.to_owned(),
            destination: service.to_owned(),
            ending,
        };
        let mut outcomes = Vec::new();
        if endpoints.is_empty() {
            let n = mesh::poisson(rate, &mut self.rng);
            let durations = mesh::durations(n, 1.0, &mut self.rng);
            let from = callers[self.rng.random_range(0..callers.len())];
            self.pods[from].count(key(Reporter::Source, Ending::NoEndpoint), &durations);
            outcomes.push((Ending::NoEndpoint, None, n));
            return outcomes;
        }
        for endpoint in endpoints {
            let n = mesh::poisson(rate / endpoints.len() as f64, &mut self.rng);
            let nth = self.rng.random_range(0..callers.len());
            let from = callers[nth];
            let connect_failure = self.connect_failure(caller, zone, nth);
            for (ending, durations) in mesh::calls(n, connect_failure, *endpoint, &mut self.rng) {
                self.count(&key, ending, &durations, from, endpoint.pod);
                outcomes.push((ending, Some(endpoint.pod), durations.total()));
            }
        }
        outcomes
    }

    fn count(
        &mut self,
        key: &dyn Fn(Reporter, Ending) -> SeriesKey,
        ending: Ending,
        durations: &Durations,
        from: usize,
        to: usize,
    ) {
        self.pods[from].count(key(Reporter::Source, ending), durations);
        if ending != Ending::ConnectFailure {
            self.pods[to].count(key(Reporter::Destination, ending), durations);
        }
    }

    fn scrape(&mut self) {
        let interval = self.scenario.scrape_interval.signed().as_secs();
        let second = self.now.as_second().rem_euclid(interval);
        let lost: Vec<Zone> = self.scenario.zones.iter().filter(|zone| self.lost_scrapes(zone)).cloned().collect();
        for pod in self.pods.iter_mut().filter(|pod| pod.phase_s == second) {
            pod.up = !lost.contains(&pod.zone);
            if pod.up {
                pod.scraped = Some(pod.counters.clone());
            }
        }
    }
}
