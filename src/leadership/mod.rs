//! Which of several replicas acts: the holder of a Lease.
//!
//! Guarantees: of replicas whose clocks run at the same speed, however wrong they are set, at most one leads. A leader that
//! can't renew stops to lead before another may begin: it counts from before its last renewal was sent, a follower from
//! when it saw it. What a leader writes goes through a [`Fence`], which ends every call, however long its own time-out,
//! once the replica leads no more: so a stale leader overlaps by what it has sent already, at most one call a step.
//! Source: client-go's leaderelection.

mod fence;
mod standby;

pub use fence::{Fence, FencedStep, FencedStore};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::standby::Standbys;
use crate::domain::Zone;
use crate::kubernetes::{explain, status_code};

pub const LEASE_NAME: &str = "zoneward";
/// A follower waits so long after the last renewal that it saw.
const LEASE: Duration = Duration::from_secs(12);
/// A leader acts so long after it sent its last renewal. The rest of the lease is for what it sent just before.
const TRUST: Duration = Duration::from_secs(8);
const RENEW_EVERY: Duration = Duration::from_secs(2);
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(3);
/// So short that the next renewal is not late.
const STANDBY_TIMEOUT: Duration = Duration::from_secs(1);
/// After the death of a leader another leads within this time, where the API server answers.
pub const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);

// One renewal may fail. A follower may look just before the lease runs out.
const _: () = assert!(STANDBY_TIMEOUT.as_secs() < RENEW_EVERY.as_secs());
const _: () = assert!((RENEW_EVERY.as_secs() + 2 * RENEWAL_TIMEOUT.as_secs()) <= TRUST.as_secs());
const _: () = assert!(TRUST.as_secs() + 4 <= LEASE.as_secs());
const _: () =
    assert!(LEASE.as_secs() + 2 * RENEW_EVERY.as_secs() + RENEWAL_TIMEOUT.as_secs() < TAKEN_OVER_WITHIN.as_secs());

/// Whoever handed over and leads again, as the other did not, acts itself for so long.
const HANDS_OVER_EVERY: Duration = Duration::from_mins(10);

/// Until when this replica leads, as far as it knows.
#[derive(Debug, Default)]
struct Held {
    until: Option<Instant>,
    /// Counts its times of leading: what was begun in one of them does not go on in the next.
    term: u64,
    /// Whom the Lease is to go to.
    successor: Option<String>,
    handed_over_at: Option<Instant>,
}

impl Held {
    fn leads(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What replicas let each other know.
#[derive(Debug, Default)]
struct Known {
    /// Where this replica is ready to act, and until when that holds.
    ready_in: Option<(Zone, Instant)>,
    /// The others that are ready.
    standbys: BTreeMap<String, Zone>,
    /// Who held the Lease when it was last read, if it was another.
    leader: Option<String>,
}

fn of_replicas(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this replica leads, as of now.
#[derive(Debug, Clone)]
pub struct Leadership {
    held: Arc<Mutex<Held>>,
    known: Arc<Mutex<Known>>,
    changes: watch::Receiver<bool>,
    handing_over: Arc<Notify>,
}

impl Leadership {
    pub fn leads(&self) -> bool {
        lock(&self.held).leads()
    }

    /// The other replica that leads, as far as this one knows.
    pub fn leader(&self) -> Option<String> {
        of_replicas(&self.known).leader.clone()
    }

    /// Changes when this replica begins to lead, or ceases to.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.changes.clone()
    }

    /// Lets leaders know that this replica would do as well, as long as it says so again within that time.
    pub fn stand_by(&self, zone: Option<Zone>, lasts: Duration) {
        let ready_in = zone.map(|zone| (zone, Instant::now() + lasts));
        of_replicas(&self.known).ready_in = ready_in;
    }

    /// Leads no more, at once, if another is ready outside of that zone, who then leads: says who, and where. A replica to
    /// which the lead comes back keeps it for a while.
    pub fn hand_over(&self, away_from: Option<&Zone>) -> Option<(String, Zone)> {
        let standbys = of_replicas(&self.known).standbys.clone();
        let (identity, zone) = standbys.into_iter().find(|(_, zone)| Some(zone) != away_from)?;
        let mut held = lock(&self.held);
        if !held.leads() || held.handed_over_at.is_some_and(|at| at.elapsed() < HANDS_OVER_EVERY) {
            return None;
        }
        held.until = None;
        held.handed_over_at = Some(Instant::now());
        held.successor = Some(identity.clone());
        drop(held);
        self.handing_over.notify_one();
        Some((identity, zone))
    }

    /// What lets writes pass as long as this replica leads.
    pub fn fence(&self) -> Fence {
        Fence::new(Arc::clone(&self.held))
    }
}

/// Takes part until stopped, and then lets go, so that another need not wait.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    held: Arc<Mutex<Held>>,
    known: Arc<Mutex<Known>>,
    changed: watch::Sender<bool>,
    handing_over: Arc<Notify>,
    standbys: Standbys,
    /// The newest lease of another, and when it was first seen.
    seen: Option<(LeaseSpec, Instant)>,
    /// Whose lease was last said to be held.
    follows: Option<String>,
    trouble: bool,
}

impl Candidate {
    pub fn new(client: &Client, identity: String) -> (Self, Leadership) {
        let (held, known, handing_over) = <(Arc<Mutex<Held>>, Arc<Mutex<Known>>, Arc<Notify>)>::default();
        let (changed, changes) = watch::channel(false);
        let leadership = Leadership {
            held: Arc::clone(&held),
            known: Arc::clone(&known),
            changes,
            handing_over: Arc::clone(&handing_over),
        };
        let candidate = Self {
            api: Api::default_namespaced(client.clone()),
            standbys: Standbys::new(client, identity.clone()),
            identity,
            held,
            known,
            changed,
            handing_over,
            seen: None,
            follows: None,
            trouble: false,
        };
        (candidate, leadership)
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut turn = tokio::time::interval(RENEW_EVERY);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let handing_over = Arc::clone(&self.handing_over);
        loop {
            tokio::select! {
                _ = turn.tick() => self.turn().await,
                () = handing_over.notified() => self.turn().await,
                () = stop.cancelled() => break,
            }
        }
        if *self.changed.borrow() {
            self.set(None);
            let _left_to_expire = tokio::time::timeout(RENEWAL_TIMEOUT, self.pass_to(None)).await;
        }
    }

    async fn turn(&mut self) {
        let successor = lock(&self.held).successor.take();
        if let Some(successor) = successor {
            self.set(None);
            match tokio::time::timeout(RENEWAL_TIMEOUT, self.pass_to(Some(successor.clone()))).await {
                Ok(Ok(())) => tracing::info!("the Lease {LEASE_NAME} is handed over to {successor}"),
                Ok(Err(error)) => tracing::warn!("the Lease {LEASE_NAME} can't be handed over: {}", explain(&error)),
                Err(_) => tracing::warn!("the Lease {LEASE_NAME} can't be handed over: no answer in time"),
            }
            return;
        }
        let sent = Instant::now();
        match tokio::time::timeout(RENEWAL_TIMEOUT, self.try_to_hold()).await {
            Ok(Ok(true)) => {
                self.trouble = false;
                self.set(Some(sent + TRUST));
                self.note_standbys().await;
            }
            Ok(Ok(false)) => {
                self.trouble = false;
                self.set(None);
                self.note_standbys().await;
            }
            Ok(Err(error)) => self.doubt(&explain(&error)),
            Err(_) => self.doubt("no answer in time"),
        }
    }

    /// The lease could not be read or written: what was held is held until it runs out.
    fn doubt(&mut self, why: &str) {
        if !std::mem::replace(&mut self.trouble, true) {
            tracing::warn!(why, "the Lease {LEASE_NAME} can't be read or written: who leads is not known");
        }
        if !lock(&self.held).leads() {
            self.set(None);
        }
    }

    fn set(&mut self, until: Option<Instant>) {
        let leads = {
            let mut held = lock(&self.held);
            held.term += u64::from(!held.leads());
            held.until = until;
            held.leads()
        };
        if self.changed.send_if_modified(|known| std::mem::replace(known, leads) != leads) {
            if leads {
                tracing::info!(identity = self.identity, "this replica leads: it acts");
            } else {
                tracing::info!(identity = self.identity, "this replica leads no more: another acts, or none");
            }
        }
    }

    /// Whether the lease is ours now.
    async fn try_to_hold(&mut self) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(LEASE_NAME).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(LEASE_NAME.to_owned());
            lease.spec = Some(self.held(None));
            return lost_if_conflict(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.ran_out(&spec) {
            if self.follows.as_deref() != Some(holder) {
                tracing::info!(identity = self.identity, "this replica follows: {holder} holds the Lease {LEASE_NAME}");
                self.follows = Some(holder.to_owned());
                of_replicas(&self.known).leader.clone_from(&self.follows);
            }
            return Ok(false);
        }
        self.follows = None;
        of_replicas(&self.known).leader = None;
        lease.spec = Some(self.held(Some(&spec)));
        lost_if_conflict(self.api.replace(LEASE_NAME, &PostParams::default(), &lease).await)
    }

    /// Whether the other's lease has not changed for as long as it is worth, by our own clock.
    fn ran_out(&mut self, spec: &LeaseSpec) -> bool {
        match &self.seen {
            Some((known, since)) if known == spec => since.elapsed() > LEASE,
            Some(_) | None => {
                self.seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "an edge: a Lease says when it was renewed; nobody counts on it")]
    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Timestamp::now().as_nanosecond();
        let now = k8s_openapi::jiff::Timestamp::from_nanosecond(now).ok().map(MicroTime);
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(self.identity.as_str()));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE.as_secs() as i32),
            acquire_time: ours.map_or_else(|| now.clone(), |spec| spec.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(if ours.is_some() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    /// What is ours, to somebody else or to nobody.
    async fn pass_to(&self, successor: Option<String>) -> kube::Result<()> {
        let mut lease = self.api.get(LEASE_NAME).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
            if successor.is_some() {
                spec.acquire_time = self.held(None).acquire_time;
                spec.lease_transitions = spec.lease_transitions.map(|times| times + 1);
            }
            spec.holder_identity = successor;
            self.api.replace(LEASE_NAME, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    /// Beside the point of leading: what fails here is tried again in the next turn.
    async fn note_standbys(&mut self) {
        let leads = *self.changed.borrow();
        let ready_in = of_replicas(&self.known).ready_in.clone().filter(|(_, until)| !leads && Instant::now() < *until);
        let turn = self.standbys.turn(ready_in.map(|(zone, _)| zone));
        match tokio::time::timeout(STANDBY_TIMEOUT, turn).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(why = explain(&error), "who is ready to take over is not known"),
            Err(_) => tracing::debug!("who is ready to take over is not known: no answer in time"),
        }
        of_replicas(&self.known).standbys = self.standbys.ready(Instant::now());
    }
}

/// Another was quicker.
fn lost_if_conflict(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if status_code(&error) == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}
