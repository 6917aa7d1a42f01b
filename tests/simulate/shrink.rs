//! A story in which a promise is broken, made smaller for as long as the same promise is broken in what is left.

use std::fmt;
use std::str::FromStr;

use crate::promises::Broken;
use crate::run::run;
use crate::story::{Disturbance, Story, What};

/// What is shorter than this is not shortened.
const SHORTEST: i64 = 10;

/// One way to tell less. Disturbances are named by their place among those that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Drop(usize),
    /// It ends, or begins, by half its length nearer to the other end.
    Sooner(usize),
    Later(usize),
    /// The last one is left out.
    Replica,
    Zone,
    Service,
    Pod,
    Step(usize),
    /// Zones come back at once, no drill is planned, and nobody asks the pods.
    Shares,
    Drills,
    Probes,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop(nth) => write!(f, "drop={nth}"),
            Self::Sooner(nth) => write!(f, "sooner={nth}"),
            Self::Later(nth) => write!(f, "later={nth}"),
            Self::Replica => f.write_str("replica"),
            Self::Zone => f.write_str("zone"),
            Self::Service => f.write_str("service"),
            Self::Pod => f.write_str("pod"),
            Self::Step(nth) => write!(f, "step={nth}"),
            Self::Shares => f.write_str("shares"),
            Self::Drills => f.write_str("drills"),
            Self::Probes => f.write_str("probes"),
        }
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, nth) = word.split_once('=').unwrap_or((word, "0"));
        let nth = nth.parse::<usize>().map_err(|_| format!("`{word}`: a number is expected after ="))?;
        Ok(match name {
            "drop" => Self::Drop(nth),
            "sooner" => Self::Sooner(nth),
            "later" => Self::Later(nth),
            "replica" => Self::Replica,
            "zone" => Self::Zone,
            "service" => Self::Service,
            "pod" => Self::Pod,
            "step" => Self::Step(nth),
            "shares" => Self::Shares,
            "drills" => Self::Drills,
            "probes" => Self::Probes,
            _ => return Err(format!("`{word}` is no cut")),
        })
    }
}

/// What is left of a story; none if that can't be cut.
pub fn cut(story: &Story, cut: Cut) -> Option<Story> {
    let mut less = story.clone();
    let done = match cut {
        Cut::Drop(nth) => nth < less.disturbances.len() && (less.disturbances.remove(nth).until > 0),
        Cut::Sooner(nth) => less.disturbances.get_mut(nth).is_some_and(|it| shorten(it, false)),
        Cut::Later(nth) => less.disturbances.get_mut(nth).is_some_and(|it| shorten(it, true)),
        Cut::Replica => {
            less.replicas = less.replicas.saturating_sub(1);
            let named = |it: &Disturbance| replica_of(&it.what).is_some_and(|named| named >= less.replicas);
            less.replicas > 0 && !less.disturbances.iter().any(named)
        }
        Cut::Zone => {
            less.zones -= 1;
            let left = less.zones;
            less.zones > 1 && less.disturbances.iter_mut().all(|it| without_zone(&mut it.what, left))
        }
        Cut::Service => {
            less.services -= 1;
            less.services > 0
        }
        Cut::Pod => {
            less.pods -= 1;
            less.pods > 1
        }
        Cut::Step(nth) => {
            let configured = less.steps.get_mut(nth).is_some_and(std::mem::take);
            less.settings.guard.taints_nodes = less.steps[2];
            less.settings.recovery.gradual = less.steps[0];
            configured && less.steps != [false; 3]
        }
        Cut::Shares => !std::mem::take(&mut less.settings.recovery.shares).is_empty(),
        Cut::Drills => !std::mem::take(&mut less.settings.drills.schedule).is_empty(),
        Cut::Probes => std::mem::take(&mut less.probes),
    };
    done.then_some(less)
}

/// By half, if it has a length.
fn shorten(it: &mut Disturbance, later: bool) -> bool {
    let momentary = matches!(
        it.what,
        What::Lead { .. }
            | What::Isolate { .. }
            | What::Edit { .. }
            | What::Restore
            | What::Lose
            | What::Hold { .. }
            | What::Unmark { .. }
    );
    // Replicas look up every five seconds.
    let half = (it.until - it.from) / 10 * 5;
    if momentary || half < SHORTEST {
        return false;
    }
    if later {
        it.from += half;
    } else {
        it.until -= half;
    }
    true
}

const fn replica_of(what: &What) -> Option<usize> {
    match what {
        What::Unobserved { replica }
        | What::Lost { replica, .. }
        | What::Late { replica, .. }
        | What::Old { replica, .. }
        | What::Blind { replica }
        | What::StoreFails { replica, .. }
        | What::AuditFails { replica }
        | What::Slow { replica, .. } => *replica,
        What::Crash { replica, .. } | What::Clock { replica, .. } => Some(*replica),
        _ => None,
    }
}

/// Whether something is left of it where there is no such zone.
fn without_zone(what: &mut What, gone: usize) -> bool {
    match what {
        What::Fault { zones, .. } => {
            zones.retain(|(zone, _)| *zone != gone);
            !zones.is_empty()
        }
        What::Lost { zones, .. } => {
            zones.retain(|zone| *zone != gone);
            true
        }
        What::Isolate { zone, .. }
        | What::Hold { zone }
        | What::Cordon { zone }
        | What::Unmark { zone }
        | What::Drain { zone } => *zone != gone,
        _ => true,
    }
}

/// The least that still breaks the same promise, how it was cut, and what is broken in it.
pub fn shrink(whole: Story, broken: Broken) -> (Story, Vec<Cut>, Broken) {
    let (mut least, mut cuts, mut last, mut smaller) = (whole, Vec::new(), broken, true);
    while std::mem::take(&mut smaller) {
        let places = (0..least.disturbances.len()).rev();
        let shorter = places.clone().flat_map(|nth| [Cut::Sooner(nth), Cut::Later(nth)]);
        let smaller_mesh = [Cut::Replica, Cut::Zone, Cut::Service, Cut::Pod, Cut::Step(0), Cut::Step(1), Cut::Step(2)];
        let simpler = [Cut::Shares, Cut::Drills, Cut::Probes];
        let all: Vec<Cut> = places.map(Cut::Drop).chain(smaller_mesh).chain(simpler).chain(shorter).collect();
        for one in all {
            let Some(less) = cut(&least, one) else { continue };
            let again = run(less.clone(), false).broken.filter(|again| again.promise == last.promise);
            if let Some(again) = again {
                (least, last, smaller) = (less, again, true);
                cuts.push(one);
            }
        }
    }
    (least, cuts, last)
}
