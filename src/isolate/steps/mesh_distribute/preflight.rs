//! Whether weights for the whole mesh would do harm, or nothing, as far as the API server can tell. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::weights::lost_without;
use super::{Settings, some_of};
use crate::domain::cluster::ClusterView;
use crate::domain::{ServiceId, Zone};
use crate::kubernetes::marks;

/// What of the mesh matters to it, beside the view.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub istiods: Vec<Istiod>,
    /// The mesh's own `ConfigMap`s by name, and whether each sets `localityLbSetting`, or why that can't be told.
    pub own_maps: BTreeMap<String, Result<bool, String>>,
    pub rules: Vec<Rule>,
    /// Services with endpoints of which no zone is known, and how many.
    pub nowhere: BTreeMap<ServiceId, usize>,
    pub entries: Vec<Entry>,
    /// Services that prefer near endpoints in Kubernetes' own way.
    pub preferring: BTreeSet<ServiceId>,
    pub ambient: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Istiod {
    pub namespace: String,
    pub name: String,
    pub shared_map: Option<String>,
}

/// A `DestinationRule`.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub namespace: String,
    pub name: String,
    pub host: String,
    /// Some of its settings of locality are its own.
    pub has_own: bool,
    /// All are, for every client.
    pub all_own: bool,
}

/// A host of a `ServiceEntry` with endpoints of which no locality is known.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub namespace: String,
    pub name: String,
    pub host: String,
}

/// What was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub found: String,
    pub hint: String,
}

fn finding(found: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { found: found.into(), hint: hint.into() }
}

const EXEMPT: &str = "give each a DestinationRule in its own namespace, with its host and \
                      trafficPolicy.loadBalancer.localityLbSetting.enabled: false, and weights do not concern it";

impl Rule {
    pub(super) fn new(namespace: String, name: String, spec: &Value) -> Self {
        let mut balancers = Vec::new();
        collect(spec, "loadBalancer", &mut balancers);
        let own = |balancer: &&Value| balancer.get("localityLbSetting").is_some_and(Value::is_object);
        let top = spec.pointer("/trafficPolicy/loadBalancer/localityLbSetting").is_some_and(Value::is_object);
        let for_all = spec.get("workloadSelector").is_none_or(Value::is_null)
            && spec
                .get("exportTo")
                .and_then(Value::as_array)
                .is_none_or(|to| to.is_empty() || to.contains(&"*".into()));
        Self {
            has_own: balancers.iter().any(own),
            // What a subset or a port has of its own replaces the whole.
            all_own: top && for_all && balancers.iter().all(own),
            host: full(spec["host"].as_str().unwrap_or_default(), &namespace),
            namespace,
            name,
        }
    }

    fn matches(&self, host: &str) -> bool {
        self.host == host || self.host.strip_prefix('*').is_some_and(|end| host.ends_with(end))
    }
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    let below = value.as_object().into_iter().flat_map(|it| it.values());
    for inner in below.chain(value.as_array().into_iter().flatten()) {
        collect(inner, key, found);
    }
    found.extend(value.get(key));
}

/// As Istio completes a host without dots. The cluster's domain is taken for the usual one.
fn full(host: &str, namespace: &str) -> String {
    if !host.contains('.') && host != "*" {
        return format!("{host}.{namespace}.svc.cluster.local");
    }
    match host.split_once(".svc.") {
        Some((service, _)) => format!("{service}.svc.cluster.local"),
        None => host.to_owned(),
    }
}

impl Facts {
    /// Whether weights do not concern a host, for any client: the rule of its own namespace comes first, and hides the mesh's.
    fn exempt(&self, host: &str, namespace: &str, root: &str) -> bool {
        let of = |namespace: &str| -> Vec<&Rule> {
            self.rules.iter().filter(|rule| rule.namespace == namespace && rule.matches(host)).collect()
        };
        let own = of(namespace);
        let rules = if own.is_empty() { of(root) } else { own };
        !rules.is_empty() && rules.iter().all(|rule| rule.all_own)
    }

    fn service_exempt(&self, service: &ServiceId, settings: &Settings) -> bool {
        let host = full(&service.name, &service.namespace);
        self.exempt(&host, &service.namespace, &settings.namespace)
    }

    /// What speaks against weights for any zone.
    pub(super) fn refusals(&self, view: &ClusterView, settings: &Settings) -> Vec<Finding> {
        let mut found = Vec::new();
        let nodes = view.nodes.iter().filter(|(_, node)| node.zone.is_none() || node.region.is_none());
        let nodes: Vec<String> = nodes.map(|(name, _)| name.clone()).collect();
        if !nodes.is_empty() {
            found.push(finding(
                format!("nodes without a region or a zone, whose pods would get no calls at all: {}", some_of(&nodes)),
                "label them with topology.kubernetes.io/region and topology.kubernetes.io/zone",
            ));
        }
        let nowhere = self.nowhere.iter().filter(|(service, _)| view.balanced(service));
        let nowhere = nowhere.filter(|(service, _)| !self.service_exempt(service, settings));
        let nowhere: Vec<String> = nowhere.map(|(service, count)| format!("{service} ({count})")).collect();
        if !nowhere.is_empty() {
            let what = "services with endpoints in no known zone, which would get no calls at all";
            found.push(finding(format!("{what}: {}", some_of(&nowhere)), EXEMPT));
        }
        let entries = self.entries.iter().filter(|it| !self.exempt(&it.host, &it.namespace, &settings.namespace));
        let entries: Vec<String> = entries.map(|it| format!("{}/{} ({})", it.namespace, it.name, it.host)).collect();
        if !entries.is_empty() {
            let what = "hosts of ServiceEntries with endpoints that state no locality, which would get no calls at all";
            found.push(finding(
                format!("{what}: {}", some_of(&entries)),
                format!("state the locality of every endpoint, or {EXEMPT}"),
            ));
        }
        found.extend(self.of_istiods(settings));
        found.extend(self.own_maps.iter().filter_map(|(name, sets)| own_map(name, sets, settings)));
        found
    }

    fn of_istiods(&self, settings: &Settings) -> Vec<Finding> {
        let Settings { namespace, config_map, .. } = settings;
        if self.istiods.is_empty() && settings.istiod.is_none() {
            return vec![finding(
                "no istiod runs in this cluster (its control plane may be managed), so nothing shows that it reads the \
                 ConfigMap",
                format!(
                    "set SHARED_MESH_CONFIG={config_map} on istiod, and steps.mesh_distribute.istiod, by which its word is read"
                ),
            )];
        }
        let judge = |istiod: &Istiod| {
            let of = format!("{}/{}", istiod.namespace, istiod.name);
            if istiod.namespace != *namespace {
                let found = format!("{of} reads ConfigMaps of its own namespace, and not of {namespace}");
                return Some(finding(found, "set steps.mesh_distribute.namespace; there is no doing it for several"));
            }
            let has = match &istiod.shared_map {
                Some(map) if map == config_map => return None,
                Some(map) => format!("has SHARED_MESH_CONFIG={map}"),
                None => "lacks SHARED_MESH_CONFIG".to_owned(),
            };
            let patch = format!(
                "kubectl -n {namespace} set env deployment/{} SHARED_MESH_CONFIG={config_map} (in Helm's values \
                 pilot.env.SHARED_MESH_CONFIG); it restarts istiod, and calls go on meanwhile",
                istiod.name
            );
            Some(finding(format!("{of} {has}, so it does not read the ConfigMap {config_map}"), patch))
        };
        self.istiods.iter().filter_map(judge).collect()
    }

    /// What speaks against leaving these zones out.
    pub(super) fn refusals_of(&self, view: &ClusterView, none: &BTreeSet<&Zone>, settings: &Settings) -> Vec<Finding> {
        let mut found = Vec::new();
        let lost = lost_without(view, none).into_keys().filter(|service| !self.service_exempt(service, settings));
        let lost: Vec<String> = lost.map(ToString::to_string).collect();
        if !lost.is_empty() {
            let hint = format!("let them run in other zones, too; or {EXEMPT}");
            found.push(finding(
                format!("services that are ready only there, which would be lost: {}", some_of(&lost)),
                hint,
            ));
        }
        // That it is the owner's own word, and not the configuration's, is told by how it ends.
        let never = format!("{}: never", marks::OPT_OUT);
        let pods = view.pods.values().filter(|pod| pod.zone.as_ref().is_some_and(|zone| none.contains(zone)));
        let pods = pods.filter(|pod| pod.exempt.as_ref().is_some_and(|why| why.ends_with(&never)));
        let services: BTreeSet<&ServiceId> = pods.flat_map(|pod| &pod.services).collect();
        let services = services.into_iter().filter(|it| view.balanced(it) && !self.service_exempt(it, settings));
        let services: Vec<String> = services.map(ToString::to_string).collect();
        if !services.is_empty() {
            let found_these = format!("services of pods there that are never to be isolated: {}", some_of(&services));
            found.push(finding(found_these, format!("weights can't leave single pods alone: {EXEMPT}")));
        }
        found
    }

    /// What weights will not do.
    pub(super) fn warnings(&self, settings: &Settings) -> Vec<Finding> {
        let mut found = Vec::new();
        let hint = "calls to these go on as before: change them by hand, if the zone is to lose those, too";
        for (why, services) in self.uncovered() {
            found.push(finding(format!("{why}: {}", some_of(&services)), hint));
        }
        if settings.istiod.is_none() {
            found.push(finding(
                "whether istiod takes the weights in is not read back, only that they are written",
                "set steps.mesh_distribute.istiod, by which its word is read",
            ));
        }
        found.push(finding(
            "WorkloadEntries, and what other clusters of the mesh hold, are not looked at",
            "make sure that they state a locality, or they get no calls while a zone is out",
        ));
        found
    }

    /// What weights do not concern, by the reason.
    pub(super) fn uncovered(&self) -> BTreeMap<String, Vec<String>> {
        let preferring: Vec<String> = self.preferring.iter().map(ToString::to_string).collect();
        let own = self.rules.iter().filter(|rule| rule.has_own);
        let own: Vec<String> = own.map(|it| format!("{}/{} ({})", it.namespace, it.name, it.host)).collect();
        let reasons = [
            (
                "Services with trafficDistribution, which comes before the mesh's weights (Istio 1.26 or later)",
                preferring,
            ),
            ("DestinationRules with localityLbSetting, which comes before the mesh's weights", own),
            ("namespaces in ambient mode, where ztunnel knows no weights", self.ambient.clone()),
        ];
        reasons.into_iter().filter(|(_, names)| !names.is_empty()).map(|(why, names)| (why.to_owned(), names)).collect()
    }
}

fn own_map(name: &str, sets: &Result<bool, String>, settings: &Settings) -> Option<Finding> {
    let namespace = &settings.namespace;
    match sets {
        Ok(false) => None,
        Ok(true) => Some(finding(
            format!("the mesh's own ConfigMap {namespace}/{name} sets localityLbSetting, which comes before ours"),
            "take it out there (in Helm's values meshConfig.localityLbSetting)",
        )),
        Err(why) => Some(finding(
            format!("the mesh's own ConfigMap {namespace}/{name} can't be read: {why}"),
            "it must not set localityLbSetting, as that comes before ours",
        )),
    }
}

#[cfg(test)]
mod tests;
