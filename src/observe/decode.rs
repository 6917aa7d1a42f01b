//! From Prometheus' rows to snapshots.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use prometheus_http_query::response::RangeVector;

use super::queries::{CODE_LABELS, REQUESTS, UP_LABEL};
use super::settings::{Settings, ZoneFrom};
use crate::domain::cluster::{Place, PodId};
use crate::domain::observation::coverage_gaps;
use crate::domain::{Calls, CycleLength, Gap, Histogram, ServiceId, Snapshot, Zone};

/// Rows of the queries of one stretch.
pub(super) struct Rows {
    pub served: Vec<RangeVector>,
    pub called: Vec<RangeVector>,
    pub durations: Vec<RangeVector>,
    pub coverage: Vec<RangeVector>,
    pub copies: Vec<RangeVector>,
    pub warnings: Vec<String>,
}

/// The cycles of one stretch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub first: Timestamp,
    pub cycles: usize,
    pub cycle: CycleLength,
    /// Sample times are this much earlier than the cycles they stand for.
    pub offset_s: f64,
}

impl Stretch {
    fn index(&self, sample_time_s: f64) -> Option<usize> {
        let since = sample_time_s + self.offset_s - self.first.as_second() as f64;
        let index = (since / self.cycle.as_secs_f64()).round();
        (index >= 0.0 && index < self.cycles as f64).then_some(index as usize)
    }

    fn time(&self, index: usize) -> Timestamp {
        self.first + self.cycle.signed() * index as i32
    }

    pub fn values<'a>(&'a self, row: &'a RangeVector) -> impl Iterator<Item = (usize, f64)> + 'a {
        row.samples()
            .iter()
            .filter_map(|sample| self.index(sample.timestamp()).map(|index| (index, sample.value())))
            .filter(|(_, value)| value.is_finite())
    }
}

pub(super) fn label<'a>(row: &'a RangeVector, name: &str) -> &'a str {
    row.metric().get(name).map_or("", String::as_str)
}

/// Where pods are, by namespace and name.
pub(super) type Places = BTreeMap<PodId, Place>;

/// How rows are to be understood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    pub settings: &'a Settings,
    pub places: &'a Places,
}

impl Reading<'_> {
    /// The zone a row is of; empty or `unknown` is none, and so is that of a pod that nobody knows.
    pub fn zone<'r>(&self, get: impl Fn(&str) -> Option<&'r String>) -> Option<Zone> {
        match self.settings.zone_from {
            ZoneFrom::Node => self.place(get).map(|place| place.zone.clone()),
            ZoneFrom::Label => {
                let name = get(&self.settings.labels.zone)?;
                (!name.is_empty() && name != "unknown").then(|| Zone::new(name))
            }
        }
    }

    pub fn place<'r>(&self, get: impl Fn(&str) -> Option<&'r String>) -> Option<&Place> {
        let [namespace, pod] = self.settings.labels.target.as_slice() else { return None };
        self.places.get(&PodId { namespace: get(namespace)?.clone(), name: get(pod)?.clone() })
    }
}

/// The service a row is of. What Istio could not attribute to a service is none.
pub(super) fn service<'a>(get: impl Fn(&str) -> Option<&'a String>, settings: &Settings) -> Option<ServiceId> {
    const UNATTRIBUTED: [&str; 5] =
        ["", "unknown", "PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"];
    let label = |name: &str| get(name).map_or("", String::as_str);
    let name = label(&settings.labels.service);
    let id = || ServiceId::new(label(&settings.labels.service_namespace), name);
    (!UNATTRIBUTED.contains(&name)).then(id)
}

pub(super) fn is_failure(row: &RangeVector, service: &ServiceId, settings: &Settings) -> bool {
    let [code, grpc, flags] = CODE_LABELS.map(|name| label(row, name));
    settings.services.failures_of(service).is_failure(code, grpc, flags)
}

pub(super) fn snapshots(rows: &Rows, stretch: Stretch, reading: Reading<'_>) -> Vec<Snapshot> {
    let settings = reading.settings;
    let mut snapshots: Vec<Snapshot> = (0..stretch.cycles)
        .map(|i| Snapshot {
            time: stretch.time(i),
            cells: BTreeMap::new(),
            coverage: BTreeMap::new(),
            gaps: Vec::new(),
            cluster: None,
        })
        .collect();
    fill_calls(&mut snapshots, &rows.served, stretch, reading, |cell| &mut cell.served);
    fill_calls(&mut snapshots, &rows.called, stretch, reading, |cell| &mut cell.called);
    fill_durations(&mut snapshots, &rows.durations, stretch, reading);
    for row in &rows.coverage {
        if let Some(zone) = reading.zone(|name| row.metric().get(name)) {
            let up = label(row, UP_LABEL) != "0";
            for (i, count) in stretch.values(row) {
                let coverage = snapshots[i].coverage.entry(zone.clone()).or_default();
                coverage.known += count as u32;
                coverage.up += if up { count as u32 } else { 0 };
            }
        }
    }
    let mut copies = vec![0; stretch.cycles];
    for row in &rows.copies {
        stretch.values(row).for_each(|(i, count)| copies[i] = count as u32);
    }
    let zone_of = |row: &RangeVector| reading.zone(|name| row.metric().get(name));
    let mut zoneless = vec![false; stretch.cycles];
    for row in rows.served.iter().chain(&rows.called).filter(|row| zone_of(row).is_none()) {
        stretch.values(row).for_each(|(i, _)| zoneless[i] = true);
    }
    for (i, snapshot) in snapshots.iter_mut().enumerate() {
        snapshot.gaps = gaps(snapshot, copies[i], zoneless[i], &rows.warnings, settings);
    }
    snapshots
}

fn fill_calls(
    snapshots: &mut [Snapshot],
    rows: &[RangeVector],
    stretch: Stretch,
    reading: Reading<'_>,
    field: impl Fn(&mut crate::domain::Cell) -> &mut Calls,
) {
    for row in rows {
        let get = |name: &str| row.metric().get(name);
        let (Some(zone), Some(service)) = (reading.zone(get), service(get, reading.settings)) else { continue };
        let failed = is_failure(row, &service, reading.settings);
        for (i, count) in stretch.values(row) {
            let cells = snapshots[i].cells.entry(service.clone()).or_default();
            *field(cells.entry(zone.clone()).or_default()) +=
                Calls { total: count, failed: if failed { count } else { 0.0 } };
        }
    }
}

fn fill_durations(snapshots: &mut [Snapshot], rows: &[RangeVector], stretch: Stretch, reading: Reading<'_>) {
    let mut buckets: BTreeMap<(ServiceId, Zone), Vec<CumulativeBuckets>> = BTreeMap::new();
    for row in rows {
        let get = |name: &str| row.metric().get(name);
        let (Some(zone), Some(service)) = (reading.zone(get), service(get, reading.settings)) else { continue };
        let Ok(edge) = label(row, "le").parse::<f64>() else { continue };
        let of_cell = buckets.entry((service, zone)).or_insert_with(|| vec![Vec::new(); stretch.cycles]);
        for (i, count) in stretch.values(row) {
            // Of several proxies, which come one by one where the zone is looked up.
            match of_cell[i].iter_mut().find(|(known, _)| known.total_cmp(&edge).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => of_cell[i].push((edge, count)),
            }
        }
    }
    for ((service, zone), by_cycle) in buckets {
        for (snapshot, cumulative) in snapshots.iter_mut().zip(by_cycle) {
            if !cumulative.is_empty() {
                let cells = snapshot.cells.entry(service.clone()).or_default();
                cells.entry(zone.clone()).or_default().latency = Histogram::from_cumulative(&cumulative);
            }
        }
    }
}

/// No region has so many; a label with more is not one of zones.
const MOST_ZONES: usize = 16;

/// Counts of one cycle by upper edge in milliseconds.
type CumulativeBuckets = Vec<(f64, f64)>;

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
