//! One second of traffic: who calls whom, and how it ends.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution, Poisson, StandardNormal};
use statrs::distribution::{ContinuousCDF, Normal};

use super::pod::{Durations, EDGES_MS, Ending};

/// Spread of log latency around the median.
const SIGMA: f64 = 0.6;

/// A quantity that wanders around 1 and comes back: correlated in time, as bursts of errors and slowness are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wander {
    state: f64,
    spread: f64,
    correlation_s: f64,
}

impl Wander {
    pub const fn new(spread: f64, correlation_s: f64) -> Self {
        Self { state: 0.0, spread, correlation_s }
    }

    /// One second on.
    pub fn step(&mut self, rng: &mut ChaCha8Rng) {
        let keep = (-1.0 / self.correlation_s).exp();
        let kick: f64 = StandardNormal.sample(rng);
        self.state = self.state * keep + self.spread * (1.0 - keep * keep).sqrt() * kick;
    }

    pub fn factor(&self) -> f64 {
        self.state.exp()
    }
}

pub(super) fn poisson(mean: f64, rng: &mut ChaCha8Rng) -> u64 {
    Poisson::new(mean).map_or(0, |distribution| {
        let count: f64 = distribution.sample(rng);
        count as u64
    })
}

pub(super) fn binomial(n: u64, p: f64, rng: &mut ChaCha8Rng) -> u64 {
    Binomial::new(n, p.clamp(0.0, 1.0)).map_or(0, |distribution| distribution.sample(rng))
}

/// So many requests with log-normal durations around a median.
pub(super) fn durations(n: u64, median_ms: f64, rng: &mut ChaCha8Rng) -> Durations {
    let mut durations = Durations::default();
    if n == 0 {
        return durations;
    }
    let normal = Normal::standard();
    let (mut left, mut above) = (n, 1.0);
    for (bucket, edge) in EDGES_MS.iter().enumerate() {
        let below_edge = if edge.is_finite() { normal.cdf((edge / median_ms).ln() / SIGMA) } else { 1.0 };
        let share = below_edge - (1.0 - above);
        let count = if edge.is_finite() { binomial(left, share / above, rng) } else { left };
        durations.counts[bucket] = count;
        left -= count;
        above = 1.0 - below_edge;
        if left == 0 || above <= 0.0 {
            break;
        }
    }
    durations.sum_ms = n as f64 * median_ms * (SIGMA * SIGMA / 2.0).exp();
    durations
}

/// What a caller may meet at one endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    /// Index of the pod.
    pub pod: usize,
    pub failure: f64,
    pub median_ms: f64,
}

/// What came of some calls: by ending.
pub(super) fn calls(
    n: u64,
    connect_failure: f64,
    endpoint: Endpoint,
    rng: &mut ChaCha8Rng,
) -> [(Ending, Durations); 3] {
    let unconnected = binomial(n, connect_failure, rng);
    let failed = binomial(n - unconnected, endpoint.failure, rng);
    [
        (Ending::Ok, durations(n - unconnected - failed, endpoint.median_ms, rng)),
        (Ending::ServerError, durations(failed, endpoint.median_ms, rng)),
        (Ending::ConnectFailure, durations(unconnected, 1.0, rng)),
    ]
}
