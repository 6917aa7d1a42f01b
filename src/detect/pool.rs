//! All services of a zone together: what no single service shows.
//!
//! Why this statistic: a sum of each service's clipped z is a stratified test (as Cochran–Mantel–Haenszel and van
//! Elteren are), so a zone with more of a bad service is not blamed (Simpson), and no single service rules it.

use super::compare::{Look, Looks, SIGNALS};
use super::corroborate::Rival;
use super::persist::Watches;
use super::settings::{Scale, WINDOWS, least_excess, trip};
use crate::domain::{ServiceSettings, Signal};

/// How far healthy services of one zone move together.
const SERVICE_CORRELATION: f64 = 0.03;
const CLIP: (f64, f64) = (-3.0, 5.0);
const FEWEST_SERVICES: f64 = 3.0;

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    services: f64,
    worse: f64,
    z: f64,
    weight: f64,
    effect: f64,
    own: f64,
    seen: f64,
    expected: f64,
    peers: f64,
    peers_seen: f64,
}

impl Sum {
    fn add(&mut self, look: &Look) {
        if !look.live {
            return;
        }
        self.services += 1.0;
        self.worse += f64::from(u8::from(look.z > 1.0));
        self.z += look.z.clamp(CLIP.0, CLIP.1);
        self.weight += look.weight;
        self.effect += look.effect * look.weight;
        self.own += look.own * look.weight;
        self.seen += look.seen * look.weight;
        self.expected += look.expected * look.weight;
        self.peers += look.peers;
        self.peers_seen += look.peers_seen * look.weight;
    }

    fn look(&self, floor: f64) -> Look {
        let weight = self.weight.max(1.0);
        let inflation = (self.services * (1.0 + SERVICE_CORRELATION * (self.services - 1.0))).max(1.0).sqrt();
        let (z, effect) = (self.z / inflation, self.effect / weight);
        let wide = self.worse >= FEWEST_SERVICES.max(self.services / 2.0);
        Look {
            z,
            effect,
            large: wide && effect >= floor,
            live: self.services > 0.0,
            weight: self.weight,
            own: self.own / weight,
            own_nats: 0.0,
            seen: self.seen / weight,
            expected: self.expected / weight,
            error: effect.abs() / z.abs().max(1e-3),
            peers: self.peers,
            peers_seen: self.peers_seen / weight,
        }
    }
}

/// Sums over services, by window (the last stands for the newest cycle alone), signal and zone.
#[derive(Debug)]
pub(super) struct Pool {
    sums: Vec<[Vec<Sum>; SIGNALS]>,
}

impl Pool {
    pub fn new(zones: usize) -> Self {
        let row = || [(); SIGNALS].map(|()| vec![Sum::default(); zones]);
        Self { sums: (0..=WINDOWS.len()).map(|_| row()).collect() }
    }

    pub fn add(&mut self, window: usize, looks: &Looks) {
        for (sums, looks) in self.sums[window].iter_mut().zip(looks) {
            sums.iter_mut().zip(looks).for_each(|(sum, look)| sum.add(look));
        }
    }

    pub fn add_newest(&mut self, looks: &Looks) {
        self.add(WINDOWS.len(), looks);
    }

    /// Notes what is suspicious of all services together.
    pub fn watch(&self, watches: &mut Watches, settings: &ServiceSettings, scale: &Scale) {
        watches.begin();
        for (index, span) in WINDOWS.into_iter().enumerate() {
            watches.take(span, &self.looks(index, settings), (scale, trip(settings, 1.0)), settings);
        }
        watches.note_newest(&self.looks(WINDOWS.len(), settings));
        watches.settle(scale);
        watches.note_rivals(&[self.rivals(WINDOWS.len()), self.rivals(0)], settings);
    }

    fn looks(&self, window: usize, settings: &ServiceSettings) -> Looks {
        let floors = Signal::ALL.map(|signal| least_excess(signal, settings));
        let mut floors = floors.into_iter();
        self.sums[window].each_ref().map(|zones| {
            let floor = floors.next().unwrap_or(f64::INFINITY);
            zones.iter().map(|sum| sum.look(floor)).collect()
        })
    }

    fn rivals(&self, window: usize) -> [Vec<Rival>; SIGNALS] {
        self.sums[window]
            .each_ref()
            .map(|zones| zones.iter().map(|sum| Rival { excess: sum.own / sum.weight.max(1.0), nats: 0.0 }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use crate::domain::{CycleLength, Period};

    fn pooled(looks: &[Look], floor: f64) -> Look {
        let mut sum = Sum::default();
        looks.iter().for_each(|look| sum.add(look));
        sum.look(floor)
    }

    fn service(z: f64) -> Look {
        Look { z, effect: 0.01, live: true, weight: 100.0, ..Look::default() }
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value}, and not {expected}");
    }

    #[test]
    fn services_count_by_their_requests_but_in_evidence_none_counts_for_more_than_its_share() {
        let light = Look { own: 0.02, seen: 0.03, expected: 0.02, peers: 300.0, peers_seen: 0.01, ..service(-4.0) };
        let heavy = Look {
            effect: 0.05,
            weight: 300.0,
            own: 0.06,
            seen: 0.07,
            expected: 0.02,
            peers: 900.0,
            peers_seen: 0.03,
            ..service(9.0)
        };
        let dead = Look { live: false, ..heavy };
        let both = pooled(&[light, heavy, dead], 0.0);
        assert!(both.live && !both.large && !pooled(&[dead], 0.0).live);
        let z = (5.0 - 3.0) / (2.0 * 1.03_f64).sqrt();
        for (value, expected) in [
            (both.z, z),
            (both.effect, 0.04),
            (both.weight, 400.0),
            (both.own, 0.05),
            (both.seen, 0.06),
            (both.expected, 0.02),
            (both.error, 0.04 / z),
            (both.peers, 1200.0),
            (both.peers_seen, 0.025),
        ] {
            near(value, expected);
        }
    }

    #[test]
    fn it_takes_three_services_that_are_worse_and_half_of_many() {
        let large = |worse: usize, others: usize, floor| {
            pooled(&[vec![service(1.1); worse], vec![service(1.0); others]].concat(), floor).large
        };
        assert!(large(3, 0, 0.01) && large(3, 3, 0.01) && large(4, 4, 0.01));
        assert!(!large(2, 0, 0.01) && !large(3, 4, 0.01));
        assert!(!large(3, 0, 0.011), "it must matter");
    }

    #[test]
    fn services_of_a_zone_move_together_a_little_so_that_many_say_less_than_their_sum() {
        near(pooled(&[service(2.0); 3], 0.0).z, 6.0 / (3.0_f64 * (1.0 + 2.0 * 0.03)).sqrt());
    }

    #[test]
    fn what_three_services_show_together_in_a_zone_is_watched() {
        let scale = Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)));
        let (mut pool, mut watches) = (Pool::new(2), Watches::default());
        (0..2).for_each(|zone| watches.insert_zone(zone));
        let mut looks: Looks = [(); SIGNALS].map(|()| vec![service(0.0); 2]);
        looks[0][1] = Look { z: 3.5, effect: 0.1, own: 0.2, ..service(0.0) };
        looks[0][0] = Look { own: 0.2, ..service(0.0) };
        for _ in 0..3 {
            (0..WINDOWS.len()).for_each(|window| pool.add(window, &looks));
            pool.add_newest(&looks);
        }
        pool.watch(&mut watches, &ServiceSettings::default(), &scale);
        let watch = watches.get(Signal::ServerErrors, 1);
        near(watch.reading.nats, 10.5 * 10.5 / (3.0 * 1.06) / 2.0);
        assert!(watch.reading.suspicious && watch.reading.present);
        assert!(!watches.suspicious(0), "nothing is in which it is worse than its peers");
        assert!((watch.effect(0).unwrap() - 0.1).abs() < 1e-6);
        assert!(watches.has_rival(Signal::ServerErrors, 1), "its peer has left its past as far");
        assert!(!watches.has_rival(Signal::Latency, 1), "of no signal that is alike");
        pool.rivals(0)[0].iter().for_each(|rival| near(rival.excess, 0.2));
    }
}
