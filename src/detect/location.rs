//! Are requests slower in one zone than they should be, all of them? On the whole histogram.
//!
//! Why this statistic: the mean ridit is Wilcoxon–Mann–Whitney on buckets with the tie correction: the probability
//! that a request here is slower than one there. Means are ruled by the slowest few requests, and Istio's buckets
//! are too coarse for quantiles. A table made from the service's own histogram turns it into a factor.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::compare::Look;
use super::past::Past;
use crate::domain::ServiceSettings;

const FACTORS: [f64; 13] = [0.5, 0.7, 0.85, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0];
static LOG_FACTORS: LazyLock<[f64; FACTORS.len()]> = LazyLock::new(|| FACTORS.map(f64::ln));
const UNMOVED: usize = 3;
/// Requests in the window, and in the healthy past.
const FEWEST: f64 = 20.0;
const FEWEST_KNOWN: f64 = 100.0;
/// The usual standard deviation of log latency between zones, before it is learned.
pub(super) const USUAL_NOISE: f64 = 0.05;

/// The probability that a request `factor` times as slow is slower than a usual one, for each of [`FACTORS`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ShiftTable {
    probabilities: [f64; FACTORS.len()],
    slope: f64,
}

/// Upper bucket edges in log milliseconds; the infinite one stands for ten times the last finite one.
pub(super) fn log_edges(edges_ms: &[f64]) -> Vec<f64> {
    let finite = edges_ms.iter().copied().filter(|e| e.is_finite()).fold(1e-3, f64::max);
    edges_ms.iter().map(|e| if e.is_finite() { e.max(1e-3).ln() } else { (10.0 * finite).ln() }).collect()
}

/// Linear between the points, constant outside.
pub(super) fn interpolate(x: f64, xs: &[f64], ys: &[f64]) -> f64 {
    let after = xs.partition_point(|p| *p <= x);
    if after == 0 {
        return ys[0];
    }
    if after == xs.len() {
        return ys[xs.len() - 1];
    }
    let (x0, x1, y0, y1) = (xs[after - 1], xs[after], ys[after - 1], ys[after]);
    y0 + (y1 - y0) * (x - x0) / (x1 - x0)
}

/// Cumulative shares of a histogram.
pub(super) fn cumulative(counts: &[f64]) -> Vec<f64> {
    let total = counts.iter().sum::<f64>().max(1.0);
    counts
        .iter()
        .scan(0.0, |below, c| {
            *below += c / total;
            Some(*below)
        })
        .collect()
}

impl ShiftTable {
    pub fn new(usual: &[f64], edges_ms: &[f64]) -> Self {
        let upper = log_edges(edges_ms);
        let cdf = cumulative(usual);
        let ridit: Vec<f64> =
            cdf.iter().enumerate().map(|(i, c)| f64::midpoint(if i == 0 { 0.0 } else { cdf[i - 1] }, *c)).collect();
        let probabilities = FACTORS.map(|factor| {
            let mut below = 0.0;
            (0..upper.len())
                .map(|i| {
                    let moved =
                        if i + 1 == upper.len() { 1.0 } else { interpolate(upper[i] - factor.ln(), &upper, &cdf) };
                    let share = moved - below;
                    below = moved;
                    share * ridit[i]
                })
                .sum()
        });
        let run = (FACTORS[UNMOVED + 1] / FACTORS[UNMOVED - 1]).ln();
        let slope = (probabilities[UNMOVED + 1] - probabilities[UNMOVED - 1]) / run;
        Self { probabilities, slope: slope.max(0.02) }
    }

    /// A mean ridit as a log factor.
    fn log_factor(&self, mean_ridit: f64) -> f64 {
        if self.probabilities[FACTORS.len() - 1] <= self.probabilities[0] + 1e-6 {
            return 0.0;
        }
        interpolate(mean_ridit, &self.probabilities, &*LOG_FACTORS)
    }
}

/// The ridit of each bucket of a reference: the share of requests that are faster, with half of those that are as fast.
#[derive(Debug)]
pub(super) struct Ridits(Vec<f64>);

impl Ridits {
    pub fn of(reference: &[f64]) -> Self {
        let total = reference.iter().sum::<f64>().max(1.0);
        let mut below = 0.0;
        let of_bucket = |count: &f64| {
            let share = count / total;
            let ridit = below + share / 2.0;
            below += share;
            ridit
        };
        Self(reference.iter().map(of_bucket).collect())
    }

    /// The mean of a histogram that counts so many.
    fn mean(&self, counts: &[f64], total: f64) -> f64 {
        let sum = counts.iter().zip(&self.0).fold(0.0, |sum, (count, ridit)| sum + count * ridit);
        sum / total.max(1.0)
    }
}

/// The mean ridit of a histogram against the rest of all, the tie-corrected variance of one request's ridit, and how many the
/// rest are.
fn mean_ridit_of_rest(counts: &[f64], total: f64, all: &[f64]) -> (f64, f64, f64) {
    let rest = || all.iter().zip(counts).map(|(all, own)| all - own);
    let others: f64 = rest().sum();
    let known = others.max(1.0);
    let (mut below, mut sum, mut ties) = (0.0, 0.0, 0.0);
    for (count, other) in counts.iter().zip(rest()) {
        let share = other / known;
        sum += count * (below + share / 2.0);
        below += share;
        ties += share.powi(3);
    }
    (sum / total.max(1.0), (1.0 - ties) / 12.0, others)
}

/// How far each zone's latency is from that of its peers, as a log factor, and the sampling variance of it.
pub(super) fn shifts_against_peers(latency: &[Vec<f64>], table: &ShiftTable) -> Vec<(f64, f64)> {
    let buckets = latency.first().map_or(0, Vec::len);
    let mut all: Vec<f64> = (0..buckets).map(|b| latency.iter().map(|zone| zone[b]).sum()).collect();
    // Most services never use the slowest buckets.
    all.truncate(all.iter().rposition(|count| *count != 0.0).map_or(0, |last| last + 1));
    latency
        .iter()
        .map(|zone| {
            let n: f64 = zone.iter().sum();
            let (mean, unit, m) = mean_ridit_of_rest(zone, n, &all);
            let sampling = unit * (1.0 / n.max(1.0) + 1.0 / m.max(1.0)) / table.slope.powi(2);
            (table.log_factor(mean), sampling)
        })
        .collect()
}

/// A zone's standing difference from its peers in log latency, and how many minutes it rests on.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Offset {
    weighted: f64,
    pub weight: f64,
    lasting_weighted: f64,
    lasting_weight: f64,
}

impl Offset {
    /// It may not leave that over days by more than `most_drift`.
    pub fn value(self, most_drift: f64) -> f64 {
        let lasting = self.lasting_weighted / self.lasting_weight.max(1e-12);
        (self.weighted / self.weight.max(1e-12)).min(lasting + most_drift)
    }

    pub fn learn(&mut self, shift: f64, weight: f64, keep: f64, keep_lasting: f64) {
        self.weighted = self.weighted * keep + weight * shift;
        self.weight = self.weight * keep + weight;
        self.lasting_weighted = self.lasting_weighted * keep_lasting + weight * shift;
        self.lasting_weight = self.lasting_weight * keep_lasting + weight;
    }
}

/// What is known of a zone's durations, made ready to compare with.
#[derive(Debug)]
pub(super) struct KnownDurations {
    recent: Ridits,
    lasting: Ridits,
    requests: f64,
}

impl KnownDurations {
    /// By zone.
    pub fn of(past: &Past) -> Vec<Self> {
        let zones = past.recent.latency.iter().zip(&past.lasting.latency);
        let of_zone = |(recent, lasting): (&Vec<f64>, &Vec<f64>)| Self {
            recent: Ridits::of(recent),
            lasting: Ridits::of(lasting),
            requests: recent.iter().sum(),
        };
        zones.map(of_zone).collect()
    }
}

/// Each zone against its peers (less the standing offset) and against its own past: the smaller of both counts.
pub(super) fn compare(
    latency: &[Vec<f64>],
    past: &Past,
    known: &[KnownDurations],
    table: &ShiftTable,
    noise: f64,
    settings: &ServiceSettings,
) -> Vec<Look> {
    let totals: Vec<f64> = latency.iter().map(|zone| zone.iter().sum()).collect();
    let all: f64 = totals.iter().sum();
    let most_drift = settings.min_slowdown.times().ln();
    let fewest = f64::from(settings.min_requests).max(FEWEST);
    shifts_against_peers(latency, table)
        .into_iter()
        .enumerate()
        .map(|(zone, (against_peers, sampling))| {
            let (n, peers) = (totals[zone], all - totals[zone]);
            let KnownDurations { recent, lasting, requests } = &known[zone];
            let against = |ridits: &Ridits| table.log_factor(ridits.mean(&latency[zone], n));
            let own = against(recent).max(against(lasting) - most_drift);
            let offset = past.offsets[zone];
            let excess = own.min(against_peers - offset.value(most_drift));
            let unlearned = USUAL_NOISE.powi(2) / (1.0 + offset.weight);
            let error = (sampling + noise + unlearned).sqrt();
            let live = n >= fewest && peers >= fewest && *requests >= FEWEST_KNOWN;
            let (z, own_z) = (excess / error, own / error);
            let factor = excess.exp();
            Look {
                z: if live { z } else { 0.0 },
                effect: factor - 1.0,
                large: live && factor >= settings.min_slowdown.times(),
                live,
                weight: n,
                own: own.exp() - 1.0,
                own_nats: if live && own > 0.0 { own_z * own_z / 2.0 } else { 0.0 },
                seen: factor,
                expected: 1.0,
                peers_seen: 1.0,
                error: error * factor,
                peers,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [f64; 8] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, f64::INFINITY];

    /// A thousand log-normal requests around a median.
    fn log_normal(median_ms: f64) -> Vec<f64> {
        use statrs::distribution::{ContinuousCDF, LogNormal};
        let distribution = LogNormal::new(median_ms.ln(), 0.7).unwrap();
        let below = |edge: f64| if edge.is_finite() { distribution.cdf(edge) } else { 1.0 };
        let lower = std::iter::once(0.0).chain(EDGES.map(below));
        EDGES.iter().zip(lower).map(|(edge, lower)| 1000.0 * (below(*edge) - lower)).collect()
    }

    #[test]
    fn a_slower_service_is_measured_by_its_factor() {
        let usual = log_normal(12.0);
        let table = ShiftTable::new(&usual, &EDGES);
        for factor in [1.2, 1.6, 2.2] {
            let slower = log_normal(12.0 * factor);
            let measured = table.log_factor(Ridits::of(&usual).mean(&slower, slower.iter().sum())).exp();
            assert!((measured / factor - 1.0).abs() < 0.08, "{factor} times as slow, measured as {measured}");
        }
    }

    #[test]
    fn equal_histograms_are_not_shifted() {
        let usual = vec![10.0, 200.0, 400.0, 300.0, 80.0, 9.0, 1.0, 0.0];
        let table = ShiftTable::new(&usual, &EDGES);
        for (shift, _) in shifts_against_peers(&[usual.clone(), usual.clone(), usual.clone()], &table) {
            assert!(shift.abs() < 1e-9, "{shift}");
        }
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value}, and not {expected}");
    }

    /// A mean ridit of 0.75 is half as slow again, and one of 1 six times as slow.
    fn table() -> ShiftTable {
        let probabilities = [0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.95, 0.99];
        ShiftTable { probabilities, slope: 0.5 }
    }

    #[test]
    fn the_last_bucket_reaches_to_ten_times_its_lower_edge() {
        let logs = log_edges(&[1.0, 10.0, f64::INFINITY]);
        logs.into_iter().zip([0.0, 10.0_f64.ln(), 100.0_f64.ln()]).for_each(|(log, expected)| near(log, expected));
    }

    #[test]
    fn a_zone_is_shifted_by_its_mean_ridit_among_its_peers_with_ties_counted_half() {
        let shifts = shifts_against_peers(&[vec![0.0, 10.0], vec![10.0, 10.0]], &table());
        // Half of the peers' requests are faster, and half as fast: 1/2 + 1/4. Ties leave (1 - 2/8) / 12 of the variance.
        near(shifts[0].0, 1.5_f64.ln());
        near(shifts[0].1, 0.75 / 12.0 * (1.0 / 10.0 + 1.0 / 20.0) / (0.5 * 0.5));
        // Half of its own are as fast as all of the peers' are, and half are faster.
        near(shifts[1].0, f64::midpoint(0.7_f64.ln(), 0.85_f64.ln()));
        near(shifts[1].1, 0.0);
        let unused = shifts_against_peers(&[vec![0.0, 10.0, 0.0], vec![10.0, 10.0, 0.0]], &table());
        near(unused[0].0, shifts[0].0);
    }

    #[test]
    fn a_standing_difference_follows_what_is_learned_and_stays_near_what_it_was_over_days() {
        let mut offset = Offset::default();
        offset.learn(0.2, 1.0, 0.5, 0.9);
        offset.learn(0.4, 2.0, 0.5, 0.9);
        near(offset.weight, 2.5);
        near(offset.value(f64::INFINITY), (0.1 + 0.8) / 2.5);
        near(offset.value(0.01), (0.18 + 0.8) / 2.9 + 0.01);
    }

    /// The first of two zones has only slow requests; before, it had as many fast ones, and over days so.
    fn compared(n: f64, known: f64, over_days: [f64; 2], settings: &ServiceSettings) -> Look {
        let mut past = Past::default();
        (0..2).for_each(|at| past.insert_zone(at, 2));
        past.recent.latency = vec![vec![known / 2.0; 2]; 2];
        past.lasting.latency = vec![over_days.to_vec(); 2];
        past.offsets[0].learn(0.1, 4.0, 1.0, 1.0);
        let latency = [vec![0.0, n], vec![n, n]];
        compare(&latency, &past, &KnownDurations::of(&past), &table(), 0.001, settings)[0]
    }

    #[test]
    fn a_zone_is_slower_by_the_smaller_of_both_measures_and_its_error_has_three_parts() {
        let settings = ServiceSettings::default();
        let look = compared(40.0, 200.0, [100.0, 100.0], &settings);
        let (excess, own) = (1.5_f64.ln() - 0.1, 1.5_f64.ln());
        let sampling = 0.75 / 12.0 * (1.0 / 40.0 + 1.0 / 80.0) / (0.5 * 0.5);
        let error = f64::sqrt(sampling + 0.001 + 0.05 * 0.05 / 5.0);
        for (value, expected) in [
            (look.z, excess / error),
            (look.effect, excess.exp() - 1.0),
            (look.own, 0.5),
            (look.own_nats, (own / error).powi(2) / 2.0),
            (look.seen, excess.exp()),
            (look.error, error * excess.exp()),
            (look.weight, 40.0),
            (look.peers, 80.0),
        ] {
            near(value, expected);
        }
        assert!(look.live && look.large);
    }

    #[test]
    fn what_was_always_fast_over_days_is_slower_than_it_may_have_become() {
        // Over days none was slow: all of them would be six times as slow, of which 15 % may have been learned.
        near(compared(40.0, 200.0, [200.0, 0.0], &ServiceSettings::default()).own, 6.0 / 1.15 - 1.0);
    }

    #[test]
    fn a_zone_is_compared_that_has_twenty_requests_and_a_hundred_in_its_past() {
        let live = |n, known, min_requests| {
            let settings = ServiceSettings { min_requests, ..ServiceSettings::default() };
            let look = compared(n, known, [100.0, 100.0], &settings);
            assert_eq!((look.z > 0.0, look.own_nats > 0.0, look.large), (look.live, look.live, look.live));
            look.live
        };
        assert!(live(20.0, 100.0, 10) && live(40.0, 100.0, 40));
        assert!(!live(19.0, 100.0, 10) && !live(20.0, 99.0, 10) && !live(40.0, 100.0, 41));
    }

    #[test]
    fn where_buckets_tell_nothing_apart_nothing_is_shifted() {
        for ridit in [0.0, 0.5] {
            let table = ShiftTable { probabilities: [ridit; FACTORS.len()], slope: 0.02 };
            [0.0, 0.4, 0.6].into_iter().for_each(|mean| near(table.log_factor(mean), 0.0));
        }
    }
}
