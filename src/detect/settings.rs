//! What a user may tune, and the constants that follow from the design.

use serde::{Deserialize, Serialize};

use crate::domain::zone::ServicePattern;
use crate::domain::{CycleLength, Factor, Nats, Period, Ratio, ServiceId};

/// The section `detect`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub cycle: Period,
    pub trip: Nats,
    pub suspect: Nats,
    pub shortest: Period,
    pub longest: Period,
    pub knee: Ratio,
    pub slowdown_weight: Ratio,
    pub slow_requests_weight: Ratio,
    pub noise_correlation: Period,
    pub half_life: Period,
    pub min_affected_share: Ratio,
    pub floors: ServiceSettings,
    #[serde(skip)]
    pub overrides: Vec<Override>,
}

/// What may differ from service to service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSettings {
    pub min_failures: u32,
    pub min_error_excess: Ratio,
    pub min_error_ratio: Factor,
    pub min_slow_excess: Ratio,
    pub min_slow_ratio: Factor,
    pub min_slowdown: Factor,
    #[serde(skip)]
    pub critical: bool,
    #[serde(skip)]
    pub ignore: bool,
}

/// Settings for the services that a pattern names. Later overrides win.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    pub pattern: ServicePattern,
    pub critical: Option<bool>,
    pub ignore: Option<bool>,
    pub min_failures: Option<u32>,
    pub min_error_excess: Option<Ratio>,
    pub min_error_ratio: Option<Factor>,
    pub min_slow_excess: Option<Ratio>,
    pub min_slow_ratio: Option<Factor>,
    pub min_slowdown: Option<Factor>,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            min_failures: 5,
            min_error_excess: Ratio::from_percent(0.3),
            min_error_ratio: Factor::new(2.0),
            min_slow_excess: Ratio::from_percent(1.0),
            min_slow_ratio: Factor::new(1.5),
            min_slowdown: Factor::new(1.15),
            critical: false,
            ignore: false,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cycle: Period::from_secs(15),
            trip: Nats::new(10.0),
            suspect: Nats::new(6.0),
            shortest: Period::from_secs(30),
            longest: Period::from_secs(90),
            knee: Ratio::from_percent(8.0),
            slowdown_weight: Ratio::from_percent(12.0),
            slow_requests_weight: Ratio::from_percent(50.0),
            noise_correlation: Period::from_secs(60),
            half_life: Period::from_hours(1),
            min_affected_share: Ratio::from_percent(2.0),
            floors: ServiceSettings::default(),
            overrides: Vec::new(),
        }
    }
}

impl Settings {
    pub fn of(&self, service: &ServiceId) -> ServiceSettings {
        let mut settings = self.floors;
        for change in self.overrides.iter().filter(|o| o.pattern.matches(service)) {
            change.apply(&mut settings);
        }
        settings
    }

    /// Half the evidence suspects: what more sensitive settings might want to look at.
    pub fn sensitive(&self) -> Self {
        Self { suspect: Nats::new(self.suspect.get() / 2.0), ..self.clone() }
    }

    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.cycle < Period::from_secs(1) || self.cycle > Period::from_mins(5) {
            problems.push(("cycle", format!("{} is outside 1s to 5m", self.cycle)));
        }
        if self.suspect > self.trip {
            problems.push(("suspect", format!("{} is above detect.trip ({})", self.suspect, self.trip)));
        }
        if self.shortest > self.longest {
            problems.push(("shortest", format!("{} is above detect.longest ({})", self.shortest, self.longest)));
        }
        if self.longest > Period::from_mins(5) {
            problems.push(("longest", format!("{} is above 5m, the longest time that is remembered", self.longest)));
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

impl Override {
    fn apply(&self, to: &mut ServiceSettings) {
        fn set<T: Copy>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        set(&mut to.critical, self.critical);
        set(&mut to.ignore, self.ignore);
        set(&mut to.min_failures, self.min_failures);
        set(&mut to.min_error_excess, self.min_error_excess);
        set(&mut to.min_error_ratio, self.min_error_ratio);
        set(&mut to.min_slow_excess, self.min_slow_excess);
        set(&mut to.min_slow_ratio, self.min_slow_ratio);
        set(&mut to.min_slowdown, self.min_slowdown);
    }
}

/// Windows of evidence, in cycles: evidence is that of the best one.
pub(super) const WINDOWS: [usize; 7] = [2, 3, 4, 6, 8, 12, 20];
pub(super) const LONGEST_WINDOW: usize = 20;
/// Cycles with data before anything is judged.
pub(super) const WARM_UP: usize = 8;
/// Cycles that must pass before a cycle is learned from: a fault shows within them.
pub(super) const LAG: usize = 8;
/// Cycles without suspicion after which a zone is clear.
pub(super) const CLEAR: u32 = 20;

/// The settings as the statistics use them: in cycles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub cycle: CycleLength,
    correlation_s: f64,
    /// What one cycle leaves of the past.
    pub keep: f64,
    /// Cycles in which presence is remembered: five minutes, and at least the longest window.
    pub memory: u32,
    /// Cycles under suspicion after which a change is the new normal: an hour's worth.
    pub longest_freeze: u32,
}

impl Scale {
    pub fn new(settings: &Settings, cycle: CycleLength) -> Self {
        let half_life = settings.half_life.as_secs_f64() / cycle.as_secs_f64();
        Self {
            cycle,
            correlation_s: settings.noise_correlation.as_secs_f64(),
            keep: 0.5_f64.powf(1.0 / half_life),
            memory: (300.0 / cycle.as_secs_f64()).clamp(LONGEST_WINDOW as f64, 128.0) as u32,
            longest_freeze: half_life.round() as u32,
        }
    }

    /// The variance of a mean over some cycles of a noise with exponential autocorrelation, relative to one instant.
    pub fn smoothing(&self, cycles: f64) -> f64 {
        let u = cycles * self.cycle.as_secs_f64() / self.correlation_s;
        2.0 / u * (1.0 - (1.0 - (-u).exp()) / u)
    }
}
