//! A history whose newest cycles said what a test wants, for tests of what is made of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::compare::{Look, Looks, SIGNALS};
use super::history::History;
use super::settings::Settings;
use crate::domain::{Calls, Cell, CycleLength, Histogram, Period, ServiceId, Signal, Snapshot, Zone};

pub(super) fn zone(nth: usize) -> Zone {
    Zone::new(format!("zone-{nth}"))
}

pub(super) fn service(name: &str) -> ServiceId {
    ServiceId::new("shop", name)
}

/// Some cycle of fifteen seconds.
pub(super) fn at(cycle: usize) -> Timestamp {
    Timestamp::constant(1_764_000_000, 0) + SignedDuration::from_secs(15) * cycle as i32
}

pub(super) fn calls(total: f64, failed: f64) -> Calls {
    Calls { total, failed }
}

pub(super) fn cell(served: Calls, called: Calls) -> Cell {
    let edges_ms = Arc::from([5.0, 25.0, f64::INFINITY]);
    Cell { served, called, latency: Histogram { edges_ms, counts: vec![served.total, 0.0, 0.0] } }
}

pub(super) fn snapshot(cycle: usize, cells: &[(&str, usize, Cell)]) -> Snapshot {
    let mut by_service: BTreeMap<ServiceId, BTreeMap<Zone, Cell>> = BTreeMap::new();
    for (name, nth, cell) in cells {
        by_service.entry(service(name)).or_default().insert(zone(*nth), cell.clone());
    }
    Snapshot { time: at(cycle), cells: by_service, coverage: BTreeMap::new(), gaps: Vec::new(), cluster: None }
}

pub(super) fn empty() -> History {
    History::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)))
}

/// In each zone each service serves a hundred requests, and fifty calls to it are made, in the one cycle that was seen.
pub(super) fn history(zones: usize, services: &[&str]) -> History {
    let mut history = empty();
    let cells: Vec<(&str, usize, Cell)> = services
        .iter()
        .flat_map(|name| (0..zones).map(|nth| (*name, nth, cell(calls(100.0, 1.0), calls(50.0, 1.0)))))
        .collect();
    history.push(&snapshot(0, &cells), &Settings::default());
    history
}

/// Nothing unlike others or the past.
pub(super) fn alike() -> Look {
    Look { live: true, weight: 100.0, ..Look::default() }
}

/// Eleven of a hundred instead of one, with eighteen nats of evidence, against peers and past.
pub(super) fn bad() -> Look {
    Look { z: 6.0, effect: 0.1, large: true, own: 0.1, own_nats: 18.0, seen: 0.11, expected: 0.01, ..alike() }
}

/// As bad against the past, but so are the peers.
pub(super) fn bad_as_all() -> Look {
    Look { z: 0.0, effect: 0.0, large: false, ..bad() }
}

/// Of which service in which zone what is said; of all services pooled where it has no name.
pub(super) type Said<'a> = (&'a str, usize, Signal, Look);

/// The newest two cycles say this, and for so many cycles did; of what is not named they say that it is alike.
pub(super) fn say(history: &mut History, cycles: usize, said: &[Said<'_>]) {
    let (scale, zones) = (history.scale, history.zones.len());
    let looks = |name: &str| {
        let mut looks: Looks = [(); SIGNALS].map(|()| vec![alike(); zones]);
        for (_, nth, signal, look) in said.iter().filter(|said| said.0 == name) {
            looks[*signal as usize][*nth] = *look;
        }
        looks
    };
    let usual = crate::domain::ServiceSettings::default();
    for _ in 0..cycles {
        for (id, track) in &mut history.tracks {
            let (looks, trip) = (looks(&id.name), track.trip());
            track.watches.begin();
            track.watches.take(2, &looks, (&scale, trip), &track.settings);
            track.watches.note_newest(&looks);
            track.watches.settle(&scale);
        }
        let looks = looks("");
        history.pooled.begin();
        history.pooled.take(2, &looks, (&scale, super::settings::trip(&usual, 1.0)), &usual);
        history.pooled.note_newest(&looks);
        history.pooled.settle(&scale);
    }
}
