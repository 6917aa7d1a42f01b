//! What users would otherwise reach for, on the very same snapshots: static thresholds, and the chi-squared test that
//! AWS describes for availability zones, alone and with its alarm of impact.
//!
//! They look at servers only, per service; a zone is isolated on a rising edge, which five quiet minutes re-arm.

use statrs::distribution::{ChiSquared, ContinuousCDF};
use zoneward::domain::{Cell, Histogram, Snapshot};

use super::scenario::Scenario;

const QUIET_S: f64 = 300.0;
const MINUTE_S: f64 = 60.0;
/// Least share of failures, and how many times the usual, that static thresholds take for a fault.
const ERROR_LIMIT: f64 = 0.01;
const TIMES_USUAL: f64 = 2.0;

/// A decision to isolate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    pub at_s: f64,
    pub zone: usize,
}

/// What the methods read of one service in one zone.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    requests: f64,
    failed: f64,
    answered: f64,
    duration_ms: f64,
}

/// The cycles of a scenario, as these methods see them.
pub struct Signals<'a> {
    scenario: &'a Scenario,
    /// By cycle, service and zone.
    cycles: Vec<Vec<Vec<Seen>>>,
}

impl<'a> Signals<'a> {
    pub const fn new(scenario: &'a Scenario) -> Self {
        Self { scenario, cycles: Vec::new() }
    }

    pub fn take(&mut self, snapshot: &Snapshot) {
        let seen = |service: &super::scenario::Service, zone| {
            snapshot.cells.get(&service.id).and_then(|zones| zones.get(zone)).map_or_else(Seen::default, Seen::of)
        };
        let zones = |service| self.scenario.zones.iter().map(|zone| seen(service, zone)).collect();
        self.cycles.push(self.scenario.services.iter().map(zones).collect());
    }

    /// Each method's name and decisions.
    pub fn decide(&self) -> Vec<(&'static str, Vec<Decision>)> {
        let outlier = self.by_minute(|services| services.iter().map(|zones| uneven(zones)).collect());
        let impact = self.by_minute(|services| {
            services
                .iter()
                .map(|zones| zones.iter().map(|it| it.failed > ERROR_LIMIT * it.requests).collect())
                .collect()
        });
        let (outlier, impact) = (m_of_n(&outlier, 3, 5), m_of_n(&impact, 3, 5));
        let both: Fires = zip(&outlier, &impact);
        let minute = self.per_minute() as f64 * self.cycle_s();
        vec![
            ("static", self.edges(&self.static_thresholds(), self.cycle_s())),
            ("chi-squared", self.edges(&outlier, minute)),
            ("composite", self.edges(&both, minute)),
        ]
    }

    fn cycle_s(&self) -> f64 {
        self.scenario.scrape_s as f64
    }

    fn per_minute(&self) -> usize {
        ((MINUTE_S / self.cycle_s()) as usize).max(1)
    }

    /// `increase(…[1m])` at a cycle: it spans one scrape less than the minute holds, and extrapolates.
    fn last_minute(&self, cycle: usize) -> Vec<Vec<Seen>> {
        let span = (self.per_minute() - 1).max(1);
        let scale = self.per_minute() as f64 / span as f64;
        let mut sum = vec![vec![Seen::default(); self.scenario.zones.len()]; self.scenario.services.len()];
        for seen in &self.cycles[(cycle + 1).saturating_sub(span)..=cycle] {
            for (to, from) in sum.iter_mut().flatten().zip(seen.iter().flatten()) {
                to.requests += scale * from.requests;
                to.failed += scale * from.failed;
                to.answered += scale * from.answered;
                to.duration_ms += scale * from.duration_ms;
            }
        }
        sum
    }

    fn by_minute(&self, judge: impl Fn(&[Vec<Seen>]) -> Vec<Vec<bool>>) -> Fires {
        (0..self.cycles.len()).step_by(self.per_minute()).map(|cycle| judge(&self.last_minute(cycle))).collect()
    }

    /// Failures over 1 % and twice the usual, or durations twice the usual, for a minute. gRPC's failures come under
    /// HTTP 200, which these rules don't read.
    fn static_thresholds(&self) -> Fires {
        let minutes: Vec<Vec<Vec<Seen>>> = (0..self.cycles.len()).map(|cycle| self.last_minute(cycle)).collect();
        let healthy = (self.scenario.healthy_until_s() / self.cycle_s()) as usize;
        let services = self.scenario.services.iter().enumerate();
        let usual: Vec<(f64, f64)> = services
            .map(|(index, service)| {
                let seen = || minutes.iter().take(healthy.max(1)).flat_map(|minute| &minute[index]);
                let errors = if service.grpc { 0.0 } else { median(seen().filter_map(Seen::error_share)) };
                (errors, median(seen().filter_map(Seen::mean_duration_ms)))
            })
            .collect();
        let fires = |(index, zones): (usize, &Vec<Seen>)| -> Vec<bool> {
            let (usual_errors, usual_duration_ms) = usual[index];
            let limit = ERROR_LIMIT.max(TIMES_USUAL * usual_errors);
            let http = !self.scenario.services[index].grpc;
            let fails = |it: &Seen| http && it.error_share().is_some_and(|share| share > limit);
            let slow = |it: &Seen| it.mean_duration_ms().is_some_and(|mean| mean > TIMES_USUAL * usual_duration_ms);
            zones.iter().map(|it| fails(it) || slow(it)).collect()
        };
        let all: Fires = minutes.iter().map(|minute| minute.iter().enumerate().map(fires).collect()).collect();
        let in_a_row = self.per_minute() + 1;
        m_of_n(&all, in_a_row, in_a_row)
    }

    /// Where any service fires, and the zone was quiet before.
    fn edges(&self, fires: &Fires, every_s: f64) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for zone in 0..self.scenario.zones.len() {
            let mut last_s = f64::NEG_INFINITY;
            for (at, services) in fires.iter().enumerate() {
                if services.iter().any(|zones| zones[zone]) {
                    let at_s = at as f64 * every_s + self.cycle_s();
                    if at_s - last_s > QUIET_S {
                        decisions.push(Decision { at_s, zone });
                    }
                    last_s = at_s;
                }
            }
        }
        decisions.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        decisions
    }
}

/// By evaluation, service and zone.
type Fires = Vec<Vec<Vec<bool>>>;

impl Seen {
    fn of(cell: &Cell) -> Self {
        Self {
            requests: cell.served.total,
            failed: cell.served.failed,
            answered: cell.latency.counts.iter().sum(),
            duration_ms: duration_ms(&cell.latency),
        }
    }

    fn error_share(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.failed / self.requests)
    }

    fn mean_duration_ms(&self) -> Option<f64> {
        (self.answered > 0.0).then(|| self.duration_ms / self.answered)
    }
}

/// The sum of durations, as far as buckets tell it: each counts as the middle of its bucket.
fn duration_ms(histogram: &Histogram) -> f64 {
    let mut sum = 0.0;
    let mut low = 0.0_f64;
    for (edge, count) in histogram.edges_ms.iter().zip(&histogram.counts) {
        let middle = if edge.is_finite() { (low.max(edge / 4.0) * edge).sqrt() } else { low };
        sum += count * middle;
        low = *edge;
    }
    sum
}

/// Failures that are unevenly spread (p <= 0.05), and one zone that has most of them.
fn uneven(zones: &[Seen]) -> Vec<bool> {
    let all: f64 = zones.iter().map(|it| it.failed).sum();
    let even = all / zones.len() as f64;
    let distance = |it: &Seen| (it.failed - even).abs();
    let statistic: f64 = zones.iter().map(|it| distance(it).powi(2) / even.max(1e-12)).sum();
    let skewed = ChiSquared::new((zones.len() - 1) as f64).is_ok_and(|chi| all > 0.0 && chi.sf(statistic) <= 0.05);
    let farthest = zones.iter().map(distance).fold(0.0, f64::max);
    zones.iter().map(|it| skewed && distance(it) >= farthest && it.failed > 0.5 * all).collect()
}

/// True where at least m of the last n are.
fn m_of_n(fires: &Fires, m: usize, n: usize) -> Fires {
    let Some(first) = fires.first() else { return Vec::new() };
    let mut counts = vec![vec![0_usize; first.first().map_or(0, Vec::len)]; first.len()];
    let mut out = Vec::with_capacity(fires.len());
    for (at, now) in fires.iter().enumerate() {
        let before = at.checked_sub(n).map(|old| &fires[old]);
        for (service, zones) in counts.iter_mut().enumerate() {
            for (zone, count) in zones.iter_mut().enumerate() {
                *count += usize::from(now[service][zone]);
                *count -= before.map_or(0, |old| usize::from(old[service][zone]));
            }
        }
        out.push(counts.iter().map(|zones| zones.iter().map(|count| *count >= m).collect()).collect());
    }
    out
}

fn zip(a: &Fires, b: &Fires) -> Fires {
    let zones = |(a, b): (&Vec<bool>, &Vec<bool>)| a.iter().zip(b).map(|(a, b)| *a && *b).collect();
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(zones).collect()).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return 0.0;
    }
    0.5 * (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2])
}
