//! Takes in what each cycle saw and what was made of it, and keeps what the page will need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::figure::{Figure, Measure};
use super::story::{BEFORE, Kind, Stories, Story};
use super::timeline::{Out, Sign, Timeline};
use super::{About, Report};
use crate::domain::{CycleLength, Event, Evidence, Gap, Record, Sight, Verdict, Zone};

/// Of one story.
const MOST_FIGURES: usize = 5;
const MOST_EVIDENCE: usize = 12;

/// Gathers a report, cycle by cycle.
#[derive(Debug)]
pub struct Collector {
    about: About,
    timeline: Timeline,
    /// The newest cycles in full.
    recent: VecDeque<Arc<Sight>>,
    /// Faults that are not decided yet.
    suspects: BTreeMap<Zone, Story>,
    stories: Stories,
    next_id: usize,
}

impl Collector {
    pub fn new(about: About) -> Self {
        Self {
            timeline: Timeline::new(about.start, about.end, about.cycle),
            about,
            recent: VecDeque::new(),
            suspects: BTreeMap::new(),
            stories: Stories::default(),
            next_id: 1,
        }
    }

    /// One cycle: what it saw, and what was put on record.
    pub fn cycle(&mut self, sight: &Arc<Sight>, records: &[Record]) {
        let snapshot = &sight.snapshot;
        self.timeline.add(sight);
        self.stories.told.iter_mut().chain(self.suspects.values_mut()).for_each(|story| story.follow(snapshot));
        self.recent.push_back(Arc::clone(sight));
        while self.recent.front().is_some_and(|oldest| oldest.snapshot.time < snapshot.time - BEFORE) {
            self.recent.pop_front();
        }
        records.iter().for_each(|record| self.record(record, sight));
    }

    #[cfg(test)]
    pub(super) fn kept_cycles(&self) -> usize {
        self.recent.len()
    }

    /// Ends it. The summary has the figures.
    pub fn finish(mut self, summary: Record) -> Report {
        std::mem::take(&mut self.suspects).into_values().for_each(|story| self.stories.tell(story, self.about.cycle));
        self.stories.sort();
        let isolated = self.stories.of(&[Kind::Isolated]).into_iter();
        let out = |story: &Story| {
            let (zone, from) = (story.record.zone.clone()?, story.record.time);
            Some(Out { zone, from, until: story.ended, said: "would be isolated" })
        };
        self.timeline.outs = isolated.filter_map(out).collect();
        Report { about: self.about, summary, timeline: self.timeline, stories: self.stories }
    }

    fn record(&mut self, record: &Record, sight: &Sight) {
        let (time, zone) = (record.time, record.zone.as_ref());
        match record.event {
            Event::Suspect => {
                let story = self.story(Kind::Passed, record);
                self.timeline.mark(zone, Sign::Suspect, time, Some(story.id));
                if let Some(zone) = zone {
                    self.suspects.insert(zone.clone(), story);
                }
            }
            Event::Isolate => self.decision(Kind::Isolated, Sign::Isolate, record),
            Event::Blocked => self.decision(Kind::Held, Sign::Held, record),
            Event::Gap => self.decision(Kind::Gap, Sign::Gap, record),
            Event::Clear => {
                self.timeline.mark(zone, Sign::Clear, time, None);
                if let Some(mut story) = zone.and_then(|zone| self.suspects.remove(zone)) {
                    story.ended = Some(time);
                    self.stories.tell(story, self.about.cycle);
                }
                self.end(time, |story| story.kind == Kind::Held && story.record.zone.as_ref() == zone);
            }
            Event::Restore => {
                self.timeline.mark(zone, Sign::Restore, time, None);
                self.end(time, |story| story.kind == Kind::Isolated && story.record.zone.as_ref() == zone);
            }
            Event::Observed => {
                let present = gaps(sight);
                let over = |gap: &Gap| gap.zone() == zone && !present.contains(&(gap.as_str(), zone));
                self.end(time, |story| gap_of(&story.record).is_some_and(over));
            }
            Event::Started
            | Event::Stopped
            | Event::Unrecorded
            | Event::Retired
            | Event::HandedOver
            | Event::ConfigurationChanged
            | Event::ConfigurationRefused
            | Event::Paused
            | Event::Resumed
            | Event::Reclassified
            | Event::RolledBack
            | Event::DrillBlocked
            | Event::DrillAborted
            | Event::DrillPassed
            | Event::Recovering
            | Event::Relapsed
            | Event::Mended
            | Event::Adopted
            | Event::Acknowledged
            | Event::Admitted
            | Event::Refused
            | Event::Step
            | Event::Isolated
            | Event::Restored
            | Event::Effective
            | Event::Ineffective
            | Event::Fault
            | Event::Repair
            | Event::Summary => {}
        }
    }

    fn decision(&mut self, kind: Kind, sign: Sign, record: &Record) {
        let mut story = self.story(kind, record);
        let zone = record.zone.as_ref().filter(|_| kind != Kind::Gap);
        // What led to a decision is told with it, and answers to the same name.
        if let Some(earlier) = zone.and_then(|zone| self.suspects.remove(zone)) {
            (story.id, story.suspect_since) = (earlier.id, Some(earlier.record.time));
        }
        self.timeline.mark(record.zone.as_ref(), sign, record.time, Some(story.id));
        self.stories.tell(story, self.about.cycle);
    }

    fn end(&mut self, time: Timestamp, which: impl Fn(&Story) -> bool) {
        for story in self.stories.told.iter_mut().filter(|story| story.ended.is_none() && which(story)) {
            story.ended = Some(time);
        }
    }

    fn story(&mut self, kind: Kind, record: &Record) -> Story {
        let id = self.next_id;
        self.next_id += 1;
        let figures = if self.stories.has_room(kind) { self.figures(record) } else { Vec::new() };
        let mut record = record.clone();
        let more_evidence = record.evidence.len().saturating_sub(MOST_EVIDENCE);
        record.evidence.truncate(MOST_EVIDENCE);
        Story { id, kind, record, more_evidence, suspect_since: None, ended: None, figures }
    }

    fn figures(&self, record: &Record) -> Vec<Figure> {
        let past: Vec<Arc<Sight>> = self.recent.iter().cloned().collect();
        figures(record, &past, self.about.cycle)
    }
}

/// Each service and signal once, strongest first, and the traffic of the first.
pub(super) fn figures(record: &Record, past: &[Arc<Sight>], cycle: CycleLength) -> Vec<Figure> {
    let (zone, time) = (record.zone.as_ref(), record.time);
    let plain = |measure, service| Figure::of_zone(measure, service, zone, time, past);
    let traffic = Measure::Traffic(cycle);
    if let Some(gap) = gap_of(record) {
        return if shows(gap) { vec![plain(traffic, None), plain(Measure::Scraped, None)] } else { Vec::new() };
    }
    let mut seen = BTreeSet::new();
    let once = |item: &&Evidence| seen.insert((item.service.clone(), item.signal));
    let items: Vec<&Evidence> = record.evidence.iter().filter(once).take(MOST_FIGURES).collect();
    let Some(first) = items.first() else { return Vec::new() };
    let traffic = plain(traffic, first.service.as_ref());
    let all = items.iter().enumerate().flat_map(|(at, item)| Figure::of_evidence(item, zone, time, past, at > 0));
    all.take(MOST_FIGURES).chain([traffic]).collect()
}

/// What a record says could not be judged.
pub(super) fn gap_of(record: &Record) -> Option<&Gap> {
    match &record.verdict {
        Some(Verdict::Inconclusive { gaps }) if record.event == Event::Gap => gaps.first(),
        _ => None,
    }
}

/// Whether traffic and scrapes show the gap.
const fn shows(gap: &Gap) -> bool {
    match gap {
        Gap::ScrapesLost { .. } | Gap::NoTraffic { .. } | Gap::NoPeer { .. } | Gap::TooFewZonesScraped { .. } => true,
        Gap::QueryFailed { .. }
        | Gap::PartialAnswer { .. }
        | Gap::NoRequests { .. }
        | Gap::TooFewZones { .. }
        | Gap::TooManyZones { .. }
        | Gap::TooLittleData { .. }
        | Gap::Partition { .. }
        | Gap::DuplicatedTargets { .. }
        | Gap::ScrapeIntervalTooLong { .. } => false,
    }
}

/// All gaps of a cycle, by kind and zone.
fn gaps(sight: &Sight) -> BTreeSet<(&'static str, Option<&Zone>)> {
    let judged = sight.assessment.zones.values().flat_map(|finding| finding.verdict.gaps());
    sight.snapshot.gaps.iter().chain(judged).map(|gap| (gap.as_str(), gap.zone())).collect()
}
