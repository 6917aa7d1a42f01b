//! The promises, as far as a run can tell whether they are kept: at each write, at each moment, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use zoneward::domain::{
    Admission, Event, Gap, Isolation, IsolationSpec, Mode, Origin, Record, Share, Sight, StepState, Zone,
};

use crate::stage::World;
use crate::steps::NAMES;
use crate::story::{Disturbance, Kind, What};
use crate::world::second;

/// What was said or done this long ago has reached everyone: a cycle, and a call.
const HEARD: i64 = 30;
/// What is over for so long is no reason any more.
const MEMORY: i64 = 20 * 60;

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub struct Broken {
    pub promise: u8,
    pub at: i64,
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {} is broken {} s after the start: {}", self.promise, self.at, self.why)
    }
}

/// Notes what is to be known of the past.
pub struct Watchman {
    pub broken: Option<Broken>,
    /// What happened, if somebody wants to know.
    pub trace: Option<Vec<String>>,
    /// How often what happened.
    pub seen: BTreeMap<&'static str, u64>,
    /// Zones that may be changed: since when it is on record that they are to be isolated.
    intended: BTreeMap<Zone, i64>,
    /// The newest record of each step's state.
    said: BTreeMap<(Zone, String), StepState>,
    /// When a person gave each zone back.
    pub given_back: Vec<Option<i64>>,
}

impl Watchman {
    pub fn new(zones: usize) -> Self {
        Self {
            broken: None,
            trace: None,
            seen: BTreeMap::new(),
            intended: BTreeMap::new(),
            said: BTreeMap::new(),
            given_back: vec![None; zones],
        }
    }

    pub fn say(&mut self, now: i64, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:6} {}", what()));
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

impl World {
    /// The first one counts: what follows may follow from it.
    pub fn breaks(&mut self, promise: u8, why: impl Into<String>) {
        let (at, why) = (self.now, why.into());
        self.say(|| format!("promise {promise} is broken: {why}"));
        self.watchman.broken.get_or_insert(Broken { promise, at, why });
    }

    fn expect(&mut self, promise: u8, kept: bool, why: impl FnOnce() -> String) {
        if !kept {
            self.breaks(promise, why());
        }
    }

    /// 2, 3, 5, 6: a wish of zoneward's own is created.
    pub fn note_wish(&mut self, replica: usize, spec: &IsolationSpec) {
        let zone = spec.zone.clone();
        self.say(|| format!("replica {replica} creates {:?} of {zone}", spec.origin));
        self.watchman.count(if spec.origin == Origin::Drill { "drill" } else { "isolation" });
        self.without_leading(replica, "creates an isolation");
        // A cycle that began before the pause may still ask; nothing comes of it, as the executor asks again.
        let knew = self.replicas[replica].told_at >= self.paused_at;
        self.expect(5, self.pause.is_off() || !knew, || format!("an isolation of {zone} is created in a pause"));
        let answered = self.replicas[replica].answered.clone();
        self.expect(2, answered.whole && !answered.lost.contains(&zone), || {
            format!("{zone} is to be isolated on {answered:?}")
        });
        self.expect(7, self.watchman.intended.contains_key(&zone), || {
            format!("{zone}: no record says that it is wanted")
        });
        if spec.origin == Origin::Detector {
            self.expect_a_fault_of_its_own(&zone);
            self.expect_not_given_back(&zone);
        }
    }

    /// 3: not where every zone is equally bad from the same moment, or one pod of three or more alone. Evidence of several
    /// faults at once can't be told apart here, so it asks only where for long there was no fault of another kind anywhere.
    fn expect_a_fault_of_its_own(&mut self, zone: &Zone) {
        let (since, now) = (self.now - MEMORY, self.now);
        let kind = |it: &Disturbance| match &it.what {
            What::Fault { kind, .. } if it.from <= now && since < it.until => Some(*kind),
            _ => None,
        };
        let kinds: Vec<Kind> = self.story.disturbances.iter().filter_map(kind).collect();
        let all = |wanted: Kind| !kinds.is_empty() && kinds.iter().all(|kind| *kind == wanted);
        self.expect(3, !all(Kind::Regional), || format!("{zone} is to be isolated for a fault of all zones"));
        let one_pod = self.story.pods > 2 && all(Kind::Pod) && kinds.len() == 1;
        self.expect(3, !one_pod, || format!("{zone} is to be isolated for a fault of one pod"));
    }

    /// 5: what a person gave back is not taken again while the same fault lasts.
    fn expect_not_given_back(&mut self, zone: &Zone) {
        let (Some(at), now) = (self.mesh.at(zone), self.now) else { return };
        let Some(given_back) = self.watchman.given_back[at].filter(|given_back| now - given_back > HEARD) else {
            return;
        };
        let always = (0..=(now - given_back) / 5)
            .all(|nth| self.mesh.faults_of(at, given_back + nth * 5).any(|(kind, _)| kind == Kind::Zone));
        self.expect(5, !always, || format!("{zone} was given back by a person at {given_back}, in the same fault"));
    }

    /// 6: whoever does not lead begins nothing, but for what it was about to.
    fn without_leading(&mut self, replica: usize, what: &str) {
        if !self.leads(replica) {
            self.replicas[replica].stale_writes += 1;
            let writes = self.replicas[replica].stale_writes;
            self.expect(6, writes <= 1, || format!("replica {replica} {what} without leading, {writes} times"));
        }
    }

    /// 1, 2, 4, 5, 6: the ledger changes.
    pub fn note_ledger(&mut self, replica: usize, before: &[Isolation], isolation: &Isolation) {
        let zone = isolation.zone().clone();
        let known = before.iter().find(|known| known.id == isolation.id);
        self.say(|| {
            let steps = isolation.steps.iter().map(|(name, entry)| format!("{name} {:?}", entry.state));
            let steps = steps.collect::<Vec<_>>().join(", ");
            format!(
                "replica {replica} saves {zone} ({}): {:?}, {steps}, isolated {}, returning {}, restored {}",
                isolation.id,
                isolation.admission,
                isolation.isolated_at.is_some(),
                isolation.returning_since.is_some(),
                isolation.restored_at.is_some()
            )
        });
        let admitted = |it: &Isolation| it.admitted_at().is_some();
        if admitted(isolation) && known.is_some_and(|known| !admitted(known)) {
            self.note_admission(replica, before, isolation);
        }
        if let Admission::Refused(reason) = &isolation.admission
            && known.is_some_and(|known| known.admission == Admission::Pending)
        {
            self.watchman.count("refused");
            self.say(|| format!("refused: {reason}"));
        }
        for (name, entry) in &isolation.steps {
            let was = known.and_then(|known| known.steps.get(name)).map(|entry| entry.state);
            if entry.state == StepState::Stuck && was != Some(StepState::Stuck) {
                self.watchman.count("stuck");
                let said = self.watchman.said.get(&(zone.clone(), name.to_string())).copied();
                let loud = said == Some(StepState::Stuck) || self.replicas[replica].injected > 0;
                self.expect(4, loud, || format!("{name} of {zone} is stuck, and no record says so: {said:?}"));
            }
        }
        if !isolation.active() {
            self.watchman.count("ended");
            // What went on record a moment ago may be of the next one.
            self.watchman.intended.retain(|of, since| *of != zone || self.now - *since < HEARD);
        }
    }

    fn note_admission(&mut self, replica: usize, before: &[Isolation], isolation: &Isolation) {
        let zone = isolation.zone().clone();
        self.watchman.count("admitted");
        self.without_leading(replica, "admits an isolation");
        let paused = !self.pause.is_off() && self.now - self.paused_at > HEARD;
        self.expect(5, !paused, || format!("an isolation of {zone} is admitted in a pause"));
        let most = self.story.settings.guard.max_isolated_zones as usize;
        let ours = before.iter().filter(|i| i.holds_zone_out()).map(|i| i.zone().clone());
        let heard = self.now - HEARD;
        let marked = self.mesh.places.iter().filter(|place| place.marked());
        let others = self.mesh.places.iter().filter(|place| place.cordoned.is_some_and(|since| since < heard));
        let mut out: BTreeSet<Zone> = ours.chain(marked.chain(others).map(|place| place.name.clone())).collect();
        out.insert(zone.clone());
        self.expect(1, out.len() <= most, || format!("{out:?} are out with {zone}, and {most} may be"));
        if isolation.spec.overrides.contains("stale_data") {
            return;
        }
        let Some(sight) = self.replicas[replica].passed_on.clone() else {
            return self.breaks(2, format!("{zone} is admitted before anything was seen"));
        };
        let age = second(self.clock(replica)) - second(sight.snapshot.time);
        let whole = sight.snapshot.global_gaps().next().is_none();
        let stale_after = self.story.settings.guard.stale_after.signed().as_secs();
        // The moment that it goes by is from before the store was read: two calls of ten seconds.
        self.expect(2, whole && age.abs() <= stale_after + 25, || {
            format!("{zone} is admitted on data of {age} s ago, whole: {whole}")
        });
        let healthy = healthy(&sight, &out);
        let needed = self.story.settings.guard.min_healthy_zones as usize;
        self.expect(1, healthy >= needed, || format!("{zone} leaves {healthy} healthy zones, and {needed} must be"));
    }

    pub fn note_course(&mut self, replica: usize, isolation: &Isolation) {
        let (zone, recovery) = (isolation.zone(), &isolation.recovery);
        let stage = recovery.as_ref().map(|recovery| recovery.stage);
        self.say(|| format!("replica {replica} saves the course of {zone} ({}): {stage:?}", isolation.id));
    }

    /// 7: what is done is on record first, and what is not done has a reason. Of what came of a step nothing is said by a
    /// record that its writer takes for lost.
    pub fn note_record(&mut self, replica: usize, record: &Record, known: bool) {
        let event = record.event;
        self.say(|| format!("replica {replica} records {event}: {}", record.message));
        self.watchman.count(event.as_str());
        let reasoned = !matches!(event, Event::Blocked | Event::Refused) || record.reason.is_some();
        self.expect(7, reasoned, || format!("no reason is given: {}", record.message));
        let Some(zone) = record.zone.clone() else { return };
        if matches!(event, Event::Isolate | Event::Admitted) && !record.rehearsal {
            self.watchman.intended.insert(zone.clone(), self.now);
        }
        if let Some(step) = record.step.as_ref().filter(|_| known) {
            self.watchman.said.insert((zone, step.name.to_string()), step.state);
        }
    }

    /// 5, 6: a verb begins.
    pub fn note_verb(&mut self, replica: usize, step: usize, zone: usize, share: Share) {
        let name = self.mesh.places[zone].name.clone();
        self.say(|| format!("replica {replica} sets {} of {name} to {share}", NAMES[step]));
        if self.pause.is_on() && self.now - self.paused_at > HEARD && !self.asked_back(&name) {
            self.breaks(5, format!("{} of {name} is set to {share} in a pause", NAMES[step]));
        }
        if share < Share::FULL && !self.leads(replica) {
            self.replicas[replica].stale_verbs[step] += 1;
            let verbs = self.replicas[replica].stale_verbs[step];
            self.expect(6, verbs <= 1, || format!("replica {replica} runs {verbs} verbs without leading"));
        }
    }

    fn asked_back(&self, zone: &Zone) -> bool {
        self.mesh.at(zone).is_some_and(|at| self.watchman.given_back[at].is_some())
    }

    /// 7: something is about to change.
    pub fn note_change(&mut self, replica: usize, step: usize, zone: usize, share: Share) {
        let place = &self.mesh.places[zone];
        let (name, first) = (place.name.clone(), !place.marked());
        self.say(|| format!("replica {replica} changes {} of {name} to {share}", NAMES[step]));
        if share < Share::FULL && first {
            self.expect(7, self.watchman.intended.contains_key(&name), || {
                format!("{} of {name} changes first, and no record says that it is to be isolated", NAMES[step])
            });
        }
    }

    /// 1: something has changed.
    pub fn after_change(&mut self, _: usize) {
        let out: Vec<&Zone> = self.mesh.places.iter().filter(|p| p.marked()).map(|p| &p.name).collect();
        let most = self.story.settings.guard.max_isolated_zones as usize;
        let why = format!("{out:?} carry our marks, and {most} may be out");
        self.expect(1, out.len() <= most, || why);
    }

    /// 4: in the calm end nothing outlasts its end.
    pub fn expect_ends(&mut self, isolations: &[Isolation], calm_since: i64) {
        for isolation in isolations.iter().filter(|isolation| isolation.active()) {
            let ends_at = second(isolation.ends_at()).max(calm_since);
            let zone = isolation.zone();
            self.expect(4, self.now <= ends_at + 600, || {
                format!("the isolation of {zone} was to end at {ends_at}, and is there still: {isolation:?}")
            });
        }
    }

    /// 4: all is as it was.
    pub fn expect_clean(&mut self) {
        let marked: Vec<Zone> = self.mesh.places.iter().filter(|p| p.marked()).map(|p| p.name.clone()).collect();
        self.expect(4, marked.is_empty(), || format!("{marked:?} carry our marks, and nobody isolates them"));
    }

    /// 8: whatever optional part is missing, a severe fault of one zone is found and, where the mode says so, isolated.
    pub fn expect_found(&mut self) {
        let wanted = if self.story.settings.mode == Mode::Enforce { "isolated" } else { "isolate" };
        let found = self.watchman.seen.contains_key(wanted);
        let possible = self.story.settings.guard.min_healthy_zones < self.story.zones as u32;
        self.expect(8, found || !possible || !self.story.is_plain() || self.story.disturbances.is_empty(), || {
            format!("nothing was {wanted}")
        });
    }

    /// 8, 6: what came of a cycle or of a turn, where nothing was made to fail.
    pub fn expect_no_trouble(&mut self, replica: usize, injected: u32, trouble: &str) {
        let natural = trouble.contains("has an active isolation already") || trouble.contains("no active isolation");
        let spared = self.replicas[replica].injected == injected && !natural;
        self.say(|| format!("replica {replica} is in trouble: {trouble}"));
        self.expect(8, !spared, || format!("nothing failed, and yet: {trouble}"));
        self.expect(6, !trouble.contains("this is a defect"), || trouble.to_owned());
    }
}

/// Zones that are left, and known to be usable.
fn healthy(sight: &Sight, out: &BTreeSet<Zone>) -> usize {
    let lost = |zone: &Zone| sight.snapshot.gaps.iter().filter_map(Gap::zone).any(|lost| lost == zone);
    let left = sight.assessment.zones.iter().filter(|(zone, _)| !out.contains(*zone) && !lost(zone));
    left.filter(|(_, finding)| finding.verdict.leaves_zone_usable()).count()
}
