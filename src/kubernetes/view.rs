//! From Kubernetes' objects to what guardrails and steps look at. Pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{Settings, marks};
use crate::domain::cluster::{ClusterView, Draining, Node, Pod, PodId, Service};
use crate::domain::{ServiceId, Zone};

pub(super) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const ZONE_ID_LABEL: &str = "topology.k8s.aws/zone-id";
const REGION_LABEL: &str = "topology.kubernetes.io/region";
const KARPENTER_POOL_LABEL: &str = "karpenter.sh/nodepool";
/// Parts of the keys of taints by which others take a node out of use; taints that dedicate a node do not.
const TAKEN_OUT: [&str; 8] = [
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "disrupt",
    "drain",
    "evacuat",
    "maintenance",
    "isolat",
];

/// The objects of one moment.
pub(super) struct Objects<'a, N, P, S, M> {
    pub nodes: &'a [N],
    pub pods: &'a [P],
    pub services: &'a [S],
    pub namespaces: &'a [M],
}

pub(super) fn view<N, P, S, M>(objects: &Objects<'_, N, P, S, M>, settings: &Settings) -> ClusterView
where
    N: Borrow<core::Node>,
    P: Borrow<core::Pod>,
    S: Borrow<core::Service>,
    M: Borrow<core::Namespace>,
{
    let nodes: BTreeMap<String, Node> =
        objects.nodes.iter().map(Borrow::borrow).map(|n: &core::Node| (n.name_any(), node(n))).collect();
    let mut by_namespace: BTreeMap<String, Vec<&core::Service>> = BTreeMap::new();
    let mut services = BTreeMap::new();
    for service in objects.services.iter().map(Borrow::borrow) {
        let headless = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None");
        services.insert(id_of(&service.metadata), Service { headless });
        by_namespace.entry(service.namespace().unwrap_or_default()).or_default().push(service);
    }
    let opted_out: BTreeSet<String> = objects
        .namespaces
        .iter()
        .map(Borrow::borrow)
        .filter(|n: &&core::Namespace| opt_out(&n.metadata) == Some("never"))
        .map(ResourceExt::name_any)
        .collect();
    let living = objects.pods.iter().map(Borrow::borrow).filter(|pod: &&core::Pod| !finished(pod));
    let pods = living
        .map(|it| {
            let namespace = it.namespace().unwrap_or_default();
            let selecting: Vec<&core::Service> =
                by_namespace.get(&namespace).into_iter().flatten().copied().filter(|s| selects(s, it)).collect();
            let mut seen = pod(it, &nodes, &selecting, settings);
            if seen.exempt.is_none() && opted_out.contains(&namespace) {
                seen.exempt = Some(format!("its Namespace says {}: never", marks::OPT_OUT));
            }
            (PodId { namespace, name: it.name_any() }, seen)
        })
        .collect();
    ClusterView { nodes, pods, services, ..ClusterView::default() }
}

fn id_of(meta: &ObjectMeta) -> ServiceId {
    ServiceId::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn opt_out(meta: &ObjectMeta) -> Option<&str> {
    let of = |map: &Option<BTreeMap<String, String>>| map.as_ref().and_then(|map| map.get(marks::OPT_OUT)).cloned();
    match of(&meta.annotations).or_else(|| of(&meta.labels))?.as_str() {
        "never" => Some("never"),
        "allow" => Some("allow"),
        _ => None,
    }
}

fn node(node: &core::Node) -> Node {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taken_out = |key: &str| key != marks::TAINT && TAKEN_OUT.iter().any(|part| key.contains(part));
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Node {
        zone: node.labels().get(ZONE_LABEL).filter(|zone| !zone.is_empty()).map(Zone::new),
        zone_id: node.labels().get(ZONE_ID_LABEL).filter(|id| !id.is_empty()).cloned(),
        region: node.labels().get(REGION_LABEL).filter(|region| !region.is_empty()).cloned(),
        available: ready && !cordoned && !taints.clone().any(|taint| taken_out(&taint.key)),
        tainted: tainted(node),
        exempt: opt_out(&node.metadata) == Some("never"),
        cpu: node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu")).and_then(millicores),
        karpenter_pool: node.labels().get(KARPENTER_POOL_LABEL).cloned(),
    }
}

/// Thousandths of a core of a quantity such as `500m`, `2` or `1.5`.
fn millicores(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let unit = text.find(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E'));
    let (number, unit) = text.split_at(unit.unwrap_or(text.len()));
    let per_unit = match unit {
        "" => 1e3,
        "m" => 1.0,
        "u" => 1e-3,
        "n" => 1e-6,
        "k" => 1e6,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    (number >= 0.0 && number.is_finite()).then(|| (number * per_unit).round() as u64)
}

/// What all containers together may use, if each of them has a limit. Init containers have ended, but for sidecars.
fn cpu_limit(pod: &core::Pod) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let limit = |it: &core::Container| millicores(it.resources.as_ref()?.limits.as_ref()?.get("cpu")?);
    let mut limits = spec.containers.iter().chain(sidecars).map(limit);
    limits.try_fold(0_u64, |sum, limit| Some(sum.saturating_add(limit?)))
}

/// For the isolation of which zone a node carries our taint.
pub fn tainted(node: &core::Node) -> Option<Zone> {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.find(|taint| taint.key == marks::TAINT).map(|taint| Zone::new(taint.value.clone().unwrap_or_default()))
}

pub(super) fn finished(pod: &core::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn selects(service: &core::Service, pod: &core::Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}

fn pod(pod: &core::Pod, nodes: &BTreeMap<String, Node>, services: &[&core::Service], settings: &Settings) -> Pod {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let name_of_node = spec.and_then(|spec| spec.node_name.clone());
    let zone = name_of_node.as_ref().and_then(|name| nodes.get(name)).and_then(|node| node.zone.clone());
    let ready = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let address = status.and_then(|status| status.pod_ip.as_deref()).and_then(|address| address.parse().ok());
    let draining = match pod.labels().get(marks::DRAINING_LABEL).map(String::as_str) {
        None | Some("") => Draining::No,
        Some(marks::DRAINING_VALUE) => {
            match pod.annotations().get(marks::ZONE_ANNOTATION).map(Zone::new).or_else(|| zone.clone()) {
                Some(zone) => Draining::Ours(zone),
                None => Draining::Others,
            }
        }
        Some(_) => Draining::Others,
    };
    let containers = spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    Pod {
        uid: pod.uid().unwrap_or_default(),
        node: name_of_node,
        zone,
        address,
        ready: ready && address.is_some() && pod.metadata.deletion_timestamp.is_none(),
        draining,
        in_mesh: containers.into_iter().any(|container| container.name == "istio-proxy"),
        exempt: exempt(pod, services, settings),
        services: services.iter().map(|service| id_of(&service.metadata)).collect(),
        cpu_limit: cpu_limit(pod),
    }
}

/// Why the pod is left alone, if so: what its owner says comes first.
fn exempt(pod: &core::Pod, services: &[&core::Service], settings: &Settings) -> Option<String> {
    if opt_out(&pod.metadata) == Some("never") {
        return Some(format!("it says {}: never", marks::OPT_OUT));
    }
    if let Some(service) = services.iter().find(|service| opt_out(&service.metadata) == Some("never")) {
        return Some(format!("its Service {} says {}: never", service.name_any(), marks::OPT_OUT));
    }
    let namespace = pod.namespace().unwrap_or_default();
    if settings.exempt_namespaces.contains(&namespace) {
        return Some(format!("the namespace {namespace} is exempt (kubernetes.exempt_namespaces)"));
    }
    let apps = ["app", "app.kubernetes.io/name"].map(|label| pod.labels().get(label));
    if let Some(app) = apps.into_iter().flatten().find(|app| settings.exempt_apps.contains(app)) {
        return Some(format!("the app {app} is exempt (kubernetes.exempt_apps)"));
    }
    let allowed =
        opt_out(&pod.metadata) == Some("allow") || services.iter().any(|s| opt_out(&s.metadata) == Some("allow"));
    let stateful = pod.owner_references().iter().any(|owner| owner.kind == "StatefulSet");
    (settings.exempt_stateful_sets && stateful && !allowed).then(|| {
        format!(
            "a StatefulSet's pod may belong to a quorum (kubernetes.exempt_stateful_sets, or {}: allow)",
            marks::OPT_OUT
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node_of(spec: &Value, labels: &Value) -> Node {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        node(
            &serde_json::from_value(
                json!({"metadata": {"name": "n", "labels": labels}, "spec": spec, "status": {"conditions": ready}}),
            )
            .unwrap(),
        )
    }

    fn node_of_object(object: Value) -> Node {
        node(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_node_is_available_unless_others_took_it_out() {
        let zone = json!({"topology.kubernetes.io/zone": "zone-b", "topology.k8s.aws/zone-id": "use1-az2"});
        let tainted = |key: &str, value: &str| {
            node_of(&json!({"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]}), &zone)
        };
        assert_eq!(node_of(&json!({}), &zone).zone, Some(Zone::new("zone-b")));
        assert_eq!(node_of(&json!({}), &zone).zone_id.as_deref(), Some("use1-az2"));
        assert!(node_of(&json!({}), &json!({})).zone.is_none());
        assert!(!node_of(&json!({"unschedulable": true}), &zone).available, "cordoned");
        assert!(!tainted("node.kubernetes.io/unreachable", "").available);
        assert!(!tainted("karpenter.sh/disrupted", "").available);
        assert!(tainted("dedicated", "gpu").available, "a taint that dedicates a node does not take it out");
        let ours = tainted("zoneward.io/isolated", "zone-b");
        assert!(ours.available && ours.tainted == Some(Zone::new("zone-b")), "ours does not count against the zone");
    }

    #[test]
    fn what_a_node_offers_and_a_pod_may_use_is_read_in_any_unit() {
        let cpu = |quantity: &str| {
            let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": quantity}}});
            node_of_object(node).cpu
        };
        assert_eq!(["2", "1930m", "1.5", "1e3m", "250000u"].map(cpu), [2_000, 1_930, 1_500, 1_000, 250].map(Some));
        assert_eq!(["", "many", "-1", "2Gi"].map(cpu), [None; 4]);
        let limit = |containers: Value, init: Value| {
            let pod = json!({"metadata": {}, "spec": {"containers": containers, "initContainers": init}});
            pod_of(pod, &json!({}), &json!({})).cpu_limit
        };
        let with = |cpu: &str| json!({"name": "a", "resources": {"limits": {"cpu": cpu}}});
        let mut sidecar = with("100m");
        assert_eq!(limit(json!([with("500m"), with("1")]), json!([sidecar])), Some(1_500), "it has run");
        sidecar["restartPolicy"] = json!("Always");
        assert_eq!(limit(json!([with("500m")]), json!([sidecar])), Some(600));
        assert_eq!(limit(json!([with("500m"), {"name": "b"}]), json!([])), None, "one of them may use any");
        let pool = json!({"metadata": {"name": "n", "labels": {"karpenter.sh/nodepool": "spot"}}});
        assert_eq!(node_of_object(pool).karpenter_pool.as_deref(), Some("spot"));
    }

    /// One pod in `zone-b`, behind one Service.
    fn pod_of(pod: Value, service_annotations: &Value, namespace_labels: &Value) -> Pod {
        let mut object: core::Pod = serde_json::from_value(pod).unwrap();
        object.metadata.namespace.get_or_insert_with(|| "shop".to_owned());
        object.metadata.name = Some("web-1".into());
        object.metadata.labels.get_or_insert_default().insert("role".into(), "web".into());
        object.spec.get_or_insert_default().node_name = Some("n".into());
        let namespace = object.metadata.namespace.clone().unwrap();
        let service = json!({"metadata": {"name": "web", "namespace": namespace, "annotations": service_annotations},
            "spec": {"selector": {"role": "web"}, "clusterIP": "10.0.0.1"}});
        let labels = json!({"topology.kubernetes.io/zone": "zone-b"});
        let objects = Objects {
            nodes: &[serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}})).unwrap()]
                as &[core::Node],
            pods: &[object],
            services: &[serde_json::from_value(service).unwrap()] as &[core::Service],
            namespaces: &[
                serde_json::from_value(json!({"metadata": {"name": "shop", "labels": namespace_labels}})).unwrap()
            ] as &[core::Namespace],
        };
        view(&objects, &Settings::default()).pods.into_values().next().unwrap()
    }

    fn exempt_as(pod: Value) -> String {
        pod_of(pod, &json!({}), &json!({})).exempt.unwrap_or_default()
    }

    #[test]
    fn a_pod_is_of_its_nodes_zone_and_of_the_services_that_select_it() {
        let pod = pod_of(json!({"metadata": {}}), &json!({}), &json!({}));
        assert_eq!((pod.zone, pod.exempt), (Some(Zone::new("zone-b")), None));
        assert_eq!(pod.services, [ServiceId::new("shop", "web")].into());
        assert!(!pod.ready, "without an address and the condition it is no endpoint");
    }

    #[test]
    fn what_its_owner_says_leaves_a_pod_alone() {
        let never = json!({"zoneward.io/isolate": "never"});
        assert!(exempt_as(json!({"metadata": {"annotations": never}})).starts_with("it says"));
        assert!(exempt_as(json!({"metadata": {"labels": never}})).starts_with("it says"));
        let by_service = pod_of(json!({"metadata": {}}), &never, &json!({}));
        assert!(by_service.exempt.unwrap().contains("its Service web says"));
        let by_namespace = pod_of(json!({"metadata": {}}), &json!({}), &never);
        assert!(by_namespace.exempt.unwrap().contains("its Namespace says"));
    }

    #[test]
    fn control_planes_monitoring_and_quorums_are_left_alone() {
        assert!(exempt_as(json!({"metadata": {"namespace": "kube-system"}})).contains("the namespace kube-system"));
        assert!(exempt_as(json!({"metadata": {"labels": {"app": "istiod"}}})).contains("the app istiod"));
        assert!(
            exempt_as(json!({"metadata": {"labels": {"app.kubernetes.io/name": "prometheus"}}})).contains("prometheus")
        );
        let owned = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "1"}]);
        assert!(exempt_as(json!({"metadata": {"ownerReferences": owned}})).contains("a quorum"));
        let allowed = json!({"metadata": {"ownerReferences": owned, "annotations": {"zoneward.io/isolate": "allow"}}});
        assert_eq!(exempt_as(allowed), "");
    }

    #[test]
    fn the_label_is_ours_by_its_value_and_for_the_zone_that_is_noted() {
        let with = |value: &str, annotations: Value| {
            let meta = json!({"metadata": {"labels": {"istio.io/draining": value}, "annotations": annotations}});
            pod_of(meta, &json!({}), &json!({})).draining
        };
        let noted = json!({"zoneward.io/isolated-zone": "zone-x"});
        assert_eq!(with("zoneward", noted), Draining::Ours(Zone::new("zone-x")));
        assert_eq!(with("zoneward", json!({})), Draining::Ours(Zone::new("zone-b")), "without a note, its own");
        assert_eq!(with("by-somebody", json!({})), Draining::Others);
        assert_eq!(with("", json!({})), Draining::No);
    }
}
