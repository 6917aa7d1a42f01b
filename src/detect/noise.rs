//! How much zones differ when nothing is wrong, learned per service and signal.
//!
//! Why: errors come in bursts that outlast a window and are shared by requests; taking requests as independent
//! would see a fault in every burst. What is learned is the dispersion of the *difference* between a zone and what
//! is expected of it, in blocks of four cycles; the marginal variance would overstate it.

use serde::{Deserialize, Serialize};

use super::compare::SIGNALS;
use super::location;
use super::lost;
use super::past::Past;
use super::proportion;
use super::settings::Scale;
use super::tail::{self, SLOW_SHARES};
use super::{history::Frame, location::ShiftTable};
use crate::domain::Signal;

/// Blocks of one zone that the usual noise is worth against what is learned.
const PRIOR_WEIGHT: f64 = 8.0;
/// Cycles in a block: noise is learned from no less.
pub const BLOCK: usize = 4;
/// A single block can't say that the noise is more than this many times the square of the rate.
const LARGEST_SQUARE: f64 = 25.0;

/// Learned squares and their weight by signal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Noise {
    squares: [f64; SIGNALS],
    weights: [f64; SIGNALS],
}

/// The usual noise before any is learned: relative variance of a rate, or the variance of log latency.
const fn prior(signal: Signal) -> f64 {
    match signal {
        Signal::ServerErrors | Signal::ClientErrors => 0.5,
        Signal::LostCalls => 0.01,
        Signal::SlowRequests | Signal::VerySlowRequests => 0.08,
        Signal::Latency => location::USUAL_NOISE * location::USUAL_NOISE,
    }
}

impl Noise {
    /// At one instant: relative variance of a rate, or variance of log latency; within a third and four times the usual.
    pub fn variance(&self, signal: Signal) -> f64 {
        let (i, usual) = (signal as usize, prior(signal));
        let learned = (self.squares[i] + usual * PRIOR_WEIGHT) / (self.weights[i] + PRIOR_WEIGHT);
        learned.clamp(usual / 3.0, usual * 4.0)
    }

    /// Learns from one block of cycles, in the zones that were healthy, and moves their standing offsets.
    pub fn learn(&mut self, block: &Frame, past: &mut Past, healthy: &[bool], table: &ShiftTable, scale: &Scale) {
        let keep = scale.keep.powi(BLOCK as i32);
        let smoothing = scale.smoothing(BLOCK as f64);
        let totals: Vec<f64> = block.latency.iter().map(|zone| zone.iter().sum()).collect();
        let usual = past.recent.clone();
        let known: Vec<f64> = usual.latency.iter().map(|zone| zone.iter().sum()).collect();
        let all = past.latency_of_all();
        self.rate(
            Signal::ServerErrors,
            &block.served,
            &block.served_failed,
            (&usual.served, &usual.served_failed),
            healthy,
            (keep, smoothing),
        );
        self.rate(
            Signal::ClientErrors,
            &block.called,
            &block.called_failed,
            (&usual.called, &usual.called_failed),
            healthy,
            (keep, smoothing),
        );
        for (signal, share) in [Signal::SlowRequests, Signal::VerySlowRequests].into_iter().zip(SLOW_SHARES) {
            let first = tail::first_slow_bucket(&all, share);
            let slow = |latency: &[Vec<f64>]| -> Vec<f64> { latency.iter().map(|z| tail::slow(z, first)).collect() };
            self.rate(
                signal,
                &totals,
                &slow(&block.latency),
                (&known, &slow(&usual.latency)),
                healthy,
                (keep, smoothing),
            );
        }
        self.shares(&block.served, &usual.served, healthy, (keep, smoothing));
        self.location(block, &totals, past, healthy, table, scale);
    }

    /// How far the zones' shares of the traffic move.
    fn shares(&mut self, served: &[f64], usual: &[f64], healthy: &[bool], (keep, smoothing): (f64, f64)) {
        let due = lost::expected_served(served, usual);
        let (mut squares, mut weights) = (0.0, 0.0);
        for zone in (0..served.len()).filter(|z| healthy[*z]) {
            let mean = due[zone].max(1e-12);
            let weight = mean / (mean + 30.0);
            let square = (((served[zone] - mean).powi(2) - 2.0 * mean) / mean.powi(2)).min(1.0);
            squares += weight * square / smoothing;
            weights += weight;
        }
        self.add(Signal::LostCalls, squares, weights, keep);
    }

    fn rate(
        &mut self,
        signal: Signal,
        n: &[f64],
        x: &[f64],
        (known_n, known_x): (&[f64], &[f64]),
        healthy: &[bool],
        (keep, smoothing): (f64, f64),
    ) {
        let usual = proportion::usual(known_n, known_x);
        let expected: Vec<(f64, f64)> = proportion::expected(n, x, &usual).collect();
        let (mut squares, mut weights) = (0.0, 0.0);
        for zone in (0..n.len()).filter(|z| healthy[*z]) {
            let mean = (n[zone] * expected[zone].0).max(1e-12);
            let weight = mean / (mean + 3.0);
            let square = (((x[zone] - mean).powi(2) - mean) / mean.powi(2)).min(LARGEST_SQUARE);
            squares += weight * square / smoothing;
            weights += weight;
        }
        self.add(signal, squares, weights, keep);
    }

    fn location(
        &mut self,
        block: &Frame,
        totals: &[f64],
        past: &mut Past,
        healthy: &[bool],
        table: &ShiftTable,
        scale: &Scale,
    ) {
        let (keep, smoothing) = (scale.keep.powi(BLOCK as i32), scale.smoothing(BLOCK as f64));
        let usual = prior(Signal::Latency);
        let all: f64 = totals.iter().sum();
        let (mut squares, mut weights) = (0.0, 0.0);
        for (zone, (shift, sampling)) in location::shifts_against_peers(&block.latency, table).into_iter().enumerate() {
            let enough = healthy[zone] && totals[zone] >= 20.0 && all - totals[zone] >= 20.0;
            let weight = if enough { usual / (usual + sampling) } else { 0.0 };
            let offset = &mut past.offsets[zone];
            if offset.weight >= 3.0 {
                let square = ((shift - offset.value(f64::INFINITY)).powi(2) - sampling)
                    .clamp(-4.0 * usual, LARGEST_SQUARE * usual);
                squares += weight * square / smoothing;
                weights += weight;
            }
            offset.learn(shift, weight, keep, scale.keep_lasting.powi(BLOCK as i32));
        }
        self.add(Signal::Latency, squares, weights, keep);
    }

    fn add(&mut self, signal: Signal, squares: f64, weights: f64, keep: f64) {
        let i = signal as usize;
        self.squares[i] = self.squares[i] * keep + squares;
        self.weights[i] = self.weights[i] * keep + weights;
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use crate::domain::{CycleLength, Period};

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value}, and not {expected}");
    }

    fn learned(noise: &Noise, signal: Signal) -> (f64, f64) {
        (noise.squares[signal as usize], noise.weights[signal as usize])
    }

    #[test]
    fn noise_is_as_usual_until_it_is_learned_and_stays_within_a_third_and_four_times_of_that() {
        let variance = |squares, weight| {
            let noise = Noise { squares: [squares; SIGNALS], weights: [weight; SIGNALS] };
            [noise.variance(Signal::ServerErrors), noise.variance(Signal::SlowRequests)]
        };
        for ((squares, weight), expected) in [
            ((0.0, 0.0), [0.5, 0.08]),
            ((1.2, 8.0), [(1.2 + 4.0) / 16.0, (1.2 + 0.64) / 16.0]),
            ((0.0, 1000.0), [0.5 / 3.0, 0.08 / 3.0]),
            ((1000.0, 1.0), [2.0, 0.32]),
        ] {
            variance(squares, weight).into_iter().zip(expected).for_each(|(value, expected)| near(value, expected));
        }
    }

    #[test]
    fn what_was_learned_fades_as_more_is() {
        let mut noise = Noise::default();
        noise.add(Signal::Latency, 4.0, 2.0, 0.5);
        noise.add(Signal::Latency, 1.0, 3.0, 0.5);
        assert_eq!(learned(&noise, Signal::Latency), (3.0, 4.0));
        assert_eq!(learned(&noise, Signal::ServerErrors), (0.0, 0.0));
    }

    #[test]
    fn the_noise_of_a_rate_is_its_square_beyond_that_of_chance() {
        // Two in a thousand fail in health; of a thousand requests in each zone so many.
        let of = |failures: [f64; 2], healthy: [bool; 2]| {
            let mut noise = Noise::default();
            let known = ([500.0, 500.0], [1.0, 1.0]);
            let known = (known.0.as_slice(), known.1.as_slice());
            noise.rate(Signal::ServerErrors, &[1000.0, 1000.0], &failures, known, &healthy, (1.0, 0.5));
            learned(&noise, Signal::ServerErrors)
        };
        // Of the first zone two are expected, as (2 + 2) of 2000 say; of the second six, as (10 + 2) of 2000 do.
        let first = 2.0 / 5.0 * ((8.0 * 8.0 - 2.0) / 4.0) / 0.5;
        let second = 6.0 / 9.0 * ((4.0 * 4.0 - 6.0) / 36.0) / 0.5;
        let (squares, weights) = of([10.0, 2.0], [true, true]);
        near(squares, first + second);
        near(weights, 2.0 / 5.0 + 6.0 / 9.0);
        let (squares, weights) = of([10.0, 2.0], [true, false]);
        near(squares, first);
        near(weights, 2.0 / 5.0);
        near(of([40.0, 2.0], [true, false]).0, 2.0 / 5.0 * LARGEST_SQUARE / 0.5);
    }

    #[test]
    fn the_noise_of_shares_is_how_far_a_zone_is_from_what_the_others_say_it_is_due() {
        let of = |served: [f64; 2], healthy: [bool; 2]| {
            let mut noise = Noise::default();
            noise.shares(&served, &[1000.0, 1000.0], &healthy, (1.0, 0.5));
            learned(&noise, Signal::LostCalls)
        };
        // Each is due what the other has.
        let first = 30.0 / 60.0 * ((10.0 * 10.0 - 60.0) / 900.0) / 0.5;
        let second = 40.0 / 70.0 * ((10.0 * 10.0 - 80.0) / 1600.0) / 0.5;
        let (squares, weights) = of([40.0, 30.0], [true, true]);
        near(squares, first + second);
        near(weights, 30.0 / 60.0 + 40.0 / 70.0);
        near(of([40.0, 30.0], [true, false]).0, first);
        near(of([3000.0, 30.0], [true, false]).0, 30.0 / 60.0 / 0.5);
    }

    /// Of two zones that differ by `offset` in health: what one block says whose first zone has slower requests.
    fn location(requests: f64, offset: f64, known: f64, healthy: bool) -> (Noise, Past, f64, f64, Scale) {
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let edges_ms = [1.0, 10.0, 100.0, 1000.0, f64::INFINITY];
        let table = ShiftTable::new(&[0.1, 0.4, 0.4, 0.1, 0.0].map(|share| share * 10_000.0), &edges_ms);
        let mut past = Past::default();
        (0..2).for_each(|at| past.insert_zone(at, edges_ms.len()));
        past.offsets[0].learn(offset, known, 1.0, 1.0);
        let shares = [[0.05, 0.4, 0.4, 0.15, 0.0], [0.1, 0.4, 0.4, 0.1, 0.0]];
        let latency = shares.map(|zone| zone.map(|share| share * requests).to_vec()).to_vec();
        let (shift, sampling) = location::shifts_against_peers(&latency, &table)[0];
        let block = Frame { latency, ..Frame::empty(2, edges_ms.len()) };
        let mut noise = Noise::default();
        noise.location(&block, &[requests; 2], &mut past, &[healthy, false], &table, &scale);
        (noise, past, shift, sampling, scale)
    }

    #[test]
    fn the_noise_of_durations_is_the_square_of_the_shift_beyond_the_standing_one_and_that_of_chance() {
        let usual = location::USUAL_NOISE * location::USUAL_NOISE;
        let check = |(noise, _, _, sampling, scale): (Noise, Past, f64, f64, Scale), square: f64| {
            let weight = usual / (usual + sampling);
            let (squares, weights) = learned(&noise, Signal::Latency);
            near(squares, weight * square / scale.smoothing(BLOCK as f64));
            near(weights, weight);
        };
        let (_, _, shift, sampling, _) = location(50_000.0, 0.1, 5.0, true);
        assert!(shift > 0.1 && sampling < 1e-3, "{shift}, {sampling}");
        let offset = shift - 0.1;
        check(location(50_000.0, offset, 5.0, true), 0.1 * 0.1 - sampling);
        check(location(50_000.0, -5.0, 3.0, true), LARGEST_SQUARE * usual);
        let (_, _, shift, sampling, _) = location(20.0, 0.0, 5.0, true);
        assert!(sampling > 4.0 * usual, "{sampling}");
        check(location(20.0, shift, 5.0, true), -4.0 * usual);
    }

    #[test]
    fn a_standing_shift_is_learned_before_its_noise_is_and_only_of_healthy_zones_with_enough_requests() {
        let usual = location::USUAL_NOISE * location::USUAL_NOISE;
        let (noise, past, shift, sampling, scale) = location(20.0, 0.0, 2.9, true);
        assert_eq!(learned(&noise, Signal::Latency), (0.0, 0.0));
        let (weight, kept) = (usual / (usual + sampling), 2.9 * scale.keep.powi(4));
        near(past.offsets[0].weight, kept + weight);
        near(past.offsets[0].value(f64::INFINITY), weight * shift / (kept + weight));
        for (requests, healthy) in [(19.0, true), (20.0, false)] {
            let (_, past, ..) = location(requests, 0.0, 2.9, healthy);
            near(past.offsets[0].weight, kept);
        }
    }

    #[test]
    fn nothing_is_learned_of_durations_where_the_peers_have_too_few() {
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let edges_ms = [1.0, f64::INFINITY];
        let table = ShiftTable::new(&[50.0, 50.0], &edges_ms);
        let learned = |peers: f64| {
            let mut past = Past::default();
            (0..2).for_each(|at| past.insert_zone(at, edges_ms.len()));
            let block = Frame { latency: vec![vec![10.0, 10.0], vec![peers, 0.0]], ..Frame::empty(2, edges_ms.len()) };
            Noise::default().location(&block, &[20.0, peers], &mut past, &[true; 2], &table, &scale);
            past.offsets[0].weight > 0.0
        };
        assert_eq!([20.0, 19.0].map(learned), [true, false]);
    }
}
