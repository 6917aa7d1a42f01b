//! Writing, in a thread of its own.

use std::io::{Error, ErrorKind, Write as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::segment::Tail;
use super::{Settings, inputs};
use crate::domain::{Record, StepState};
use crate::ports::{AuditError, AuditSink};

/// A disk that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records that wait for a slow disk; more are refused.
const MOST_WAITING: usize = 64;

/// The journal of one process.
#[derive(Debug)]
pub struct Journal {
    writer: Writer<Job, Option<String>>,
}

#[derive(Debug)]
enum Job {
    Append(Box<Record>),
    /// A file that decisions of that time rest on.
    Keep(Timestamp, Vec<u8>),
}

impl Journal {
    /// Nothing is written yet: whether it can be shows with the first record. Only a folder that is in use is refused.
    pub fn start(settings: &Settings) -> std::io::Result<Self> {
        let said = |error: Error| Error::new(error.kind(), in_directory(&settings.directory, &error));
        let (mut tail, stdout) = (Tail::new(settings.clone()).map_err(said)?, settings.stdout);
        let write = move |job, done: &dyn Fn(std::io::Result<Option<String>>)| match job {
            Job::Append(record) => append(&mut tail, stdout, &record, done),
            Job::Keep(time, file) => {
                let kept = inputs::keep(tail.directory(), time, &file);
                done(kept.map(Some).map_err(|error| in_directory_of(&tail, &error)));
            }
        };
        Ok(Self { writer: Writer::start(PATIENCE, write)? })
    }
}

fn append(tail: &mut Tail, stdout: bool, record: &Record, done: &dyn Fn(std::io::Result<Option<String>>)) {
    let mut lines = match tail.append(record) {
        Ok(line) => vec![line],
        Err(error) => return done(Err(in_directory_of(tail, &error))),
    };
    done(Ok(None));
    if tail.has_begun() || record.inputs.is_some() {
        match tail.retire(record.time) {
            Ok(more) => lines.extend(more),
            Err(error) => tracing::warn!("what is old of the audit journal can't be removed: {error}"),
        }
    }
    if stdout {
        let mut out = std::io::stdout().lock();
        let _nobody_reads = lines.iter().try_for_each(|line| out.write_all(line)).and_then(|()| out.flush());
    }
}

fn in_directory_of(tail: &Tail, error: &Error) -> Error {
    Error::new(error.kind(), in_directory(tail.directory(), error))
}

fn in_directory(directory: &Path, error: &Error) -> String {
    format!("{error} (audit.directory {})", directory.display())
}

type Answer<T> = oneshot::Sender<std::io::Result<T>>;

/// Writes in a thread of its own, so that a disk that hangs holds up nobody for longer than the patience.
#[derive(Debug)]
struct Writer<J, T> {
    queue: mpsc::SyncSender<(J, Answer<T>)>,
    patience: Duration,
}

impl<J: Send + 'static, T: Send + 'static> Writer<J, T> {
    /// What writes says when it is done, and may do more then.
    fn start(
        patience: Duration,
        mut write: impl FnMut(J, &dyn Fn(std::io::Result<T>)) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::sync_channel::<(J, Answer<T>)>(MOST_WAITING);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            for (job, answer) in waiting {
                // Whoever was told that it failed says it again.
                if !answer.is_closed() {
                    let answer = std::cell::Cell::new(Some(answer));
                    write(job, &|result| {
                        if let Some(answer) = answer.take() {
                            let _nobody_waits = answer.send(result);
                        }
                    });
                }
            }
        })?;
        Ok(Self { queue, patience })
    }

    async fn write(&self, job: J) -> std::io::Result<T> {
        let (answer, written) = oneshot::channel();
        let late = || Error::new(ErrorKind::TimedOut, format!("the disk gives no answer within {:?}", self.patience));
        self.queue.try_send((job, answer)).map_err(|_| late())?;
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
        self.writer.write(Job::Append(Box::new(record))).await?;
        Ok(())
    }

    fn keeps_inputs(&self) -> bool {
        true
    }

    async fn keep_inputs(&self, time: Timestamp, file: Vec<u8>) -> Option<String> {
        let kept = self.writer.write(Job::Keep(time, file)).await;
        kept.unwrap_or_else(|error| {
            tracing::warn!("what decisions rest on can't be kept, so that they can't be replayed: {error}");
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_fails_in_time_and_what_was_given_up_is_not_written_later() {
        let (answers, disk) = mpsc::channel::<()>();
        let (on_disk, written) = mpsc::channel();
        let write = move |message: &'static str, done: &dyn Fn(std::io::Result<()>)| {
            let answered = disk.recv().map_err(Error::other);
            done(answered.and_then(|()| on_disk.send(message).map_err(Error::other)));
        };
        let writer = Writer::start(Duration::from_millis(100), write).unwrap();
        for message in ["under way", "given up"] {
            let error = writer.write(message).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
        answers.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "under way", "as nobody can call it back");
        answers.send(()).unwrap();
        writer.write("again").await.unwrap();
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["again"]);
    }
}
