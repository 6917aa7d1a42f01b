//! What is too old or too much: the oldest segments go first, and the inputs that only they cite go with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::source::{self, Segment};
use super::{Settings, inputs};
use crate::domain::{Event, Record, Zone};

/// An isolation whose end is not on record for so long keeps nothing any more.
const LONGEST_STORY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is to be removed.
#[derive(Debug, Default)]
pub(super) struct Retired {
    segments: Vec<PathBuf>,
    inputs: Vec<PathBuf>,
    entries: usize,
    /// Of the first and the last entry.
    stretch: Option<(Timestamp, Timestamp)>,
    /// Those of removed entries that entries which are kept continue.
    hashes: BTreeSet<String>,
    why: BTreeSet<String>,
}

/// As much of a record as retention goes by.
#[derive(Deserialize)]
struct Glance {
    time: Timestamp,
    event: Event,
    #[serde(default)]
    zone: Option<Zone>,
    #[serde(default)]
    inputs: Option<String>,
}

/// A file beside the journal, and its size.
struct Held {
    path: PathBuf,
    size: u64,
}

/// What is due, if anything. The active segment stays.
pub(super) fn due(settings: &Settings, active: &Path, now: Timestamp) -> std::io::Result<Option<Retired>> {
    let held = |path: PathBuf| Ok(Held { size: path.metadata()?.len(), path });
    let held = |paths: Vec<PathBuf>| paths.into_iter().map(held).collect::<std::io::Result<Vec<Held>>>();
    let (mut files, inputs) = (held(source::segments(&settings.directory)?)?, held(inputs::all(&settings.directory)?)?);
    let size: u64 = files.iter().chain(&inputs).map(|file| file.size).sum();
    files.retain(|file| file.path != active);
    let most = (settings.keep_size.get() - settings.segment_size.get()) as u64;
    let oldest = files.first().map(|file| of(&file.path)).transpose()?;
    if size <= most && !oldest.is_some_and(|segment| ended_before(&segment, now, settings)) {
        return Ok(None);
    }
    let mut retired = Retired::default();
    let by_size = format!("all that is kept is bounded by audit.keep_size ({})", settings.keep_size);
    // What is decided is worth more than what it rests on, which may take half of the room.
    let (mut left, mut of_inputs) = (size, inputs.iter().map(|file| file.size).sum::<u64>());
    for file in inputs.iter().take_while(|file| {
        let goes = left > most && of_inputs > most / 2;
        (left, of_inputs) = if goes { (left - file.size, of_inputs - file.size) } else { (left, of_inputs) };
        goes
    }) {
        retired.inputs.push(file.path.clone());
        retired.why.insert(by_size.clone());
    }
    let kept_for = of(active)?;
    let segments = files.iter().map(|file| of(&file.path)).collect::<std::io::Result<Vec<Segment>>>()?;
    let told_from = oldest_story(segments.iter().chain([&kept_for]), now);
    for (at, (file, segment)) in files.iter().zip(&segments).enumerate() {
        if left > most {
            retired.why.insert(by_size.clone());
        } else if ended_before(segment, now, settings) && told_from.is_none_or(|from| at < from) {
            retired.why.insert(format!("they are older than audit.keep_for ({})", settings.keep_for));
        } else {
            break;
        }
        left -= file.size;
        retired.segments.push(file.path.clone());
    }
    let (gone, kept) = segments.split_at(retired.segments.len());
    retired.take_in(gone, kept.iter().chain([&kept_for]), &inputs);
    Ok((!retired.segments.is_empty() || !retired.inputs.is_empty()).then_some(retired))
}

impl Retired {
    /// What goes with the segments that go, and what of them the others continue.
    fn take_in<'a>(&mut self, gone: &[Segment], kept: impl Iterator<Item = &'a Segment> + Clone, inputs: &[Held]) {
        let hashes: BTreeSet<&String> =
            gone.iter().flat_map(|segment| &segment.lines).map(|(_, line)| &line.hash).collect();
        self.entries = hashes.len();
        let continued = kept.clone().filter_map(|segment| segment.lines.first()).map(|(_, line)| &line.prev);
        self.hashes = continued.filter(|prev| hashes.contains(prev)).cloned().collect();
        let mut times = gone.iter().flat_map(glances).map(|glance| glance.time);
        self.stretch = times.next().map(|first| (first, times.last().unwrap_or(first)));
        if !gone.is_empty() {
            let cited: BTreeSet<String> = kept.flat_map(glances).filter_map(|glance| glance.inputs).collect();
            let known: BTreeSet<&PathBuf> = self.inputs.iter().collect();
            let nobody_s = |file: &&Held| !cited.iter().any(|hash| inputs::is_of(&file.path, hash));
            let more = inputs.iter().filter(|file| !known.contains(&file.path)).filter(nobody_s);
            let more: Vec<PathBuf> = more.map(|file| file.path.clone()).collect();
            self.inputs.extend(more);
        }
    }
}

fn of(path: &Path) -> std::io::Result<Segment> {
    let text = source::read_lossily(path)?;
    // A segment that is broken goes when its time has come: `verify` has told of it until then.
    let whole = |error| Segment { name: format!("{error}"), lines: Vec::new(), torn: true };
    Ok(source::segment(source::name(path), &text).unwrap_or_else(whole))
}

fn glances(segment: &Segment) -> impl Iterator<Item = Glance> {
    segment.lines.iter().filter_map(|(_, line)| serde_json::from_str(line.record.get()).ok())
}

fn ended_before(segment: &Segment, now: Timestamp, settings: &Settings) -> bool {
    let last = segment.lines.last().and_then(|(_, line)| serde_json::from_str::<Glance>(line.record.get()).ok());
    last.is_none_or(|glance| now.duration_since(glance.time) > settings.keep_for.signed())
}

/// The segment in which the oldest isolation began that still lasts.
fn oldest_story<'a>(segments: impl Iterator<Item = &'a Segment>, now: Timestamp) -> Option<usize> {
    let mut begun: BTreeMap<Zone, usize> = BTreeMap::new();
    for (at, segment) in segments.enumerate() {
        for Glance { time, event, zone, .. } in glances(segment) {
            let Some(zone) = zone else { continue };
            if matches!(event, Event::Isolate | Event::Admitted) && now.duration_since(time) < LONGEST_STORY {
                begun.entry(zone).or_insert(at);
            } else if event == Event::Restored {
                begun.remove(&zone);
            }
        }
    }
    begun.into_values().min()
}

impl Retired {
    /// What goes on record before anything is removed, so that the chain shows it.
    pub fn record(&self, now: Timestamp) -> Record {
        let names = |paths: &[PathBuf]| paths.iter().map(|path| source::name(path).to_owned()).collect::<Vec<_>>();
        let stretch = self.stretch.map(|(first, last)| format!(", of {first:.0} to {last:.0}")).unwrap_or_default();
        let message = format!(
            "the {} oldest segments with {} entries{stretch}, and {} files that decisions rested on, are removed: {}",
            self.segments.len(),
            self.entries,
            self.inputs.len(),
            self.why.iter().cloned().collect::<Vec<_>>().join(", and ")
        );
        Record::new(now, Event::Retired, message)
            .figure("segments", names(&self.segments))
            .figure("inputs", names(&self.inputs))
            .figure("hashes", self.hashes.iter().cloned().collect::<Vec<_>>())
    }

    pub fn remove(&self) -> std::io::Result<()> {
        for path in self.segments.iter().chain(&self.inputs) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
