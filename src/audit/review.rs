//! Reading, and checking the chain.

use std::collections::BTreeSet;

use thiserror::Error;

use super::source::{self, Loaded, Segment, Source};
use super::{GENESIS, chain_hash};
use crate::domain::{Event, Record};

/// Digits of an ID as it is listed; as many as tell it apart are enough to name it.
pub const ID_DIGITS: usize = 10;
/// Fewer are no ID.
const FEWEST_DIGITS: usize = 4;
/// Candidates that are named when an ID is not unique.
const MOST_CANDIDATES: usize = 8;

/// One entry, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub segment: String,
    pub number: u64,
    /// Its hash in the chain.
    pub hash: String,
    pub record: Record,
    /// The record exactly as it is written.
    pub text: String,
}

impl Entry {
    /// What people call it by.
    pub fn id(&self) -> &str {
        self.hash.get(..ID_DIGITS).unwrap_or(&self.hash)
    }
}

/// What the check of a chain found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: usize,
    pub entries: u64,
    /// Segments whose last line is incomplete: the process was stopped while writing it.
    pub torn: Vec<String>,
    /// Entries before the oldest ones there that were retired, as is on record.
    pub retired: u64,
    /// Pieces of a part of a journal whose beginning is not in it: what they continue can't be checked.
    pub loose: Vec<String>,
    /// Lines that are no entries.
    pub others: usize,
}

#[derive(Debug, Error)]
pub enum ReviewError {
    #[error("{what} can't be read")]
    Unreadable { what: String, source: std::io::Error },
    #[error("{0} has no audit journal ({why})", why = match .0 {
        Source::Directory(_) => "files audit-*.jsonl",
        Source::File(_) | Source::StandardInput => "no line is an entry of one",
    })]
    Empty(Source),
    #[error("{segment}, line {line}: {why}")]
    Broken { segment: String, line: usize, why: String },
    #[error("`{0}` is no ID: write at least {FEWEST_DIGITS} of the hexadecimal digits that `zoneward audit` lists")]
    NoId(String),
    #[error("no entry has an ID that begins with {0}")]
    Unknown(String),
    #[error("{id} is the beginning of several IDs; which one?\n  {}", .candidates.join("\n  "))]
    Ambiguous { id: String, candidates: Vec<String> },
}

/// All entries, oldest first, and how many lines were none.
pub fn read(source: &Source) -> Result<(Vec<Entry>, usize), ReviewError> {
    let Loaded { segments, others } = source::load(source)?;
    let mut entries = Vec::new();
    for segment in segments {
        for (at, line) in segment.lines {
            let record = serde_json::from_str(line.record.get()).map_err(|error| ReviewError::Broken {
                segment: segment.name.clone(),
                line: at,
                why: format!("not a record: {error}"),
            })?;
            let text = line.record.get().to_owned();
            entries.push(Entry { segment: segment.name.clone(), number: line.n, hash: line.hash, record, text });
        }
    }
    entries.sort_by_key(|entry| entry.record.time);
    Ok((entries, others))
}

/// The one entry that an ID, or its beginning, names; and where it is among the others.
pub fn find(entries: &[Entry], id: &str) -> Result<usize, ReviewError> {
    let id = id.to_ascii_lowercase();
    if id.len() < FEWEST_DIGITS || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ReviewError::NoId(id));
    }
    let named: Vec<usize> = (0..entries.len()).filter(|at| entries[*at].hash.starts_with(&id)).collect();
    match named.as_slice() {
        [] => Err(ReviewError::Unknown(id)),
        [only] => Ok(*only),
        several => {
            let digits = id.len() + 4;
            let candidate = |at: &usize| {
                let Entry { hash, record, .. } = &entries[*at];
                let hash = hash.get(..digits.max(ID_DIGITS)).unwrap_or(hash);
                let zone = record.zone.as_ref().map(|zone| format!(" {zone}")).unwrap_or_default();
                format!("{hash}  {:.0} {}{zone}", record.time, record.event)
            };
            let candidates = several.iter().take(MOST_CANDIDATES).map(candidate).collect();
            Err(ReviewError::Ambiguous { id, candidates })
        }
    }
}

/// Checks that no entry was changed, left out or put in between others, and that those before the oldest were retired. A
/// chain can't show that its newest entries were cut off; a part of a journal can't show what was before it.
pub fn verify(source: &Source) -> Result<Verified, ReviewError> {
    let Loaded { segments, others } = source::load(source)?;
    let mut verified = Verified { others, ..Verified::default() };
    let whole = matches!(source, Source::Directory(_));
    let retired = retired(&segments);
    let mut known: BTreeSet<String> = BTreeSet::from([GENESIS.to_owned()]);
    for segment in segments {
        let broken =
            |line: usize, why: &str| ReviewError::Broken { segment: segment.name.clone(), line, why: why.to_owned() };
        let mut previous: Option<(u64, String)> = None;
        for (at, line) in &segment.lines {
            match &previous {
                Some((_, hash)) if *hash != line.prev => {
                    return Err(broken(*at, "does not follow the entry before it"));
                }
                Some((number, _)) if line.n != number + 1 => {
                    return Err(broken(*at, &format!("is number {} where {} was due", line.n, number + 1)));
                }
                None if whole && line.n != 0 => {
                    return Err(broken(*at, &format!("is number {} where 0 was due", line.n)));
                }
                None if known.contains(&line.prev) => {}
                None if retired.contains(&line.prev) => verified.retired += 1,
                None if whole => {
                    let why =
                        "continues an entry that is not there: a segment was cut or removed, and not by retention";
                    return Err(broken(*at, why));
                }
                None => verified.loose.push(format!("{}, line {at}", segment.name)),
                Some(_) => {}
            }
            if chain_hash(&line.prev, line.n, line.record.get()) != line.hash {
                return Err(broken(*at, "was changed after it was written"));
            }
            known.insert(line.hash.clone());
            previous = Some((line.n, line.hash.clone()));
        }
        verified.segments += 1;
        verified.entries += segment.lines.len() as u64;
        if segment.torn {
            verified.torn.push(segment.name);
        }
    }
    Ok(verified)
}

/// Hashes of retired entries that later ones continue, as entries that are there say.
fn retired(segments: &[Segment]) -> BTreeSet<String> {
    let records = segments.iter().flat_map(|segment| &segment.lines);
    let records = records.filter(|(_, line)| line.record.get().contains(Event::Retired.as_str()));
    let records = records.filter_map(|(_, line)| serde_json::from_str::<Record>(line.record.get()).ok());
    let hashes = records.filter(|record| record.event == Event::Retired).filter_map(|mut record| {
        let hashes = record.figures.remove("hashes")?;
        serde_json::from_value::<Vec<String>>(hashes).ok()
    });
    hashes.flatten().collect()
}
