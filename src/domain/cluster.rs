//! What the cluster looks like, as far as guardrails need it.

use std::collections::BTreeMap;

use super::{ServiceId, Zone};

/// Capacity by zone at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    pub zones: BTreeMap<Zone, ZoneNodes>,
    /// Endpoints that are ready and not drained.
    pub ready_endpoints: BTreeMap<ServiceId, BTreeMap<Zone, u32>>,
}

/// A zone's nodes, and how many take no new pods for whatever reason but ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZoneNodes {
    pub nodes: u32,
    pub unavailable: u32,
}

impl ZoneNodes {
    /// Whether others took the zone out already: most of its nodes are unavailable.
    pub const fn is_out(self) -> bool {
        self.nodes > 0 && self.unavailable * 2 > self.nodes
    }
}
