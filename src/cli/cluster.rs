//! The daemon's eyes on the cluster, and its hands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::cluster::PodId;
use crate::domain::{ClusterView, Event, Isolation, Mode, Pause, Record, Sight, Silences, Zone};
use crate::guard;
use crate::isolate::steps::{self, Look};
use crate::isolate::{Controller, HandsOver, KubernetesStore};
use crate::kubernetes::{self, ClusterWatch, ConnectError};
use crate::leadership::{Candidate, FencedStep, FencedStore, Leadership};
use crate::notify::{self, Acting, Alertmanager, Count, InHand, KubernetesEvents, Webhook};
use crate::observe::ZoneFrom;
use crate::ports::{AuditSink, IsolationStep, IsolationStore, Notifier};
use crate::settings::Settings;

/// The cluster, where it can be seen.
pub(super) struct Eyes {
    cluster: Option<(Client, Arc<ClusterWatch>)>,
    /// This replica's name, on the Lease as on Events.
    identity: String,
    /// What was last said of a cluster that can't be seen.
    said: Mutex<Option<String>>,
    /// What tells whether this replica acts, and on what.
    in_hand: Arc<OnceLock<Watched>>,
}

type Watched = (Leadership, watch::Receiver<Vec<Isolation>>, watch::Receiver<Pause>);

/// Begins to watch the cluster. To act, or to look zones up, takes one; else only the cluster that the process runs in, or
/// one that is named, is surely that of the metrics.
pub(super) async fn look_on(
    settings: &Settings,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Eyes, ConnectError> {
    let needed = needs_cluster(settings);
    let surely = is_surely_that_of_the_metrics(settings);
    let client = match kubernetes::connect(&settings.kubernetes).await {
        Ok(client) if needed || surely => Some(client),
        Ok(_) => None,
        Err(error) if needed => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "the cluster is not looked at");
            None
        }
    };
    let cluster = client.map(|client| {
        let watch = ClusterWatch::start(&client, &settings.kubernetes, tasks, stop);
        (client, Arc::new(watch))
    });
    Ok(Eyes { cluster, identity: identity(), said: Mutex::default(), in_hand: Arc::default() })
}

/// Whether there is no doing without: to act, and to look zones up.
pub(super) fn needs_cluster(settings: &Settings) -> bool {
    settings.mode != Mode::Observe || settings.prometheus.zone_from == ZoneFrom::Node
}

pub(super) fn is_surely_that_of_the_metrics(settings: &Settings) -> bool {
    settings.kubernetes.context.is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

impl Eyes {
    /// The cluster now, if it is known; says once why not.
    pub(super) fn view(&self) -> Option<ClusterView> {
        let (_, watch) = self.cluster.as_ref()?;
        let view = watch.view();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let why = view.as_ref().err().cloned();
        if *said != why {
            if why.as_ref().is_some_and(|why| why.ends_with(kubernetes::NOT_YET)) {
                tracing::info!("the cluster is being read");
            } else if let Some(why) = &why {
                tracing::warn!("the cluster can't be seen, so guardrails that need it can't be asked: {why}");
            } else {
                tracing::info!("the cluster is seen");
            }
            *said = why;
        }
        view.ok()
    }

    /// All that people are told by. In observe mode that takes no cluster.
    pub(super) fn notifiers(
        &self,
        settings: &Settings,
        count: &Arc<Count>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Vec<Arc<dyn Notifier>> {
        let mut notifiers: Vec<Arc<dyn Notifier>> = Vec::new();
        let notify::Settings { alertmanager, webhook } = settings.notify.clone();
        let acting = self.acting(settings.mode);
        if let Some((client, _)) = self.cluster.as_ref().filter(|_| settings.mode != Mode::Observe) {
            let (identity, count) = (self.identity.clone(), count.clone());
            notifiers.push(Arc::new(KubernetesEvents::start(client, identity, count, tasks, stop)));
        }
        if let Some(settings) = alertmanager {
            let (acting, count) = (acting.clone(), count.clone());
            notifiers.push(Arc::new(Alertmanager::start(settings, acting, count, super::now, tasks, stop)));
        }
        if let Some(settings) = webhook {
            notifiers.push(Arc::new(Webhook::start(settings, acting, count.clone(), tasks, stop)));
        }
        notifiers
    }

    /// Whoever only observes has nothing in hand, and tells of it.
    fn acting(&self, mode: Mode) -> Arc<Acting> {
        if mode == Mode::Observe {
            return Arc::new(|| Some(InHand::default()));
        }
        let in_hand = Arc::clone(&self.in_hand);
        Arc::new(move || {
            let (leadership, isolations, pause) = in_hand.get()?;
            // In this order: whoever ceases to lead forgets them.
            let in_hand = InHand { isolations: isolations.borrow().clone(), pause: pause.borrow().clone() };
            leadership.leads().then_some(in_hand)
        })
    }

    /// This replica's name, and whether it is the one that acts.
    pub(super) fn replica(&self, hands: &Hands) -> (String, Leadership) {
        (self.identity.clone(), hands.leadership.clone())
    }

    pub(super) fn where_it_acts(&self, mode: Mode) -> String {
        let acting = self.cluster.as_ref().filter(|_| mode != Mode::Observe);
        acting.map_or_else(String::new, |(client, _)| {
            format!(", with its Lease in the namespace {}", client.default_namespace())
        })
    }

    /// Takes part in the election, and carries isolations out whenever this replica leads.
    pub(super) fn hands(
        &self,
        settings: &Settings,
        audit: Arc<dyn AuditSink>,
        silences: watch::Receiver<Silences>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Hands> {
        let Some((client, watch)) = &self.cluster else { anyhow::bail!("to act takes a Kubernetes API") };
        let (candidate, leadership) = Candidate::new(client, self.identity.clone());
        let fence = leadership.fence();
        let zones = Arc::new(KubernetesStore::new(client));
        let store: Arc<dyn IsolationStore> = Arc::new(FencedStore { store: zones.clone(), fence: fence.clone() });
        let looked = Arc::clone(watch);
        let look: Arc<Look> = Arc::new(move || looked.view());
        let (shown, isolations) = watch::channel(Vec::new());
        let (sights, seen) = watch::channel(None);
        let sights = Arc::new(sights);
        let (guard, seen_guard) = watch::channel(settings.guard.clone());
        let leads = leadership.clone();
        let pause = kubernetes::watch_pause(client, super::now, tasks, stop);
        let controller = Controller {
            steps: steps::steps(&settings.steps, client, &look)
                .into_iter()
                .map(|step| FencedStep { step, fence: fence.clone() })
                .map(|step| Arc::new(step) as Arc<dyn IsolationStep>)
                .collect(),
            store: store.clone(),
            audit: audit.clone(),
            guard: seen_guard,
            pause: pause.clone(),
            silences,
            look,
            shown,
            sights: seen,
            cluster_changes: watch.changes(),
            leads: Arc::new(move || leads.leads()),
            leadership_changes: leadership.changes(),
            hands_over: self.hands_over(leadership.clone(), audit, tasks),
            now: super::now,
        };
        let _only_here = self.in_hand.set((leadership.clone(), isolations.clone(), pause.clone()));
        // Who has stopped to act lets go of the Lease, and not before.
        let idle = CancellationToken::new();
        tasks.spawn(candidate.run(idle.clone()));
        let (client, tasks_of_controller, stop) = (client.clone(), tasks.clone(), stop.clone());
        let executor = tasks.spawn(async move {
            let _at_its_end = idle.drop_guard();
            controller.run(client, tasks_of_controller, stop).await;
        });
        let (executor, verdicts) = (Some(executor), BTreeMap::new());
        Ok(Hands { store, zones, leadership, isolations, sights, guard, pause, executor, verdicts })
    }
}

impl Eyes {
    /// Where this process runs, as its environment and the cluster say.
    pub(super) fn here(&self) -> Option<Zone> {
        let (client, watch) = self.cluster.as_ref()?;
        here(&watch.view().ok()?, client.default_namespace())
    }

    /// A zone is isolated from outside of it, if somebody is ready there: who is in it may be as sick as the rest of it.
    fn hands_over(&self, leadership: Leadership, audit: Arc<dyn AuditSink>, tasks: &TaskTracker) -> Box<HandsOver> {
        let (cluster, tasks) = (self.cluster.clone(), tasks.clone());
        Box::new(move |isolation, now| {
            let view = cluster.as_ref().and_then(|(client, watch)| Some((client, watch.view().ok()?)));
            let here = view.and_then(|(client, view)| here(&view, client.default_namespace()));
            let Some(zone) = here.filter(|zone| zone == isolation.zone()) else { return false };
            let Some((who, elsewhere)) = leadership.hand_over(Some(&zone)) else { return false };
            let message =
                format!("{zone} is to be isolated, and this replica is in it: {who} in {elsewhere} acts from now on");
            let (record, audit) = (Record::new(now, Event::HandedOver, message).zone(&zone), audit.clone());
            tasks.spawn(async move {
                if let Err(error) = audit.append(record).await {
                    tracing::error!("that {who} acts from now on is not on record: {error}");
                }
            });
            true
        })
    }
}

fn here(view: &ClusterView, namespace: &str) -> Option<Zone> {
    let named = |variable: &str| std::env::var(variable).ok().filter(|name| !name.is_empty());
    let of_node = |name: String| view.nodes.get(&name)?.zone.clone();
    let of_pod = |name: String| view.pods.get(&PodId { namespace: namespace.to_owned(), name })?.zone.clone();
    let pod = || ["POD_NAME", "HOSTNAME"].into_iter().filter_map(named).find_map(of_pod);
    // A pod in its node's network has the node's name.
    named("NODE_NAME").and_then(of_node).or_else(pod).or_else(|| named("HOSTNAME").and_then(of_node))
}

/// What carries isolations out.
pub(super) struct Hands {
    pub store: Arc<dyn IsolationStore>,
    zones: Arc<KubernetesStore>,
    leadership: Leadership,
    /// What the executor carries out.
    pub isolations: watch::Receiver<Vec<Isolation>>,
    /// What the executor sees of the newest cycle.
    pub sights: Arc<watch::Sender<Option<Arc<Sight>>>>,
    /// As the executor is to apply it.
    pub guard: watch::Sender<guard::Settings>,
    /// Whether a person has paused it.
    pub pause: watch::Receiver<Pause>,
    /// Ends when the executor does, which it is not to before it is asked to.
    pub executor: Option<JoinHandle<()>>,
    /// As they stand on the `Zone` objects.
    verdicts: BTreeMap<Zone, &'static str>,
}

impl Hands {
    pub(super) fn lead(&self) -> bool {
        self.leadership.leads()
    }

    /// Lets a leader know whether this replica is ready to take over, until it says so again.
    pub(super) fn stand_by(&self, ready_in: Option<Zone>, lasts: Duration) {
        self.leadership.stand_by(ready_in, lasts);
    }

    /// Leads no more if another is ready to.
    pub(super) fn let_another_act(&self) {
        if let Some((who, zone)) = self.leadership.hand_over(None) {
            tracing::warn!("this replica can't put anything on record: {who} in {zone} acts from now on");
        }
    }

    /// Shows everyone the verdicts.
    pub(super) async fn note_verdicts(&mut self, sight: &Sight, now: Timestamp) {
        let verdicts: BTreeMap<Zone, &'static str> =
            sight.assessment.zones.iter().map(|(zone, finding)| (zone.clone(), finding.verdict.as_str())).collect();
        if !self.lead() {
            // Another writes them from now on.
            self.verdicts.clear();
            return;
        }
        if self.verdicts == verdicts {
            return;
        }
        match self.leadership.fence().pass(self.zones.note_verdicts(&verdicts, now)).await {
            Some(Ok(())) => self.verdicts = verdicts,
            Some(Err(error)) => tracing::warn!(%error, "verdicts can't be noted on the Zone objects"),
            None => {}
        }
    }
}

/// Which replica this is: the pod, where there is one; and which of its lives.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    format!("{}-{:08x}", host.as_deref().map_or("zoneward", str::trim), rand::random::<u32>())
}
