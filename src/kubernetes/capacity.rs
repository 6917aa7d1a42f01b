//! What keeps new pods from going where there is room: spread over zones, pins, volumes. Pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

use super::marks;
use super::view::{ZONE_LABEL, finished};
use crate::domain::cluster::{ClusterView, Node, PodId, Workload, WorkloadId, ZoneSpread};
use crate::domain::{ServiceId, Zone};

const HOST_LABEL: &str = "kubernetes.io/hostname";

/// Adds to a view what its pods' places depend on. Only workloads that something binds are in it.
pub(super) fn add<P, V, B>(view: &mut ClusterView, pods: &[P], volumes: &[V], budgets: &[B])
where
    P: Borrow<core::Pod>,
    V: Borrow<core::PersistentVolume>,
    B: Borrow<PodDisruptionBudget>,
{
    let claims: BTreeMap<(String, String), BTreeSet<Zone>> =
        volumes.iter().map(Borrow::borrow).filter_map(|volume| claim(volume, &view.nodes)).collect();
    let mut workloads: BTreeMap<WorkloadId, Workload> = BTreeMap::new();
    for pod in pods.iter().map(Borrow::borrow).filter(|pod: &&core::Pod| !finished(pod)) {
        let Some(id) = workload(pod) else { continue };
        let place = PodId { namespace: id.namespace.clone(), name: pod.name_any() };
        let zone = view.pods.get(&place).and_then(|seen| seen.zone.clone());
        let bound = workloads.entry(id).or_default();
        bound.spread = bound.spread.or_else(|| spread(pod));
        bound.tolerates_taint |= tolerates(pod);
        let Some(zone) = zone else { continue };
        *bound.pods.entry(zone.clone()).or_default() += 1;
        if let Some(by) = pinned(pod, &zone, &view.nodes, &claims) {
            let pins = bound.pinned.entry(zone).or_insert_with(|| (0, by));
            pins.0 += 1;
        }
    }
    workloads.retain(|_, workload| workload.spread.is_some() || !workload.pinned.is_empty());
    view.workloads = workloads;
    let labels: BTreeMap<PodId, &core::Pod> = pods
        .iter()
        .map(Borrow::borrow)
        .map(|pod: &core::Pod| (PodId { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() }, pod))
        .collect();
    view.disruption_budgets = budgets.iter().map(|budget| of_budget(budget.borrow(), view, &labels)).collect();
}

/// What makes the pod, if anything does. A `ReplicaSet` of a `Deployment` is named after it and its template.
fn workload(pod: &core::Pod) -> Option<WorkloadId> {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let namespace = pod.namespace().unwrap_or_default();
    let template = pod.labels().get("pod-template-hash").filter(|_| owner.kind == "ReplicaSet");
    let deployment = template.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    let (kind, name) = match deployment {
        Some(name) => ("Deployment", name),
        // Each node has its own: they go nowhere else, nor shall they.
        None if matches!(owner.kind.as_str(), "DaemonSet" | "Node") => return None,
        None => (owner.kind.as_str(), owner.name.as_str()),
    };
    Some(WorkloadId { namespace, kind: kind.to_owned(), name: name.to_owned() })
}

/// How the pod must be spread over zones, if so.
fn spread(pod: &core::Pod) -> Option<ZoneSpread> {
    let constraints = pod.spec.iter().flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
    let strict = |it: &&core::TopologySpreadConstraint| {
        it.topology_key == ZONE_LABEL && it.when_unsatisfiable == "DoNotSchedule"
    };
    let found = constraints.into_iter().find(strict)?;
    Some(ZoneSpread {
        max_skew: found.max_skew.max(1).unsigned_abs(),
        min_domains: found.min_domains.unwrap_or(1).max(1).unsigned_abs(),
        counts_tainted_nodes: found.node_taints_policy.as_deref() != Some("Honor"),
    })
}

fn tolerates(pod: &core::Pod) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.into_iter().any(|toleration| {
        let effect = toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == "NoSchedule");
        let key = toleration.key.as_deref().is_none_or(|key| key.is_empty() || key == marks::TAINT);
        effect && key && toleration.operator.as_deref() == Some("Exists")
    })
}

/// By what the pod can be in this zone alone, if so.
fn pinned(
    pod: &core::Pod,
    zone: &Zone,
    nodes: &BTreeMap<String, Node>,
    claims: &BTreeMap<(String, String), BTreeSet<Zone>>,
) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let only_here = |zones: &BTreeSet<Zone>| zones.len() == 1 && zones.contains(zone);
    let selected = spec.node_selector.as_ref().and_then(|selector| selector.get(ZONE_LABEL));
    if selected.is_some_and(|selected| selected == zone.as_str()) {
        return Some("its nodeSelector".to_owned());
    }
    let required = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = required.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    if required.and_then(|selector| zones_of(selector, nodes)).is_some_and(|zones| only_here(&zones)) {
        return Some("its nodeAffinity".to_owned());
    }
    let namespace = pod.namespace().unwrap_or_default();
    let mut volumes = spec.volumes.iter().flatten().filter_map(|volume| {
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let generic = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name));
        claim.or(generic)
    });
    let claim = volumes.find(|name| claims.get(&(namespace.clone(), name.clone())).is_some_and(only_here))?;
    Some(format!("the volume of its PersistentVolumeClaim {claim}"))
}

/// The claim that a volume is bound to, and the zones that the volume can be used in.
fn claim(
    volume: &core::PersistentVolume,
    nodes: &BTreeMap<String, Node>,
) -> Option<((String, String), BTreeSet<Zone>)> {
    let spec = volume.spec.as_ref()?;
    let claim = spec.claim_ref.as_ref()?;
    let zones = zones_of(spec.node_affinity.as_ref()?.required.as_ref()?, nodes)?;
    Some(((claim.namespace.clone()?, claim.name.clone()?), zones))
}

/// The zones that a selector of nodes allows; nothing if it does not speak of zones. Drivers of volumes have labels of their
/// own for a zone, and local volumes name their node.
fn zones_of(selector: &core::NodeSelector, nodes: &BTreeMap<String, Node>) -> Option<BTreeSet<Zone>> {
    let of_term = |term: &core::NodeSelectorTerm| -> Option<BTreeSet<Zone>> {
        let expressions = term.match_expressions.iter().flatten().filter(|it| it.operator == "In");
        let sets = expressions.filter_map(|it| {
            let values = it.values.iter().flatten();
            if it.key == HOST_LABEL {
                return values.map(|host| nodes.get(host).and_then(|node| node.zone.clone())).collect();
            }
            it.key.ends_with("/zone").then(|| values.map(Zone::new).collect::<BTreeSet<Zone>>())
        });
        sets.reduce(|all, these| &all & &these)
    };
    selector.node_selector_terms.iter().map(of_term).try_fold(BTreeSet::new(), |all, these| Some(&all | &these?))
}

/// The budget, and how many pods of each zone it counts.
fn of_budget(
    budget: &PodDisruptionBudget,
    view: &ClusterView,
    pods: &BTreeMap<PodId, &core::Pod>,
) -> (ServiceId, BTreeMap<Zone, u32>) {
    let namespace = budget.namespace().unwrap_or_default();
    let mut counted: BTreeMap<Zone, u32> = BTreeMap::new();
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    for (id, pod) in view.pods.iter().filter(|(id, pod)| id.namespace == namespace && pod.ready && pod.exempt.is_none())
    {
        let matches = |selector: &LabelSelector| pods.get(id).is_some_and(|object| selects(selector, object));
        if let Some(zone) = pod.zone.as_ref().filter(|_| selector.is_some_and(matches)) {
            *counted.entry(zone.clone()).or_default() += 1;
        }
    }
    (ServiceId::new(namespace, budget.name_any()), counted)
}

fn selects(selector: &LabelSelector, pod: &core::Pod) -> bool {
    let labels = pod.labels();
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let mut expressions = selector.match_expressions.iter().flatten();
    equal
        && expressions.all(|it| {
            let value = labels.get(&it.key);
            let listed = value.is_some_and(|value| it.values.iter().flatten().any(|known| known == value));
            match it.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn pod(owner: &Value, spec: &Value) -> core::Pod {
        let mut spec = spec.clone();
        spec["nodeName"] = json!("n");
        spec["containers"] = json!([]);
        let labels = json!({"app": "web", "pod-template-hash": "5f7d"});
        read(json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": labels, "ownerReferences": [owner]},
            "spec": spec}))
    }

    fn replica_set() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5f7d", "uid": "1", "controller": true})
    }

    fn seen(pods: &[core::Pod], volumes: &[core::PersistentVolume], budgets: &[PodDisruptionBudget]) -> ClusterView {
        let zone = Some(Zone::new("zone-b"));
        let mut view = ClusterView::default();
        view.nodes.insert("n".into(), Node { zone: zone.clone(), ..Node::default() });
        for pod in pods {
            let id = PodId { namespace: "shop".into(), name: pod.name_any() };
            let it = crate::domain::cluster::Pod { zone: zone.clone(), ready: true, ..Default::default() };
            view.pods.insert(id, it);
        }
        add(&mut view, pods, volumes, budgets);
        view
    }

    fn only(pod: core::Pod, volumes: &[core::PersistentVolume]) -> Option<(WorkloadId, Workload)> {
        seen(&[pod], volumes, &[]).workloads.into_iter().next()
    }

    #[test]
    fn a_strict_spread_over_zones_is_its_deployments() {
        let constraint = |when: &str, more: Value| {
            let mut it = json!({"maxSkew": 2, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": when});
            it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            only(pod(&replica_set(), &json!({"topologySpreadConstraints": [it]})), &[])
        };
        let (id, strict) = constraint("DoNotSchedule", json!({})).unwrap();
        assert_eq!(id.to_string(), "Deployment shop/web");
        assert_eq!(strict.spread, Some(ZoneSpread { max_skew: 2, min_domains: 1, counts_tainted_nodes: true }));
        assert_eq!(strict.pods, [(Zone::new("zone-b"), 1)].into());
        let (_, honors) = constraint("DoNotSchedule", json!({"nodeTaintsPolicy": "Honor", "minDomains": 3})).unwrap();
        assert_eq!(honors.spread, Some(ZoneSpread { max_skew: 2, min_domains: 3, counts_tainted_nodes: false }));
        assert!(constraint("ScheduleAnyway", json!({})).is_none(), "it is a wish");
    }

    #[test]
    fn what_can_be_in_one_zone_alone_is_pinned() {
        let by = |spec: Value, volumes: &[core::PersistentVolume]| {
            let (_, workload) = only(pod(&replica_set(), &spec), volumes)?;
            workload.pinned.get(&Zone::new("zone-b")).map(|(_, by)| by.clone())
        };
        let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let zones = |zones: Value| json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": zones}]});
        let selector = json!({"nodeSelector": {"topology.kubernetes.io/zone": "zone-b"}});
        assert_eq!(by(selector, &[]).as_deref(), Some("its nodeSelector"));
        assert_eq!(by(affinity(json!([zones(json!(["zone-b"]))])), &[]).as_deref(), Some("its nodeAffinity"));
        assert_eq!(by(affinity(json!([zones(json!(["zone-b", "zone-c"]))])), &[]), None);
        let or = json!([zones(json!(["zone-b"])), {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]);
        assert_eq!(by(affinity(or), &[]), None, "the other term allows any zone");

        let volume = |expression: Value| -> core::PersistentVolume {
            let terms = json!([{"matchExpressions": [expression]}]);
            read(json!({"metadata": {"name": "pv-1"}, "spec": {"claimRef": {"namespace": "shop", "name": "data"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}))
        };
        let claim = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
        let of_driver = volume(json!({"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": ["zone-b"]}));
        let told = by(claim.clone(), &[of_driver]);
        assert_eq!(told.as_deref(), Some("the volume of its PersistentVolumeClaim data"));
        let local = volume(json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}));
        assert!(by(claim.clone(), &[local]).is_some(), "a local volume is on its node");
        assert_eq!(by(claim, &[]), None);
    }

    #[test]
    fn pods_of_nodes_are_bound_to_them_anyway() {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "1", "controller": true});
        assert!(only(pod(&owner, &json!({"nodeSelector": {"topology.kubernetes.io/zone": "zone-b"}})), &[]).is_none());
    }

    #[test]
    fn a_budget_counts_the_ready_pods_that_it_selects() {
        let budget = |selector: Value| -> PodDisruptionBudget {
            read(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": selector}}))
        };
        let counted = |selector: Value| {
            let view = seen(&[pod(&replica_set(), &json!({}))], &[], &[budget(selector)]);
            view.disruption_budgets.values().next().unwrap().values().sum::<u32>()
        };
        assert_eq!(counted(json!({"matchLabels": {"app": "web"}})), 1);
        assert_eq!(counted(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]})), 0);
        assert_eq!(counted(json!({"matchLabels": {"app": "api"}})), 0);
    }
}
