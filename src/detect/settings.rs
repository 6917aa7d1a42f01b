//! What a user may tune, and the constants that follow from the design.

use serde::{Deserialize, Serialize};

use crate::domain::{CycleLength, Period, Ratio, ServiceSettings, Services, Signal};

/// The section `detect`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub cycle: Period,
    pub knee: Ratio,
    pub slowdown_weight: Ratio,
    pub slow_requests_weight: Ratio,
    pub noise_correlation: Period,
    pub half_life: Period,
    pub min_affected_share: Ratio,
    #[serde(skip)]
    pub services: Services,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cycle: Period::from_secs(15),
            knee: Ratio::from_percent(8.8),
            slowdown_weight: Ratio::from_percent(12.0),
            slow_requests_weight: Ratio::from_percent(25.0),
            noise_correlation: Period::from_secs(60),
            half_life: Period::from_hours(1),
            min_affected_share: Ratio::from_percent(2.0),
            services: Services::default(),
        }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.cycle < Period::from_secs(1) || self.cycle > Period::from_mins(5) {
            problems.push(("cycle", format!("{} is outside 1s to 5m", self.cycle)));
        }
        if self.noise_correlation.is_zero() {
            problems.push(("noise_correlation", "must be above 0s".to_owned()));
        }
        if self.half_life < Period::from_mins(10) || self.half_life > Period::from_hours(24) {
            problems.push(("half_life", format!("{} is outside 10m to 24h", self.half_life)));
        }
        problems
    }
}

/// The smallest excess that counts: of failures, of slow requests, or of a factor.
pub(super) fn least_excess(signal: Signal, settings: &ServiceSettings) -> f64 {
    match signal {
        Signal::ServerErrors | Signal::ClientErrors | Signal::LostCalls => settings.min_error_excess.as_fraction(),
        Signal::SlowRequests | Signal::VerySlowRequests => settings.min_slow_excess.as_fraction(),
        Signal::Latency => settings.min_slowdown.times() - 1.0,
    }
}

/// The evidence that makes a fault of something that has a `share` of all that is looked at.
///
/// Every service in every signal is one more chance of a false alarm. The chances are shared out by traffic (weighted
/// Bonferroni: Genovese, Roeder & Wasserman 2006), so that all of them together are as rare as one would be, and the
/// services that matter most wait the least.
pub(super) fn trip(settings: &ServiceSettings, share: f64) -> f64 {
    settings.trip.get() + (Signal::ALL.len() as f64 / share.clamp(LEAST_SHARE, 1.0)).ln()
}

const LEAST_SHARE: f64 = 1e-4;

/// Windows of evidence, in cycles: evidence is that of the best one.
pub(super) const WINDOWS: [usize; 8] = [2, 3, 4, 6, 8, 12, 20, 40];
pub(super) const LONGEST_WINDOW: usize = 40;
/// Cycles with data before anything is judged.
pub(super) const WARM_UP: usize = 8;
/// Cycles that must pass before a cycle is learned from: a fault shows within them.
pub(super) const LAG: usize = 8;
/// Cycles that are remembered one by one.
pub const REMEMBERED: usize = LONGEST_WINDOW + LAG;

/// A day: what is normal for a zone may not change faster.
const LASTING_S: f64 = 86_400.0;

/// The settings as the statistics use them: in cycles.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Scale {
    pub cycle: CycleLength,
    correlation_s: f64,
    /// What one cycle leaves of the past.
    pub keep: f64,
    pub keep_lasting: f64,
    /// Cycles in which presence is remembered: five minutes, and at least twenty.
    pub memory: u32,
    /// Cycles under suspicion after which a change is the new normal: an hour's worth.
    pub longest_freeze: u32,
    /// A day's worth.
    pub lasting_cycles: u32,
}

impl Scale {
    pub fn new(settings: &Settings, cycle: CycleLength) -> Self {
        let lasting = LASTING_S / cycle.as_secs_f64();
        let half_life = settings.half_life.as_secs_f64() / cycle.as_secs_f64();
        Self {
            cycle,
            correlation_s: settings.noise_correlation.as_secs_f64(),
            keep: 0.5_f64.powf(1.0 / half_life),
            keep_lasting: 0.5_f64.powf(1.0 / lasting),
            memory: (300.0 / cycle.as_secs_f64()).clamp(20.0, 128.0) as u32,
            longest_freeze: half_life.round() as u32,
            lasting_cycles: lasting.round() as u32,
        }
    }

    /// Whether evidence over so many cycles counts for a service.
    pub fn counts(&self, span: usize, settings: &ServiceSettings) -> bool {
        let length = self.cycle.signed() * span as i32;
        (settings.shortest_window.signed()..=settings.longest_window.signed().max(self.cycle.signed() * 2))
            .contains(&length)
    }

    /// Cycles without suspicion after which a service, or a zone, is clear.
    pub fn clear(&self, settings: &ServiceSettings) -> u32 {
        (settings.clear.as_secs_f64() / self.cycle.as_secs_f64()).ceil() as u32
    }

    /// The variance of a mean over some cycles of a noise with exponential autocorrelation, relative to one instant.
    pub fn smoothing(&self, cycles: f64) -> f64 {
        let u = cycles * self.cycle.as_secs_f64() / self.correlation_s;
        2.0 / u * (1.0 - (1.0 - (-u).exp()) / u)
    }
}
