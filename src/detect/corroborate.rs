//! What else could explain it: other zones just as bad, servers elsewhere, a broken link.

use super::history::History;
use super::persist::Watch;
use super::track::Track;
use crate::domain::{ServiceId, ServiceSettings, Signal};

/// Another zone with this share of the excess makes a fault regional.
const RIVAL_SHARE: f64 = 0.5;
/// Excesses below this are no measure of a rival.
const RIVAL_FLOOR: f64 = 0.002;
/// In its first cycle a rival shows as little as this, with evidence of at least so much.
const BEGINNING_SHARE: f64 = 0.2;
const BEGINNING_NATS: f64 = 2.0;
/// Cycles for which a rival in doubt, and one beyond doubt, is remembered: regional faults reach zones one by one.
const DOUBTFUL_RIVAL: u32 = 3;
const SURE_RIVAL: u32 = 20;
/// Pods are compared over at least so many cycles.
pub(super) const POD_CYCLES: usize = 8;

/// How far a zone has left its own past.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    pub excess: f64,
    pub nats: f64,
}

/// For how many cycles to remember that another zone is about as bad as this one.
pub(super) fn rival_memory(zones: &[Rival], zone: usize, settings: &ServiceSettings) -> u32 {
    let threshold = RIVAL_SHARE * zones[zone].excess.max(RIVAL_FLOOR);
    let rivals = || zones.iter().enumerate().filter(|(z, rival)| *z != zone && rival.excess >= threshold);
    if rivals().any(|(_, rival)| rival.nats >= settings.suspect.get()) {
        SURE_RIVAL
    } else if rivals().next().is_some() {
        DOUBTFUL_RIVAL
    } else {
        0
    }
}

/// Whether in the newest cycle another zone has begun to get worse: its proxies are not all scraped at once, so the first
/// cycle shows a part of it.
pub(super) fn rival_begins(zones: &[Rival], zone: usize) -> bool {
    let threshold = BEGINNING_SHARE * zones[zone].excess.max(RIVAL_FLOOR);
    zones.iter().enumerate().any(|(z, rival)| z != zone && rival.excess >= threshold && rival.nats >= BEGINNING_NATS)
}

/// The other zone whose clients fail just as much, where only two zones' do: the link between them may be broken.
pub(super) fn other_end(history: &History, service: &Track, zone: usize) -> Option<usize> {
    let worse = |at: usize| {
        let latest = service.watches.get(Signal::ClientErrors, at).reading.latest;
        if latest.own_nats > 1.0 { latest.own } else { 0.0 }
    };
    let alike: Vec<usize> = (0..history.zones.len()).filter(|at| worse(*at) >= RIVAL_SHARE * worse(zone)).collect();
    match alike.as_slice() {
        [one, other] if worse(zone) > 0.0 && (*one == zone || *other == zone) => {
            Some(if *one == zone { *other } else { *one })
        }
        _ => None,
    }
}

/// Whether in any zone the service's servers fail more than they used to, or are not reached.
pub(super) fn servers_say_why(history: &History, service: &Track) -> bool {
    (0..history.zones.len()).any(|at| {
        let servers = service.watches.get(Signal::ServerErrors, at).reading.latest;
        servers.own_nats >= service.settings.suspect.get()
            || service.watches.get(Signal::LostCalls, at).reading.suspicious
    })
}

/// Why a zone's clients alone are no reason to isolate it, if so.
///
/// Bad servers make clients suffer in every zone: only what no server reports counts, and only at several
/// destinations, where there are several.
pub(super) fn clients_of_bad_servers(history: &History, service: Option<&Track>, zone: usize) -> Option<String> {
    let zones = 0..history.zones.len();
    if let Some(track) = service {
        let server = zones.clone().find(|z| track.watches.get(Signal::ServerErrors, *z).reading.suspicious);
        if let Some(at) = server {
            return Some(format!("its clients fail because of servers in {}", history.zones[at]));
        }
        let lost = zones.clone().find(|z| *z != zone && track.watches.get(Signal::LostCalls, *z).reading.suspicious);
        if let Some(at) = lost {
            return Some(format!(
                "its clients fail because their calls don't reach the servers in {}",
                history.zones[at]
            ));
        }
    }
    let readings = || history.tracks.values().map(|track| track.watches.get(Signal::ClientErrors, zone).reading);
    let live = readings().filter(|r| r.latest.live).count();
    let suspicious = readings().filter(|r| r.suspicious).count();
    (live >= 2 && suspicious < 2).then(|| "only its clients of one service fail".to_owned())
}

/// The services that must be seen pod by pod before this key may count: the service, or all suspicious ones.
pub(super) fn suspects<'a>(
    history: &'a History,
    service: Option<&'a ServiceId>,
    (zone, signal): (usize, Signal),
) -> Vec<(&'a ServiceId, &'a Track)> {
    history
        .tracks
        .iter()
        .filter(|(id, _)| service.is_none_or(|wanted| wanted == *id))
        .filter(|(_, track)| track.watches.get(signal, zone).reading.suspicious)
        .collect()
}

/// The cycles over which pods are to be compared.
pub(super) fn pod_cycles(watch: &Watch) -> usize {
    watch.reading.span.max(POD_CYCLES)
}

#[cfg(test)]
mod tests {
    use super::super::compare::Look;
    use super::super::staged::{self, Said};
    use super::*;

    const fn rival(excess: f64, nats: f64) -> Rival {
        Rival { excess, nats }
    }

    #[test]
    fn a_zone_with_half_the_excess_is_a_rival_and_remembered_for_longer_if_that_is_beyond_doubt() {
        let memory = |other: Rival| rival_memory(&[rival(0.1, 20.0), other], 0, &ServiceSettings::default());
        assert_eq!(memory(rival(0.05, 6.0)), SURE_RIVAL);
        assert_eq!(memory(rival(0.05, 5.9)), DOUBTFUL_RIVAL);
        assert_eq!(memory(rival(0.049, 20.0)), 0, "and the zone is none to itself");
        let of_none = |excess| rival_memory(&[rival(0.0, 0.0), rival(excess, 0.0)], 0, &ServiceSettings::default());
        assert_eq!((of_none(0.001), of_none(0.0009)), (DOUBTFUL_RIVAL, 0), "next to nothing is no measure");
    }

    #[test]
    fn a_rival_begins_with_a_fifth_of_the_excess_and_a_little_evidence() {
        let begins = |other: Rival| rival_begins(&[rival(0.5, 20.0), other], 0);
        assert!(begins(rival(0.1, 2.0)));
        assert!(!begins(rival(0.099, 20.0)), "and the zone is none to itself");
        assert!(!begins(rival(0.1, 1.9)));
    }

    /// Of three zones whose clients of a service fail as looks say: the other end of each one's link.
    fn other_ends(looks: &[Look; 3]) -> [Option<usize>; 3] {
        let said = [0, 1, 2].map(|zone| ("cart", zone, Signal::ClientErrors, looks[zone]));
        let mut history = staged::history(3, &["cart"]);
        staged::say(&mut history, 1, &said);
        let track = &history.tracks[&staged::service("cart")];
        [0, 1, 2].map(|zone| other_end(&history, track, zone))
    }

    #[test]
    fn where_clients_in_two_zones_alone_fail_alike_each_is_the_others_other_end() {
        let (bad, alike) = (staged::bad_as_all(), staged::alike());
        assert_eq!(other_ends(&[bad, alike, bad]), [Some(2), None, Some(0)]);
        let half = Look { own: 0.05, ..bad };
        assert_eq!(other_ends(&[bad, half, alike]), [Some(1), Some(0), None], "about as bad is half as bad");
        let less = Look { own: 0.049, ..bad };
        assert_eq!(other_ends(&[bad, less, alike]), [None, Some(0), None]);
        assert_eq!(other_ends(&[bad, alike, Look { own_nats: 1.0, ..bad }]), [None; 3], "by chance, that is none");
        assert_eq!(other_ends(&[bad, bad, bad]), [None; 3]);
    }

    #[test]
    fn where_nobody_fails_there_is_no_other_end() {
        let history = staged::history(2, &["cart"]);
        let track = &history.tracks[&staged::service("cart")];
        assert_eq!([0, 1].map(|zone| other_end(&history, track, zone)), [None; 2]);
    }

    #[test]
    fn servers_say_why_by_their_failures_or_by_calls_that_do_not_reach_them() {
        let say_why = |said: &[Said<'_>]| {
            let mut history = staged::history(2, &["cart", "search"]);
            staged::say(&mut history, 1, said);
            servers_say_why(&history, &history.tracks[&staged::service("cart")])
        };
        let failing = |own_nats| Look { own_nats, ..staged::bad_as_all() };
        assert!(say_why(&[("cart", 1, Signal::ServerErrors, failing(6.0))]));
        assert!(say_why(&[("cart", 1, Signal::LostCalls, staged::bad())]));
        assert!(!say_why(&[("cart", 1, Signal::ServerErrors, failing(5.9))]));
        assert!(!say_why(&[
            ("search", 1, Signal::ServerErrors, failing(18.0)),
            ("cart", 1, Signal::ClientErrors, failing(18.0))
        ]));
    }

    #[test]
    fn clients_that_suffer_from_servers_or_of_one_service_alone_are_no_reason() {
        let why = |service: Option<&str>, said: &[(&str, usize, Signal)]| {
            let mut history = staged::history(2, &["cart", "search"]);
            let said: Vec<Said<'_>> =
                said.iter().map(|(name, zone, signal)| (*name, *zone, *signal, staged::bad())).collect();
            staged::say(&mut history, 1, &said);
            let track = service.map(|name| &history.tracks[&staged::service(name)]);
            clients_of_bad_servers(&history, track, 1).unwrap_or_default()
        };
        let (clients, servers, lost) = (Signal::ClientErrors, Signal::ServerErrors, Signal::LostCalls);
        let both = [("cart", 1, clients), ("search", 1, clients)];
        assert_eq!(why(Some("cart"), &both), "", "of two services, and no server says why");
        assert_eq!(why(None, &both), "");
        assert_eq!(why(Some("cart"), &both[..1]), "only its clients of one service fail");
        assert_eq!(why(None, &both[..1]), "only its clients of one service fail");
        let with = |more| [both[0], both[1], more];
        for zone in [0, 1] {
            let said = with(("cart", zone, servers));
            assert_eq!(why(Some("cart"), &said), format!("its clients fail because of servers in zone-{zone}"));
            assert_eq!(why(Some("search"), &said), "", "of another service");
        }
        let elsewhere = "its clients fail because their calls don't reach the servers in zone-0";
        assert_eq!(why(Some("cart"), &with(("cart", 0, lost))), elsewhere);
        assert_eq!(why(Some("cart"), &with(("cart", 1, lost))), "", "its own servers are the zone's fault");
    }

    #[test]
    fn clients_of_the_only_service_there_is_are_reason_enough() {
        let mut history = staged::history(2, &["cart", "search"]);
        let few = Look { live: false, ..staged::alike() };
        let said = [("cart", 1, Signal::ClientErrors, staged::bad()), ("search", 1, Signal::ClientErrors, few)];
        staged::say(&mut history, 1, &said);
        assert_eq!(clients_of_bad_servers(&history, None, 1), None);
    }

    #[test]
    fn the_service_is_seen_pod_by_pod_or_of_all_pooled_those_that_are_suspicious() {
        let mut history = staged::history(2, &["cart", "pay", "search"]);
        let said = ["cart", "search"].map(|name| (name, 1, Signal::Latency, staged::bad()));
        staged::say(&mut history, 1, &said);
        let names = |service: Option<&str>, zone| -> Vec<String> {
            let service = service.map(staged::service);
            let found = suspects(&history, service.as_ref(), (zone, Signal::Latency));
            found.iter().map(|(id, _)| id.name.clone()).collect()
        };
        assert_eq!(names(None, 1), ["cart", "search"]);
        assert_eq!(names(Some("search"), 1), ["search"]);
        assert!(names(Some("pay"), 1).is_empty() && names(None, 0).is_empty());
    }

    #[test]
    fn pods_are_compared_over_the_window_that_tripped_and_at_least_eight_cycles() {
        let cycles = |span| {
            let mut watch = Watch::default();
            watch.reading.span = span;
            pod_cycles(&watch)
        };
        assert_eq!([2, 8, 20].map(cycles), [8, 8, 20]);
    }
}
