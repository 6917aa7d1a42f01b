//! Nodes and load-balancer addresses: what the steps change.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::Zone;

pub(super) const NODES_PER_ZONE: usize = 3;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub zone: Zone,
    pub taints: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub nodes: BTreeMap<String, Node>,
    /// Zones whose addresses the load balancer's DNS name has.
    pub dns: BTreeSet<Zone>,
}

impl Cluster {
    pub fn new(zones: &[Zone]) -> Self {
        let node = |zone: &Zone, i| (format!("node-{zone}-{i}"), Node { zone: zone.clone(), taints: BTreeSet::new() });
        Self {
            nodes: zones.iter().flat_map(|zone| (0..NODES_PER_ZONE).map(move |i| node(zone, i))).collect(),
            dns: zones.iter().cloned().collect(),
        }
    }

    pub fn schedulable(&self, zone: &Zone) -> bool {
        self.nodes.values().any(|node| node.zone == *zone && node.taints.is_empty())
    }

    pub fn clean(&self, zones: &[Zone]) -> bool {
        self.nodes.values().all(|node| node.taints.is_empty()) && zones.iter().all(|zone| self.dns.contains(zone))
    }
}
