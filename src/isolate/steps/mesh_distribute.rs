//! No more east-west traffic, for meshes where nobody may write to pods: weights by zone for the whole mesh
//! (`localityLbSetting.distribute`), in a `ConfigMap` of zoneward's own that istiod reads beside the mesh's
//! (`SHARED_MESH_CONFIG`). Weights drop what they do not name, so much is asked before the first one is written.

mod facts;
mod istiod;
mod map;
mod preflight;
mod weights;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::facts::read;
use self::istiod::Istiod;
use self::map::{Content, Map, Written};
use self::preflight::{Facts, Finding};
use self::weights::{Mark, lost_without};
use super::{Look, Preview, Probe, RealStep, StepSettings, some_of};
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::domain::{ClusterView, Zone, problem_of_base_address};
use crate::ports::{IsolationStep, StepError};

/// Tries against others' writes to the `ConfigMap`.
const MOST_TRIES: usize = 5;

/// The section `steps.mesh_distribute`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub namespace: String,
    pub config_map: String,
    pub istiod: Option<String>,
    pub istiod_token_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let (namespace, config_map) = ("istio-system".to_owned(), "zoneward-mesh".to_owned());
        Self { namespace, config_map, istiod: None, istiod_token_file: None }
    }
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut say = |key: &str, problem: String| problems.push((key.to_owned(), problem));
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        for (key, name) in [("namespace", &self.namespace), ("config_map", &self.config_map)] {
            if name.is_empty() || !name.chars().all(letters) {
                say(key, format!("`{name}` is no name of an object: lower-case letters, digits, - and ."));
            }
        }
        if self.config_map == "istio" || self.config_map.starts_with("istio-") {
            let name = &self.config_map;
            say(
                "config_map",
                format!("`{name}` is the mesh's own: one that is zoneward's alone, such as zoneward-mesh"),
            );
        }
        if let Some(problem) = self.istiod.as_deref().and_then(problem_of_base_address) {
            say("istiod", format!("{problem}: write one such as http://istiod.istio-system:15014"));
        }
        if self.istiod.is_none() && self.istiod_token_file.is_some() {
            say("istiod_token_file", "is of no use without istiod".to_owned());
        }
        problems
    }

    fn step(&self, client: &Client, look: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(MeshDistribute::new(self.clone(), client, Arc::clone(look)))
    }
}

/// Needs what deploy/rbac.yaml has for it.
pub struct MeshDistribute {
    settings: Settings,
    client: Client,
    map: Map,
    istiod: Option<Istiod>,
    look: Arc<Look>,
}

impl MeshDistribute {
    pub fn new(settings: Settings, client: &Client, look: Arc<Look>) -> Self {
        let map = Map::new(client, &settings.namespace, &settings.config_map);
        let token_file = settings.istiod_token_file.clone();
        let istiod = settings.istiod.clone().map(|url| Istiod { url, token_file });
        Self { settings, client: client.clone(), map, istiod, look }
    }

    fn view(&self) -> Result<ClusterView, StepError> {
        (self.look)().map_err(StepError::soon)
    }

    /// What would do harm, or nothing.
    async fn refusals(&self, zone: &Zone, share: Share, mark: &Mark) -> Result<(Vec<Finding>, Facts), StepError> {
        let (view, facts) = (self.view()?, read(&self.client, &self.settings).await?);
        let out = mark.out.iter().filter(|(other, _)| *other != zone).chain([(zone, &share)]);
        let none: BTreeSet<&Zone> = out.filter(|(_, share)| **share == Share::NONE).map(|(zone, _)| zone).collect();
        let mut refusals = facts.refusals(&view, &self.settings);
        refusals.extend(facts.refusals_of(&view, &none, &self.settings));
        Ok((refusals, facts))
    }

    /// Before the first write for a zone: what is under way is kept up, whatever has come up since.
    async fn ask(&self, zone: &Zone, share: Share, mark: &Mark) -> Result<(), StepError> {
        if mark.out.contains_key(zone) {
            return Ok(());
        }
        let (refusals, _) = self.refusals(zone, share, mark).await?;
        wanted(mark, zone, share, &self.view()?)?;
        if refusals.is_empty() { Ok(()) } else { Err(permanent(sentences(&refusals).join("; "))) }
    }

    /// Until it is so, or others write all the time.
    async fn settle(&self, wanted: impl Fn(&Mark) -> Result<Mark, StepError>) -> Result<Content, StepError> {
        for _ in 0..MOST_TRIES {
            let before = self.map.read().await?;
            let mark = wanted(&before.mark)?;
            if mark == before.mark && before.document == document(&mark)? {
                return Ok(before);
            }
            if self.map.write(&before, &mark, false).await? == Written::Done {
                return Ok(before);
            }
        }
        Err(StepError::soon(format!("the ConfigMap {} is written by others all the time", self.map)))
    }

    /// Whether the `ConfigMap` can be read and written, and istiod be asked.
    async fn probe_ends(&self) -> Vec<Probe> {
        let content = match self.map.read().await {
            Ok(content) => content,
            Err(error) => return vec![Probe::broken(error.to_string())],
        };
        let mut probes = vec![match self.map.write(&content, &content.mark, true).await {
            Ok(_) => Probe::Works(format!("the ConfigMap {} can be written", self.map)),
            Err(error) => Probe::broken(error.to_string()),
        }];
        if let Some(istiod) = &self.istiod {
            probes.push(match istiod.follows(&content.document).await {
                Ok(()) => Probe::Works(format!("istiod ({}) is as the ConfigMap says", istiod.url)),
                Err(error) => Probe::broken(error.to_string()),
            });
        }
        probes
    }
}

fn permanent(why: String) -> StepError {
    StepError::Permanent { why }
}

fn wanted(mark: &Mark, zone: &Zone, share: Share, view: &ClusterView) -> Result<Mark, StepError> {
    let wanted = mark.with(zone, share, view).map_err(permanent)?;
    document(&wanted)?;
    Ok(wanted)
}

fn document(mark: &Mark) -> Result<Value, StepError> {
    mark.document().map_err(permanent)
}

fn sentences(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{} ({})", finding.found, finding.hint)).collect()
}

#[async_trait]
impl IsolationStep for MeshDistribute {
    fn name(&self) -> StepName {
        StepName::new("mesh_distribute")
    }

    fn granularity(&self) -> Granularity {
        Granularity::Weights
    }

    fn follows_cluster(&self) -> bool {
        true
    }

    /// The `ConfigMap`'s annotation is the record. What speaks against it is told here already, while nothing has begun.
    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let content = self.map.read().await?;
        self.ask(zone, Share::NONE, &content.mark).await?;
        Ok(Receipt::default())
    }

    async fn apply(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        if share == Share::FULL {
            self.sweep(Some(zone)).await?;
            return Ok(());
        }
        self.ask(zone, share, &self.map.read().await?.mark).await?;
        let view = self.view()?;
        self.settle(|mark| wanted(mark, zone, share, &view)).await?;
        Ok(())
    }

    async fn drift(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<Vec<String>, StepError> {
        if share == Share::FULL {
            return Ok(Vec::new());
        }
        let (before, view) = (self.map.read().await?, self.view()?);
        let Content { mark, document: found, .. } = &before;
        let after = wanted(mark, zone, share, &view)?;
        let mut sentences = Vec::new();
        if mark.out.get(zone) != Some(&share) || *found != document(mark)? {
            sentences.push(format!("the ConfigMap {} was changed, and is written anew", self.map));
        }
        if mark.zones != after.zones {
            sentences.push("zones or their ready pods have changed, and the weights follow".to_owned());
        }
        if mark.needed != after.needed {
            let none = after.out.iter().filter(|(_, share)| **share == Share::NONE).map(|(zone, _)| zone).collect();
            let services: Vec<String> = lost_without(&view, &none).keys().map(ToString::to_string).collect();
            let what = "are ready nowhere else by now, so that the zone keeps the least weight until it is given back";
            sentences.push(format!("{} {what}", some_of(&services)));
        }
        Ok(sentences)
    }

    /// Of istiod itself, if it may be asked; else only of what is written.
    async fn confirm(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        let Content { mark, document: found, .. } = self.map.read().await?;
        let of_zone = mark.out.get(zone).copied().unwrap_or(Share::FULL);
        if of_zone != share {
            return Err(StepError::soon(format!("the ConfigMap {} gives {zone} {of_zone}, and not {share}", self.map)));
        }
        if found != document(&mark)? {
            return Err(StepError::soon(format!("the ConfigMap {} has other weights than were written", self.map)));
        }
        match &self.istiod {
            Some(istiod) => istiod.follows(&found).await,
            None => Ok(()),
        }
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        Ok(self.map.read().await?.mark.out.into_keys().collect())
    }
}

#[async_trait]
impl RealStep for MeshDistribute {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let before = self.map.read().await?.mark;
        let (refusals, facts) = self.refusals(zone, share, &before).await?;
        let after =
            if share == Share::FULL { before.without(zone) } else { wanted(&before, zone, share, &self.view()?)? };
        let weights = after.sentence().map_err(permanent)?;
        let mut changes = vec![format!("every client of the mesh weighs zones by {} ({weights})", self.map)];
        if share < Share::FULL && !before.out.contains_key(zone) {
            changes.extend(sentences(&refusals).into_iter().map(|why| format!("REFUSED: {why}")));
        }
        Ok(Preview { changes, left_alone: facts.uncovered() })
    }

    async fn probe(&self) -> Vec<Probe> {
        let mut probes = self.probe_ends().await;
        let seen = match (self.view(), read(&self.client, &self.settings).await) {
            (Ok(view), Ok(facts)) => (view, facts),
            (Err(error), _) | (_, Err(error)) => {
                probes.push(Probe::broken(error.to_string()));
                return probes;
            }
        };
        let (view, facts) = seen;
        let refusals = facts.refusals(&view, &self.settings);
        if refusals.is_empty() {
            probes.push(Probe::Works("nothing that can be seen speaks against weights for the whole mesh".to_owned()));
        }
        probes.extend(refusals.into_iter().map(|it| Probe::broken_but(it.found, it.hint)));
        for zone in view.zones().into_keys() {
            let refusals = facts.refusals_of(&view, &[zone].into(), &self.settings).into_iter();
            let refused = |it: Finding| Probe::unsure(format!("{zone} can't be left out: {}", it.found), it.hint);
            probes.extend(refusals.map(refused));
        }
        probes.extend(facts.warnings(&self.settings).into_iter().map(|it| Probe::unsure(it.found, it.hint)));
        probes
    }

    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let before = self.settle(|mark| Ok(zone.map_or_else(Mark::default, |zone| mark.without(zone)))).await?;
        let out = before.mark.out.into_keys().filter(|out| zone.is_none_or(|zone| zone == out));
        Ok(out.map(|zone| format!("{zone} has its usual weight again ({})", self.map)).collect())
    }
}
