//! The whole stretch at a glance: each zone in parts of equal length, and what was decided when.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::figure::{MOST_ZONES, zones};
use crate::domain::overview::{self, Moment};
use crate::domain::{Calls, CycleLength, Sight, Verdict, Zone};

/// Parts of the stretch.
pub(super) const MOST_BINS: i64 = 600;
/// Marks of one kind in one lane: more would cover each other.
const MOST_MARKS: usize = 120;

/// One zone during one part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bin {
    pub served: Calls,
    pub called: Calls,
    /// Cycles of which something was seen, that were to be judged, that were not, and in which it was worse.
    pub seen: u32,
    pub cycles: u32,
    pub unjudged: u32,
    pub worse: u32,
}

/// How a zone was judged during one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    Healthy,
    Worse,
    Not,
    /// Nobody was there to judge it.
    Never,
}

impl Bin {
    pub const fn judged(&self) -> Judged {
        if self.cycles == 0 && self.seen > 0 {
            Judged::Never
        } else if self.worse > 0 {
            Judged::Worse
        } else if 2 * self.unjudged >= self.cycles {
            Judged::Not
        } else {
            Judged::Healthy
        }
    }
}

/// What is marked, from the faintest to the weightiest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    Gap,
    Clear,
    Suspect,
    Held,
    Restore,
    Isolate,
}

impl Sign {
    pub const ALL: [Self; 6] = [Self::Gap, Self::Clear, Self::Suspect, Self::Held, Self::Restore, Self::Isolate];
}

/// A change of mind, where it stands.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub time: Timestamp,
    /// The story that tells it, if one does.
    pub story: Option<usize>,
    /// How many there are so close that they are one mark.
    pub count: usize,
}

/// A while in which a zone was out of rotation, or would have been.
#[derive(Debug, Clone)]
pub(super) struct Out {
    pub zone: Zone,
    pub from: Timestamp,
    /// None while it lasts.
    pub until: Option<Timestamp>,
    pub said: &'static str,
}

#[derive(Debug)]
pub(super) struct Timeline {
    pub start: Timestamp,
    pub end: Timestamp,
    /// How long a part is.
    pub part: SignedDuration,
    pub zones: BTreeMap<Zone, Vec<Bin>>,
    /// By zone (none: all of them), place and sign.
    pub marks: BTreeMap<(Option<Zone>, usize, Sign), Mark>,
    pub outs: Vec<Out>,
    bins: usize,
}

impl Timeline {
    pub fn new(start: Timestamp, end: Timestamp, cycle: CycleLength) -> Self {
        let cycles = end.duration_since(start).as_secs() / cycle.seconds() + 1;
        let cycles_a_part = (cycles + MOST_BINS - 1) / MOST_BINS;
        let bins = (cycles + cycles_a_part - 1) / cycles_a_part;
        let part = SignedDuration::from_secs(cycle.seconds() * cycles_a_part);
        let (zones, marks) = (BTreeMap::new(), BTreeMap::new());
        Self { start, end, part, zones, marks, outs: Vec::new(), bins: bins as usize }
    }

    fn bin(&self, time: Timestamp) -> usize {
        let at = time.duration_since(self.start).as_secs() / self.part.as_secs();
        usize::try_from(at).unwrap_or_default().min(self.bins - 1)
    }

    pub fn add(&mut self, sight: &Sight) {
        let snapshot = &sight.snapshot;
        let at = self.bin(snapshot.time);
        for zone in zones(snapshot) {
            if self.zones.len() < MOST_ZONES && !self.zones.contains_key(zone) {
                self.zones.insert(zone.clone(), vec![Bin::default(); self.bins]);
            }
        }
        for (zone, bins) in &mut self.zones {
            let bin = &mut bins[at];
            bin.cycles += 1;
            bin.seen += u32::from(snapshot.global_gaps().next().is_none());
            match sight.assessment.zones.get(zone).map(|finding| &finding.verdict) {
                None | Some(Verdict::Inconclusive { .. }) => bin.unjudged += 1,
                Some(Verdict::Healthy) => {}
                Some(
                    Verdict::ZoneFault
                    | Verdict::ServiceFault { .. }
                    | Verdict::InstanceFault { .. }
                    | Verdict::NodeFault { .. }
                    | Verdict::RolloutInProgress { .. }
                    | Verdict::RegionalFault
                    | Verdict::FaultElsewhere { .. },
                ) => bin.worse += 1,
            }
            for cell in snapshot.cells.values().filter_map(|zones| zones.get(zone)) {
                bin.served += cell.served;
                bin.called += cell.called;
            }
        }
    }

    /// Takes in one zone's cycle.
    pub fn add_moment(&mut self, zone: &Zone, moment: &Moment) {
        let at = self.bin(moment.time);
        if self.zones.len() >= MOST_ZONES && !self.zones.contains_key(zone) {
            return;
        }
        let bins = self.zones.entry(zone.clone()).or_insert_with(|| vec![Bin::default(); self.bins]);
        let bin = &mut bins[at];
        match moment.judged {
            overview::Judged::Healthy => bin.cycles += 1,
            overview::Judged::Worse => (bin.cycles, bin.worse) = (bin.cycles + 1, bin.worse + 1),
            overview::Judged::Not => (bin.cycles, bin.unjudged) = (bin.cycles + 1, bin.unjudged + 1),
            overview::Judged::Past => {}
        }
        if let (Some(served), Some(called)) = (moment.served, moment.called) {
            bin.seen += 1;
            bin.served += served;
            bin.called += called;
        }
    }

    pub fn mark(&mut self, zone: Option<&Zone>, sign: Sign, time: Timestamp, story: Option<usize>) {
        let place = self.bin(time) * MOST_MARKS / self.bins.max(MOST_MARKS);
        let key = (zone.cloned(), place, sign);
        let mark = self.marks.entry(key).or_insert(Mark { time, story, count: 0 });
        mark.count += 1;
    }
}
