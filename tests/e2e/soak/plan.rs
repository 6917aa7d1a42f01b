//! What goes wrong and when, drawn from a seed.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// How troubles follow each other, in seconds.
pub struct Pace {
    /// Health before the first one.
    pub first: i64,
    /// How long a fault lasts that must be found, and what it takes after its end to give the zone back.
    pub lasts: (i64, i64),
    pub back: i64,
    /// How long a trouble lasts that must not be acted on.
    pub harmless: (i64, i64),
    /// The same of one that is over before any fault may count.
    pub blip: (i64, i64),
    /// How long Prometheus does not see a zone.
    pub unseen: (i64, i64),
    /// Health between two troubles.
    pub gap: (i64, i64),
    /// So often in a deck: short ones, and roll-outs.
    pub blips: usize,
    pub roll_outs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Severe,
    Moderate,
    Slow,
    Unconnected,
    All,
    RegionalErrors,
    RegionalSlow,
    FewErrors,
    LittleSlower,
    OnePod,
    Unseen,
    Blip,
    RollOut,
}

const FAULTS: [Kind; 5] = [Kind::Severe, Kind::Moderate, Kind::Slow, Kind::Unconnected, Kind::All];
const HARMLESS: [Kind; 6] =
    [Kind::RegionalErrors, Kind::RegionalSlow, Kind::FewErrors, Kind::LittleSlower, Kind::OnePod, Kind::Unseen];

/// One trouble, in seconds of the story.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub at: i64,
    pub until: i64,
    /// The zone to isolate, if it is a fault.
    pub must: Option<String>,
    pub title: String,
    /// As scenarios have it: a fault, or roll-outs.
    fault: Option<String>,
    restarts: Vec<String>,
}

struct Drawing<'a> {
    rng: &'a mut ChaCha8Rng,
    zones: &'a [&'a str],
    pace: &'a Pace,
    /// Zones in the order in which they are next at fault.
    turn: Vec<&'a str>,
}

/// In order of time; all is well again, and given back, by the end.
pub fn troubles(rng: &mut ChaCha8Rng, pace: &Pace, zones: &[&str], seconds: i64) -> Vec<Trouble> {
    let mut drawing = Drawing { rng, zones, pace, turn: Vec::new() };
    let (mut troubles, mut deck, mut at) = (Vec::new(), Vec::new(), pace.first);
    loop {
        let kind = deck.pop().unwrap_or_else(|| {
            deck = drawing.deck();
            deck.pop().unwrap()
        });
        let trouble = drawing.trouble(kind, at);
        let free = trouble.until + if trouble.must.is_some() { pace.back } else { 0 };
        if free > seconds {
            return troubles;
        }
        at = free + drawing.between(pace.gap);
        troubles.push(trouble);
    }
}

impl<'a> Drawing<'a> {
    /// Each fault twice and each harmless trouble once, shuffled; so every kind comes.
    fn deck(&mut self) -> Vec<Kind> {
        let mut deck = [&FAULTS[..], &FAULTS, &HARMLESS].concat();
        deck.extend(std::iter::repeat_n(Kind::Blip, self.pace.blips));
        deck.extend(std::iter::repeat_n(Kind::RollOut, self.pace.roll_outs));
        deck.shuffle(self.rng);
        deck
    }

    fn between(&mut self, (low, high): (i64, i64)) -> i64 {
        self.rng.random_range(low..=high)
    }

    fn part(&mut self, low: f64, high: f64) -> f64 {
        self.rng.random_range(low..high)
    }

    fn zone(&mut self) -> &'a str {
        if self.turn.is_empty() {
            self.turn = self.zones.to_vec();
            self.turn.shuffle(self.rng);
        }
        self.turn.pop().unwrap()
    }

    fn trouble(&mut self, kind: Kind, at: i64) -> Trouble {
        let zone = self.zone();
        let one = if self.rng.random_bool(0.5) { "mockb" } else { "mockc" };
        let (services, effect) = match kind {
            Kind::Severe => (one, format!("errors: {:.1}%", self.part(30.0, 60.0))),
            Kind::Moderate => (one, format!("errors: {:.1}%", self.part(5.0, 10.0))),
            Kind::Slow => (one, format!("slowdown: {:.2}x", self.part(2.0, 3.0))),
            Kind::Unconnected => ("", format!("connect_failures: {:.1}%", self.part(15.0, 40.0))),
            Kind::All => ("", format!("errors: {:.1}%", self.part(10.0, 25.0))),
            Kind::RegionalErrors => (one, format!("errors: {:.1}%", self.part(10.0, 30.0))),
            Kind::RegionalSlow => (one, format!("slowdown: {:.2}x", self.part(1.7, 2.5))),
            Kind::FewErrors => (one, format!("errors: {:.2}%", self.part(0.03, 0.08))),
            Kind::LittleSlower => (one, format!("slowdown: {:.2}x", self.part(1.03, 1.07))),
            Kind::OnePod => ("mockc", format!("errors: {:.1}%, pods: 1", self.part(40.0, 60.0))),
            Kind::Unseen => ("", "scrapes_lost: true".to_owned()),
            Kind::Blip => (one, format!("errors: {:.1}%", self.part(2.0, 5.0))),
            Kind::RollOut => (one, String::new()),
        };
        let lasts = if FAULTS.contains(&kind) {
            self.pace.lasts
        } else if kind == Kind::Blip {
            self.pace.blip
        } else if kind == Kind::Unseen {
            self.pace.unseen
        } else {
            self.pace.harmless
        };
        let until = at + self.between(lasts);
        let regional = matches!(kind, Kind::RegionalErrors | Kind::RegionalSlow);
        let where_ = if regional { self.zones.join(", ") } else { zone.to_owned() };
        let rolls_out = kind == Kind::RollOut;
        let fault = format!("{{at: {at}s, until: {until}s, zones: [{where_}], services: [{services}], {effect}}}");
        let each = (until - at) / self.zones.len() as i64;
        let restart =
            |(nth, zone): (usize, &&str)| format!("{{at: {}s, zone: {zone}, service: {one}}}", at + nth as i64 * each);
        let restarts = if rolls_out { self.zones.iter().enumerate().map(restart).collect() } else { Vec::new() };
        let whose = if services.is_empty() { "all services" } else { services };
        Trouble {
            at,
            until,
            must: FAULTS.contains(&kind).then(|| zone.to_owned()),
            title: if rolls_out { format!("roll-out of {one}") } else { format!("{whose} in {where_}: {effect}") },
            fault: (!rolls_out).then_some(fault),
            restarts,
        }
    }
}

/// The story as the embedded world reads it. `world` are its own lines.
pub fn scenario(troubles: &[Trouble], zones: &[&str], world: &str) -> String {
    let list = |lines: Vec<&String>| lines.into_iter().map(|line| format!("\n- {line}")).collect::<String>();
    format!(
        "title: Soak\nzones: [{zones}]\n{world}\nfaults:{faults}\nrestarts:{restarts}\nexpect: {{users_succeed: 0%}}\n",
        zones = zones.join(", "),
        faults = list(troubles.iter().filter_map(|it| it.fault.as_ref()).collect()),
        restarts = match list(troubles.iter().flat_map(|it| &it.restarts).collect()) {
            none if none.is_empty() => " []".to_owned(),
            some => some,
        },
    )
}
