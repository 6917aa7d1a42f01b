//! The page of a backtest: what is passed on to it, and where it is written.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use async_trait::async_trait;

use super::render;
use crate::domain::{CycleLength, Record, Sight};
use crate::ports::{AuditError, AuditSink};
use crate::report::{self, About, Collector};
use crate::settings::Settings;

/// A page in the making, and the file that it goes into.
pub(super) struct Page {
    path: PathBuf,
    collector: Collector,
}

impl Page {
    pub(super) fn new(path: PathBuf, about: About) -> Self {
        Self { path, collector: Collector::new(about) }
    }

    pub(super) fn cycle(&mut self, sight: &Arc<Sight>, records: &[Record]) {
        self.collector.cycle(sight, records);
    }

    pub(super) fn write(self, summary: Record) -> anyhow::Result<()> {
        let html = self.collector.finish(summary).html();
        report::write(&self.path, &html)
            .with_context(|| format!("--report: {} can't be written", self.path.display()))?;
        render::note(&format!("the report is in {} ({} kB)", self.path.display(), html.len().div_ceil(1000)));
        Ok(())
    }
}

/// Refuses a file that can't be, before the work is done.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    report::check(path).with_context(|| format!("--report: {} can't be written", path.display()))
}

/// What a reader of the page asks first about the configuration.
pub(super) fn settings(settings: &Settings, cycle: CycleLength) -> Vec<(&'static str, String)> {
    let (detect, service, guard) = (&settings.detect, &settings.service, &settings.guard);
    vec![
        ("detect.cycle", cycle.to_string()),
        ("service.suspect", service.suspect.to_string()),
        ("service.trip", service.trip.to_string()),
        ("service.shortest", service.shortest.to_string()),
        ("service.longest", service.longest.to_string()),
        ("detect.min_affected_share", detect.min_affected_share.to_string()),
        ("isolate.expires_after", settings.isolate.expires_after.to_string()),
        ("guard.max_isolated_zones", guard.max_isolated_zones.to_string()),
        ("guard.min_healthy_zones", guard.min_healthy_zones.to_string()),
        ("guard.cool_down", guard.cool_down.to_string()),
        ("guard.max_isolations_per_day", guard.max_isolations_per_day.to_string()),
        ("prometheus.labels.zone", settings.prometheus.labels.zone.clone()),
    ]
}

/// Passes records on, and keeps the newest for the page.
pub(super) struct Tap<S> {
    sink: Arc<S>,
    newest: Mutex<Vec<Record>>,
}

impl<S> Tap<S> {
    pub(super) fn new(sink: Arc<S>) -> Self {
        Self { sink, newest: Mutex::default() }
    }

    /// Those since the last call.
    pub(super) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl<S: AuditSink> AuditSink for Tap<S> {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        self.sink.append(record).await
    }
}
