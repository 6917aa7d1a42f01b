//! Is a share of requests larger in one zone than it should be? For failures and for slow requests.
//!
//! Why this statistic: counts of failures come in bursts, so their variance exceeds Poisson's. The negative binomial
//! has both; its large-deviation exponent bounds the odds of at least `x` failures where `mean` are expected,
//! P(X ≥ x) ≤ e^-D (Chernoff 1952), in closed form, for the smallest counts too, and at any number of zones. A z-score
//! among K zones can't exceed √(K−1); chi-squared ignores how much traffic a zone has, and is two-sided.

use super::compare::Look;

/// A share in health: of a zone, of its peers, and the failures the zone's own figure rests on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usual {
    pub own: f64,
    pub peers: f64,
    pub weight: f64,
}

/// How much is enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floors {
    pub excess: f64,
    pub ratio: f64,
    pub failures: f64,
    pub requests: f64,
}

/// A zone's noise over a window: relative variance of a rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    pub relative_variance: f64,
}

/// Nats against `x` where `mean` is expected, with a relative variance on top of Poisson's.
pub(super) fn deviance(x: f64, mean: f64, relative_variance: f64) -> f64 {
    let r = 1.0 / relative_variance.max(1e-6);
    let mean = mean.max(1e-12);
    let own = if x > 0.0 { x * (x / mean).ln() } else { 0.0 };
    own - (x + r) * ((x + r) / (mean + r)).ln()
}

/// From the healthy past: requests and failures by zone. A zone of which little is known is taken to be like the
/// service (two failures' worth).
pub(super) fn usual(requests: &[f64], failures: &[f64]) -> Vec<Usual> {
    let (all_n, all_x): (f64, f64) = (requests.iter().sum(), failures.iter().sum());
    let base = (all_x + 1.0) / (all_n + 500.0);
    requests
        .iter()
        .zip(failures)
        .map(|(n, x)| Usual {
            own: (x + 2.0) / (n + 2.0 / base),
            peers: (all_x - x + 2.0) / (all_n - n + 2.0 / base),
            weight: x + 2.0,
        })
        .collect()
}

/// What a zone is used to may not leave what it was used to over days by more than an effect that matters.
pub(super) fn bounded(mut recent: Vec<Usual>, lasting: &[Usual], floor: f64) -> Vec<Usual> {
    recent.iter_mut().zip(lasting).for_each(|(now, long)| now.own = now.own.min(long.own + floor));
    recent
}

/// The share to hold each zone against, and the relative variance of not knowing it better: the worse of the zone's
/// own past and of its peers now, so that a zone must be worse than both. Between two zones the past tells which one
/// moved; a standing difference is no fault; a regional one neither.
pub(super) fn expected<'a>(
    requests: &'a [f64],
    failures: &'a [f64],
    usual: &'a [Usual],
) -> impl Iterator<Item = (f64, f64)> + 'a {
    let (all_n, all_x): (f64, f64) = (requests.iter().sum(), failures.iter().sum());
    requests.iter().zip(failures).zip(usual).map(move |((n, x), past)| {
        let peer_failures = all_x - x + 2.0;
        let standing = (past.own / past.peers).clamp(1.0, 3.0);
        let now = peer_failures / (all_n - n + 2.0 / past.peers) * standing;
        let offset_unknown = if standing > 1.0 { 1.0 / past.weight } else { 0.0 };
        if past.own >= now { (past.own, 1.0 / past.weight) } else { (now, 1.0 / peer_failures + offset_unknown) }
    })
}

/// Each zone against its peers and its past.
pub(super) fn compare(
    requests: &[f64],
    failures: &[f64],
    past: &[Usual],
    spread: Spread,
    floors: &Floors,
) -> Vec<Look> {
    let (all, failed): (f64, f64) = (requests.iter().sum(), failures.iter().sum());
    expected(requests, failures, past)
        .enumerate()
        .map(|(zone, (p, unknown))| {
            let (n, x, peers) = (requests[zone], failures[zone], all - requests[zone]);
            let variance = unknown + spread.relative_variance;
            let nats = deviance(x, n * p, variance).max(0.0);
            let rate = x / n.max(1.0);
            let own = past[zone].own;
            let live = n >= floors.requests && peers >= floors.requests;
            Look {
                z: if x > n * p { (2.0 * nats).sqrt() } else { -(2.0 * nats).sqrt() },
                effect: rate - p,
                large: live && rate - p >= floors.excess && rate >= floors.ratio * p && x >= floors.failures,
                live,
                weight: n,
                own: rate - own,
                own_nats: if x > n * own && x >= 3.0 { deviance(x, n * own, variance) } else { 0.0 },
                seen: rate,
                expected: p,
                error: (rate / n.max(1.0) + p * p * variance).sqrt(),
                peers,
                peers_seen: (failed - x) / peers.max(1.0),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Gamma, Poisson};

    use super::*;

    #[test]
    fn the_evidence_bounds_the_odds_of_chance() {
        let seed = 20_261_123;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mean, variance, draws) = (12.0, 0.3, 200_000);
        let gamma = Gamma::new(1.0 / variance, variance).unwrap();
        for nats in [2.0, 4.0, 6.0] {
            let beyond = (0..draws)
                .filter(|_| {
                    let rate: f64 = mean * gamma.sample(&mut rng);
                    let x: f64 = Poisson::new(rate).unwrap().sample(&mut rng);
                    x > mean && deviance(x, mean, variance) >= nats
                })
                .count();
            let odds = beyond as f64 / f64::from(draws);
            assert!(odds <= (-nats).exp(), "seed {seed}: odds {odds} at {nats} nats");
        }
    }

    #[test]
    fn a_zone_is_held_against_the_worse_of_its_past_and_its_peers() {
        let past = usual(&[10_000.0, 10_000.0, 10_000.0], &[10.0, 10.0, 10.0]);
        let all_worse: Vec<_> = expected(&[1000.0; 3], &[50.0; 3], &past).collect();
        assert!(all_worse.iter().all(|(p, _)| *p > 0.02), "a regional rise raises what is expected: {all_worse:?}");
        let one_worse: Vec<_> = expected(&[1000.0; 3], &[50.0, 1.0, 1.0], &past).collect();
        assert!(one_worse[0].0 < 0.005, "the sick zone is held against the healthy ones: {one_worse:?}");
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value}, and not {expected}");
    }

    #[test]
    fn evidence_grows_with_the_distance_from_what_is_expected_on_either_side() {
        near(deviance(4.0, 2.0, 0.5), 4.0 * 2.0_f64.ln() - 6.0 * 1.5_f64.ln());
        near(deviance(0.0, 2.0, 0.5), 2.0 * 2.0_f64.ln());
        near(deviance(2.0, 2.0, 0.5), 0.0);
    }

    #[test]
    fn a_zone_of_which_little_is_known_is_taken_to_be_like_the_service() {
        // The service fails in two of a thousand: two failures' worth of it are a thousand requests.
        let usual = usual(&[1000.0, 500.0], &[3.0, 0.0]);
        for (usual, (own, peers, weight)) in
            usual.iter().zip([(5.0 / 2000.0, 2.0 / 1500.0, 5.0), (2.0 / 1500.0, 5.0 / 2000.0, 2.0)])
        {
            near(usual.own, own);
            near(usual.peers, peers);
            near(usual.weight, weight);
        }
    }

    #[test]
    fn what_a_zone_is_used_to_stays_near_what_it_was_used_to_over_days() {
        let of = |own| Usual { own, peers: 0.002, weight: 5.0 };
        let bounded = bounded(vec![of(0.01), of(0.006)], &[of(0.002), of(0.002)], 0.005);
        near(bounded[0].own, 0.007);
        near(bounded[1].own, 0.006);
    }

    #[test]
    fn what_is_expected_carries_a_standing_difference_up_to_three_times_and_what_is_not_known_of_it() {
        let expected = |own, peers, weight| {
            let usual = [Usual { own, peers, weight }; 2];
            expected(&[1000.0; 2], &[10.0, 4.0], &usual).collect::<Vec<_>>()
        };
        let check = |(p, unknown): (f64, f64), (expected_p, expected_unknown): (f64, f64)| {
            near(p, expected_p);
            near(unknown, expected_unknown);
        };
        check(expected(0.004, 0.002, 8.0)[0], (2.0 * 6.0 / 2000.0, 1.0 / 6.0 + 1.0 / 8.0));
        check(expected(0.008, 0.002, 8.0)[0], (3.0 * 6.0 / 2000.0, 1.0 / 6.0 + 1.0 / 8.0));
        check(expected(0.01, 0.02, 4.0)[1], (12.0 / 1100.0, 1.0 / 12.0));
        check(expected(0.02, 0.02, 5.0)[1], (0.02, 1.0 / 5.0));
    }

    const FLOORS: Floors = Floors { excess: 0.02, ratio: 2.0, failures: 5.0, requests: 10.0 };

    /// Of two zones that are used to four failures in a thousand, twice as many as their peers.
    fn compared(requests: [f64; 2], failures: [f64; 2], floors: &Floors) -> Vec<Look> {
        let past = [Usual { own: 0.004, peers: 0.002, weight: 8.0 }; 2];
        compare(&requests, &failures, &past, Spread { relative_variance: 0.1 }, floors)
    }

    #[test]
    fn a_zone_is_compared_with_what_is_expected_of_it_and_with_its_past() {
        let looks = compared([1000.0; 2], [30.0, 4.0], &FLOORS);
        let variance = [0.1 + 1.0 / 6.0 + 1.0 / 8.0, 0.1 + 1.0 / 32.0 + 1.0 / 8.0];
        let nats = [deviance(30.0, 6.0, variance[0]), deviance(4.0, 32.0, variance[1])];
        let (sick, healthy) = (looks[0], looks[1]);
        for (value, expected) in [
            (sick.z, (2.0 * nats[0]).sqrt()),
            (sick.effect, 0.024),
            (sick.weight, 1000.0),
            (sick.own, 0.026),
            (sick.own_nats, deviance(30.0, 4.0, variance[0])),
            (sick.seen, 0.03),
            (sick.expected, 0.006),
            (sick.error, (0.03 / 1000.0 + 0.006 * 0.006 * variance[0]).sqrt()),
            (sick.peers, 1000.0),
            (sick.peers_seen, 0.004),
            (healthy.z, -(2.0 * nats[1]).sqrt()),
            (healthy.effect, -0.028),
            (healthy.own, 0.0),
            (healthy.own_nats, 0.0),
            (healthy.peers_seen, 0.03),
        ] {
            near(value, expected);
        }
        assert!(sick.large && sick.live && !healthy.large && healthy.live);
    }

    #[test]
    fn an_effect_matters_that_is_large_enough_in_each_respect() {
        let large = |floors: Floors| compared([1000.0; 2], [30.0, 4.0], &floors)[0].large;
        assert!(large(Floors { excess: 0.0239, ..FLOORS }) && !large(Floors { excess: 0.0241, ..FLOORS }));
        assert!(large(Floors { ratio: 4.99, ..FLOORS }) && !large(Floors { ratio: 5.01, ..FLOORS }));
        assert!(large(Floors { failures: 30.0, ..FLOORS }) && !large(Floors { failures: 31.0, ..FLOORS }));
        assert!(large(Floors { requests: 1000.0, ..FLOORS }) && !large(Floors { requests: 1001.0, ..FLOORS }));
    }

    #[test]
    fn a_zone_is_compared_that_has_enough_requests_and_whose_peers_have() {
        let live =
            |requests| compared(requests, [0.0; 2], &FLOORS).into_iter().map(|look| look.live).collect::<Vec<_>>();
        assert_eq!(live([10.0, 10.0]), [true, true]);
        assert_eq!(live([9.0, 10.0]), [false, false]);
        let alone = compare(
            &[9.0, 20.0, 20.0],
            &[0.0; 3],
            &[Usual { own: 0.004, peers: 0.002, weight: 8.0 }; 3],
            Spread { relative_variance: 0.1 },
            &FLOORS,
        );
        assert_eq!(alone.iter().map(|look| look.live).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn fewer_than_three_failures_are_no_evidence_that_a_zone_left_its_past() {
        let own_nats = |failures| compared([100.0, 100.0], [failures, 0.0], &FLOORS)[0].own_nats;
        assert!(own_nats(3.0) > 1.0);
        near(own_nats(2.0), 0.0);
    }
}
