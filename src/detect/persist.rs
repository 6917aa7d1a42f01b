//! How long something has been wrong: what is watched, and for how many cycles it was there.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::compare::{Look, Looks, SIGNALS};
use super::corroborate::Rival;
use super::settings::{LONGEST_WINDOW, Scale, Settings};
use crate::domain::{Period, Ratio, ServiceSettings, Signal};

/// The newest cycles must show this share of the largest effect, and this much evidence, to count as presence.
const STILL_EFFECT: f64 = 0.6;
const STILL_Z: f64 = 1.5;
/// So many times the evidence of a fault leaves no doubt that it is not chance; with less, it must last so much longer.
const CONCLUSIVE: f64 = 2.0;
const DOUBT: f64 = 1.2;
/// A window with the effect in this share of its cycles had it all along; with less, a few cycles may rule its mean.
const THROUGHOUT: f64 = 2.0 / 3.0;
/// Windows up to this many cycles measure the size of an effect.
const SHORT: usize = 4;

/// What this cycle's windows say of one signal of one service (or of all pooled) in one zone.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is found on its own, window by window")]
pub(super) struct Reading {
    /// Whether there was enough to compare.
    compared: bool,
    pub suspicious: bool,
    pub tripping: bool,
    pub present: bool,
    /// Of any window, whether it suffices or not.
    pub most_nats: f64,
    /// Of the best window.
    pub nats: f64,
    pub best: Look,
    pub best_span: usize,
    /// The first window that trips.
    pub span: usize,
    /// The effect's size as it decides how long it must last.
    pub size: f64,
    largest: f64,
    /// The two newest cycles.
    pub latest: Look,
}

/// A reading, and what is remembered of earlier ones.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Watch {
    /// Made anew in each cycle.
    #[serde(skip)]
    pub reading: Reading,
    /// One bit a cycle, the newest lowest: suspicious, and still so. An intermittent fault adds up.
    presence: u128,
    /// Cycles for which another zone is remembered to have been about as bad.
    rivals: u32,
    /// The effect in each of the newest cycles alone, the newest first.
    effects: Effects,
    /// Whether nothing is known of the cycles before the newest one.
    after_gap: bool,
}

#[derive(Debug, Clone, Copy)]
struct Effects([f32; LONGEST_WINDOW]);

impl Default for Effects {
    fn default() -> Self {
        Self([0.0; LONGEST_WINDOW])
    }
}

impl Serialize for Effects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Effects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let effects = Vec::deserialize(deserializer)?;
        let wrong = |effects: Vec<f32>| serde::de::Error::invalid_length(effects.len(), &"the longest window");
        effects.try_into().map(Self).map_err(wrong)
    }
}

impl Watch {
    /// What was noticed cycle by cycle; and for a small effect, which takes a long window to notice, what that window
    /// says of its cycles.
    pub fn lasted(&self, scale: &Scale) -> Period {
        let (bad, of) = (self.bad_cycles(), self.reading.best_span as f64);
        let throughout = if f64::from(bad) >= THROUGHOUT * of { bad } else { 0 };
        let cycles = self.noticed().max(throughout);
        Period::from_secs(i64::from(cycles) * scale.cycle.seconds())
    }

    /// Cycles of presence. What was there before a pause counts half: a fault that comes and goes adds up, and two blips
    /// by chance don't.
    fn noticed(&self) -> u32 {
        let pause = (0..127).find(|bit| (self.presence >> bit).trailing_zeros() >= 2);
        let all = self.presence.count_ones();
        let current = pause.map_or(all, |bit| (self.presence & ((1 << bit) - 1)).count_ones());
        current + (all - current) / 2
    }

    /// The effect in one of the newest cycles alone; the newest is the first.
    pub fn effect(&self, back: usize) -> Option<f64> {
        self.effects.0.get(back).copied().map(f64::from)
    }

    /// In how many cycles of the best window the effect was there.
    pub fn bad_cycles(&self) -> u32 {
        let there = STILL_EFFECT * self.reading.best.effect;
        let cycles = &self.effects.0[..self.reading.best_span.min(LONGEST_WINDOW)];
        cycles.iter().filter(|effect| f64::from(**effect) >= there).count() as u32
    }
}

/// By signal and zone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Watches([Vec<Watch>; SIGNALS]);

impl Watches {
    pub fn insert_zone(&mut self, at: usize) {
        self.0.iter_mut().for_each(|zones| zones.insert(at, Watch::default()));
    }

    pub const fn zones(&self) -> usize {
        self.0[0].len()
    }

    pub fn get(&self, signal: Signal, zone: usize) -> &Watch {
        &self.0[signal as usize][zone]
    }

    /// Whether another zone is remembered to have been about as bad, in the signal or in one of the same kind: a
    /// location and a tail are two measures of the same durations, and a tail exaggerates differences.
    pub fn has_rival(&self, signal: Signal, zone: usize) -> bool {
        let alike: &[Signal] = match signal {
            Signal::ServerErrors => &[Signal::ServerErrors],
            Signal::ClientErrors => &[Signal::ClientErrors],
            Signal::LostCalls => &[Signal::LostCalls],
            Signal::SlowRequests | Signal::VerySlowRequests | Signal::Latency => {
                &[Signal::SlowRequests, Signal::VerySlowRequests, Signal::Latency]
            }
        };
        alike.iter().any(|signal| self.get(*signal, zone).rivals > 0)
    }

    pub fn forget(&mut self, zone: usize) {
        self.0.iter_mut().for_each(|zones| zones[zone] = Watch::default());
    }

    /// Cycles of which nothing is known.
    pub fn pass_over(&mut self, missed: u32) {
        self.each(|watch| {
            watch.presence = watch.presence.checked_shl(missed).unwrap_or(0);
            watch.rivals = watch.rivals.saturating_sub(missed);
            let missed = (missed as usize).min(LONGEST_WINDOW);
            watch.effects.0.rotate_right(missed);
            watch.effects.0[..missed].fill(0.0);
            watch.after_gap = true;
        });
    }

    /// Whether there was enough to compare, in any signal and window.
    pub fn compared(&self, zone: usize) -> bool {
        self.0.iter().any(|zones| zones[zone].reading.compared)
    }

    pub fn suspicious(&self, zone: usize) -> bool {
        self.0.iter().any(|zones| zones[zone].reading.suspicious)
    }

    /// Forgets the last cycle's readings.
    pub fn begin(&mut self) {
        self.each(|watch| watch.reading = Reading::default());
    }

    fn each(&mut self, mut change: impl FnMut(&mut Watch)) {
        self.0.iter_mut().flatten().for_each(&mut change);
    }

    /// Takes in one window.
    pub fn take(&mut self, span: usize, looks: &Looks, (scale, trip): (&Scale, f64), settings: &ServiceSettings) {
        let counts = scale.counts(span, settings);
        for (watches, looks) in self.0.iter_mut().zip(looks) {
            for (watch, look) in watches.iter_mut().zip(looks) {
                watch.reading.take(span, look, (counts, trip), settings);
            }
        }
    }

    /// The newest cycle alone.
    pub fn note_newest(&mut self, newest: &Looks) {
        for (watches, looks) in self.0.iter_mut().zip(newest) {
            for (watch, look) in watches.iter_mut().zip(looks) {
                watch.effects.0.rotate_right(1);
                watch.effects.0[0] = look.effect as f32;
            }
        }
    }

    /// Closes the cycle: whether what is suspicious is still there. After a gap the newest cycle must show it alone, as those
    /// before it are old.
    pub fn settle(&mut self, scale: &Scale) {
        let kept = if scale.memory >= 128 { u128::MAX } else { (1 << scale.memory) - 1 };
        self.each(|watch| {
            let reading = &mut watch.reading;
            let still = STILL_EFFECT * reading.largest;
            let newest_shows_it = !std::mem::take(&mut watch.after_gap) || f64::from(watch.effects.0[0]) >= still;
            reading.present =
                reading.suspicious && newest_shows_it && reading.latest.effect >= still && reading.latest.z >= STILL_Z;
            watch.presence = ((watch.presence << 1) | u128::from(reading.present)) & kept;
        });
    }

    /// Where the newest cycle alone is conclusive, its effect less one standard error may be the larger one.
    pub fn refine_by_newest(&mut self, newest: &Looks, trip: f64) {
        for ((signal, watches), looks) in Signal::ALL.into_iter().zip(&mut self.0).zip(newest) {
            for (watch, look) in watches.iter_mut().zip(looks) {
                if watch.reading.tripping && look.nats() >= trip {
                    let size = match signal {
                        Signal::Latency => look.effect * (1.0 - 1.0 / look.z.max(1.0)),
                        Signal::ServerErrors
                        | Signal::ClientErrors
                        | Signal::LostCalls
                        | Signal::SlowRequests
                        | Signal::VerySlowRequests => {
                            look.effect - (look.effect.max(0.0) / look.weight.max(1.0)).sqrt()
                        }
                    };
                    watch.reading.size = watch.reading.size.max(size);
                }
            }
        }
    }

    /// Remembers which zones have rivals, given how far each zone left its own past in the newest windows.
    pub fn note_rivals(&mut self, windows: &[[Vec<Rival>; SIGNALS]], settings: &ServiceSettings) {
        for (signal, watches) in self.0.iter_mut().enumerate() {
            for (zone, watch) in watches.iter_mut().enumerate() {
                let concerned = watch.reading.suspicious
                    || windows.last().is_some_and(|w| w[signal][zone].nats >= settings.suspect.get());
                let seen = windows.iter().map(|w| super::corroborate::rival_memory(&w[signal], zone, settings)).max();
                let begins = windows.first().is_some_and(|w| super::corroborate::rival_begins(&w[signal], zone));
                let seen = seen.unwrap_or(0).max(u32::from(begins));
                let remembered = watch.rivals.saturating_sub(1);
                watch.rivals = remembered.max(if concerned { seen } else { 0 });
            }
        }
    }
}

impl Reading {
    fn take(&mut self, span: usize, look: &Look, (counts, trip): (bool, f64), settings: &ServiceSettings) {
        self.compared |= look.live;
        if span == 2 {
            self.latest = *look;
        }
        let nats = look.nats();
        self.most_nats = self.most_nats.max(nats);
        if !counts || nats < settings.suspect.get() {
            return;
        }
        self.suspicious = true;
        let trips_first = nats >= trip && !self.tripping;
        if trips_first {
            self.tripping = true;
            self.span = span;
        }
        if nats > self.nats {
            (self.nats, self.best, self.best_span) = (nats, *look, span);
        }
        self.largest = self.largest.max(look.effect);
        if span <= SHORT {
            self.size = self.size.max(look.effect);
        } else if trips_first && self.size == 0.0 {
            self.size = look.effect;
        }
    }
}

/// How long an effect of this severity must last. Twice the knee needs a quarter of the time: a roll-out's blip and a
/// regional fault's first zone both look like a fault for about a minute, and only a large one is worth less waiting.
pub(super) fn needed(severity: f64, (nats, trip): (f64, f64), knee: Ratio, settings: &ServiceSettings) -> Period {
    let ratio = (knee.as_fraction() / severity.max(1e-12)).min(1.0);
    // Barely enough evidence may be a burst of noise, which lasts longer than a blip.
    let doubt = if nats < CONCLUSIVE * trip { DOUBT } else { 1.0 };
    let seconds = settings.longest.as_secs_f64() * ratio * ratio * doubt;
    Period::from_secs(seconds.ceil() as i64).max(settings.shortest)
}

/// An effect in terms of failed requests.
pub(super) fn severity(signal: Signal, effect: f64, settings: &Settings) -> f64 {
    match signal {
        Signal::ServerErrors | Signal::ClientErrors | Signal::LostCalls => effect,
        Signal::SlowRequests | Signal::VerySlowRequests => effect * settings.slow_requests_weight.as_fraction(),
        Signal::Latency => effect * settings.slowdown_weight.as_fraction(),
    }
}

#[cfg(test)]
mod tests;
