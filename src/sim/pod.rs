//! A proxy and its counters, as Envoy keeps them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::domain::verdict::NEW_FOR;
use crate::domain::{PodAge, Zone};

/// Istio's buckets, upper edges in milliseconds.
pub const EDGES_MS: [f64; 20] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    f64::INFINITY,
];

/// Counts by bucket (not cumulative), and the sum of durations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Durations {
    pub counts: [u64; EDGES_MS.len()],
    pub sum_ms: f64,
}

impl Durations {
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(a, b)| *a += b);
        self.sum_ms += other.sum_ms;
    }

    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        counts.iter_mut().zip(earlier.counts).for_each(|(a, b)| *a -= b);
        Self { counts, sum_ms: self.sum_ms - earlier.sum_ms }
    }
}

/// Who reports a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reporter {
    Source,
    Destination,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    Ok,
    ServerError,
    ConnectFailure,
    NoEndpoint,
}

impl Ending {
    pub const fn failed(self) -> bool {
        !matches!(self, Self::Ok)
    }

    /// `response_code` and `response_flags`.
    pub const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("200", "-"),
            Self::ServerError => ("500", "-"),
            Self::ConnectFailure => ("503", "UF"),
            Self::NoEndpoint => ("503", "UH"),
        }
    }
}

/// What tells one series of a proxy from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesKey {
    pub reporter: Reporter,
    pub source: String,
    pub destination: String,
    pub ending: Ending,
}

pub(super) type Counters = BTreeMap<SeriesKey, Durations>;

#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub name: String,
    pub service: String,
    pub zone: Zone,
    /// Nothing, if it was there when the world began.
    pub born: Option<Timestamp>,
    /// The value of `istio.io/draining`.
    pub draining: Option<String>,
    /// Whether it is an endpoint of its service.
    pub ready: bool,
    pub counters: Counters,
    /// The second of the scrape interval in which it is scraped.
    pub phase_s: i64,
    /// As of the last scrape, and as of the scrape that the last cycle read.
    pub scraped: Option<Counters>,
    pub reported: Option<Counters>,
    pub up: bool,
}

impl Pod {
    pub fn age(&self, at: Timestamp) -> PodAge {
        let new = self.born.is_some_and(|born| at.duration_since(born) < NEW_FOR.signed());
        if new { PodAge::New } else { PodAge::Settled }
    }

    pub fn count(&mut self, key: SeriesKey, durations: &Durations) {
        if durations.total() > 0 {
            self.counters.entry(key).or_default().add(durations);
        }
    }
}
