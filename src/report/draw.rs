//! Scales, ticks and paths.

use std::fmt::Write as _;

use jiff::Timestamp;
use maud::{Markup, html};

/// From values to pixels, linearly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub values: (f64, f64),
    pub pixels: (f64, f64),
}

impl Scale {
    pub fn at(&self, value: f64) -> f64 {
        let share = (value - self.values.0) / (self.values.1 - self.values.0).max(f64::MIN_POSITIVE);
        self.pixels.0 + share.clamp(0.0, 1.0) * (self.pixels.1 - self.pixels.0)
    }

    pub fn time(start: Timestamp, end: Timestamp, pixels: (f64, f64)) -> Self {
        Self { values: (seconds(start), seconds(end)), pixels }
    }

    pub fn at_time(&self, time: Timestamp) -> f64 {
        self.at(seconds(time))
    }
}

pub(super) fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// What is measured along an axis that begins at nought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Share,
    Milliseconds,
    PerSecond,
    /// A difference of shares, and one of factors.
    Points,
    Times,
}

impl Unit {
    /// A value as a tick says it, where ticks are `step` apart.
    pub fn tick(self, value: f64, step: f64) -> String {
        let (number, step, unit) = match self {
            Self::Share => (100.0 * value, 100.0 * step, " %"),
            Self::Milliseconds if step >= 1000.0 || value >= 10_000.0 => (value / 1000.0, step / 1000.0, " s"),
            Self::Milliseconds => (value, step, " ms"),
            Self::PerSecond => (value, step, "/s"),
            Self::Points => (100.0 * value, 100.0 * step, " pt"),
            Self::Times => (value, step, "×"),
        };
        let whole = |decimals: &usize| {
            let scaled = step * 10_f64.powi(*decimals as i32);
            scaled >= 0.999 && (scaled - scaled.round()).abs() < 0.01
        };
        let decimals = (0..4).find(whole).unwrap_or(if step >= 1.0 { 0 } else { 3 });
        format!("{number:.decimals$}{unit}")
    }

    /// The smallest top of an axis: below it curves would only show noise.
    const fn least(self) -> f64 {
        match self {
            Self::Share | Self::Points => 0.01,
            Self::Times => 0.1,
            Self::Milliseconds | Self::PerSecond => 1.0,
        }
    }

    /// Ticks from nought to a round value that nothing exceeds, about so many.
    pub fn ticks(self, most: f64, about: usize) -> Vec<(f64, String)> {
        let most = if most.is_finite() { most.max(self.least()) } else { self.least() };
        let raw = most / about as f64;
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(raw);
        let count = (most / step * 0.9999).ceil() as usize;
        (0..=count).map(|i| i as f64 * step).map(|value| (value, self.tick(value, step))).collect()
    }
}

/// Round moments, at most so many, as people read them.
pub(super) fn time_ticks(start: Timestamp, end: Timestamp, most: usize) -> Vec<(Timestamp, String)> {
    const STEPS: [i64; 19] = [
        15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600,
        2_592_000, 7_776_000,
    ];
    const DAY: i64 = 86_400;
    const YEAR: i64 = 365 * DAY;
    let (from, to, most) = (start.as_second(), end.as_second(), most.max(1) as i64);
    let years = || YEAR * ((to - from) / (most * YEAR) + 1);
    let step = STEPS.into_iter().find(|step| (to - from) / step < most).unwrap_or_else(years);
    let first = from + (step - from.rem_euclid(step)) % step;
    (first..=to)
        .step_by(usize::try_from(step).unwrap_or(1))
        .filter_map(|second| Timestamp::from_second(second).ok())
        .map(|time| {
            let midnight = time.as_second().rem_euclid(DAY) == 0;
            let format = match step {
                YEAR.. => "%Y",
                DAY.. => "%b %-d",
                _ if midnight && to - from > DAY / 2 => "%b %-d",
                60.. => "%H:%M",
                _ => "%H:%M:%S",
            };
            (time, time.strftime(format).to_string())
        })
        .collect()
}

/// A path through points, broken where there is none. A point alone is a dot.
pub(super) fn path(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let (mut text, mut drawing) = (String::new(), false);
    for point in points {
        if let Some((x, y)) = point {
            let _infallible = write!(text, "{}{x:.1} {y:.1}", if drawing { "L" } else { "M" });
            if !drawing {
                text.push_str("h0");
            }
        }
        drawing = point.is_some();
    }
    text
}

/// A horizontal axis of time below `y`, with rules up to `top`.
pub(super) fn time_axis(scale: &Scale, ticks: &[(Timestamp, String)], (top, y): (f64, f64)) -> Markup {
    html! {
        @for (time, label) in ticks {
            @let x = px(scale.at_time(*time));
            line.rule x1=(x) x2=(x) y1=(px(top)) y2=(px(y)) {}
            text.tick x=(x) y=(px(y + 14.0)) text-anchor="middle" { (label) }
        }
    }
}

/// A vertical axis left of the scale of time, with rules along it.
pub(super) fn value_axis(scale: &Scale, ticks: &[(f64, String)], (left, right): (f64, f64)) -> Markup {
    html! {
        @for (value, label) in ticks {
            @let y = scale.at(*value);
            line.rule x1=(px(left)) x2=(px(right)) y1=(px(y)) y2=(px(y)) {}
            text.tick x=(px(left - 6.0)) y=(px(y + 3.5)) text-anchor="end" { (label) }
        }
    }
}

/// A length to a tenth of a pixel.
pub(super) fn px(length: f64) -> String {
    format!("{length:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(unit: Unit, most: f64) -> Vec<String> {
        unit.ticks(most, 4).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_reach_the_top_and_have_units() {
        assert_eq!(labels(Unit::Share, 0.153), ["0 %", "5 %", "10 %", "15 %", "20 %"]);
        assert_eq!(labels(Unit::Share, 0.0), ["0.00 %", "0.25 %", "0.50 %", "0.75 %", "1.00 %"]);
        assert_eq!(labels(Unit::Milliseconds, 90.0), ["0 ms", "25 ms", "50 ms", "75 ms", "100 ms"]);
        assert_eq!(labels(Unit::Milliseconds, 4000.0), ["0 s", "1 s", "2 s", "3 s", "4 s"]);
    }

    #[test]
    fn moments_are_round_whatever_the_stretch() {
        let (start, minute): (Timestamp, i64) = ("2026-01-01T00:07:30Z".parse().unwrap(), 60);
        for minutes in [1, 25, 40, 24 * 60, 30 * 24 * 60, 5 * 365 * 24 * 60, 7_000 * 365 * 24 * 60] {
            let end = Timestamp::from_second(start.as_second() + minutes * minute).unwrap();
            let ticks = time_ticks(start, end, 8);
            assert!(!ticks.is_empty() && ticks.len() <= 8, "{minutes} min: {ticks:?}");
        }
        let end = "2026-01-01T00:32:30Z".parse().unwrap();
        let said: Vec<String> = time_ticks(start, end, 6).into_iter().map(|(_, label)| label).collect();
        assert_eq!(said, ["00:10", "00:15", "00:20", "00:25", "00:30"]);
    }

    #[test]
    fn a_path_is_broken_where_nothing_is_known() {
        let points = [Some((0.0, 1.0)), Some((1.0, 2.0)), None, Some((3.0, 4.0))];
        assert_eq!(path(points.into_iter()), "M0.0 1.0h0L1.0 2.0M3.0 4.0h0");
    }
}
