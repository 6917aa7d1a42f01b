//! Where the pipeline meets the world: traits in domain types only. Each has a real and a simulated implementation.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use crate::domain::isolation::{Effective, Granularity, Receipt, Share, StepName};
use crate::domain::verdict::Suspect;
use crate::domain::{Isolation, PodCalls, Record, Snapshot, Zone};

/// Sees the mesh.
///
/// Guarantees: snapshots come in order of time, one a cycle from `first` to `last`; what can't be known stands in a
/// snapshot's gaps, never as zeros. An error means that none of them could be seen.
#[async_trait]
pub trait Observer: Send {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError>;

    /// A closer look: the pods of one service in one zone, over the cycles up to `at`.
    async fn observe_pods(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Vec<PodCalls>, ObserveError>;
}

/// Why nothing could be seen: what failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ObserveError(pub String);

/// Keeps isolations. What is in it is the only memory of action.
///
/// Guarantees: at most one active isolation a zone; `save` is durable when it returns.
#[async_trait]
pub trait IsolationStore: Send + Sync {
    /// All isolations, active and past, oldest first.
    async fn list(&self) -> Result<Vec<Isolation>, StoreError>;

    /// Begins an isolation; refused if the zone has an active one.
    async fn create(&self, isolation: Isolation) -> Result<(), StoreError>;

    /// Replaces the ledger of the zone's active isolation. What the metrics say of it has another owner.
    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError>;

    /// Notes what the metrics say of the zone's active isolation.
    async fn save_effective(&self, zone: &Zone, effective: Effective) -> Result<(), StoreError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    #[error("the zone {0} has an active isolation already")]
    AlreadyActive(Zone),
    #[error("the zone {0} has no active isolation")]
    NotActive(Zone),
}

/// One reversible way to take a zone out of rotation.
///
/// Guarantees: every verb may run twice; "already so" is success; what others own is never touched.
/// Assumptions: `apply` comes after its receipt was saved. Undo is `apply` at a full share.
#[async_trait]
pub trait IsolationStep: Send + Sync {
    fn name(&self) -> StepName;

    fn granularity(&self) -> Granularity;

    /// What undo will restore.
    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError>;

    /// Gives the zone this share of its usual traffic.
    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError>;

    /// Reads back whether it is so.
    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError>;
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

/// Takes records, in order.
///
/// Guarantees: a record is durable when `append` returns, so that intent is on record before any effect.
#[async_trait]
pub trait AuditSink: Send + Sync {
    async fn append(&self, record: Record) -> Result<(), AuditError>;
}

#[derive(Debug, Error)]
#[error("the audit journal can't be written")]
pub struct AuditError(#[from] pub std::io::Error);
