//! From Prometheus' rows to snapshots, row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::queries::{CODE_LABELS, REQUESTS, UP_LABEL};
use super::settings::{Settings, ZoneFrom};
use super::stream::Row;
use crate::domain::cluster::{Place, PodId};
use crate::domain::observation::coverage_gaps;
use crate::domain::{Calls, Cell, CycleLength, Gap, Histogram, ServiceId, Snapshot, Zone};

/// The cycles of one stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub first: Timestamp,
    pub cycles: usize,
    pub cycle: CycleLength,
}

impl Stretch {
    fn index(&self, sample_time_s: f64) -> Option<usize> {
        let index = ((sample_time_s - self.first.as_second() as f64) / self.cycle.as_secs_f64()).round();
        (index >= 0.0 && index < self.cycles as f64).then_some(index as usize)
    }

    fn time(&self, index: usize) -> Timestamp {
        self.first + self.cycle.signed() * index as i32
    }

    pub fn values<'a>(&'a self, row: &'a Row<'_>) -> impl Iterator<Item = (usize, f64)> + 'a {
        row.samples()
            .filter_map(|(time, value)| self.index(time).map(|index| (index, value)))
            .filter(|(_, value)| value.is_finite())
    }
}

/// Where pods are, by namespace and name.
pub(super) type Places = BTreeMap<PodId, Place>;

/// How rows are to be understood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    pub settings: &'a Settings,
    pub places: &'a Places,
}

impl<'a> Reading<'a> {
    /// The zone a row is of; empty or `unknown` is none, and so is that of a pod that nobody knows.
    pub fn zone<'r>(&self, row: &'r Row<'_>) -> Option<&'r str>
    where
        'a: 'r,
    {
        match self.settings.zone_from {
            ZoneFrom::Node => self.place(row).map(|place| place.zone.as_str()),
            ZoneFrom::Label => {
                row.get(&self.settings.labels.zone).filter(|name| !name.is_empty() && *name != "unknown")
            }
        }
    }

    pub fn place(&self, row: &Row<'_>) -> Option<&'a Place> {
        let [namespace, pod] = self.settings.labels.target.as_slice() else { return None };
        self.places.get(&PodId { namespace: row.get(namespace)?.to_owned(), name: row.get(pod)?.to_owned() })
    }
}

/// Namespace and name of the service a row is of. What Istio could not attribute to a service is none.
pub(super) fn service<'r>(row: &'r Row<'_>, settings: &Settings) -> Option<(&'r str, &'r str)> {
    const UNATTRIBUTED: [&str; 5] =
        ["", "unknown", "PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"];
    let name = row.label(&settings.labels.service);
    (!UNATTRIBUTED.contains(&name)).then(|| (row.label(&settings.labels.service_namespace), name))
}

pub(super) fn is_failure(row: &Row<'_>, service: &ServiceId, settings: &Settings) -> bool {
    let [code, grpc, flags] = CODE_LABELS.map(|name| row.label(name));
    settings.services.failures_of(service).is_failure(code, grpc, flags)
}

/// Of rates, whose sum is a whole number but for what dividing and adding up have cost.
fn counted(rate: f64, cycle: CycleLength) -> f64 {
    const PRECISION: f64 = 1e6;
    (rate * cycle.as_secs_f64() * PRECISION).round() / PRECISION
}

/// One service in one zone, by cycle, while rows come: packed, as these are many.
struct Growing {
    zone: Zone,
    seen: Vec<bool>,
    served: Vec<PackedCalls>,
    called: Vec<PackedCalls>,
    /// By edge, in the order in which edges were first seen, and by cycle: cumulative, those that are not there being no
    /// number.
    buckets: Vec<Vec<f32>>,
}

/// Four bytes hold counts exactly up to sixteen million.
#[derive(Clone, Copy, Default)]
struct PackedCalls {
    total: f32,
    failed: f32,
}

impl PackedCalls {
    fn add(&mut self, count: f64, failed: bool) {
        self.total += count as f32;
        self.failed += if failed { count as f32 } else { 0.0 };
    }

    fn calls(self) -> Calls {
        Calls { total: self.total.into(), failed: self.failed.into() }
    }
}

/// One service, by zone.
struct GrowingService {
    id: ServiceId,
    zones: Vec<Growing>,
}

/// Turns the rows of a stretch into snapshots.
pub(super) struct Builder<'a> {
    stretch: Stretch,
    reading: Reading<'a>,
    services: Vec<GrowingService>,
    known: BTreeMap<ServiceId, usize>,
    /// The service of the row before: rows come sorted.
    newest: usize,
    edges_ms: Vec<f64>,
    coverage: Vec<BTreeMap<Zone, crate::domain::observation::Coverage>>,
    copies: Vec<u32>,
    zoneless: Vec<bool>,
}

impl<'a> Builder<'a> {
    pub fn new(stretch: Stretch, reading: Reading<'a>) -> Self {
        Self {
            stretch,
            reading,
            services: Vec::new(),
            known: BTreeMap::new(),
            newest: 0,
            edges_ms: Vec::new(),
            coverage: vec![BTreeMap::new(); stretch.cycles],
            copies: vec![0; stretch.cycles],
            zoneless: vec![false; stretch.cycles],
        }
    }

    /// A row of requests, as a rate.
    pub fn rates(&mut self, row: &Row<'_>) {
        self.calls(row, counted);
    }

    /// A row of requests, as a count.
    pub fn counts(&mut self, row: &Row<'_>) {
        self.calls(row, |value, _| value);
    }

    fn calls(&mut self, row: &Row<'_>, count: impl Fn(f64, CycleLength) -> f64) {
        let stretch = self.stretch;
        let Some(zone) = self.reading.zone(row) else {
            stretch.values(row).for_each(|(i, _)| self.zoneless[i] = true);
            return;
        };
        let settings = self.reading.settings;
        let Some(service) = service(row, settings) else { return };
        let of_service = self.service(service);
        let failed = is_failure(row, &of_service.id, settings);
        let server = row.label("reporter") == "destination";
        let growing = of_service.zone(zone, stretch.cycles);
        let calls = if server { &mut growing.served } else { &mut growing.called };
        for (i, value) in stretch.values(row) {
            growing.seen[i] = true;
            calls[i].add(count(value, stretch.cycle), failed);
        }
    }

    /// A row of durations up to an edge, as a rate.
    pub fn buckets(&mut self, row: &Row<'_>) {
        let stretch = self.stretch;
        let Some(zone) = self.reading.zone(row) else { return };
        let Some(service) = service(row, self.reading.settings) else { return };
        let Ok(edge) = row.label("le").parse::<f64>() else { return };
        let at = self.edge(edge);
        let growing = self.service(service).zone(zone, stretch.cycles);
        while growing.buckets.len() <= at {
            growing.buckets.push(vec![f32::NAN; stretch.cycles]);
        }
        for (i, rate) in stretch.values(row) {
            growing.seen[i] = true;
            // Of several proxies, which come one by one where the zone is looked up.
            let known = &mut growing.buckets[at][i];
            *known = if known.is_nan() { 0.0 } else { *known } + counted(rate, stretch.cycle) as f32;
        }
    }

    /// A row of proxies that answered, or did not.
    pub fn proxies(&mut self, row: &Row<'_>) {
        let Some(zone) = self.reading.zone(row) else { return };
        let state = row.label(UP_LABEL).parse::<f64>().unwrap_or(0.0) as u32;
        let (copies, up) = (state / 100, !state.is_multiple_of(100));
        for (i, count) in self.stretch.values(row) {
            let coverage = self.coverage[i].entry(Zone::new(zone)).or_default();
            coverage.known = coverage.known.saturating_add(count as u32);
            coverage.up = coverage.up.saturating_add(if up { count as u32 } else { 0 });
            self.copies[i] = self.copies[i].max(copies);
        }
    }

    fn service(&mut self, (namespace, name): (&str, &str)) -> &mut GrowingService {
        let is_it = |it: &GrowingService| it.id.name == name && it.id.namespace == namespace;
        if !self.services.get(self.newest).is_some_and(is_it) {
            let id = ServiceId::new(namespace, name);
            let services = &mut self.services;
            self.newest = *self.known.entry(id.clone()).or_insert_with(|| {
                services.push(GrowingService { id, zones: Vec::new() });
                services.len() - 1
            });
        }
        &mut self.services[self.newest]
    }

    fn edge(&mut self, edge: f64) -> usize {
        let known = self.edges_ms.iter().position(|known| known.total_cmp(&edge).is_eq());
        known.unwrap_or_else(|| {
            self.edges_ms.push(edge);
            self.edges_ms.len() - 1
        })
    }

    /// One after the other, so that they need not all be held.
    pub fn finish(mut self, warnings: &[String]) -> impl Iterator<Item = Snapshot> {
        self.services.sort_by(|a, b| a.id.cmp(&b.id));
        let mut edges = SharedEdges::new(std::mem::take(&mut self.edges_ms));
        (0..self.stretch.cycles).map(move |i| {
            let of_service = |service: &GrowingService| {
                let cell = |zone: &Growing| {
                    let latency = edges.histogram(|at| zone.buckets.get(at).map(|counts| f64::from(counts[i])));
                    (
                        zone.zone.clone(),
                        Cell { served: zone.served[i].calls(), called: zone.called[i].calls(), latency },
                    )
                };
                let cells: BTreeMap<Zone, Cell> = service.zones.iter().filter(|zone| zone.seen[i]).map(cell).collect();
                (!cells.is_empty()).then(|| (service.id.clone(), cells))
            };
            let mut snapshot = Snapshot {
                time: self.stretch.time(i),
                cells: self.services.iter().filter_map(of_service).collect(),
                coverage: std::mem::take(&mut self.coverage[i]),
                gaps: Vec::new(),
                cluster: None,
            };
            snapshot.gaps = gaps(&snapshot, self.copies[i], self.zoneless[i], warnings, self.reading.settings);
            snapshot
        })
    }
}

impl GrowingService {
    fn zone(&mut self, name: &str, cycles: usize) -> &mut Growing {
        let known = self.zones.iter().position(|growing| growing.zone.as_str() == name);
        let at = known.unwrap_or_else(|| {
            self.zones.push(Growing {
                zone: Zone::new(name),
                seen: vec![false; cycles],
                served: vec![PackedCalls::default(); cycles],
                called: vec![PackedCalls::default(); cycles],
                buckets: Vec::new(),
            });
            self.zones.len() - 1
        });
        &mut self.zones[at]
    }
}

/// Bucket edges, each kept once, for all the histograms that have them.
struct SharedEdges {
    /// As they were first seen.
    edges_ms: Vec<f64>,
    /// Of the smallest, and so on: where it is.
    order: Vec<usize>,
    shared: Vec<Arc<[f64]>>,
}

impl SharedEdges {
    fn new(edges_ms: Vec<f64>) -> Self {
        let mut order: Vec<usize> = (0..edges_ms.len()).collect();
        order.sort_by(|a, b| edges_ms[*a].total_cmp(&edges_ms[*b]));
        Self { edges_ms, order, shared: Vec::new() }
    }

    /// From cumulative counts.
    fn histogram(&mut self, cumulative: impl Fn(usize) -> Option<f64>) -> Histogram {
        let of = |at: &usize| cumulative(*at).filter(|count| !count.is_nan());
        let there = || self.order.iter().filter_map(|at| of(at).map(|count| (self.edges_ms[*at], count)));
        let mut below = 0.0;
        let mut counts = Vec::with_capacity(self.order.len());
        for (_, count) in there() {
            if count < below {
                return Histogram::default();
            }
            counts.push(count - below);
            below = count;
        }
        let same =
            |known: &&Arc<[f64]>| known.len() == counts.len() && known.iter().copied().eq(there().map(|it| it.0));
        let shared = self.shared.iter().find(same).cloned();
        let edges_ms = shared.unwrap_or_else(|| {
            let edges_ms: Arc<[f64]> = there().map(|(edge, _)| edge).collect();
            self.shared.push(Arc::clone(&edges_ms));
            edges_ms
        });
        Histogram { edges_ms, counts }
    }
}

/// No region has so many; a label with more is not one of zones.
const MOST_ZONES: usize = 16;

/// Why the cycle can't be judged, in whole or in part.
fn gaps(snapshot: &Snapshot, copies: u32, zoneless: bool, warnings: &[String], settings: &Settings) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = warnings.iter().map(|why| Gap::PartialAnswer { why: why.clone() }).collect();
    if copies > 1 {
        gaps.push(Gap::DuplicatedTargets { copies });
    }
    let zones: BTreeSet<&Zone> = snapshot.cells.values().flat_map(BTreeMap::keys).collect();
    if zones.is_empty() && snapshot.coverage.is_empty() && !zoneless {
        gaps.push(Gap::NoRequests { metric: REQUESTS.to_owned() });
        return gaps;
    }
    if zones.len() < 2 {
        let zones = zones.into_iter().cloned().collect();
        gaps.push(Gap::TooFewZones { zones, label: settings.labels.zone.clone() });
        return gaps;
    }
    if zones.len() > MOST_ZONES {
        gaps.push(Gap::TooManyZones { zones: zones.len(), label: settings.labels.zone.clone() });
        return gaps;
    }
    gaps.extend(coverage_gaps(zones.into_iter(), &snapshot.coverage, settings.min_coverage));
    gaps
}
