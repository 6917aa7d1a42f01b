//! Reading, and checking the chain.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{EXTENSION, GENESIS, chain_hash};
use crate::domain::Record;

/// One entry, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub segment: String,
    pub number: u64,
    pub record: Record,
}

/// What the check of a chain found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: usize,
    pub entries: u64,
    /// Segments whose last line is incomplete: the process was stopped while writing it.
    pub torn: Vec<String>,
}

#[derive(Debug, Error)]
pub enum ReviewError {
    #[error("{} can't be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} has no audit journal (files audit-*.jsonl)", .0.display())]
    Empty(PathBuf),
    #[error("{segment}, line {line}: {why}")]
    Broken { segment: String, line: usize, why: String },
}

#[derive(Deserialize)]
struct Line {
    n: u64,
    hash: String,
    prev: String,
    record: Box<RawValue>,
}

/// Segments, oldest first.
fn segments(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with("audit-") && path.extension().is_some_and(|e| e == EXTENSION) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The hash that a new segment continues.
pub(super) fn last_hash(directory: &Path) -> std::io::Result<Option<String>> {
    for path in segments(directory)?.into_iter().rev() {
        let text = read_lossily(&path)?;
        let last = text.lines().rev().find_map(|line| serde_json::from_str::<Line>(line).ok());
        if let Some(line) = last {
            return Ok(Some(line.hash));
        }
    }
    Ok(None)
}

/// A line may be torn within a character.
fn read_lossily(path: &Path) -> std::io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

/// The number in the newest segment's name: names sort by it, whatever the clock says.
pub(super) fn newest_number(directory: &Path) -> std::io::Result<u64> {
    let numbers = segments(directory)?
        .into_iter()
        .filter_map(|path| path.file_name()?.to_str()?.strip_prefix("audit-")?.split('-').next()?.parse().ok());
    Ok(numbers.max().unwrap_or(0))
}

struct Segment {
    name: String,
    lines: Vec<Line>,
    torn: bool,
}

fn load(directory: &Path) -> Result<Vec<Segment>, ReviewError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ReviewError::Unreadable { path, source }
    };
    let paths = segments(directory).map_err(unreadable(directory))?;
    if paths.is_empty() {
        return Err(ReviewError::Empty(directory.to_owned()));
    }
    let segment = |path: PathBuf| {
        let text = read_lossily(&path).map_err(unreadable(&path))?;
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let last = text.lines().count();
        let mut segment = Segment { name, lines: Vec::new(), torn: false };
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            match serde_json::from_str(line) {
                Ok(line) => segment.lines.push(line),
                Err(_) if i + 1 == last && !text.ends_with('\n') => segment.torn = true,
                Err(error) => {
                    let why = format!("not an entry: {error}");
                    return Err(ReviewError::Broken { segment: segment.name, line: i + 1, why });
                }
            }
        }
        Ok(segment)
    };
    paths.into_iter().map(segment).collect()
}

/// All entries, oldest first.
pub fn read(directory: &Path) -> Result<Vec<Entry>, ReviewError> {
    let mut entries = Vec::new();
    for segment in load(directory)? {
        for (i, line) in segment.lines.into_iter().enumerate() {
            let record = serde_json::from_str(line.record.get()).map_err(|error| ReviewError::Broken {
                segment: segment.name.clone(),
                line: i + 1,
                why: format!("not a record: {error}"),
            })?;
            entries.push(Entry { segment: segment.name.clone(), number: line.n, record });
        }
    }
    entries.sort_by_key(|entry| entry.record.time);
    Ok(entries)
}

/// Checks that no entry was changed, left out or put in between others. A chain can't show that its newest entries were
/// cut off, nor that its oldest segments were removed.
pub fn verify(directory: &Path) -> Result<Verified, ReviewError> {
    let mut verified = Verified::default();
    let mut known: BTreeSet<String> = BTreeSet::from([GENESIS.to_owned()]);
    for (i, segment) in load(directory)?.into_iter().enumerate() {
        let broken =
            |line: usize, why: &str| ReviewError::Broken { segment: segment.name.clone(), line, why: why.to_owned() };
        let mut previous: Option<String> = None;
        for (at, line) in segment.lines.iter().enumerate() {
            match &previous {
                Some(hash) if *hash != line.prev => return Err(broken(at + 1, "does not follow the entry before it")),
                None if i > 0 && !known.contains(&line.prev) => {
                    return Err(broken(at + 1, "continues an entry that is not there: a segment was cut or removed"));
                }
                Some(_) | None => {}
            }
            if line.n != at as u64 {
                return Err(broken(at + 1, &format!("is number {} where {at} was due", line.n)));
            }
            if chain_hash(&line.prev, line.n, line.record.get()) != line.hash {
                return Err(broken(at + 1, "was changed after it was written"));
            }
            known.insert(line.hash.clone());
            previous = Some(line.hash.clone());
        }
        verified.segments += 1;
        verified.entries += segment.lines.len() as u64;
        if segment.torn {
            verified.torn.push(segment.name);
        }
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::Journal;
    use super::*;
    use crate::domain::Event;
    use crate::ports::AuditSink as _;

    async fn write(directory: &Path, second: i64, messages: &[&str]) -> PathBuf {
        let journal = Journal::open(directory, Timestamp::from_second(second).unwrap()).unwrap();
        for message in messages {
            let record = Record::new(Timestamp::from_second(second).unwrap(), Event::Suspect, *message);
            journal.append(record).await.unwrap();
        }
        journal.path().to_owned()
    }

    #[tokio::test]
    async fn a_journal_over_several_processes_is_one_chain() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 1, &["a", "b"]).await;
        write(directory.path(), 2, &["c"]).await;
        write(directory.path(), 3, &["d", "e"]).await;
        let verified = verify(directory.path()).unwrap();
        assert_eq!((verified.segments, verified.entries), (3, 5));
        let messages: Vec<String> = read(directory.path()).unwrap().into_iter().map(|e| e.record.message).collect();
        assert_eq!(messages, ["a", "b", "c", "d", "e"]);
    }

    #[tokio::test]
    async fn changed_removed_and_repeated_entries_are_found() {
        type Meddle = fn(&str) -> String;
        let cases: [(Meddle, &str); 4] = [
            (|text| text.replace("second", "seconds"), "was changed"),
            (
                |text| text.lines().filter(|l| !l.contains("second")).map(|l| format!("{l}\n")).collect(),
                "does not follow",
            ),
            (|text| text.lines().map(|l| format!("{l}\n{l}\n")).collect(), "does not follow"),
            (|text| text.lines().filter(|l| !l.contains("third")).map(|l| format!("{l}\n")).collect(), "not there"),
        ];
        for (meddle, expected) in cases {
            let directory = tempfile::tempdir().unwrap();
            let path = write(directory.path(), 1, &["first", "second", "third"]).await;
            write(directory.path(), 2, &["next"]).await;
            std::fs::write(&path, meddle(&std::fs::read_to_string(&path).unwrap())).unwrap();
            let error = verify(directory.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_does_not_break_the_chain() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 2_000, &["a"]).await;
        write(directory.path(), 1_000, &["b"]).await;
        write(directory.path(), 3_000, &["c"]).await;
        assert_eq!(verify(directory.path()).unwrap().entries, 3);
    }

    #[tokio::test]
    async fn a_line_torn_by_a_crash_is_reported_and_the_chain_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), 1, &["a", "zone \u{2014} b"]).await;
        let text = std::fs::read(&path).unwrap();
        let within_a_character = text.iter().rposition(|byte| *byte == 0xe2).unwrap() + 2;
        std::fs::write(&path, &text[..within_a_character]).unwrap();
        write(directory.path(), 2, &["c"]).await;
        let verified = verify(directory.path()).unwrap();
        assert_eq!((verified.entries, verified.torn.len()), (2, 1));
        assert_eq!(read(directory.path()).unwrap().len(), 2);
    }
}
