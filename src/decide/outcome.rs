//! Did an isolation help, and did the zones that are left bear it?
//!
//! Compared are the minute before it and the newest minute, each summed over services: users' failures and the mean
//! duration do not care which zone answers. What the zone itself added to them is what an isolation can take away.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::{Calls, Factor, Histogram, Isolation, Origin, Period, Ratio, Snapshot, Stage, Zone};

/// What a zone must add to be worth a judgement: failures as a share of all calls, and to the mean duration.
const LEAST_PART: Ratio = Ratio::from_percent(0.1);
const LEAST_SLOWER: f64 = 0.05;
/// Endpoints that use so much of their CPU limits are saturated.
const SATURATED: f64 = 0.95;
/// Fewer calls say nothing.
const FEWEST_CALLS: f64 = 200.0;

/// The section `rollback`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub enabled: bool,
    pub watch: Period,
    pub lasting: Period,
    pub max_error_excess: Ratio,
    pub max_slowdown: Factor,
    pub max_saturated_excess: Ratio,
    pub min_improvement: Ratio,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            watch: Period::from_mins(10),
            lasting: Period::from_mins(1),
            max_error_excess: Ratio::from_percent(2.0),
            max_slowdown: Factor::new(1.5),
            max_saturated_excess: Ratio::from_percent(20.0),
            min_improvement: Ratio::from_percent(30.0),
        }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.watch > Period::from_hours(24) {
            problems.push(("watch", format!("{} is above 24h", self.watch)));
        }
        if self.lasting.is_zero() || self.lasting > self.watch {
            problems.push(("lasting", format!("{} is outside 1s to watch ({})", self.lasting, self.watch)));
        }
        problems
    }
}

/// Calls and durations of some zones over some cycles.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    served: Calls,
    called: Calls,
    answered: f64,
    answered_ms: f64,
    /// Of the calls of whose servers' CPU something is known, those whose servers are saturated count as failed.
    saturated: Calls,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.served += other.served;
        self.called += other.called;
        self.answered += other.answered;
        self.answered_ms += other.answered_ms;
        self.saturated += other.saturated;
    }
}

/// Of each zone in one cycle.
pub fn figures(snapshot: &Snapshot) -> BTreeMap<Zone, Figures> {
    let mut zones: BTreeMap<Zone, Figures> = BTreeMap::new();
    let loads = snapshot.cluster.as_ref().and_then(|view| Some(view.loads(view.cpu_use.as_deref()?)));
    for (service, zone, cell) in
        snapshot.cells.iter().flat_map(|(id, cells)| cells.iter().map(move |(z, c)| (id, z, c)))
    {
        let (answered, answered_ms) = durations(&cell.latency);
        let load = loads.as_ref().and_then(|loads| loads.get(service)?.get(zone));
        let saturated = load.map_or_else(Calls::default, |load| Calls {
            total: cell.served.total,
            failed: if load.share() >= SATURATED { cell.served.total } else { 0.0 },
        });
        let of_zone = zones.entry(zone.clone()).or_default();
        *of_zone += Figures { served: cell.served, called: cell.called, answered, answered_ms, saturated };
    }
    zones
}

/// How many, and their sum with each in the middle of its bucket; in the last one, at its lower edge.
fn durations(histogram: &Histogram) -> (f64, f64) {
    let mut lower = 0.0;
    histogram.edges_ms.iter().zip(&histogram.counts).fold((0.0, 0.0), |(all, sum), (edge, count)| {
        let middle = if edge.is_finite() { f64::midpoint(lower, *edge) } else { lower };
        lower = *edge;
        (all + count, sum + count * middle)
    })
}

/// One zone against the others, over some cycles.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Picture {
    zone: Figures,
    others: Figures,
}

impl Picture {
    pub fn of<'a>(zone: &Zone, cycles: impl Iterator<Item = &'a BTreeMap<Zone, Figures>>) -> Self {
        let mut picture = Self::default();
        for (of, figures) in cycles.flatten() {
            let sum = if of == zone { &mut picture.zone } else { &mut picture.others };
            *sum += *figures;
        }
        picture
    }

    fn all(&self) -> Figures {
        let mut all = self.zone;
        all += self.others;
        all
    }
}

impl Figures {
    fn failures(self) -> Option<f64> {
        share(self.served)
    }

    fn failures_of_clients(self) -> Option<f64> {
        share(self.called)
    }

    fn mean_ms(self) -> Option<f64> {
        (self.answered >= FEWEST_CALLS).then(|| self.answered_ms / self.answered)
    }
}

fn share(calls: Calls) -> Option<f64> {
    (calls.total >= FEWEST_CALLS).then(|| calls.failed / calls.total)
}

/// Why an isolation should be given up, as far as the newest minute says.
///
/// Pure. What can't be compared says nothing. The newest figures are over `span`, all of which must be after the isolation.
pub fn failing(
    isolation: &Isolation,
    (before, after): (&Picture, &Picture),
    settings: &Settings,
    (now, span): (Timestamp, SignedDuration),
) -> Option<String> {
    let isolated_at = isolation.isolated_at?;
    let since = now.duration_since(isolated_at);
    let watched = since > span && since <= settings.watch.signed();
    if !settings.enabled || !watched || isolation.recovery.as_ref().is_some_and(|r| r.stage != Stage::Out) {
        return None;
    }
    // A drill can do no good.
    let may_help = isolation.spec.origin != Origin::Drill;
    harm(before, after, settings).or_else(|| may_help.then(|| no_good(before, after, settings)).flatten())
}

/// Whether the zones that are left got worse than they were.
fn harm(before: &Picture, after: &Picture, settings: &Settings) -> Option<String> {
    let (was, is) = (before.others, after.others);
    if let (Some(was), Some(is)) = (was.failures(), is.failures())
        && is - was > settings.max_error_excess.as_fraction()
    {
        return Some(format!(
            "the other zones fail {:.1} % of their requests, and failed {:.1} % before (rollback.max_error_excess {})",
            100.0 * is,
            100.0 * was,
            settings.max_error_excess
        ));
    }
    if let (Some(was), Some(is)) = (share(was.saturated), share(is.saturated))
        && is - was > settings.max_saturated_excess.as_fraction()
    {
        return Some(format!(
            "endpoints at their CPU limits serve {:.0} % of the other zones' requests, and served {:.0} % before \
             (rollback.max_saturated_excess {})",
            100.0 * is,
            100.0 * was,
            settings.max_saturated_excess
        ));
    }
    let (was, is) = (was.mean_ms()?, is.mean_ms()?);
    (is > settings.max_slowdown.times() * was).then(|| {
        format!(
            "the other zones take {is:.0} ms for a request, and took {was:.0} ms before (rollback.max_slowdown {})",
            settings.max_slowdown
        )
    })
}

/// Whether what the zone added to users' failures and waiting is still there.
fn no_good(before: &Picture, after: &Picture, settings: &Settings) -> Option<String> {
    let failures: [fn(Figures) -> Option<f64>; 2] = [Figures::failures, Figures::failures_of_clients];
    // A fault of servers shows to clients everywhere, and one of clients to no server: the larger part tells.
    let failures = failures.into_iter().filter_map(|of| Change::of(before, after, of));
    let failures =
        failures.max_by(|a, b| a.part().total_cmp(&b.part())).filter(|c| c.part() >= LEAST_PART.as_fraction());
    let waiting = Change::of(before, after, Figures::mean_ms).filter(|c| c.part() >= LEAST_SLOWER * c.others);
    if failures.iter().chain(&waiting).any(|change| change.gone() >= settings.min_improvement.as_fraction()) {
        return None;
    }
    let of_failures = failures.map(|Change { all, others, is }| {
        let [is, all, others] = [is, all, others].map(|share| 100.0 * share);
        format!("{is:.2} % of all calls fail, as before ({all:.2} %; {others:.2} % without the zone)")
    });
    let of_waiting = waiting.map(|Change { all, others, is }| {
        format!("a call takes {is:.0} ms, as before ({all:.0} ms; {others:.0} ms without the zone)")
    });
    let what = of_failures.or(of_waiting)?;
    Some(format!("it does no good: {what} (rollback.min_improvement {})", settings.min_improvement))
}

/// A measure of all zones and of the others before, and of all now.
#[derive(Debug, Clone, Copy)]
struct Change {
    all: f64,
    others: f64,
    is: f64,
}

impl Change {
    fn of(before: &Picture, after: &Picture, measure: fn(Figures) -> Option<f64>) -> Option<Self> {
        Some(Self { all: measure(before.all())?, others: measure(before.others)?, is: measure(after.all())? })
    }

    /// What the zone added.
    fn part(self) -> f64 {
        self.all - self.others
    }

    /// How much of it is gone.
    fn gone(self) -> f64 {
        (self.all - self.is) / self.part()
    }
}

#[cfg(test)]
mod tests;
