//! What is plotted of a decision: one measure, zone by zone, cycle by cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::overview::Series;
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
    /// How much more of a signal than expected, as the detector saw it.
    Excess(Signal),
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
            // No snapshot alone tells.
            Self::Excess(_) => None,
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
    /// What shows one piece of evidence. Latency as a whole takes several figures, unless in brief.
    pub fn of_evidence(
        item: &Evidence,
        zone: Option<&Zone>,
        moment: Timestamp,
        past: &[Arc<Sight>],
        brief: bool,
    ) -> Vec<Self> {
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
            let judged = past.iter().map(|s| &s.snapshot).filter(|s| judged_from < s.time && s.time <= moment);
            let (first, over_ms) = match (service, zone) {
                (Some(service), Some(zone)) => slow_bucket(judged, service, zone, item.seen),
                _ => (slow_buckets(&usual, share), None),
            };
            vec![figure(Measure::Slower(first), Some(item.expected), over_ms)]
        };
        let figures = match item.signal {
            Signal::ServerErrors | Signal::ClientErrors => {
                vec![figure(Measure::Failed(item.vantage), Some(item.expected), None)]
            }
            // All clients lose alike; each card also shows how much each zone answers.
            Signal::LostCalls => vec![figure(Measure::Failed(item.vantage), None, None)],
            Signal::SlowRequests => slower(SLOW_SHARE),
            Signal::VerySlowRequests => slower(VERY_SLOW_SHARE),
            Signal::Latency => {
                let mut before = Histogram::default();
                for snapshot in &usual {
                    zone.iter().for_each(|zone| before.add(&latency(snapshot, zone, service)));
                }
                let shares = QUANTILES.iter().take(if brief { 1 } else { QUANTILES.len() });
                shares.map(|share| figure(Measure::Quantile(*share), quantile(&before, *share), None)).collect()
            }
        };
        figures.into_iter().map(|figure| figure.filled(past)).collect()
    }

    /// What shows how much a zone does, or how much of it is seen.
    pub fn of_zone(
        measure: Measure,
        service: Option<&ServiceId>,
        zone: Option<&Zone>,
        moment: Timestamp,
        past: &[Arc<Sight>],
    ) -> Self {
        let (service, zone) = (service.cloned(), zone.cloned());
        let points = Vec::new();
        Self { measure, service, zone, expected: None, over_ms: None, moment, judged_from: None, points }.filled(past)
    }

    /// What the detector itself has seen of a piece of evidence, cycle by cycle.
    pub fn of_series(series: &Series) -> Self {
        let item = &series.evidence;
        let moment = series.excess.last().map_or(Timestamp::UNIX_EPOCH, |(time, _)| *time);
        Self {
            measure: Measure::Excess(item.signal),
            service: item.service.clone(),
            zone: Some(series.zone.clone()),
            expected: None,
            over_ms: None,
            moment,
            judged_from: Some(moment - item.window.signed()),
            points: series.excess.clone(),
        }
    }

    fn filled(mut self, past: &[Arc<Sight>]) -> Self {
        past.iter().for_each(|sight| self.follow(&sight.snapshot));
        self
    }

    /// Takes in one more cycle.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let known = match &self.service {
            Some(service) => snapshot.cells.get(service).into_iter().flat_map(BTreeMap::keys).collect(),
            None => zones(snapshot),
        };
        let (own, peers): (Vec<&Zone>, Vec<&Zone>) =
            known.into_iter().partition(|zone| self.zone.as_ref() == Some(*zone));
        let shown = own.into_iter().chain(peers).take(MOST_ZONES);
        let value = |zone: &Zone| self.measure.of(snapshot, zone, self.service.as_ref());
        let values = shown.filter_map(|zone| value(zone).map(|value| (zone.clone(), value))).collect();
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
    let of_zone = move |(id, zones): (&'a ServiceId, &'a BTreeMap<Zone, Cell>)| zones.get(zone).map(|cell| (id, cell));
    let one = service.and_then(|service| snapshot.cells.get_key_value(service));
    let all = service.is_none().then(|| snapshot.cells.iter());
    one.into_iter().chain(all.into_iter().flatten()).filter_map(of_zone)
}

fn latency(snapshot: &Snapshot, zone: &Zone, service: Option<&ServiceId>) -> Histogram {
    let mut sum = Histogram::default();
    cells(snapshot, zone, service).for_each(|(_, cell)| sum.add(&cell.latency));
    sum
}

/// Linear inside a bucket, as Prometheus estimates it; the last finite edge where it lies beyond.
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

/// The bucket from which on requests count as slow: the detector's is the one that shows what it saw. And its edge.
fn slow_bucket<'a>(
    judged: impl Iterator<Item = &'a Snapshot>,
    service: &ServiceId,
    zone: &Zone,
    seen: f64,
) -> (BTreeMap<ServiceId, usize>, Option<f64>) {
    let mut sum = Histogram::default();
    judged.for_each(|snapshot| sum.add(&latency(snapshot, zone, Some(service))));
    match nearest(&sum, |share| (share - seen).abs()) {
        Some(bucket) => ([(service.clone(), bucket)].into(), sum.edges_ms.get(bucket - 1).copied()),
        None => (BTreeMap::new(), None),
    }
}

/// The same by service: over the edge that a share nearest to the wanted one passed before, all zones together.
fn slow_buckets(usual: &[&Snapshot], share: f64) -> BTreeMap<ServiceId, usize> {
    let mut before: BTreeMap<&ServiceId, Histogram> = BTreeMap::new();
    for (id, cell) in usual.iter().flat_map(|s| &s.cells).flat_map(|(id, zones)| zones.values().map(move |c| (id, c))) {
        before.entry(id).or_default().add(&cell.latency);
    }
    let far = |slower: f64| (slower.max(1e-5) / share).ln().abs();
    before.into_iter().filter_map(|(id, sum)| nearest(&sum, far).map(|bucket| (id.clone(), bucket))).collect()
}

/// The bucket from which on the share of requests is least far off.
fn nearest(histogram: &Histogram, far: impl Fn(f64) -> f64) -> Option<usize> {
    let all = histogram.counts.iter().sum::<f64>().max(1.0);
    let off = |bucket: &usize| far(histogram.counts.iter().skip(*bucket).sum::<f64>() / all);
    (1..histogram.counts.len()).min_by(|a, b| off(a).total_cmp(&off(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_inside_its_bucket_and_never_beyond_the_last_finite_edge() {
        let histogram = Histogram { edges_ms: [10.0, 20.0, f64::INFINITY].into(), counts: vec![50.0, 40.0, 10.0] };
        assert_eq!(quantile(&histogram, 0.5), Some(10.0));
        assert_eq!(quantile(&histogram, 0.7), Some(15.0));
        assert_eq!(quantile(&histogram, 0.99), Some(20.0));
        assert_eq!(quantile(&Histogram::default(), 0.5), None);
    }
}
