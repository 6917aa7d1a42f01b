//! One service through time: its recent cycles, its healthy past by zone, and what is watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::compare::{Looks, Prepared, SIGNALS};
use super::corroborate::Rival;
use super::history::{Frame, coarsen};
use super::location::ShiftTable;
use super::noise::{BLOCK, Noise};
use super::past::Past;
use super::persist::Watches;
use super::pool::Pool;
use super::recent::Recent;
use super::settings::{self, LAG, LONGEST_WINDOW, REMEMBERED, Scale, WARM_UP, WINDOWS};
use crate::domain::{Calls, Cell, Histogram, ServiceSettings, Signal, Vantage, Zone};

/// Cycles after which the latency table is made anew.
const TABLE_AGE: u64 = 20;

/// For how many cycles in a row a zone was not learned from, and whether it was worse than its peers in them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Frozen {
    cycles: u32,
    apart: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Track {
    /// Those in effect are put in again by [`super::History::retune`].
    #[serde(skip)]
    pub settings: ServiceSettings,
    #[serde(with = "crate::domain::observation::edges")]
    edges_ms: Vec<f64>,
    pub recent: Recent,
    pub past: Past,
    pub noise: Noise,
    table: Option<ShiftTable>,
    pub watches: Watches,
    /// By zone: cycles since the last suspicion, and cycles in a row under it.
    calm: Vec<u32>,
    frozen: Vec<Frozen>,
    /// Zones whose standing difference has just become their normal.
    pub adopted: Vec<usize>,
    cycles: u64,
    /// Cycles without a request.
    pub idle: u32,
    /// Of the traffic of all services.
    pub share: f64,
}

impl Track {
    pub fn new(zones: usize, settings: ServiceSettings) -> Self {
        let mut track = Self {
            settings,
            edges_ms: vec![1.0, f64::INFINITY],
            recent: Recent::default(),
            past: Past::default(),
            noise: Noise::default(),
            table: None,
            watches: Watches::default(),
            calm: Vec::new(),
            frozen: Vec::new(),
            adopted: Vec::new(),
            cycles: 0,
            idle: 0,
            share: 1.0,
        };
        for at in 0..zones {
            track.insert_zone(at);
        }
        track
    }

    pub fn insert_zone(&mut self, at: usize) {
        let buckets = self.edges_ms.len();
        self.recent.change(|frame| frame.insert_zone(at, buckets));
        self.past.insert_zone(at, buckets);
        self.watches.insert_zone(at);
        self.calm.insert(at, u32::MAX);
        self.frozen.insert(at, Frozen::default());
    }

    /// One cycle's cells as a frame on this track's zones and buckets. A zone with a gap counts as not seen.
    pub fn frame(
        &mut self,
        cells: Option<&BTreeMap<Zone, Cell>>,
        zones: &[Zone],
        gap: impl Fn(&Zone) -> bool,
    ) -> Frame {
        let cells: Vec<(usize, &Cell)> = cells
            .into_iter()
            .flatten()
            .filter(|(zone, _)| !gap(zone))
            .filter_map(|(zone, cell)| zones.binary_search(zone).ok().map(|at| (at, cell)))
            .collect();
        for (_, cell) in &cells {
            self.agree_on_edges(&cell.latency);
        }
        let mut frame = Frame::empty(zones.len(), self.edges_ms.len());
        for (zone, cell) in cells {
            frame.served[zone] = cell.served.total;
            frame.served_failed[zone] = cell.served.failed;
            frame.called[zone] = cell.called.total;
            frame.called_failed[zone] = cell.called.failed;
            frame.latency[zone] = coarsen(&cell.latency.edges_ms, &cell.latency.counts, &self.edges_ms);
        }
        frame
    }

    /// Zones and versions may have different buckets: those edges are kept that all have, and older counts are merged.
    fn agree_on_edges(&mut self, latency: &Histogram) {
        if latency.edges_ms.len() < 2 || *latency.edges_ms == *self.edges_ms {
            return;
        }
        let unknown = !self.past.knows_durations() && !self.recent.knows_durations();
        let common: Vec<f64> = if unknown {
            latency.edges_ms.to_vec()
        } else {
            self.edges_ms.iter().copied().filter(|e| latency.edges_ms.contains(e)).collect()
        };
        if common == self.edges_ms {
            return;
        }
        self.table = None;
        if common.len() < 2 {
            // Nothing in common: durations are learned anew.
            self.edges_ms = latency.edges_ms.to_vec();
            let none = vec![0.0; self.edges_ms.len()];
            self.each_histogram(|counts| counts.clone_from(&none));
            return;
        }
        let old = std::mem::replace(&mut self.edges_ms, common);
        let edges_ms = self.edges_ms.clone();
        self.each_histogram(|counts| *counts = coarsen(&old, counts, &edges_ms));
    }

    fn each_histogram(&mut self, mut change: impl FnMut(&mut Vec<f64>)) {
        self.recent.change(|frame| frame.latency.iter_mut().for_each(&mut change));
        self.past.durations_mut().for_each(change);
    }

    /// What was seen so many cycles ago, by zone.
    pub fn cells(&self, back: usize) -> Option<Vec<Cell>> {
        if back >= self.recent.len() {
            return None;
        }
        let (frame, edges_ms) = (self.recent.frame(back), Arc::<[f64]>::from(self.edges_ms.as_slice()));
        let cell = |zone: usize| Cell {
            served: Calls { total: frame.served[zone], failed: frame.served_failed[zone] },
            called: Calls { total: frame.called[zone], failed: frame.called_failed[zone] },
            latency: Histogram { edges_ms: Arc::clone(&edges_ms), counts: frame.latency[zone].clone() },
        };
        Some((0..frame.served.len()).map(cell).collect())
    }

    /// Forgets a zone's recent cycles.
    pub fn forget(&mut self, zone: usize) {
        self.recent.change(|frame| frame.clear(zone));
        self.watches.forget(zone);
        (self.calm[zone], self.frozen[zone]) = (0, Frozen::default());
    }

    /// The evidence that makes a fault of it.
    pub fn trip(&self) -> f64 {
        settings::trip(&self.settings, self.share)
    }

    /// Cycles of which nothing is known. After as many as the longest window has, what was seen before is no evidence.
    pub fn pass_over(&mut self, missed: u32) {
        self.watches.pass_over(missed);
        if missed as usize >= LONGEST_WINDOW {
            self.recent.clear();
        }
    }

    /// So many cycles on, all of them alike: learn from what is old enough, and then compare over every window, and note what
    /// is suspicious.
    pub fn advance(&mut self, frame: &Frame, cycles: u32, scale: &Scale, pool: &mut Pool) {
        self.idle = if frame.has_requests() { 0 } else { self.idle.saturating_add(cycles) };
        for _ in 0..cycles {
            self.recent.push(frame);
            self.cycles += 1;
            self.learn(scale);
        }
        self.watches.begin();
        let seen = self.recent.with_requests();
        let Some(table) = self.table.as_ref().filter(|_| seen > WARM_UP) else {
            return;
        };
        let prepared = Prepared::new(&self.past, &self.noise, &self.edges_ms, &self.settings, scale);
        let comparable = [Vantage::Server, Vantage::Client].map(|vantage| self.recent.comparable(vantage));
        let look = |sum: &Frame, span| {
            let mut looks = prepared.compare(sum, span, &self.past, table, &self.settings, scale);
            dismiss(&mut looks, span, &comparable);
            looks
        };
        let mut sum = self.recent.frame(0);
        let newest = look(&sum, 1);
        self.watches.note_newest(&newest);
        let mut two_newest = newest.clone();
        let mut summed = 1;
        for (index, span) in WINDOWS.into_iter().enumerate().filter(|(_, span)| *span <= self.recent.len()) {
            (summed..span).for_each(|cycle| self.recent.add_to(&mut sum, cycle));
            summed = span;
            let looks = look(&sum, span);
            pool.add(index, &looks);
            self.watches.take(span, &looks, (scale, self.trip()), &self.settings);
            if span == WINDOWS[0] {
                two_newest = looks;
            }
        }
        pool.add_newest(&newest);
        self.watches.settle(scale);
        let windows = [rivals(&newest), rivals(&two_newest)];
        self.watches.note_rivals(&windows, &self.settings);
        self.freeze(&two_newest, cycles, scale);
        self.watches.refine_by_newest(&newest, self.trip());
    }

    /// Learns from the cycle that has just become old enough, but from nothing around a suspicion.
    fn learn(&mut self, scale: &Scale) {
        self.recent.truncate(REMEMBERED);
        if self.recent.len() <= LAG {
            return;
        }
        let healthy: Vec<bool> = self.calm.iter().map(|cycles| *cycles > LAG as u32).collect();
        if let Some(table) = &self.table
            && self.cycles.is_multiple_of(BLOCK as u64)
            && self.recent.len() >= LAG + BLOCK
        {
            let mut block = self.recent.frame(LAG);
            (LAG + 1..LAG + BLOCK).for_each(|cycle| self.recent.add_to(&mut block, cycle));
            self.noise.learn(&block, &mut self.past, &healthy, table, scale);
        }
        self.past.learn(&self.recent.frame(LAG), &healthy, scale);
        if self.table.is_none() || self.cycles.is_multiple_of(TABLE_AGE) {
            self.table = Some(ShiftTable::new(&self.past.latency_of_all(), &self.edges_ms));
        }
    }

    /// A zone under suspicion is not learned from. But what stays is the new normal: soon, where all zones moved together;
    /// after a day, where one stands apart from its peers.
    fn freeze(&mut self, two_newest: &Looks, passed: u32, scale: &Scale) {
        self.adopted.clear();
        for zone in 0..self.calm.len() {
            let left_its_past = two_newest.iter().any(|looks| looks[zone].own_nats >= self.settings.suspect.get());
            let apart = self.watches.suspicious(zone);
            let Frozen { cycles, apart: was_apart } = self.frozen[zone];
            self.frozen[zone] = if left_its_past || apart {
                Frozen { cycles: cycles + passed, apart: was_apart || apart }
            } else {
                Frozen::default()
            };
            let Frozen { cycles, apart } = self.frozen[zone];
            let longest = if apart { scale.lasting_cycles } else { scale.longest_freeze };
            let frozen = (1..longest).contains(&cycles);
            if apart && (longest..longest + passed).contains(&cycles) {
                self.adopted.push(zone);
            }
            self.calm[zone] = if frozen { 0 } else { self.calm[zone].saturating_add(passed) };
        }
    }

    /// Cycles in a row for which a zone was under suspicion, of its peers or of its own past.
    pub fn suspected_for(&self, zone: usize) -> u32 {
        self.frozen[zone].cycles
    }

    /// A histogram on this track's buckets; empty if it has others.
    pub fn coarsened(&self, histogram: &Histogram) -> Vec<f64> {
        if self.edges_ms.iter().all(|edge| histogram.edges_ms.contains(edge)) {
            coarsen(&histogram.edges_ms, &histogram.counts, &self.edges_ms)
        } else {
            Vec::new()
        }
    }

    pub fn newest_has_requests(&self, zone: usize) -> bool {
        self.recent.traffic(zone, 0) > (0.0, 0.0)
    }

    /// Requests of the zone over the longest window: those it served, and those its clients made.
    pub fn traffic(&self, zone: usize) -> (f64, f64) {
        (0..LONGEST_WINDOW).fold((0.0, 0.0), |(served, called), cycle| {
            let (s, c) = self.recent.traffic(zone, cycle);
            (served + s, called + c)
        })
    }
}

/// Comparisons with peers that were not there at the time are none.
fn dismiss(looks: &mut Looks, span: usize, comparable: &[Vec<usize>; 2]) {
    for (signal, looks) in Signal::ALL.into_iter().zip(looks) {
        let cycles = &comparable[usize::from(signal.vantage() == Vantage::Client)];
        looks.iter_mut().zip(cycles).filter(|(_, cycles)| span > **cycles).for_each(|(look, _)| look.dismiss());
    }
}

/// How far each zone has left its own past, where that is beyond doubt.
fn rivals(looks: &Looks) -> [Vec<Rival>; SIGNALS] {
    looks.each_ref().map(|zones| {
        zones
            .iter()
            .map(|look| Rival {
                excess: if look.live && look.own_nats > 1.0 { look.own } else { 0.0 },
                nats: look.own_nats,
            })
            .collect()
    })
}

#[cfg(test)]
mod tests;
