//! Which requests count as slow: those over a bucket edge that few pass in health.
//!
//! Why this statistic: a longer tail at the same median moves no rank statistic, but it multiplies the share of
//! requests over an edge in the healthy tail, which is a proportion and is tested as one.

use super::location::{cumulative, interpolate, log_edges};

/// The healthy share of slow and of very slow requests that an edge is looked for.
pub(super) const SLOW_SHARES: [f64; 2] = [0.02, 0.001];
/// Known requests below which a tail is not judged, and the largest healthy share that is still a tail.
pub(super) const FEWEST_KNOWN: f64 = 1000.0;
pub(super) const LARGEST_SHARE: f64 = 0.08;

/// The first bucket of the slowest requests: over the edge whose healthy share above is nearest to `share`.
pub(super) fn first_slow_bucket(usual: &[f64], share: f64) -> usize {
    let cdf = cumulative(usual);
    let distance = |c: &f64| ((1.0 - c).max(1e-5) / share).ln().abs();
    let edges = &cdf[..cdf.len().saturating_sub(1)];
    let mut nearest = 0;
    for (i, c) in edges.iter().enumerate() {
        if distance(c) < distance(&edges[nearest]) {
            nearest = i;
        }
    }
    nearest + 1
}

/// d log(share of slow requests) / d log(latency): a little slower moves many requests over the edge.
pub(super) fn steepness(usual: &[f64], first: usize, edges_ms: &[f64]) -> f64 {
    let upper = log_edges(edges_ms);
    let cdf = cumulative(usual);
    let share_above = |at: f64| (1.0 - interpolate(at, &upper, &cdf)).max(1e-6);
    let at = upper[first - 1];
    let step = 1.1_f64.ln();
    ((share_above(at - step) / share_above(at)).ln() / step).clamp(1.0, 8.0)
}

/// Requests from a bucket on.
pub(super) fn slow(counts: &[f64], first: usize) -> f64 {
    counts.iter().skip(first).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_the_one_with_the_share_nearest_to_the_wanted() {
        let usual = [500.0, 300.0, 150.0, 30.0, 15.0, 4.0, 1.0];
        assert_eq!(first_slow_bucket(&usual, 0.02), 4, "2 % lie above the fourth edge");
        assert_eq!(first_slow_bucket(&usual, 0.001), 6, "0.1 % lie above the sixth");
    }

    #[test]
    fn slow_requests_are_those_from_a_bucket_on() {
        assert_eq!([0, 1, 3].map(|first| slow(&[1.0, 2.0, 4.0], first)).to_vec(), [7.0, 6.0, 0.0]);
    }

    #[test]
    fn steepness_is_how_many_more_pass_the_edge_where_all_are_a_tenth_slower() {
        let edges_ms = [1.0, 10.0, 100.0, f64::INFINITY];
        let step = 1.1_f64.ln();
        // Of the 8 % in the bucket below the edge so many lie within a tenth of it; 2 % are above.
        let within = 0.08 * step / 10.0_f64.ln();
        let steep = steepness(&[900.0, 80.0, 15.0, 5.0], 2, &edges_ms);
        assert!((steep - ((0.02 + within) / 0.02).ln() / step).abs() < 1e-9, "{steep}");
        assert_eq!(steepness(&[980.0, 0.0, 15.0, 5.0], 2, &edges_ms).to_bits(), 1.0_f64.to_bits(), "at least as many");
        let all_below = steepness(&[0.0, 999.0, 1.0], 2, &[1.0, 1.1, f64::INFINITY]);
        assert_eq!(all_below.to_bits(), 8.0_f64.to_bits(), "and no more than can be known");
    }

    #[test]
    fn of_edges_with_the_same_share_above_the_lowest_is_taken() {
        assert_eq!(first_slow_bucket(&[980.0, 0.0, 0.0, 20.0], 0.02), 1);
    }
}
