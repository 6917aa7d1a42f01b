//! One service, one window: every zone against its peers and its own past, in every signal.

use super::history::Frame;
use super::location::{self, KnownDurations};
use super::lost;
use super::noise::Noise;
use super::past::Past;
use super::proportion::{self, Floors, Spread, Usual};
use super::settings::Scale;
use super::tail::{self, SLOW_SHARES};
use crate::domain::{ServiceSettings, Signal};

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
    /// Requests of the peers, and what was seen there.
    pub peers: f64,
    pub peers_seen: f64,
}

impl Look {
    /// Evidence for an effect that matters.
    pub fn nats(&self) -> f64 {
        if self.large && self.z > 0.0 { self.z * self.z / 2.0 } else { 0.0 }
    }

    /// What can't be compared with peers is still held against the zone's own past.
    pub fn dismiss(&mut self) {
        (self.live, self.large, self.z) = (false, false, 0.0);
    }
}

/// By signal (in the order of [`Signal::ALL`]) and zone.
pub(super) type Looks = [Vec<Look>; SIGNALS];

pub(super) const SIGNALS: usize = Signal::ALL.len();

/// What is the same for all windows of one cycle.
#[derive(Debug)]
pub(super) struct Prepared {
    errors: [Vec<Usual>; 2],
    noise: [f64; SIGNALS],
    tails: [PreparedTail; 2],
    durations: Vec<KnownDurations>,
    /// What the variance of noise is multiplied by in what was learned.
    learned: f64,
}

#[derive(Debug)]
struct PreparedTail {
    first: usize,
    usual: Vec<Usual>,
    noise: f64,
    live: Vec<bool>,
}

impl Prepared {
    pub fn new(past: &Past, noise: &Noise, edges_ms: &[f64], settings: &ServiceSettings, scale: &Scale) -> Self {
        let all = past.latency_of_all();
        let all_known: f64 = all.iter().sum();
        let location_variance = noise.variance(Signal::Latency);
        let tails = [0, 1].map(|i| {
            let first = tail::first_slow_bucket(&all, SLOW_SHARES[i]);
            let usual = past.slow(first, settings.min_slow_excess.as_fraction());
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
                past.served(settings.min_error_excess.as_fraction()),
                past.called(settings.min_error_excess.as_fraction()),
            ],
            noise: Signal::ALL.map(|signal| noise.variance(signal)),
            tails,
            durations: KnownDurations::of(past),
            learned: scale.smoothing(past.cycles.max(1.0)),
        }
    }

    /// What zones differ by at one instant when nothing is wrong.
    pub const fn noise(&self, signal: Signal) -> f64 {
        self.noise[signal as usize]
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
        let of_span = scale.smoothing(span as f64);
        let smoothing = of_span + self.learned;
        let spread = |noise: f64| Spread { relative_variance: noise * smoothing };
        let errors = Floors {
            excess: settings.min_error_excess.as_fraction(),
            ratio: settings.min_error_ratio.times(),
            failures: f64::from(settings.min_failures),
            requests: f64::from(settings.min_requests),
        };
        let slow = Floors {
            excess: settings.min_slow_excess.as_fraction(),
            ratio: settings.min_slow_ratio.times(),
            failures: f64::from(settings.min_failures),
            requests: f64::from(settings.min_requests).max(50.0),
        };
        let totals: Vec<f64> = sum.latency.iter().map(|zone| zone.iter().sum()).collect();
        let tail_looks = |tail: &PreparedTail| {
            let above: Vec<f64> = sum.latency.iter().map(|zone| tail::slow(zone, tail.first)).collect();
            let mut looks = proportion::compare(&totals, &above, &tail.usual, spread(tail.noise), &slow);
            looks.iter_mut().zip(&tail.live).filter(|(_, live)| !**live).for_each(|(look, _)| look.dismiss());
            looks
        };
        [
            proportion::compare(
                &sum.served,
                &sum.served_failed,
                &self.errors[0],
                spread(self.noise(Signal::ServerErrors)),
                &errors,
            ),
            proportion::compare(
                &sum.called,
                &sum.called_failed,
                &self.errors[1],
                spread(self.noise(Signal::ClientErrors)),
                &errors,
            ),
            lost::compare(sum, &past.recent, self, smoothing, settings),
            tail_looks(&self.tails[0]),
            tail_looks(&self.tails[1]),
            location::compare(
                &sum.latency,
                past,
                &self.durations,
                table,
                self.noise(Signal::Latency) * of_span,
                settings,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use crate::domain::{CycleLength, Period};

    #[test]
    fn evidence_is_half_the_square_of_what_is_worse_and_matters() {
        let nats = |z, large| Look { z, large, ..Look::default() }.nats();
        assert_eq!(vec![nats(3.0, true), nats(-3.0, true), nats(3.0, false)], [4.5, 0.0, 0.0]);
    }

    #[test]
    fn noise_counts_in_what_is_seen_and_in_what_it_is_held_against() {
        let settings = ServiceSettings::default();
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let frame =
            |failed: [f64; 2]| Frame { served: vec![1000.0; 2], served_failed: failed.to_vec(), ..Frame::empty(2, 2) };
        let mut past = Past { cycles: 100.0, ..Past::default() };
        (0..2).for_each(|at| past.insert_zone(at, 2));
        (past.recent, past.lasting) = (frame([2.0, 2.0]), frame([2.0, 2.0]));
        let (edges_ms, usual) = ([1.0, f64::INFINITY], [1.0, 1.0]);
        let prepared = Prepared::new(&past, &Noise::default(), &edges_ms, &settings, &scale);
        let table = location::ShiftTable::new(&usual, &edges_ms);
        let look = prepared.compare(&frame([30.0, 2.0]), 4, &past, &table, &settings, &scale)[0][0];
        let variance = 0.5 * (scale.smoothing(4.0) + scale.smoothing(100.0)) + 1.0 / 4.0;
        let expected = 1000.0 * look.expected;
        let nats = proportion::deviance(30.0, expected, variance);
        assert!((look.nats() - nats).abs() < 1e-9, "{} and not {nats}", look.nats());
    }

    /// Of two zones alike with so many known requests, of which some are slow: what one more window of them says.
    fn looks(known: f64, slow_share: f64, span: usize) -> Looks {
        let settings = ServiceSettings::default();
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let mut past = Past { cycles: 100.0, ..Past::default() };
        (0..2).for_each(|at| past.insert_zone(at, 2));
        let latency = |n: f64, slow: f64| vec![n * (1.0 - slow), n * slow];
        for frame in [&mut past.recent, &mut past.lasting] {
            frame.latency = vec![latency(known, slow_share); 2];
        }
        let edges_ms = [10.0, f64::INFINITY];
        let table = location::ShiftTable::new(&latency(known, slow_share), &edges_ms);
        let prepared = Prepared::new(&past, &Noise::default(), &edges_ms, &settings, &scale);
        let sum = Frame { latency: vec![latency(1000.0, 0.5), latency(1000.0, slow_share)], ..Frame::empty(2, 2) };
        prepared.compare(&sum, span, &past, &table, &settings, &scale)
    }

    #[test]
    fn slow_requests_are_judged_of_a_thousand_that_are_known_and_where_few_are_slow_in_health() {
        let judged = |known, slow_share| {
            let look = looks(known, slow_share, 4)[Signal::SlowRequests as usize][0];
            assert!((look.seen - 0.5).abs() < 1e-9, "what was seen is told all the same");
            (look.live, look.large, look.z > 0.0)
        };
        assert_eq!(judged(500.0, 0.02), (true, true, true), "of two zones together");
        assert_eq!(judged(499.0, 0.02), (false, false, false));
        assert_eq!(judged(10_000.0, 0.079), (true, true, true));
        assert_eq!(judged(10_000.0, 0.081), (false, false, false));
    }

    #[test]
    fn the_noise_of_durations_is_smoothed_over_the_window() {
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let variance = |span| {
            let look = looks(10_000.0, 0.02, span)[Signal::Latency as usize][0];
            (look.error / look.seen).powi(2)
        };
        let noise = location::USUAL_NOISE * location::USUAL_NOISE;
        let less = noise * (scale.smoothing(4.0) - scale.smoothing(20.0));
        assert!((variance(4) - variance(20) - less).abs() < 1e-12);
    }
}
