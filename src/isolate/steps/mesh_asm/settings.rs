//! Which mesh, and what is written there; and what of that is illegal.

use std::sync::Arc;

use kube::Client;
use serde::{Deserialize, Serialize};

use super::MeshAsm;
use crate::alibaba::{Endpoint, Source, Surroundings};
use crate::domain::{Period, Zone};
use crate::isolate::steps::{Look, RealStep, StepSettings};

const LONGEST_TIMEOUT: Period = Period::from_secs(60);
const PLACE: &str = "{zone}";
const CENTRAL: &str = "servicemesh.aliyuncs.com";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub mesh_id: String,
    /// In place of the central public one.
    #[serde(default)]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub unverified_api: Consent,
    /// What is written, with the zone's name in place of `{zone}`.
    #[serde(default = "default_labels")]
    pub labels: String,
    #[serde(default)]
    pub credentials: Source,
    /// How long one call may take.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
}

/// Whether somebody has confirmed on the mesh that the field does what is believed of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    #[default]
    Refuse,
    Accept,
}

/// Without the region: should a comma mean `or`, that would take a whole region out.
fn default_labels() -> String {
    format!("topology.kubernetes.io/zone={PLACE}")
}

const fn default_timeout() -> Period {
    Period::from_secs(10)
}

impl Settings {
    pub(super) fn labels_of(&self, zone: &Zone) -> String {
        self.labels.replace(PLACE, zone.as_str())
    }

    /// Whether it may be something that we wrote, of whatever zone.
    pub(super) fn may_be_ours(&self, text: &str) -> bool {
        let (before, after) = self.labels.split_once(PLACE).unwrap_or((&self.labels, ""));
        let after = after.rsplit(PLACE).next().unwrap_or_default();
        !text.is_empty() && text.starts_with(before) && text.ends_with(after)
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, String> {
        self.endpoint.as_deref().map_or_else(|| Ok(Endpoint::of_host(CENTRAL)), Endpoint::parse)
    }
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: String| problems.push((key.to_owned(), problem));
        if self.unverified_api == Consent::Refuse {
            let why =
                "is not `accept`: no documentation says that the field LabelsForOffloadedWorkloads takes a zone out";
            let hint = "confirm it on your mesh first (config/default.yaml says how), or use steps.mesh_istio, which \
                        needs ASM 1.22 or later";
            add("unverified_api", format!("{why}. {hint}"));
        }
        if self.mesh_id.is_empty() || !self.mesh_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            add("mesh_id", format!("`{}` is not the id of an ASM instance", self.mesh_id));
        }
        if let Err(problem) = self.endpoint() {
            add("endpoint", problem);
        }
        if !self.labels.contains(PLACE) || self.labels.contains(char::is_whitespace) {
            add("labels", format!("`{}` must be labels with {PLACE} in them, without spaces", self.labels));
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            add("timeout", format!("{} is not above 0s and at most {LONGEST_TIMEOUT}", self.timeout));
        }
        problems
    }

    fn step(&self, _: &Client, _: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(MeshAsm::new(self.clone(), Surroundings::of_process()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> String {
        let settings: Settings = serde_json::from_str(json).unwrap();
        settings.problems().into_iter().map(|(key, _)| key).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn it_is_refused_unless_somebody_has_confirmed_it() {
        assert_eq!(problems(r#"{"mesh_id": "c08ba3fd"}"#), "unverified_api");
        assert_eq!(problems(r#"{"mesh_id": "c08ba3fd", "unverified_api": "accept"}"#), "");
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let all = r#"{"mesh_id": "", "endpoint": "http://example.org", "labels": "a=b", "timeout": "0s"}"#;
        assert_eq!(problems(all), "unverified_api mesh_id endpoint labels timeout");
    }
}
