//! `zoneward check --connect`: what acting takes of the cluster, and of what the steps change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use super::check::{Finding, Level};
use super::cluster::{is_surely_that_of_the_metrics, needs_cluster};
use crate::domain::{ClusterView, Mode, Zone};
use crate::isolate::resource::{self, ZoneIsolation};
use crate::isolate::steps::{self, Look, Probe};
use crate::kubernetes::{self, bounded, explain, read, status_code};
use crate::settings::Settings;

/// What the daemon's account needs: group, resource, verbs. deploy/rbac.yaml grants it.
pub(super) const RIGHTS: [(&str, &str, &[&str]); 13] = [
    ("", "nodes", &["get", "list", "watch", "patch"]),
    ("", "pods", &["get", "list", "watch", "patch"]),
    ("", "services", &["list", "watch"]),
    ("", "namespaces", &["list", "watch"]),
    ("", "persistentvolumes", &["list", "watch"]),
    ("policy", "poddisruptionbudgets", &["list", "watch"]),
    ("zoneward.io", "zoneisolations", &["get", "list", "watch", "create", "patch", "delete"]),
    ("zoneward.io", "zoneisolations/status", &["patch"]),
    ("zoneward.io", "zones", &["get", "list", "create"]),
    ("zoneward.io", "zones/status", &["patch"]),
    ("coordination.k8s.io", "leases", &["get", "create", "update"]),
    ("", "configmaps", &["get", "list", "watch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

/// Each of them: group, resource, verb.
pub fn needed_rights() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    RIGHTS.iter().flat_map(|(group, resource, verbs)| verbs.iter().map(|verb| (*group, *resource, *verb)))
}

pub(super) async fn connect(settings: &Settings, zones_of_metrics: &BTreeSet<String>) -> Vec<Finding> {
    let acts = settings.mode != Mode::Observe;
    let mut findings = Vec::new();
    if !needs_cluster(settings) && !is_surely_that_of_the_metrics(settings) {
        let found = "not looked at: observing works without (name kubernetes.context, or a mode that acts, to look)";
        return vec![Finding::new(Level::Ok, "kubernetes", found)];
    }
    match kubernetes::connect(&settings.kubernetes).await {
        Ok(client) => findings.extend(cluster(settings, &client, zones_of_metrics, acts).await),
        Err(error) => {
            let level = if acts { Level::Problem } else { Level::Warning };
            findings.push(
                Finding::new(level, "kubernetes", error.to_string()).hint(
                    "observing works without; to act, run in the cluster, or set KUBECONFIG or kubernetes.context",
                ),
            );
        }
    }
    findings
}

async fn cluster(
    settings: &Settings,
    client: &Client,
    zones_of_metrics: &BTreeSet<String>,
    acts: bool,
) -> Vec<Finding> {
    let version = match bounded(client.apiserver_version()).await {
        Ok(version) => version,
        Err(error) => return vec![Finding::new(Level::Problem, "kubernetes", explain(&error))],
    };
    let mut findings = vec![Finding::new(Level::Ok, "kubernetes", format!("{} answers", version.git_version))];
    let mut of_acting = vec![custom_resources(client).await];
    of_acting.extend(rights(settings, client).await);
    if !acts {
        // In observe mode they are what is still to be done.
        of_acting.iter_mut().for_each(Finding::can_wait);
    }
    findings.extend(of_acting);
    let seen = read(client, &settings.kubernetes).await.map_err(|error| explain(&error));
    findings.push(match &seen {
        Ok(view) => zones(view, zones_of_metrics),
        Err(why) => Finding::new(Level::Problem, "zones of nodes", why),
    });
    let look: Arc<Look> = Arc::new(move || seen.clone());
    for step in steps::steps(&settings.steps, client, &look) {
        let what = format!("steps.{}", step.name());
        findings.extend(step.probe().await.into_iter().map(|probe| of_step(&what, probe)));
    }
    findings
}

fn of_step(what: &str, probe: Probe) -> Finding {
    match probe {
        Probe::Works(found) => Finding::new(Level::Ok, what, found),
        Probe::Unsure { found, hint } => Finding::new(Level::Warning, what, found).hint(hint),
        Probe::Broken { found, hint: Some(hint) } => Finding::new(Level::Problem, what, found).hint(hint),
        Probe::Broken { found, hint: None } => Finding::new(Level::Problem, what, found),
    }
}

async fn custom_resources(client: &Client) -> Finding {
    let one = ListParams::default().limit(1);
    let isolations = bounded(Api::<ZoneIsolation>::all(client.clone()).list(&one)).await.map(|_| ());
    let zones = bounded(Api::<resource::Zone>::all(client.clone()).list(&one)).await.map(|_| ());
    match isolations.and(zones) {
        Ok(()) => Finding::new(Level::Ok, "custom resources", "zoneisolations and zones are served"),
        Err(error) if status_code(&error) == Some(404) => {
            Finding::new(Level::Problem, "custom resources", "they are not installed")
                .hint("zoneward crd | kubectl apply -f -")
        }
        Err(error) => Finding::new(Level::Problem, "custom resources", explain(&error)),
    }
}

/// Asks for every right, of the account that runs this.
async fn rights(settings: &Settings, client: &Client) -> Vec<Finding> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut denied = Vec::new();
    let mut count = 0;
    // Weights are for where nobody may write to pods.
    let in_place_of = settings.steps.mesh_distribute.is_some();
    for (group, resource, verbs) in RIGHTS {
        for verb in verbs.iter().filter(|verb| !(in_place_of && resource == "pods" && **verb == "patch")) {
            count += 1;
            let review = review(client, group, resource, verb);
            match bounded(api.create(&PostParams::default(), &review)).await {
                Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => {}
                Ok(_) => denied.push(format!("{verb} {resource}")),
                Err(error) => {
                    return vec![Finding::new(
                        Level::Warning,
                        "rights",
                        format!("can't be asked: {}", explain(&error)),
                    )];
                }
            }
        }
    }
    if denied.is_empty() {
        return vec![Finding::new(Level::Ok, "rights", format!("this account has all {count} that acting takes"))];
    }
    vec![
        Finding::new(Level::Problem, "rights", format!("this account may not: {}", denied.join(", ")))
            .hint("deploy/rbac.yaml grants the daemon's account what it needs; run this as that account"),
    ]
}

fn review(client: &Client, group: &str, resource: &str, verb: &str) -> SelfSubjectAccessReview {
    let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s.to_owned())));
    let namespace = match resource {
        "leases" | "configmaps" => Some(client.default_namespace().to_owned()),
        "events" => Some("default".to_owned()),
        _ => None,
    };
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        name: (resource == "configmaps").then(|| kubernetes::PAUSE_NAME.to_owned()),
        verb: Some(verb.to_owned()),
        namespace,
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() }
}

/// The zones of nodes must be those of the metrics, by name.
fn zones(view: &ClusterView, zones_of_metrics: &BTreeSet<String>) -> Finding {
    let what = "zones of nodes";
    let zones: BTreeMap<&Zone, _> = view.zones();
    let nowhere = view.nodes.values().filter(|node| node.zone.is_none()).count();
    let named: Vec<String> = zones.iter().map(|(zone, nodes)| format!("{zone} ({} nodes)", nodes.nodes)).collect();
    let strange: Vec<&String> =
        zones_of_metrics.iter().filter(|zone| !zones.keys().any(|z| z.as_str() == **zone)).collect();
    if zones.is_empty() {
        return Finding::new(Level::Problem, what, "no node has the label topology.kubernetes.io/zone")
            .hint("cloud providers set it; elsewhere label the nodes");
    }
    if !strange.is_empty() {
        let strange = strange.into_iter().cloned().collect::<Vec<_>>().join(", ");
        return Finding::new(Level::Problem, what, format!("{}; the metrics also name {strange}", named.join(", ")))
            .hint("a zone is isolated by the nodes' name for it: let the metrics' zone label carry the same");
    }
    if nowhere > 0 {
        return Finding::new(Level::Warning, what, format!("{}; {nowhere} nodes are in none", named.join(", ")))
            .hint("label them with topology.kubernetes.io/zone, or they are never isolated");
    }
    Finding::new(Level::Ok, what, named.join(", "))
}
