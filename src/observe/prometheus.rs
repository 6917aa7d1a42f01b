//! Snapshots, a closer look by pod, and what `check --connect` wants to know.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::Timestamp;
use prometheus_http_query::response::{Data, InstantVector};

use super::api::{Api, ApiError, ConnectError, Usage};
use super::decode::{self, Places, Reading, Rows, Stretch};
use super::probe::Prober;
use super::queries::{Queries, Reporter};
use super::settings::Settings;
use crate::domain::cluster::{CpuUse, PodId};
use crate::domain::verdict::Suspect;
use crate::domain::{ClusterView, CycleLength, Gap, Period, PodCalls, Probes, ServiceId, Services, Snapshot, Zone};
use crate::ports::{ObserveError, Observer};

/// Cycles asked for at once. An answer that would be too large is asked for in halves.
const CHUNK_CYCLES: usize = 240;
/// Pods that are gone, and yet known.
const MOST_GONE: usize = 10_000;
/// Reads snapshots from Prometheus, or from what speaks its API.
pub struct PrometheusObserver {
    pub(super) api: Api,
    pub(super) queries: Queries,
    pub(super) settings: Settings,
    pub(super) cycle: CycleLength,
    /// Of pods that were seen, those that are gone included: their last calls count, too.
    places: Places,
    prober: Prober,
    /// Set where samples come too rarely for the look-back.
    unfit: Option<Gap>,
}

/// What `check --connect` wants to know.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    pub scrape_interval: Option<Period>,
    /// Requests per second by zone label; empty where the label is.
    pub zones: Vec<(String, f64)>,
    pub services: BTreeSet<ServiceId>,
    pub duration_series: u64,
    pub copies: u32,
    pub warnings: Vec<String>,
}

impl PrometheusObserver {
    /// Reads the files that settings name; sends nothing.
    pub fn new(settings: Settings, cycle: CycleLength) -> Result<Self, ConnectError> {
        let queries = Queries::new(&settings, cycle);
        let prober = Prober::new(settings.probes.clone())
            .map_err(|error| ConnectError::Invalid { setting: "probes", why: error.to_string() })?;
        Ok(Self { api: Api::new(&settings)?, queries, settings, cycle, places: Places::new(), prober, unfit: None })
    }

    /// Learns where pods run. Those that are gone are forgotten once there are too many of them.
    pub fn learn_places(&mut self, view: &ClusterView) {
        if self.places.len() > 2 * view.pods.len() + MOST_GONE {
            self.places.clear();
        }
        self.places.extend(view.places());
        self.prober.learn(view);
    }

    /// From the next query on, other answers count as failures.
    pub fn retune(&mut self, services: Services) {
        self.settings.services = services;
        self.queries = Queries::new(&self.settings, self.cycle);
    }

    pub(super) const fn reading(&self) -> Reading<'_> {
        Reading { settings: &self.settings, places: &self.places }
    }

    pub const fn usage(&self) -> Usage {
        self.api.usage
    }

    pub const fn cycle(&self) -> CycleLength {
        self.cycle
    }

    /// Measures the scrape interval from the samples before `at`, and never looks more often than that: a scrape counts
    /// once. Returns the interval, if there were samples.
    pub async fn fit_to_scrapes(&mut self, at: Timestamp) -> Result<Option<Period>, ObserveError> {
        let Some(interval) = self.scrape_interval(at).await? else { return Ok(None) };
        if interval > Period::from_secs(self.cycle.seconds()) {
            self.cycle = CycleLength::at_least(interval);
            self.queries = Queries::new(&self.settings, self.cycle);
        }
        // Two missed scrapes in a row must not make a series look new.
        let (scrape_interval_s, lookback_s) = (interval.signed().as_secs(), self.settings.lookback.signed().as_secs());
        self.unfit = (4 * scrape_interval_s > lookback_s)
            .then_some(Gap::ScrapeIntervalTooLong { scrape_interval_s, lookback_s });
        Ok(Some(interval))
    }

    /// The median time between samples of a few proxies, in whole seconds.
    async fn scrape_interval(&mut self, at: Timestamp) -> Result<Option<Period>, ObserveError> {
        let (targets, _) = self.api.vector(&self.queries.some_targets(), at).await?;
        let mut gaps_s = Vec::new();
        for target in targets {
            let labels: Vec<(String, String)> = self
                .settings
                .labels
                .target
                .iter()
                .filter_map(|name| target.metric().get(name).map(|value| (name.clone(), value.clone())))
                .collect();
            let answer = self.api.instant(&self.queries.samples_of(&labels), at).await?;
            if let Data::Matrix(rows) = answer.data {
                for row in rows {
                    gaps_s.extend(row.samples().windows(2).map(|pair| pair[1].timestamp() - pair[0].timestamp()));
                }
            }
        }
        gaps_s.sort_by(f64::total_cmp);
        Ok(gaps_s.get(gaps_s.len() / 2).map(|gap| Period::from_secs((gap.round() as i64).max(1))))
    }

    /// CPU that pods used lately; nothing where no container is counted.
    pub async fn cpu_use(&mut self, at: Timestamp) -> Result<Option<CpuUse>, ObserveError> {
        let (rows, _) = self.api.vector(&self.queries.cpu(), at).await?;
        let of_pod = |row: &InstantVector| {
            let label = |name: &str| row.metric().get(name).cloned();
            let id = PodId { namespace: label("namespace")?, name: label("pod")? };
            Some((id, (1e3 * row.sample().value()).max(0.0).round() as u64))
        };
        let pods: BTreeMap<PodId, u64> = rows.iter().filter_map(of_pod).collect();
        Ok((!pods.is_empty()).then_some(CpuUse { seen_at: at, pods }))
    }

    /// What there is to see at `at`.
    pub async fn inspect(&mut self, at: Timestamp) -> Result<Inspection, ObserveError> {
        let scrape_interval = self.scrape_interval(at).await?;
        let (rows, warnings) = self.api.vector(&self.queries.rate_by_zone(), at).await?;
        let mut by_zone: BTreeMap<String, f64> = BTreeMap::new();
        for row in &rows {
            let zone = self.reading().zone(|name| row.metric().get(name));
            let zone = zone.map_or_else(String::new, |zone| zone.as_str().to_owned());
            *by_zone.entry(zone).or_default() += row.sample().value();
        }
        let zones = by_zone.into_iter().collect();
        let (rows, _) = self.api.vector(&self.queries.services(), at).await?;
        let services =
            rows.iter().filter_map(|row| decode::service(|name| row.metric().get(name), &self.settings)).collect();
        let duration_series = self.api.number(&self.queries.duration_series(), at).await?;
        let copies = self.api.number(&self.queries.copies(), at).await? as u32;
        Ok(Inspection { scrape_interval, zones, services, duration_series, copies, warnings })
    }

    /// One stretch, in halves if need be.
    async fn stretch(&mut self, first: Timestamp, cycles: usize) -> Result<Vec<Snapshot>, ObserveError> {
        let mut snapshots = Vec::with_capacity(cycles);
        let mut pieces = vec![(first, cycles)];
        while let Some((first, cycles)) = pieces.pop() {
            let stretch = Stretch { first, cycles, cycle: self.cycle, offset_s: self.settings.offset.as_secs_f64() };
            match self.rows(stretch).await {
                Ok(rows) => snapshots.extend(decode::snapshots(&rows, stretch, self.reading())),
                Err(ApiError::TooLarge { .. } | ApiError::Refused(_)) if cycles > 1 => {
                    let half = cycles / 2;
                    pieces.push((first + self.cycle.signed() * half as i32, cycles - half));
                    pieces.push((first, half));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(gap) = &self.unfit {
            snapshots.iter_mut().for_each(|snapshot| snapshot.gaps.push(gap.clone()));
        }
        Ok(snapshots)
    }

    async fn rows(&mut self, stretch: Stretch) -> Result<Rows, ApiError> {
        let mut warnings = Vec::new();
        let mut answers = Vec::new();
        let queries = [
            self.queries.requests(Reporter::Server),
            self.queries.requests(Reporter::Client),
            self.queries.durations(),
            self.queries.coverage(),
            self.queries.copies(),
        ];
        for query in queries {
            let answer = self.api.range(&query, stretch).await?;
            warnings.extend(answer.warnings);
            answers.push(answer.rows);
        }
        warnings.sort();
        warnings.dedup();
        let mut next = answers.into_iter();
        let mut take = || next.next().unwrap_or_default();
        Ok(Rows { served: take(), called: take(), durations: take(), coverage: take(), copies: take(), warnings })
    }
}

#[async_trait]
impl Observer for PrometheusObserver {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        let mut snapshots = Vec::new();
        let mut next = self.cycle.at_or_after(first);
        while next <= last {
            let left = (last.as_second() - next.as_second()) / self.cycle.seconds() + 1;
            let cycles = (left as usize).min(CHUNK_CYCLES);
            snapshots.extend(self.stretch(next, cycles).await?);
            next += self.cycle.signed() * cycles as i32;
        }
        Ok(snapshots)
    }

    async fn observe_pods(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Vec<PodCalls>, ObserveError> {
        self.closer_look(suspect, at).await
    }

    async fn probe(&mut self, zone: &Zone) -> Option<Probes> {
        self.prober.probe(zone).await
    }
}
