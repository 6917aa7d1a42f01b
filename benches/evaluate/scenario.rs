//! A scenario: a family with all that it leaves open drawn from a seed. Times are seconds from its start.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zoneward::domain::{Factor, Period, Ratio, ServiceId, Zone};

use super::family::{self, Expect, Family, Letter, MIXES, Noise, Rate, Severity};
use super::noise::below;

const NAMES: [&str; 8] = ["g", "h", "i", "j", "k", "l", "m", "n"];
/// Between a pod's end and its successor's start.
const GAP_S: f64 = 10.0;
/// From a roll-out's start to its first pod.
const ROLL_OUT_LAG_S: f64 = 5.0;
/// The gateway calls the services from here on by itself.
const CHAIN: usize = 4;

#[derive(Debug, Clone)]
pub struct Scenario {
    pub family: String,
    pub title: String,
    pub seed: u64,
    pub severity: Severity,
    pub expect: Expect,
    /// The fault that is to be found.
    pub fault: Option<Fault>,
    pub zones: Vec<Zone>,
    pub shares: Vec<f64>,
    pub nodes_per_zone: usize,
    pub services: Vec<Service>,
    pub effects: Vec<Effect>,
    pub restarts: Vec<Restart>,
    pub scrapes: Vec<Scrapes>,
    pub strays: Vec<Stray>,
    pub duration_s: f64,
    pub scrape_s: i64,
    pub locality: f64,
    pub retries: i32,
    pub propagation: f64,
    pub noise: Noise,
    pub start_hour: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub zone: usize,
    /// From when on finding it counts, and from when on its delay; they differ for one that creeps up.
    pub onset_s: f64,
    pub start_s: f64,
    pub end_s: f64,
}

#[derive(Debug, Clone)]
pub struct Service {
    pub id: ServiceId,
    pub rate: f64,
    pub errors: f64,
    pub log_median_ms: f64,
    /// Spread of log durations.
    pub sigma: f64,
    pub not_found: f64,
    pub pods: usize,
    pub grpc: bool,
    /// The gateway, if `None`.
    pub caller: Option<usize>,
    /// By zone, how it differs since ever.
    pub log_offsets: Vec<f64>,
    pub error_offsets: Vec<f64>,
}

/// One change to the truth.
#[derive(Debug, Clone)]
pub struct Effect {
    pub start_s: f64,
    pub end_s: f64,
    /// By index; none means all.
    pub zones: Vec<usize>,
    pub services: Vec<usize>,
    pub errors: f64,
    pub slowdown: f64,
    pub tail_share: f64,
    /// By service, as it depends on the spread of durations.
    pub log_tail: Vec<f64>,
    pub connect_failures: f64,
    pub to: Vec<usize>,
    pub not_found: f64,
    pub traffic: f64,
    /// In force for the first so many seconds of every so many.
    pub rhythm: Option<(f64, f64)>,
    pub ramp_s: f64,
    pub limit: Limit,
}

/// Whose pods an effect concerns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    All,
    /// So many from this one on.
    Pods(usize, usize),
    Nodes(usize),
    /// Born within so many seconds from the effect's start.
    New(f64),
}

#[derive(Debug, Clone, Copy)]
pub struct Restart {
    pub service: usize,
    pub zone: usize,
    pub pod: usize,
    pub at_s: f64,
    pub back_s: f64,
    pub same_name: bool,
}

#[derive(Debug, Clone)]
pub struct Scrapes {
    pub start_s: f64,
    pub end_s: f64,
    pub zones: Vec<usize>,
    pub lost: f64,
    pub every_second_lost: bool,
    pub copies: u32,
}

/// One failed request.
#[derive(Debug, Clone, Copy)]
pub struct Stray {
    pub at_s: f64,
    pub service: usize,
    pub zone: usize,
}

/// A generator of its own for each purpose, so that one more draw here changes nothing there.
pub fn generator(family: &str, seed: u64, purpose: &str) -> ChaCha8Rng {
    let bytes = family.bytes().chain([0]).chain(seed.to_le_bytes()).chain(purpose.bytes());
    // FNV-1a.
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ChaCha8Rng::seed_from_u64(hash)
}

impl Scenario {
    pub fn new(family: &Family, seed: u64) -> Self {
        let rng = generator(&family.name, seed, "scenario");
        Draft { family, mix: (seed % MIXES as u64) as usize, zone_of: Vec::new(), shift_s: 0.0, rng }.scenario(seed)
    }

    /// When the first thing happens.
    pub fn healthy_until_s(&self) -> f64 {
        self.effects.iter().map(|effect| effect.start_s).fold(self.duration_s, f64::min)
    }

    pub fn zone_days(&self) -> f64 {
        self.zones.len() as f64 * self.duration_s / 86_400.0
    }
}

impl Effect {
    pub fn touches(&self, service: usize, zone: usize) -> bool {
        self.touches_service(service) && (self.zones.is_empty() || self.zones.contains(&zone))
    }

    pub fn touches_service(&self, service: usize) -> bool {
        self.services.is_empty() || self.services.contains(&service)
    }
}

/// A scenario in the making.
struct Draft<'a> {
    family: &'a Family,
    mix: usize,
    /// By letter.
    zone_of: Vec<usize>,
    /// Onsets are not aligned to scrapes.
    shift_s: f64,
    rng: ChaCha8Rng,
}

impl Draft<'_> {
    fn scenario(mut self, seed: u64) -> Scenario {
        let family = self.family;
        let zones = (0..family.zones).map(|zone| Zone::new(format!("cn-hangzhou-{}", NAMES[zone]))).collect();
        self.zone_of = (0..family.zones).collect();
        self.zone_of.shuffle(&mut self.rng);
        self.shift_s = self.rng.random_range(0.0..15.0);
        let mut shares = vec![1.0 / family.zones as f64; family.zones];
        for (letter, share) in family.shares.iter().enumerate() {
            shares[self.zone_of[letter]] = share.as_fraction();
        }
        let services = self.services();
        let mut effects: Vec<Effect> = Vec::new();
        for effect in &family.effects {
            effects.extend(self.effects(effect, &services));
        }
        let fault = match family.expect {
            Expect::Isolate(letter) => Some(self.fault(letter, &effects)),
            Expect::Nothing | Expect::Either => None,
        };
        effects.extend((0..family.blips).map(|_| self.blip(services.len())).collect::<Vec<_>>());
        Scenario {
            family: family.name.clone(),
            title: family.title.clone(),
            seed,
            severity: family.severity,
            expect: family.expect,
            fault,
            zones,
            shares,
            nodes_per_zone: family.nodes_per_zone,
            effects,
            restarts: self.restarts(&services),
            scrapes: family.scrapes.iter().map(|it| self.scrapes(it)).collect(),
            strays: self.strays(&services),
            services,
            duration_s: family.duration.as_secs_f64(),
            scrape_s: family.scrape_interval.signed().as_secs(),
            locality: family.locality.as_fraction(),
            retries: family.retries,
            propagation: family.propagation.as_fraction(),
            noise: family.noise,
            start_hour: self.rng.random_range(0.0..24.0),
        }
    }

    fn fault(&self, letter: Letter, effects: &[Effect]) -> Fault {
        let zone = self.zone_of[letter.0];
        let own: Vec<&Effect> = effects.iter().filter(|effect| effect.zones == [zone] || effect.to == [zone]).collect();
        let onset_s = own.iter().map(|effect| effect.start_s).fold(f64::INFINITY, f64::min);
        let end_s = own.iter().map(|effect| effect.end_s).fold(0.0, f64::max);
        let counts_from = self.family.counts_from.map(|at| self.moment(at));
        Fault { zone, onset_s, start_s: counts_from.unwrap_or(onset_s), end_s }
    }

    fn services(&mut self) -> Vec<Service> {
        let mut services = Vec::new();
        for wanted in &self.family.services {
            for copy in 0..wanted.copies {
                let index = services.len();
                let name = if wanted.copies == 1 { wanted.name.clone() } else { format!("{}{copy:02}", wanted.name) };
                let rate = match (wanted.rates, wanted.rate_between) {
                    (Some(rates), _) => rates[self.mix].0,
                    (None, Some([low, high])) => self.between(low.0, high.0),
                    (None, None) => Rate(1.0).0,
                };
                let usual = wanted.errors.map_or(self.family.usual_errors, |errors| [errors, errors]);
                let [low, high] = usual.map(Ratio::as_fraction);
                let errors = self.between(low, high);
                let [low, high] = wanted.median.map(Period::as_secs_f64);
                services.push(Service {
                    id: ServiceId::new("default", name),
                    rate,
                    errors,
                    log_median_ms: (1000.0 * self.between(low, high)).ln(),
                    sigma: self.rng.random_range(0.4..0.8),
                    not_found: if index == 0 && !wanted.grpc { 0.01 } else { 0.0 },
                    pods: wanted.pods,
                    grpc: wanted.grpc,
                    caller: (1..CHAIN).contains(&index).then(|| index - 1),
                    log_offsets: Vec::new(),
                    error_offsets: Vec::new(),
                });
            }
        }
        for service in &mut services {
            for zone in 0..self.family.zones {
                let offsets: Vec<&family::Offset> = self
                    .family
                    .offsets
                    .iter()
                    .filter(|it| it.zones.iter().any(|l| self.zone_of[l.0] == zone))
                    .collect();
                let slower: f64 = offsets.iter().filter_map(|it| it.slowdown).map(Factor::times).product();
                let worse: f64 = offsets.iter().filter_map(|it| it.errors).map(Factor::times).product();
                service.log_offsets.push((slower * self.rng.random_range(0.97..1.04_f64)).ln());
                service.error_offsets.push(worse * self.rng.random_range(0.9..1.1));
            }
        }
        services
    }

    /// One effect in all of its zones, or, where onsets differ, one for each of them.
    fn effects(&mut self, wanted: &family::Effect, services: &[Service]) -> Vec<Effect> {
        if !wanted.mixes.is_empty() && !wanted.mixes.contains(&self.mix) {
            return Vec::new();
        }
        let mut zones = self.zones(&wanted.zones);
        let effect = |zones: Vec<usize>, delay_s: f64, first_pod: usize, draft: &Self| Effect {
            start_s: draft.moment(wanted.at) + delay_s,
            end_s: draft.moment(wanted.until) + delay_s,
            zones,
            services: named(services, &wanted.services),
            errors: wanted.errors.map_or(0.0, Ratio::as_fraction),
            slowdown: wanted.slowdown.map_or(1.0, Factor::times),
            tail_share: wanted.tail.map_or(0.0, |tail| tail.share.as_fraction()),
            log_tail: services.iter().map(|it| wanted.tail.map_or(0.0, |tail| log_tail(it.sigma, tail))).collect(),
            connect_failures: wanted.connect_failures.map_or(0.0, Ratio::as_fraction),
            to: draft.zones(&wanted.to),
            not_found: wanted.not_found.map_or(0.0, Ratio::as_fraction),
            traffic: wanted.traffic.map_or(1.0, Ratio::as_fraction),
            rhythm: wanted.lasting.zip(wanted.every).map(|(on, every)| (on.as_secs_f64(), every.as_secs_f64())),
            ramp_s: wanted.ramp.map_or(0.0, Period::as_secs_f64),
            limit: match (wanted.pods, wanted.nodes, wanted.new_pods) {
                (Some(pods), _, _) => Limit::Pods(first_pod, pods),
                (None, Some(nodes), _) => Limit::Nodes(nodes),
                (None, None, Some(within)) => Limit::New(within.as_secs_f64()),
                (None, None, None) => Limit::All,
            },
        };
        let most_pods = services.iter().map(|service| service.pods).max().unwrap_or(1);
        let first_pod = self.rng.random_range(0..most_pods);
        let Some([low, high]) = wanted.stagger.map(|between| between.map(Period::as_secs_f64)) else {
            return vec![effect(zones, 0.0, first_pod, self)];
        };
        if zones.is_empty() {
            zones = (0..self.family.zones).collect();
        }
        zones.shuffle(&mut self.rng);
        let mut delay_s = 0.0;
        let mut effects = Vec::new();
        for zone in zones {
            effects.push(effect(vec![zone], delay_s, first_pod, self));
            delay_s += self.rng.random_range(low..high);
        }
        effects
    }

    /// Short glitches, as in the first scenario of all: half of them errors, half of them slowness.
    fn blip(&mut self, services: usize) -> Effect {
        let last_s = self.family.duration.as_secs_f64() - 1800.0;
        let start_s = self.rng.random_range(1800.0..last_s.max(1801.0));
        let fails = self.rng.random_bool(0.5);
        Effect {
            start_s,
            end_s: start_s + self.rng.random_range(10.0..40.0),
            zones: vec![self.rng.random_range(0..self.family.zones)],
            services: vec![self.rng.random_range(0..services)],
            errors: if fails { self.rng.random_range(0.01..0.03) } else { 0.0 },
            slowdown: if fails { 1.0 } else { self.rng.random_range(1.2..1.6) },
            tail_share: 0.0,
            log_tail: vec![0.0; services],
            connect_failures: 0.0,
            to: Vec::new(),
            not_found: 0.0,
            traffic: 1.0,
            rhythm: None,
            ramp_s: 0.0,
            limit: Limit::All,
        }
    }

    fn restarts(&mut self, services: &[Service]) -> Vec<Restart> {
        let mut restarts = Vec::new();
        for roll_out in &self.family.roll_outs {
            for zone in self.zones(&roll_out.zones) {
                for service in named(services, &roll_out.services) {
                    for pod in 0..services[service].pods {
                        let wait_s = ROLL_OUT_LAG_S + roll_out.every.as_secs_f64() * pod as f64;
                        let at_s = self.moment(roll_out.at) + wait_s;
                        let same_name = roll_out.same_names.contains(&self.mix);
                        restarts.push(Restart { service, zone, pod, at_s, back_s: at_s + GAP_S, same_name });
                    }
                }
            }
        }
        let end_s = self.family.duration.as_secs_f64();
        for _ in 0..self.family.restarts {
            let service = self.rng.random_range(0..services.len());
            let pod = self.rng.random_range(0..services[service].pods);
            let zone = self.rng.random_range(0..self.family.zones);
            let at_s = self.rng.random_range(0.05 * end_s..0.95 * end_s);
            restarts.push(Restart { service, zone, pod, at_s, back_s: at_s + GAP_S, same_name: false });
        }
        restarts.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        restarts
    }

    fn scrapes(&self, wanted: &family::Scrapes) -> Scrapes {
        Scrapes {
            start_s: self.moment(wanted.at),
            end_s: self.moment(wanted.until),
            zones: self.zones(&wanted.zones),
            lost: wanted.lost.map_or(0.0, Ratio::as_fraction),
            every_second_lost: wanted.every_second_lost,
            copies: wanted.copies.unwrap_or(1),
        }
    }

    fn strays(&mut self, services: &[Service]) -> Vec<Stray> {
        let mut strays = Vec::new();
        for wanted in &self.family.stray_failures {
            let [low, high] = wanted.then.map(Period::as_secs_f64);
            let first_s = self.moment(wanted.at);
            let second_s = first_s + self.rng.random_range(low..high);
            for service in named(services, std::slice::from_ref(&wanted.service)) {
                let zone = self.zone_of[wanted.zone.0];
                strays.extend([first_s, second_s].map(|at_s| Stray { at_s, service, zone }));
            }
        }
        strays
    }

    fn moment(&self, at: Period) -> f64 {
        at.as_secs_f64() + self.shift_s
    }

    fn zones(&self, letters: &[Letter]) -> Vec<usize> {
        letters.iter().map(|letter| self.zone_of[letter.0]).collect()
    }

    /// Evenly on a logarithmic scale.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        let part: f64 = self.rng.random();
        low * (high / low).powf(part)
    }
}

fn named(services: &[Service], names: &[String]) -> Vec<usize> {
    let wanted = |(_, service): &(usize, &Service)| names.contains(&service.id.name);
    services.iter().enumerate().filter(wanted).map(|(index, _)| index).collect()
}

/// By how much a share of requests must be slower for the p99 to become so many times as long.
fn log_tail(sigma: f64, tail: family::Tail) -> f64 {
    let share = tail.share.as_fraction().max(0.011);
    tail.p99.times().ln() + sigma * (score(0.99) - score(1.0 - 0.01 / share))
}

/// The normal score of a share.
fn score(share: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if below(middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
