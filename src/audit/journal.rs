//! Writing.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{EXTENSION, GENESIS, chain_hash, review};
use crate::domain::{Record, StepState};
use crate::ports::{AuditError, AuditSink};

/// A disk that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records that wait for a slow disk; more are refused.
const MOST_WAITING: usize = 64;

/// One process' segment.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    writer: Writer,
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
        let mut tail = Tail { file, number: 0, hash, length: 0 };
        Ok(Self { path, writer: Writer::start(PATIENCE, move |record| tail.append(record))? })
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

type Waiting = (Record, oneshot::Sender<std::io::Result<()>>);

/// Writes in a thread of its own, so that a disk that hangs holds up nobody for longer than the patience.
#[derive(Debug)]
struct Writer {
    queue: mpsc::SyncSender<Waiting>,
    patience: Duration,
}

impl Writer {
    fn start(
        patience: Duration,
        mut write: impl FnMut(&Record) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::sync_channel::<Waiting>(MOST_WAITING);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            for (record, done) in waiting {
                // Whoever was told that it failed says it again.
                if !done.is_closed() {
                    let _nobody_waits = done.send(write(&record));
                }
            }
        })?;
        Ok(Self { queue, patience })
    }

    async fn write(&self, record: Record) -> std::io::Result<()> {
        let (done, written) = oneshot::channel();
        let late = || Error::new(ErrorKind::TimedOut, format!("the disk gives no answer within {:?}", self.patience));
        self.queue.try_send((record, done)).map_err(|_| late())?;
        match tokio::time::timeout(self.patience, written).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::other("the thread that writes it has failed")),
            Err(_) => Err(late()),
        }
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
        Ok(self.writer.write(record).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Event;

    #[tokio::test]
    async fn a_disk_that_hangs_fails_in_time_and_what_was_given_up_is_not_written_later() {
        let (answers, disk) = mpsc::channel::<()>();
        let (on_disk, written) = mpsc::channel();
        let write = move |record: &Record| {
            disk.recv().map_err(Error::other)?;
            on_disk.send(record.message.clone()).map_err(Error::other)
        };
        let writer = Writer::start(Duration::from_millis(100), write).unwrap();
        let record = |message: &str| Record::new(Timestamp::UNIX_EPOCH, Event::Suspect, message);
        for message in ["under way", "given up"] {
            let error = writer.write(record(message)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
        answers.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "under way", "as nobody can call it back");
        answers.send(()).unwrap();
        writer.write(record("again")).await.unwrap();
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["again"]);
    }
}
