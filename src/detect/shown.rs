//! What of the history is shown to people: how each service's zones compare, and evidence cycle by cycle.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::history::History;
use super::persist::Watches;
use super::track::Track;
use crate::domain::overview::{Compared, Series, ServiceState, Standing};
use crate::domain::{Evidence, Signal, Zone};

/// What traffic is averaged over.
const NEWEST_S: i64 = 60;

impl History {
    /// How each service stands in each zone, as of the newest cycle of which something was known: what stands out comes
    /// first.
    pub fn standings(&self) -> Vec<ServiceState> {
        let of = |(service, track): (&_, &Track)| {
            let zones = self.zones.iter().enumerate().map(|(at, zone)| (zone.clone(), self.standing(track, at)));
            ServiceState { service: Clone::clone(service), zones: zones.collect() }
        };
        let mut services: Vec<ServiceState> = self.tracks.iter().map(of).collect();
        // Nats in hundredths, as what is sorted by must have an order.
        let strongest = |it: &ServiceState| it.zones.values().map(|zone| (100.0 * zone.nats) as u64).max();
        services.sort_by_cached_key(|it| (Reverse(it.worst()), Reverse(strongest(it)), it.service.clone()));
        services
    }

    fn standing(&self, track: &Track, at: usize) -> Standing {
        let cycle_s = self.scale.cycle.seconds();
        let newest = (NEWEST_S / cycle_s).max(1) as usize;
        let cycles = track.recent.len().min(newest) as u32;
        let (served, failed) = track.recent.served(at, newest);
        let readings = Signal::ALL.map(|signal| (signal, track.watches.get(signal, at).reading));
        let suspicious = readings.iter().filter(|(_, reading)| reading.suspicious);
        let strongest = suspicious.max_by(|a, b| a.1.nats.total_cmp(&b.1.nats));
        let compared = match strongest {
            _ if track.traffic(at) <= (0.0, 0.0) => Compared::NoTraffic,
            Some(_) if readings.iter().any(|(_, reading)| reading.tripping) => Compared::Worse,
            Some(_) => Compared::Suspicious,
            None if track.watches.compared(at) => Compared::Alike,
            None => Compared::Unknown,
        };
        Standing {
            compared,
            requests_per_second: served / (f64::from(cycles.max(1)) * cycle_s as f64),
            failed: (served > 0.0).then(|| failed / served),
            signal: strongest.map(|(signal, _)| *signal),
            nats: strongest.map_or(0.0, |(_, reading)| reading.nats),
            seen: strongest.map_or(0.0, |(_, reading)| reading.best.seen),
            expected: strongest.map_or(0.0, |(_, reading)| reading.best.expected),
        }
    }

    /// One piece of a zone's evidence over the newest cycles, in every zone.
    pub fn series(&self, zone: &Zone, evidence: &Evidence) -> Series {
        let track = evidence.service.as_ref().and_then(|service| self.tracks.get(service));
        let watches = track.map_or(&self.pooled, |track| &track.watches);
        let seen = (0..self.times.len()).rev();
        let excess = seen.map(|back| (self.times[back], self.excess(watches, track, evidence.signal, back)));
        Series { zone: zone.clone(), evidence: evidence.clone(), excess: excess.collect() }
    }

    /// The excess in each zone that had traffic, in one of the cycles of which something was known.
    fn excess(&self, watches: &Watches, track: Option<&Track>, signal: Signal, back: usize) -> BTreeMap<Zone, f64> {
        let cycles_back = self.seen().map_or(0, |seen| self.cycles_between(self.times[back], seen));
        let busy = |track: &Track, at: usize| track.recent.traffic(at, back) > (0.0, 0.0);
        let busy = |at: usize| match track {
            Some(track) => busy(track, at),
            None => self.tracks.values().any(|track| busy(track, at)),
        };
        let zones = self.zones.iter().enumerate().take(watches.zones()).filter(|(at, _)| busy(*at));
        zones.filter_map(|(at, zone)| Some((zone.clone(), watches.get(signal, at).effect(cycles_back)?))).collect()
    }

    fn cycles_between(&self, from: Timestamp, to: Timestamp) -> usize {
        usize::try_from(to.duration_since(from).as_secs() / self.scale.cycle.seconds()).unwrap_or_default()
    }
}
