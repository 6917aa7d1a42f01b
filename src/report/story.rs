//! What is told one by one: decisions, what was held back, and what could not be judged.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::figure::Figure;
use crate::domain::{CycleLength, HoldReason, Record, Snapshot, Zone};

/// Stories with curves, and stories at all; beyond that they are only counted.
pub(super) const MOST_PLOTTED: usize = 50;
const MOST_TOLD: usize = 1000;
/// Points of all curves: with many zones or short cycles fewer stories have any.
const MOST_POINTS: usize = 200_000;
/// How long before a story's moment its curves begin, and how long after it they go on.
pub(super) const BEFORE: SignedDuration = SignedDuration::from_mins(15);
pub(super) const AFTER: SignedDuration = SignedDuration::from_mins(10);

/// From the weightiest on: who has curves where not all can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Isolated,
    /// A lasting fault that was held back.
    Held,
    /// A fault that was never a decision: it ended first, or the stretch did.
    Passed,
    /// What could not be judged.
    Gap,
}

/// One record, and what led to it and followed.
#[derive(Debug, Clone)]
pub(super) struct Story {
    /// Names it within the page.
    pub id: usize,
    pub kind: Kind,
    pub record: Record,
    /// Pieces of evidence that are not kept.
    pub more_evidence: usize,
    /// Since when the zone was suspect.
    pub suspect_since: Option<Timestamp>,
    /// When the isolation, the fault or the gap ended.
    pub ended: Option<Timestamp>,
    pub figures: Vec<Figure>,
}

impl Story {
    /// The points of its curves, once they are whole.
    fn points(&self, cycle: CycleLength) -> usize {
        let cycles = ((BEFORE + AFTER).as_secs() / cycle.seconds()) as usize;
        self.figures.iter().map(|figure| figure.zones().len() * cycles).sum()
    }

    /// Takes in one more cycle, as long as it is near.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        if snapshot.time <= self.record.time + AFTER {
            self.figures.iter_mut().for_each(|figure| figure.follow(snapshot));
        }
    }
}

/// How often, when and where something was held back for one reason.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub count: usize,
    pub first: Timestamp,
    pub last: Timestamp,
    pub zones: BTreeSet<Zone>,
    /// The newest reason in full.
    pub example: HoldReason,
}

/// All stories, within bounds.
#[derive(Debug, Default)]
pub(super) struct Stories {
    pub told: Vec<Story>,
    /// Those that are only counted.
    pub untold: usize,
    pub isolations: usize,
    /// What was held back, by reason.
    pub held: BTreeMap<String, Tally>,
}

impl Stories {
    pub fn tell(&mut self, mut story: Story, cycle: CycleLength) {
        self.isolations += usize::from(story.kind == Kind::Isolated);
        self.tally(&story);
        // An isolation is told at all costs: guardrails keep them few.
        if self.told.len() >= MOST_TOLD && story.kind != Kind::Isolated {
            self.untold += 1;
            return;
        }
        let room = (MOST_POINTS / story.points(cycle).max(1)).clamp(1, MOST_PLOTTED);
        let mut plotted: Vec<&mut Story> = self.told.iter_mut().filter(|told| !told.figures.is_empty()).collect();
        if !story.figures.is_empty() && plotted.len() >= room {
            match plotted.iter_mut().max_by_key(|told| told.kind) {
                Some(lightest) if lightest.kind > story.kind => lightest.figures.clear(),
                _ => story.figures.clear(),
            }
        }
        self.told.push(story);
    }

    /// Whether another story of that weight may have curves.
    pub fn has_room(&self, kind: Kind) -> bool {
        let plotted = || self.told.iter().filter(|told| !told.figures.is_empty());
        plotted().count() < MOST_PLOTTED || plotted().any(|told| told.kind > kind)
    }

    fn tally(&mut self, story: &Story) {
        let (Kind::Held | Kind::Passed, Some(reason)) = (story.kind, &story.record.reason) else { return };
        let time = story.record.time;
        let new = || Tally { count: 0, first: time, last: time, zones: BTreeSet::new(), example: reason.clone() };
        let tally = self.held.entry(reason.as_str().to_owned()).or_insert_with(new);
        tally.count += 1;
        tally.first = tally.first.min(time);
        if time >= tally.last {
            (tally.last, tally.example) = (time, reason.clone());
        }
        tally.zones.extend(story.record.zone.clone());
    }

    /// In order of time.
    pub fn sort(&mut self) {
        self.told.sort_by_key(|story| (story.record.time, story.kind, story.id));
    }

    pub fn of(&self, kinds: &[Kind]) -> Vec<&Story> {
        self.told.iter().filter(|story| kinds.contains(&story.kind)).collect()
    }
}
