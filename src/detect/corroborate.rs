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
}
