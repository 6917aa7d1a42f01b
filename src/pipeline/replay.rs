//! Makes a decision again, from what it rested on: the same pipeline, over recorded ends.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use flate2::read::GzDecoder;
use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use super::inputs::{FORMAT, Inputs, Looks};
use super::{Pipeline, TickError};
use crate::domain::verdict::Suspect;
use crate::domain::{Isolation, IsolationSpec, OperatorHold, PodCalls, Record, Snapshot, Zone};
use crate::ports::{AuditError, AuditSink, IsolationStore, ObserveError, Observer, StoreError};

/// Larger ones are none of ours.
const LARGEST: u64 = 1 << 30;

#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("it is no file of inputs: {0}")]
    Unreadable(String),
    #[error(
        "its format is {found}, and this zoneward reads {FORMAT}: replay it with zoneward {version}, which wrote it"
    )]
    Format { found: u32, version: String },
    #[error("it can't be decided again: {0}")]
    Failed(#[from] TickError),
}

/// What can be told of a file of any format.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "zoneward_inputs")]
    format: u32,
    version: String,
}

impl Inputs {
    pub fn read(file: &[u8]) -> Result<Self, ReplayError> {
        let mut text = Vec::new();
        let unreadable = |error: &dyn std::fmt::Display| ReplayError::Unreadable(error.to_string());
        GzDecoder::new(file).take(LARGEST).read_to_end(&mut text).map_err(|error| unreadable(&error))?;
        let head: Head = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
        if head.format != FORMAT {
            return Err(ReplayError::Format { found: head.format, version: head.version });
        }
        serde_json::from_slice(&text).map_err(|error| unreadable(&error))
    }

    /// Every record of the cycle, as if none had been made before.
    pub async fn replay(mut self) -> Result<Vec<Record>, ReplayError> {
        let (settings, cycle) = (self.settings(), self.cycle());
        self.history.retune(&settings.detect);
        let mut ends = Observed { looks: std::mem::take(&mut self.looks) };
        let ledger = Arc::new(Ledger { isolations: Mutex::new(self.isolations), holds: self.holds });
        let records = Arc::new(Records::default());
        let mut pipeline = Pipeline::new(settings, cycle, ledger, records.clone());
        pipeline.history = self.history;
        pipeline.lead(self.leads);
        pipeline.pause(self.pause);
        pipeline.silence(self.silences);
        pipeline.tick(&mut ends, &self.snapshot, self.now).await?;
        Ok(std::mem::take(&mut *records.lock()))
    }

    /// What the newest cycles saw, oldest first, as far as the detector remembers it, and the cycle itself.
    pub fn seen(&self) -> Vec<Snapshot> {
        let mut snapshots = self.history.seen_lately();
        snapshots.push(Snapshot { cluster: None, ..self.snapshot.clone() });
        snapshots
    }
}

/// Closer looks that were taken.
struct Observed {
    looks: Looks,
}

#[async_trait]
impl Observer for Observed {
    async fn observe(&mut self, _: Timestamp, _: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        Ok(Vec::new())
    }

    async fn observe_pods(&mut self, suspect: &Suspect, _: Timestamp) -> Result<Vec<PodCalls>, ObserveError> {
        let look = self.looks.iter().find(|(of, _)| of == suspect).map(|(_, look)| look.clone());
        let none = || Err(format!("no closer look at {} in {} was taken", suspect.service, suspect.zone));
        look.unwrap_or_else(none).map_err(ObserveError)
    }
}

/// Isolations and holds as they were.
struct Ledger {
    isolations: Mutex<Vec<Isolation>>,
    holds: BTreeMap<Zone, OperatorHold>,
}

#[async_trait]
impl IsolationStore for Ledger {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        Ok(self.isolations.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn create(&self, spec: IsolationSpec, now: Timestamp) -> Result<(), StoreError> {
        let isolation = Isolation::new(String::new(), spec, now);
        self.isolations.lock().unwrap_or_else(PoisonError::into_inner).push(isolation);
        Ok(())
    }

    async fn save(&self, _: &Isolation) -> Result<(), StoreError> {
        Ok(())
    }

    async fn save_course(&self, _: &Isolation) -> Result<(), StoreError> {
        Ok(())
    }

    async fn holds(&self) -> Result<BTreeMap<Zone, OperatorHold>, StoreError> {
        Ok(self.holds.clone())
    }

    async fn hold(&self, _: &Zone, _: OperatorHold) -> Result<(), StoreError> {
        Ok(())
    }

    async fn release(&self, _: &Zone, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
}

#[derive(Default)]
struct Records(Mutex<Vec<Record>>);

impl Records {
    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuditSink for Records {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        self.lock().push(record);
        Ok(())
    }
}
