//! Which resources, for how long at a time, and what of that is illegal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use kube::Client;
use serde::{Deserialize, Serialize};

use super::AwsArc;
use crate::domain::{ClusterView, Period, Zone, problem_of_base_address};
use crate::isolate::steps::{Look, RealStep, StepSettings};

/// Bounds receipts, and the time that a step takes.
const MOST_RESOURCES: usize = 50;
/// As the API says.
const LONGEST_ARN: usize = 1024;
const LONGEST_ZONE_ID: usize = 20;
const EXPIRES_IN: (Period, Period) = (Period::from_hours(1), Period::from_hours(72));
const LONGEST_TIMEOUT: Period = Period::from_mins(1);
/// So that a comment, which names the zone, has room for it.
const LONGEST_ZONE: usize = 63;

/// The section `steps.dns_aws_arc`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub resources: Vec<String>,
    #[serde(default)]
    pub region: Option<String>,
    #[serde(default = "default_expiry")]
    pub expires_in: Period,
    #[serde(default)]
    pub zone_ids: BTreeMap<Zone, String>,
    /// How long one answer may take.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
    #[serde(default)]
    pub endpoint: Option<String>,
}

const fn default_expiry() -> Period {
    Period::from_hours(2)
}

const fn default_timeout() -> Period {
    Period::from_secs(10)
}

impl Settings {
    /// As configured, or that of the resources.
    pub(super) fn region(&self) -> String {
        let of_resources = || self.resources.iter().find_map(|arn| region_of(arn)).unwrap_or_default().to_owned();
        self.region.clone().unwrap_or_else(of_resources)
    }

    /// In the API's words.
    pub(super) fn expires_in(&self) -> String {
        let minutes = self.expires_in.signed().as_mins();
        if minutes % 60 == 0 { format!("{}h", minutes / 60) } else { format!("{minutes}m") }
    }

    /// AWS names zones by ids here, as names differ from account to account: by the settings, or by what nodes say.
    pub(super) fn zone_id(&self, zone: &Zone, view: impl FnOnce() -> Result<ClusterView, String>) -> ZoneId {
        if let Some(id) = self.zone_ids.get(zone) {
            return ZoneId::Known(id.clone());
        }
        let view = match view() {
            Ok(view) => view,
            Err(why) => return ZoneId::Unseen(why),
        };
        let of_zone = view.nodes.values().filter(|node| node.zone.as_ref() == Some(zone));
        let ids: BTreeSet<&String> = of_zone.filter_map(|node| node.zone_id.as_ref()).collect();
        match ids.first() {
            Some(id) if ids.len() == 1 => ZoneId::Known((*id).clone()),
            Some(_) => ZoneId::Unknown(format!("its nodes have several in the label {LABEL}")),
            None => ZoneId::Unknown(format!("none of its nodes has the label {LABEL}")),
        }
    }
}

const LABEL: &str = "topology.k8s.aws/zone-id";

pub(super) enum ZoneId {
    Known(String),
    Unknown(String),
    /// The cluster can't be seen just now.
    Unseen(String),
}

fn region_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(3).filter(|region| !region.is_empty())
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: String| problems.push((key.to_owned(), problem));
        if self.resources.is_empty() || self.resources.len() > MOST_RESOURCES {
            add("resources", format!("has {} ARNs; 1 to {MOST_RESOURCES}", self.resources.len()));
        }
        let region = self.region();
        let mut seen = BTreeSet::new();
        for (i, arn) in self.resources.iter().enumerate() {
            let key = format!("resources[{i}]");
            if !arn.starts_with("arn:") || arn.split(':').count() < 6 || arn.len() > LONGEST_ARN {
                add(&key, format!("`{arn}` is not an ARN"));
            } else if region_of(arn).is_some_and(|of| of != region) {
                add(&key, format!("`{arn}` is not in the region {region}: a step has one"));
            }
            if !seen.insert(arn) {
                add(&key, format!("`{arn}` is named twice"));
            }
        }
        if region.is_empty() {
            add("region", "must be named, as no ARN has one".into());
        }
        let (least, most) = EXPIRES_IN;
        if self.expires_in < least || self.expires_in > most {
            add("expires_in", format!("{} is outside {least} to {most}", self.expires_in));
        } else if self.expires_in.signed() != SignedDuration::from_mins(self.expires_in.signed().as_mins()) {
            add("expires_in", format!("{} is not in whole minutes", self.expires_in));
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            add("timeout", format!("{} is not above 0s and at most {LONGEST_TIMEOUT}", self.timeout));
        }
        let mut ids = BTreeSet::new();
        for (zone, id) in &self.zone_ids {
            let key = format!("zone_ids.{zone}");
            if zone.as_str().is_empty() || zone.as_str().len() > LONGEST_ZONE || zone.as_str().contains(' ') {
                add(&key, format!("`{zone}` is not a zone's name"));
            }
            if id.is_empty() || id.len() > LONGEST_ZONE_ID || !id.contains("-az") {
                add(&key, format!("`{id}` is not a zone's id: write one such as use1-az1"));
            }
            if !ids.insert(id) {
                add(&key, format!("{id} is the id of another zone already"));
            }
        }
        if let Some(problem) = self.endpoint.as_deref().and_then(problem_of_base_address) {
            add("endpoint", problem);
        }
        problems
    }

    fn step(&self, _: &Client, look: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(AwsArc::new(self.clone(), Arc::clone(look)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/app/a/1";

    #[test]
    fn every_problem_is_named_at_once() {
        let good: Settings = serde_json::from_value(serde_json::json!({"resources": [ARN]})).unwrap();
        assert_eq!((good.problems(), good.region(), good.expires_in()), (vec![], "us-east-1".into(), "2h".into()));
        let odd = Settings { expires_in: Period::from_mins(90), ..good.clone() };
        assert_eq!((odd.problems(), odd.expires_in()), (vec![], "90m".into()));
        let bad: Settings = serde_json::from_value(serde_json::json!({
            "resources": [ARN, ARN, "web", "arn:aws:eks:eu-west-1:1:cluster/a"], "expires_in": "73h", "timeout": "0s",
            "zone_ids": {"a": "use1-az1", "b": "use1-az1", "c d": "us-east-1a"}, "endpoint": "localhost"}))
        .unwrap();
        let keys: Vec<String> = bad.problems().into_iter().map(|(key, _)| key).collect();
        let expected =
            "resources[1] resources[2] resources[3] expires_in timeout zone_ids.b zone_ids.c d zone_ids.c d endpoint";
        assert_eq!(keys.join(" "), expected);
        let seconds = Settings { expires_in: Period::from_secs(3601), resources: vec![], ..good };
        let keys: Vec<String> = seconds.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["resources", "region", "expires_in"]);
    }
}
