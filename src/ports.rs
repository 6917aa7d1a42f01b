//! Where the pipeline meets the world: traits in domain types only. Each has a real and a simulated implementation.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::isolation::{Granularity, IsolationSpec, OperatorHold, Receipt, Share, StepName};
use crate::domain::verdict::Suspect;
use crate::domain::{Isolation, PodCalls, Probes, Record, Snapshot, Zone};

/// Sees the mesh.
///
/// Guarantees: snapshots come in order of time, one a cycle from `first` to `last`; what can't be known stands in a
/// snapshot's gaps, never as zeros. An error means that none of them could be seen.
#[async_trait]
pub trait Observer: Send {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError>;

    /// A closer look: the pods of one service in one zone, over the cycles up to `at`.
    async fn observe_pods(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Vec<PodCalls>, ObserveError>;

    /// Asks a zone's pods directly, now, as metrics say nothing of a zone without traffic. None where nobody can be asked.
    async fn probe(&mut self, _zone: &Zone) -> Option<Probes> {
        None
    }
}

/// Why nothing could be seen: what failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ObserveError(pub String);

/// Keeps isolations. What is in it is the only memory of action.
///
/// Guarantees: at most one active isolation a zone; `save` is durable when it returns, and refused for an episode that is
/// gone. What begins and ends outlives the process.
#[async_trait]
pub trait IsolationStore: Send + Sync {
    /// All isolations, active and past, oldest first.
    async fn list(&self) -> Result<Vec<Isolation>, StoreError>;

    /// Begins an isolation; refused if the zone has an active one.
    async fn create(&self, spec: IsolationSpec, now: Timestamp) -> Result<(), StoreError>;

    /// Replaces the ledger of an isolation. What the metrics say of it has another owner. One that has ended goes into the
    /// zone's past.
    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError>;

    /// Notes what the metrics say of an active isolation: its effect, and how far the zone has recovered.
    async fn save_course(&self, isolation: &Isolation) -> Result<(), StoreError>;

    /// Zones that an operator wants not to be isolated automatically.
    async fn holds(&self) -> Result<BTreeMap<Zone, OperatorHold>, StoreError>;

    async fn hold(&self, zone: &Zone, hold: OperatorHold) -> Result<(), StoreError>;

    /// Ends the hold of that moment, if it was to last until the zone is healthy; a newer one stays.
    async fn release(&self, zone: &Zone, since: Timestamp) -> Result<(), StoreError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    #[error("the zone {0} has an active isolation already")]
    AlreadyActive(Zone),
    #[error("the zone {0} has no active isolation")]
    NotActive(Zone),
    #[error(
        "the ended ZoneIsolation {0} is somebody's own, and stands in the way of a new one: delete it, or change it"
    )]
    InTheWay(Zone),
    /// What can't be stored at all, such as a zone whose name is no name of an object.
    #[error("{0}")]
    Impossible(String),
    /// Worth another try.
    #[error("the isolations can't be read or written: {0}")]
    Unavailable(String),
}

/// One reversible way to take a zone out of rotation.
///
/// Guarantees: every verb may run twice; "already so" is success; what others own is never touched.
/// Assumptions: `apply` comes after its receipt was saved. Undo is `apply` at a full share.
#[async_trait]
pub trait IsolationStep: Send + Sync {
    fn name(&self) -> StepName;

    fn granularity(&self) -> Granularity;

    /// Whether it goes by what the cluster looks like, and so has to look again when that changes.
    fn follows_cluster(&self) -> bool {
        false
    }

    /// What undo will restore.
    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError>;

    /// Gives the zone this share of its usual traffic. Run again and again while an isolation lasts, it brings newcomers in
    /// line, and mends what somebody changed.
    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError>;

    /// What is not as it was applied, in a few sentences: what joined since, and what somebody changed. `apply` mends it.
    async fn drift(&self, _zone: &Zone, _receipt: &Receipt, _share: Share) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }

    /// Reads back whether it is so.
    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError>;

    /// Zones that carry this step's marks, whatever is on record. Undoing them needs no receipt.
    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// Worth another try.
    #[error("{why}")]
    Transient { why: String, retry_after: SignedDuration },
    /// A person has to mend something first.
    #[error("{why}")]
    Permanent { why: String },
}

impl StepError {
    pub fn soon(why: impl Into<String>) -> Self {
        Self::Transient { why: why.into(), retry_after: SignedDuration::from_secs(1) }
    }
}

/// Tells people, beside the journal.
///
/// Guarantees: never blocks and never fails whoever records; what can't be delivered is dropped and counted.
pub trait Notifier: Send + Sync {
    fn notify(&self, record: &Record);
}

/// Takes records, in order.
///
/// Guarantees: a record is durable when `append` returns, so that intent is on record before any effect.
#[async_trait]
pub trait AuditSink: Send + Sync {
    async fn append(&self, record: Record) -> Result<(), AuditError>;

    /// Whether it keeps what decisions rest on.
    fn keeps_inputs(&self) -> bool {
        false
    }

    /// Keeps a file that decisions of that time rest on, and returns the SHA-256 by which they cite it; none where it can't
    /// be kept.
    async fn keep_inputs(&self, _time: Timestamp, _file: Vec<u8>) -> Option<String> {
        None
    }
}

#[derive(Debug, Error)]
#[error("the audit journal can't be written: {0}")]
pub struct AuditError(std::io::Error);

impl From<std::io::Error> for AuditError {
    fn from(error: std::io::Error) -> Self {
        Self(error)
    }
}
