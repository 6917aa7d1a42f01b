//! What the data says: evidence, and the verdict on each zone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Gap, Nats, Period, ServiceId, Snapshot, Zone};

/// Who saw it. Differential observability is what makes a failure gray (Huang et al., `HotOS` '17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vantage {
    /// The serving proxy, `reporter="destination"`.
    Server,
    /// The calling proxy, `reporter="source"`.
    Client,
}

/// What is compared between zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Share of failed requests, as the servers saw it.
    ServerErrors,
    /// Share of failed requests, as the zone's clients saw it.
    ClientErrors,
    /// Share of requests slower than nearly all are in health (the slowest 2 %).
    SlowRequests,
    /// Share of requests slower than almost any is in health (the slowest 0.1 %).
    VerySlowRequests,
    /// How many times as long a request takes.
    Latency,
}

impl Signal {
    pub const ALL: [Self; 5] =
        [Self::ServerErrors, Self::ClientErrors, Self::SlowRequests, Self::VerySlowRequests, Self::Latency];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerErrors => "server_errors",
            Self::ClientErrors => "client_errors",
            Self::SlowRequests => "slow_requests",
            Self::VerySlowRequests => "very_slow_requests",
            Self::Latency => "latency",
        }
    }

    pub const fn vantage(self) -> Vantage {
        match self {
            Self::ClientErrors => Vantage::Client,
            Self::ServerErrors | Self::SlowRequests | Self::VerySlowRequests | Self::Latency => Vantage::Server,
        }
    }
}

/// Why a zone is thought to differ: one service (or all of them pooled) in one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `None` stands for all services pooled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    pub signal: Signal,
    pub vantage: Vantage,
    /// Against chance, over the best window.
    pub nats: Nats,
    /// What was seen in the zone, and what was expected of it: shares, or for latency factors.
    pub seen: f64,
    pub expected: f64,
    /// Bounds of `seen - expected` at 95 % confidence.
    pub excess_low: f64,
    pub excess_high: f64,
    /// Requests in the window: of the zone and of its peers.
    pub zone_requests: f64,
    pub peer_requests: f64,
    pub window: Period,
    /// The size of the effect in terms of failed requests: what decides how long it must last.
    pub severity: f64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.signal {
            Signal::ServerErrors => "requests failed",
            Signal::ClientErrors => "calls by its clients failed",
            Signal::SlowRequests => "requests were slow",
            Signal::VerySlowRequests => "requests were very slow",
            Signal::Latency => "times the usual latency",
        };
        match &self.service {
            Some(service) => write!(f, "{service}: ")?,
            None => write!(f, "all services: ")?,
        }
        match self.signal {
            Signal::Latency => write!(f, "{:.2} {what} where {:.2} was expected", self.seen, self.expected)?,
            Signal::ServerErrors | Signal::ClientErrors | Signal::SlowRequests | Signal::VerySlowRequests => write!(
                f,
                "{:.2} % of {:.0} {what} in {} where {:.2} % was expected",
                100.0 * self.seen,
                self.zone_requests,
                self.window,
                100.0 * self.expected
            )?,
        }
        write!(f, " (odds of chance e^-{:.0})", self.nats.get())
    }
}

/// What is wrong, by how far it reaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Healthy,
    /// This zone alone is worse than its peers and than its own past.
    ZoneFault,
    /// Real, but in services too few or too small to be worth a zone.
    ServiceFault {
        affected_share: f64,
        needed_share: f64,
    },
    /// One pod of several explains it.
    InstanceFault {
        pod: String,
    },
    /// One node of several explains it, with the pods on it.
    NodeFault {
        node: String,
    },
    /// Other zones got worse too.
    RegionalFault,
    /// The zone's clients suffer, but not because of the zone.
    FaultElsewhere {
        why: String,
    },
    /// It can't be told.
    Inconclusive {
        gaps: Vec<Gap>,
    },
}

impl Verdict {
    /// Whether the zone itself can take traffic: what is wrong in it, if anything, is not the zone.
    pub const fn leaves_zone_usable(&self) -> bool {
        match self {
            Self::Healthy
            | Self::ServiceFault { .. }
            | Self::InstanceFault { .. }
            | Self::NodeFault { .. }
            | Self::FaultElsewhere { .. } => true,
            Self::ZoneFault | Self::RegionalFault | Self::Inconclusive { .. } => false,
        }
    }

    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::ZoneFault => "zone_fault",
            Self::ServiceFault { .. } => "service_fault",
            Self::InstanceFault { .. } => "instance_fault",
            Self::NodeFault { .. } => "node_fault",
            Self::RegionalFault => "regional_fault",
            Self::FaultElsewhere { .. } => "fault_elsewhere",
            Self::Inconclusive { .. } => "inconclusive",
        }
    }
}

/// The judgement on one zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub verdict: Verdict,
    /// For how long the fault was there, and for how long it must be.
    pub lasted: Period,
    pub needed: Period,
    /// Whether it has lasted, and is there still.
    pub persistent: bool,
    /// Strongest first.
    pub evidence: Vec<Evidence>,
}

impl Finding {
    pub const fn healthy() -> Self {
        Self {
            verdict: Verdict::Healthy,
            lasted: Period::from_secs(0),
            needed: Period::from_secs(0),
            persistent: false,
            evidence: Vec::new(),
        }
    }

    pub fn inconclusive(gaps: Vec<Gap>) -> Self {
        Self { verdict: Verdict::Inconclusive { gaps }, ..Self::healthy() }
    }
}

/// The judgement of one cycle.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    pub time: Timestamp,
    pub zones: BTreeMap<Zone, Finding>,
    /// What a closer look by pod would settle, before anything is done.
    pub unsettled: BTreeSet<Suspect>,
}

/// What one cycle saw, and what was made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    pub snapshot: Snapshot,
    pub assessment: Assessment,
}

/// How long a roll-out is remembered: a pod younger than that is new.
pub const NEW_FOR: Period = Period::from_mins(10);

/// One service in one zone, to be seen pod by pod over some cycles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suspect {
    pub service: ServiceId,
    pub zone: Zone,
    pub view: PodView,
    pub cycles: usize,
}

/// What of each pod is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodView {
    /// Requests of the service's own pods.
    Servers,
    /// Calls to the service by the zone's pods.
    Clients,
    /// Durations of requests of the service's own pods.
    Durations,
}

impl Signal {
    /// What shows a single pod that explains it.
    pub const fn pod_view(self) -> PodView {
        match self {
            Self::ServerErrors => PodView::Servers,
            Self::ClientErrors => PodView::Clients,
            Self::SlowRequests | Self::VerySlowRequests | Self::Latency => PodView::Durations,
        }
    }
}
