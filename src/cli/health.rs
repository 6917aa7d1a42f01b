//! What the daemon says of itself: `/healthz`, `/readyz`, `/metrics`, the status page, and whether its journal can be
//! written.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

use super::shown::{self, Shown};
use crate::audit::Journal;
use crate::domain::{CycleLength, Event, Isolation, Overview, Pause, Record, Snapshot};
use crate::ports::{AuditError, AuditSink, Notifier};
use crate::report;
use crate::serve::Status;
use crate::settings::Settings;
use crate::telemetry::Metrics;

/// The journal, with a count of its records; people are told once a record is durable.
pub(super) struct CountingSink {
    pub journal: Journal,
    pub status: Arc<DaemonStatus>,
    pub notifiers: Vec<Arc<dyn Notifier>>,
}

#[async_trait]
impl AuditSink for CountingSink {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        let written = self.journal.append(record.clone()).await;
        self.status.recorded(written.as_ref().err(), record.time);
        written?;
        self.status.metrics.record(&record);
        self.status.shown.record(&record);
        self.notifiers.iter().for_each(|notifier| notifier.notify(&record));
        Ok(())
    }

    fn keeps_inputs(&self) -> bool {
        self.journal.keeps_inputs()
    }

    async fn keep_inputs(&self, time: Timestamp, file: Vec<u8>) -> Option<String> {
        self.journal.keep_inputs(time, file).await
    }
}

impl CountingSink {
    /// What is so whether it is on record or not.
    pub(super) async fn note(&self, record: Record) {
        // It is told of by /readyz, by a metric, and by the log.
        let _told = self.append(record).await;
    }

    /// Tries again to write, and says from when on nothing could be.
    pub(super) async fn catch_up(&self, now: Timestamp) {
        if let Some((since, why)) = self.status.unrecorded() {
            let message = format!("nothing could be put on record, and so nothing begun, since {since:.0}: {why}");
            self.note(Record::new(now, Event::Unrecorded, message)).await;
        }
    }
}

/// What `/healthz`, `/readyz`, `/metrics` and the status page say.
pub(super) struct DaemonStatus {
    pub metrics: Metrics,
    /// What is carried out, where something is.
    pub isolations: OnceLock<watch::Receiver<Vec<Isolation>>>,
    pub pause: OnceLock<watch::Receiver<Pause>>,
    /// When the loop last turned, and how long it may take until it does again.
    turned_at_s: AtomicI64,
    patience_s: AtomicI64,
    /// Whether the newest cycle could be judged; if not, why.
    sight: Mutex<Result<(), String>>,
    /// Since when nothing can be put on record, and why.
    unrecorded: Mutex<Option<(Timestamp, String)>>,
    slack_s: i64,
    pub shown: Shown,
}

impl DaemonStatus {
    pub(super) fn new(settings: &Settings) -> Self {
        // A cycle may wait for a handful of queries, one after the other.
        let slack_s = 8 * settings.prometheus.timeout.signed().as_secs() + 30;
        Self {
            metrics: Metrics::default(),
            isolations: OnceLock::new(),
            pause: OnceLock::new(),
            turned_at_s: AtomicI64::new(super::now().as_second()),
            patience_s: AtomicI64::new(slack_s),
            sight: Mutex::new(Err("no cycle has been judged yet".to_owned())),
            unrecorded: Mutex::default(),
            slack_s,
            shown: Shown::new(settings),
        }
    }

    fn all(&self) -> Overview {
        let unrecorded = self.unrecorded().map(|(since, why)| format!("{why} (since {since:.0})"));
        let hung = self.alive().err();
        self.shown.overview(self.isolations.get(), self.pause.get(), (unrecorded, hung))
    }

    pub(super) fn turned(&self, now: Timestamp, cycle: CycleLength) {
        self.turned_at_s.store(now.as_second(), Ordering::Relaxed);
        self.patience_s.store(self.slack_s + 3 * cycle.seconds(), Ordering::Relaxed);
    }

    pub(super) fn saw(&self, snapshot: &Snapshot) {
        let gaps: Vec<String> = snapshot.global_gaps().map(ToString::to_string).collect();
        let sight = if gaps.is_empty() { Ok(()) } else { Err(format!("nothing can be judged: {}", gaps.join("; "))) };
        self.metrics.judges(sight.is_ok());
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner) = sight;
    }

    fn recorded(&self, failure: Option<&AuditError>, now: Timestamp) {
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            self.metrics.unrecorded();
            let since = unrecorded.as_ref().map_or(now, |(since, _)| *since);
            if unrecorded.replace((since, error.to_string())).is_none() {
                tracing::error!("nothing is begun, and what has begun goes back when it ends: {error}");
            }
        } else if unrecorded.take().is_some() {
            tracing::info!("the audit journal can be written again");
        }
    }

    pub(super) fn unrecorded(&self) -> Option<(Timestamp, String)> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Status for DaemonStatus {
    fn alive(&self) -> Result<(), String> {
        let age_s = super::now().as_second() - self.turned_at_s.load(Ordering::Relaxed);
        if age_s <= self.patience_s.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(format!("the loop has not turned for {age_s} s"))
        }
    }

    fn ready(&self) -> Result<(), String> {
        if let Some((since, why)) = self.unrecorded() {
            return Err(format!("nothing is begun since {since:.0}: {why}"));
        }
        self.sight.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn metrics(&self) -> String {
        if let Some(isolations) = self.isolations.get() {
            self.metrics.isolations(&isolations.borrow());
        }
        if let Some(pause) = self.pause.get() {
            self.metrics.paused(!pause.borrow().is_off());
        }
        let since = self.unrecorded().map(|(since, _)| since);
        self.metrics.unrecorded_for(since.map_or(0, |since| super::now().duration_since(since).as_secs().max(1)));
        self.metrics.encode()
    }

    fn page(&self, filter: &str) -> String {
        report::status::html(&self.all(), filter)
    }

    fn policy(&self) -> String {
        shown::policy()
    }

    fn overview(&self) -> String {
        serde_json::to_string(&self.all()).unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()))
    }
}
