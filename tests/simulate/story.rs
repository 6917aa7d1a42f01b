//! What happens in a run: a mesh, settings, and disturbances, all made up from a seed.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use zoneward::decide::{DrillTime, RecoverySettings};
use zoneward::domain::{Mode, Period, Ratio, ReturnMode};
use zoneward::pipeline::Settings;

use crate::world::OLDEST_VIEW;

/// Seconds after the start at which all disturbances are over.
pub const CALM: i64 = 30 * 60;

#[derive(Debug, Clone)]
pub struct Story {
    pub seed: u64,
    pub zones: usize,
    pub services: usize,
    pub pods: usize,
    pub replicas: usize,
    pub requests: f64,
    /// Whether pods can be asked; whether each step is configured.
    pub probes: bool,
    pub steps: [bool; 3],
    pub settings: Settings,
    pub disturbances: Vec<Disturbance>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Disturbance {
    pub from: i64,
    pub until: i64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Zones and how many seconds later it reaches each; points of failures, and how many times as slow.
    Fault {
        kind: Kind,
        zones: Vec<(usize, i64)>,
        errors: f64,
        slow: f64,
    },
    /// A replica (or all) sees nothing, or not one of the zones, or nothing of most, or only after so many seconds.
    Unobserved {
        replica: Option<usize>,
    },
    Lost {
        replica: Option<usize>,
        zones: Vec<usize>,
    },
    Late {
        replica: Option<usize>,
        seconds: i64,
    },
    /// The cluster is seen as it was up to so many seconds ago, now older and now newer, nodes and pods each on their own.
    Old {
        replica: Option<usize>,
        seconds: i64,
    },
    /// The cluster can't be seen.
    Blind {
        replica: Option<usize>,
    },
    /// So many of a hundred calls fail, half of them after they had their effect.
    StoreFails {
        replica: Option<usize>,
        percent: u32,
    },
    AuditFails {
        replica: Option<usize>,
    },
    StepFails {
        step: usize,
        how: StepFailure,
        percent: u32,
    },
    /// Verbs of a step end only after so long, or when it is over.
    StepHangs {
        step: usize,
        seconds: i64,
    },
    /// Calls take up to so many seconds.
    Slow {
        replica: Option<usize>,
        seconds: i64,
    },
    /// A replica dies at the nth call that it makes from then on, and comes back after so long.
    Crash {
        replica: usize,
        calls: u32,
        down: i64,
    },
    /// Another replica leads from so much later on.
    Lead {
        gap: i64,
    },
    Clock {
        replica: usize,
        by: i64,
    },
    /// A person isolates, changes when it ends, approves, gives back, takes the object away by force, holds, pauses.
    Isolate {
        zone: usize,
        lasts: i64,
        overrides: bool,
    },
    Edit {
        lasts: i64,
    },
    Approve,
    Restore,
    Lose,
    Hold {
        zone: usize,
    },
    Pause,
    PauseUnknown,
    /// Others cordon a zone; take away some of our marks; drain a pod themselves.
    Cordon {
        zone: usize,
    },
    Unmark {
        zone: usize,
    },
    Drain {
        zone: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Zone,
    Regional,
    Staggered,
    Pod,
    /// On and off, each for so many seconds.
    Flapping(i64),
    /// The zones that are left bear less while one is out.
    Overload,
    /// Clients of the zone fail, wherever they call.
    Clients,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepFailure {
    Before,
    After,
    Half,
    Permanent,
}

impl Story {
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let zones = rng.random_range(2..=4);
        let mut story = Self {
            seed,
            zones,
            services: rng.random_range(1..=3),
            pods: rng.random_range(2..=4),
            replicas: if rng.random_bool(0.7) { 2 } else { 1 },
            requests: rng.random_range(1_500.0..6_000.0),
            probes: rng.random_bool(0.6),
            steps: [rng.random_bool(0.9), rng.random_bool(0.7), rng.random_bool(0.7)],
            settings: Settings::default(),
            disturbances: Vec::new(),
        };
        if story.steps == [false; 3] {
            story.steps[2] = true;
        }
        story.settings = settings(&mut rng, &story);
        story.disturbances =
            if story.is_plain() { vec![plain(&mut rng, &story)] } else { disturbances(&mut rng, &story) };
        story.disturbances.sort_by_key(|disturbance| disturbance.from);
        story
    }

    /// Whether nothing happens but one severe fault of one zone, which must be found and isolated.
    pub const fn is_plain(&self) -> bool {
        self.seed.is_multiple_of(20)
    }
}

fn one_of<T: Clone>(rng: &mut ChaCha8Rng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())].clone()
}

/// Shorter times than the defaults, so that a run sees many a beginning and end.
fn settings(rng: &mut ChaCha8Rng, story: &Story) -> Settings {
    let mut settings =
        Settings { mode: if rng.random_bool(0.85) { Mode::Enforce } else { Mode::Recommend }, ..Settings::default() };
    settings.decide.expires_after = Period::from_mins(rng.random_range(4..=20));
    settings.guard.cool_down = Period::from_mins(rng.random_range(1..=5));
    settings.guard.max_isolations_per_day = rng.random_range(1..=6);
    settings.guard.max_isolated_zones = if story.zones > 3 && rng.random_bool(0.3) { 2 } else { 1 };
    settings.guard.min_healthy_zones = if story.zones > 2 && rng.random_bool(0.2) { 2 } else { 1 };
    settings.guard.taints_nodes = story.steps[2];
    settings.recovery = RecoverySettings {
        mode: one_of(rng, &[ReturnMode::Evidence, ReturnMode::Evidence, ReturnMode::Timer, ReturnMode::Manual]),
        healthy_for: Period::from_secs(rng.random_range(30..=180)),
        refill: Period::from_secs(rng.random_range(0..=60)),
        shares: one_of(rng, &[vec![5.0, 25.0, 50.0, 100.0], vec![25.0, 100.0], vec![50.0], vec![]])
            .into_iter()
            .map(Ratio::from_percent)
            .collect(),
        trial: Period::from_secs(rng.random_range(15..=60)),
        longest_trial: Period::from_secs(rng.random_range(60..=240)),
        back_off: Period::from_secs(rng.random_range(30..=180)),
        gradual: story.steps[0],
        ..RecoverySettings::default()
    };
    settings.rollback.lasting = Period::from_secs(rng.random_range(15..=60));
    if rng.random_bool(0.3) {
        settings.drills.lasts = Period::from_mins(rng.random_range(2..=8));
        let at = format!("09:{:02}", rng.random_range(1..20));
        let schedule = serde_json::json!([{ "at": at }]);
        settings.drills.schedule =
            serde_json::from_value::<Vec<DrillTime>>(schedule).expect("a schedule of one time a day");
    }
    settings
}

fn disturbances(rng: &mut ChaCha8Rng, story: &Story) -> Vec<Disturbance> {
    let faults: Vec<Disturbance> = (0..rng.random_range(1..=3)).map(|_| fault(rng, story)).collect();
    let mut all = faults.clone();
    (0..rng.random_range(0..=5)).for_each(|_| all.push(trouble(rng, story, &faults)));
    (0..rng.random_range(0..=3)).for_each(|_| all.push(meddling(rng, story, &faults)));
    all
}

/// At any time; or, as most happens then, soon after a fault has begun.
fn during(rng: &mut ChaCha8Rng, faults: &[Disturbance], lasts: std::ops::Range<i64>, what: What) -> Disturbance {
    let from = if !faults.is_empty() && rng.random_bool(0.5) {
        (one_of(rng, faults).from + rng.random_range(15..240)).min(CALM - 60)
    } else {
        rng.random_range(0..CALM - 60)
    };
    let until = (from + rng.random_range(lasts)).min(CALM);
    Disturbance { from, until, what }
}

fn fault(rng: &mut ChaCha8Rng, story: &Story) -> Disturbance {
    let kind = match rng.random_range(0..100) {
        0..45 => Kind::Zone,
        45..57 => Kind::Regional,
        57..67 => Kind::Staggered,
        67..77 => Kind::Pod,
        77..85 => Kind::Flapping(rng.random_range(2..=10) * 15),
        85..93 => Kind::Overload,
        _ => Kind::Clients,
    };
    let one = rng.random_range(0..story.zones);
    let zones = match kind {
        Kind::Zone | Kind::Pod | Kind::Flapping(_) | Kind::Clients => vec![(one, 0)],
        Kind::Regional | Kind::Overload => (0..story.zones).map(|zone| (zone, 0)).collect(),
        Kind::Staggered => {
            let gap = rng.random_range(15..200);
            (0..story.zones).map(|nth| ((one + nth) % story.zones, nth as i64 * gap)).collect()
        }
    };
    let (errors, slow) = match rng.random_range(0..10) {
        0..4 => (rng.random_range(0.2..0.7), 1.0),
        4..7 => (rng.random_range(0.01..0.08), 1.0),
        7..9 => (0.0, rng.random_range(1.3..4.0)),
        _ => (rng.random_range(0.05..0.3), rng.random_range(1.2..2.0)),
    };
    during(rng, &[], 60..25 * 60, What::Fault { kind, zones, errors, slow })
}

fn plain(rng: &mut ChaCha8Rng, story: &Story) -> Disturbance {
    let what = What::Fault {
        kind: Kind::Zone,
        zones: vec![(rng.random_range(0..story.zones), 0)],
        errors: rng.random_range(0.2..0.7),
        slow: 1.0,
    };
    let from = rng.random_range(30..600);
    Disturbance { from, until: from + rng.random_range(240..900), what }
}

fn trouble(rng: &mut ChaCha8Rng, story: &Story, faults: &[Disturbance]) -> Disturbance {
    let replica = if rng.random_bool(0.5) { None } else { Some(rng.random_range(0..story.replicas)) };
    let one = rng.random_range(0..story.replicas);
    let lasts = 15..6 * 60;
    let what = match rng.random_range(0..100) {
        0..8 => What::Unobserved { replica },
        8..16 => {
            let zones = (0..story.zones).filter(|_| rng.random_bool(0.4)).collect();
            What::Lost { replica, zones }
        }
        16..24 => What::Late { replica, seconds: rng.random_range(5..120) },
        24..28 => What::Blind { replica },
        28..33 => What::Old { replica, seconds: rng.random_range(5..=OLDEST_VIEW) },
        33..40 => What::StoreFails { replica, percent: rng.random_range(5..=100) },
        40..48 => What::AuditFails { replica },
        48..60 => {
            let how = one_of(
                rng,
                &[
                    StepFailure::Before,
                    StepFailure::After,
                    StepFailure::Half,
                    StepFailure::Half,
                    StepFailure::Permanent,
                ],
            );
            What::StepFails { step: rng.random_range(0..3), how, percent: rng.random_range(20..=100) }
        }
        60..63 => What::StepHangs { step: rng.random_range(0..3), seconds: rng.random_range(20..290) },
        63..68 => What::Slow { replica, seconds: rng.random_range(2..=10) },
        68..84 => What::Crash { replica: one, calls: rng.random_range(0..60), down: rng.random_range(5..120) },
        84..92 => What::Lead { gap: rng.random_range(10..30) },
        _ => {
            let by = if rng.random_bool(0.6) { rng.random_range(1..=8) * 60 } else { -15 * rng.random_range(1..=2) };
            What::Clock { replica: one, by }
        }
    };
    during(rng, faults, lasts, what)
}

fn meddling(rng: &mut ChaCha8Rng, story: &Story, faults: &[Disturbance]) -> Disturbance {
    let zone = rng.random_range(0..story.zones);
    let what = match rng.random_range(0..100) {
        0..4 => What::Lose,
        4..9 => What::Edit { lasts: rng.random_range(-60..1200) },
        9..25 => What::Isolate { zone, lasts: rng.random_range(60..1200), overrides: rng.random_bool(0.5) },
        25..35 => What::Approve,
        35..55 => What::Restore,
        55..60 => What::Hold { zone },
        60..75 => What::Pause,
        75..80 => What::PauseUnknown,
        80..90 => What::Cordon { zone },
        90..95 => What::Unmark { zone },
        _ => What::Drain { zone },
    };
    let lasts = if what == What::Approve { 200..1_000 } else { 30..500 };
    during(rng, faults, lasts, what)
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s to {} s: {:?}", self.from, self.until, self.what)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { decide, guard, recovery, rollback, drills, mode, .. } = &self.settings;
        writeln!(
            f,
            "seed {}: {} zones, {} services of {} pods a zone, {:.0} requests a cycle; {} replicas; probes {}; steps \
             mesh, dns, taint {:?}",
            self.seed, self.zones, self.services, self.pods, self.requests, self.replicas, self.probes, self.steps
        )?;
        let (most, healthy, cool) = (guard.max_isolated_zones, guard.min_healthy_zones, guard.cool_down);
        writeln!(
            f,
            "  {mode:?}, expires after {}, at most {most} out, {healthy} healthy, cool-down {cool}, {} a day, rollback after {}",
            decide.expires_after, guard.max_isolations_per_day, rollback.lasting
        )?;
        writeln!(
            f,
            "  recovery {:?}: {} healthy, refill {}, shares {:?}, trial {} to {}, back-off {}; drills {:?}",
            recovery.mode,
            recovery.healthy_for,
            recovery.refill,
            recovery.shares.iter().map(ToString::to_string).collect::<Vec<_>>(),
            recovery.trial,
            recovery.longest_trial,
            recovery.back_off,
            drills.schedule.iter().map(|time| time.at.to_string()).collect::<Vec<_>>()
        )?;
        self.disturbances.iter().enumerate().try_for_each(|(nth, it)| writeln!(f, "  {nth}: {it}"))
    }
}
