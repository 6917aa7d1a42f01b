//! Where a journal is read from: a directory of segments, one of them, or lines on standard input.

use std::fmt;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::EXTENSION;
use super::review::ReviewError;

/// Longer lines are no entries.
const LONGEST_LINE: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The whole set.
    Directory(PathBuf),
    File(PathBuf),
    /// Lines of a journal, or a log that has them among others, as with `audit.stdout`.
    StandardInput,
}

impl Source {
    /// `-` is standard input.
    pub fn of(path: &Path) -> Self {
        if path == Path::new("-") {
            Self::StandardInput
        } else if path.is_file() {
            Self::File(path.to_owned())
        } else {
            Self::Directory(path.to_owned())
        }
    }

    /// Where files beside the journal are, if anywhere.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Directory(folder) => Some(folder),
            Self::File(file) => file.parent(),
            Self::StandardInput => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) | Self::File(path) => write!(f, "{}", path.display()),
            Self::StandardInput => write!(f, "standard input"),
        }
    }
}

/// One line of a journal.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub n: u64,
    pub hash: String,
    pub prev: String,
    pub record: Box<RawValue>,
}

/// Lines that follow each other, as far as where they come from tells.
pub(super) struct Segment {
    pub name: String,
    /// Each with its number in the file.
    pub lines: Vec<(usize, Line)>,
    /// Whether the last line is incomplete.
    pub torn: bool,
}

/// All that was read.
pub(super) struct Loaded {
    pub segments: Vec<Segment>,
    /// Lines that are no entries, among others in a log.
    pub others: usize,
}

/// Segments of a directory, oldest first: names sort by their number, whatever the clock says.
pub(super) fn segments(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if name(&path).starts_with("audit-") && path.extension().is_some_and(|e| e == EXTENSION) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// A line may be torn within a character.
pub(super) fn read_lossily(path: &Path) -> std::io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

pub(super) fn load(source: &Source) -> Result<Loaded, ReviewError> {
    let unreadable = |path: &Path, source| ReviewError::Unreadable { what: path.display().to_string(), source };
    let paths = match source {
        Source::StandardInput => return stream(std::io::stdin().lock()),
        Source::File(path) => vec![path.clone()],
        Source::Directory(directory) => segments(directory).map_err(|error| unreadable(directory, error))?,
    };
    if paths.is_empty() {
        return Err(ReviewError::Empty(source.clone()));
    }
    let of_file = |path: PathBuf| {
        let text = read_lossily(&path).map_err(|error| unreadable(&path, error))?;
        segment(name(&path), &text)
    };
    Ok(Loaded { segments: paths.into_iter().map(of_file).collect::<Result<_, _>>()?, others: 0 })
}

pub(super) fn segment(name: &str, text: &str) -> Result<Segment, ReviewError> {
    let mut segment = Segment { name: name.to_owned(), lines: Vec::new(), torn: false };
    let last = text.lines().count();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_str(line) {
            Ok(line) => segment.lines.push((i + 1, line)),
            Err(_) if i + 1 == last && !text.ends_with('\n') => segment.torn = true,
            Err(error) => {
                let why = format!("not an entry: {error}");
                return Err(ReviewError::Broken { segment: segment.name, line: i + 1, why });
            }
        }
    }
    Ok(segment)
}

/// Entries among the lines of a log, which may have something before them, such as the name of a pod. Those of several
/// processes may be mixed: each goes behind the entry that it continues.
fn stream(mut input: impl BufRead) -> Result<Loaded, ReviewError> {
    let mut loaded = Loaded { segments: Vec::new(), others: 0 };
    let mut buffer = Vec::new();
    for number in 1.. {
        buffer.clear();
        let read = std::io::Read::take(&mut input, LONGEST_LINE as u64).read_until(b'\n', &mut buffer);
        let what = || "standard input".to_owned();
        if read.map_err(|source| ReviewError::Unreadable { what: what(), source })? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer);
        let text = text.trim_end();
        let entry = text.find("{\"n\":").and_then(|at| serde_json::from_str::<Line>(&text[at..]).ok());
        let Some(line) = entry else {
            loaded.others += usize::from(!text.is_empty());
            continue;
        };
        let ends_before = |segment: &&mut Segment| segment.lines.last().is_some_and(|(_, last)| last.hash == line.prev);
        match loaded.segments.iter_mut().find(ends_before) {
            Some(segment) if line.n > 0 => segment.lines.push((number, line)),
            _ => loaded.segments.push(Segment { name: what(), lines: vec![(number, line)], torn: false }),
        }
    }
    if loaded.segments.is_empty() {
        return Err(ReviewError::Empty(Source::StandardInput));
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_among_the_lines_of_a_log_and_put_in_order() {
        let entry = |n: u64, prev: &str, hash: &str| {
            format!("{{\"n\":{n},\"hash\":\"{hash}\",\"prev\":\"{prev}\",\"record\":{{}}}}\n")
        };
        let log = [
            "{\"timestamp\":\"…\",\"level\":\"INFO\"}\n".to_owned(),
            format!("[pod/zoneward-1] {}", entry(3, "x", "a")),
            entry(0, "y", "b"),
            entry(4, "a", "c"),
            "{\"n\":5,\"hash\":\n".to_owned(),
            entry(1, "b", "d"),
        ];
        let loaded = stream(log.concat().as_bytes()).unwrap();
        let hashes: Vec<Vec<&str>> =
            loaded.segments.iter().map(|s| s.lines.iter().map(|(_, line)| line.hash.as_str()).collect()).collect();
        assert_eq!(hashes, [["a", "c"], ["b", "d"]]);
        assert_eq!(loaded.others, 2);
        assert!(matches!(stream("no journal\n".as_bytes()), Err(ReviewError::Empty(_))));
    }
}
