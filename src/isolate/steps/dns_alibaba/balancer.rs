//! One load balancer: what is read of it, and the two calls that change it.

use std::fmt;

use serde::Deserialize;

use super::settings::{Kind, LoadBalancer};
use crate::alibaba::{Call, Client, Endpoint, Error, Parameters, parameters};
use crate::ports::StepError;

/// Where a load balancer is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Balancer {
    pub kind: Kind,
    pub id: String,
    pub region: String,
    pub endpoint: Endpoint,
}

impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.region)
    }
}

/// What the cloud says of it: the truth about what was done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Seen {
    #[serde(default)]
    pub load_balancer_status: String,
    #[serde(default)]
    pub cross_zone_enabled: bool,
    #[serde(default, rename = "DNSName")]
    pub dns_name: String,
    /// Of an ALB: `Fixed` or `Dynamic`.
    #[serde(default)]
    pub address_allocated_mode: Option<String>,
    pub zone_mappings: Vec<Mapping>,
}

/// A zone that it has addresses in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Mapping {
    pub zone_id: String,
    pub v_switch_id: String,
    pub status: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(super) enum State {
    Active,
    Shifted,
    /// Such as `Starting`, `Stopping`, `Stopped`.
    Other(String),
}

impl From<String> for State {
    fn from(text: String) -> Self {
        match text.as_str() {
            "Active" => Self::Active,
            "Shifted" => Self::Shifted,
            _ => Self::Other(text),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "Active",
            Self::Shifted => "Shifted",
            Self::Other(text) => text,
        })
    }
}

impl Seen {
    pub fn mapping(&self, zone: &str) -> Option<&Mapping> {
        self.zone_mappings.iter().find(|mapping| mapping.zone_id == zone)
    }

    pub fn active_beside(&self, zone: &str) -> Vec<&str> {
        let others = self.zone_mappings.iter().filter(|mapping| mapping.zone_id != zone);
        others.filter(|mapping| mapping.status == State::Active).map(|mapping| mapping.zone_id.as_str()).collect()
    }
}

/// The two changes, each the inverse of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Cancel,
}

impl Verb {
    const fn action(self) -> &'static str {
        match self {
            Self::Start => "StartShiftLoadBalancerZones",
            Self::Cancel => "CancelShiftLoadBalancerZones",
        }
    }
}

impl Balancer {
    pub fn of(settings: &LoadBalancer) -> Result<Self, String> {
        let LoadBalancer { kind, id, region, endpoint } = settings;
        let endpoint = endpoint.as_deref().map(Endpoint::parse).transpose()?;
        let endpoint = endpoint.unwrap_or_else(|| usual_endpoint(*kind, region));
        Ok(Self { kind: *kind, id: id.clone(), region: region.clone(), endpoint })
    }

    pub async fn read(&self, client: &Client) -> Result<Seen, Error> {
        let parameters = parameters([("LoadBalancerId", &self.id)]);
        let answer = client.call(&self.call("GetLoadBalancerAttribute", parameters)).await?;
        serde_json::from_value(answer)
            .map_err(|error| Error::Lost(format!("what the cloud says of {self} can't be understood: {error}")))
    }

    /// No `ClientToken`: what a token stands for, and for how long, is not documented well enough to let it decide whether a
    /// second shift of a zone is the first one again. What is read decides.
    pub async fn change(&self, client: &Client, verb: Verb, mapping: &Mapping) -> Result<(), Error> {
        client.call(&self.call(verb.action(), self.of_change(mapping))).await.map(|_| ())
    }

    /// The same, for show: the cloud answers `DryRunOperation` if it would do it.
    pub async fn rehearse(&self, client: &Client, verb: Verb, mapping: &Mapping) -> Result<(), Error> {
        let mut parameters = self.of_change(mapping);
        parameters.insert("DryRun".to_owned(), "true".to_owned());
        client.call(&self.call(verb.action(), parameters)).await.map(|_| ())
    }

    fn of_change(&self, mapping: &Mapping) -> Parameters {
        parameters([
            ("LoadBalancerId", &self.id),
            ("ZoneMappings.1.ZoneId", &mapping.zone_id),
            ("ZoneMappings.1.VSwitchId", &mapping.v_switch_id),
        ])
    }

    /// An NLB takes its parameters in the form, an ALB in the query.
    fn call<'a>(&'a self, action: &'a str, mut given: Parameters) -> Call<'a> {
        let Self { kind, id, region, endpoint } = self;
        let service = kind.as_str();
        let right = format!("{service}:{action} on acs:{service}:{region}:*:loadbalancer/{id}");
        let (version, query, form) = match kind {
            Kind::Nlb => {
                given.insert("RegionId".to_owned(), region.clone());
                ("2022-04-30", Parameters::new(), given)
            }
            Kind::Alb => ("2020-06-16", given, Parameters::new()),
        };
        Call { endpoint, action, version, query, form, right }
    }

    /// What went wrong with it, and what to do.
    pub fn failure(&self, error: &Error) -> StepError {
        let code = error.refusal().map_or("", |refusal| refusal.code.as_str());
        let advice = match code.rsplit('.').next().unwrap_or_default() {
            _ if error.refusal().is_some_and(crate::alibaba::Refusal::is_not_found) => Some(format!(
                "there is no {self} for this account: compare its id, kind and region, and whose credentials these are"
            )),
            "OnlyFixedAddressAllocatedModeSupported" => Some(only_fixed(&self.id)),
            "ConfigLastActiveZoneNotSupport" => Some(format!("it is the last active zone of {self}, which stays")),
            _ => None,
        };
        error.for_step(advice.as_deref())
    }
}

pub(super) fn only_fixed(id: &str) -> String {
    format!("zones of an ALB can be shifted only if its addresses are fixed: {id} must be one in static IP mode")
}

fn usual_endpoint(kind: Kind, region: &str) -> Endpoint {
    let region = match (kind, region) {
        (Kind::Alb, "cn-hangzhou-finance") => "cn-hangzhou",
        _ => region,
    };
    Endpoint::of_host(format!("{}.{region}.aliyuncs.com", kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_host() {
        let usual = |kind, region| usual_endpoint(kind, region);
        assert_eq!(usual(Kind::Nlb, "cn-hangzhou"), Endpoint::of_host("nlb.cn-hangzhou.aliyuncs.com"));
        assert_eq!(usual(Kind::Alb, "cn-hangzhou-finance"), Endpoint::of_host("alb.cn-hangzhou.aliyuncs.com"));
    }
}
