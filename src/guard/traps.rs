//! What would keep the workloads that are left from growing, once the zone takes no new pods.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Outcome, Policy, Settings, Situation};
use crate::domain::cluster::{ClusterView, Workload, ZoneSpread};
use crate::domain::{HoldReason, Request, ServiceId, Zone};

/// More than these are counted, not named.
const NAMED: usize = 20;

pub(super) fn capacity(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    if settings.capacity_traps == Policy::Ignore && settings.capacity_traps_of.is_empty() {
        return Outcome::Passed;
    }
    let Some(cluster) = situation.cluster else { return Outcome::NotEvaluated };
    let zone = &request.zone;
    let (mut traps, mut holds) = (Vec::new(), false);
    for (id, workload) in &cluster.workloads {
        let policy = settings.capacity_traps_of(id);
        let spread = stranded(cluster, workload, zone).filter(|_| settings.taints_nodes);
        let pinned = workload.pinned.get(zone).map(|(pods, by)| {
            format!("{pods} of its pods can be in {zone} alone, by {by}, so nothing replaces them elsewhere")
        });
        for why in [spread, pinned].into_iter().flatten().filter(|_| policy != Policy::Ignore) {
            holds |= policy == Policy::Hold;
            traps.push((policy != Policy::Hold, format!("{id}: {why}")));
        }
    }
    // What holds is named first.
    traps.sort();
    let mut traps: Vec<String> = traps.into_iter().map(|(_, trap)| trap).collect();
    if settings.capacity_traps != Policy::Ignore {
        traps.extend(counting(cluster, zone));
        traps.extend(buying(cluster, zone).filter(|_| settings.taints_nodes));
    }
    if traps.is_empty() {
        return if cluster.unread.is_some() { Outcome::NotEvaluated } else { Outcome::Passed };
    }
    let more = traps.len().saturating_sub(NAMED);
    traps.truncate(NAMED);
    let reason = HoldReason::CapacityTrap { traps, more: more as u32 };
    if holds { Outcome::Held(reason) } else { Outcome::Warned(reason) }
}

/// How many new pods of a workload fit elsewhere, if its spread over zones lets only so many.
///
/// The scheduler lets no zone have more than `maxSkew` pods above the zone that has the fewest. The sick zone gets no new ones;
/// as long as it counts as a zone, it holds the others back. With fewer zones than `minDomains` the fewest are none.
fn stranded(cluster: &ClusterView, workload: &Workload, zone: &Zone) -> Option<String> {
    let ZoneSpread { max_skew, min_domains, counts_tainted_nodes } = workload.spread?;
    let here = workload.pods.get(zone).copied().filter(|pods| *pods > 0 && !workload.tolerates_taint)?;
    let zones = cluster.zones();
    let others = || zones.keys().filter(|other| **other != zone);
    let domains = others().count() as u32 + u32::from(counts_tainted_nodes);
    let fewest = match (domains < min_domains, counts_tainted_nodes) {
        (true, _) => 0,
        (false, true) => here,
        (false, false) => return None,
    };
    let pods = |other: &Zone| workload.pods.get(other).copied().unwrap_or(0);
    let most = u64::from(fewest) + u64::from(max_skew);
    let room: u64 = others().map(|other| most.saturating_sub(pods(other).into())).sum();
    let why = if domains < min_domains {
        format!("minDomains {min_domains}, of which {domains} are left")
    } else {
        "nodeTaintsPolicy: Honor would let them".to_owned()
    };
    Some(format!(
        "spread strictly over zones (maxSkew {max_skew}), {room} new pods fit elsewhere, and more stay pending ({why})"
    ))
}

/// Karpenter knows no taint that nodes get later, so what finds no place elsewhere makes it buy more of them here.
fn buying(cluster: &ClusterView, zone: &Zone) -> Option<String> {
    let here = cluster.nodes.values().filter(|node| node.zone.as_ref() == Some(zone));
    let pools: BTreeSet<&str> = here.filter_map(|node| node.karpenter_pool.as_deref()).collect();
    let names = pools.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    (!pools.is_empty()).then(|| {
        format!(
            "node pools of Karpenter that go on buying in {zone}, unless their requirements leave it out or a zonal shift of \
             the EKS cluster stops them: {names}"
        )
    })
}

/// Drained pods are ready for Kubernetes, so that budgets let others go in their stead.
fn counting(cluster: &ClusterView, zone: &Zone) -> Option<String> {
    let counts = cluster.disruption_budgets.iter().filter(|(_, pods)| pods.get(zone).is_some_and(|pods| *pods > 0));
    let names: Vec<&ServiceId> = counts.map(|(name, _)| name).collect();
    let shown = names.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    (!names.is_empty()).then(|| {
        format!(
            "PodDisruptionBudgets that count the drained pods, so drain no nodes elsewhere meanwhile: {shown}{more}"
        )
    })
}
