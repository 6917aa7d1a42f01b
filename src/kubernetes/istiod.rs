//! Istio's control planes, as their Deployments tell.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use kube::api::ListParams;
use kube::{Api, Client};

use super::bounded;

/// Those that run in this cluster; a managed one may run elsewhere.
pub async fn istiods(client: &Client) -> kube::Result<Vec<Deployment>> {
    let api: Api<Deployment> = Api::all(client.clone());
    Ok(bounded(api.list(&ListParams::default().labels("app=istiod"))).await?.items)
}

/// The container of an istiod that serves proxies.
pub fn discovery(istiod: &Deployment) -> Option<&Container> {
    let containers = &istiod.spec.as_ref()?.template.spec.as_ref()?.containers;
    containers.iter().find(|container| container.name == "discovery")
}

/// An environment variable of it, if it is set there.
pub fn variable(discovery: &Container, name: &str) -> Option<String> {
    let variable = discovery.env.iter().flatten().find(|variable| variable.name == name)?;
    Some(variable.value.clone().unwrap_or_default())
}
