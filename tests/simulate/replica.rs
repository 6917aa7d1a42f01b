//! One replica: the pipeline in its cycles, the executor in its turns, and the sweeper, as the daemon runs them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::watch;
use zoneward::domain::{CycleLength, Gap, Isolation, Period, Silences, Snapshot};
use zoneward::isolate::{Executor, Sweeper, Told, admission};
use zoneward::pipeline::{Pipeline, TickError};
use zoneward::ports::{IsolationStep, Observer};

use crate::ends::Ends;
use crate::stage::Stage;
use crate::steps::steps;
use crate::world::{CYCLE, PAST};

/// Cycles that are caught up with.
const MOST_CAUGHT_UP: i64 = 240;
/// Between two looks for marks that no isolation accounts for, in seconds.
const SWEEP_EVERY: i64 = 20;

pub fn cycle() -> CycleLength {
    CycleLength::at_least(Period::from_secs(CYCLE))
}

/// What it thinks with.
struct Mind {
    ends: Ends,
    pipeline: Pipeline,
    seen_until: Option<Timestamp>,
}

impl Mind {
    /// As `zoneward run` does it.
    async fn cycle(mut self, due: Timestamp) -> Self {
        if self.seen_until.is_some_and(|seen| due <= seen) {
            return self;
        }
        let step = cycle().signed();
        if self.seen_until.is_none() {
            let last = due - step;
            let first = last - step * (PAST / CYCLE) as i32;
            if let Ok(past) = self.ends.observe(first, last).await {
                past.iter().for_each(|snapshot| self.pipeline.learn(snapshot));
                self.seen_until = Some(last);
            }
        }
        let oldest = due - step * (MOST_CAUGHT_UP as i32 - 1);
        let first = self.seen_until.map_or(due, |seen| seen + step).max(oldest);
        let view = self.ends.look().ok();
        let mut snapshots = match self.ends.clone().observe(first, due).await {
            Ok(snapshots) => {
                self.seen_until = Some(due);
                snapshots
            }
            Err(error) => vec![Snapshot::unobserved(due, Gap::QueryFailed { why: error.to_string() })],
        };
        if let Some(newest) = snapshots.last_mut() {
            newest.cluster = view;
        }
        let (leads, pause) = {
            let mut world = self.ends.stage.lock();
            world.replicas[self.ends.replica].told_at = world.now;
            (world.leads(self.ends.replica), world.pause.clone())
        };
        self.pipeline.lead(leads);
        self.pipeline.pause(pause);
        for snapshot in &snapshots {
            let injected = self.injected();
            let mut eyes = self.ends.clone();
            let Err(error) = self.pipeline.tick(&mut eyes, snapshot, due).await else { continue };
            let mut world = self.ends.stage.lock();
            world.expect_no_trouble(self.ends.replica, injected, &error.to_string());
            if matches!(error, TickError::Audit(_)) {
                // Whoever can put nothing on record lets another act.
                world.let_go(self.ends.replica);
            }
        }
        self
    }

    fn injected(&self) -> u32 {
        self.ends.stage.lock().replicas[self.ends.replica].injected
    }
}

/// What it acts with.
struct Hands {
    ends: Ends,
    executor: Executor,
    led: bool,
}

impl Hands {
    fn now(&self) -> Timestamp {
        self.ends.stage.lock().clock(self.ends.replica)
    }

    fn leads(&self) -> bool {
        self.ends.stage.lock().leads(self.ends.replica)
    }

    fn note(&self, injected: u32, error: Option<String>) {
        if let Some(error) = error {
            self.ends.stage.lock().expect_no_trouble(self.ends.replica, injected, &error);
        }
    }

    fn injected(&self) -> u32 {
        self.ends.stage.lock().replicas[self.ends.replica].injected
    }

    /// As the controller does it: what has ended is settled, and what is due begins.
    async fn turn(mut self) -> Self {
        if !self.leads() {
            if std::mem::take(&mut self.led) {
                self.executor.abandon();
            }
            return self;
        }
        self.led = true;
        self.settle().await;
        let injected = self.injected();
        let ends = self.ends.clone();
        let turned = self.executor.turn(move || ends.stage.lock().clock(ends.replica)).await;
        self.note(injected, turned.err().map(|error| error.to_string()));
        self.settle().await;
        self
    }

    async fn settle(&mut self) {
        // Verbs let others have a turn, and this lets them go on after it.
        for _ in 0..12 {
            while let Some(done) = self.executor.ended().now_or_never() {
                if self.leads() {
                    let injected = self.injected();
                    let settled = self.executor.settle(done, self.now()).await;
                    self.note(injected, settled.err().map(|error| error.to_string()));
                } else {
                    self.executor.abandon();
                }
            }
            if !self.executor.any_out() && self.executor.active().is_empty() {
                return;
            }
            let mut turn = false;
            std::future::poll_fn(|context: &mut Context<'_>| {
                context.waker().wake_by_ref();
                if std::mem::replace(&mut turn, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}

/// Undoes what no isolation accounts for.
struct Broom {
    ends: Ends,
    sweeper: Sweeper,
    steps: Vec<Arc<dyn IsolationStep>>,
}

impl Broom {
    async fn sweep(mut self) -> Self {
        let now = self.ends.stage.lock().clock(self.ends.replica);
        let injected = self.ends.stage.lock().replicas[self.ends.replica].injected;
        let swept = self.sweeper.sweep(&self.steps, &self.ends, &self.ends, now).await;
        let mut world = self.ends.stage.lock();
        match swept {
            Ok(0) => {}
            Ok(_) => world.watchman.count("swept"),
            Err(error) if error.to_string().contains(": ") => world.say(|| format!("sweeping: {error}")),
            Err(error) => world.expect_no_trouble(self.ends.replica, injected, &error.to_string()),
        }
        drop(world);
        self
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Something that is at rest, or on its way.
struct Activity<T> {
    rest: Option<T>,
    way: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    woken: Arc<Woken>,
}

impl<T> Activity<T> {
    fn new(rest: T) -> Self {
        Self { rest: Some(rest), way: None, woken: Arc::default() }
    }

    fn begin<F: Future<Output = T> + Send + 'static>(&mut self, begin: impl FnOnce(T) -> F) {
        if let Some(rest) = self.rest.take() {
            self.way = Some(Box::pin(begin(rest)));
            self.woken.0.store(true, Ordering::Relaxed);
        }
    }

    fn is_woken(&self) -> bool {
        self.way.is_some() && self.woken.0.load(Ordering::Relaxed)
    }

    fn go_on(&mut self) {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        let Some(way) = &mut self.way else { return };
        if let Poll::Ready(rest) = way.as_mut().poll(&mut Context::from_waker(&waker)) {
            (self.rest, self.way) = (Some(rest), None);
        }
    }
}

pub struct Replica {
    ends: Ends,
    mind: Activity<Mind>,
    hands: Activity<Hands>,
    broom: Activity<Broom>,
    swept_at: i64,
}

impl Replica {
    /// A new process, which knows nothing but what is stored.
    pub fn start(stage: &Arc<Stage>, replica: usize) -> Self {
        let ends = Ends { stage: Arc::clone(stage), replica };
        let (settings, configured) = {
            let world = stage.lock();
            (world.story.settings.clone(), world.story.steps)
        };
        let (guard, told) = watch::channel(settings.guard.clone());
        let (_, silences) = watch::channel(Silences::default());
        let told = Told { guard: told, pause: stage.pause.subscribe(), silences };
        drop(guard);
        let (sights, seen) = watch::channel(None);
        stage.lock().replicas[replica].sight = Some(seen.clone());
        let looks = ends.clone();
        let elsewhere = ends.clone();
        let hands_over = Box::new(move |_: &Isolation, _| elsewhere.stage.lock().hands_over(elsewhere.replica));
        let admit = admission(told, Arc::new(move || looks.look()), seen, hands_over);
        let steps = steps(&ends, configured);
        let leads = ends.clone();
        let leads = Box::new(move || leads.stage.lock().leads(leads.replica));
        let (store, audit) = (Arc::new(ends.clone()), Arc::new(ends.clone()));
        let executor = Executor::new(steps.clone(), store.clone(), audit.clone(), admit, leads);
        let executor = executor.pausable(stage.pause.subscribe());
        let mut pipeline = Pipeline::new(settings, cycle(), store, audit);
        pipeline.show_to(Arc::new(sights));
        Self {
            mind: Activity::new(Mind { ends: ends.clone(), pipeline, seen_until: None }),
            hands: Activity::new(Hands { ends: ends.clone(), executor, led: false }),
            broom: Activity::new(Broom { ends: ends.clone(), sweeper: Sweeper::default(), steps }),
            swept_at: 0,
            ends,
        }
    }

    /// What is due at this moment begins.
    pub fn begin(&mut self) {
        let (now, clock, leads, paused) = {
            let world = self.ends.stage.lock();
            let replica = self.ends.replica;
            (world.now, world.clock(replica), world.leads(replica), world.pause.is_on())
        };
        let due = cycle().at_or_before(clock);
        if self.mind.rest.as_ref().is_some_and(|mind| mind.seen_until.is_none_or(|seen| due > seen)) {
            self.mind.begin(|mind| mind.cycle(due));
        }
        self.hands.begin(Hands::turn);
        if leads && !paused && now - self.swept_at >= SWEEP_EVERY {
            self.swept_at = now;
            self.broom.begin(Broom::sweep);
        }
    }

    pub fn woken(&self) -> impl Iterator<Item = usize> {
        let woken = [self.mind.is_woken(), self.hands.is_woken(), self.broom.is_woken()];
        (0..3).filter(move |nth| woken[*nth])
    }

    pub fn go_on(&mut self, activity: usize) {
        match activity {
            0 => self.mind.go_on(),
            1 => self.hands.go_on(),
            _ => self.broom.go_on(),
        }
    }
}
