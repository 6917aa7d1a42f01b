//! The newest hour of each zone, of which the status page draws a strip.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use crate::domain::overview::{Judged, Moment, course_cycles};
use crate::domain::{Calls, CycleLength, Sight, Snapshot, Zone};

/// Zones beyond so many are not followed.
const MOST_ZONES: usize = 64;

/// What each zone did and how it was judged, cycle by cycle.
#[derive(Debug, Clone)]
pub(super) struct Course {
    cycles: usize,
    moments: BTreeMap<Zone, VecDeque<Moment>>,
    /// The verdict on each zone, and since when it is that.
    verdicts: BTreeMap<Zone, (&'static str, Timestamp)>,
}

impl Course {
    pub const fn new(cycle: CycleLength) -> Self {
        Self { cycles: course_cycles(cycle), moments: BTreeMap::new(), verdicts: BTreeMap::new() }
    }

    /// Takes in a cycle of which nothing was judged.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        self.add(snapshot, |_| Judged::Past);
    }

    pub fn judged(&mut self, sight: &Sight) {
        let zones = &sight.assessment.zones;
        for (zone, finding) in zones {
            let (verdict, time) = (finding.verdict.as_str(), sight.snapshot.time);
            let known = self.verdicts.entry(zone.clone()).or_insert((verdict, time));
            if known.0 != verdict {
                *known = (verdict, time);
            }
        }
        self.verdicts.retain(|zone, _| zones.contains_key(zone));
        self.add(&sight.snapshot, |zone| zones.get(zone).map_or(Judged::Not, |finding| Judged::by(&finding.verdict)));
    }

    fn add(&mut self, snapshot: &Snapshot, judged: impl Fn(&Zone) -> Judged) {
        let mut sums: BTreeMap<&Zone, (Calls, Calls)> = BTreeMap::new();
        for (zone, cell) in snapshot.cells.values().flatten() {
            let (served, called) = sums.entry(zone).or_default();
            *served += cell.served;
            *called += cell.called;
        }
        for zone in sums.keys() {
            if self.moments.len() < MOST_ZONES && !self.moments.contains_key(*zone) {
                self.moments.insert((*zone).clone(), VecDeque::new());
            }
        }
        // No data is not zero.
        let seen = snapshot.global_gaps().next().is_none();
        for (zone, moments) in &mut self.moments {
            let (served, called) = seen.then(|| sums.get(zone).copied().unwrap_or_default()).unzip();
            moments.push_back(Moment { time: snapshot.time, served, called, judged: judged(zone) });
            let over = moments.len().saturating_sub(self.cycles);
            moments.drain(..over);
        }
        // A zone that is gone for all that time is gone.
        let busy = |calls: Option<Calls>| calls.is_some_and(|calls| calls.total > 0.0);
        self.moments.retain(|_, moments| moments.iter().any(|it| busy(it.served) || busy(it.called)));
    }

    pub fn of(&self, zone: &Zone) -> Vec<Moment> {
        self.moments.get(zone).into_iter().flatten().cloned().collect()
    }

    /// Since when the verdict on a zone is what it is.
    pub fn since(&self, zone: &Zone) -> Option<Timestamp> {
        self.verdicts.get(zone).map(|(_, since)| *since)
    }
}
