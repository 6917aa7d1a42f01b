//! What was seen so far: a ring of increments and a slow baseline per service, fed by one snapshot a cycle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::corroborate::POD_CYCLES;
use super::persist::{Watches, severity};
use super::pool::Pool;
use super::regional;
use super::settings::{LONGEST_WINDOW, Scale, Settings, least_excess};
use super::track::Track;
use crate::domain::verdict::Suspect;
use crate::domain::{CycleLength, Gap, ServiceId, Signal, Snapshot, Vantage, Zone};

/// One cycle, or a sum of cycles, of one service: by zone, and for the latency by zone and bucket.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Frame {
    pub served: Vec<f64>,
    pub served_failed: Vec<f64>,
    pub called: Vec<f64>,
    pub called_failed: Vec<f64>,
    pub latency: Vec<Vec<f64>>,
}

impl Frame {
    pub fn empty(zones: usize, buckets: usize) -> Self {
        let zero = vec![0.0; zones];
        Self {
            served: zero.clone(),
            served_failed: zero.clone(),
            called: zero.clone(),
            called_failed: zero,
            latency: vec![vec![0.0; buckets]; zones],
        }
    }

    /// Mixes in a zone's newer figures.
    pub fn mix(&mut self, newer: &Self, zone: usize, keep: f64) {
        let mix = |known: &mut Vec<f64>, new: &Vec<f64>| known[zone] = known[zone] * keep + new[zone];
        mix(&mut self.served, &newer.served);
        mix(&mut self.served_failed, &newer.served_failed);
        mix(&mut self.called, &newer.called);
        mix(&mut self.called_failed, &newer.called_failed);
        for (known, new) in self.latency[zone].iter_mut().zip(&newer.latency[zone]) {
            *known = *known * keep + new;
        }
    }

    pub fn clear(&mut self, zone: usize) {
        for column in [&mut self.served, &mut self.served_failed, &mut self.called, &mut self.called_failed] {
            column[zone] = 0.0;
        }
        self.latency[zone].fill(0.0);
    }

    pub fn insert_zone(&mut self, at: usize, buckets: usize) {
        for column in [&mut self.served, &mut self.served_failed, &mut self.called, &mut self.called_failed] {
            column.insert(at, 0.0);
        }
        self.latency.insert(at, vec![0.0; buckets]);
    }

    pub fn has_requests(&self) -> bool {
        self.served.iter().chain(&self.called).any(|n| *n > 0.0)
    }
}

/// Evidence that hints at something.
const HINT_NATS: f64 = 2.0;
/// Cycles for which a zone that was lost can't be judged yet: proxies are not all scraped at once.
const SETTLING: u32 = 2;

/// Everything that judging needs. Pure: it changes by [`History::push`] alone, and equal snapshots make equal histories.
///
/// A cycle of which nothing is known does not move it: no data is neither healthy nor zero.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    pub(super) scale: Scale,
    pub(super) zones: Vec<Zone>,
    pub(super) tracks: BTreeMap<ServiceId, Track>,
    pub(super) pooled: Watches,
    /// By zone, for how many more cycles it is watched, if nothing looks suspicious in them.
    watched: Vec<u32>,
    /// Of the newest snapshot, and those that still have an effect.
    pub(super) gaps: Vec<Gap>,
    /// Zones that were lost, for how many more cycles they can't be judged, and why.
    settling: BTreeMap<Zone, (u32, Gap)>,
    /// The newest cycle of which something was known, and as many before it as the longest window has: the newest first.
    seen: Option<Timestamp>,
    pub(super) times: VecDeque<Timestamp>,
    pub(super) time: Option<Timestamp>,
}

impl History {
    pub fn new(settings: &Settings, cycle: CycleLength) -> Self {
        Self {
            scale: Scale::new(settings, cycle),
            zones: Vec::new(),
            tracks: BTreeMap::new(),
            pooled: Watches::default(),
            watched: Vec::new(),
            gaps: Vec::new(),
            settling: BTreeMap::new(),
            seen: None,
            times: VecDeque::new(),
            time: None,
        }
    }

    /// Takes other settings; what was learned stays.
    pub fn retune(&mut self, settings: &Settings) {
        self.scale = Scale::new(settings, self.scale.cycle);
        self.tracks.retain(|service, track| {
            track.settings = settings.services.of(service);
            !track.settings.ignore
        });
    }

    /// The newest cycle of which something was known.
    pub const fn seen(&self) -> Option<Timestamp> {
        self.seen
    }

    pub const fn cycle(&self) -> CycleLength {
        self.scale.cycle
    }

    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// How many services are followed.
    pub fn services(&self) -> usize {
        self.tracks.len()
    }

    /// Whether the zone looked suspicious lately: it is clear after as long as the service concerned has to be calm.
    pub fn watched(&self, zone: &Zone) -> bool {
        self.zones.binary_search(zone).is_ok_and(|z| self.watched[z] > 0)
    }

    /// What the newest cycles saw, oldest first, as far as it is remembered.
    pub fn seen_lately(&self) -> Vec<Snapshot> {
        let Some(newest) = self.seen else { return Vec::new() };
        let cycles = self.tracks.values().map(|track| track.recent.len()).max().unwrap_or(0);
        let at = |back: usize| {
            let cells = self.tracks.iter().filter_map(|(service, track)| {
                let cells = track.cells(back)?.into_iter().enumerate().map(|(z, cell)| (self.zones[z].clone(), cell));
                Some((service.clone(), cells.collect()))
            });
            let time = newest - self.scale.cycle.signed() * back as i32;
            Snapshot { cells: cells.collect(), gaps: Vec::new(), coverage: BTreeMap::new(), time, cluster: None }
        };
        (0..cycles).rev().map(at).collect()
    }

    /// Whether anything looks suspicious, or did lately, so that the next cycle may decide.
    pub fn hints(&self) -> bool {
        let services = || self.tracks.values().map(|track| &track.watches).chain([&self.pooled]);
        let suspicious = |zone: usize| services().any(|watches| watches.suspicious(zone));
        (0..self.zones.len()).any(|zone| self.watched[zone] > 0 || suspicious(zone))
    }

    /// Whether the zone's servers answered, or its clients called, within the longest window.
    pub(super) fn has_traffic(&self, zone: usize) -> bool {
        self.tracks.values().any(|track| track.traffic(zone) > (0.0, 0.0))
    }

    /// What has just become normal, after it stood out for a day.
    pub fn adopted(&self) -> Vec<(ServiceId, Zone)> {
        let of = |(service, track): (&ServiceId, &Track)| {
            let zones = track.adopted.iter().map(|at| (service.clone(), self.zones[*at].clone()));
            zones.collect::<Vec<_>>()
        };
        self.tracks.iter().flat_map(of).collect()
    }

    /// The service that has left its own past the most in a zone, beyond doubt, and how severe that is in terms of failed
    /// requests: what is worse everywhere shows in this, and in no comparison of zones. Not of those that were bad before.
    pub fn left_its_past(
        &self,
        zone: &Zone,
        before: &BTreeSet<ServiceId>,
        settings: &Settings,
    ) -> Option<(&ServiceId, f64)> {
        let at = self.zones.binary_search(zone).ok()?;
        let tracks = self.tracks.iter().filter(|(service, _)| !before.contains(service));
        let looks = tracks.flat_map(|(service, track)| {
            Signal::ALL.map(|signal| (service, track, signal, track.watches.get(signal, at).reading.latest))
        });
        let beyond_doubt = looks.filter(|(_, track, signal, look)| {
            // Clients elsewhere may still suffer from the first zone.
            signal.vantage() == Vantage::Server
                && look.live
                && look.own_nats >= track.trip()
                && look.own >= least_excess(*signal, &track.settings)
        });
        let severe = beyond_doubt.map(|(service, _, signal, look)| (service, severity(signal, look.own, settings)));
        severe.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Services that look worse than they used to in other zones than this one, be it by what they call in it.
    pub fn worse_elsewhere(&self, zone: &Zone) -> BTreeSet<ServiceId> {
        let worse = |track: &Track| {
            let others = (0..self.zones.len()).filter(|at| self.zones[*at] != *zone);
            let of_servers = || Signal::ALL.into_iter().filter(|signal| signal.vantage() == Vantage::Server);
            let mut nats = others
                .flat_map(|at| of_servers().map(move |signal| track.watches.get(signal, at).reading.latest.own_nats));
            nats.any(|nats| nats >= HINT_NATS)
        };
        self.tracks.iter().filter(|(_, track)| worse(track)).map(|(service, _)| service.clone()).collect()
    }

    /// What half the evidence would suspect: what other settings might want to look at.
    pub fn suspects(&self) -> BTreeSet<Suspect> {
        let mut suspects = BTreeSet::new();
        for (service, track) in &self.tracks {
            for (at, zone) in self.zones.iter().enumerate() {
                let noticed = |signal: &Signal| {
                    track.watches.get(*signal, at).reading.most_nats >= track.settings.suspect.get() / 2.0
                };
                for signal in Signal::ALL.into_iter().filter(noticed) {
                    let (service, zone, view) = (service.clone(), zone.clone(), signal.pod_view());
                    suspects.insert(Suspect { service, zone, view, cycles: POD_CYCLES });
                }
            }
        }
        suspects
    }

    /// Forgets what was seen of a zone lately, so that what follows is judged on its own. What was learned stays.
    pub fn start_anew(&mut self, zone: &Zone) {
        let Ok(at) = self.zones.binary_search(zone) else { return };
        self.watched[at] = 0;
        self.pooled.forget(at);
        self.tracks.values_mut().for_each(|track| track.forget(at));
    }

    /// Takes in one cycle.
    pub fn push(&mut self, snapshot: &Snapshot, settings: &Settings) {
        self.push_alike(snapshot, 1, settings);
    }

    /// Takes in so many cycles, the last of which this is, and all of them alike: each is learned from, and one judgement does.
    pub fn push_alike(&mut self, snapshot: &Snapshot, cycles: u32, settings: &Settings) {
        self.time = Some(snapshot.time);
        self.gaps.clone_from(&snapshot.gaps);
        if snapshot.global_gaps().next().is_some() {
            self.note_lost(snapshot);
            return;
        }
        self.settle(snapshot);
        self.pass_over(snapshot.time, cycles);
        self.admit_newcomers(snapshot, settings);
        self.share_out_chances();
        let mut pool = Pool::new(self.zones.len());
        for (service, track) in &mut self.tracks {
            let lost = |zone: &Zone| self.gaps.iter().any(|gap| gap.zone() == Some(zone));
            let frame = track.frame(snapshot.cells.get(service), &self.zones, lost);
            track.advance(&frame, cycles, &self.scale, &mut pool);
        }
        let longest_idle = self.scale.longest_freeze.saturating_mul(24);
        self.tracks.retain(|_, track| track.idle < longest_idle);
        pool.watch(&mut self.pooled, &settings.services.usual, &self.scale);
        for (zone, watched) in self.watched.iter_mut().enumerate() {
            let silent = !self.tracks.values().any(|track| track.newest_has_requests(zone));
            *watched = watched.saturating_sub(if silent { 0 } else { cycles });
            let services = self.tracks.values().map(|track| (&track.watches, &track.settings));
            for (watches, own) in services.chain([(&self.pooled, &settings.services.usual)]) {
                if watches.suspicious(zone) {
                    *watched = (*watched).max(self.scale.clear(own));
                }
            }
            for track in self.tracks.values().filter(|track| regional::is_worse_together(track, zone)) {
                *watched = (*watched).max(self.scale.clear(&track.settings));
            }
        }
    }

    /// Each service gets its part of the chances of a false alarm, by its usual traffic.
    fn share_out_chances(&mut self) {
        let of = |track: &Track| track.past.traffic() * track.settings.weight.as_fraction();
        let all: f64 = self.tracks.values().map(of).sum();
        let even = 1.0 / self.tracks.len().max(1) as f64;
        for track in self.tracks.values_mut() {
            track.share = if all > 0.0 { of(track) / all } else { even };
        }
    }

    /// Where too few zones are left to judge anything, those that were lost have to settle afterwards all the same.
    fn note_lost(&mut self, snapshot: &Snapshot) {
        for gap in &snapshot.gaps {
            let Gap::TooFewZonesScraped { zones: seen } = gap else { continue };
            for zone in self.zones.iter().filter(|zone| !seen.contains(zone)) {
                let coverage = snapshot.coverage.get(zone).copied().unwrap_or_default();
                let lost = Gap::ScrapesLost { zone: zone.clone(), coverage };
                self.settling.insert(zone.clone(), (SETTLING + 1, lost));
            }
        }
    }

    /// The first scrapes of a zone that was lost hold all that happened meanwhile, in one cycle: that is not evidence.
    fn settle(&mut self, snapshot: &Snapshot) {
        self.settling.retain(|_, (cycles, _)| {
            *cycles -= 1;
            *cycles > 0
        });
        for gap in &snapshot.gaps {
            if let Some(zone) = gap.zone() {
                self.settling.insert(zone.clone(), (SETTLING + 1, gap.clone()));
            }
        }
        let still = |gap: &Gap| !snapshot.gaps.iter().any(|seen| seen.zone() == gap.zone());
        let settling = self.settling.values().map(|(_, gap)| gap.clone());
        self.gaps.extend(settling.filter(still));
    }

    /// Time of which nothing is known makes what was seen before older.
    fn pass_over(&mut self, time: Timestamp, cycles: u32) {
        let since = self.seen.replace(time).map_or(0, |seen| time.duration_since(seen).as_secs());
        let missed = (since / self.scale.cycle.seconds() - i64::from(cycles)).clamp(0, i64::from(u32::MAX)) as u32;
        if missed > 0 {
            self.pooled.pass_over(missed);
            self.tracks.values_mut().for_each(|track| track.pass_over(missed));
        }
        (0..cycles as i32).rev().for_each(|back| self.times.push_front(time - self.scale.cycle.signed() * back));
        self.times.truncate(LONGEST_WINDOW);
    }

    fn admit_newcomers(&mut self, snapshot: &Snapshot, settings: &Settings) {
        for zone in snapshot.cells.values().flat_map(BTreeMap::keys) {
            if let Err(at) = self.zones.binary_search(zone) {
                self.zones.insert(at, zone.clone());
                self.watched.insert(at, 0);
                self.pooled.insert_zone(at);
                self.tracks.values_mut().for_each(|track| track.insert_zone(at));
            }
        }
        for service in snapshot.cells.keys() {
            if !self.tracks.contains_key(service) {
                let own = settings.services.of(service);
                if !own.ignore {
                    self.tracks.insert(service.clone(), Track::new(self.zones.len(), own));
                }
            }
        }
    }
}

/// Counts on coarser edges, which must be among their own.
pub(super) fn coarsen(own_ms: &[f64], counts: &[f64], edges_ms: &[f64]) -> Vec<f64> {
    if own_ms == edges_ms {
        return counts.to_vec();
    }
    let mut coarse = vec![0.0; edges_ms.len()];
    for (edge, count) in own_ms.iter().zip(counts) {
        let to = edges_ms.partition_point(|e| e < edge).min(edges_ms.len() - 1);
        coarse[to] += count;
    }
    coarse
}

#[cfg(test)]
mod tests;
