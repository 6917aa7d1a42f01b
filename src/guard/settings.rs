//! The limits of what may be done.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::window::BlockedWindow;
use crate::domain::cluster::WorkloadId;
use crate::domain::{Factor, Period, Ratio, ServiceId, ServicePattern, problem_of_base_address};

/// More windows than people remember.
const MOST_WINDOWS: usize = 64;
const MOST_POLICIES: usize = 1_000;

/// The section `guard`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub max_isolated_zones: u32,
    pub min_healthy_zones: u32,
    pub stale_after: Period,
    pub cool_down: Period,
    pub max_isolations_per_day: u32,
    pub max_isolations_per_day_of_all: u32,
    pub unreachable_services: Unreachable,
    /// Ready endpoints elsewhere below which the mesh step leaves a service alone.
    #[serde(skip)]
    pub min_ready_elsewhere: u32,
    pub max_load_growth: Factor,
    pub max_cpu: Option<Ratio>,
    pub capacity_traps: Policy,
    pub capacity_traps_of: Vec<PolicyOf>,
    /// Whether an isolation taints nodes.
    #[serde(skip)]
    pub taints_nodes: bool,
    pub blocked_windows: Vec<BlockedWindow>,
    pub silences: Option<SilencesSettings>,
}

/// What a guardrail does about what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    Ignore,
    /// Says so, and lets it pass.
    Warn,
    Hold,
}

/// What it does about some workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyOf {
    /// Over namespace/name.
    #[serde(rename = "match")]
    pub matches: ServicePattern,
    pub policy: Policy,
}

/// What becomes of a service that callers could not reach elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unreachable {
    /// The zone is not isolated.
    Hold,
    /// It is, but for that service.
    Skip,
}

/// Where planned maintenance is announced, and how zones are named there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SilencesSettings {
    pub alertmanager: String,
    #[serde(default = "zone_label")]
    pub zone_label: String,
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default = "timeout")]
    pub timeout: Period,
}

fn zone_label() -> String {
    "zone".to_owned()
}

const fn timeout() -> Period {
    Period::from_secs(5)
}

impl SilencesSettings {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Some(problem) = problem_of_base_address(&self.alertmanager) {
            problems.push(("silences.alertmanager", problem));
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let legal = self.zone_label.chars().all(letter) && !self.zone_label.starts_with(|c: char| c.is_ascii_digit());
        if self.zone_label.is_empty() || !legal {
            problems.push(("silences.zone_label", format!("`{}` is not a label name", self.zone_label)));
        }
        if self.timeout < Period::from_secs(1) || self.timeout > Period::from_mins(1) {
            problems.push(("silences.timeout", format!("{} is outside 1s to 1m", self.timeout)));
        }
        problems
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_isolated_zones: 1,
            min_healthy_zones: 1,
            stale_after: Period::from_mins(1),
            cool_down: Period::from_mins(15),
            max_isolations_per_day: 3,
            max_isolations_per_day_of_all: 6,
            unreachable_services: Unreachable::Hold,
            min_ready_elsewhere: 1,
            max_load_growth: Factor::new(2.5),
            max_cpu: Some(Ratio::from_percent(90.0)),
            capacity_traps: Policy::Warn,
            capacity_traps_of: Vec::new(),
            taints_nodes: true,
            blocked_windows: Vec::new(),
            silences: None,
        }
    }
}

impl Settings {
    /// What is to be done about a workload: as the last entry that names it says.
    pub(super) fn capacity_traps_of(&self, workload: &WorkloadId) -> Policy {
        let name = ServiceId::new(workload.namespace.clone(), workload.name.clone());
        let named = self.capacity_traps_of.iter().rev().find(|entry| entry.matches.matches(&name));
        named.map_or(self.capacity_traps, |entry| entry.policy)
    }

    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.max_isolated_zones == 0 {
            problems.push(("max_isolated_zones", "0 would forbid every isolation; at least 1".to_owned()));
        }
        if self.min_healthy_zones == 0 {
            problems.push(("min_healthy_zones", "0 would allow to isolate the last zone; at least 1".to_owned()));
        }
        for (key, most) in [
            ("max_isolations_per_day", self.max_isolations_per_day),
            ("max_isolations_per_day_of_all", self.max_isolations_per_day_of_all),
        ] {
            if most == 0 || most > 1_000 {
                problems.push((key, format!("{most} is outside 1 to 1000")));
            }
        }
        if self.stale_after < Period::from_secs(1) {
            problems.push(("stale_after", format!("{} is below 1s", self.stale_after)));
        }
        for (key, period) in [("stale_after", self.stale_after), ("cool_down", self.cool_down)] {
            if period > Period::from_hours(24) {
                problems.push((key, format!("{period} is above 24h")));
            }
        }
        if self.capacity_traps_of.len() > MOST_POLICIES {
            let entries = self.capacity_traps_of.len();
            problems.push(("capacity_traps_of", format!("{entries} entries are more than {MOST_POLICIES}")));
        }
        problems.extend(self.silences.iter().flat_map(SilencesSettings::problems));
        if self.blocked_windows.len() > MOST_WINDOWS {
            problems.push(("blocked_windows", format!("{} are more than {MOST_WINDOWS}", self.blocked_windows.len())));
        }
        problems
    }
}
