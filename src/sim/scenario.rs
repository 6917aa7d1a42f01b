//! A story: a mesh, what goes wrong in it and when, and what a good judge does about it.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{Factor, Period, Ratio, Zone};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For people.
    pub title: String,
    pub zones: Vec<Zone>,
    /// In the order of calls: the gateway calls the first, each calls the next unless `calls_next` is false.
    pub services: Vec<Service>,
    pub requests_per_second: u32,
    /// By so much they are more by day and fewer by night.
    #[serde(default = "default_swing")]
    pub daily_swing: Ratio,
    /// Time that has passed, in health, before the story begins.
    #[serde(default = "default_history")]
    pub history: Period,
    pub duration: Period,
    /// Whether pods of an isolated zone can be asked how they are.
    #[serde(default)]
    pub probes: bool,
    #[serde(default)]
    pub faults: Vec<Fault>,
    #[serde(default)]
    pub restarts: Vec<Restart>,
    #[serde(default = "default_scrape_interval")]
    pub scrape_interval: Period,
    #[serde(default = "default_expiry")]
    pub isolation_expires_after: Period,
    pub expect: Expectation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: String,
    #[serde(default = "default_pods")]
    pub pods_per_zone: usize,
    pub errors: Ratio,
    pub median_ms: u32,
    #[serde(default = "yes")]
    pub calls_next: bool,
}

/// What goes wrong, from one moment of the story to another. No service named means all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub at: Period,
    pub until: Period,
    pub zones: Vec<Zone>,
    #[serde(default)]
    pub services: Vec<String>,
    /// Share of requests that fail in the server.
    #[serde(default)]
    pub errors: Option<Ratio>,
    #[serde(default)]
    pub slowdown: Option<Factor>,
    /// Share of calls that the services, as clients in the zone, can't connect.
    #[serde(default)]
    pub connect_failures: Option<Ratio>,
    /// Only so many pods of each service, instead of all.
    #[serde(default)]
    pub pods: Option<usize>,
    /// Prometheus can't scrape the zone.
    #[serde(default)]
    pub scrapes_lost: bool,
}

/// A roll-out: every pod of a service in a zone is replaced, fresh counters and new names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub at: Period,
    pub zone: Zone,
    pub service: String,
}

/// What must come of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The zone to isolate, if any, and how soon after the first fault.
    #[serde(default)]
    pub isolate: Option<Zone>,
    #[serde(default)]
    pub within: Option<Period>,
    /// A reason for which an isolation must have been held back.
    #[serde(default)]
    pub held_by: Option<String>,
    /// The share of users' requests that must succeed over the last minute.
    pub users_succeed: Ratio,
}

#[derive(Debug, Error)]
pub enum ScenarioError {
    #[error("it can't be read")]
    Unreadable(#[from] config::ConfigError),
    #[error("{path}: {problem}")]
    Invalid { path: String, problem: String },
}

const fn default_swing() -> Ratio {
    Ratio::from_percent(0.0)
}
const fn default_history() -> Period {
    Period::from_mins(15)
}
const fn default_scrape_interval() -> Period {
    Period::from_secs(15)
}
const fn default_expiry() -> Period {
    Period::from_hours(1)
}
const fn default_pods() -> usize {
    2
}
const fn yes() -> bool {
    true
}

impl Scenario {
    /// From YAML.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let source = config::File::from_str(text, config::FileFormat::Yaml);
        let tree: serde_json::Value = config::Config::builder().add_source(source).build()?.try_deserialize()?;
        let scenario: Self = serde_path_to_error::deserialize(&tree).map_err(|error| ScenarioError::Invalid {
            path: error.path().to_string(),
            problem: error.into_inner().to_string(),
        })?;
        scenario.validated()
    }

    /// The seed article's mesh, and a gray failure of one zone that every health check passes.
    pub fn article() -> Result<Self, ScenarioError> {
        Self::parse(include_str!("../../config/scenarios/gray-zone.yaml"))
    }

    fn validated(self) -> Result<Self, ScenarioError> {
        let invalid = |path: &str, problem: String| ScenarioError::Invalid { path: path.to_owned(), problem };
        if self.zones.len() < 2 {
            return Err(invalid("zones", "at least two are needed".to_owned()));
        }
        if self.services.is_empty() {
            return Err(invalid("services", "at least one is needed".to_owned()));
        }
        if self.scrape_interval < Period::from_secs(1) {
            return Err(invalid("scrape_interval", "at least 1s".to_owned()));
        }
        let services = self.faults.iter().flat_map(|f| &f.services).chain(self.restarts.iter().map(|r| &r.service));
        for name in services {
            if !self.services.iter().any(|service| service.name == *name) {
                return Err(invalid("services", format!("`{name}` is not among them")));
            }
        }
        let zones = self.faults.iter().flat_map(|f| &f.zones).chain(self.restarts.iter().map(|r| &r.zone));
        for zone in zones.chain(&self.expect.isolate) {
            if !self.zones.contains(zone) {
                return Err(invalid("zones", format!("`{zone}` is not among them")));
            }
        }
        if let Some(service) = self.services.iter().find(|service| service.pods_per_zone == 0) {
            return Err(invalid("services", format!("`{}` has no pods", service.name)));
        }
        let moments = self.faults.iter().flat_map(|f| [f.at, f.until]).chain(self.restarts.iter().map(|r| r.at));
        if let Some(moment) = moments.into_iter().find(|at| at.is_zero() || at.signed().subsec_nanos() != 0) {
            return Err(invalid(
                "faults",
                format!("{moment} is not a whole number of seconds after the story's start"),
            ));
        }
        if let Some(fault) = self.faults.iter().find(|fault| fault.until <= fault.at) {
            return Err(invalid("faults", format!("one ends at {}, before it begins at {}", fault.until, fault.at)));
        }
        Ok(self)
    }
}

impl Fault {
    pub(super) fn active(&self, story_time: SignedDuration) -> bool {
        self.at.signed() <= story_time && story_time < self.until.signed()
    }

    pub(super) fn touches(&self, service: &str, zone: &Zone) -> bool {
        self.zones.contains(zone) && (self.services.is_empty() || self.services.iter().any(|s| s == service))
    }

    /// In words.
    pub fn describe(&self) -> String {
        let mut effects = Vec::new();
        if let Some(errors) = self.errors {
            effects.push(format!("{errors} of requests fail"));
        }
        if let Some(slowdown) = self.slowdown {
            effects.push(format!("requests take {slowdown} as long"));
        }
        if let Some(failures) = self.connect_failures {
            effects.push(format!("clients fail to connect {failures} of their calls"));
        }
        if self.scrapes_lost {
            effects.push("Prometheus loses its scrapes".to_owned());
        }
        let pods = self.pods.map_or_else(String::new, |n| format!("{n} pod{} of ", if n == 1 { "" } else { "s" }));
        let what = if self.services.is_empty() { "all services".to_owned() } else { self.services.join(", ") };
        let zones = self.zones.iter().map(Zone::as_str).collect::<Vec<_>>().join(", ");
        format!("{pods}{what} in {zones}: {}", effects.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::sim::World;

    #[test]
    fn traffic_swings_with_the_day() {
        let requests = |hour: i64| {
            let swinging = Scenario { daily_swing: Ratio::from_percent(40.0), ..Scenario::article().unwrap() };
            let start = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 + hour) + swinging.history.signed();
            let mut world = World::new(swinging, start, 1);
            world.run_until(world.now() + SignedDuration::from_mins(1));
            world.users().requests as f64
        };
        let (by_day, at_night) = (requests(15), requests(3));
        assert!((2.0..2.7).contains(&(by_day / at_night)), "{by_day} in a minute by day, {at_night} at night");
    }
}
