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
    /// Share of the calls to the zone's servers that never reach them: clients everywhere lose what they don't get.
    LostCalls,
    /// Share of requests slower than nearly all are in health (the slowest 2 %).
    SlowRequests,
    /// Share of requests slower than almost any is in health (the slowest 0.1 %).
    VerySlowRequests,
    /// How many times as long a request takes.
    Latency,
}

impl Signal {
    pub const ALL: [Self; 6] = [
        Self::ServerErrors,
        Self::ClientErrors,
        Self::LostCalls,
        Self::SlowRequests,
        Self::VerySlowRequests,
        Self::Latency,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerErrors => "server_errors",
            Self::ClientErrors => "client_errors",
            Self::LostCalls => "lost_calls",
            Self::SlowRequests => "slow_requests",
            Self::VerySlowRequests => "very_slow_requests",
            Self::Latency => "latency",
        }
    }

    pub const fn vantage(self) -> Vantage {
        match self {
            Self::ClientErrors | Self::LostCalls => Vantage::Client,
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
    /// Its peers are just as bad: then it is held against its own past alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peers_alike: bool,
    /// What was seen in the zone, and what was expected of it: shares, or for latency factors.
    pub seen: f64,
    pub expected: f64,
    /// Bounds of `seen - expected` at 95 % confidence.
    pub excess_low: f64,
    pub excess_high: f64,
    /// Requests in the window: of the zone and of its peers; for lost calls those due to the zone's servers, and all.
    pub zone_requests: f64,
    /// What was seen in the peers.
    #[serde(default)]
    pub peers_seen: f64,
    pub peer_requests: f64,
    pub window: Period,
    /// In how many of the window's cycles it was there.
    #[serde(default)]
    pub bad_cycles: u32,
    #[serde(default)]
    pub window_cycles: u32,
    /// The size of the effect in terms of failed requests: what decides how long it must last.
    pub severity: f64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service.as_ref().map_or_else(|| "all services together".to_owned(), ToString::to_string);
        let percent = |share: f64| format!("{:.*} %", if share < 0.01 { 2 } else { 1 }, 100.0 * share);
        let (here, there) = (grouped(self.zone_requests), grouped(self.peer_requests));
        let (seen, usual, peers) = (percent(self.seen), percent(self.expected), percent(self.peers_seen));
        let than = if self.peers_alike {
            format!("{usual} as usual (in its peers {peers}, n = {there})")
        } else if self.expected > self.peers_seen {
            // Its own past may expect more of it than its peers do now.
            format!("{peers} in its peers (n = {there}) and {usual} as usual")
        } else {
            format!("{peers} in its peers (n = {there})")
        };
        let against = format!(
            "{seen} (n = {here}) against {than}, {:+.1} points [{:.1}, {:.1}]",
            100.0 * (self.seen - self.expected),
            100.0 * self.excess_low,
            100.0 * self.excess_high,
        );
        match self.signal {
            Signal::ServerErrors => write!(f, "{service} fails {against}"),
            Signal::ClientErrors => write!(f, "calls to {service} by its clients fail {against}, side unknown"),
            Signal::SlowRequests => write!(f, "{service} is slow in {against}"),
            Signal::VerySlowRequests => write!(f, "{service} is very slow in {against}"),
            Signal::LostCalls => write!(
                f,
                "{} of the calls to {service} (n = {here}) don't reach its servers: clients everywhere fail {} (n = {there}), \
                 and its servers answer as much less",
                percent(self.seen),
                percent(self.peers_seen),
            ),
            Signal::Latency => write!(
                f,
                "{service} takes {:.2} times as long (n = {here}) as {}, {:+.2} [{:.2}, {:.2}]",
                self.seen,
                if self.peers_alike {
                    format!("usual, as in its peers (n = {there})")
                } else {
                    format!("its peers (n = {there}) and as usual")
                },
                self.seen - self.expected,
                self.excess_low,
                self.excess_high,
            ),
        }?;
        let (bad, of) = (self.bad_cycles, self.window_cycles);
        write!(f, ", for {bad} of the last {of} cycles (odds of chance e^-{:.0})", self.nats.get())
    }
}

/// A count with its thousands apart.
fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
    /// The service is being rolled out in this zone, and it may be the new version that is worse.
    RolloutInProgress {
        new_pods: u32,
        pods: u32,
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
            | Self::RolloutInProgress { .. }
            | Self::FaultElsewhere { .. } => true,
            Self::ZoneFault | Self::RegionalFault | Self::Inconclusive { .. } => false,
        }
    }

    /// Why it can't be told, where it can't.
    pub fn gaps(&self) -> &[Gap] {
        if let Self::Inconclusive { gaps } = self { gaps } else { &[] }
    }

    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::ZoneFault => "zone_fault",
            Self::ServiceFault { .. } => "service_fault",
            Self::InstanceFault { .. } => "instance_fault",
            Self::NodeFault { .. } => "node_fault",
            Self::RolloutInProgress { .. } => "rollout_in_progress",
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
            Self::ServerErrors | Self::LostCalls => PodView::Servers,
            Self::ClientErrors => PodView::Clients,
            Self::SlowRequests | Self::VerySlowRequests | Self::Latency => PodView::Durations,
        }
    }
}
