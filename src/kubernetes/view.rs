//! From Kubernetes' objects to what guardrails and steps look at. Pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{Settings, marks};
use crate::domain::cluster::{ClusterView, Draining, Node, Pod, PodId, Service};
use crate::domain::{ServiceId, Zone};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
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
    ClusterView { nodes, pods, services }
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
        available: ready && !cordoned && !taints.clone().any(|taint| taken_out(&taint.key)),
        tainted: taints.clone().any(|taint| taint.key == marks::TAINT),
        exempt: opt_out(&node.metadata) == Some("never"),
    }
}

fn finished(pod: &core::Pod) -> bool {
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
    let addressed = status.is_some_and(|status| status.pod_ip.is_some());
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
        ready: ready && addressed && pod.metadata.deletion_timestamp.is_none(),
        draining,
        in_mesh: containers.into_iter().any(|container| container.name == "istio-proxy"),
        exempt: exempt(pod, services, settings),
        services: services.iter().map(|service| id_of(&service.metadata)).collect(),
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
