//! Which weight every zone gets in the whole mesh, and the document that says so. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::cluster::{ClusterView, Draining};
use crate::domain::{ServiceId, Share, Zone};

/// What all weights sum to; each is whole, and at least 1.
const WHOLE: u32 = 100;
/// Points by which a zone's natural weight may have moved before all are written anew: that makes every proxy of the mesh
/// replace its clusters.
const MOST_SKEW: f64 = 10.0;

/// What the weights follow from. It stands beside them, so that undoing takes no look at the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The zones that are out, and what share of its usual traffic each may have.
    pub out: BTreeMap<Zone, Share>,
    /// Those of them that keep a weight of 1, as a service has come to live nowhere else.
    #[serde(default)]
    pub needed: BTreeSet<Zone>,
    /// Every zone, as it was when the weights were last written.
    pub zones: BTreeMap<Zone, Standing>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub region: String,
    /// Pods that answer for balanced services.
    pub ready: u32,
}

/// Every zone that has nodes.
pub(super) fn standings(view: &ClusterView) -> Result<BTreeMap<Zone, Standing>, String> {
    let mut regions: BTreeMap<&Zone, BTreeSet<&str>> = BTreeMap::new();
    for node in view.nodes.values() {
        let Some(zone) = &node.zone else { continue };
        regions.entry(zone).or_default().extend(node.region.as_deref());
    }
    let mut zones = BTreeMap::new();
    for (zone, regions) in regions {
        let region = match regions.into_iter().collect::<Vec<_>>()[..] {
            [region] => region.to_owned(),
            [] => return Err(format!("no node of {zone} says which region it is in (topology.kubernetes.io/region)")),
            [one, other, ..] => return Err(format!("nodes of {zone} are in the regions {one} and {other}")),
        };
        zones.insert(zone.clone(), Standing { region, ready: 0 });
    }
    for pod in view.pods.values().filter(|pod| pod.ready && pod.draining == Draining::No) {
        let standing = pod.zone.as_ref().and_then(|zone| zones.get_mut(zone));
        if let Some(standing) = standing.filter(|_| pod.services.iter().any(|service| view.balanced(service))) {
            standing.ready += 1;
        }
    }
    Ok(zones)
}

/// Services with ready endpoints, but in none that has a weight once these zones have none.
pub(super) fn lost_without<'a>(
    view: &'a ClusterView,
    none: &BTreeSet<&Zone>,
) -> BTreeMap<&'a ServiceId, Vec<&'a Zone>> {
    let endpoints = view.ready_endpoints().into_iter();
    let lost = endpoints.filter(|(_, zones)| !zones.is_empty() && zones.keys().all(|zone| none.contains(zone)));
    lost.map(|(service, zones)| (service, zones.into_keys().collect())).collect()
}

impl Mark {
    /// With the zone at its share, as the cluster is now.
    pub(super) fn with(&self, zone: &Zone, share: Share, view: &ClusterView) -> Result<Self, String> {
        let mut mark = self.clone();
        if mark.out.insert(zone.clone(), share) != Some(share) {
            mark.needed.remove(zone);
        }
        let now = standings(view)?;
        if mark.is_old(&now) {
            mark.zones = now;
        }
        if let Some(unknown) = mark.out.keys().find(|zone| !mark.zones.contains_key(zone)) {
            return Err(format!("no node is in {unknown}"));
        }
        let none: BTreeSet<&Zone> =
            mark.out.iter().filter(|(_, share)| **share == Share::NONE).map(|(z, _)| z).collect();
        let needed = lost_without(view, &none).into_values().flatten().cloned();
        mark.needed.extend(needed);
        Ok(mark)
    }

    /// With the zone back; whatever else is out stays so.
    pub(super) fn without(&self, zone: &Zone) -> Self {
        let mut mark = self.clone();
        mark.out.remove(zone);
        mark.needed.remove(zone);
        if mark.out.is_empty() { Self::default() } else { mark }
    }

    fn is_old(&self, now: &BTreeMap<Zone, Standing>) -> bool {
        let places = |zones: &BTreeMap<Zone, Standing>| -> Vec<(Zone, String)> {
            zones.iter().map(|(zone, standing)| (zone.clone(), standing.region.clone())).collect()
        };
        let (then, present) = (natural(&self.zones), natural(now));
        places(&self.zones) != places(now)
            || then.iter().zip(&present).any(|((_, then), (_, now))| (then - now).abs() > MOST_SKEW)
    }

    /// Of each zone that gets any. A zone's share is that of the weight that it would have by its ready pods.
    pub(super) fn weights(&self) -> Result<BTreeMap<&Zone, u32>, String> {
        let usual = natural(&self.zones);
        let mut targets: BTreeMap<&Zone, f64> = BTreeMap::new();
        for (zone, share) in &self.out {
            let target = usual.get(zone).copied().unwrap_or_default() * share.as_fraction();
            if *share > Share::NONE || self.needed.contains(zone) {
                targets.insert(zone, target);
            }
        }
        let rest = f64::from(WHOLE) - targets.values().sum::<f64>();
        let left: Vec<(&Zone, f64)> =
            usual.iter().filter(|(z, _)| !self.out.contains_key(z)).map(|(z, w)| (*z, *w)).collect();
        if left.is_empty() {
            return Err("no zone would be left".to_owned());
        }
        let total: f64 = left.iter().map(|(_, usual)| usual).sum();
        let even = rest / left.len() as f64;
        targets.extend(
            left.into_iter().map(|(zone, usual)| (zone, if total > 0.0 { rest * usual / total } else { even })),
        );
        apportion(&targets)
    }

    /// What istiod is to read: all of it, as the map has no other purpose.
    pub(super) fn document(&self) -> Result<Value, String> {
        if self.out.is_empty() {
            return Ok(json!({}));
        }
        let weights = self.weights()?.into_iter();
        let to: BTreeMap<String, u32> = weights
            .filter_map(|(zone, weight)| Some((format!("{}/{zone}/*", self.zones.get(zone)?.region), weight)))
            .collect();
        Ok(json!({"localityLbSetting": {"distribute": [{"from": "*", "to": to}]}}))
    }

    /// For people.
    pub(super) fn sentence(&self) -> Result<String, String> {
        if self.out.is_empty() {
            return Ok("no weights: every client balances as usual".to_owned());
        }
        let weights = self.weights()?.into_iter().map(|(zone, weight)| format!("{zone} {weight}"));
        Ok(weights.collect::<Vec<_>>().join(", "))
    }
}

/// What each zone's ready pods are of all, in points.
fn natural(zones: &BTreeMap<Zone, Standing>) -> BTreeMap<&Zone, f64> {
    let total: u64 = zones.values().map(|zone| u64::from(zone.ready)).sum();
    let of = |standing: &Standing| match total {
        0 => f64::from(WHOLE) / zones.len() as f64,
        total => f64::from(WHOLE) * f64::from(standing.ready) / total as f64,
    };
    zones.iter().map(|(zone, standing)| (zone, of(standing))).collect()
}

/// The largest-remainder method; who would get nothing gets 1, of the largest.
fn apportion<'a>(targets: &BTreeMap<&'a Zone, f64>) -> Result<BTreeMap<&'a Zone, u32>, String> {
    if targets.len() > WHOLE as usize {
        return Err(format!("{} zones can't share {WHOLE} points", targets.len()));
    }
    let mut weights: BTreeMap<&Zone, u32> =
        targets.iter().map(|(zone, target)| (*zone, target.max(0.0).floor() as u32)).collect();
    let mut by_remainder: Vec<(&Zone, f64)> = targets.iter().map(|(zone, target)| (*zone, target.fract())).collect();
    by_remainder.sort_by(|a, b| b.1.total_cmp(&a.1));
    let missing = WHOLE.saturating_sub(weights.values().sum());
    for (zone, _) in by_remainder.into_iter().cycle().take(missing as usize) {
        *weights.entry(zone).or_default() += 1;
    }
    while let Some(empty) = weights.iter().find(|(_, weight)| **weight == 0).map(|(zone, _)| *zone) {
        let Some(largest) = weights.iter().max_by_key(|(_, weight)| **weight).map(|(zone, _)| *zone) else { break };
        *weights.entry(largest).or_default() -= 1;
        weights.insert(empty, 1);
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cluster::{Node, Pod, PodId, Service};

    fn zone(name: char) -> Zone {
        Zone::new(format!("zone-{name}"))
    }

    fn mark(ready: &[(char, u32)], out: &[(char, u8)]) -> Mark {
        let standing = |ready| Standing { region: "r".to_owned(), ready };
        Mark {
            out: out.iter().map(|(name, percent)| (zone(*name), Share::percent(*percent))).collect(),
            needed: BTreeSet::new(),
            zones: ready.iter().map(|(name, ready)| (zone(*name), standing(*ready))).collect(),
        }
    }

    fn weights(ready: &[(char, u32)], out: &[(char, u8)]) -> Vec<u32> {
        let mark = mark(ready, out);
        let weights = mark.weights().unwrap();
        assert_eq!(weights.values().sum::<u32>(), 100);
        assert!(weights.values().all(|weight| *weight >= 1));
        ready.iter().map(|(name, _)| weights.get(&zone(*name)).copied().unwrap_or_default()).collect()
    }

    #[test]
    fn a_zone_that_is_out_has_no_weight_and_the_others_have_theirs_by_ready_pods() {
        assert_eq!(weights(&[('a', 2), ('b', 2), ('c', 2)], &[('b', 0)]), [50, 0, 50]);
        assert_eq!(weights(&[('a', 1), ('b', 5), ('c', 3)], &[('b', 0)]), [25, 0, 75]);
        assert_eq!(weights(&[('a', 1), ('b', 1), ('c', 1), ('d', 1)], &[('d', 0)]), [34, 33, 33, 0]);
        assert_eq!(weights(&[('a', 1), ('b', 1), ('c', 2)], &[('a', 0), ('b', 0)]), [0, 0, 100], "two are out");
    }

    #[test]
    fn a_share_is_one_of_what_the_zone_would_have() {
        let equal = [('a', 10), ('b', 10), ('c', 10)];
        assert_eq!(weights(&equal, &[('b', 5)]), [49, 2, 49]);
        assert_eq!(weights(&equal, &[('b', 25)]), [46, 8, 46]);
        assert_eq!(weights(&equal, &[('b', 50)]), [42, 17, 41]);
        assert_eq!(weights(&[('a', 90), ('b', 10)], &[('b', 5)]), [99, 1], "there is nothing below 1");
        assert_eq!(weights(&equal, &[('a', 50), ('b', 0)]), [17, 0, 83]);
    }

    #[test]
    fn every_zone_that_is_left_is_named_whatever_is_ready_there() {
        assert_eq!(weights(&[('a', 500), ('b', 1), ('c', 0)], &[('b', 0)]), [99, 0, 1]);
        assert_eq!(weights(&[('a', 0), ('b', 7), ('c', 0)], &[('b', 0)]), [50, 0, 50]);
        assert_eq!(weights(&[('a', 0), ('b', 0), ('c', 0)], &[('b', 50)]), [42, 17, 41]);
        assert_eq!(weights(&[('a', 0), ('b', 9)], &[('b', 99)]), [1, 99]);
        assert!(mark(&[('a', 1)], &[('a', 0)]).weights().unwrap_err().contains("no zone would be left"));
        let many: BTreeMap<Zone, Standing> =
            (0..=100).map(|i| (Zone::new(format!("z{i}")), Standing { region: "r".to_owned(), ready: 1 })).collect();
        let many = Mark { out: [(zone('x'), Share::NONE)].into(), zones: many, ..Mark::default() };
        assert!(many.weights().is_err());
    }

    #[test]
    fn the_document_names_zones_by_their_region_and_is_empty_when_none_is_out() {
        let document = mark(&[('a', 1), ('b', 1)], &[('b', 0)]).document().unwrap();
        let expected = json!({"localityLbSetting": {"distribute": [{"from": "*", "to": {"r/zone-a/*": 100}}]}});
        assert_eq!(document, expected);
        assert_eq!(Mark::default().document().unwrap(), json!({}));
    }

    /// Zones of one node, with so many ready pods of `web` each.
    fn view(ready: &[(char, u32)]) -> ClusterView {
        let service = ServiceId::new("default", "web");
        let mut view = ClusterView { services: [(service.clone(), Service::default())].into(), ..Default::default() };
        for (name, count) in ready {
            let node = Node { zone: Some(zone(*name)), region: Some("r".to_owned()), ..Node::default() };
            view.nodes.insert(format!("node-{name}"), node);
            for i in 0..*count {
                let id = PodId { namespace: "default".to_owned(), name: format!("web-{name}-{i}") };
                let services = [service.clone()].into();
                view.pods.insert(id, Pod { zone: Some(zone(*name)), ready: true, services, ..Pod::default() });
            }
        }
        view
    }

    #[test]
    fn weights_are_written_anew_only_when_they_are_well_off() {
        let first = Mark::default().with(&zone('b'), Share::NONE, &view(&[('a', 4), ('b', 4), ('c', 4)])).unwrap();
        assert_eq!(first.weights().unwrap().into_values().collect::<Vec<_>>(), [50, 50]);
        let same = first.with(&zone('b'), Share::NONE, &view(&[('a', 5), ('b', 4), ('c', 4)])).unwrap();
        assert_eq!(same, first, "one pod more is not worth a push to every proxy");
        let other = first.with(&zone('b'), Share::NONE, &view(&[('a', 12), ('b', 4), ('c', 4)])).unwrap();
        assert_eq!(other.weights().unwrap().into_values().collect::<Vec<_>>(), [75, 25]);
        let joined = first.with(&zone('b'), Share::NONE, &view(&[('a', 4), ('b', 4), ('c', 4), ('d', 0)])).unwrap();
        assert!(joined.weights().unwrap().contains_key(&zone('d')), "a zone that is not named would get nothing");
    }

    #[test]
    fn a_second_zone_is_left_out_beside_the_first_and_each_comes_back_by_itself() {
        let view = view(&[('a', 1), ('b', 1), ('c', 1)]);
        let both = Mark::default().with(&zone('a'), Share::NONE, &view).unwrap();
        let both = both.with(&zone('b'), Share::NONE, &view).unwrap();
        assert_eq!(both.weights().unwrap(), [(&zone('c'), 100)].into());
        assert_eq!(both.without(&zone('a')).weights().unwrap(), [(&zone('a'), 50), (&zone('c'), 50)].into());
        assert_eq!(both.without(&zone('a')).without(&zone('b')), Mark::default());
        assert!(both.with(&zone('c'), Share::NONE, &view).unwrap().weights().is_err());
    }

    #[test]
    fn a_service_that_comes_to_live_only_there_gives_the_zone_the_least_weight() {
        let first = Mark::default().with(&zone('b'), Share::NONE, &view(&[('a', 1), ('b', 1)])).unwrap();
        let alone = first.with(&zone('b'), Share::NONE, &view(&[('a', 0), ('b', 1)])).unwrap();
        assert_eq!(alone.weights().unwrap(), [(&zone('a'), 99), (&zone('b'), 1)].into());
        let later = alone.with(&zone('b'), Share::NONE, &view(&[('a', 1), ('b', 1)])).unwrap();
        assert!(later.needed.contains(&zone('b')), "it does not go back and forth");
    }

    #[test]
    fn nodes_must_agree_on_the_region_of_a_zone() {
        let mut view = view(&[('a', 1), ('b', 1)]);
        view.nodes.get_mut("node-b").unwrap().region = None;
        assert!(standings(&view).unwrap_err().contains("no node of zone-b says which region"));
        view.nodes.insert("x".to_owned(), Node { zone: Some(zone('a')), region: Some("q".into()), ..Node::default() });
        assert!(standings(&view).unwrap_err().contains("in the regions q and r"));
        assert!(Mark::default().with(&zone('x'), Share::NONE, &view).is_err());
    }
}
