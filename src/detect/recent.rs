//! The newest cycles of a service, packed: they are most of what is remembered.
//!
//! Counts are whole numbers, which four bytes hold exactly up to sixteen million a cycle, zone and bucket.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::history::Frame;
use super::settings::LONGEST_WINDOW;
use crate::domain::Vantage;

/// Columns of a frame beside its durations.
const COLUMNS: usize = 4;
/// A scrape that was lost is made good by the next one.
const MOST_ALONE: usize = 1;
/// Requests whose absence is no chance: none of them come once in e^10.
const SURELY_ALONE: f64 = 10.0;

/// Newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    zones: usize,
    buckets: usize,
    /// The columns, and then durations zone by zone, without the buckets after the last one that counts anything.
    frames: VecDeque<Box<[f32]>>,
}

impl Recent {
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn push(&mut self, frame: &Frame) {
        let packed = pack(frame);
        (self.zones, self.buckets) = (frame.served.len(), frame.latency.first().map_or(0, Vec::len));
        self.frames.push_front(packed);
    }

    pub fn truncate(&mut self, cycles: usize) {
        self.frames.truncate(cycles);
    }

    pub fn clear(&mut self) {
        self.frames.clear();
    }

    /// One cycle, the newest being 0.
    pub fn frame(&self, cycle: usize) -> Frame {
        let mut frame = Frame::empty(self.zones, self.buckets);
        self.add_to(&mut frame, cycle);
        frame
    }

    /// Adds one cycle to a sum.
    pub fn add_to(&self, sum: &mut Frame, cycle: usize) {
        let packed = &self.frames[cycle];
        let (columns, durations) = packed.split_at(COLUMNS * self.zones);
        let add = |to: &mut [f64], from: &[f32]| to.iter_mut().zip(from).for_each(|(a, b)| *a += f64::from(*b));
        let mut columns = columns.chunks_exact(self.zones.max(1));
        for to in [&mut sum.served, &mut sum.served_failed, &mut sum.called, &mut sum.called_failed] {
            add(to, columns.next().unwrap_or_default());
        }
        let known = durations.len() / self.zones.max(1);
        if known > 0 {
            sum.latency.iter_mut().zip(durations.chunks_exact(known)).for_each(|(to, from)| add(to, from));
        }
    }

    /// Cycles with requests.
    pub fn with_requests(&self) -> usize {
        let requests = |packed: &[f32]| {
            let of = |column: usize| packed.iter().skip(column * self.zones).take(self.zones);
            of(0).chain(of(2)).any(|count| *count > 0.0)
        };
        self.frames.iter().filter(|packed| requests(packed)).count()
    }

    pub fn knows_durations(&self) -> bool {
        self.frames.iter().any(|packed| packed.len() > COLUMNS * self.zones)
    }

    /// Requests of a zone in a cycle: those it served, and those its clients made.
    pub fn traffic(&self, zone: usize, cycle: usize) -> (f64, f64) {
        let of =
            |column: usize| self.frames.get(cycle).map_or(0.0, |packed| f64::from(packed[column * self.zones + zone]));
        (of(0), of(2))
    }

    /// By zone, how many of the newest cycles can be compared with its peers: none from before the zone was alone in having
    /// requests, of its servers or of its clients. What has happened to all zones since then would show in that one only. That
    /// its peers had none is more than chance where they would have had ten.
    pub fn comparable(&self, vantage: Vantage) -> Vec<usize> {
        let column = match vantage {
            Vantage::Server => 0,
            Vantage::Client => 2,
        };
        let of_cycle = |packed: &[f32], zone: usize| {
            let all = &packed[column * self.zones..(column + 1) * self.zones];
            let of_peers =
                all.iter().enumerate().filter(|(at, _)| *at != zone).map(|(_, n)| f64::from(*n)).sum::<f64>();
            (all[zone] > 0.0, of_peers)
        };
        let window = || self.frames.iter().take(LONGEST_WINDOW);
        let of_zone = |zone: usize| {
            let rate = window().map(|packed| of_cycle(packed, zone).1).sum::<f64>() / window().len().max(1) as f64;
            let (mut alone, mut since) = (0, 0);
            for (cycle, packed) in window().enumerate() {
                match of_cycle(packed, zone) {
                    (true, of_peers) if of_peers <= 0.0 => {
                        since = if alone == 0 { cycle } else { since };
                        alone += 1;
                    }
                    (_, of_peers) if of_peers > 0.0 => alone = 0,
                    _ => {}
                }
                if alone > MOST_ALONE && alone as f64 * rate >= SURELY_ALONE {
                    return since;
                }
            }
            LONGEST_WINDOW
        };
        (0..self.zones).map(of_zone).collect()
    }

    /// What a zone served in the newest cycles, and how much of it failed.
    pub fn served(&self, zone: usize, newest: usize) -> (f64, f64) {
        self.frames.iter().take(newest).fold((0.0, 0.0), |(served, failed), packed| {
            (served + f64::from(packed[zone]), failed + f64::from(packed[self.zones + zone]))
        })
    }

    /// Changes every cycle alike.
    pub fn change(&mut self, mut change: impl FnMut(&mut Frame)) {
        let changed = (0..self.len()).map(|cycle| {
            let mut frame = self.frame(cycle);
            change(&mut frame);
            frame
        });
        let changed: Vec<Frame> = changed.collect();
        self.frames.clear();
        changed.iter().rev().for_each(|frame| self.push(frame));
    }
}

fn pack(frame: &Frame) -> Box<[f32]> {
    let used = |zone: &Vec<f64>| zone.iter().rposition(|count| *count != 0.0).map_or(0, |last| last + 1);
    let used = frame.latency.iter().map(used).max().unwrap_or(0);
    let columns = [&frame.served, &frame.served_failed, &frame.called, &frame.called_failed];
    let mut packed = Vec::with_capacity(frame.served.len() * (COLUMNS + used));
    packed.extend(columns.into_iter().flatten().map(|count| *count as f32));
    packed.extend(frame.latency.iter().flat_map(|zone| &zone[..used]).map(|count| *count as f32));
    packed.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_as_it_went_in() {
        let mut recent = Recent::default();
        let frame = |n: f64| Frame {
            served: vec![n, 0.0],
            served_failed: vec![1.0, 0.0],
            called: vec![0.0, 2.0 * n],
            called_failed: vec![0.0, 3.0],
            latency: vec![vec![n, 0.0, 0.0, 0.0], vec![0.0, 4.0, 16_777_215.0, 0.0]],
        };
        let nothing = Frame::empty(2, 4);
        for it in [frame(5.0), nothing, frame(7.0)] {
            recent.push(&it);
        }
        assert_eq!((recent.len(), recent.with_requests(), recent.knows_durations()), (3, 2, true));
        assert_eq!(format!("{:?}", recent.frame(0)), format!("{:?}", frame(7.0)));
        assert_eq!((recent.traffic(0, 0), recent.traffic(1, 2)), ((7.0, 0.0), (0.0, 10.0)));
        let mut sum = recent.frame(0);
        (1..3).for_each(|cycle| recent.add_to(&mut sum, cycle));
        assert_eq!(
            (&sum.served, &sum.called, &sum.latency[0]),
            (&vec![12.0, 0.0], &vec![0.0, 24.0], &vec![12.0, 0.0, 0.0, 0.0])
        );
        recent.change(|frame| frame.insert_zone(1, 4));
        assert_eq!(recent.frame(2).called, [0.0, 0.0, 10.0]);
        recent.truncate(2);
        assert_eq!((recent.len(), recent.frame(0).served[0]), (2, 7.0));
    }

    #[test]
    fn a_zone_that_was_alone_is_compared_with_what_its_peers_have_done_since() {
        let comparable = |peers: &[f64]| {
            let mut recent = Recent::default();
            for n in peers {
                let served = vec![100.0, *n, 0.0];
                recent.push(&Frame { called: served.iter().map(|n| n / 50.0).collect(), served, ..Frame::empty(3, 1) });
            }
            (recent.comparable(Vantage::Server), recent.comparable(Vantage::Client))
        };
        let all = vec![LONGEST_WINDOW; 3];
        assert_eq!(comparable(&[100.0; 20]), (all.clone(), all.clone()));
        assert_eq!(comparable(&[100.0, 0.0, 100.0, 0.0, 100.0]), (all.clone(), all.clone()), "scrapes that were lost");
        let alone = [[100.0; 10].as_slice(), &[0.0; 3], &[100.0; 2]].concat();
        assert_eq!(
            comparable(&alone),
            (vec![2, LONGEST_WINDOW, LONGEST_WINDOW], all.clone()),
            "few calls may fail to come"
        );
        assert_eq!(comparable(&alone[..13]).0, [0, LONGEST_WINDOW, LONGEST_WINDOW], "alone now");
        assert_eq!(comparable(&[0.0; 10]), (all.clone(), all), "never any peers: nothing to go by");
    }

    #[test]
    fn what_a_zone_served_is_summed_over_the_newest_cycles() {
        let mut recent = Recent::default();
        for n in [1.0, 20.0, 300.0] {
            let mut frame = Frame::empty(2, 1);
            (frame.served[1], frame.served_failed[1]) = (2.0 * n, n);
            recent.push(&frame);
        }
        assert_eq!([1, 2, 9].map(|newest| recent.served(1, newest)), [(600.0, 300.0), (640.0, 320.0), (642.0, 321.0)]);
        assert_eq!(recent.served(0, 9), (0.0, 0.0));
        assert!(!recent.knows_durations());
    }

    #[test]
    fn a_cycle_counts_that_had_requests_of_servers_or_of_clients() {
        let counts = |change: fn(&mut Frame)| {
            let mut recent = Recent::default();
            let mut frame = Frame::empty(3, 1);
            change(&mut frame);
            recent.push(&frame);
            let counted = recent.with_requests();
            recent.clear();
            assert_eq!(recent.len(), 0);
            counted
        };
        assert_eq!(counts(|frame| frame.served[2] = 1.0), 1);
        assert_eq!(counts(|frame| frame.called[2] = 1.0), 1);
        assert_eq!(counts(|frame| frame.served_failed = vec![1.0; 3]), 0);
        assert_eq!(counts(|frame| frame.called_failed = vec![1.0; 3]), 0);
    }

    #[test]
    fn servers_and_clients_are_alone_by_their_own_requests_and_nobody_is_where_there_are_none() {
        // Of the servers, or of the clients, of two zones in each cycle; the others have requests throughout.
        let comparable = |of_servers: bool, last: &[[f64; 2]]| {
            let mut recent = Recent::default();
            for n in [[100.0; 2]; 10].iter().chain(last) {
                let (these, others) = (n.to_vec(), vec![100.0; 2]);
                let (served, called) = if of_servers { (these, others) } else { (others, these) };
                recent.push(&Frame { served, called, ..Frame::empty(2, 1) });
            }
            [Vantage::Server, Vantage::Client].map(|vantage| recent.comparable(vantage)[0])
        };
        let (both, first, nobody) = ([100.0, 100.0], [100.0, 0.0], [0.0, 0.0]);
        assert_eq!(comparable(true, &[first, first, both]), [1, LONGEST_WINDOW]);
        assert_eq!(comparable(false, &[first, first, both]), [LONGEST_WINDOW, 1]);
        assert_eq!(comparable(true, &[nobody, nobody, nobody]), [LONGEST_WINDOW; 2]);
        assert_eq!(comparable(true, &[first, nobody, first]), [0, LONGEST_WINDOW], "a cycle without any parts nothing");
    }
}
