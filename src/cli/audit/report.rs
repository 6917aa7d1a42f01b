//! `zoneward audit report`: a stretch of the journal as one web page, for the post-mortem.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::in_words;
use crate::audit::{self, Entry, Source};
use crate::cli::{Outcome, render};
use crate::domain::{CycleLength, Event, Period, ServiceId, Zone};
use crate::pipeline::Inputs;
use crate::report::{self, Review, Told};

/// Entries whose inputs are read; each takes a moment in a large mesh.
const MOST_READ: usize = 50;

pub(super) fn write(
    source: &Source,
    entries: &[Entry],
    (since, until): (Option<Timestamp>, Option<Timestamp>),
    zone: Option<&str>,
    file: &Path,
) -> anyhow::Result<Outcome> {
    report::check(file).with_context(|| format!("{} can't be written", file.display()))?;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { bail!("the journal has no entries") };
    let start = since.unwrap_or(first.record.time);
    let end = until.unwrap_or(last.record.time).max(start);
    let within = |entry: &Entry| entry.record.time >= start && entry.record.time <= end;
    let wanted = |name: &Zone| zone.is_none_or(|zone| zone == name.as_str());
    let zones: BTreeSet<&Zone> = entries.iter().filter_map(|entry| entry.record.zone.as_ref()).collect();
    let mut pages = Pages { source, cycle: None, read: 0, unread: BTreeSet::new() };
    let mut stories: Vec<Vec<Told>> = Vec::new();
    for zone in zones.into_iter().filter(|zone| wanted(zone)) {
        // A story is told as a whole, if any of it is within.
        let of_zone = audit::stories(entries, zone).into_iter().filter(|story| story.iter().any(|entry| within(entry)));
        stories.extend(of_zone.map(|story| story.into_iter().map(|entry| pages.told(entry)).collect()));
    }
    stories.sort_by_key(|story| story.first().map(|told| told.record.time));
    if stories.is_empty() && zone.is_some() {
        bail!("nothing is on record of {} from {start:.0} to {end:.0}", zone.unwrap_or_default());
    }
    let times = || stories.iter().flatten().map(|told| told.record.time);
    let (start, end) = (times().min().unwrap_or(start).min(start), times().max().unwrap_or(end).max(end));
    let others = entries.iter().filter(|entry| entry.record.zone.is_none() && within(entry));
    let others = others.map(|entry| Told { id: entry.id().to_owned(), record: entry.record.clone(), seen: Vec::new() });
    let verified = match source {
        Source::StandardInput => "not checked, as standard input can be read only once".to_owned(),
        Source::Directory(_) | Source::File(_) => match audit::verify(source) {
            Ok(verified) => in_words(&verified).join("; "),
            Err(error) => format!("BROKEN: {error}"),
        },
    };
    let cycle = pages.cycle.unwrap_or_else(|| CycleLength::at_least(Period::from_secs(15)));
    for why in &pages.unread {
        render::note(&format!("without curves: {why}"));
    }
    let review = Review { start, end, journal: source.to_string(), verified, cycle, stories, others: others.collect() };
    let html = review.html();
    report::write(file, &html).with_context(|| format!("{} can't be written", file.display()))?;
    render::note(&format!("the report is in {} ({} kB)", file.display(), html.len().div_ceil(1000)));
    Ok(Outcome::Done)
}

/// What decisions rested on, read as far as that is worth it.
struct Pages<'a> {
    source: &'a Source,
    cycle: Option<CycleLength>,
    read: usize,
    /// Why some could not be.
    unread: BTreeSet<String>,
}

impl Pages<'_> {
    fn told(&mut self, entry: &Entry) -> Told {
        let record = entry.record.clone();
        let mut seen = Vec::new();
        let worth = matches!(record.event, Event::Isolate | Event::Blocked) && self.read < MOST_READ;
        if let Some(cited) = record.inputs.as_ref().filter(|_| worth) {
            self.read += 1;
            match self.inputs(cited) {
                Ok(inputs) => {
                    self.cycle = Some(inputs.cycle());
                    seen = inputs.seen();
                }
                Err(error) => {
                    self.unread.insert(format!("{error:#}"));
                }
            }
        }
        // What no evidence is about is not drawn.
        let services: BTreeSet<&ServiceId> = record.evidence.iter().filter_map(|item| item.service.as_ref()).collect();
        if record.evidence.iter().all(|item| item.service.is_some()) {
            seen.iter_mut().for_each(|snapshot| snapshot.cells.retain(|service, _| services.contains(service)));
        }
        Told { id: entry.id().to_owned(), record, seen }
    }

    fn inputs(&self, cited: &str) -> anyhow::Result<Inputs> {
        Ok(Inputs::read(&audit::inputs(self.source, cited)?)?)
    }
}
