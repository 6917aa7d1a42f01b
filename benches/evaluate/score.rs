//! What decisions are worth, and what many of them come to.

use statrs::distribution::{Beta, ContinuousCDF, Gamma};

use super::baselines::Decision;
use super::bound::GRACE_S;
use super::family::{Expect, Severity};
use super::run::Run;
use super::scenario::Scenario;

/// Days of these families are what false trips are counted on.
const HEALTHY: &str = "healthy";
const DAYS_A_YEAR: f64 = 365.25;

/// One method in one scenario.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// From the fault's true start.
    pub delay_s: Option<f64>,
    pub false_ones: Vec<Decision>,
    pub wrong_zone: Vec<Decision>,
}

/// Isolating the sick zone from the fault's onset to a little after its end finds it; another zone in that time is the
/// wrong one; all else is false.
pub fn judge(scenario: &Scenario, decisions: Vec<Decision>) -> Outcome {
    let mut outcome = Outcome::default();
    for decision in decisions {
        match (scenario.expect, scenario.fault) {
            (Expect::Either, _) => {}
            (_, Some(fault)) if (fault.onset_s..=fault.end_s + GRACE_S).contains(&decision.at_s) => {
                if decision.zone != fault.zone {
                    outcome.wrong_zone.push(decision);
                } else if outcome.delay_s.is_none() {
                    outcome.delay_s = Some((decision.at_s - fault.start_s).max(0.0));
                }
            }
            (Expect::Isolate(_) | Expect::Nothing, _) => outcome.false_ones.push(decision),
        }
    }
    outcome
}

/// A method over several scenarios.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Summary {
    /// Faults that can be found at all, in time.
    pub possible: usize,
    pub found: usize,
    pub delay_p50_s: Option<f64>,
    pub delay_p90_s: Option<f64>,
    pub limit_plain_p50_s: Option<f64>,
    pub limit_dispersed_p50_s: Option<f64>,
    /// Median of delay over dispersed limit.
    pub delay_over_limit: Option<f64>,
    /// Scenarios in which nothing may be isolated, and those in which something was.
    pub must_not: usize,
    pub must_not_isolated: usize,
    pub false_ones: usize,
    pub wrong_zone: usize,
}

pub fn outcome<'a>(run: &'a Run, method: &str) -> Option<&'a Outcome> {
    run.outcomes.iter().find(|(name, _)| *name == method).map(|(_, outcome)| outcome)
}

pub fn summarize(runs: &[&Run], method: &str) -> Summary {
    let mut summary = Summary::default();
    let (mut delays, mut plain, mut dispersed, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in runs {
        let Some(outcome) = outcome(run, method) else { continue };
        summary.false_ones += outcome.false_ones.len();
        summary.wrong_zone += outcome.wrong_zone.len();
        if run.scenario.expect == Expect::Nothing {
            summary.must_not += 1;
            summary.must_not_isolated += usize::from(!outcome.false_ones.is_empty());
        }
        plain.extend(run.bound.plain_s);
        let Some(limit_s) = run.bound.dispersed_s else { continue };
        summary.possible += 1;
        dispersed.push(limit_s);
        if let Some(delay_s) = outcome.delay_s {
            summary.found += 1;
            delays.push(delay_s);
            ratios.push(delay_s / limit_s);
        }
    }
    (summary.delay_p50_s, summary.delay_p90_s) = (quantile(&delays, 0.5), quantile(&delays, 0.9));
    (summary.limit_plain_p50_s, summary.limit_dispersed_p50_s) = (quantile(&plain, 0.5), quantile(&dispersed, 0.5));
    summary.delay_over_limit = quantile(&ratios, 0.5);
    summary
}

/// Recall by severity: found, of those possible.
pub fn by_severity(runs: &[&Run], method: &str) -> Vec<(Severity, usize, usize)> {
    let of = |severity| {
        let runs: Vec<&Run> = runs.iter().copied().filter(|run| run.scenario.severity == severity).collect();
        let summary = summarize(&runs, method);
        (severity, summary.found, summary.possible)
    };
    Severity::ALL.map(of).to_vec()
}

/// Between which shares the true one lies with 95 % confidence, exactly (Clopper & Pearson 1934), were these families drawn
/// anew.
pub fn interval(count: usize, of: usize) -> Option<[f64; 2]> {
    let (hits, misses) = (count as f64, of.checked_sub(count)? as f64);
    let low = if count == 0 { 0.0 } else { Beta::new(hits, misses + 1.0).ok()?.inverse_cdf(0.025) };
    let high = if count == of { 1.0 } else { Beta::new(hits + 1.0, misses).ok()?.inverse_cdf(0.975) };
    (of > 0).then_some([low, high])
}

/// How often something happens that should not.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct FalseRate {
    pub zone_days: f64,
    pub count: usize,
    pub per_zone_day: f64,
    pub per_zone_year: f64,
    /// With 95 % confidence, no more than that.
    pub per_zone_year_at_most: f64,
}

impl FalseRate {
    fn new(count: usize, zone_days: f64) -> Option<Self> {
        let at_most = Gamma::new(count as f64 + 1.0, 1.0).ok()?.inverse_cdf(0.95);
        (zone_days > 0.0).then(|| Self {
            zone_days,
            count,
            per_zone_day: count as f64 / zone_days,
            per_zone_year: count as f64 / zone_days * DAYS_A_YEAR,
            per_zone_year_at_most: at_most / zone_days * DAYS_A_YEAR,
        })
    }
}

pub fn is_healthy(family: &str) -> bool {
    family.starts_with(HEALTHY)
}

/// Of isolations by a method on healthy days.
pub fn false_isolations(runs: &[&Run], method: &str) -> Option<FalseRate> {
    let days = || runs.iter().filter(|run| is_healthy(&run.scenario.family));
    let count = days().filter_map(|run| outcome(run, method)).map(|outcome| outcome.false_ones.len()).sum();
    FalseRate::new(count, days().map(|run| run.scenario.zone_days()).sum())
}

/// Of trips of our detector on healthy days, each counted.
pub fn false_trips(runs: &[&Run]) -> Option<FalseRate> {
    let days = || runs.iter().filter(|run| is_healthy(&run.scenario.family));
    let count = days().map(|run| run.false_trips.len()).sum();
    FalseRate::new(count, days().map(|run| run.scenario.zone_days()).sum())
}

fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = share * sorted.len().checked_sub(1)? as f64;
    let low = position as usize;
    let next = sorted.get(low + 1).copied().unwrap_or(sorted[low]);
    Some(sorted[low] + (next - sorted[low]) * (position - low as f64))
}
