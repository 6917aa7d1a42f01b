//! Writing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{EXTENSION, GENESIS, chain_hash, review};
use crate::domain::{Record, StepState};
use crate::ports::{AuditError, AuditSink};

/// One process' segment.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    tail: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    number: u64,
    hash: String,
    /// Of the whole lines. What a failed write left behind it is cut off before the next one.
    length: u64,
}

#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub n: u64,
    pub hash: &'a str,
    pub prev: &'a str,
    pub record: &'a RawValue,
}

impl Journal {
    /// Begins a new segment, which continues the chain of the newest one there.
    pub fn open(directory: &Path, now: Timestamp) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let hash = review::last_hash(directory)?.unwrap_or_else(|| GENESIS.to_owned());
        let number = review::newest_number(directory)? + 1;
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        let path = directory.join(format!("audit-{number:08}-{stamp}-{}.{EXTENSION}", std::process::id()));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        File::open(directory)?.sync_all()?;
        Ok(Self { path, tail: Mutex::new(Tail { file, number: 0, hash, length: 0 }) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Tail {
    fn append(&mut self, record: &Record) -> std::io::Result<()> {
        let text = serde_json::to_string(record)?;
        let hash = chain_hash(&self.hash, self.number, &text);
        let raw = RawValue::from_string(text)?;
        let line = Line { n: self.number, hash: &hash, prev: &self.hash, record: &raw };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.file.set_len(self.length)?;
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.length += bytes.len() as u64;
        self.number += 1;
        self.hash = hash;
        Ok(())
    }
}

#[async_trait]
impl AuditSink for Journal {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        let (event, zone) = (record.event.as_str(), record.zone.as_ref().map(tracing::field::display));
        if record.step.as_ref().is_some_and(|step| step.state == StepState::Stuck) {
            tracing::error!(event, zone, "{}", record.message);
        } else {
            tracing::info!(event, zone, "{}", record.message);
        }
        Ok(self.tail.lock().unwrap_or_else(PoisonError::into_inner).append(&record)?)
    }
}
