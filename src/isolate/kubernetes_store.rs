//! Isolations as custom resources: the only memory of action, shared by replicas, people and `GitOps`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::conditions;
use super::convert::{self, time};
use super::resource::{self, Episode, HoldStatus, ZoneIsolation};
use crate::domain::isolation::{IsolationSpec, OperatorHold};
use crate::domain::{Isolation, Zone};
use crate::kubernetes::{bounded, explain, is_object_name, is_of_another, marks, status_code};
use crate::ports::{IsolationStore, StoreError};

/// The executor owns the ledger, the detector what metrics say: each writes its own fields only.
const EXECUTOR: &str = "zoneward-executor";
const DETECTOR: &str = "zoneward-detector";
/// Past episodes that a zone keeps, for cool-down and budget.
const MOST_EPISODES: usize = 32;
/// Tries of a read-modify-write against others' writes.
const MOST_TRIES: usize = 5;

pub struct KubernetesStore {
    isolations: Api<ZoneIsolation>,
    zones: Api<resource::Zone>,
}

#[allow(clippy::needless_pass_by_value, reason = "as map_err wants it")]
fn unavailable(error: kube::Error) -> StoreError {
    match status_code(&error) {
        Some(400 | 422) => StoreError::Impossible(explain(&error)),
        Some(404) => StoreError::Unavailable(format!(
            "{}; are the custom resources installed? (`zoneward crd | kubectl apply -f -`)",
            explain(&error)
        )),
        Some(401 | 403) => StoreError::Unavailable(format!("{}; does the ClusterRole allow it?", explain(&error))),
        _ => StoreError::Unavailable(explain(&error)),
    }
}

/// Names go into paths of the API.
fn object_name(zone: &Zone) -> Result<&str, StoreError> {
    let name = zone.as_str();
    let problem = || StoreError::Impossible(format!("`{zone}` can't be the name of an object"));
    is_object_name(name).then_some(name).ok_or_else(problem)
}

fn gone_is_fine<T>(result: kube::Result<T>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if status_code(&error) == Some(404) => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

#[allow(clippy::disallowed_methods, reason = "an edge: conditions say when they changed")]
fn clock() -> Timestamp {
    Timestamp::now()
}

impl KubernetesStore {
    pub fn new(client: &Client) -> Self {
        Self { isolations: Api::all(client.clone()), zones: Api::all(client.clone()) }
    }

    async fn objects(&self) -> Result<Vec<ZoneIsolation>, StoreError> {
        Ok(bounded(self.isolations.list(&ListParams::default())).await.map_err(unavailable)?.items)
    }

    async fn zone_objects(&self) -> Result<Vec<resource::Zone>, StoreError> {
        Ok(bounded(self.zones.list(&ListParams::default())).await.map_err(unavailable)?.items)
    }

    /// Notes the newest verdicts, where they changed, so that anyone can `kubectl get zones`.
    pub async fn note_verdicts(
        &self,
        verdicts: &BTreeMap<Zone, &'static str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        // What can't be an object's name names no zone of a cluster.
        for (zone, verdict) in verdicts.iter().filter(|(zone, _)| is_object_name(zone.as_str())) {
            let noted = self.note_verdict(zone, verdict, now).await;
            result = result.and(noted);
        }
        result
    }

    async fn note_verdict(&self, zone: &Zone, verdict: &str, now: Timestamp) -> Result<(), StoreError> {
        let known = self.zone(zone).await?;
        if known.status.as_ref().and_then(|status| status.verdict.as_deref()) != Some(verdict) {
            let status = json!({"verdict": verdict, "verdictSince": time(now)});
            self.patch_zone(zone, &json!({"status": status})).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// The zone's object, made if need be.
    async fn zone(&self, zone: &Zone) -> Result<resource::Zone, StoreError> {
        object_name(zone)?;
        if let Some(found) = bounded(self.zones.get_opt(zone.as_str())).await.map_err(unavailable)? {
            return Ok(found);
        }
        let new = resource::Zone::new(zone.as_str(), resource::ZoneSpec::default());
        match bounded(self.zones.create(&PostParams::default(), &new)).await {
            Err(error) if status_code(&error) == Some(409) => {
                bounded(self.zones.get(zone.as_str())).await.map_err(unavailable)
            }
            other => other.map_err(unavailable),
        }
    }

    async fn patch_zone(&self, zone: &Zone, patch: &serde_json::Value) -> kube::Result<resource::Zone> {
        bounded(self.zones.patch_status(zone.as_str(), &PatchParams::default(), &Patch::Merge(patch))).await
    }

    /// Adds an ended episode to the zone's past, once.
    async fn remember(&self, isolation: &Isolation) -> Result<(), StoreError> {
        let Some(episode) = convert::episode(isolation) else { return Ok(()) };
        for _ in 0..MOST_TRIES {
            let known = self.zone(isolation.zone()).await?;
            let mut episodes: Vec<Episode> = known.status.clone().map(|status| status.episodes).unwrap_or_default();
            if episodes.iter().any(|known| known.id == episode.id) {
                return Ok(());
            }
            episodes.push(episode.clone());
            let surplus = episodes.len().saturating_sub(MOST_EPISODES);
            let patch = json!({
                "metadata": {"resourceVersion": known.resource_version()},
                "status": {"episodes": episodes[surplus..]}
            });
            match self.patch_zone(isolation.zone(), &patch).await {
                Err(error) if status_code(&error) == Some(409) => {}
                other => return other.map(|_| ()).map_err(unavailable),
            }
        }
        Err(StoreError::Unavailable(format!(
            "the past of the zone {} is written by others all the time",
            isolation.zone()
        )))
    }

    async fn set_finalizer(&self, object: &ZoneIsolation, present: bool) -> Result<(), StoreError> {
        let has = object.finalizers().iter().any(|finalizer| finalizer == marks::FINALIZER);
        if has == present {
            return Ok(());
        }
        let mut finalizers = object.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != marks::FINALIZER);
        if present {
            finalizers.push(marks::FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {
            "uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers
        }});
        let params = PatchParams::default();
        gone_is_fine(bounded(self.isolations.patch(&object.name_any(), &params, &Patch::Merge(&patch))).await)?;
        Ok(())
    }

    /// Takes our finalizer off: what was done is undone.
    pub async fn let_go(&self, object: &ZoneIsolation) -> Result<(), StoreError> {
        self.set_finalizer(object, false).await
    }

    /// That all of the episode was undone while no daemon acted.
    pub async fn note_given_back(&self, object: &ZoneIsolation, episode: &str) -> Result<(), StoreError> {
        let patch = json!({"metadata": {"uid": object.uid(), "annotations": {marks::GIVEN_BACK: episode}}});
        let params = PatchParams::default();
        gone_is_fine(bounded(self.isolations.patch(&object.name_any(), &params, &Patch::Merge(&patch))).await)?;
        Ok(())
    }

    /// This very object, and no other of its name.
    pub async fn delete(&self, object: &ZoneIsolation) -> Result<(), StoreError> {
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        gone_is_fine(bounded(self.isolations.delete(&object.name_any(), &params)).await)?;
        Ok(())
    }

    async fn apply_status(
        &self,
        object: &ZoneIsolation,
        manager: &str,
        status: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let patch = json!({
            "apiVersion": "zoneward.io/v1alpha1", "kind": "ZoneIsolation",
            "metadata": {"name": object.name_any(), "uid": object.uid()},
            "status": status
        });
        let params = PatchParams::apply(manager).force();
        match bounded(self.isolations.patch_status(&object.name_any(), &params, &Patch::Apply(&patch))).await {
            Ok(_) => Ok(()),
            Err(error) if is_of_another(&error) => Err(StoreError::NotActive(Zone::new(object.name_any()))),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// It has ended: into the zone's past with it. What zoneward made goes; what a person made stays, marked.
    async fn close(&self, isolation: &Isolation, object: &ZoneIsolation) -> Result<(), StoreError> {
        self.remember(isolation).await?;
        // Others may have finalizers too: until they let go, the object says that ours is done.
        self.write_ledger(isolation, object).await?;
        let written = bounded(self.isolations.get_opt(&object.name_any())).await.map_err(unavailable)?;
        let Some(object) = written.filter(|written| written.uid() == object.uid()) else { return Ok(()) };
        self.set_finalizer(&object, false).await?;
        if object.metadata.deletion_timestamp.is_none() && convert::is_managed(&object) {
            self.delete(&object).await?;
        }
        Ok(())
    }

    async fn write_ledger(&self, isolation: &Isolation, object: &ZoneIsolation) -> Result<(), StoreError> {
        let before = object.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let conditions = conditions::conditions(isolation, &before, clock());
        let status = convert::ledger(isolation, conditions);
        self.apply_status(object, EXECUTOR, &json!(status)).await
    }
}

#[async_trait]
impl IsolationStore for KubernetesStore {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        let (zones, now) = (self.zone_objects().await?, clock());
        let mut past: Vec<Isolation> = zones.iter().flat_map(convert::past).collect();
        for object in self.objects().await? {
            let isolation = convert::isolation(&object);
            // An end that is in the zone's past already: what remains is the object.
            past.retain(|known| known.id != isolation.id);
            past.push(isolation);
        }
        for zone in &zones {
            let (name, Some(at)) = (zone.name_any(), convert::acknowledged_at(zone, now)) else { continue };
            let looked_at = |i: &&mut Isolation| i.zone().as_str() == name && i.requested_at <= at;
            past.iter_mut().filter(looked_at).for_each(|isolation| isolation.acknowledged_at = Some(at));
        }
        past.sort_by(|a, b| a.requested_at.cmp(&b.requested_at).then_with(|| a.id.cmp(&b.id)));
        Ok(past)
    }

    async fn create(&self, spec: IsolationSpec, _: Timestamp) -> Result<(), StoreError> {
        object_name(&spec.zone)?;
        let object = convert::object(&spec);
        let params = PostParams { field_manager: Some(DETECTOR.to_owned()), ..PostParams::default() };
        for _ in 0..2 {
            match bounded(self.isolations.create(&params, &object)).await {
                Ok(_) => return Ok(()),
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(unavailable(error)),
            }
            let Some(known) = bounded(self.isolations.get_opt(spec.zone.as_str())).await.map_err(unavailable)? else {
                continue;
            };
            if !convert::isolation(&known).remains {
                return Err(StoreError::AlreadyActive(spec.zone));
            }
            if !convert::is_managed(&known) {
                return Err(StoreError::InTheWay(spec.zone));
            }
            self.delete(&known).await?;
        }
        Err(StoreError::AlreadyActive(spec.zone))
    }

    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError> {
        let name = object_name(isolation.zone())?;
        let object = bounded(self.isolations.get_opt(name)).await.map_err(unavailable)?;
        let uid = isolation.id.split('/').next();
        let Some(object) = object.filter(|object| object.uid().as_deref() == uid) else {
            // Nothing was done on its account that is not undone: nothing is lost with it.
            return if isolation.active() { Err(StoreError::NotActive(isolation.zone().clone())) } else { Ok(()) };
        };
        if !isolation.active() {
            return self.close(isolation, &object).await;
        }
        if isolation.admitted_at().is_some() && object.metadata.deletion_timestamp.is_none() {
            self.set_finalizer(&object, true).await?;
        }
        self.write_ledger(isolation, &object).await
    }

    async fn save_course(&self, isolation: &Isolation) -> Result<(), StoreError> {
        let zone = isolation.zone();
        let found = bounded(self.isolations.get_opt(object_name(zone)?)).await.map_err(unavailable)?;
        let uid = isolation.id.split('/').next();
        let Some(object) = found.filter(|object| object.uid().as_deref() == uid) else {
            return Err(StoreError::NotActive(zone.clone()));
        };
        let before = object.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let status = convert::course(isolation, conditions::of_course(isolation, &before, clock()));
        self.apply_status(&object, DETECTOR, &json!(status)).await
    }

    async fn holds(&self) -> Result<BTreeMap<Zone, OperatorHold>, StoreError> {
        let zones = self.zone_objects().await?;
        Ok(zones.iter().filter_map(|zone| Some((Zone::new(zone.name_any()), convert::hold(zone)?))).collect())
    }

    async fn hold(&self, zone: &Zone, hold: OperatorHold) -> Result<(), StoreError> {
        self.zone(zone).await?;
        let status = HoldStatus { since: time(hold.since), why: hold.why };
        let patch = json!({"status": {"operatorHold": status}});
        self.patch_zone(zone, &patch).await.map(|_| ()).map_err(unavailable)
    }

    async fn release(&self, zone: &Zone, since: Timestamp) -> Result<(), StoreError> {
        let known = self.zone(zone).await?;
        let hold = convert::hold(&known).filter(|hold| hold.until_healthy && hold.since == since);
        if hold.is_none() {
            return Ok(());
        }
        let patch =
            json!({"metadata": {"resourceVersion": known.resource_version()}, "status": {"operatorHold": null}});
        self.patch_zone(zone, &patch).await.map(|_| ()).map_err(unavailable)
    }
}
