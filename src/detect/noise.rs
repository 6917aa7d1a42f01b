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
