//! What is plotted of a decision: one measure, zone by zone, cycle by cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::{Calls, Cell, CycleLength, Evidence, Histogram, ServiceId, Sight, Signal, Snapshot, Vantage, Zone};

/// More zones than this are not told apart by eye.
pub(super) const MOST_ZONES: usize = 12;
const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];
/// The healthy share of slow and of very slow requests, as the detector looks for them.
const SLOW_SHARE: f64 = 0.02;
const VERY_SLOW_SHARE: f64 = 0.001;

/// What is measured in one zone during one cycle.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Measure {
    /// Share of failed requests.
    Failed(Vantage),
    /// Share of requests from a bucket on, by service.
    Slower(BTreeMap<ServiceId, usize>),
    /// A quantile of request durations in milliseconds, estimated from the histogram.
    Quantile(f64),
    /// Requests answered per second.
    Traffic(CycleLength),
    /// Share of known proxies that were scraped.
    Scraped,
}

impl Measure {
    fn of(&self, snapshot: &Snapshot, zone: &Zone, service: Option<&ServiceId>) -> Option<f64> {
        match self {
            Self::Failed(vantage) => {
                let calls = cells(snapshot, zone, service).map(|(_, cell)| match vantage {
                    Vantage::Server => cell.served,
                    Vantage::Client => cell.called,
                });
                let sum = calls.fold(Calls::default(), |sum, calls| sum + calls);
                (sum.total > 0.0).then(|| sum.failed / sum.total)
            }
            Self::Slower(first) => {
                let (mut slow, mut all) = (0.0, 0.0);
                for (service, cell) in cells(snapshot, zone, service) {
                    if let Some(first) = first.get(service) {
                        slow += cell.latency.counts.iter().skip(*first).sum::<f64>();
                        all += cell.latency.counts.iter().sum::<f64>();
                    }
                }
                (all > 0.0).then(|| slow / all)
            }
            Self::Quantile(share) => quantile(&latency(snapshot, zone, service), *share),
            Self::Traffic(cycle) => {
                let served: f64 = cells(snapshot, zone, service).map(|(_, cell)| cell.served.total).sum();
                (!snapshot.cells.is_empty()).then(|| served / cycle.as_secs_f64())
            }
            Self::Scraped => snapshot.coverage.get(zone).map(|coverage| coverage.share()),
        }
    }
}

/// One measure over a while around a moment.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub measure: Measure,
    /// `None` stands for all services.
    pub service: Option<ServiceId>,
    /// The zone that it is about, unless it is about all.
    pub zone: Option<Zone>,
    /// The level that would be no news.
    pub expected: Option<f64>,
    /// For slow requests of one service, how slow.
    pub over_ms: Option<f64>,
    pub moment: Timestamp,
    /// Where the stretch begins that was judged.
    pub judged_from: Option<Timestamp>,
    pub points: Vec<(Timestamp, BTreeMap<Zone, f64>)>,
}

impl Figure {
    /// What shows one piece of evidence.
    pub fn of_evidence(item: &Evidence, zone: Option<&Zone>, moment: Timestamp, past: &[Arc<Sight>]) -> Vec<Self> {
        let judged_from = moment - item.window.signed();
        let usual: Vec<&Snapshot> = past.iter().map(|s| &s.snapshot).filter(|s| s.time <= judged_from).collect();
        let service = item.service.as_ref();
        let figure = |measure, expected, over_ms| Self {
            measure,
            service: service.cloned(),
            zone: zone.cloned(),
            expected,
            over_ms,
            moment,
            judged_from: Some(judged_from),
            points: Vec::new(),
        };
        let slower = |share| {
            let (first, over_ms) = slow_buckets(&usual, service, share);
            vec![figure(Measure::Slower(first), Some(item.expected), over_ms)]
        };
        let figures = match item.signal {
            Signal::ServerErrors | Signal::ClientErrors => {
                vec![figure(Measure::Failed(item.vantage), Some(item.expected), None)]
            }
            Signal::SlowRequests => slower(SLOW_SHARE),
            Signal::VerySlowRequests => slower(VERY_SLOW_SHARE),
            Signal::Latency => {
                let mut before = Histogram::default();
                for snapshot in &usual {
                    zone.iter().for_each(|zone| before.add(&latency(snapshot, zone, service)));
                }
                QUANTILES.map(|share| figure(Measure::Quantile(share), quantile(&before, share), None)).into()
            }
        };
        figures.into_iter().map(|figure| figure.filled(past)).collect()
    }

    /// What shows that a zone is not seen: its traffic and its scraped proxies.
    pub fn of_gap(zone: Option<&Zone>, moment: Timestamp, cycle: CycleLength, past: &[Arc<Sight>]) -> Vec<Self> {
        let figure = |measure| Self {
            measure,
            service: None,
            zone: zone.cloned(),
            expected: None,
            over_ms: None,
            moment,
            judged_from: None,
            points: Vec::new(),
        };
        [Measure::Traffic(cycle), Measure::Scraped].map(|measure| figure(measure).filled(past)).into()
    }

    fn filled(mut self, past: &[Arc<Sight>]) -> Self {
        past.iter().for_each(|sight| self.follow(&sight.snapshot));
        self
    }

    /// Takes in one more cycle.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let values = zones(snapshot).into_iter().take(MOST_ZONES).filter_map(|zone| {
            self.measure.of(snapshot, zone, self.service.as_ref()).map(|value| (zone.clone(), value))
        });
        let values = values.collect();
        self.points.push((snapshot.time, values));
    }

    /// The zones with a curve, the one that it is about first.
    pub fn zones(&self) -> Vec<&Zone> {
        let all: BTreeSet<&Zone> = self.points.iter().flat_map(|(_, values)| values.keys()).collect();
        let (own, peers): (Vec<&Zone>, Vec<&Zone>) =
            all.into_iter().partition(|zone| self.zone.as_ref() == Some(*zone));
        own.into_iter().chain(peers).collect()
    }
}

/// Every zone that a cycle knows of.
pub(super) fn zones(snapshot: &Snapshot) -> BTreeSet<&Zone> {
    snapshot.coverage.keys().chain(snapshot.cells.values().flat_map(BTreeMap::keys)).collect()
}

fn cells<'a>(
    snapshot: &'a Snapshot,
    zone: &'a Zone,
    service: Option<&'a ServiceId>,
) -> impl Iterator<Item = (&'a ServiceId, &'a Cell)> {
    let wanted = snapshot.cells.iter().filter(move |(id, _)| service.is_none_or(|service| service == *id));
    wanted.filter_map(move |(id, zones)| zones.get(zone).map(|cell| (id, cell)))
}

fn latency(snapshot: &Snapshot, zone: &Zone, service: Option<&ServiceId>) -> Histogram {
    let mut sum = Histogram::default();
    cells(snapshot, zone, service).for_each(|(_, cell)| sum.add(&cell.latency));
    sum
}

/// Linear inside a bucket, as PromQL estimates it; the last finite edge where it lies beyond.
fn quantile(histogram: &Histogram, share: f64) -> Option<f64> {
    let wanted = share * histogram.counts.iter().sum::<f64>();
    if wanted <= 0.0 {
        return None;
    }
    let (mut below, mut lower) = (0.0, 0.0);
    for (edge, count) in histogram.edges_ms.iter().zip(&histogram.counts) {
        if below + count >= wanted && *count > 0.0 {
            return Some(if edge.is_finite() { lower + (edge - lower) * (wanted - below) / count } else { lower });
        }
        below += count;
        lower = if edge.is_finite() { *edge } else { lower };
    }
    Some(lower)
}

/// The bucket from which on requests are slow, by service: over the edge that, all zones together, a share nearest to the
/// wanted one passed before. Of a single service also that edge.
fn slow_buckets(
    usual: &[&Snapshot],
    service: Option<&ServiceId>,
    share: f64,
) -> (BTreeMap<ServiceId, usize>, Option<f64>) {
    let mut before: BTreeMap<&ServiceId, Histogram> = BTreeMap::new();
    for snapshot in usual {
        for zone in zones(snapshot) {
            cells(snapshot, zone, service).for_each(|(id, cell)| before.entry(id).or_default().add(&cell.latency));
        }
    }
    let mut first = BTreeMap::new();
    let mut over_ms = None;
    for (id, histogram) in before {
        let all = histogram.counts.iter().sum::<f64>().max(1.0);
        let far = |bucket: &usize| {
            let slower = histogram.counts.iter().skip(*bucket).sum::<f64>() / all;
            (slower.max(1e-5) / share).ln().abs()
        };
        if let Some(bucket) = (1..histogram.counts.len()).min_by(|a, b| far(a).total_cmp(&far(b))) {
            over_ms = service.and(histogram.edges_ms.get(bucket - 1).copied());
            first.insert(id.clone(), bucket);
        }
    }
    (first, over_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_inside_its_bucket_and_never_beyond_the_last_finite_edge() {
        let histogram = Histogram { edges_ms: vec![10.0, 20.0, f64::INFINITY], counts: vec![50.0, 40.0, 10.0] };
        assert_eq!(quantile(&histogram, 0.5), Some(10.0));
        assert_eq!(quantile(&histogram, 0.7), Some(15.0));
        assert_eq!(quantile(&histogram, 0.99), Some(20.0));
        assert_eq!(quantile(&Histogram::default(), 0.5), None);
    }
}
