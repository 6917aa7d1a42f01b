//! The true rates behind a scenario, step by step: requests per second by outcome and bucket, at both vantages.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use zoneward::sim::EDGES_MS;

use super::noise::{self, Table, Wanders, below};
use super::scenario::{Effect, Limit, Scenario, Service, generator};

/// The grid of time. Within a step only effects change, by their share of it.
pub const STEP_S: f64 = 5.0;
const MOMENTS: usize = 5;

pub const BUCKETS: usize = EDGES_MS.len();
/// After the buckets of well-answered requests: failures, and what was refused as the caller's fault.
pub const FAILED: usize = BUCKETS;
pub const REFUSED: usize = BUCKETS + 1;
pub const OUTCOMES: usize = BUCKETS + 2;

/// Requests, or their rates, as servers see them.
pub type Served = [f64; OUTCOMES];
/// As clients see them: all, and those that failed.
pub type Called = [f64; 2];

/// One service in one zone. Pods that effects single out behave differently from the others.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    pub variants: Vec<Variant>,
}

#[derive(Debug, Clone)]
pub struct Variant {
    /// Which of the limited effects concern these pods, one bit each.
    pub limits: u32,
    /// Their share of the zone's requests.
    pub weight: f64,
    /// As if all of the zone's pods were such.
    pub rates: Served,
    failing: f64,
}

impl Cell {
    fn failing(&self) -> f64 {
        self.variants.iter().map(|variant| variant.weight * variant.failing).sum()
    }

    /// What the zone's pods do on average.
    pub fn rates(&self) -> Served {
        let mut sum = [0.0; OUTCOMES];
        for variant in &self.variants {
            sum.iter_mut().zip(variant.rates).for_each(|(to, rate)| *to += variant.weight * rate);
        }
        sum
    }
}

struct Wandering {
    rng: ChaCha8Rng,
    traffic: Wanders,
    errors: Wanders,
    latency: Wanders,
    traffic_factor: Arc<Table>,
    error_factor: Arc<Table>,
}

/// An effect in force: for this share of the step, at this strength.
#[derive(Clone, Copy)]
struct Active<'a> {
    effect: &'a Effect,
    bit: Option<u32>,
    share: f64,
    level: f64,
}

impl Active<'_> {
    fn concerns(&self, limits: u32) -> bool {
        self.bit.is_none_or(|bit| limits & bit != 0)
    }
}

/// What wandered where, in this step.
#[derive(Clone, Copy)]
struct Mood {
    traffic: f64,
    errors: f64,
    log_latency: f64,
}

pub struct Truth {
    scenario: Arc<Scenario>,
    wandering: Option<Wandering>,
    /// Effects, and for limited ones their bit.
    effects: Vec<(Effect, Option<u32>)>,
    steps: u64,
    /// By service and zone.
    pub served: Vec<Vec<Cell>>,
    /// By service and zone of the clients.
    pub called: Vec<Vec<Called>>,
}

impl Truth {
    pub fn new(scenario: &Arc<Scenario>) -> Self {
        let noise = &scenario.noise;
        let mut rng = generator(&scenario.family, scenario.seed, "noise");
        let size = (scenario.services.len(), scenario.zones.len());
        let mut wanders =
            |correlation_s: f64| Wanders::new(size, (STEP_S, correlation_s), noise.shared.as_fraction(), &mut rng);
        let traffic = wanders(noise.traffic_correlation.as_secs_f64());
        let errors = wanders(noise.error_correlation.as_secs_f64());
        let latency = wanders(noise.latency_correlation.as_secs_f64());
        let traffic_factor = noise::gamma(noise.traffic.as_fraction().powi(-2));
        let error_factor = noise::gamma(noise.error_shape);
        let wandering = Wandering { rng, traffic, errors, latency, traffic_factor, error_factor };
        Self { wandering: Some(wandering), ..Self::still(scenario, |_| true) }
    }

    /// Without noise, and with some of the effects only: what a bound compares.
    pub fn still(scenario: &Arc<Scenario>, keep: impl Fn(&Effect) -> bool) -> Self {
        let mut limited = 0;
        let mut bit = |effect: &Effect| {
            (effect.limit != Limit::All).then(|| {
                limited += 1;
                1 << (limited - 1)
            })
        };
        let effects: Vec<_> = scenario.effects.iter().filter(|it| keep(it)).map(|it| (it.clone(), bit(it))).collect();
        let usual = Variant { limits: 0, weight: 1.0, rates: [0.0; OUTCOMES], failing: 0.0 };
        let zones = scenario.zones.len();
        Self {
            served: vec![vec![Cell { variants: vec![usual] }; zones]; scenario.services.len()],
            called: vec![vec![[0.0; 2]; zones]; scenario.services.len()],
            scenario: Arc::clone(scenario),
            wandering: None,
            effects,
            steps: 0,
        }
    }

    pub fn time_s(&self) -> f64 {
        self.steps as f64 * STEP_S
    }

    /// The bits of the limited effects that concern a pod.
    pub fn limits(&self, (service, zone): (usize, usize), pod: usize, born_s: f64) -> u32 {
        let pods = self.scenario.services[service].pods;
        let concerned = |effect: &Effect| match effect.limit {
            Limit::All => false,
            Limit::Pods(first, count) => (pod + pods - first % pods) % pods < count,
            Limit::Nodes(nodes) => pod % self.scenario.nodes_per_zone.max(1) < nodes,
            Limit::New(within_s) => (effect.start_s..effect.start_s + within_s).contains(&born_s),
        };
        let bits = self.effects.iter().filter(|(effect, _)| effect.touches(service, zone) && concerned(effect));
        bits.filter_map(|(_, bit)| *bit).sum()
    }

    /// Says how the pods of a cell share its requests; returns each one's variant.
    pub fn assign(&mut self, (service, zone): (usize, usize), pods: &[(u32, f64)]) -> Vec<usize> {
        let variants = &mut self.served[service][zone].variants;
        variants.iter_mut().for_each(|variant| variant.weight = 0.0);
        let place = |(limits, weight): &(u32, f64)| {
            let at = variants.iter().position(|variant| variant.limits == *limits).unwrap_or_else(|| {
                variants.push(Variant { limits: *limits, weight: 0.0, rates: [0.0; OUTCOMES], failing: 0.0 });
                variants.len() - 1
            });
            variants[at].weight += weight;
            at
        };
        pods.iter().map(place).collect()
    }

    /// One step on: afterwards `served` and `called` hold the rates within it.
    pub fn advance(&mut self) {
        if let Some(it) = &mut self.wandering {
            [&mut it.traffic, &mut it.errors, &mut it.latency].into_iter().for_each(|w| w.step(&mut it.rng));
        }
        let (scenario, effects) = (Arc::clone(&self.scenario), std::mem::take(&mut self.effects));
        let active = in_force(&effects, self.time_s());
        let mut visible: Vec<Vec<f64>> = vec![Vec::new(); scenario.services.len()];
        // Callees come before their callers, who suffer from them.
        for service in (0..scenario.services.len()).rev() {
            visible[service] = self.service(service, &active, &visible);
        }
        self.effects = effects;
        self.steps += 1;
    }

    fn mood(&self, service: usize, zone: usize) -> Mood {
        let Some(it) = &self.wandering else { return Mood { traffic: 1.0, errors: 1.0, log_latency: 0.0 } };
        Mood {
            traffic: it.traffic_factor.at(it.traffic.get(service, zone)),
            errors: it.error_factor.at(it.errors.get(service, zone)),
            log_latency: self.scenario.noise.latency.as_fraction() * it.latency.get(service, zone),
        }
    }

    /// Returns the share of calls that fail, as clients of each zone see it.
    fn service(&mut self, index: usize, active: &[Active<'_>], visible: &[Vec<f64>]) -> Vec<f64> {
        let scenario = Arc::clone(&self.scenario);
        let (it, zones) = (&scenario.services[index], scenario.zones.len());
        let here: Vec<Active<'_>> = active.iter().filter(|a| a.effect.touches_service(index)).copied().collect();
        let shares = self.shares(Some(index), active);
        let callers = self.shares(it.caller, active);
        let routes = routes(&shares, scenario.locality);
        let unconnected = unconnected(&here, zones);
        let hour = scenario.start_hour + self.time_s() / 3600.0;
        let swing = 1.0 + 0.4 * (std::f64::consts::TAU * (hour - 9.0) / 24.0).sin();
        let moods: Vec<Mood> = (0..zones).map(|zone| self.mood(index, zone)).collect();
        for zone in 0..zones {
            let callees = scenario.services.iter().zip(visible).filter(|(callee, _)| callee.caller == Some(index));
            let inherited = scenario.propagation * callees.map(|(_, seen)| seen[zone]).sum::<f64>();
            let in_zone: Vec<Active<'_>> = here.iter().filter(|a| a.effect.touches(index, zone)).copied().collect();
            for variant in &mut self.served[index][zone].variants {
                outcomes(it, (index, zone), &in_zone, moods[zone], inherited, variant);
            }
        }
        let failing: Vec<f64> = self.served[index].iter().map(Cell::failing).collect();
        // Of a zone's arrivals, those that come from each zone.
        let origin = |client: usize, server: usize| {
            let from_all: f64 = (0..zones).map(|c| callers[c] * routes[c][server]).sum();
            if from_all > 0.0 { callers[client] * routes[client][server] / from_all } else { 0.0 }
        };
        let mut arrivals: Vec<f64> = (0..zones).map(|z| it.rate * shares[z] * swing * moods[z].traffic).collect();
        let fails = |client: usize, server: usize| {
            unconnected[client][server] + (1.0 - unconnected[client][server]) * failing[server]
        };
        let failed: f64 =
            (0..zones).map(|s| arrivals[s] * (0..zones).map(|c| origin(c, s) * fails(c, s)).sum::<f64>()).sum();
        // A call that is tried again goes anywhere.
        let again = failed / arrivals.iter().sum::<f64>().max(1e-12);
        let masked = again.powi(scenario.retries);
        for (client, called) in self.called[index].iter_mut().enumerate() {
            let calls = |server: usize| arrivals[server] * origin(client, server);
            called[0] = (0..zones).map(calls).sum();
            called[1] = masked * (0..zones).map(|server| calls(server) * fails(client, server)).sum::<f64>();
        }
        let tries: f64 = (0..=scenario.retries).map(|nth| again.powi(nth)).sum();
        for (server, arriving) in arrivals.iter_mut().enumerate() {
            let delivered: f64 = (0..zones).map(|c| origin(c, server) * (1.0 - unconnected[c][server])).sum();
            *arriving *= tries * delivered;
        }
        for (cell, arriving) in self.served[index].iter_mut().zip(&arrivals) {
            for variant in &mut cell.variants {
                variant.rates.iter_mut().for_each(|rate| *rate *= arriving);
            }
        }
        (0..zones)
            .map(|client| masked * (0..zones).map(|s| routes[client][s] * fails(client, s)).sum::<f64>())
            .collect()
    }

    /// Each zone's share of a service's requests. The gateway's follow what concerns every service.
    fn shares(&self, service: Option<usize>, active: &[Active<'_>]) -> Vec<f64> {
        let mut shares = self.scenario.shares.clone();
        for it in active.iter().filter(|it| it.effect.traffic < 1.0) {
            for (zone, share) in shares.iter_mut().enumerate() {
                let touched = match service {
                    Some(service) => it.effect.touches(service, zone),
                    None => it.effect.services.is_empty() && it.effect.touches(0, zone),
                };
                if touched {
                    *share *= 1.0 + (it.effect.traffic - 1.0) * it.share * it.level;
                }
            }
        }
        let all: f64 = shares.iter().sum();
        shares.iter().map(|share| share / all.max(1e-12)).collect()
    }
}

fn in_force(effects: &[(Effect, Option<u32>)], from_s: f64) -> Vec<Active<'_>> {
    let mut active = Vec::new();
    for (effect, bit) in effects {
        if effect.end_s <= from_s || effect.start_s >= from_s + STEP_S {
            continue;
        }
        let (mut on, mut level) = (0, 0.0);
        for moment in 0..MOMENTS {
            let since_s = from_s + (moment as f64 + 0.5) * STEP_S / MOMENTS as f64 - effect.start_s;
            let beats = effect.rhythm.is_none_or(|(on_s, every_s)| since_s.rem_euclid(every_s) < on_s);
            if since_s >= 0.0 && since_s < effect.end_s - effect.start_s && beats {
                on += 1;
                level += if effect.ramp_s > 0.0 { (since_s / effect.ramp_s).min(1.0) } else { 1.0 };
            }
        }
        if on > 0 {
            let share = f64::from(on) / MOMENTS as f64;
            active.push(Active { effect, bit: *bit, share, level: level / f64::from(on) });
        }
    }
    active
}

/// Where calls of each zone go: to its own first, as far as routing prefers it.
fn routes(shares: &[f64], locality: f64) -> Vec<Vec<f64>> {
    let route = |client: usize, server: usize| {
        let own = if client == server { locality } else { 0.0 };
        own + (1.0 - locality) * shares[server]
    };
    (0..shares.len()).map(|client| (0..shares.len()).map(|server| route(client, server)).collect()).collect()
}

/// The share of calls from one zone to another that fail to connect.
fn unconnected(active: &[Active<'_>], zones: usize) -> Vec<Vec<f64>> {
    let mut failures = vec![vec![0.0_f64; zones]; zones];
    for it in active.iter().filter(|it| it.effect.connect_failures > 0.0) {
        for (client, row) in failures.iter_mut().enumerate() {
            for (server, share) in row.iter_mut().enumerate() {
                let from = it.effect.zones.is_empty() || it.effect.zones.contains(&client);
                let to = it.effect.to.is_empty() || it.effect.to.contains(&server);
                if from && to {
                    *share = share.max(it.effect.connect_failures * it.share * it.level);
                }
            }
        }
    }
    failures
}

/// The share of requests by outcome, as the effects in the zone leave it.
fn outcomes(
    service: &Service,
    (index, zone): (usize, usize),
    active: &[Active<'_>],
    mood: Mood,
    inherited: f64,
    variant: &mut Variant,
) {
    let mut failing = (service.errors * service.error_offsets[zone] * mood.errors).min(0.95);
    let mut refused = service.not_found;
    let (mut shift, mut tail, mut log_tail, mut slow_share) = (0.0, 0.0_f64, 0.0, 0.0_f64);
    for it in active.iter().filter(|it| it.concerns(variant.limits)) {
        let (effect, strength) = (it.effect, it.share * it.level);
        refused = refused.max(effect.not_found * strength);
        if effect.errors > 0.0 {
            let extra = (effect.errors * mood.errors.sqrt()).clamp(0.0, 0.95) - failing;
            failing += extra.max(0.0) * strength;
        }
        if effect.slowdown > 1.0 {
            shift += ((effect.slowdown - 1.0) * it.level).ln_1p();
            slow_share = slow_share.max(it.share);
        }
        if effect.tail_share > 0.0 {
            tail = tail.max(effect.tail_share * strength);
            log_tail = effect.log_tail[index];
        }
    }
    failing = (failing + inherited).min(0.98);
    let well = (1.0 - failing) * (1.0 - refused);
    let rates = &mut variant.rates;
    *rates = [0.0; OUTCOMES];
    let log_median = service.log_median_ms + service.log_offsets[zone] + mood.log_latency;
    spread(log_median, service.sigma, well * (1.0 - tail) * (1.0 - slow_share), rates);
    spread(log_median + shift, service.sigma, well * (1.0 - tail) * slow_share, rates);
    spread(log_median + shift + log_tail, service.sigma, well * tail, rates);
    rates[FAILED] = failing;
    rates[REFUSED] = (1.0 - failing) * refused;
    variant.failing = failing;
}

/// Adds log-normal durations to the buckets.
fn spread(log_median_ms: f64, sigma: f64, weight: f64, rates: &mut Served) {
    if weight <= 0.0 {
        return;
    }
    let mut before = 0.0;
    for (rate, edge) in rates.iter_mut().zip(log_edges()) {
        let up_to = if edge.is_finite() { below((edge - log_median_ms) / sigma) } else { 1.0 };
        *rate += weight * (up_to - before);
        before = up_to;
    }
}

fn log_edges() -> impl Iterator<Item = f64> {
    static LOGS: std::sync::LazyLock<[f64; BUCKETS]> = std::sync::LazyLock::new(|| EDGES_MS.map(f64::ln));
    LOGS.iter().copied()
}
