//! What the cluster looks like: nodes, pods and services, as far as guardrails and steps need them.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use serde::{Deserialize, Serialize};

use super::{ServiceId, Zone};

/// The cluster at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    pub nodes: BTreeMap<String, Node>,
    #[serde(with = "pairs")]
    pub pods: BTreeMap<PodId, Pod>,
    pub services: BTreeMap<ServiceId, Service>,
    /// Those whose new pods can't go everywhere.
    #[serde(with = "pairs")]
    pub workloads: BTreeMap<WorkloadId, Workload>,
    /// Ready pods of each zone that each disruption budget counts.
    pub disruption_budgets: BTreeMap<ServiceId, BTreeMap<Zone, u32>>,
    /// Why volumes and disruption budgets are not known, if so: acting does without.
    pub unread: Option<String>,
    /// Where metrics tell.
    #[serde(with = "shared")]
    pub cpu_use: Option<Arc<CpuUse>>,
}

/// CPU that pods used lately, in thousandths of a core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUse {
    pub seen_at: Timestamp,
    #[serde(with = "pairs")]
    pub pods: BTreeMap<PodId, u64>,
}

/// CPU that is used, of what there is, in thousandths of a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub used: u64,
    pub limit: u64,
}

impl Load {
    pub fn share(self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64
    }
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.used = self.used.saturating_add(other.used);
        self.limit = self.limit.saturating_add(other.limit);
    }
}

mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::CpuUse;

    #[allow(clippy::ref_option, reason = "as the derive calls it")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Arc<CpuUse>>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<CpuUse>>, D::Error> {
        Ok(Option::<CpuUse>::deserialize(deserializer)?.map(Arc::new))
    }
}

/// Maps whose keys are no text, as lists of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, K: Deserialize<'de> + Ord, V: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// What makes pods, such as a `Deployment`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkloadId {
    pub namespace: String,
    pub kind: String,
    pub name: String,
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Where the pods of a workload are, and what keeps new ones from going elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub pods: BTreeMap<Zone, u32>,
    pub spread: Option<ZoneSpread>,
    /// Whether its pods may go to nodes with our taint.
    pub tolerates_taint: bool,
    /// How many pods of a zone can be there alone, and by what.
    pub pinned: BTreeMap<Zone, (u32, String)>,
}

/// A strict spread over zones (`DoNotSchedule`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneSpread {
    pub max_skew: u32,
    pub min_domains: u32,
    /// Whether zones whose nodes are tainted count (`nodeTaintsPolicy: Ignore`, the default).
    pub counts_tainted_nodes: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub zone: Option<Zone>,
    /// The cloud's own id of the zone, where it tells: AWS' names of zones differ from account to account.
    pub zone_id: Option<String>,
    /// What the zone is a part of.
    pub region: Option<String>,
    /// Whether new pods may come here, as far as others are concerned: ready, not cordoned, without others' taints.
    pub available: bool,
    /// For the isolation of which zone it carries our taint.
    pub tainted: Option<Zone>,
    /// Never to be touched, as its owner says.
    pub exempt: bool,
    /// Thousandths of a core that its pods may use together.
    pub cpu: Option<u64>,
    /// The node pool of Karpenter that it is of.
    pub karpenter_pool: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodId {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a pod runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub zone: Zone,
    pub node: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub uid: String,
    pub node: Option<String>,
    pub zone: Option<Zone>,
    pub address: Option<IpAddr>,
    /// Whether it is an endpoint of its services.
    pub ready: bool,
    pub draining: Draining,
    /// Whether a proxy of the mesh serves it.
    pub in_mesh: bool,
    /// Why it is never drained, if so.
    pub exempt: Option<String>,
    /// Those whose selector it matches, headless ones included.
    pub services: BTreeSet<ServiceId>,
    /// Thousandths of a core that it may use at the most, if all of its containers have such a limit.
    pub cpu_limit: Option<u64>,
}

/// Whether, and by whom, a pod is taken out of the mesh's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Draining {
    #[default]
    No,
    /// By us, for the isolation of that zone.
    Ours(Zone),
    Others,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Callers know its pods by name, and choose among them without the mesh.
    pub headless: bool,
}

/// A zone's nodes, and how many take no new pods for whatever reason but ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl ClusterView {
    pub fn zones(&self) -> BTreeMap<&Zone, ZoneNodes> {
        let mut zones: BTreeMap<&Zone, ZoneNodes> = BTreeMap::new();
        for node in self.nodes.values() {
            let Some(zone) = &node.zone else { continue };
            let count = zones.entry(zone).or_default();
            count.nodes += 1;
            count.unavailable += u32::from(!node.available);
        }
        zones
    }

    /// Zones for whose isolation something carries our mark.
    pub fn marked(&self) -> BTreeSet<&Zone> {
        let drained = self.pods.values().filter_map(|pod| match &pod.draining {
            Draining::Ours(zone) => Some(zone),
            Draining::No | Draining::Others => None,
        });
        self.nodes.values().filter_map(|node| node.tainted.as_ref()).chain(drained).collect()
    }

    /// Where each pod runs that has a node in a zone.
    pub fn places(&self) -> impl Iterator<Item = (PodId, Place)> {
        self.pods
            .iter()
            .filter_map(|(id, pod)| Some((id.clone(), Place { zone: pod.zone.clone()?, node: pod.node.clone()? })))
    }

    /// Whether the mesh balances the service's calls over its endpoints.
    pub fn balanced(&self, service: &ServiceId) -> bool {
        self.services.get(service).is_some_and(|service| !service.headless)
    }

    /// Endpoints of each balanced service, by zone, that are ready and not drained.
    pub fn ready_endpoints(&self) -> BTreeMap<&ServiceId, BTreeMap<&Zone, u32>> {
        self.by_service_and_zone(|pod| pod.ready && pod.draining == Draining::No)
    }

    /// Pods of each balanced service, by zone, that are or could be endpoints.
    pub fn ready_pods(&self) -> BTreeMap<&ServiceId, BTreeMap<&Zone, u32>> {
        self.by_service_and_zone(|pod| pod.ready)
    }

    fn by_service_and_zone(&self, counts: impl Fn(&Pod) -> bool) -> BTreeMap<&ServiceId, BTreeMap<&Zone, u32>> {
        let mut endpoints: BTreeMap<&ServiceId, BTreeMap<&Zone, u32>> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| counts(pod)) {
            let Some(zone) = &pod.zone else { continue };
            for service in pod.services.iter().filter(|service| self.balanced(service)) {
                *endpoints.entry(service).or_default().entry(zone).or_default() += 1;
            }
        }
        endpoints
    }

    /// Of each balanced service, by zone, the CPU that its ready endpoints use of their limits. Of a service with an endpoint
    /// that has no limit, or of whose use nothing is known, nothing.
    pub fn loads(&self, cpu: &CpuUse) -> BTreeMap<&ServiceId, BTreeMap<&Zone, Load>> {
        let mut loads: BTreeMap<&ServiceId, BTreeMap<&Zone, Load>> = BTreeMap::new();
        let mut unknown: BTreeSet<&ServiceId> = BTreeSet::new();
        for (id, pod) in self.pods.iter().filter(|(_, pod)| pod.ready && pod.draining == Draining::No) {
            let Some(zone) = &pod.zone else { continue };
            let load = pod.cpu_limit.zip(cpu.pods.get(id)).map(|(limit, used)| Load { used: *used, limit });
            for service in pod.services.iter().filter(|service| self.balanced(service)) {
                match load {
                    Some(load) => *loads.entry(service).or_default().entry(zone).or_default() += load,
                    None => {
                        unknown.insert(service);
                    }
                }
            }
        }
        loads.retain(|service, _| !unknown.contains(service));
        loads
    }

    /// Balanced services with pods in the zone that may be drained, but with fewer than so many ready endpoints elsewhere.
    pub fn services_short_elsewhere(&self, zone: &Zone, fewest: u32) -> BTreeMap<&ServiceId, u32> {
        let endpoints = self.ready_endpoints();
        let elsewhere = |service: &ServiceId| -> u32 {
            let zones = endpoints.get(service).into_iter().flatten();
            zones.filter(|(z, _)| **z != zone).map(|(_, count)| count).sum()
        };
        let here = self.pods.values().filter(|pod| pod.zone.as_ref() == Some(zone) && pod.exempt.is_none());
        let services: BTreeSet<&ServiceId> = here.flat_map(|pod| &pod.services).filter(|s| self.balanced(s)).collect();
        services.into_iter().map(|s| (s, elsewhere(s))).filter(|(_, ready)| *ready < fewest).collect()
    }
}
