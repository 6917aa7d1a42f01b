//! Snapshots, a closer look by pod, and what `check --connect` wants to know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use async_trait::async_trait;
use jiff::Timestamp;

use super::api::{Api, ApiError, Asked, ConnectError, Kind, Usage};
use super::decode::{self, Builder, Places, Reading, Stretch};
use super::probe::Prober;
use super::queries::Queries;
use super::settings::Settings;
use super::shards::Shard;
use super::stream::Row;
use crate::domain::cluster::{CpuUse, PodId};
use crate::domain::verdict::Suspect;
use crate::domain::{ClusterView, CycleLength, Gap, Period, PodCalls, Probes, ServiceId, Services, Snapshot, Zone};
use crate::ports::{ObserveError, Observer};

/// Cycles asked for at once: at the most, and before it is known how large they are.
const MOST_CYCLES: usize = 240;
const FIRST_CYCLES: usize = 8;
/// Queries of the next stretch that are sent while this one is judged.
const MOST_AHEAD: usize = 4;
/// Services by zone by cycle that are asked for at once, which bounds memory.
const MOST_CELLS: usize = 40_000;
/// And if they are not all made at once.
const MOST_PACKED: usize = 170_000;
/// Parts of the services that are asked for one by one, where one answer would be too large, or take too long.
const MOST_SHARDS: usize = 64;
const MOST_SHARDS_IF_REFUSED: usize = 4;
/// With more proxies that come and go, those that have new series are looked for among all.
const MOST_CHANGING: usize = 200;
/// Pods that are gone, and yet known.
const MOST_GONE: usize = 10_000;
/// Reads snapshots from Prometheus, or from what speaks its API.
pub struct PrometheusObserver {
    pub(super) api: Api,
    pub(super) queries: Queries,
    pub(super) settings: Settings,
    pub(super) cycle: CycleLength,
    /// Of pods that were seen, those that are gone included: their last calls count, too.
    pub(super) places: Places,
    prober: Prober,
    /// Set where samples come too rarely for the look-back.
    unfit: Option<Gap>,
    /// As many as it took last.
    shards: Vec<Shard>,
    /// How large the newest cycle was.
    cells: Option<usize>,
    /// What was asked of a stretch before it was its turn: the first of its parts.
    ahead: Ahead,
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
        let (api, places, shards) = (Api::new(&settings)?, Places::new(), vec![Shard::default()]);
        Ok(Self { api, queries, settings, cycle, places, prober, unfit: None, shards, cells: None, ahead: None })
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

    /// What is asked for one cycle, or a stretch of them.
    pub fn queries(&self) -> Vec<String> {
        let of_shard = |shard| [self.queries.requests(shard), self.queries.durations(shard)];
        let heavy = self.shards.iter().flat_map(of_shard);
        heavy.chain([self.queries.changing(), self.queries.coverage()]).collect()
    }

    /// How many cycles fit into memory, and into one answer. Whoever wants more asks several times.
    pub fn cycles_at_once(&self) -> usize {
        self.cells.map_or(FIRST_CYCLES, |cells| (MOST_CELLS / cells.max(1)).clamp(1, MOST_CYCLES))
    }

    /// And if each is handed over before the next is made.
    pub(super) async fn cycles_in_a_row(&mut self, at: Timestamp) -> Result<usize, ObserveError> {
        let cells = self.api.number(&self.queries.cells(), at).await?;
        Ok((MOST_PACKED / cells.max(1) as usize).clamp(1, MOST_CYCLES))
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
        let mut targets = Vec::new();
        let names = &self.settings.labels.target;
        self.api
            .instant(&self.queries.some_targets(), at, Kind::Vector, &mut |row| {
                let label = |name: &String| row.get(name).map(|value| (name.clone(), value.to_owned()));
                targets.push(names.iter().filter_map(label).collect::<Vec<_>>());
            })
            .await?;
        let mut gaps_s = Vec::new();
        for target in targets {
            let query = self.queries.samples_of(&target);
            self.api
                .instant(&query, at, Kind::Matrix, &mut |row| {
                    let times: Vec<f64> = row.samples().map(|(time, _)| time).collect();
                    gaps_s.extend(times.windows(2).map(|pair| pair[1] - pair[0]));
                })
                .await?;
        }
        gaps_s.sort_by(f64::total_cmp);
        Ok(gaps_s.get(gaps_s.len() / 2).map(|gap| Period::from_secs((gap.round() as i64).max(1))))
    }

    /// CPU that pods used lately; nothing where no container is counted.
    pub async fn cpu_use(&mut self, at: Timestamp) -> Result<Option<CpuUse>, ObserveError> {
        let mut pods = BTreeMap::new();
        let mut take = |row: &Row<'_>| {
            let label = |name: &str| row.get(name).map(str::to_owned);
            let id = || Some(PodId { namespace: label("namespace")?, name: label("pod")? });
            let used = row.value().map(|cores| (1e3 * cores).max(0.0).round() as u64);
            pods.extend(id().zip(used));
        };
        self.api.instant(&self.queries.cpu(), at, Kind::Vector, &mut take).await?;
        Ok((!pods.is_empty()).then_some(CpuUse { seen_at: at, pods }))
    }

    /// What there is to see at `at`.
    pub async fn inspect(&mut self, at: Timestamp) -> Result<Inspection, ObserveError> {
        let scrape_interval = self.scrape_interval(at).await?;
        let reading = Reading { settings: &self.settings, places: &self.places };
        let mut by_zone: BTreeMap<String, f64> = BTreeMap::new();
        let warnings = self
            .api
            .instant(&self.queries.rate_by_zone(), at, Kind::Vector, &mut |row| {
                let zone = reading.zone(row).unwrap_or_default().to_owned();
                *by_zone.entry(zone).or_default() += row.value().unwrap_or(0.0);
            })
            .await?;
        let zones = by_zone.into_iter().collect();
        let mut services = BTreeSet::new();
        self.api
            .instant(&self.queries.services(), at, Kind::Vector, &mut |row| {
                let service = decode::service(row, reading.settings);
                services.extend(service.map(|(namespace, name)| ServiceId::new(namespace, name)));
            })
            .await?;
        let duration_series = self.api.number(&self.queries.duration_series(), at).await?;
        let copies = self.api.number(&self.queries.copies(), at).await? as u32;
        Ok(Inspection { scrape_interval, zones, services, duration_series, copies, warnings })
    }

    /// One stretch, in halves if need be, and a single cycle by parts of the services. Hands over its snapshots in order;
    /// before that, asks for what begins the next one.
    pub(super) async fn stretch(
        &mut self,
        queries: &Queries,
        all: Stretch,
        next: Option<(&Queries, Stretch)>,
        take: &mut (dyn FnMut(Snapshot) + Send),
    ) -> Result<(), ObserveError> {
        let Stretch { first, cycles, cycle } = all;
        let mut pieces = vec![(first, cycles)];
        let usual = self.shards.clone();
        while let Some((first, cycles)) = pieces.pop() {
            let next = next.filter(|_| pieces.is_empty());
            match self.read(queries, Stretch { first, cycles, cycle }, next, take).await {
                Ok(()) => {}
                Err(ApiError::TooLarge { .. } | ApiError::Refused(_)) if cycles > 1 => {
                    let half = cycles / 2;
                    pieces.push((first + cycle.signed() * half as i32, cycles - half));
                    pieces.push((first, half));
                }
                Err(ApiError::TooLarge { .. }) if self.split(MOST_SHARDS) => pieces.push((first, cycles)),
                Err(ApiError::Refused(_)) if self.split(MOST_SHARDS_IF_REFUSED) => pieces.push((first, cycles)),
                Err(error) => {
                    self.shards = usual;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Makes parts smaller, unless there are so many.
    fn split(&mut self, most: usize) -> bool {
        if 2 * self.shards.len() > most {
            return false;
        }
        let halves = |shard: &Shard| shard.split().map_or_else(|| vec![shard.clone()], Vec::from);
        self.shards = self.shards.iter().flat_map(halves).collect();
        true
    }

    /// Lets Prometheus work on what is to be observed next, while what was observed last is judged.
    pub fn ask_ahead(&mut self, first: Timestamp, last: Timestamp) {
        let next = self.next_stretch(first, last).map(|next| (&self.queries, next));
        self.ahead = begin(&self.api, &self.shards, next);
    }

    fn next_stretch(&self, first: Timestamp, last: Timestamp) -> Option<Stretch> {
        let (cycle, first) = (self.cycle, self.cycle.at_or_after(first));
        let left = (last.as_second() - first.as_second()).div_euclid(cycle.seconds()) + 1;
        (left > 0).then(|| Stretch { first, cycles: self.cycles_at_once().min(left as usize), cycle })
    }

    /// While an answer is read, Prometheus works on the next one.
    async fn read(
        &mut self,
        queries: &Queries,
        stretch: Stretch,
        next: Option<(&Queries, Stretch)>,
        take: &mut (dyn FnMut(Snapshot) + Send),
    ) -> Result<(), ApiError> {
        let begun = self.ahead.take().filter(|(begun, _)| *begun == stretch);
        let mut asked = begun.map(|(_, asked)| asked).unwrap_or_default();
        let Self { api, settings, places, shards, .. } = self;
        let parts = parts(queries, shards);
        let mut builder = Builder::new(stretch, Reading { settings, places });
        let (mut changing, name) = (BTreeSet::new(), settings.labels.target.last().map_or("", String::as_str));
        let mut warnings = Vec::new();
        for (nth, (part, _)) in parts.iter().enumerate() {
            for (_, query) in parts.iter().take(nth + 2).skip(nth + asked.len()) {
                asked.push_back(api.ask(query.clone(), stretch)?);
            }
            let Some(this) = asked.pop_front() else { break };
            let mut note = |row: &Row<'_>| match part {
                Part::Durations => builder.buckets(row),
                Part::Requests => builder.rates(row),
                Part::Coverage => builder.proxies(row),
                Part::Changing => {
                    changing.insert(row.label(name).to_owned());
                }
            };
            warnings.extend(api.answer(this, &mut note).await?);
        }
        if !changing.is_empty() {
            let query = queries.newcomers((changing.len() <= MOST_CHANGING).then_some(&changing));
            warnings.extend(api.range(query, stretch, &mut |row| builder.counts(row)).await?);
        }
        warnings.sort();
        warnings.dedup();
        let snapshots = builder.finish(&warnings);
        self.ahead = begin(api, shards, next);
        for mut snapshot in snapshots {
            snapshot.gaps.extend(self.unfit.clone());
            let cells = snapshot.cells.values().map(BTreeMap::len).sum();
            self.cells = Some(cells).filter(|cells| *cells > 0).or(self.cells);
            take(snapshot);
        }
        Ok(())
    }
}

/// Of which stretch, and what was asked for it so far.
type Ahead = Option<(Stretch, VecDeque<Asked>)>;

/// What can't be asked now is asked when it is its turn.
fn begin(api: &Api, shards: &[Shard], next: Option<(&Queries, Stretch)>) -> Ahead {
    let (queries, stretch) = next?;
    let first = parts(queries, shards).into_iter().take(MOST_AHEAD);
    Some((stretch, first.map_while(|(_, query)| api.ask(query, stretch).ok()).collect()))
}

/// What is asked for a stretch, one after the other.
fn parts(queries: &Queries, shards: &[Shard]) -> Vec<(Part, String)> {
    let of_shard = |shard| [(Part::Durations, queries.durations(shard)), (Part::Requests, queries.requests(shard))];
    let of_all = [(Part::Changing, queries.changing()), (Part::Coverage, queries.coverage())];
    shards.iter().flat_map(of_shard).chain(of_all).collect()
}

#[derive(Clone, Copy)]
enum Part {
    Durations,
    Requests,
    Changing,
    Coverage,
}

#[async_trait]
impl Observer for PrometheusObserver {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        let mut snapshots = Vec::new();
        let queries = self.queries.clone();
        let mut next = first;
        while let Some(stretch) = self.next_stretch(next, last) {
            self.stretch(&queries, stretch, None, &mut |snapshot| snapshots.push(snapshot)).await?;
            next = stretch.first + self.cycle.signed() * stretch.cycles as i32;
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
