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

#[cfg(test)]
mod tests {
    use super::super::compare::Look;
    use super::super::settings::Settings;
    use super::super::staged::{self, Said, calls, cell};
    use super::*;
    use crate::domain::Nats;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value}, and not {expected}");
    }

    fn names(states: &[ServiceState]) -> Vec<&str> {
        states.iter().map(|state| state.service.name.as_str()).collect()
    }

    #[test]
    fn how_a_service_stands_is_told_zone_by_zone() {
        let mut history = staged::empty();
        let with = cell(calls(100.0, 0.0), calls(0.0, 0.0));
        let cells: Vec<_> = [0, 1, 2].map(|zone| ("cart", zone, with.clone())).to_vec();
        let silent = ("cart", 3, cell(calls(0.0, 0.0), calls(0.0, 0.0)));
        history.push(&staged::snapshot(0, &[cells, vec![silent]].concat()), &Settings::default());
        let compared = |history: &History| {
            let state = history.standings().remove(0);
            [0, 1, 2, 3].map(|nth| state.zones[&staged::zone(nth)].compared)
        };
        let unknown = Compared::Unknown;
        assert_eq!(compared(&history), [unknown, unknown, unknown, Compared::NoTraffic]);
        let suspicious = Look { z: 4.0, ..staged::bad() };
        let said = [("cart", 1, Signal::Latency, suspicious), ("cart", 2, Signal::Latency, staged::bad())];
        staged::say(&mut history, 1, &said);
        assert_eq!(compared(&history), [Compared::Alike, Compared::Suspicious, Compared::Worse, Compared::NoTraffic]);
    }

    #[test]
    fn what_stands_out_the_most_is_told_with_its_figures() {
        let mut history = staged::history(2, &["cart"]);
        let errors = Look { z: 4.0, ..staged::bad() };
        let latency = Look { seen: 1.5, expected: 1.0, ..staged::bad() };
        let said = [("cart", 0, Signal::ServerErrors, errors), ("cart", 0, Signal::Latency, latency)];
        staged::say(&mut history, 1, &said);
        let zones = history.standings().remove(0).zones;
        let (sick, healthy) = (&zones[&staged::zone(0)], &zones[&staged::zone(1)]);
        assert_eq!((sick.signal, healthy.signal), (Some(Signal::Latency), None));
        near(sick.nats, 18.0);
        near(sick.seen, 1.5);
        near(sick.expected, 1.0);
        assert!(healthy.nats <= 0.0 && healthy.seen <= 0.0 && healthy.expected <= 0.0);
    }

    #[test]
    fn requests_are_those_of_the_newest_minute() {
        let mut history = staged::empty();
        let mut after = |cycle: usize, served, failed| {
            let cells = [("cart", 0, cell(calls(served, failed), calls(0.0, 0.0)))];
            history.push(&staged::snapshot(cycle, &cells), &Settings::default());
            let standing = history.standings().remove(0).zones.remove(&staged::zone(0)).unwrap();
            (standing.requests_per_second, standing.failed)
        };
        assert_eq!(after(0, 0.0, 0.0), (0.0, None));
        assert_eq!(after(1, 150.0, 15.0), (5.0, Some(0.1)));
        near(after(2, 300.0, 0.0).0, 10.0);
        assert_eq!(after(3, 150.0, 30.0), (10.0, Some(0.075)));
        assert_eq!(after(4, 600.0, 75.0), (20.0, Some(0.1)), "of four cycles the oldest is not in it any more");
    }

    #[test]
    fn services_come_by_what_stands_out_and_then_by_name() {
        let mut history = staged::history(2, &["a", "b", "c", "d"]);
        let of = |name, z: f64| -> Said<'_> { (name, 1, Signal::Latency, Look { z, ..staged::bad() }) };
        assert_eq!(names(&history.standings()), ["a", "b", "c", "d"]);
        staged::say(&mut history, 1, &[of("b", 6.0), of("c", 6.1), of("d", 4.0)]);
        assert_eq!(names(&history.standings()), ["c", "b", "d", "a"]);
    }

    fn evidence(service: Option<&str>) -> Evidence {
        let (seen, none) = (crate::domain::Period::from_secs(0), 0.0);
        Evidence {
            service: service.map(staged::service),
            signal: Signal::Latency,
            vantage: Signal::Latency.vantage(),
            nats: Nats::new(18.0),
            peers_alike: false,
            seen: none,
            expected: none,
            excess_low: none,
            excess_high: none,
            zone_requests: none,
            peers_seen: none,
            peer_requests: none,
            window: seen,
            bad_cycles: 0,
            window_cycles: 0,
            severity: none,
        }
    }

    #[test]
    fn evidence_is_shown_cycle_by_cycle_where_there_was_traffic() {
        let mut history = staged::empty();
        let with = || cell(calls(100.0, 0.0), calls(0.0, 0.0));
        // Of the third cycle nothing is known, and in the second the zone beside had no requests.
        for (cycle, effect, zones) in [(0, 0.5, 2), (1, 0.25, 1), (3, 0.125, 2)] {
            let mut cells: Vec<_> = (0..zones).map(|zone| ("cart", zone, with())).collect();
            cells.push(("search", 0, with()));
            history.push(&staged::snapshot(cycle, &cells), &Settings::default());
            let pooled = Look { effect: 2.0 * effect, ..staged::bad() };
            let look = Look { effect, ..staged::bad() };
            staged::say(&mut history, 1, &[("cart", 0, Signal::Latency, look), ("", 0, Signal::Latency, pooled)]);
        }
        let shown = |service| {
            let series = history.series(&staged::zone(0), &evidence(service));
            assert_eq!((series.zone, series.evidence), (staged::zone(0), evidence(service)));
            let of = |zones: BTreeMap<Zone, f64>| zones.into_values().collect::<Vec<f64>>();
            series.excess.into_iter().map(|(time, zones)| (time, of(zones))).collect::<Vec<_>>()
        };
        let at = |cycle, excess: &[f64]| (staged::at(cycle), excess.to_vec());
        assert_eq!(shown(Some("cart")), [at(0, &[0.5, 0.0]), at(1, &[0.25]), at(3, &[0.125, 0.0])]);
        assert_eq!(shown(None).last(), Some(&at(3, &[0.25, 0.0])), "of all services together");
    }
}
