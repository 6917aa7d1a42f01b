//! A run: time passes, disturbances come and go, and replicas do what they do, in an order that is left to chance.

use std::sync::Arc;

use futures::FutureExt;
use rand::RngExt;
use zoneward::domain::cluster::Draining;
use zoneward::domain::{Isolation, IsolationSpec, OperatorHold, Origin, Pause, Share};
use zoneward::ports::IsolationStore;

use crate::promises::Watchman;
use crate::replica::Replica;
use crate::stage::{SECOND, Stage};
use crate::story::{CALM, Story, What};
use crate::world::{CYCLE, moment};

const STEP: i64 = 5;
/// Longer than any isolation of a story can last.
const END: i64 = CALM + 5 * 3600;
/// For so long all must have been quiet at the end.
const QUIET: i64 = 120;
/// Polls in one moment: more would be a loop.
const MOST_POLLS: usize = 20_000;

pub struct Run {
    stage: Arc<Stage>,
    replicas: Vec<Option<Replica>>,
    /// When a dead one comes back.
    back_at: Vec<i64>,
    begun: Vec<bool>,
    ended: Vec<bool>,
}

/// Tells a story to its end, or until a promise is broken.
pub fn run(story: Story, traced: bool) -> Watchman {
    let (count, disturbances) = (story.replicas, story.disturbances.len());
    let stage = Stage::new(story);
    stage.lock().watchman.trace = traced.then(Vec::new);
    let mut run = Run {
        replicas: (0..count).map(|_| None).collect(),
        back_at: vec![0; count],
        begun: vec![false; disturbances],
        ended: vec![false; disturbances],
        stage,
    };
    run.tell();
    let zones = run.stage.lock().story.zones;
    std::mem::replace(&mut run.stage.lock().watchman, Watchman::new(zones))
}

impl Run {
    fn tell(&mut self) {
        let (mut now, mut quiet_since) = (0, None);
        while now < END {
            now += STEP;
            {
                let mut world = self.stage.lock();
                world.set_time(now);
                world.mesh.remember(now);
                if now % CYCLE == 0 {
                    world.mesh.serve(now);
                }
            }
            self.disturb(now);
            self.elect(now);
            self.replicas.iter_mut().flatten().for_each(Replica::begin);
            self.go_on(now);
            if self.stage.lock().watchman.broken.is_some() {
                return;
            }
            if now < CALM {
                continue;
            }
            let isolations = self.isolations();
            self.stage.lock().expect_ends(&isolations, CALM);
            let clean = self.stage.lock().mesh.places.iter().all(|place| !place.marked());
            let quiet = clean && isolations.iter().all(|isolation| !isolation.active());
            let since = *quiet_since.get_or_insert(now);
            if !quiet {
                quiet_since = None;
            } else if now - since >= QUIET {
                break;
            }
        }
        let mut world = self.stage.lock();
        world.expect_clean();
        world.expect_found();
    }

    fn isolations(&self) -> Vec<Isolation> {
        let all = self.stage.memory.list().now_or_never().and_then(Result::ok).unwrap_or_default();
        self.stage.lock().with_wishes(all)
    }

    /// Whoever is woken goes on, in any order, until all wait for something.
    fn go_on(&mut self, now: i64) {
        for _ in 0..MOST_POLLS {
            let replicas = self.replicas.iter().enumerate();
            let woken: Vec<(usize, usize)> = replicas
                .flat_map(|(nth, replica)| replica.iter().flat_map(Replica::woken).map(move |activity| (nth, activity)))
                .collect();
            if woken.is_empty() {
                return;
            }
            let (nth, activity) = woken[self.stage.lock().fate.random_range(0..woken.len())];
            if let Some(replica) = &mut self.replicas[nth] {
                replica.go_on(activity);
            }
            if self.stage.lock().replicas[nth].died {
                self.die(nth, now);
            }
        }
        self.stage.lock().breaks(6, "it never comes to rest");
    }

    fn die(&mut self, nth: usize, now: i64) {
        self.replicas[nth] = None;
        let mut world = self.stage.lock();
        let down = world.disturbs(|what| match what {
            What::Crash { replica, down, .. } if *replica == nth => Some(*down),
            _ => None,
        });
        self.back_at[nth] = now + down.unwrap_or(10);
        world.say(|| format!("replica {nth} dies"));
        world.watchman.count("death");
        let facts = &mut world.replicas[nth];
        (facts.alive, facts.died, facts.dies_in, facts.sight) = (false, false, None, None);
        if std::mem::take(&mut facts.leads) {
            world.next = Some(now + world.fate.random_range(10..30));
        }
    }

    /// Dead replicas come back, and somebody leads again once the Lease has run out.
    fn elect(&mut self, now: i64) {
        for nth in 0..self.replicas.len() {
            if self.replicas[nth].is_none() && now >= self.back_at[nth] {
                self.stage.lock().replicas[nth].alive = true;
                self.replicas[nth] = Some(Replica::start(&self.stage, nth));
            }
        }
        let mut world = self.stage.lock();
        let Some(at) = world.next else { return };
        let alive: Vec<usize> = (0..self.replicas.len()).filter(|nth| world.replicas[*nth].alive).collect();
        if now < at || alive.is_empty() {
            return;
        }
        let leader = alive[world.fate.random_range(0..alive.len())];
        world.next = None;
        let facts = &mut world.replicas[leader];
        (facts.leads, facts.stale_verbs, facts.stale_writes) = (true, [0; 3], 0);
        world.say(|| format!("replica {leader} leads"));
    }

    fn disturb(&mut self, now: i64) {
        for nth in 0..self.begun.len() {
            let disturbance = self.stage.lock().story.disturbances[nth].clone();
            if !self.begun[nth] && now >= disturbance.from {
                self.begun[nth] = true;
                self.stage.lock().say(|| format!("-- {disturbance}"));
                self.begin(&disturbance.what, disturbance.until, now);
            }
            if self.begun[nth] && !self.ended[nth] && now >= disturbance.until {
                self.ended[nth] = true;
                self.stage.lock().say(|| format!("-- over: {disturbance}"));
                self.end(&disturbance.what);
            }
        }
    }

    fn begin(&mut self, what: &What, until: i64, now: i64) {
        match what {
            What::Crash { replica, calls, .. } => {
                let mut world = self.stage.lock();
                if world.replicas[*replica].alive {
                    world.replicas[*replica].dies_in = Some(*calls);
                }
            }
            What::Lead { gap } => {
                let mut world = self.stage.lock();
                if let Some(facts) = world.replicas.iter_mut().find(|facts| facts.leads) {
                    facts.leads = false;
                    world.next = Some(now + gap);
                    world.say(|| "nobody leads".to_owned());
                }
            }
            What::Clock { replica, by } => self.stage.lock().replicas[*replica].clock += by,
            What::Isolate { zone, lasts, overrides } => self.isolate(*zone, *lasts, *overrides),
            What::Restore => {
                for isolation in self.isolations().iter().filter(|isolation| isolation.active()) {
                    let mut world = self.stage.lock();
                    world.restored.insert(isolation.id.clone(), moment(now));
                    // Who takes back a wish of their own before it began has not spoken of zoneward's.
                    let of_zoneward = isolation.spec.origin == Origin::Detector || isolation.holds_zone_out();
                    if let Some(at) = world.mesh.at(isolation.zone()).filter(|_| of_zoneward) {
                        world.watchman.given_back[at] = Some(now);
                    }
                }
            }
            What::Edit { lasts } => {
                for isolation in self.isolations().iter().filter(|isolation| isolation.active()) {
                    let edition = (moment(now + lasts), isolation.generation + 1);
                    self.stage.lock().edited.insert(isolation.id.clone(), edition);
                }
            }
            What::Lose => self.lose(now),
            What::Hold { zone } => {
                let zone = self.stage.lock().mesh.places[*zone].name.clone();
                let hold = OperatorHold { since: moment(now), why: "a migration".to_owned(), until_healthy: false };
                let _done = self.stage.memory.hold(&zone, hold).now_or_never();
            }
            What::Pause => {
                let until = Some(moment(until));
                self.stage.set_pause(Pause::On { since: moment(now), until, why: "a release".to_owned() });
            }
            What::PauseUnknown => self.stage.set_pause(Pause::Unknown { why: "no answer".to_owned() }),
            What::Cordon { zone } => self.stage.lock().mesh.places[*zone].cordoned = Some(now),
            What::Unmark { zone } => {
                let place = &mut self.stage.lock().mesh.places[*zone];
                place.tainted[0] = false;
                if let Some(pod) = place.pods.first_mut().filter(|pod| pod.draining != Draining::Others) {
                    pod.draining = Draining::No;
                }
            }
            What::Drain { zone } => {
                let place = &mut self.stage.lock().mesh.places[*zone];
                if let Some(pod) = place.pods.last_mut().filter(|pod| pod.draining == Draining::No) {
                    pod.draining = Draining::Others;
                }
            }
            What::Approve
            | What::Fault { .. }
            | What::Unobserved { .. }
            | What::Lost { .. }
            | What::Late { .. }
            | What::Old { .. }
            | What::Blind { .. }
            | What::StoreFails { .. }
            | What::AuditFails { .. }
            | What::StepFails { .. }
            | What::StepHangs { .. }
            | What::Slow { .. } => {}
        }
    }

    fn end(&mut self, what: &What) {
        match what {
            What::Clock { replica, by } => self.stage.lock().replicas[*replica].clock -= by,
            What::Pause | What::PauseUnknown => self.stage.set_pause(Pause::Off),
            What::Cordon { zone } => self.stage.lock().mesh.places[*zone].cordoned = None,
            What::Drain { zone } => {
                for pod in &mut self.stage.lock().mesh.places[*zone].pods {
                    if pod.draining == Draining::Others {
                        pod.draining = Draining::No;
                    }
                }
            }
            What::Approve => {
                for isolation in self.isolations().iter().filter(|isolation| isolation.active()) {
                    self.stage.lock().approved.insert(isolation.id.clone());
                }
            }
            What::Crash { replica, .. } => self.stage.lock().replicas[*replica].dies_in = None,
            What::Lead { .. }
            | What::Isolate { .. }
            | What::Restore
            | What::Edit { .. }
            | What::Lose
            | What::Hold { .. }
            | What::Unmark { .. }
            | What::Fault { .. }
            | What::Unobserved { .. }
            | What::Lost { .. }
            | What::Late { .. }
            | What::Old { .. }
            | What::Blind { .. }
            | What::StoreFails { .. }
            | What::AuditFails { .. }
            | What::StepFails { .. }
            | What::StepHangs { .. }
            | What::Slow { .. } => {}
        }
    }

    /// Objects go, with what they said. An address has no mark that tells of it, so those that took one away stay.
    fn lose(&mut self, now: i64) {
        for isolation in self.isolations().into_iter().filter(Isolation::active) {
            if self.stage.lock().story.steps[1] {
                continue;
            }
            let gone = Isolation { restored_at: Some(moment(now)), ..isolation };
            let _done = self.stage.memory.save(&gone).now_or_never();
            let mut world = self.stage.lock();
            // Where nothing was done yet, nothing is left that tells of it.
            if let Some(at) = world.mesh.at(gone.zone()).filter(|at| world.mesh.places[*at].marked()) {
                world.watchman.given_back[at] = Some(now);
            }
            world.lost.insert(gone.id);
        }
    }

    fn isolate(&mut self, zone: usize, lasts: i64, overrides: bool) {
        let (zone, now) = {
            let world = self.stage.lock();
            (world.mesh.places[zone].name.clone(), moment(world.now))
        };
        let overrides: &[&str] =
            if overrides { &["stale_data", "regional_fault", "cooling_down", "budget_spent"] } else { &[] };
        let spec = IsolationSpec {
            zone,
            origin: Origin::Operator,
            reason: "a person knows why".to_owned(),
            evidence: Vec::new(),
            expires_at: now + SECOND * lasts as i32,
            share: Share::NONE,
            only: Default::default(),
            overrides: overrides.iter().map(|name| (*name).to_owned()).collect(),
            approved: true,
        };
        let _there_may_be_one = self.stage.memory.create(spec, now).now_or_never();
    }
}
