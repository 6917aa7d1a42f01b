//! What would keep the workloads that are left from growing, once the zone takes no new pods.

use jiff::Timestamp;

use super::{Outcome, Policy, Settings, Situation};
use crate::domain::cluster::{ClusterView, Workload, ZoneSpread};
use crate::domain::{HoldReason, Request, ServiceId, Zone};

/// More than these are counted, not named.
const NAMED: usize = 20;

pub(super) fn capacity(situation: &Situation<'_>, request: &Request, settings: &Settings, _: Timestamp) -> Outcome {
    if settings.capacity_traps == Policy::Ignore {
        return Outcome::Passed;
    }
    let Some(cluster) = situation.cluster else { return Outcome::NotEvaluated };
    let zone = &request.zone;
    let bound = cluster.workloads.iter().flat_map(|(id, workload)| {
        let spread = stranded(cluster, workload, zone).filter(|_| settings.taints_nodes);
        let pinned = workload.pinned.get(zone).map(|(pods, by)| {
            format!("{pods} of its pods can be in {zone} alone, by {by}, so nothing replaces them elsewhere")
        });
        [spread, pinned].into_iter().flatten().map(move |why| format!("{id}: {why}"))
    });
    let mut traps: Vec<String> = bound.collect();
    let holds = settings.capacity_traps == Policy::Hold && !traps.is_empty();
    traps.extend(counting(cluster, zone));
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
    let room: u32 = others().map(|other| (fewest + max_skew).saturating_sub(pods(other))).sum();
    let why = if domains < min_domains {
        format!("minDomains {min_domains}, of which {domains} are left")
    } else {
        "nodeTaintsPolicy: Honor would let them".to_owned()
    };
    Some(format!(
        "spread strictly over zones (maxSkew {max_skew}), {room} new pods fit elsewhere, and more stay pending ({why})"
    ))
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
