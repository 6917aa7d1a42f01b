//! Pods: what each counted, and when Prometheus came to know it.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};
use zoneward::domain::{Calls, Histogram};
use zoneward::sim::EDGES_MS;

use super::truth::{BUCKETS, FAILED, REFUSED, STEP_S};

/// Cycles of each pod that are remembered for a closer look.
pub const MEMORY: usize = 32;

/// Sums of rates up to each step of the last minutes.
#[derive(Debug, Clone)]
pub struct Sums<const N: usize> {
    recent: VecDeque<[f64; N]>,
    kept: usize,
    steps: u64,
}

impl<const N: usize> Sums<N> {
    /// That begin `steps` after the start.
    pub fn new(kept: usize, steps: u64) -> Self {
        Self { recent: VecDeque::from([[0.0; N]]), kept, steps }
    }

    pub fn step(&mut self, rates: &[f64; N]) {
        let mut next = *self.recent.back().unwrap_or(&[0.0; N]);
        next.iter_mut().zip(rates).for_each(|(sum, rate)| *sum += rate * STEP_S);
        self.recent.push_back(next);
        self.steps += 1;
        if self.recent.len() > self.kept {
            self.recent.pop_front();
        }
    }

    /// What is expected between two moments.
    pub fn between(&self, from_s: f64, to_s: f64) -> [f64; N] {
        let (mut sum, before) = (self.up_to(to_s), self.up_to(from_s));
        sum.iter_mut().zip(before).for_each(|(to, from)| *to = (*to - from).max(0.0));
        sum
    }

    fn up_to(&self, time_s: f64) -> [f64; N] {
        let oldest = self.steps as f64 - (self.recent.len() - 1) as f64;
        let position = (time_s / STEP_S - oldest).clamp(0.0, (self.recent.len() - 1) as f64);
        let low = (position as usize).min(self.recent.len().saturating_sub(2));
        let part = position - low as f64;
        let mut sum = self.recent[low];
        if let Some(next) = self.recent.get(low + 1) {
            sum.iter_mut().zip(next).for_each(|(sum, next)| *sum += (next - *sum) * part);
        }
        sum
    }
}

/// What a pod counted: as a server, and as a client of each service that it calls.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub served: Calls,
    /// Of well-answered requests, by bucket.
    pub durations: [f64; BUCKETS],
    pub called: Vec<Calls>,
}

impl Counts {
    pub fn none(callees: usize) -> Self {
        Self { called: vec![Calls::default(); callees], ..Self::default() }
    }

    pub fn clear(&mut self) {
        self.served = Calls::default();
        self.durations = [0.0; BUCKETS];
        self.called.fill(Calls::default());
    }

    pub fn histogram(&self) -> Histogram {
        Histogram { edges_ms: EDGES_MS.into(), counts: self.durations.to_vec() }
    }

    /// Draws requests around what is expected of all the zone's pods.
    pub fn serve<const N: usize>(&mut self, expected: &[f64; N], weight: f64, rng: &mut ChaCha8Rng) {
        let mut well = 0.0;
        for (count, mean) in self.durations.iter_mut().zip(expected) {
            let drawn = poisson(mean * weight, rng);
            *count += drawn;
            well += drawn;
        }
        let failed = poisson(expected[FAILED] * weight, rng);
        let refused = poisson(expected[REFUSED] * weight, rng);
        self.served += Calls { total: well + failed + refused, failed };
    }

    pub fn call(&mut self, callee: usize, [all, failing]: [f64; 2], weight: f64, rng: &mut ChaCha8Rng) {
        let failed = poisson(failing * weight, rng);
        let well = poisson((all - failing).max(0.0) * weight, rng);
        self.called[callee] += Calls { total: well + failed, failed };
    }
}

fn poisson(mean: f64, rng: &mut ChaCha8Rng) -> f64 {
    if mean < 1e-9 {
        return 0.0;
    }
    Poisson::new(mean).map_or(0.0, |distribution| distribution.sample(rng))
}

/// One incarnation.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Of a service, or of the gateway.
    pub service: Option<usize>,
    pub zone: usize,
    pub index: usize,
    pub name: String,
    pub node: Option<String>,
    /// `None` before the scenario's start.
    pub born_s: Option<f64>,
    /// Its share of the zone's requests, and which variant of the cell it is.
    pub weight: f64,
    pub variant: usize,
    /// How old the newest scrape is when a cycle looks.
    pub age_s: f64,
    /// Up to where its requests were drawn, and when it was last scraped with success.
    pub drawn_s: f64,
    pub scraped_s: Option<f64>,
    /// Counted, and not seen yet.
    pub pending: Counts,
    /// What cycles saw, newest first.
    pub seen: VecDeque<Counts>,
}

impl Pod {
    /// Opens the next cycle, of which nothing is seen yet.
    pub fn open_cycle(&mut self) -> &mut Counts {
        let mut next = if self.seen.len() < MEMORY { None } else { self.seen.pop_back() }
            .unwrap_or_else(|| Counts::none(self.pending.called.len()));
        next.clear();
        self.seen.push_front(next);
        &mut self.seen[0]
    }

    /// A successor of another name, whose past nobody knows, or of the same.
    pub fn succeed(&mut self, born_s: f64, name: Option<String>) {
        self.born_s = Some(born_s);
        self.drawn_s = born_s;
        self.pending.clear();
        if let Some(name) = name {
            self.name = name;
            self.scraped_s = None;
            self.seen.clear();
        }
    }
}
