//! Reads what the preflight goes by. What can't be read can't be vouched for: it fails as a whole.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::Settings;
use super::map::parse;
use super::preflight::{Entry, Facts, Istiod, Rule};
use crate::domain::ServiceId;
use crate::kubernetes::{bounded, explain, istiod, list, status_code, step_error};
use crate::ports::StepError;

const OWN_MAP: &str = "istio";
const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

pub(super) async fn read(client: &Client, settings: &Settings) -> Result<Facts, StepError> {
    let istiods = istiod::istiods(client).await;
    let istiods = istiods.map_err(|error| step_error("istiod can't be looked up", &error))?;
    let mut names: BTreeSet<String> = istiods.iter().map(own_map).collect();
    names.insert(OWN_MAP.to_owned());
    let mut own_maps = BTreeMap::new();
    for name in names {
        let sets = sets_locality(client, &settings.namespace, &name).await;
        own_maps.insert(name, sets);
    }
    let slices: Vec<EndpointSlice> = read_all(list(client).await, "EndpointSlices")?;
    let services: Vec<Service> = read_all(list(client).await, "Services")?;
    let namespaces: Vec<Namespace> = read_all(list(client).await, "Namespaces")?;
    let rules = custom(client, "DestinationRule").await?;
    let entries = custom(client, "ServiceEntry").await?;
    Ok(Facts {
        istiods: istiods.iter().map(seen).collect(),
        own_maps,
        rules: rules.into_iter().map(|it| Rule::new(namespace(&it), it.name_any(), &it.data["spec"])).collect(),
        nowhere: nowhere(&slices),
        entries: entries.iter().flat_map(entries_of).collect(),
        preferring: preferring(&services, &namespaces),
        ambient: namespaces.iter().filter(|it| is_ambient(it)).map(ResourceExt::name_any).collect(),
    })
}

fn read_all<T>(found: kube::Result<T>, kind: &str) -> Result<T, StepError> {
    found.map_err(|error| step_error(&format!("{kind} can't be listed"), &error))
}

fn namespace(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_default()
}

/// Istio's own, if they are there.
async fn custom(client: &Client, kind: &str) -> Result<Vec<DynamicObject>, StepError> {
    for version in ["v1", "v1beta1"] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", version, kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match bounded(api.list(&ListParams::default())).await {
            Ok(found) => return Ok(found.items),
            Err(error) if status_code(&error) == Some(404) => {}
            Err(error) => return Err(step_error(&format!("{kind}s can't be listed"), &error)),
        }
    }
    Ok(Vec::new())
}

/// That of a revision has its name.
fn own_map(istiod: &Deployment) -> String {
    match istiod.labels().get("istio.io/rev").map(String::as_str) {
        None | Some("" | "default") => OWN_MAP.to_owned(),
        Some(revision) => format!("{OWN_MAP}-{revision}"),
    }
}

fn seen(deployment: &Deployment) -> Istiod {
    let discovery = istiod::discovery(deployment);
    Istiod {
        namespace: namespace(deployment),
        name: deployment.name_any(),
        shared_map: discovery.and_then(|discovery| istiod::variable(discovery, "SHARED_MESH_CONFIG")),
    }
}

async fn sets_locality(client: &Client, namespace: &str, name: &str) -> Result<bool, String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = bounded(maps.get_opt(name)).await.map_err(|error| explain(&error))?;
    let text = map.and_then(|map| map.data?.remove("mesh")).unwrap_or_default();
    let document = if text.trim().is_empty() { Value::Null } else { parse(&text)? };
    Ok(document.get("localityLbSetting").is_some_and(|setting| !setting.is_null()))
}

/// Istio knows where an endpoint is by the pod behind it.
fn nowhere(slices: &[EndpointSlice]) -> BTreeMap<ServiceId, usize> {
    let mut found = BTreeMap::new();
    for slice in slices {
        let Some(service) = slice.labels().get("kubernetes.io/service-name") else { continue };
        let lost = slice.endpoints.iter().filter(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            let of_pod = endpoint.target_ref.as_ref().is_some_and(|it| it.kind.as_deref() == Some("Pod"));
            ready && !(of_pod && endpoint.zone.as_ref().is_some_and(|zone| !zone.is_empty()))
        });
        let count: usize = lost.map(|endpoint| endpoint.addresses.len()).sum();
        if count > 0 {
            *found.entry(ServiceId::new(namespace(slice), service)).or_default() += count;
        }
    }
    found
}

/// Hosts with endpoints that state no locality. Without any endpoint the host is its own; without resolution there are none.
fn entries_of(object: &DynamicObject) -> Vec<Entry> {
    let spec = &object.data["spec"];
    let endpoints = spec["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    let resolved = spec["resolution"].as_str().is_some_and(|it| it != "NONE");
    let lost = if endpoints.is_empty() {
        resolved && spec["workloadSelector"].is_null()
    } else {
        resolved && endpoints.iter().any(|it| it["locality"].as_str().is_none_or(str::is_empty))
    };
    let hosts = spec["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(|_| lost);
    let entry = |host: &str| Entry { namespace: namespace(object), name: object.name_any(), host: host.to_owned() };
    hosts.map(entry).collect()
}

fn preferring(services: &[Service], namespaces: &[Namespace]) -> BTreeSet<ServiceId> {
    let says = |annotation: Option<&String>| annotation.is_some_and(|value| !value.is_empty());
    let all_of: BTreeSet<String> =
        namespaces.iter().filter(|it| says(it.annotations().get(DISTRIBUTION))).map(ResourceExt::name_any).collect();
    let prefers = |service: &&Service| {
        let field = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_ref());
        says(field) || says(service.annotations().get(DISTRIBUTION)) || all_of.contains(&namespace(*service))
    };
    services.iter().filter(prefers).map(|it| ServiceId::new(namespace(it), it.name_any())).collect()
}

fn is_ambient(namespace: &Namespace) -> bool {
    namespace.labels().get("istio.io/dataplane-mode").is_some_and(|mode| mode == "ambient")
}
