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
            knee: Ratio::from_percent(7.6),
            slowdown_weight: Ratio::from_percent(9.0),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Factor;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-4 * expected, "{value}, and not {expected}");
    }

    fn scale(cycle_s: i64) -> Scale {
        Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(cycle_s)))
    }

    #[test]
    fn what_is_at_a_limit_is_legal_and_what_is_beyond_is_named() {
        let wrong = |cycle_s, correlation_s, half_life_s| -> Vec<&'static str> {
            let [cycle, noise_correlation, half_life] = [cycle_s, correlation_s, half_life_s].map(Period::from_secs);
            let settings = Settings { cycle, noise_correlation, half_life, ..Settings::default() };
            settings.problems().into_iter().map(|(key, _)| key).collect()
        };
        assert!(wrong(1, 1, 600).is_empty() && wrong(300, 60, 86_400).is_empty());
        for cycle_s in [0, 301] {
            assert_eq!(wrong(cycle_s, 60, 3600), ["cycle"]);
        }
        assert_eq!(wrong(15, 0, 3600), ["noise_correlation"]);
        for half_life_s in [599, 86_401] {
            assert_eq!(wrong(15, 60, half_life_s), ["half_life"]);
        }
    }

    #[test]
    fn each_signal_has_a_smallest_excess_that_counts() {
        let settings = ServiceSettings {
            min_error_excess: Ratio::from_percent(0.5),
            min_slow_excess: Ratio::from_percent(2.0),
            min_slowdown: Factor::new(1.25),
            ..ServiceSettings::default()
        };
        let least = Signal::ALL.map(|signal| least_excess(signal, &settings));
        for (excess, expected) in least.into_iter().zip([0.005, 0.005, 0.005, 0.02, 0.02, 0.25]) {
            near(excess, expected);
        }
    }

    #[test]
    fn the_smaller_a_services_share_the_more_evidence_it_takes_up_to_a_limit() {
        let settings = ServiceSettings::default();
        near(trip(&settings, 1.0), 13.0 + 6.0_f64.ln());
        near(trip(&settings, 0.5), 13.0 + 12.0_f64.ln());
        near(trip(&settings, 0.0), 13.0 + 60_000.0_f64.ln());
    }

    #[test]
    fn times_become_cycles() {
        let of_15 = scale(15);
        assert_eq!((of_15.memory, of_15.longest_freeze, of_15.lasting_cycles), (20, 240, 5760));
        near(of_15.keep.powi(240), 0.5);
        near(of_15.keep_lasting.powi(5760), 0.5);
        assert_eq!([60, 5, 1].map(|cycle_s| scale(cycle_s).memory), [20, 60, 128]);
        assert_eq!([15, 7].map(|cycle_s| scale(cycle_s).clear(&ServiceSettings::default())), [20, 43]);
    }

    #[test]
    fn a_window_counts_that_is_neither_too_short_nor_too_long_and_one_of_two_cycles_is_never_too_long() {
        let counts = |shortest_s, longest_s, span| {
            let (shortest_window, longest_window) = (Period::from_secs(shortest_s), Period::from_secs(longest_s));
            scale(15).counts(span, &ServiceSettings { shortest_window, longest_window, ..ServiceSettings::default() })
        };
        assert_eq!([1, 2, 4, 5].map(|span| counts(30, 60, span)), [false, true, true, false]);
        assert_eq!([2, 3].map(|span| counts(0, 0, span)), [true, false]);
    }

    #[test]
    fn the_mean_of_more_cycles_is_smoother() {
        near(scale(15).smoothing(0.001), 1.0);
        near(scale(15).smoothing(4.0), 2.0 / std::f64::consts::E);
        near(scale(15).smoothing(8.0), 0.5 + 0.5 * (-2.0_f64).exp());
    }
}
