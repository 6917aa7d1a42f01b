//! What all replicas share: the mesh, the store, the journal, the clock; and the fate of each call.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use zoneward::domain::{Isolation, Pause, Sight, Zone};
use zoneward::isolate::MemoryStore;

use crate::promises::Watchman;
use crate::story::{StepFailure, Story, What};
use crate::world::{Mesh, moment};

pub struct Stage {
    pub world: Mutex<World>,
    pub memory: MemoryStore,
    pub pause: watch::Sender<Pause>,
}

pub struct World {
    /// In seconds since the start, by a clock that nobody has.
    pub now: i64,
    pub story: Story,
    pub mesh: Mesh,
    pub replicas: Vec<Facts>,
    /// What people asked for, which no replica can take back.
    pub restored: BTreeMap<String, Timestamp>,
    pub approved: BTreeSet<String>,
    /// When an isolation is to end instead, and the edition that says so.
    pub edited: BTreeMap<String, (Timestamp, i64)>,
    /// Those whose objects were taken away by force.
    pub lost: BTreeSet<String>,
    pub pause: Pause,
    /// Changes with it.
    pub pauses: u64,
    pub paused_at: i64,
    /// When somebody leads again, if nobody does.
    pub next: Option<i64>,
    pub fate: ChaCha8Rng,
    pub watchman: Watchman,
    sleepers: Vec<(i64, Waker)>,
}

/// What is true of a replica, whatever it knows.
#[derive(Debug, Default)]
pub struct Facts {
    pub alive: bool,
    pub leads: bool,
    /// How far its clock is wrong.
    pub clock: i64,
    /// The number of calls after which it dies.
    pub dies_in: Option<u32>,
    pub died: bool,
    /// Verbs, and writes to the store, that it began without leading.
    pub stale_verbs: [u32; 3],
    pub stale_writes: u32,
    pub injected: u32,
    /// When its cycle was last told whether there is a pause.
    pub told_at: i64,
    /// What it last saw.
    pub sight: Option<watch::Receiver<Option<Arc<Sight>>>>,
    pub answered: Answered,
    /// What it had seen when guardrails last let pass.
    pub passed_on: Option<Arc<Sight>>,
}

/// What the last look at the metrics gave.
#[derive(Debug, Default, Clone)]
pub struct Answered {
    pub whole: bool,
    pub lost: BTreeSet<Zone>,
}

/// Where a replica is held up, or dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Store,
    Audit,
    /// Of that step.
    Verb(usize),
    /// Between two writes of a verb.
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Goes,
    /// It fails without an effect, or after it.
    Before,
    After,
}

enum Held {
    Not,
    /// Others have a turn first.
    Turn,
    Until(i64),
    ForEver,
}

impl Stage {
    pub fn new(story: Story) -> Arc<Self> {
        let mut fate = ChaCha8Rng::seed_from_u64(story.seed);
        fate.set_stream(2);
        let world = World {
            now: 0,
            mesh: Mesh::new(&story),
            replicas: (0..story.replicas).map(|_| Facts::default()).collect(),
            restored: BTreeMap::new(),
            approved: BTreeSet::new(),
            edited: BTreeMap::new(),
            lost: BTreeSet::new(),
            pause: Pause::Off,
            pauses: 0,
            paused_at: 0,
            next: Some(0),
            fate,
            watchman: Watchman::new(story.zones),
            sleepers: Vec::new(),
            story,
        };
        let (pause, _) = watch::channel(Pause::Off);
        Arc::new(Self { world: Mutex::new(world), memory: MemoryStore::default(), pause })
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_pause(&self, pause: Pause) {
        let mut world = self.lock();
        (world.pause, world.pauses, world.paused_at) = (pause.clone(), world.pauses + 1, world.now);
        world.sleepers.drain(..).for_each(|(_, waker)| waker.wake());
        drop(world);
        self.pause.send_replace(pause);
    }

    /// A call that a replica makes: it may be held up there, or die.
    pub async fn pass(self: &Arc<Self>, replica: usize, place: Place) {
        let (held, pauses) = {
            let mut world = self.lock();
            (world.held_up(replica, place), world.pauses)
        };
        let (until, turn) = match held {
            Held::Not => return,
            Held::Turn => (None, true),
            Held::Until(until) => (Some(until), false),
            Held::ForEver => return std::future::pending().await,
        };
        Wait { stage: Arc::clone(self), until, turn, pauses }.await;
    }

    /// Till then whoever waits is held.
    pub async fn sleep(self: &Arc<Self>, until: i64) {
        let pauses = self.lock().pauses;
        Wait { stage: Arc::clone(self), until: Some(until), turn: false, pauses }.await;
    }
}

impl World {
    /// The moment by a replica's clock.
    pub fn clock(&self, replica: usize) -> Timestamp {
        moment(self.now + self.replicas[replica].clock)
    }

    pub fn set_time(&mut self, now: i64) {
        self.now = now;
        let (due, later) = std::mem::take(&mut self.sleepers).into_iter().partition(|(until, _)| *until <= now);
        self.sleepers = later;
        let due: Vec<(i64, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Disturbances of now, that concern a replica if they concern one.
    pub fn disturbs<T>(&self, find: impl Fn(&What) -> Option<T>) -> Option<T> {
        let now = self.now;
        self.story.disturbances.iter().filter(|it| it.from <= now && now < it.until).find_map(|it| find(&it.what))
    }

    fn held_up(&mut self, replica: usize, place: Place) -> Held {
        let facts = &mut self.replicas[replica];
        if let Some(calls) = facts.dies_in {
            facts.dies_in = calls.checked_sub(1);
            if facts.dies_in.is_none() {
                facts.died = true;
                return Held::ForEver;
            }
        }
        let slow = self.disturbs(|what| match what {
            What::Slow { replica: of, seconds } if of.is_none_or(|of| of == replica) => Some(*seconds),
            _ => None,
        });
        if let Some(seconds) = slow.filter(|_| place != Place::Audit && place != Place::Write)
            && self.fate.random_bool(0.3)
        {
            return Held::Until(self.now + self.fate.random_range(1..=seconds));
        }
        // Only the first call of a verb knows of which step it is.
        if let Place::Verb(step) = place
            && let Some(seconds) = self.disturbs(|what| match what {
                What::StepHangs { step: of, seconds } if *of == step => Some(*seconds),
                _ => None,
            })
        {
            return Held::Until(self.now + seconds);
        }
        // A verb always lets others have a turn, so that which of several ends first is never left to chance.
        if matches!(place, Place::Verb(_)) || self.fate.random_bool(0.2) { Held::Turn } else { Held::Not }
    }

    fn chance(&mut self, replica: usize, percent: Option<u32>) -> Fate {
        let Some(percent) = percent else { return Fate::Goes };
        if !self.fate.random_bool(f64::from(percent) / 100.0) {
            return Fate::Goes;
        }
        self.replicas[replica].injected += 1;
        if self.fate.random_bool(0.5) { Fate::Before } else { Fate::After }
    }

    pub fn fate_in_store(&mut self, replica: usize) -> Fate {
        let percent = self.disturbs(|what| match what {
            What::StoreFails { replica: of, percent } if of.is_none_or(|of| of == replica) => Some(*percent),
            _ => None,
        });
        self.chance(replica, percent)
    }

    pub fn fate_in_audit(&mut self, replica: usize) -> Fate {
        let fails = self.disturbs(|what| match what {
            What::AuditFails { replica: of } if of.is_none_or(|of| of == replica) => Some(100),
            _ => None,
        });
        self.chance(replica, fails)
    }

    pub fn fate_of_step(&mut self, step: usize) -> Option<StepFailure> {
        let (how, percent) = self.disturbs(|what| match what {
            What::StepFails { step: of, how, percent } if *of == step => Some((*how, *percent)),
            _ => None,
        })?;
        self.fate.random_bool(f64::from(percent) / 100.0).then_some(how)
    }

    /// As whoever asks gets it: with what people asked for.
    pub fn with_wishes(&self, mut isolations: Vec<Isolation>) -> Vec<Isolation> {
        isolations.retain(|isolation| !self.lost.contains(&isolation.id));
        for isolation in isolations.iter_mut().filter(|isolation| isolation.active()) {
            isolation.restore_requested_at = self.restored.get(&isolation.id).copied();
            if self.approved.contains(&isolation.id) {
                isolation.spec.approved = true;
            }
            if let Some((expires_at, generation)) = self.edited.get(&isolation.id) {
                isolation.spec.expires_at = *expires_at;
                isolation.edited = isolation.generation != *generation;
                isolation.generation = *generation;
            }
        }
        isolations
    }

    pub fn leads(&self, replica: usize) -> bool {
        self.replicas[replica].leads
    }

    /// It leads no more, where another can.
    pub fn let_go(&mut self, replica: usize) {
        let another = self.replicas.iter().enumerate().any(|(nth, facts)| nth != replica && facts.alive);
        if another && std::mem::take(&mut self.replicas[replica].leads) {
            self.say(|| format!("replica {replica} lets another lead"));
            self.next = Some(self.now + 1);
        }
    }

    /// Asked once guardrails let pass: whether another is to act, as this one is in the sick zone. That is left to chance.
    pub fn hands_over(&mut self, replica: usize) -> bool {
        self.replicas[replica].passed_on = self.newest(replica);
        if self.leads(replica) && self.fate.random_bool(0.1) {
            self.let_go(replica);
        }
        !self.leads(replica)
    }

    pub fn newest(&self, replica: usize) -> Option<Arc<Sight>> {
        self.replicas[replica].sight.as_ref()?.borrow().clone()
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        self.watchman.say(now, what);
    }
}

pub const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// Waits for a turn, or for a time. Where a pause began or ended meanwhile, whoever else waits for that goes first.
struct Wait {
    stage: Arc<Stage>,
    until: Option<i64>,
    turn: bool,
    pauses: u64,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let stage = Arc::clone(&self.stage);
        let mut world = stage.lock();
        if std::mem::replace(&mut self.pauses, world.pauses) != world.pauses || std::mem::take(&mut self.turn) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.until {
            Some(until) if world.now < until => {
                world.sleepers.push((until, context.waker().clone()));
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(()),
        }
    }
}
