//! Did it get worse everywhere at once? Then no zone stands out from its peers, and each zone's own past alone tells.
//!
//! It accuses nobody. It is said, as "healthy" would be wrong, and as moving traffic would not help.

use super::compare::Look;
use super::history::History;
use super::persist::Watches;
use super::settings::least_excess;
use super::track::Track;
use crate::domain::{ServiceId, ServiceSettings, Signal};

/// Zones with this share of the requests must have left their past.
const NEARLY_ALL: f64 = 0.8;

/// What got worse in a zone as it did in nearly all others, where no zone stands out.
pub(super) fn worse_together(history: &History, zone: usize) -> Option<(&ServiceId, &Track, Signal, Look)> {
    let services = history.tracks.iter();
    let alike =
        services.flat_map(|(id, track)| looks(track, zone).map(move |(signal, look)| (id, track, signal, look)));
    let strongest = alike.max_by(|a, b| a.3.own_nats.total_cmp(&b.3.own_nats))?;
    (!somebody_stands_out(history)).then_some(strongest)
}

/// Whether any service got worse in the zone as it did in nearly all.
pub(super) fn is_worse_together(track: &Track, zone: usize) -> bool {
    looks(track, zone).next().is_some()
}

fn looks(track: &Track, zone: usize) -> impl Iterator<Item = (Signal, Look)> {
    let latest = move |signal, at| track.watches.get(signal, at).reading.latest;
    let here = Signal::ALL.into_iter().map(move |signal| (signal, latest(signal, zone)));
    let beyond_doubt = here.filter(|(signal, look)| left_its_past(*signal, look, track.trip(), &track.settings));
    beyond_doubt.filter(move |(signal, _)| {
        let all = (0..track.watches.zones()).map(|at| latest(*signal, at)).filter(|look| look.live);
        let (mut zones, mut worse, mut requests) = (0, 0.0, 0.0);
        for look in all {
            requests += look.weight;
            if left_its_past(*signal, &look, track.settings.suspect.get(), &track.settings) {
                zones += 1;
                worse += look.weight;
            }
        }
        zones >= 2 && worse >= NEARLY_ALL * requests
    })
}

/// With so much evidence, and by an effect that matters.
fn left_its_past(signal: Signal, look: &Look, nats: f64, settings: &ServiceSettings) -> bool {
    let usual = look.seen - look.own;
    let multiplied = match signal {
        Signal::ServerErrors | Signal::ClientErrors => look.seen >= settings.min_error_ratio.times() * usual,
        Signal::SlowRequests | Signal::VerySlowRequests => look.seen >= settings.min_slow_ratio.times() * usual,
        Signal::LostCalls | Signal::Latency => true,
    };
    look.live && multiplied && look.own_nats >= nats && look.own >= least_excess(signal, settings)
}

/// Whether a zone is worse than its peers in anything, and no other is about as bad.
fn somebody_stands_out(history: &History) -> bool {
    let stands_out = |watches: &Watches| {
        (0..watches.zones()).any(|zone| {
            Signal::ALL
                .into_iter()
                .any(|signal| watches.get(signal, zone).reading.suspicious && !watches.has_rival(signal, zone))
        })
    };
    let services = history.tracks.values().map(|track| &track.watches);
    services.chain([&history.pooled]).any(stands_out)
}

#[cfg(test)]
mod tests {
    use super::super::compare::SIGNALS;
    use super::super::corroborate::Rival;
    use super::super::staged::{self, Said};
    use super::*;

    /// On evidence of 6 nats against 6 that are asked for.
    fn left(signal: Signal, seen: f64, own: f64) -> bool {
        let look = Look { live: true, seen, own, own_nats: 6.0, ..Look::default() };
        let left = |look: &Look| left_its_past(signal, look, 6.0, &ServiceSettings::default());
        assert!(!left(&Look { own_nats: 5.9, ..look }), "too little evidence");
        assert!(!left(&Look { live: false, ..look }), "too little to compare");
        left(&look)
    }

    #[test]
    fn what_left_its_past_is_many_times_what_it_was_and_enough_more_to_matter() {
        for signal in [Signal::ServerErrors, Signal::ClientErrors] {
            assert!(left(signal, 0.02, 0.01), "twice as many failures");
            assert!(!left(signal, 0.0199, 0.0099), "not quite");
            assert!(!left(signal, 0.003, 0.0029), "a multiple of next to nothing");
        }
        for signal in [Signal::SlowRequests, Signal::VerySlowRequests] {
            assert!(left(signal, 0.03, 0.0101), "half as many again");
            assert!(!left(signal, 0.0311, 0.0101), "not quite");
            assert!(!left(signal, 0.02, 0.0099), "a multiple of little");
        }
        assert!(left(Signal::Latency, 1.2, 0.2) && !left(Signal::Latency, 1.1, 0.1));
        assert!(
            left(Signal::LostCalls, 1.0, 0.003),
            "of lost calls there are none in health, so no multiple is asked for"
        );
    }

    /// Of three zones with so many requests, those fail that are to.
    fn worse(weights: [f64; 3], fail: [bool; 3]) -> [bool; 3] {
        let mut history = staged::history(3, &["cart"]);
        let look = |zone: usize| {
            let look = if fail[zone] { staged::bad_as_all() } else { staged::alike() };
            Look { weight: weights[zone], live: weights[zone] > 0.0, ..look }
        };
        staged::say(&mut history, 1, &[0, 1, 2].map(|zone| ("cart", zone, Signal::ServerErrors, look(zone))));
        [0, 1, 2].map(|zone| is_worse_together(&history.tracks[&staged::service("cart")], zone))
    }

    #[test]
    fn zones_with_four_fifths_of_the_requests_are_nearly_all() {
        assert_eq!(worse([400.0, 400.0, 200.0], [true, true, false]), [true, true, false]);
        assert_eq!(worse([399.0, 399.0, 202.0], [true, true, false]), [false; 3]);
        assert_eq!(worse([900.0, 50.0, 50.0], [true, false, false]), [false; 3], "one is not together");
        assert_eq!(
            worse([400.0, 400.0, 0.0], [true, true, false]),
            [true, true, false],
            "without requests it does not count"
        );
    }

    #[test]
    fn what_left_its_past_the_most_is_told_unless_a_zone_stands_out_without_a_rival() {
        let told = |also: &[Said<'_>], rivals: bool| {
            let mut history = staged::history(2, &["cart", "search"]);
            let all = |name, own_nats| {
                [0, 1].map(|zone| (name, zone, Signal::ServerErrors, Look { own_nats, ..staged::bad_as_all() }))
            };
            staged::say(&mut history, 1, &[&all("cart", 20.0), &all("search", 30.0), also].concat());
            if rivals {
                let rivals = [(); SIGNALS].map(|()| vec![Rival { excess: 0.1, nats: 20.0 }; 2]);
                let track = history.tracks.get_mut(&staged::service("cart")).unwrap();
                track.watches.note_rivals(&[rivals.clone(), rivals], &ServiceSettings::default());
            }
            worse_together(&history, 0).map(|(id, _, signal, look)| (id.name.clone(), signal, look.own_nats))
        };
        let search = Some(("search".to_owned(), Signal::ServerErrors, 30.0));
        assert_eq!(told(&[], false), search);
        let stands_out = ("cart", 1, Signal::Latency, staged::bad());
        assert_eq!(told(&[stands_out], false), None);
        assert_eq!(told(&[stands_out], true), search, "another zone is as bad");
        assert_eq!(told(&[("", 1, Signal::Latency, staged::bad())], false), None, "by all its services together");
    }
}
