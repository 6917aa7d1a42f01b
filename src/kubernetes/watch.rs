//! The cluster as reflectors keep it, so that looking costs the API server nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::view::{Objects, view};
use super::{Settings, bounded, capacity, explain};
use crate::domain::ClusterView;

/// A watch whose failures go on for so long shows an old cluster.
const STALE_AFTER: Duration = Duration::from_secs(30);
/// Once the API server answers again, nothing is done before its watches do: none waits for long.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// Said of what has only begun to be read.
pub const NOT_YET: &str = "are not read yet";
/// Failures farther apart do not belong together.
const FORGIVEN_AFTER: Duration = Duration::from_secs(90);

/// Nodes, pods, services and namespaces, kept up to date.
pub struct ClusterWatch {
    nodes: Store<Node>,
    pods: Store<Pod>,
    services: Store<Service>,
    namespaces: Store<Namespace>,
    volumes: Store<PersistentVolume>,
    budgets: Store<PodDisruptionBudget>,
    settings: Settings,
    health: Arc<Health>,
    /// Of volumes and budgets, which acting does without.
    beside: Arc<Health>,
    changes: watch::Receiver<u64>,
}

impl ClusterWatch {
    /// Watches until stopped.
    pub fn start(client: &Client, settings: &Settings, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let ((edges, changes), (beside, _)) = (Edges::new(stop), Edges::new(stop));
        Self {
            nodes: keep_all(client, "nodes", tasks, &edges),
            pods: keep_all(client, "pods", tasks, &edges),
            services: keep_all(client, "services", tasks, &edges),
            namespaces: keep_all(client, "namespaces", tasks, &edges),
            volumes: keep_all(client, "persistentvolumes", tasks, &beside),
            budgets: keep_all(client, "poddisruptionbudgets", tasks, &beside),
            settings: settings.clone(),
            health: edges.health,
            beside: beside.health,
            changes,
        }
    }

    /// The cluster now, or why it is not known.
    pub fn view(&self) -> Result<ClusterView, String> {
        self.health.trouble().map_or(Ok(()), Err)?;
        let (nodes, pods) = (self.nodes.state(), self.pods.state());
        let (services, namespaces) = (self.services.state(), self.namespaces.state());
        let objects = Objects { nodes: &nodes, pods: &pods, services: &services, namespaces: &namespaces };
        let mut seen = view(&objects, &self.settings);
        capacity::add(&mut seen, &pods, &self.volumes.state(), &self.budgets.state());
        seen.unread = self.beside.trouble();
        Ok(seen)
    }

    /// Changes whenever something of it does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The cluster, read once.
pub async fn read(client: &Client, settings: &Settings) -> kube::Result<ClusterView> {
    let (nodes, pods) = (list::<Node>(client).await?, list::<Pod>(client).await?);
    let (services, namespaces) = (list::<Service>(client).await?, list::<Namespace>(client).await?);
    let objects = Objects { nodes: &nodes, pods: &pods, services: &services, namespaces: &namespaces };
    let mut seen = view(&objects, settings);
    let (volumes, budgets) = (list::<PersistentVolume>(client).await, list::<PodDisruptionBudget>(client).await);
    seen.unread = volumes.as_ref().err().or(budgets.as_ref().err()).map(explain);
    capacity::add(&mut seen, &pods, &volumes.unwrap_or_default(), &budgets.unwrap_or_default());
    Ok(seen)
}

/// All of a kind, in pages, so that no answer is too large.
pub async fn list<K>(client: &Client) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(500);
    loop {
        let page = bounded(api.list(&params)).await?;
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        found.extend(page.items);
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}

/// What watches that belong together share.
#[derive(Clone)]
pub(super) struct Edges {
    pub health: Arc<Health>,
    changed: Arc<watch::Sender<u64>>,
    stop: CancellationToken,
}

impl Edges {
    pub fn new(stop: &CancellationToken) -> (Self, watch::Receiver<u64>) {
        let (sender, changes) = watch::channel(0);
        (Self { health: Arc::default(), changed: Arc::new(sender), stop: stop.clone() }, changes)
    }
}

fn keep_all<K>(client: &Client, kind: &'static str, tasks: &TaskTracker, edges: &Edges) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    keep(Api::all(client.clone()), watcher::Config::default(), kind, tasks, edges.clone())
}

pub(super) fn keep<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: &'static str,
    tasks: &TaskTracker,
    edges: Edges,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, writer): (Store<K>, Writer<K>) = reflector::store();
    edges.health.expect(kind);
    tasks.spawn(async move {
        let events = watcher(api, config)
            .modify(|object| object.managed_fields_mut().clear())
            .backoff(Retries::default())
            .reflect(writer);
        let events = events.take_until(edges.stop.clone().cancelled_owned());
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                // A list that begins has not succeeded yet.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(event @ (watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_))) => {
                    edges.health.saw(kind, matches!(event, watcher::Event::InitDone));
                    edges.changed.send_modify(|count| *count += 1);
                }
                Err(error) => {
                    let why = error_of(&error);
                    tracing::debug!(kind, why, "a watch failed");
                    edges.health.failed(kind, why);
                }
            }
        }
    });
    store
}

/// Counts what happens to objects of a kind.
pub fn notice<K>(api: Api<K>, tasks: &TaskTracker, stop: &CancellationToken) -> watch::Receiver<u64>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (sender, changes) = watch::channel(0);
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        let events = watcher(api, watcher::Config::default()).backoff(Retries::default()).take_until(stopped);
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => sender.send_modify(|count| *count += 1),
                Err(error) => tracing::debug!(why = error_of(&error), "a watch failed"),
            }
        }
    });
    changes
}

/// How long a watch that failed waits: as by default, up to a bound of our own in place of a minute.
#[derive(Default)]
struct Retries(DefaultBackoff);

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_RETRY))
    }
}

impl Backoff for Retries {
    fn reset(&mut self) {
        self.0.reset();
    }
}

fn error_of(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => explain(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// How each watch fares.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<BTreeMap<&'static str, Fare>>);

#[derive(Debug, Default)]
struct Fare {
    synced: bool,
    /// First and last of failures that belong together, and the last one's words.
    failing: Option<(Instant, Instant, String)>,
}

impl Health {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<&'static str, Fare>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn expect(&self, kind: &'static str) {
        self.with(|fares| fares.insert(kind, Fare::default()));
    }

    fn saw(&self, kind: &'static str, synced: bool) {
        self.with(|fares| {
            let fare = fares.entry(kind).or_default();
            fare.synced |= synced;
            fare.failing = None;
        });
    }

    fn failed(&self, kind: &'static str, why: String) {
        let now = Instant::now();
        self.with(|fares| {
            let fare = fares.entry(kind).or_default();
            let first = match &fare.failing {
                Some((first, last, _)) if now.duration_since(*last) < FORGIVEN_AFTER => *first,
                Some(_) | None => now,
            };
            fare.failing = Some((first, now, why));
        });
    }

    pub fn trouble(&self) -> Option<String> {
        let stale = |failing: &Option<(Instant, Instant, String)>| {
            let (first, last, why) = failing.as_ref()?;
            let goes_on = last.elapsed() < FORGIVEN_AFTER && first.elapsed() >= STALE_AFTER;
            goes_on.then(|| why.clone())
        };
        self.with(|fares| {
            fares.iter().find_map(|(kind, fare)| match (fare.synced, stale(&fare.failing), &fare.failing) {
                (false, _, Some((_, _, why))) => Some(format!("{kind} can't be read: {why}")),
                (false, _, None) => Some(format!("{kind} {NOT_YET}")),
                (true, Some(why), _) => Some(format!("{kind} can't be watched: {why}")),
                (true, None, _) => None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_is_tried_again_soon_however_long_it_has_failed() {
        let waits: Vec<Duration> = Retries::default().take(40).collect();
        assert_eq!(waits.len(), 40, "it is never given up");
        assert!(waits[0] < Duration::from_secs(2), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST_RETRY), "{waits:?}");
    }
}
