//! Whether the metrics show an isolation.

use jiff::Timestamp;

use crate::domain::isolation::Effective;

/// What may remain of a zone's traffic: connections kept alive, and what does not go through the mesh.
const RESIDUAL_SHARE: f64 = 0.05;

/// The zone's served requests per second fell to what may remain.
pub fn effect(before_rps: f64, after_rps: f64, now: Timestamp) -> Option<Effective> {
    (before_rps > 0.0 && after_rps <= RESIDUAL_SHARE * before_rps).then_some(Effective {
        before_rps,
        after_rps,
        since: now,
    })
}
