//! Writing one segment after the other, in one chain.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::lock::Lock;
use super::source::{self, Line};
use super::{EXTENSION, GENESIS, Settings, chain_hash, retention, text_of};
use crate::domain::Record;

#[derive(Serialize)]
struct Written<'a> {
    n: u64,
    hash: &'a str,
    prev: &'a str,
    record: &'a RawValue,
}

/// The end of the chain. A segment is opened when there is something to write, so that a volume that can't be written keeps
/// nobody from starting, and is tried again.
#[derive(Debug)]
pub(super) struct Tail {
    settings: Settings,
    lock: Option<Lock>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    number: u64,
    hash: String,
    /// Of the whole lines. What a failed write left behind it is cut off before the next one.
    length: u64,
    since: Timestamp,
    /// Whether the last write failed: the file may be another by now.
    doubtful: bool,
}

impl Tail {
    /// Fails where another process writes. What else is wrong with the folder shows with the first record.
    pub fn new(settings: Settings) -> std::io::Result<Self> {
        let lock = match Lock::take(&settings.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => return Err(error),
            taken => taken.ok().flatten(),
        };
        Ok(Self { settings, lock, open: None })
    }

    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// Writes an entry, and returns its line.
    pub fn append(&mut self, record: &Record) -> std::io::Result<Vec<u8>> {
        self.open = self.open.take().and_then(Open::still_there);
        let full = |open: &Open| {
            open.length >= self.settings.segment_size.get() as u64
                || record.time.duration_since(open.since) >= self.settings.segment_age.signed()
        };
        let begins = self.open.as_ref().is_none_or(full);
        if begins {
            if !self.lock.as_ref().is_some_and(Lock::is_of_folder) {
                self.lock = Lock::take(&self.settings.directory)?;
            }
            let hash = self.open.as_ref().map(|open| open.hash.clone());
            self.open = Some(Open::new(&self.settings.directory, hash, record.time)?);
        }
        let Some(open) = &mut self.open else { return Err(std::io::Error::other("no segment is open")) };
        open.append(record)
    }

    /// Retires what is too old or too much, once that is on record. Returns the lines of it.
    pub fn retire(&mut self, now: Timestamp) -> std::io::Result<Vec<Vec<u8>>> {
        let Some(open) = &self.open else { return Ok(Vec::new()) };
        let Some(retired) = retention::due(&self.settings, &open.path, now)? else { return Ok(Vec::new()) };
        let line = self.append(&retired.record(now))?;
        retired.remove()?;
        Ok(vec![line])
    }

    /// Whether the newest entry was the first one of its segment.
    pub fn has_begun(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.number == 1)
    }
}

impl Open {
    /// Begins a new segment, which continues the chain of the newest one there.
    fn new(directory: &Path, hash: Option<String>, now: Timestamp) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let hash = match hash {
            Some(hash) => hash,
            None => last_hash(directory)?.unwrap_or_else(|| GENESIS.to_owned()),
        };
        let number = newest_number(directory)? + 1;
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        let path = directory.join(format!("audit-{number:08}-{stamp}-{}.{EXTENSION}", std::process::id()));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        File::open(directory)?.sync_all()?;
        tracing::info!(segment = %path.display(), "the audit journal goes on in a new segment");
        Ok(Self { path, file, number: 0, hash, length: 0, since: now, doubtful: false })
    }

    /// The volume may have been mended after a failure, or replaced: then it goes on in a new segment.
    fn still_there(mut self) -> Option<Self> {
        if self.doubtful {
            self.file = OpenOptions::new().append(true).open(&self.path).ok()?;
        }
        self.path.metadata().is_ok_and(|file| file.len() >= self.length).then_some(self)
    }

    fn append(&mut self, record: &Record) -> std::io::Result<Vec<u8>> {
        let text = text_of(record)?;
        let hash = chain_hash(&self.hash, self.number, &text);
        let raw = RawValue::from_string(text)?;
        let line = Written { n: self.number, hash: &hash, prev: &self.hash, record: &raw };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.doubtful = true;
        self.file.set_len(self.length)?;
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.doubtful = false;
        self.length += bytes.len() as u64;
        self.number += 1;
        self.hash = hash;
        Ok(bytes)
    }
}

/// The hash that a new segment continues.
fn last_hash(directory: &Path) -> std::io::Result<Option<String>> {
    for path in source::segments(directory)?.into_iter().rev() {
        let text = source::read_lossily(&path)?;
        let last = text.lines().rev().find_map(|line| serde_json::from_str::<Line>(line).ok());
        if let Some(line) = last {
            return Ok(Some(line.hash));
        }
    }
    Ok(None)
}

fn newest_number(directory: &Path) -> std::io::Result<u64> {
    let numbers = source::segments(directory)?
        .into_iter()
        .filter_map(|path| source::name(&path).strip_prefix("audit-")?.split('-').next()?.parse().ok());
    Ok(numbers.max().unwrap_or(0))
}
