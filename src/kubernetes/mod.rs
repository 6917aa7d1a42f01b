//! The Kubernetes API: the client, what of the cluster is watched, and the marks that zoneward leaves on objects.

mod capacity;
pub mod istiod;
mod pause;
mod view;
mod watch;

pub use pause::{PAUSE_NAME, PAUSE_REASON, PAUSE_UNTIL, read_pause, watch_pause};
pub use view::tainted;
pub use watch::{ClusterWatch, NOT_YET, list, notice, read};

use std::time::Duration;

use jiff::SignedDuration;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ports::StepError;

/// One call to the API, as long as it may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What zoneward writes on objects, so that it finds its own again with nothing else in hand.
pub mod marks {
    /// Istio's label for pods that take no new calls (`PILOT_DRAINING_LABEL`); ours by its value.
    pub const DRAINING_LABEL: &str = "istio.io/draining";
    pub const DRAINING_VALUE: &str = "zoneward";
    /// On a pod that we drain: for the isolation of which zone.
    pub const ZONE_ANNOTATION: &str = "zoneward.io/isolated-zone";
    /// On a `DNSEndpoint`: what is withdrawn from it, by zone.
    pub const WITHDRAWN_ANNOTATION: &str = "zoneward.io/withdrawn";
    /// On the mesh's `ConfigMap` that is ours: which zones are out, and what the weights follow from.
    pub const ZONES_ANNOTATION: &str = "zoneward.io/isolated-zones";
    /// The key of the taint on a zone's nodes.
    pub const TAINT: &str = "zoneward.io/isolated";
    /// `never` on a Namespace, Service, Pod or Node: it is left alone. `allow` on a pod or Service of a `StatefulSet`: it is not.
    pub const OPT_OUT: &str = "zoneward.io/isolate";
    /// On a `ZoneIsolation` that zoneward made and removes when it has ended, and on a `ConfigMap` that it alone writes.
    pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "zoneward");
    /// On a `ZoneIsolation`: the episode that a watchdog has given back.
    pub const GIVEN_BACK: &str = "zoneward.io/given-back";
    pub const FINALIZER: &str = "zoneward.io/undo";
}

/// The section `kubernetes`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub context: Option<String>,
    pub namespace: String,
    pub exempt_namespaces: Vec<String>,
    pub exempt_apps: Vec<String>,
    pub exempt_stateful_sets: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            context: None,
            namespace: "zoneward".to_owned(),
            exempt_namespaces: owned(&["kube-system", "kube-public", "kube-node-lease"]),
            exempt_apps: owned(&["istiod", "istio-cni-node", "ztunnel", "prometheus", "alertmanager", "zoneward"]),
            exempt_stateful_sets: true,
        }
    }
}

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error(
        "no Kubernetes API is known: this process runs in no cluster, and no kubeconfig can be read (KUBECONFIG, or \
         ~/.kube/config)"
    )]
    NoneKnown,
    #[error("the kubeconfig can't be used (kubernetes.context): {0}")]
    Kubeconfig(String),
    #[error("the Kubernetes client can't be made: {0}")]
    Client(String),
}

/// A client of the configured context, or of the cluster that the process runs in. Sends nothing yet.
pub async fn connect(settings: &Settings) -> Result<Client, ConnectError> {
    let mut config = match &settings.context {
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
            let kubeconfig = Kubeconfig::read().map_err(|error| unusable(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))?
        }
        None => Config::infer().await.map_err(|_| ConnectError::NoneKnown)?,
    };
    config.default_namespace.clone_from(&settings.namespace);
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|error| ConnectError::Client(explain(&error)))
}

/// What is wrong with the file. Its parser quotes the lines around, with the tokens that are in them.
fn unusable(error: &KubeconfigError) -> ConnectError {
    let KubeconfigError::Parse(wrong) = error else { return ConnectError::Kubeconfig(error.to_string()) };
    let place =
        wrong.location().map_or_else(String::new, |at| format!(" from line {}, column {} on", at.line(), at.column()));
    ConnectError::Kubeconfig(format!("it is not as a kubeconfig is{place}"))
}

/// What went wrong, for people: the API's own sentence, or the causes of a lost connection.
pub fn explain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Whether an object may have that name: names go into paths of the API, where others would lead elsewhere.
pub fn is_object_name(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let outside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (1..=253).contains(&name.len())
        && name.chars().all(inside)
        && outside(name.chars().next())
        && outside(name.chars().next_back())
}

/// The HTTP status that the API answered with, if it did.
pub fn status_code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = error { Some(status.code) } else { None }
}

/// Whether a write was meant for an object that is gone, or another of its name by now.
pub fn is_of_another(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    matches!(status.code, 404 | 409) || causes.into_iter().any(|cause| cause.field == "metadata.uid")
}

/// What is refused for good, and what is worth another try.
pub fn step_error(what: &str, error: &kube::Error) -> StepError {
    let why = format!("{what}: {}", explain(error));
    match status_code(error) {
        Some(401 | 403) => StepError::Permanent { why: format!("{why}; does the ClusterRole allow it?") },
        Some(400 | 405 | 422) => StepError::Permanent { why },
        _ => StepError::Transient { why, retry_after: SignedDuration::from_secs(1) },
    }
}

/// A call that took too long is one that failed.
pub async fn bounded<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = || kube::Error::Service(format!("no answer within {} s", CALL_TIMEOUT.as_secs()).into());
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::is_object_name;

    #[test]
    fn what_would_lead_elsewhere_in_a_path_is_no_name() {
        assert!(["cn-hangzhou-h", "a", "zone.b-1"].into_iter().all(is_object_name));
        let long = "a".repeat(254);
        for name in ["", ".", "..", "../pods", "a/b", "a?b", "a%2fb", "A", "a_b", "-a", "a-", "a b", "ü", long.as_str()]
        {
            assert!(!is_object_name(name), "{name}");
        }
    }
}
