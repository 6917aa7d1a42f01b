//! What one cycle shows: increments by service and zone, and how complete they are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ClusterView, Ratio, ServiceId, Zone};

/// Everything seen between two cycles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The cycle this stands for. Its data ends the configured offset earlier.
    pub time: Timestamp,
    pub cells: BTreeMap<ServiceId, BTreeMap<Zone, Cell>>,
    /// Scraped proxies by zone.
    pub coverage: BTreeMap<Zone, Coverage>,
    /// Why this cycle can't be judged, in whole or in part.
    pub gaps: Vec<Gap>,
    /// What the cluster looks like, where it can be asked.
    pub cluster: Option<ClusterView>,
}

impl Snapshot {
    /// A cycle of which nothing is known, and why.
    pub fn unobserved(time: Timestamp, gap: Gap) -> Self {
        Self { time, cells: BTreeMap::new(), coverage: BTreeMap::new(), gaps: vec![gap], cluster: None }
    }

    /// The gaps that concern every zone.
    pub fn global_gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.zone().is_none())
    }

    /// Requests that the zone's servers answered, over all services.
    pub fn served_by(&self, zone: &Zone) -> Calls {
        self.cells.values().filter_map(|zones| zones.get(zone)).fold(Calls::default(), |sum, cell| sum + cell.served)
    }

    /// Calls that the zone's clients made, over all services.
    pub fn called_by(&self, zone: &Zone) -> Calls {
        self.cells.values().filter_map(|zones| zones.get(zone)).fold(Calls::default(), |sum, cell| sum + cell.called)
    }
}

/// One service in one zone during one cycle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// As the serving proxies saw it (`reporter="destination"`).
    pub served: Calls,
    /// As the zone's clients of the service saw it (`reporter="source"`).
    pub called: Calls,
    /// Duration of well-answered requests, as the serving proxies saw it.
    pub latency: Histogram,
}

/// Requests, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    pub total: f64,
    pub failed: f64,
}

impl std::ops::Add for Calls {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { total: self.total + other.total, failed: self.failed + other.failed }
    }
}

impl std::ops::AddAssign for Calls {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Counts between bucket edges (not cumulative). The last edge is infinite.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Shared by the many that have the same ones.
    #[serde(with = "edges")]
    pub edges_ms: Arc<[f64]>,
    pub counts: Vec<f64>,
}

/// Upper edges of buckets; an infinite one is null, as JSON has none.
pub mod edges {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(edges_ms: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(edges_ms.iter().map(|edge| edge.is_finite().then_some(*edge)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, E: FromIterator<f64>>(deserializer: D) -> Result<E, D::Error> {
        let edges = Vec::<Option<f64>>::deserialize(deserializer)?;
        Ok(edges.into_iter().map(|edge| edge.unwrap_or(f64::INFINITY)).collect())
    }
}

impl Histogram {
    /// From cumulative counts by upper edge in milliseconds. Counts that fall are sums over series with different edges,
    /// which say nothing: they give an empty histogram.
    pub fn from_cumulative(cumulative: &[(f64, f64)]) -> Self {
        let mut sorted = cumulative.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut below = 0.0_f64;
        let mut counts = Vec::with_capacity(sorted.len());
        for (_, count) in &sorted {
            if *count < below {
                return Self::default();
            }
            counts.push(count - below);
            below = *count;
        }
        Self { edges_ms: sorted.iter().map(|(edge, _)| *edge).collect(), counts }
    }
}

impl Histogram {
    /// Adds counts on the same edges; to none, it is a copy.
    pub fn add(&mut self, other: &Self) {
        if self.edges_ms.is_empty() {
            *self = other.clone();
        } else if self.edges_ms == other.edges_ms {
            self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        }
    }
}

/// How many of a zone's known proxies answered the last scrape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Coverage {
    pub known: u32,
    pub up: u32,
}

impl Coverage {
    pub fn share(self) -> f64 {
        if self.known == 0 { 0.0 } else { f64::from(self.up) / f64::from(self.known) }
    }
}

/// What lost scrapes make impossible to judge. A zone of which too few proxies answered is not known; and where fewer
/// than two are known, what fails may be the monitoring.
pub fn coverage_gaps<'a>(
    zones: impl Iterator<Item = &'a Zone>,
    coverage: &BTreeMap<Zone, Coverage>,
    min_coverage: Ratio,
) -> Vec<Gap> {
    let of = |zone: &Zone| coverage.get(zone).copied().unwrap_or_default();
    let (seen, lost): (Vec<&Zone>, Vec<&Zone>) = zones.partition(|zone| of(zone).share() >= min_coverage.as_fraction());
    if seen.len() < 2 {
        return vec![Gap::TooFewZonesScraped { zones: seen.into_iter().cloned().collect() }];
    }
    lost.into_iter().map(|zone| Gap::ScrapesLost { zone: zone.clone(), coverage: of(zone) }).collect()
}

/// One pod over the cycles asked for: its calls, or the durations of its requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PodCalls {
    pub pod: String,
    /// Where it runs, if that is known.
    pub node: Option<String>,
    pub age: PodAge,
    pub calls: Calls,
    pub latency: Histogram,
}

/// Whether a pod came or went lately, as roll-outs make them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodAge {
    #[default]
    Unknown,
    /// It was there before the time in which a roll-out is remembered.
    Settled,
    New,
    /// It no longer reports.
    Gone,
}

/// Why data can't be judged. No data is neither healthy nor zero.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "gap", rename_all = "snake_case")]
pub enum Gap {
    /// The metrics could not be read.
    QueryFailed { why: String },
    /// The server answered, but said that the answer is incomplete.
    PartialAnswer { why: String },
    /// There are no request metrics.
    NoRequests { metric: String },
    /// Fewer than two zones can be told apart.
    TooFewZones { zones: Vec<Zone>, label: String },
    /// So many values of the zone label that it can't be one.
    TooManyZones { zones: usize, label: String },
    /// Fewer than two zones have targets that are up: what fails may be the monitoring.
    TooFewZonesScraped { zones: Vec<Zone> },
    /// Most of one zone's proxies were not scraped.
    ScrapesLost { zone: Zone, coverage: Coverage },
    /// The zone gets no requests, as while it is isolated: nothing says that it is healthy.
    NoTraffic { zone: Zone },
    /// Too few requests, or too little known of them, to tell healthy from sick.
    TooLittleData { zone: Zone },
    /// Clients in two zones fail alike, and no server says why.
    Partition { zone: Zone, other: Zone },
    /// No other zone gets requests, so there is nothing to compare the zone with.
    NoPeer { zone: Zone },
    /// The same target is stored more than once, so every count is doubled.
    DuplicatedTargets { copies: u32 },
    /// Samples come too rarely for the look-back.
    ScrapeIntervalTooLong { scrape_interval_s: i64, lookback_s: i64 },
}

impl Gap {
    /// What kind of gap it is, whatever its figures.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::QueryFailed { .. } => "query_failed",
            Self::PartialAnswer { .. } => "partial_answer",
            Self::NoRequests { .. } => "no_requests",
            Self::TooFewZones { .. } => "too_few_zones",
            Self::TooManyZones { .. } => "too_many_zones",
            Self::TooFewZonesScraped { .. } => "too_few_zones_scraped",
            Self::ScrapesLost { .. } => "scrapes_lost",
            Self::NoTraffic { .. } => "no_traffic",
            Self::TooLittleData { .. } => "too_little_data",
            Self::Partition { .. } => "partition",
            Self::NoPeer { .. } => "no_peer",
            Self::DuplicatedTargets { .. } => "duplicated_targets",
            Self::ScrapeIntervalTooLong { .. } => "scrape_interval_too_long",
        }
    }

    /// The zone it concerns, if it is not all of them.
    pub fn zone(&self) -> Option<&Zone> {
        match self {
            Self::ScrapesLost { zone, .. }
            | Self::NoTraffic { zone }
            | Self::TooLittleData { zone }
            | Self::Partition { zone, .. }
            | Self::NoPeer { zone } => Some(zone),
            Self::QueryFailed { .. }
            | Self::PartialAnswer { .. }
            | Self::NoRequests { .. }
            | Self::TooFewZones { .. }
            | Self::TooManyZones { .. }
            | Self::TooFewZonesScraped { .. }
            | Self::DuplicatedTargets { .. }
            | Self::ScrapeIntervalTooLong { .. } => None,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueryFailed { why } => write!(f, "Prometheus could not be read: {why}"),
            Self::PartialAnswer { why } => write!(f, "Prometheus gave an incomplete answer: {why}"),
            Self::NoRequests { metric } => write!(
                f,
                "there is no {metric}: is the mesh scraped, do prometheus.matchers fit, does anything send requests, and is \
                 prometheus.offset long enough for a store that shows new samples late (VictoriaMetrics: 32s)?"
            ),
            Self::TooFewZones { zones, label } if zones.is_empty() => write!(
                f,
                "the label `{label}` is empty on every series: add it by a Telemetry tag (xds.node.locality.zone) or by \
                 relabelling, or name another label in prometheus.labels.zone"
            ),
            Self::TooFewZones { zones, label } => {
                write!(f, "the label `{label}` names only the zone {}: two are needed to compare", names(zones))
            }
            Self::TooManyZones { zones, label } => write!(
                f,
                "the label `{label}` has {zones} values, too many to be zones: name another in prometheus.labels.zone"
            ),
            Self::TooFewZonesScraped { zones } if zones.is_empty() => {
                write!(f, "no zone has a proxy that is up: Prometheus may be cut off, or `up` is not stored")
            }
            Self::TooFewZonesScraped { zones } => write!(
                f,
                "only the zone {} has proxies that are up: Prometheus may sit inside a zone that is cut off",
                names(zones)
            ),
            Self::ScrapesLost { zone, coverage } => {
                write!(f, "only {} of {} proxies in {zone} were scraped", coverage.up, coverage.known)
            }
            Self::NoTraffic { zone } => write!(f, "{zone} gets no requests"),
            Self::TooLittleData { zone } => {
                write!(f, "too little is known of {zone}: it has few requests, or the watch has only begun")
            }
            Self::Partition { zone, other } => write!(
                f,
                "clients in {zone} and in {other} fail alike, and no server says why: the link between them may be broken, \
                 and that is neither zone's fault alone"
            ),
            Self::NoPeer { zone } => write!(f, "no zone but {zone} gets requests"),
            Self::DuplicatedTargets { copies } => write!(
                f,
                "every target is stored {copies} times, so counts are multiplied: query a de-duplicating endpoint, or \
                 add the replica's label to prometheus.matchers"
            ),
            Self::ScrapeIntervalTooLong { scrape_interval_s, lookback_s } => write!(
                f,
                "targets are scraped every {scrape_interval_s} s, too rarely for prometheus.lookback of {lookback_s} s: \
                 set it to at least {} s",
                4 * scrape_interval_s
            ),
        }
    }
}

fn names(zones: &[Zone]) -> String {
    zones.iter().map(Zone::as_str).collect::<Vec<_>>().join(", ")
}
