//! No new pods: the zone's nodes carry a taint of our own. Others' taints, and cordons, are not touched.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Look, Preview, Probe, RealStep, StepSettings, some_of};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::kubernetes::{self, bounded, marks, status_code, step_error};
use crate::ports::{IsolationStep, StepError};

/// Nodes under way at once.
const CONCURRENCY: usize = 16;
/// Tries against others' writes to the same node.
const MOST_TRIES: usize = 5;

/// The section `steps.taint`: nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn step(&self, client: &Client, look: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(TaintNodes::new(client, Arc::clone(look)))
    }
}

/// Needs get, list, watch and patch on nodes.
pub struct TaintNodes {
    nodes: Api<Node>,
    look: Arc<Look>,
}

impl TaintNodes {
    pub fn new(client: &Client, look: Arc<Look>) -> Self {
        Self { nodes: Api::all(client.clone()), look }
    }

    /// Nodes that carry our taint, and for which zone's isolation, from the API server itself.
    async fn tainted(&self) -> Result<Vec<(String, Zone)>, StepError> {
        let list = bounded(self.nodes.list(&ListParams::default())).await;
        let nodes = list.map_err(|error| step_error("nodes can't be listed", &error))?;
        let ours = |node: &Node| Some((node.name_any(), kubernetes::tainted(node)?));
        Ok(nodes.items.iter().filter_map(ours).collect())
    }

    async fn patch_all(&self, names: &[String], zone: Option<&Zone>) -> Result<(), StepError> {
        let patches: Vec<_> = names.iter().map(|name| self.patch(name, zone)).collect();
        let results: Vec<Result<(), StepError>> = stream::iter(patches).buffer_unordered(CONCURRENCY).collect().await;
        // Each is tried, whatever came of another.
        results.into_iter().collect()
    }

    /// The list of taints is one value to the API server: it is replaced as a whole, and only if nobody else has changed the
    /// node since it was read.
    async fn patch(&self, name: &str, zone: Option<&Zone>) -> Result<(), StepError> {
        let failed = |error: &kube::Error| step_error(&format!("node {name} can't be patched"), error);
        for _ in 0..MOST_TRIES {
            let node = match bounded(self.nodes.get_opt(name)).await {
                Ok(Some(node)) => node,
                Ok(None) => return Ok(()),
                Err(error) => return Err(failed(&error)),
            };
            let before: Vec<Taint> = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
            let after = with_ours(&before, zone);
            if after == before {
                return Ok(());
            }
            let taints = if after.is_empty() { None } else { Some(after) };
            let patch = json!({
                "metadata": {"resourceVersion": node.resource_version()},
                "spec": {"taints": taints}
            });
            match bounded(self.nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await {
                Ok(_) => return Ok(()),
                Err(error) if status_code(&error) == Some(404) => return Ok(()),
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Err(StepError::soon(format!("node {name} is written by others all the time")))
    }

    /// Nodes of the zone, each with whether it carries the taint.
    fn nodes_of(&self, zone: &Zone) -> Result<Vec<(String, bool)>, StepError> {
        let view = (self.look)().map_err(StepError::soon)?;
        let nodes = view.nodes.into_iter().filter(|(_, node)| node.zone.as_ref() == Some(zone) && !node.exempt);
        Ok(nodes.map(|(name, node)| (name, node.tainted.as_ref() == Some(zone))).collect())
    }
}

/// The taints with ours for a zone, or without ours; others' as they are, in their order.
fn with_ours(taints: &[Taint], zone: Option<&Zone>) -> Vec<Taint> {
    let ours = zone.map(|zone| Taint {
        key: marks::TAINT.to_owned(),
        value: Some(zone.as_str().to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    });
    taints.iter().filter(|taint| taint.key != marks::TAINT).cloned().chain(ours).collect()
}

#[async_trait]
impl IsolationStep for TaintNodes {
    fn name(&self) -> StepName {
        StepName::new("taint")
    }

    fn granularity(&self) -> Granularity {
        Granularity::NewPods
    }

    fn follows_cluster(&self) -> bool {
        true
    }

    /// The taint on each node is its own record, so that nodes that join later are covered.
    async fn capture(&self, _: &Zone) -> Result<Receipt, StepError> {
        Ok(Receipt::default())
    }

    async fn apply(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        if share == Share::FULL {
            self.sweep(Some(zone)).await?;
            return Ok(());
        }
        let lacking: Vec<String> =
            self.nodes_of(zone)?.into_iter().filter(|(_, tainted)| !tainted).map(|(name, _)| name).collect();
        self.patch_all(&lacking, Some(zone)).await
    }

    async fn drift(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<Vec<String>, StepError> {
        let nodes = if share == Share::FULL { Vec::new() } else { self.nodes_of(zone)? };
        let (tainted, lacking): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|(_, tainted)| *tainted);
        let names: Vec<String> = lacking.into_iter().map(|(name, _)| name).collect();
        let nodes = tainted.len() + names.len();
        let sentence =
            || format!("{} of {nodes} nodes joined, or lost the taint, and get it: {}", names.len(), some_of(&names));
        Ok((!names.is_empty()).then(sentence).into_iter().collect())
    }

    /// Reads back from the API server itself.
    async fn confirm(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        let tainted = self.tainted().await?;
        let is_tainted = |name: &String| tainted.iter().any(|(tainted, of)| tainted == name && of == zone);
        let (done, missing): (Vec<_>, Vec<_>) =
            self.nodes_of(zone)?.into_iter().partition(|(name, _)| is_tainted(name));
        let count = done.len() + missing.len();
        let left = tainted.iter().filter(|(_, of)| of == zone).count();
        match share {
            Share::FULL if left > 0 => Err(StepError::soon(format!("{left} nodes still carry the taint"))),
            Share::FULL => Ok(()),
            _ if !missing.is_empty() => {
                Err(StepError::soon(format!("{} of {count} nodes carry the taint", done.len())))
            }
            _ => Ok(()),
        }
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        Ok(self.tainted().await?.into_iter().map(|(_, zone)| zone).collect())
    }
}

#[async_trait]
impl RealStep for TaintNodes {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let nodes: Vec<String> = self.nodes_of(zone)?.into_iter().map(|(name, _)| name).collect();
        let nodes = if share == Share::FULL { Vec::new() } else { nodes };
        let change = format!("{} nodes take no new pods: {}", nodes.len(), some_of(&nodes));
        Ok(Preview { changes: vec![change], ..Preview::default() })
    }

    /// That the account may patch nodes is asked with all its rights.
    async fn probe(&self) -> Vec<Probe> {
        Vec::new()
    }

    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let ours = self.tainted().await?.into_iter().filter(|(_, of)| zone.is_none_or(|zone| zone == of));
        let names: Vec<String> = ours.map(|(name, _)| name).collect();
        self.patch_all(&names, None).await?;
        Ok((!names.is_empty()).then(|| format!("undone on {}", some_of(&names))).into_iter().collect())
    }
}
