//! What is to be done about it, and why nothing is done when nothing is.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::inert::inert_name;
use super::verdict::NEW_FOR;
use super::{Evidence, Isolation, Origin, Period, ServiceId, Zone};

/// How far the daemon may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Judge, decide and record, with no hands: every decision is a rehearsal.
    #[default]
    Observe,
    /// Create isolations, and wait until a person approves each.
    Recommend,
    /// Isolate.
    Enforce,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Recommend => "recommend",
            Self::Enforce => "enforce",
        }
    }
}

/// What a cycle decides for one zone.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Hold(HoldReason),
    Isolate(Request),
}

/// A wish to isolate a zone, as guardrails see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub zone: Zone,
    pub origin: Origin,
    pub expires_after: Period,
    pub evidence: Vec<Evidence>,
    /// Guardrails that need not pass, by name.
    pub overrides: BTreeSet<String>,
}

impl Request {
    /// What an isolation that waits to begin asks for.
    pub fn of(isolation: &Isolation, now: Timestamp) -> Self {
        let left_s = isolation.expires_at().duration_since(now).as_secs().max(0);
        Self {
            zone: isolation.zone().clone(),
            origin: isolation.spec.origin,
            expires_after: Period::from_secs(left_s),
            evidence: Vec::new(),
            overrides: isolation.spec.overrides.clone(),
        }
    }
}

/// Why nothing is done. Equal in rank to what is done: recorded, counted and explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "hold", rename_all = "snake_case")]
pub enum HoldReason {
    NoFault,
    /// Another replica acts.
    NotLeader,
    /// A drill is for a healthy mesh.
    UnhealthyZones {
        zones: Vec<Zone>,
    },
    /// A person has not approved it yet.
    NotApproved,
    /// A person has paused zoneward, or whether one has can't be told.
    Paused {
        why: String,
    },
    /// A person wants no automatic isolation of the zone.
    OperatorHold {
        since: Timestamp,
        why: String,
    },
    /// A window in which nothing is isolated automatically.
    BlockedWindow {
        until: Timestamp,
        why: String,
    },
    /// Somebody works on the zone, as a silence of an Alertmanager tells.
    PlannedMaintenance {
        silence: String,
        by: String,
        until: Timestamp,
        why: String,
    },
    /// It can't be done as it was asked for.
    Invalid {
        why: String,
    },
    /// To act takes a cluster that is seen.
    UnseenCluster,
    /// The cluster has no such zone.
    UnknownZone {
        why: String,
    },
    /// As it was put on record earlier: the kind of guardrail, and what it said.
    Refused {
        kind: String,
        why: String,
    },
    NotYetPersistent {
        lasted: Period,
        needed: Period,
    },
    TooNarrow {
        affected_share: f64,
        needed_share: f64,
    },
    SingleInstance {
        pod: String,
    },
    SingleNode {
        node: String,
    },
    RolloutInProgress {
        new_pods: u32,
        pods: u32,
    },
    FaultElsewhere {
        why: String,
    },
    RegionalFault,
    StaleData {
        why: String,
    },
    AlreadyIsolated,
    AnotherZoneIsolated {
        zones: Vec<Zone>,
        allowed: u32,
        /// Whether they are only said to be, as nothing is done.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rehearsed: bool,
    },
    TooFewHealthyZones {
        healthy: u32,
        needed: u32,
    },
    UnreachableService {
        services: Vec<ServiceId>,
        /// Ready endpoints that each needs elsewhere.
        #[serde(default)]
        needed: u32,
        /// Whether that holds nothing, as they are left in the zone.
        #[serde(default)]
        left_alone: bool,
    },
    /// What would keep workloads that are left from getting new pods.
    CapacityTrap {
        traps: Vec<String>,
        /// How many more there are.
        more: u32,
    },
    /// The endpoints that are left would get so many times the requests that the busiest ones get now.
    InsufficientHeadroom {
        service: ServiceId,
        growth: f64,
        allowed: f64,
    },
    /// What is left would use so much of its CPU.
    InsufficientCpu {
        of: String,
        now: f64,
        then: f64,
        allowed: f64,
    },
    CoolingDown {
        until: Timestamp,
    },
    BudgetSpent {
        isolations: u32,
        allowed: u32,
        /// Whether of all zones together.
        #[serde(default)]
        of_all: bool,
    },
}

impl HoldReason {
    pub fn as_str(&self) -> &str {
        match self {
            Self::NoFault => "no_fault",
            Self::NotLeader => "not_leader",
            Self::UnhealthyZones { .. } => "unhealthy_zones",
            Self::NotApproved => "not_approved",
            Self::Paused { .. } => "paused",
            Self::OperatorHold { .. } => "operator_hold",
            Self::BlockedWindow { .. } => "blocked_window",
            Self::PlannedMaintenance { .. } => "planned_maintenance",
            Self::Invalid { .. } => "invalid",
            Self::UnseenCluster => "unseen_cluster",
            Self::UnknownZone { .. } => "unknown_zone",
            Self::Refused { kind, .. } => kind,
            Self::NotYetPersistent { .. } => "not_yet_persistent",
            Self::TooNarrow { .. } => "too_narrow",
            Self::SingleInstance { .. } => "single_instance",
            Self::SingleNode { .. } => "single_node",
            Self::RolloutInProgress { .. } => "rollout_in_progress",
            Self::FaultElsewhere { .. } => "fault_elsewhere",
            Self::RegionalFault => "regional_fault",
            Self::StaleData { .. } => "stale_data",
            Self::AlreadyIsolated => "already_isolated",
            Self::AnotherZoneIsolated { .. } => "another_zone_isolated",
            Self::TooFewHealthyZones { .. } => "too_few_healthy_zones",
            Self::UnreachableService { .. } => "unreachable_service",
            Self::CapacityTrap { .. } => "capacity_trap",
            Self::InsufficientHeadroom { .. } => "insufficient_headroom",
            Self::InsufficientCpu { .. } => "insufficient_cpu",
            Self::CoolingDown { .. } => "cooling_down",
            Self::BudgetSpent { .. } => "budget_spent",
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFault => write!(f, "there is no fault"),
            Self::NotLeader => write!(f, "another replica leads, and acts"),
            Self::UnseenCluster => write!(f, "the cluster can't be seen, so nothing is done to it"),
            Self::UnhealthyZones { zones } => write!(
                f,
                "a drill waits until every zone is known to be healthy, which {} is not",
                zones.iter().map(Zone::as_str).collect::<Vec<_>>().join(", ")
            ),
            Self::NotApproved => write!(f, "a person has to approve it"),
            Self::OperatorHold { since, why } => write!(f, "an operator holds it since {since:.0}: {why}"),
            Self::BlockedWindow { until, why } => {
                write!(f, "nothing is isolated automatically until {until:.0}: {why} (guard.blocked_windows)")
            }
            Self::PlannedMaintenance { silence, by, until, why } => write!(
                f,
                "it is silenced until {until:.0} by {by}: {why} (silence {silence} of the Alertmanager of guard.silences)"
            ),
            Self::Paused { why } => write!(f, "{why}; `zoneward resume` ends a pause"),
            Self::Invalid { why } | Self::UnknownZone { why } | Self::Refused { why, .. } => write!(f, "{why}"),
            Self::NotYetPersistent { lasted, needed } => {
                write!(f, "it has been seen for {lasted} and must last {needed}")
            }
            Self::TooNarrow { affected_share, needed_share } => write!(
                f,
                "the affected services carry {:.1} % of the zone's requests; a zone is worth isolating from {:.1} %, or \
                 for three services, or for one marked critical",
                100.0 * affected_share,
                100.0 * needed_share
            ),
            Self::SingleInstance { pod } => write!(f, "the pod {} alone explains it", inert_name(pod)),
            Self::SingleNode { node } => {
                write!(f, "the node {} alone, with its pods, explains it", inert_name(node))
            }
            Self::RolloutInProgress { new_pods, pods } => write!(
                f,
                "{new_pods} of its {pods} pods are new: what is rolled out may be worse, not the zone; they count as new for \
                 {NEW_FOR}"
            ),
            Self::FaultElsewhere { why } => write!(f, "{why}"),
            Self::RegionalFault => write!(f, "other zones got worse too, so moving traffic there would not help"),
            Self::StaleData { why } => write!(f, "the data does not allow a judgement: {why}"),
            Self::AlreadyIsolated => write!(f, "it is isolated already"),
            Self::AnotherZoneIsolated { zones, allowed, rehearsed } => write!(
                f,
                "{} {} out already, and at most {allowed} may be (guard.max_isolated_zones)",
                zones.iter().map(Zone::as_str).collect::<Vec<_>>().join(", "),
                if *rehearsed { "would be" } else { "is" }
            ),
            Self::TooFewHealthyZones { healthy, needed } => {
                write!(f, "{healthy} healthy zones would be left, and {needed} must (guard.min_healthy_zones)")
            }
            Self::UnreachableService { services, needed, left_alone } => {
                match needed {
                    0 | 1 => write!(f, "no ready endpoint elsewhere for ")?,
                    2.. => write!(f, "fewer than {needed} ready endpoints elsewhere for ")?,
                }
                let names = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let so = if *left_alone { ": the mesh goes on to call them in the zone" } else { "" };
                write!(f, "{names}{so} (guard.unreachable_services)")
            }
            Self::CapacityTrap { traps, more } => {
                let more = if *more == 0 { String::new() } else { format!("; and {more} more") };
                write!(f, "{}{more} (guard.capacity_traps)", traps.join("; "))
            }
            Self::InsufficientHeadroom { service, growth, allowed } => write!(
                f,
                "each endpoint of {service} that is left would get {growth:.1} times the requests that the busiest get now, \
                 and {allowed:.1} times are allowed (guard.max_load_growth)"
            ),
            Self::InsufficientCpu { of, now, then, allowed } => write!(
                f,
                "{of} would use {:.0} % of their CPU, {:.0} % now, and {:.0} % are allowed (guard.max_cpu)",
                100.0 * then,
                100.0 * now,
                100.0 * allowed
            ),
            Self::CoolingDown { until } => {
                write!(f, "it was isolated not long ago; held until {until:.0} (guard.cool_down)")
            }
            Self::BudgetSpent { isolations, allowed, of_all: false } => write!(
                f,
                "it was isolated {isolations} times in 24 h, and {allowed} are allowed (guard.max_isolations_per_day): \
                 a person should look, and then `zoneward acknowledge` it"
            ),
            Self::BudgetSpent { isolations, allowed, of_all: true } => write!(
                f,
                "zones were isolated {isolations} times in 24 h, and {allowed} are allowed \
                 (guard.max_isolations_per_day_of_all): a person should look, and then `zoneward acknowledge --all`"
            ),
        }
    }
}
