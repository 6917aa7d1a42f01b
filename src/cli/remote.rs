//! What the commands that act share: the cluster, the newest judgement, and following an isolation.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use super::{ConfigArguments, render};
use crate::alertmanager;
use crate::domain::{ClusterView, CycleLength, Mode, Sight, Silences};
use crate::isolate::resource::{Condition, ZoneIsolation, ZoneIsolationStatus};
use crate::isolate::{MemoryStore, unseen};
use crate::kubernetes::{self, bounded, explain, status_code};
use crate::leadership;
use crate::observe::PrometheusObserver;
use crate::pipeline::{self, Pipeline};
use crate::ports::Observer;
use crate::settings::Settings;

/// Between two looks at an isolation that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Within which a daemon takes an isolation up, if there is one: at once, if it acts already.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(30);
const _: () = assert!(leadership::TAKEN_OVER_WITHIN.as_secs() + 10 <= TAKEN_UP_WITHIN.as_secs());
/// After which following ends, whatever has come of it.
const FOLLOWED_FOR: Duration = Duration::from_mins(5);

/// The cluster of the configuration.
pub(super) struct Remote {
    pub settings: Settings,
    pub client: Client,
    pub isolations: Api<ZoneIsolation>,
}

impl Remote {
    pub(super) async fn connect(config: &ConfigArguments) -> anyhow::Result<Self> {
        let settings = config.load(None)?;
        let client = kubernetes::connect(&settings.kubernetes).await?;
        Ok(Self { settings, isolations: Api::all(client.clone()), client })
    }

    pub(super) async fn isolation(&self, zone: &str) -> anyhow::Result<Option<ZoneIsolation>> {
        check_name(zone)?;
        bounded(self.isolations.get_opt(zone))
            .await
            .map_err(|error| api_error("the ZoneIsolation can't be read", &error))
    }

    /// Shows how an isolation comes along, until its end is reached or it can't be.
    pub(super) async fn follow(&self, zone: &str, goal: Goal) -> anyhow::Result<Followed> {
        let began = Instant::now();
        let mut said = Vec::new();
        loop {
            let object = self.isolation(zone).await?;
            for line in object.as_ref().map_or_else(Vec::new, ledger_lines) {
                if !said.contains(&line) {
                    render::line(&format!("  {line}"));
                    said.push(line);
                }
            }
            let Some(object) = object else {
                return Ok(if goal == Goal::Gone { Followed::Reached } else { Followed::Vanished });
            };
            // What stands there of an earlier edition of the spec, such as before it was approved, is no answer yet.
            let current = |status: &&ZoneIsolationStatus| status.observed_generation == object.metadata.generation;
            let status = object.status.as_ref().filter(current);
            let taken_up = match goal {
                Goal::Isolated => status.is_some_and(|status| !status.conditions.is_empty()),
                // A zone that is being given back is, whatever was edited meanwhile.
                Goal::Gone => object.status.as_ref().is_some_and(|status| status.returning_since.is_some()),
            };
            if goal == Goal::Isolated {
                if status.is_some() && is_true(&object, "Isolated") {
                    return Ok(Followed::Reached);
                }
                if let Some(admitted) =
                    condition(&object, "Admitted").filter(|c| status.is_some() && c.status == "False")
                {
                    let (kind, why) = (admitted.reason.clone(), admitted.message.clone());
                    return Ok(Followed::Refused { kind, why });
                }
            }
            if !taken_up && began.elapsed() > TAKEN_UP_WITHIN {
                return Ok(Followed::Ignored);
            }
            if began.elapsed() > FOLLOWED_FOR {
                return Ok(Followed::StillUnderWay);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Isolated,
    Gone,
}

pub(super) enum Followed {
    Reached,
    Refused {
        kind: String,
        why: String,
    },
    /// No daemon has taken it up.
    Ignored,
    Vanished,
    StillUnderWay,
}

/// Who acts, as the Lease tells.
pub(super) enum Acting {
    Somebody {
        who: String,
        renewed_s_ago: i64,
    },
    Nobody,
    /// The Lease can't be read.
    Unknown,
}

impl Acting {
    /// Whether nobody does, for sure: not even a replica that is about to take over.
    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::Somebody { renewed_s_ago, .. } => *renewed_s_ago > TAKEN_UP_WITHIN.as_secs() as i64,
            Self::Nobody => true,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for Acting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Somebody { who, .. } if self.is_over() => write!(f, "nobody acts: {who} did last, and is silent"),
            Self::Somebody { who, renewed_s_ago } => write!(f, "{who} acts; it was heard of {renewed_s_ago} s ago"),
            Self::Nobody => write!(f, "nobody acts: no `zoneward run` in recommend or enforce mode holds the Lease"),
            Self::Unknown => write!(f, "who acts is not known, as the Lease can't be read"),
        }
    }
}

impl Remote {
    /// Who acts, if anybody does: who renews its Lease while we look. Clocks of two machines tell nothing.
    pub(super) async fn renews(&self) -> anyhow::Result<Option<String>> {
        let Some((_, version)) = self.lease().await? else { return Ok(None) };
        let looks_until = Instant::now() + leadership::TAKEN_OVER_WITHIN;
        while Instant::now() < looks_until {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match self.lease().await? {
                None => return Ok(None),
                Some((who, newer)) if newer != version => return Ok(Some(who)),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// The holder of the Lease, and the version of the Lease.
    async fn lease(&self) -> anyhow::Result<Option<(String, Option<String>)>> {
        let leases: Api<Lease> = Api::default_namespaced(self.client.clone());
        let lease = bounded(leases.get_opt(leadership::LEASE_NAME)).await;
        let lease = lease.map_err(|error| api_error("who acts is not known, as the Lease can't be read", &error))?;
        let held = lease.and_then(|lease| {
            let version = lease.metadata.resource_version.clone();
            Some((lease.spec?.holder_identity.filter(|who| !who.is_empty())?, version))
        });
        Ok(held)
    }

    pub(super) async fn who_acts(&self, now: Timestamp) -> Acting {
        let leases: Api<Lease> = Api::default_namespaced(self.client.clone());
        let spec = match bounded(leases.get_opt(leadership::LEASE_NAME)).await {
            Ok(lease) => lease.and_then(|lease| lease.spec),
            Err(_) => return Acting::Unknown,
        };
        let held = spec.and_then(|spec| Some((spec.holder_identity.filter(|who| !who.is_empty())?, spec.renew_time?)));
        let Some((who, renewed)) = held else { return Acting::Nobody };
        Acting::Somebody { who, renewed_s_ago: (now.as_second() - renewed.0.as_second()).max(0) }
    }
}

pub(super) fn condition<'a>(object: &'a ZoneIsolation, type_: &str) -> Option<&'a Condition> {
    object.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

fn is_true(object: &ZoneIsolation, type_: &str) -> bool {
    condition(object, type_).is_some_and(|condition| condition.status == "True")
}

/// One line for each step as it is now.
fn ledger_lines(object: &ZoneIsolation) -> Vec<String> {
    let Some(status) = &object.status else { return Vec::new() };
    let step = |step: &crate::isolate::resource::StepStatus| {
        let share = step.share_percent.map_or_else(String::new, |share| format!(" at {share} % of the usual traffic"));
        let error = step.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        format!("{:<16} {}{share}{error}", step.name, step.state)
    };
    status.steps.iter().map(step).collect()
}

pub(super) fn api_error(what: &str, error: &kube::Error) -> anyhow::Error {
    let hint = match status_code(error) {
        Some(404) => "; are the custom resources installed? (`zoneward crd | kubectl apply -f -`)",
        Some(401) => "; your credentials are refused",
        Some(403) => "; does your account have the right to? (deploy/rbac.yaml has the role zoneward-operator)",
        _ => "",
    };
    anyhow::anyhow!("{what}: {}{hint}", explain(error))
}

/// Planned maintenance, as far as it can be asked for.
pub(super) async fn silences(settings: &Settings) -> Silences {
    let Some(asked) = &settings.guard.silences else { return Silences::default() };
    alertmanager::read(asked, super::now).await.unwrap_or_else(|error| {
        render::note(&format!("warning: planned maintenance is not known: {error}"));
        Silences::default()
    })
}

/// The judgement on the newest cycle, as the daemon would make it now. Without metrics it says so.
pub(super) async fn judge(settings: &Settings, cluster: &ClusterView, now: Timestamp) -> anyhow::Result<Sight> {
    let configured = CycleLength::at_least(settings.detect.cycle);
    let mut observer = PrometheusObserver::new(settings.prometheus.clone(), configured).context("prometheus")?;
    observer.learn_places(cluster);
    let newest = match read_history(&mut observer, settings, now).await {
        Ok(pipeline) => pipeline.sight(),
        Err(error) => {
            render::note(&format!("warning: Prometheus can't be read: {error:#}"));
            None
        }
    };
    let mut sight = newest.map_or_else(|| unseen(now), |sight| sight.as_ref().clone());
    let mut seen = cluster.clone();
    if settings.guard.max_cpu.is_some() {
        seen.cpu_use = observer.cpu_use(now).await.unwrap_or_default().map(Arc::new);
    }
    sight.snapshot.cluster = Some(seen);
    Ok(sight)
}

async fn read_history(
    observer: &mut PrometheusObserver,
    settings: &Settings,
    now: Timestamp,
) -> anyhow::Result<Pipeline> {
    observer.fit_to_scrapes(now).await?;
    let cycle = observer.cycle();
    let rehearsal = pipeline::Settings { mode: Mode::Observe, ..settings.pipeline() };
    let silent = Arc::new(render::Silent);
    let mut pipeline = Pipeline::new(rehearsal, cycle, Arc::new(MemoryStore::default()), silent);
    let last = cycle.at_or_before(now);
    let mut snapshots = observer.observe(last - settings.prometheus.history.signed(), last).await?;
    let newest = snapshots.pop();
    snapshots.iter().for_each(|snapshot| pipeline.learn(snapshot));
    if let Some(newest) = newest {
        pipeline.tick(observer, &newest, now).await?;
    }
    Ok(pipeline)
}

/// It goes into a path of the API.
pub(super) fn check_name(zone: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        kubernetes::is_object_name(zone),
        "`{zone}` can't be the name of a zone: `kubectl get nodes -L \
                    topology.kubernetes.io/zone` shows those there are"
    );
    Ok(())
}
