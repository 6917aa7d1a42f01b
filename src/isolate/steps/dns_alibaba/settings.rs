//! Which load balancers, and how the cloud names the zones; and what of that is illegal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Client;
use serde::{Deserialize, Serialize};

use super::DnsAlibaba;
use crate::alibaba::{Endpoint, Source, Surroundings};
use crate::domain::{Period, Zone};
use crate::isolate::steps::{Look, RealStep, StepSettings};

/// Bounds receipts, and the time that a step takes.
const MOST_LOAD_BALANCERS: usize = 20;
const LONGEST_TIMEOUT: Period = Period::from_secs(20);

/// The load balancers whose DNS names lose a zone's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub load_balancers: Vec<LoadBalancer>,
    /// The cloud's id of a zone, where the nodes' label names it otherwise.
    #[serde(default)]
    pub zones: BTreeMap<Zone, String>,
    #[serde(default)]
    pub credentials: Source,
    /// How long one call may take.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancer {
    pub kind: Kind,
    pub id: String,
    pub region: String,
    /// In place of the region's public one.
    #[serde(default)]
    pub endpoint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Nlb,
    Alb,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nlb => "nlb",
            Self::Alb => "alb",
        }
    }
}

const fn default_timeout() -> Period {
    Period::from_secs(10)
}

impl Settings {
    /// What the cloud calls a zone. One of no configured region is a mistake, and not a zone without load balancers.
    pub fn cloud_zone(&self, zone: &Zone) -> Result<String, String> {
        let id = self.zones.get(zone).map_or(zone.as_str(), String::as_str);
        let regions: BTreeSet<&str> = self.load_balancers.iter().map(|balancer| balancer.region.as_str()).collect();
        if regions.iter().any(|region| id.starts_with(region)) {
            return Ok(id.to_owned());
        }
        let regions = regions.into_iter().collect::<Vec<_>>().join(", ");
        Err(format!(
            "{id} is no zone of {regions}, where the load balancers are: give the cloud's id of the zone {zone} in \
             steps.dns_alibaba.zones"
        ))
    }
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: String, problem: String| problems.push((key, problem));
        let count = self.load_balancers.len();
        if count == 0 || count > MOST_LOAD_BALANCERS {
            add("load_balancers".into(), format!("has {count}, and must have 1 to {MOST_LOAD_BALANCERS}"));
        }
        let mut seen = BTreeSet::new();
        for (i, balancer) in self.load_balancers.iter().enumerate() {
            let (id, region, kind) = (&balancer.id, &balancer.region, balancer.kind.as_str());
            let key = |field: &str| format!("load_balancers[{i}].{field}");
            if !is_name(id) || !id.starts_with(&format!("{kind}-")) {
                add(key("id"), format!("`{id}` is not the id of an {kind}: they begin with {kind}-"));
            }
            if !is_name(region) {
                add(key("region"), format!("`{region}` is not a region: write one such as cn-hangzhou"));
            }
            if !seen.insert(id) {
                add(key("id"), format!("`{id}` is named twice"));
            }
            if let Some(Err(problem)) = balancer.endpoint.as_deref().map(Endpoint::parse) {
                add(key("endpoint"), problem);
            }
        }
        let mut zones = BTreeSet::new();
        for (zone, id) in &self.zones {
            if !is_name(id) || !zones.insert(id) {
                add(format!("zones.{zone}"), format!("`{id}` must be the cloud's id of this zone alone"));
            }
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            add("timeout".into(), format!("{} is not above 0s and at most {LONGEST_TIMEOUT}", self.timeout));
        }
        problems
    }

    fn step(&self, _: &Client, look: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(DnsAlibaba::new(self.clone(), Surroundings::of_process(), look))
    }
}

/// Letters, digits and hyphens: it stands in host names and receipts.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> Settings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let settings = settings(r#"{"load_balancers": [{"kind": "nlb", "id": "nlb-1", "region": "cn-hangzhou"}]}"#);
        assert_eq!((settings.credentials, settings.timeout), (Source::Auto, Period::from_secs(10)));
        assert_eq!(settings.problems(), []);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let settings = settings(
            r#"{"load_balancers": [
                  {"kind": "nlb", "id": "alb-1", "region": "cn-hangzhou"},
                  {"kind": "alb", "id": "alb-2", "region": "a b", "endpoint": "http://example.org"},
                  {"kind": "alb", "id": "alb-2", "region": "cn-hangzhou"}],
                "zones": {"a": "cn-hangzhou-h", "b": "cn-hangzhou-h", "c": ""}, "timeout": "1m"}"#,
        );
        let keys: Vec<String> = settings.problems().into_iter().map(|(key, _)| key).collect();
        let expected = "load_balancers[0].id load_balancers[1].region load_balancers[1].endpoint \
                        load_balancers[2].id zones.b zones.c timeout";
        assert_eq!(keys.join(" "), expected);
        let none = Settings { load_balancers: Vec::new(), ..settings };
        assert_eq!(none.problems()[0].0, "load_balancers");
    }

    #[test]
    fn a_zone_of_no_region_is_a_mistake() {
        let settings = settings(
            r#"{"load_balancers": [{"kind": "nlb", "id": "nlb-1", "region": "ap-southeast-1"}],
                "zones": {"zone-b": "ap-southeast-1b"}}"#,
        );
        let zone = |name: &str| settings.cloud_zone(&Zone::new(name));
        assert_eq!(zone("ap-southeast-1a"), Ok("ap-southeast-1a".to_owned()));
        assert_eq!(zone("zone-b"), Ok("ap-southeast-1b".to_owned()));
        assert!(zone("zone-c").is_err_and(|why| why.starts_with("zone-c is no zone of ap-southeast-1")));
    }
}
