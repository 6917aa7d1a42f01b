//! No more east-west traffic: the zone's pods carry Istio's draining label, so that istiod leaves them out of every
//! client's endpoints (Istio 1.22 or later; `PILOT_DRAINING_LABEL`). It keeps the balance among the others, and touches no
//! configuration of users.

mod plan;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::plan::{DrainPlan, drain_plan};
use super::{Look, Preview, Probe, RealStep, StepSettings, some_of};
use crate::domain::Zone;
use crate::domain::cluster::PodId;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::kubernetes::{bounded, is_of_another, marks, step_error};
use crate::ports::{IsolationStep, StepError};

/// Patches under way at once.
const CONCURRENCY: usize = 16;
const PAGE: u32 = 500;

/// The section `steps.mesh_istio`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub min_ready_elsewhere: u32,
    pub pods_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_ready_elsewhere: 1, pods_per_second: 100 }
    }
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        if self.min_ready_elsewhere == 0 {
            let why = "0 would leave a service without any endpoint; at least 1";
            problems.push(("min_ready_elsewhere".to_owned(), why.to_owned()));
        }
        if !(10..=1000).contains(&self.pods_per_second) {
            problems.push(("pods_per_second".to_owned(), format!("{} is outside 10 to 1000", self.pods_per_second)));
        }
        problems
    }

    fn step(&self, client: &Client, look: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(MeshIstio::new(self.clone(), client, Arc::clone(look)))
    }
}

/// Needs get, list, watch and patch on pods, and list and watch on services and namespaces.
pub struct MeshIstio {
    settings: Settings,
    client: Client,
    look: Arc<Look>,
}

/// A pod as the label on it tells: which one, and for which zone it is drained.
struct Marked {
    id: PodId,
    uid: String,
    zone: Option<Zone>,
}

impl MeshIstio {
    pub fn new(settings: Settings, client: &Client, look: Arc<Look>) -> Self {
        Self { settings, client: client.clone(), look }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Those that carry our label now, from the API server itself.
    async fn marked_pods(&self) -> Result<Vec<Marked>, StepError> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let selector = format!("{}={}", marks::DRAINING_LABEL, marks::DRAINING_VALUE);
        let mut params = ListParams::default().labels(&selector).limit(PAGE);
        // Without its annotation a pod is drained for the zone that it is in.
        let view = (self.look)().ok();
        let zone_of = |id: &PodId| view.as_ref()?.pods.get(id)?.zone.clone();
        let mut marked = Vec::new();
        loop {
            let page = bounded(api.list_metadata(&params)).await;
            let page = page.map_err(|error| step_error("pods can't be listed", &error))?;
            marked.extend(page.items.iter().map(|pod: &PartialObjectMeta<Pod>| {
                let id = PodId { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() };
                let zone = pod.annotations().get(marks::ZONE_ANNOTATION).map(Zone::new).or_else(|| zone_of(&id));
                Marked { id, uid: pod.uid().unwrap_or_default(), zone }
            }));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(marked);
            }
        }
    }

    /// As many as may be a second, some at once. The first failure is told after all were tried.
    async fn label(&self, pods: &[(PodId, String)], zone: Option<&Zone>) -> Result<(), StepError> {
        let pause = Duration::from_secs(1) / self.settings.pods_per_second;
        let mut pace = tokio::time::interval(pause);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut running = FuturesUnordered::new();
        let mut results = Vec::new();
        for (id, uid) in pods {
            pace.tick().await;
            if running.len() >= CONCURRENCY {
                results.extend(running.next().await);
            }
            running.push(self.label_one(id, uid, zone));
        }
        results.extend(running.collect::<Vec<Result<(), StepError>>>().await);
        let failed = results.iter().filter(|result| result.is_err()).count();
        let count = results.len();
        match results.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(StepError::Transient { why, retry_after }) => {
                Err(StepError::Transient { why: format!("{failed} of {count} pods: {why}"), retry_after })
            }
            Some(StepError::Permanent { why }) => {
                Err(StepError::Permanent { why: format!("{failed} of {count} pods: {why}") })
            }
        }
    }

    /// The uid keeps it from a new pod of the same name.
    async fn label_one(&self, id: &PodId, uid: &str, zone: Option<&Zone>) -> Result<(), StepError> {
        let patch = Patch::Merge(json!({"metadata": {
            "uid": uid,
            "labels": {marks::DRAINING_LABEL: zone.map(|_| marks::DRAINING_VALUE)},
            "annotations": {marks::ZONE_ANNOTATION: zone.map(Zone::as_str)},
        }}));
        let params = PatchParams::default();
        match bounded(self.pods(&id.namespace).patch_metadata(&id.name, &params, &patch)).await {
            Ok(_) => Ok(()),
            Err(error) if is_of_another(&error) => Ok(()),
            Err(error) => Err(step_error(&format!("pod {id} can't be patched"), &error)),
        }
    }

    fn plan(&self, zone: &Zone, share: Share) -> Result<(DrainPlan, BTreeMap<PodId, String>), StepError> {
        let view = (self.look)().map_err(StepError::soon)?;
        let plan = drain_plan(&view, zone, share, self.settings.min_ready_elsewhere);
        let uids = view.pods.iter().map(|(id, pod)| (id.clone(), pod.uid.clone())).collect();
        Ok((plan, uids))
    }
}

#[async_trait]
impl IsolationStep for MeshIstio {
    fn name(&self) -> StepName {
        StepName::new("mesh_istio")
    }

    fn granularity(&self) -> Granularity {
        Granularity::Pods
    }

    fn follows_cluster(&self) -> bool {
        true
    }

    /// The label on each pod is its own record, so that newcomers are covered, and nothing outgrows the ledger.
    async fn capture(&self, _: &Zone) -> Result<Receipt, StepError> {
        Ok(Receipt::default())
    }

    async fn apply(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        if share == Share::FULL {
            self.sweep(Some(zone)).await?;
            return Ok(());
        }
        let (plan, uids) = self.plan(zone, share)?;
        let with_uid = |pods: &BTreeSet<PodId>| -> Vec<(PodId, String)> {
            pods.iter().filter_map(|id| Some((id.clone(), uids.get(id)?.clone()))).collect()
        };
        // What must be given back is worth more than what is to be taken.
        self.label(&with_uid(&plan.to_return), None).await?;
        self.label(&with_uid(&plan.to_drain), Some(zone)).await
    }

    async fn drift(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<Vec<String>, StepError> {
        if share == Share::FULL {
            return Ok(Vec::new());
        }
        let (plan, _) = self.plan(zone, share)?;
        let said = |pods: &BTreeSet<PodId>, what: &str| {
            let names: Vec<String> = pods.iter().map(PodId::to_string).collect();
            (!names.is_empty()).then(|| format!("{} pods {what}: {}", names.len(), some_of(&names)))
        };
        let sentences = [
            said(&plan.to_drain, "joined, or lost the label, and get it"),
            said(&plan.to_return, "are to serve again, and lose the label"),
        ];
        Ok(sentences.into_iter().flatten().collect())
    }

    async fn confirm(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        let marked = self.marked_pods().await?;
        let ours: Vec<&Marked> = marked.iter().filter(|pod| pod.zone.as_ref() == Some(zone)).collect();
        if share == Share::FULL {
            return if ours.is_empty() {
                Ok(())
            } else {
                Err(StepError::soon(format!("{} pods still carry the label", ours.len())))
            };
        }
        let (plan, _) = self.plan(zone, share)?;
        let labelled = |id: &PodId| ours.iter().any(|pod| pod.id == *id);
        let missing = plan.drained.iter().filter(|id| !labelled(id)).count();
        let surplus = plan.kept.keys().filter(|id| labelled(id)).count();
        if missing + surplus == 0 {
            return Ok(());
        }
        let count = plan.drained.len();
        Err(StepError::soon(format!(
            "{missing} of {count} pods lack the label, and {surplus} carry it that should not"
        )))
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        Ok(self.marked_pods().await?.into_iter().filter_map(|pod| pod.zone).collect())
    }
}

#[async_trait]
impl RealStep for MeshIstio {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let view = (self.look)().map_err(StepError::soon)?;
        let plan = drain_plan(&view, zone, share, self.settings.min_ready_elsewhere);
        let mut by_service: BTreeMap<String, usize> = BTreeMap::new();
        for pod in plan.drained.iter().filter_map(|id| view.pods.get(id)) {
            pod.services.iter().for_each(|service| *by_service.entry(service.to_string()).or_default() += 1);
        }
        let services: Vec<String> = by_service.iter().map(|(service, pods)| format!("{service} ({pods})")).collect();
        let mut left_alone: BTreeMap<String, Vec<String>> = BTreeMap::new();
        plan.kept.iter().for_each(|(pod, why)| left_alone.entry(why.clone()).or_default().push(pod.to_string()));
        let change = format!("{} pods drained: {}", plan.drained.len(), some_of(&services));
        Ok(Preview { changes: vec![change], left_alone })
    }

    async fn probe(&self) -> Vec<Probe> {
        let mut probes = probe::istiods(&self.client).await;
        probes.extend(probe::ambient(&self.client).await);
        probes
    }

    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let marked = self.marked_pods().await?;
        let ours = marked.into_iter().filter(|pod| zone.is_none() || pod.zone.as_ref() == zone);
        let pods: Vec<(PodId, String)> = ours.map(|pod| (pod.id, pod.uid)).collect();
        self.label(&pods, None).await?;
        let names: Vec<String> = pods.into_iter().map(|(id, _)| id.to_string()).collect();
        Ok((!names.is_empty()).then(|| format!("undone on {}", some_of(&names))).into_iter().collect())
    }
}
