//! A service's healthy past, zone by zone.
//!
//! It is kept twice: decayed over an hour, which follows the day, and over a day, which what follows may not leave by more
//! than an effect that matters. So a fault that creeps in is not learned as the new normal.

use serde::{Deserialize, Serialize};

use super::history::Frame;
use super::location::Offset;
use super::proportion::{self, Usual};
use super::settings::Scale;
use super::tail;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Past {
    pub recent: Frame,
    pub lasting: Frame,
    pub offsets: Vec<Offset>,
    /// How many cycles it rests on.
    pub cycles: f64,
}

impl Past {
    pub fn insert_zone(&mut self, at: usize, buckets: usize) {
        self.recent.insert_zone(at, buckets);
        self.lasting.insert_zone(at, buckets);
        self.offsets.insert(at, Offset::default());
    }

    /// What it says of failures as the servers saw them.
    pub fn served(&self, floor: f64) -> Vec<Usual> {
        let of = |past: &Frame| proportion::usual(&past.served, &past.served_failed);
        proportion::bounded(of(&self.recent), &of(&self.lasting), floor)
    }

    /// And as the clients saw them.
    pub fn called(&self, floor: f64) -> Vec<Usual> {
        let of = |past: &Frame| proportion::usual(&past.called, &past.called_failed);
        proportion::bounded(of(&self.recent), &of(&self.lasting), floor)
    }

    /// And of requests from a bucket on.
    pub fn slow(&self, first: usize, floor: f64) -> Vec<Usual> {
        let of = |past: &Frame| {
            let known: Vec<f64> = past.latency.iter().map(|zone| zone.iter().sum()).collect();
            let slow: Vec<f64> = past.latency.iter().map(|zone| tail::slow(zone, first)).collect();
            proportion::usual(&known, &slow)
        };
        proportion::bounded(of(&self.recent), &of(&self.lasting), floor)
    }

    pub fn latency_of_all(&self) -> Vec<f64> {
        let latency = &self.recent.latency;
        let buckets = latency.first().map_or(0, Vec::len);
        (0..buckets).map(|b| latency.iter().map(|zone| zone[b]).sum()).collect()
    }

    /// Requests that it rests on, served and called.
    pub fn traffic(&self) -> f64 {
        self.recent.served.iter().chain(&self.recent.called).sum()
    }

    pub fn knows_durations(&self) -> bool {
        self.recent.latency.iter().flatten().any(|count| *count > 0.0)
    }

    /// Durations by zone, for those whose buckets change.
    pub fn durations_mut(&mut self) -> impl Iterator<Item = &mut Vec<f64>> {
        self.recent.latency.iter_mut().chain(&mut self.lasting.latency)
    }

    pub fn learn(&mut self, frame: &Frame, healthy: &[bool], scale: &Scale) {
        for zone in (0..healthy.len()).filter(|z| healthy[*z]) {
            self.recent.mix(frame, zone, scale.keep);
            self.lasting.mix(frame, zone, scale.keep_lasting);
        }
        let share = healthy.iter().filter(|h| **h).count() as f64 / healthy.len().max(1) as f64;
        self.cycles = self.cycles * scale.keep + if frame.has_requests() { share } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use crate::domain::{CycleLength, Period};

    #[test]
    fn healthy_zones_are_learned_from_in_cycles_with_requests() {
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let mut past = Past::default();
        (0..2).for_each(|at| past.insert_zone(at, 2));
        let frame = Frame { served: vec![10.0, 30.0], called: vec![1.0, 2.0], ..Frame::empty(2, 2) };
        past.learn(&frame, &[true, false], &scale);
        past.learn(&frame, &[true, true], &scale);
        past.learn(&Frame::empty(2, 2), &[true, true], &scale);
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value}, and not {expected}");
        near(past.recent.served[0], 10.0 * scale.keep * (1.0 + scale.keep));
        near(past.lasting.served[0], 10.0 * scale.keep_lasting * (1.0 + scale.keep_lasting));
        near(past.recent.served[1], 30.0 * scale.keep);
        near(past.cycles, (0.5 * scale.keep + 1.0) * scale.keep);
        near(past.traffic(), 11.0 * scale.keep * (1.0 + scale.keep) + 32.0 * scale.keep);
        assert!(!past.knows_durations());
        past.recent.latency[1][0] = 1.0;
        assert!(past.knows_durations());
    }
}
