//! One service, one window: every zone against its peers and its own past, in every signal.

use super::history::Frame;
use super::location;
use super::noise::Noise;
use super::proportion::{self, Floors, Spread, Usual};
use super::settings::{Scale, ServiceSettings};
use super::tail::{self, SLOW_SHARES};
use super::track::Past;
use crate::domain::Signal;

/// What one comparison says of one zone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Signed root of twice the evidence.
    pub z: f64,
    /// Excess over what is expected.
    pub effect: f64,
    /// Whether the effect matters to anyone.
    pub large: bool,
    /// Whether there is enough to compare.
    pub live: bool,
    pub weight: f64,
    /// Excess over the zone's own past, and the evidence for it.
    pub own: f64,
    pub own_nats: f64,
    pub seen: f64,
    pub expected: f64,
    /// Standard error of the effect.
    pub error: f64,
    pub peers: f64,
}

impl Look {
    /// Evidence for an effect that matters.
    pub fn nats(&self) -> f64 {
        if self.large && self.z > 0.0 { self.z * self.z / 2.0 } else { 0.0 }
    }
}

/// By signal (in the order of [`Signal::ALL`]) and zone.
pub(super) type Looks = [Vec<Look>; 5];

/// What is the same for all windows of one cycle.
#[derive(Debug)]
pub(super) struct Prepared {
    errors: [Vec<Usual>; 2],
    error_noise: [f64; 2],
    tails: [PreparedTail; 2],
    location_variance: f64,
    learned_cycles: f64,
}

#[derive(Debug)]
struct PreparedTail {
    first: usize,
    usual: Vec<Usual>,
    noise: f64,
    live: Vec<bool>,
}

impl Prepared {
    pub fn new(past: &Past, noise: &Noise, edges_ms: &[f64]) -> Self {
        let all = past.latency_of_all();
        let known: Vec<f64> = past.latency.iter().map(|zone| zone.iter().sum()).collect();
        let all_known: f64 = known.iter().sum();
        let location_variance = noise.variance(Signal::Latency);
        let tails = [0, 1].map(|i| {
            let first = tail::first_slow_bucket(&all, SLOW_SHARES[i]);
            let slow: Vec<f64> = past.latency.iter().map(|zone| tail::slow(zone, first)).collect();
            let usual = proportion::usual(&known, &slow);
            let steep = tail::steepness(&all, first, edges_ms);
            let signal = [Signal::SlowRequests, Signal::VerySlowRequests][i];
            PreparedTail {
                first,
                noise: noise.variance(signal).max(location_variance * steep * steep),
                live: usual.iter().map(|u| all_known >= tail::FEWEST_KNOWN && u.own < tail::LARGEST_SHARE).collect(),
                usual,
            }
        });
        Self {
            errors: [
                proportion::usual(&past.served, &past.served_failed),
                proportion::usual(&past.called, &past.called_failed),
            ],
            error_noise: [noise.variance(Signal::ServerErrors), noise.variance(Signal::ClientErrors)],
            tails,
            location_variance,
            learned_cycles: past.cycles.max(1.0),
        }
    }

    /// All signals over the sum of `span` cycles.
    pub fn compare(
        &self,
        sum: &Frame,
        span: usize,
        past: &Past,
        table: &location::ShiftTable,
        settings: &ServiceSettings,
        scale: &Scale,
    ) -> Looks {
        let smoothing = scale.smoothing(span as f64) + scale.smoothing(self.learned_cycles);
        let spread = |noise: f64| Spread { relative_variance: noise * smoothing };
        let errors = Floors {
            excess: settings.min_error_excess.as_fraction(),
            ratio: settings.min_error_ratio.times(),
            failures: f64::from(settings.min_failures),
            requests: 10.0,
        };
        let slow = Floors {
            excess: settings.min_slow_excess.as_fraction(),
            ratio: settings.min_slow_ratio.times(),
            failures: f64::from(settings.min_failures),
            requests: 50.0,
        };
        let totals: Vec<f64> = sum.latency.iter().map(|zone| zone.iter().sum()).collect();
        let tail_looks = |tail: &PreparedTail| {
            let above: Vec<f64> = sum.latency.iter().map(|zone| tail::slow(zone, tail.first)).collect();
            let mut looks = proportion::compare(&totals, &above, &tail.usual, spread(tail.noise), &slow);
            for (look, live) in looks.iter_mut().zip(&tail.live) {
                if !live {
                    *look = Look { live: false, large: false, z: 0.0, ..*look };
                }
            }
            looks
        };
        [
            proportion::compare(&sum.served, &sum.served_failed, &self.errors[0], spread(self.error_noise[0]), &errors),
            proportion::compare(&sum.called, &sum.called_failed, &self.errors[1], spread(self.error_noise[1]), &errors),
            tail_looks(&self.tails[0]),
            tail_looks(&self.tails[1]),
            location::compare(
                &sum.latency,
                &past.latency,
                &past.offsets,
                table,
                self.location_variance,
                (span, scale),
                settings.min_slowdown.times(),
            ),
        ]
    }
}
