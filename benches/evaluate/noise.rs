//! Quantities that wander: correlated in time, partly common to all zones of a service.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use statrs::function::erf::erfc;
use statrs::function::gamma::gamma_ur;

/// A stationary standard normal process with an exponential autocorrelation.
#[derive(Debug, Clone, Copy)]
struct Wander {
    keep: f64,
    value: f64,
}

impl Wander {
    fn new(step_s: f64, correlation_s: f64, rng: &mut ChaCha8Rng) -> Self {
        Self { keep: (-step_s / correlation_s).exp(), value: StandardNormal.sample(rng) }
    }

    fn step(&mut self, rng: &mut ChaCha8Rng) {
        let kick: f64 = StandardNormal.sample(rng);
        self.value = self.value * self.keep + kick * (1.0 - self.keep * self.keep).sqrt();
    }
}

/// One process for each service and zone.
#[derive(Debug, Clone)]
pub struct Wanders {
    common: Vec<Wander>,
    own: Vec<Vec<Wander>>,
    /// What is common, and what is a zone's own: squares add up to one.
    weights: (f64, f64),
}

impl Wanders {
    pub fn new(
        (services, zones): (usize, usize),
        (step_s, correlation_s): (f64, f64),
        shared: f64,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let mut one = || Wander::new(step_s, correlation_s, rng);
        let common = (0..services).map(|_| one()).collect();
        let own = (0..services).map(|_| (0..zones).map(|_| one()).collect()).collect();
        Self { common, own, weights: (shared.sqrt(), (1.0 - shared).sqrt()) }
    }

    pub fn step(&mut self, rng: &mut ChaCha8Rng) {
        self.common.iter_mut().chain(self.own.iter_mut().flatten()).for_each(|wander| wander.step(rng));
    }

    pub fn get(&self, service: usize, zone: usize) -> f64 {
        self.weights.0 * self.common[service].value + self.weights.1 * self.own[service][zone].value
    }
}

/// Beyond this many deviations tables end.
const FARTHEST: f64 = 6.0;

/// A function of a normal score, between points so close that nobody sees the difference.
#[derive(Debug)]
pub struct Table {
    per_unit: f64,
    farthest: f64,
    values: Vec<f64>,
}

impl Table {
    fn new(farthest: f64, per_unit: f64, function: impl Fn(f64) -> f64) -> Self {
        let points = (2.0 * farthest * per_unit) as usize;
        let values = (0..=points).map(|i| function(i as f64 / per_unit - farthest)).collect();
        Self { per_unit, farthest, values }
    }

    pub fn at(&self, score: f64) -> f64 {
        let position = (score.clamp(-self.farthest, self.farthest) + self.farthest) * self.per_unit;
        let low = (position as usize).min(self.values.len() - 2);
        let part = position - low as f64;
        self.values[low] + (self.values[low + 1] - self.values[low]) * part
    }
}

static BELOW: LazyLock<Table> =
    LazyLock::new(|| Table::new(8.0, 256.0, |score| 0.5 * erfc(-score / std::f64::consts::SQRT_2)));

/// The standard normal distribution function.
pub fn below(score: f64) -> f64 {
    BELOW.at(score)
}

/// Quantiles of a gamma distribution of mean 1, by normal score.
pub fn gamma(shape: f64) -> Arc<Table> {
    static KNOWN: Mutex<BTreeMap<u64, Arc<Table>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || Arc::new(Table::new(FARTHEST, 20.0, |score| gamma_quantile(shape, score)));
    Arc::clone(known.entry(shape.to_bits()).or_insert_with(make))
}

fn gamma_quantile(shape: f64, score: f64) -> f64 {
    let above = 0.5 * erfc(score / std::f64::consts::SQRT_2);
    let (mut low, mut high) = (0.0, shape + 20.0 * shape.sqrt() + 60.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if gamma_ur(shape, middle) > above { low = middle } else { high = middle }
    }
    0.5 * (low + high) / shape
}
