//! Do calls to one zone get lost before its servers see them?
//!
//! Why this statistic: servers can't report what never reached them, and clients in every zone suffer alike, so neither
//! vantage alone names the zone. Together they do: clients fail more than servers account for, and *one* zone's servers
//! answer less than their usual share by about as much. The weaker of the two pieces of evidence counts.
//!
//! That the zone misses what clients lost is a likelihood ratio, against nobody's servers missing it and against those of
//! the likeliest other zone: by chance it passes e^t with odds of e^-t at most (Markov), and where traffic is too thin to
//! tell, it says little instead of no.

use super::compare::{Look, Prepared};
use super::history::Frame;
use super::proportion;
use crate::domain::{ServiceSettings, Signal};

/// Beyond doubt more than so many times what clients lost is missing at a zone that got less traffic, not at one that loses
/// it.
const AGREEMENT: f64 = 2.0;
/// What names the zone weighs so much, as it is asked only where calls are lost beyond doubt: that this happens for another
/// reason is rare by itself.
const NAMING: f64 = 1.5;
/// Standard errors that leave no doubt of that (5 %, one-sided).
const BEYOND_DOUBT: f64 = 1.64;
/// No more than this share of the losses may be one zone's clients': then it is about these clients.
const ONE_ZONES_CLIENTS: f64 = 0.8;
/// A zone whose clients lose less than this share of what all lose, with evidence of so much, is spared: then it is about
/// links, not servers.
const SPARED_SHARE: f64 = 0.25;
const SPARED_NATS: f64 = 3.0;

/// By zone, what its servers should answer, judged by what the others answer and by their usual shares.
pub(super) fn expected_served(served: &[f64], usual: &[f64]) -> Vec<f64> {
    let (all, all_usual): (f64, f64) = (served.iter().sum(), usual.iter().sum());
    let of_zone = |(now, known): (&f64, &f64)| {
        let others = all_usual - known;
        if others > 0.0 { (all - now) * known / others } else { 0.0 }
    };
    served.iter().zip(usual).map(of_zone).collect()
}

/// Each zone's servers: what is lost on the way to them.
pub(super) fn compare(
    sum: &Frame,
    usual: &Frame,
    prepared: &Prepared,
    smoothing: f64,
    settings: &ServiceSettings,
) -> Vec<Look> {
    let total = |column: &[f64]| column.iter().sum::<f64>();
    let rate = |failed: &[f64], all: &[f64]| (total(failed) + 1.0) / (total(all) + 500.0);
    let (calls, served) = (total(&sum.called), total(&sum.served));
    let known = total(&usual.called_failed) + 1.0;
    let usual_loss = rate(&usual.called_failed, &usual.called);
    // Not every call has a client in the mesh, nor every client's call a server in it.
    let seen_by_servers = total(&usual.served) / total(&usual.called).max(1.0);
    let by_servers = (total(&sum.served_failed) - served * rate(&usual.served_failed, &usual.served)).max(0.0)
        / seen_by_servers.max(1e-3);
    let unexplained = total(&sum.called_failed) - by_servers;
    let lost = unexplained - calls * usual_loss;
    let variance = prepared.noise(Signal::ClientErrors) * smoothing + 1.0 / known;
    let clients_nats =
        if lost > 0.0 { proportion::deviance(unexplained, calls * usual_loss, variance).max(0.0) } else { 0.0 };
    let by_client = |zone: usize| (sum.called_failed[zone] - sum.called[zone] * usual_loss).max(0.0);
    let losses: Vec<f64> = (0..sum.called.len()).map(by_client).collect();
    let spared = |zone: usize| {
        let little = sum.called[zone] * (usual_loss + SPARED_SHARE * lost / calls.max(1.0));
        let failed = sum.called_failed[zone];
        failed < little && proportion::deviance(failed, little, variance) >= SPARED_NATS
    };
    let of_one_zone = losses.iter().copied().fold(0.0, f64::max) > ONE_ZONES_CLIENTS * total(&losses);
    let everywhere = !of_one_zone && !(0..sum.called.len()).any(spared);

    let expected = expected_served(&sum.served, &usual.served);
    let missing: Vec<f64> = expected.iter().zip(&sum.served).map(|(e, s)| e - s).collect();
    let lost_there = lost * seen_by_servers;
    let variance_of = |zone: usize| {
        let due = expected[zone];
        let sampling = due * (1.0 + due / (served - sum.served[zone]).max(1.0));
        (sampling + prepared.noise(Signal::LostCalls) * smoothing * due * due).max(1.0)
    };
    // Of "these servers miss what was lost" against "nobody's do".
    let ratios: Vec<f64> = (0..missing.len())
        .map(|zone| lost_there * (2.0 * missing[zone] - lost_there) / (2.0 * variance_of(zone)))
        .collect();
    (0..sum.served.len())
        .map(|zone| {
            let (due, gone, deviation) = (expected[zone], missing[zone], variance_of(zone).sqrt());
            let live = calls >= f64::from(settings.min_requests) && due >= f64::from(settings.min_requests);
            let others = (0..ratios.len()).filter(|other| *other != zone);
            let alone = ratios[zone] - others.map(|other| ratios[other]).fold(0.0, f64::max);
            let less_traffic = gone - AGREEMENT * lost_there > BEYOND_DOUBT * deviation;
            let nats =
                if live && everywhere && lost > 0.0 && !less_traffic { clients_nats.min(NAMING * alone) } else { 0.0 };
            let effect = (lost_there / due.max(1.0)).clamp(0.0, 1.0);
            let large = nats > 0.0
                && lost >= f64::from(settings.min_failures)
                && lost / calls.max(1.0) >= settings.min_error_excess.as_fraction()
                && unexplained >= settings.min_error_ratio.times() * calls * usual_loss;
            Look {
                z: (2.0 * nats.abs()).sqrt().copysign(nats),
                effect,
                large,
                live,
                weight: due,
                own: if large { effect } else { 0.0 },
                own_nats: if large { nats } else { 0.0 },
                seen: effect,
                expected: 0.0,
                error: effect / (gone / deviation).max(1.0),
                peers: calls,
                peers_seen: unexplained / calls.max(1.0),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::super::past::Past;
    use super::super::settings::{Scale, Settings};
    use super::*;
    use crate::domain::{CycleLength, Factor, Period, Ratio};

    /// Of three zones that are alike, with so many calls each: what is lost of each zone's clients, and missing at each.
    fn looks(calls: f64, lost: [f64; 3], missing: [f64; 3]) -> Vec<Look> {
        let settings = ServiceSettings::default();
        let frame = |n: f64, lost: [f64; 3], missing: [f64; 3]| Frame {
            served: missing.map(|share| n * (1.0 - share)).to_vec(),
            called: vec![n; 3],
            called_failed: lost.map(|share| n * share).to_vec(),
            ..Frame::empty(3, 2)
        };
        let mut past = Past::default();
        (0..3).for_each(|at| past.insert_zone(at, 2));
        past.recent = frame(100_000.0, [0.001; 3], [0.001; 3]);
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let prepared = Prepared::new(&past, &Noise::default(), &[1.0, f64::INFINITY], &settings, &scale);
        compare(&frame(calls, lost, missing), &past.recent, &prepared, 0.3, &settings)
    }

    #[test]
    fn the_zone_that_misses_what_all_lose_is_named_and_only_where_traffic_can_tell() {
        let (lost, missing) = ([0.15; 3], [0.0, 0.45, 0.0]);
        let busy = looks(2000.0, lost, missing);
        assert!(busy[1].nats() > 20.0 && busy[0].nats() <= 0.0 && busy[2].nats() <= 0.0, "{busy:?}");
        let thin = looks(40.0, lost, [0.1, 0.3, 0.05]);
        assert!(thin[1].z > 0.0 && thin[1].nats() < 6.0, "it is neither proved nor refuted: {:?}", thin[1]);
    }

    #[test]
    fn no_zone_is_named_where_none_misses_it_or_some_clients_are_spared() {
        let everywhere = looks(2000.0, [0.15; 3], [0.15; 3]);
        assert!(everywhere.iter().all(|look| look.z < 0.0), "every zone misses as much: {everywhere:?}");
        let link = looks(2000.0, [0.11, 0.11, 0.001], [0.05, 0.17, 0.0]);
        assert!(link.iter().all(|look| look.nats() <= 0.0), "the link between two zones: {link:?}");
        let drained = looks(2000.0, [0.02; 3], [0.0, 0.9, 0.0]);
        assert!(drained.iter().all(|look| look.nats() <= 0.0), "it gets less traffic: {drained:?}");
    }

    #[test]
    fn a_zones_share_is_measured_by_what_the_others_answer() {
        let due = expected_served(&[100.0, 50.0, 100.0], &[1000.0, 1000.0, 1000.0]);
        assert_eq!(due, [75.0, 100.0, 75.0], "the second zone's servers miss half of theirs");
    }

    #[test]
    fn a_zone_is_due_nothing_where_the_others_had_nothing() {
        assert_eq!(expected_served(&[5.0, 5.0], &[100.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn the_weaker_of_what_clients_lost_and_what_servers_miss_counts() {
        let look = looks(2000.0, [0.15; 3], [0.0, 0.45, 0.0])[1];
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-6, "{value}, and not {expected}");
        // In health 300 of 300,000 calls are lost, and servers see the rest.
        let (usual_loss, seen) = (301.0 / 300_500.0, 0.999);
        let lost_there = (900.0 - 6000.0 * usual_loss) * seen;
        // Due are 2000, as the others answer, of which 900 are missing; by chance of so much variance.
        let variance = 2000.0 * (1.0 + 2000.0 / 4000.0) + 0.01 * 0.3 * 2000.0 * 2000.0;
        let ratio = lost_there * (2.0 * 900.0 - lost_there) / (2.0 * variance);
        for (value, expected) in [
            (look.z, (2.0 * NAMING * ratio).sqrt()),
            (look.effect, lost_there / 2000.0),
            (look.weight, 2000.0),
            (look.own, lost_there / 2000.0),
            (look.own_nats, NAMING * ratio),
            (look.error, lost_there / 2000.0 / (900.0 / variance.sqrt())),
            (look.peers, 6000.0),
            (look.peers_seen, 0.15),
        ] {
            near(value, expected);
        }
        assert!(look.large && look.live);
    }

    /// What servers and clients saw, zone by zone.
    fn seen(served: [f64; 3], served_failed: f64, called: [f64; 3], called_failed: [f64; 3]) -> Frame {
        Frame {
            served: served.to_vec(),
            served_failed: vec![served_failed; 3],
            called: called.to_vec(),
            called_failed: called_failed.to_vec(),
            ..Frame::empty(3, 2)
        }
    }

    fn compared(usual: Frame, sum: &Frame, smoothing: f64, settings: &ServiceSettings) -> Vec<Look> {
        let mut past = Past::default();
        (0..3).for_each(|at| past.insert_zone(at, 2));
        past.recent = usual;
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let prepared = Prepared::new(&past, &Noise::default(), &[1.0, f64::INFINITY], settings, &scale);
        compare(sum, &past.recent, &prepared, smoothing, settings)
    }

    #[test]
    fn clients_lose_what_servers_do_not_account_for_and_what_is_usual() {
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-6, "{value}, and not {expected}");
        // Servers see half as many requests again as there are calls; ten of 800 calls are lost, and ten of 950 requests fail.
        let usual = seen([150.0; 3], 3.0, [100.0; 3], [3.0; 3]);
        let sum = seen([3000.0, 2500.0, 3000.0], 40.0, [2000.0; 3], [100.0; 3]);
        let look = compared(usual, &sum, 0.001, &ServiceSettings::default())[1];
        let by_servers = (120.0 - 8500.0 * 10.0 / 950.0) / 1.5;
        let unexplained = 300.0 - by_servers;
        let nats = proportion::deviance(unexplained, 6000.0 * 10.0 / 800.0, 0.5 * 0.001 + 1.0 / 10.0);
        near(look.nats(), nats);
        near(look.peers_seen, unexplained / 6000.0);
        near(look.effect, (unexplained - 75.0) * 1.5 / 3000.0);
    }

    #[test]
    fn what_clients_of_one_zone_alone_lose_is_about_these_clients() {
        let (usual, settings) = (seen([174.0; 3], 0.0, [174.0, 175.0, 175.0], [3.0; 3]), ServiceSettings::default());
        // Of 1024 calls ten are lost in health.
        let named = |called_failed: [f64; 3]| {
            let sum = seen([1024.0, 4.0, 1024.0], 0.0, [1024.0; 3], called_failed);
            compared(usual.clone(), &sum, 0.3, &settings)[1].nats() > 0.0
        };
        assert!(named([810.0, 110.0, 110.0]), "four fifths of what is lost beyond that are not yet one zone's");
        assert!(!named([830.0, 110.0, 110.0]));
    }

    #[test]
    fn it_is_about_links_where_clients_of_a_zone_are_spared() {
        let (usual, settings) = (seen([3000.0; 3], 0.0, [3000.0; 3], [33.0; 3]), ServiceSettings::default());
        let named = |called_failed: [f64; 3]| {
            let sum = seen([4000.0, 3000.0, 4000.0], 0.0, [4000.0; 3], called_failed);
            compared(usual.clone(), &sum, 0.001, &settings)[1].nats() > 0.0
        };
        assert!(named([440.0, 440.0, 180.0]), "two fifths of what others lose");
        assert!(!named([440.0, 440.0, 40.0]));
    }

    #[test]
    fn of_two_zones_that_miss_as_much_neither_is_named() {
        let looks = looks(2000.0, [0.1; 3], [0.0, 0.3, 0.3]);
        assert!(looks.iter().all(|look| look.nats() <= 0.0), "{looks:?}");
    }

    #[test]
    fn a_zone_that_misses_more_than_twice_what_is_lost_beyond_chance_gets_less_traffic() {
        // Lost are 294 of 6000 calls, and by chance 2000 requests that are due vary by 122.
        let named = |deviations: f64| {
            let missing =
                (2.0 * 0.999 * (300.0 - 6000.0 * 301.0 / 300_500.0) + deviations * 15_000.0_f64.sqrt()) / 2000.0;
            looks(2000.0, [0.05; 3], [0.0, missing, 0.0])[1].nats() > 0.0
        };
        assert!(named(1.5) && !named(1.8));
    }

    #[test]
    fn what_is_lost_matters_that_is_large_enough_in_each_respect() {
        let usual = seen([99_900.0; 3], 0.0, [100_000.0; 3], [100.0; 3]);
        let sum = seen([2000.0, 1100.0, 2000.0], 0.0, [2000.0; 3], [300.0; 3]);
        // Of 6000 calls 900 are lost, 894 more than usual, which are six.
        let look = |settings: ServiceSettings| compared(usual.clone(), &sum, 0.3, &settings)[1];
        let (with, percent) = (ServiceSettings::default, Ratio::from_percent);
        for (large, matters) in [
            (look(ServiceSettings { min_failures: 893, ..with() }), true),
            (look(ServiceSettings { min_failures: 894, ..with() }), false),
            (look(ServiceSettings { min_error_excess: percent(14.8), ..with() }), true),
            (look(ServiceSettings { min_error_excess: percent(15.0), ..with() }), false),
            (look(ServiceSettings { min_error_ratio: Factor::new(149.0), ..with() }), true),
            (look(ServiceSettings { min_error_ratio: Factor::new(150.0), ..with() }), false),
        ] {
            assert!(large.live);
            assert_eq!((large.large, large.own > 0.0, large.own_nats > 0.0), (matters, matters, matters), "{large:?}");
        }
        let few = look(ServiceSettings { min_requests: 2001, ..with() });
        assert!(!few.live && !few.large && few.own_nats <= 0.0, "2000 are due: {few:?}");
        assert!(look(ServiceSettings { min_requests: 2000, ..with() }).live);
    }
}
