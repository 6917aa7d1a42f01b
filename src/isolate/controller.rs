//! Runs the executor on a real cluster: whenever something changed, and by the clock; as long as this replica leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{HandsOver, Told, admission};
use super::execute::Executor;
use super::resource::ZoneIsolation;
use super::steps::Look;
use super::sweep::Sweeper;
use super::verb;
use crate::domain::{Isolation, Pause, Sight, Silences};
use crate::guard;
use crate::kubernetes;
use crate::ports::{AuditSink, IsolationStep, IsolationStore};

/// Between two turns while an isolation lasts, and while none does.
const BUSY_TURN: Duration = Duration::from_secs(1);
const IDLE_TURN: Duration = Duration::from_secs(10);
/// Between two looks for marks that no isolation accounts for.
const SWEEP_EVERY: Duration = Duration::from_secs(20);
/// Changes of the cluster that come together are looked at together, and not more often than that.
const DEBOUNCE: Duration = Duration::from_millis(200);
const DISTURBED_EVERY: Duration = Duration::from_secs(1);

/// What the controller runs on.
pub struct Controller {
    pub steps: Vec<Arc<dyn IsolationStep>>,
    pub store: Arc<dyn IsolationStore>,
    pub audit: Arc<dyn AuditSink>,
    pub guard: watch::Receiver<guard::Settings>,
    pub pause: watch::Receiver<Pause>,
    pub silences: watch::Receiver<Silences>,
    pub look: Arc<Look>,
    /// Isolations that have not ended, as this replica last saw them; empty on one that does not act.
    pub shown: watch::Sender<Vec<Isolation>>,
    /// The newest cycle.
    pub sights: watch::Receiver<Option<Arc<Sight>>>,
    /// Changes whenever something of the cluster does.
    pub cluster_changes: watch::Receiver<u64>,
    pub leads: Arc<dyn Fn() -> bool + Send + Sync>,
    pub leadership_changes: watch::Receiver<bool>,
    /// Asked right before the first write of an isolation: whether another replica is to do it, which leads from now on.
    pub hands_over: Box<HandsOver>,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Controller {
    pub async fn run(mut self, client: Client, tasks: TaskTracker, stop: CancellationToken) {
        let mut isolations = kubernetes::notice(Api::<ZoneIsolation>::all(client), &tasks, &stop);
        tasks.spawn(self.sweeper(stop.clone()));
        let leading = Arc::clone(&self.leads);
        let leads = Box::new(move || leading());
        let told = Told { guard: self.guard.clone(), pause: self.pause.clone(), silences: self.silences.clone() };
        let admit = admission(told, Arc::clone(&self.look), self.sights.clone(), self.hands_over);
        let mut executor = Executor::new(self.steps, Arc::clone(&self.store), Arc::clone(&self.audit), admit, leads)
            .pausable(self.pause.clone());
        let mut turned_at: Option<Instant> = None;
        let (mut disturbed_at, mut looked_at): (Option<Instant>, Option<Instant>) = (None, None);
        let mut trouble = Trouble::new("isolations are held as they are");
        let mut unsettled = Trouble::new("what was done can't be put on the ledger, and is done again");
        let mut led = false;
        loop {
            let mut at_once = false;
            tokio::select! {
                done = executor.ended() => {
                    if (self.leads)() {
                        unsettled.note(executor.settle(done, (self.now)()).await.err().map(|e| e.to_string()));
                    } else {
                        // Unsettled its step would wait for it for ever, should this replica lead again before the next look.
                        executor.abandon();
                    }
                    at_once = true;
                }
                Ok(()) = isolations.changed() => at_once = true,
                Ok(()) = self.pause.changed() => at_once = true,
                Ok(()) = self.sights.changed() => at_once = true,
                Ok(()) = self.leadership_changes.changed() => at_once = true,
                Ok(()) = self.cluster_changes.changed() => {
                    disturbed_at.get_or_insert_with(Instant::now);
                }
                () = tokio::time::sleep(DEBOUNCE) => {}
                () = stop.cancelled() => break,
            }
            if !(self.leads)() {
                if std::mem::take(&mut led) {
                    executor.abandon();
                    self.shown.send_replace(Vec::new());
                }
                continue;
            }
            led = true;
            let due = disturbed_at.is_some_and(|at| at.elapsed() >= DEBOUNCE);
            let rested = looked_at.is_none_or(|at| at.elapsed() >= DISTURBED_EVERY);
            let disturbed = due && rested && executor.any_out();
            if disturbed {
                looked_at = Some(Instant::now());
                executor.disturb();
            }
            if disturbed || !executor.any_out() {
                disturbed_at = None;
            }
            let patience = if executor.any_out() { BUSY_TURN } else { IDLE_TURN };
            if at_once || disturbed || turned_at.is_none_or(|at| at.elapsed() >= patience) {
                turned_at = Some(Instant::now());
                trouble.note(executor.turn(self.now).await.err().map(|e| e.to_string()));
                self.shown.send_replace(executor.active().to_vec());
            }
        }
    }
}

impl Controller {
    /// Every now and then, as long as this replica leads.
    fn sweeper(&self, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let (steps, store, audit) = (self.steps.clone(), Arc::clone(&self.store), Arc::clone(&self.audit));
        let (leads, pause, now) = (Arc::clone(&self.leads), self.pause.clone(), self.now);
        async move {
            let (mut sweeper, mut trouble) =
                (Sweeper::default(), Trouble::new("marks that no isolation accounts for, if any, stay"));
            loop {
                tokio::select! {
                    () = tokio::time::sleep(SWEEP_EVERY) => {}
                    () = stop.cancelled() => break,
                }
                if leads() && !pause.borrow().is_on() {
                    let sweep = sweeper.sweep(&steps, store.as_ref(), audit.as_ref(), now());
                    tokio::select! {
                        swept = sweep => trouble.note(swept.err().map(|error| error.to_string())),
                        _ = verb::paused(pause.clone()) => {}
                    }
                }
            }
        }
    }
}

/// Says once what keeps the executor from going on, and once that it does again.
struct Trouble {
    /// What it keeps from being done.
    of: &'static str,
    said: Option<String>,
}

impl Trouble {
    const fn new(of: &'static str) -> Self {
        Self { of, said: None }
    }

    fn note(&mut self, why: Option<String>) {
        if why == self.said {
            return;
        }
        if let Some(why) = &why {
            tracing::error!("{}: {why}", self.of);
        } else {
            tracing::info!("no longer so: {}", self.of);
        }
        self.said = why;
    }
}
