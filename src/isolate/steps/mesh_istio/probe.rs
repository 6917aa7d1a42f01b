//! Does this cluster's control plane drain what we label, and which of its pods listen to no control plane?

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::isolate::steps::{Probe, some_of};
use crate::kubernetes::{bounded, explain, istiod, marks};

/// Istio from which a label on a running pod takes effect.
const OLDEST_ISTIO: (u32, u32) = (1, 22);

/// The version of every istiod, and whether it knows the draining label.
pub(super) async fn istiods(client: &Client) -> Vec<Probe> {
    let found = match istiod::istiods(client).await {
        Ok(found) => found,
        Err(error) => {
            return vec![Probe::unsure(
                format!("istiod can't be looked up: {}", explain(&error)),
                "make sure yourself that it is Istio 1.22 or later",
            )];
        }
    };
    if found.is_empty() {
        return vec![Probe::unsure(
            "no istiod runs in this cluster (its control plane may be managed)",
            format!(
                "make sure that it is based on Istio 1.22 or later, and honours the label {}: label one pod of a service \
                 by hand, and see its traffic end",
                marks::DRAINING_LABEL
            ),
        )];
    }
    found.iter().filter_map(judged).collect()
}

fn judged(deployment: &Deployment) -> Option<Probe> {
    let discovery = istiod::discovery(deployment)?;
    let name = format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any());
    let label = istiod::variable(discovery, "PILOT_DRAINING_LABEL");
    Some(judge(&name, discovery.image.as_deref().unwrap_or_default(), label.as_deref()))
}

fn judge(name: &str, image: &str, label: Option<&str>) -> Probe {
    if let Some(label) = label.filter(|label| *label != marks::DRAINING_LABEL) {
        let found = format!("{name} has PILOT_DRAINING_LABEL={label:?}, so it ignores our label");
        return Probe::broken_but(found, "remove that variable from istiod");
    }
    match minor_version(image) {
        Some(version) if version < OLDEST_ISTIO => Probe::broken_but(
            format!("{name} runs {image}"),
            "before Istio 1.22 the draining label on a running pod has no effect: upgrade, or set steps.mesh_istio: null",
        ),
        Some((major, minor)) => Probe::Works(format!("{name}: Istio {major}.{minor}, which drains labelled pods")),
        None => Probe::unsure(format!("{name} runs {image}, whose version can't be told"), "it must be 1.22 or later"),
    }
}

/// Namespaces in ambient mode: ztunnel balances by itself, and knows no draining.
pub(super) async fn ambient(client: &Client) -> Option<Probe> {
    let api: Api<Namespace> = Api::all(client.clone());
    let ambient = bounded(api.list(&ListParams::default().labels("istio.io/dataplane-mode=ambient"))).await;
    let names: Vec<String> = ambient.ok()?.items.iter().map(ResourceExt::name_any).collect();
    (!names.is_empty()).then(|| {
        Probe::unsure(
            format!("namespaces in ambient mode are not covered: {}", some_of(&names)),
            "ztunnel ignores the draining label: calls to these go on, unless a waypoint serves them",
        )
    })
}

/// Of an image such as `docker.io/istio/pilot:1.27.1-distroless`.
fn minor_version(image: &str) -> Option<(u32, u32)> {
    let tag = image.rsplit_once(':')?.1;
    let mut parts = tag.split(['.', '-']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}
