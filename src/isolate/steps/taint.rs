//! No new pods: the zone's nodes carry a taint of our own. Others' taints, and cordons, are not touched.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Look;
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::kubernetes::{bounded, marks, status_code, step_error};
use crate::ports::{IsolationStep, StepError};

/// Patches under way at once.
const CONCURRENCY: usize = 16;

/// The section `steps.taint`: nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {}

/// Needs get, list, watch and patch on nodes.
pub struct Taint {
    nodes: Api<Node>,
    look: Arc<Look>,
}

impl Taint {
    pub fn new(_: Settings, client: &Client, look: Arc<Look>) -> Self {
        Self { nodes: Api::all(client.clone()), look }
    }

    /// Removes our taint from every node that has it, of one zone or of all, whatever else is known.
    pub async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let list = bounded(self.nodes.list(&ListParams::default())).await;
        let nodes = list.map_err(|error| step_error("nodes can't be listed", &error))?;
        let ours = |node: &&Node| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            let mut marked = taints.filter(|taint| taint.key == marks::TAINT);
            marked.any(|taint| zone.is_none_or(|zone| taint.value.as_deref() == Some(zone.as_str())))
        };
        let names: Vec<String> = nodes.items.iter().filter(ours).map(ResourceExt::name_any).collect();
        self.patch_all(&names, None).await?;
        Ok(names)
    }

    async fn patch_all(&self, names: &[String], zone: Option<&Zone>) -> Result<(), StepError> {
        let patches: Vec<_> = names.iter().map(|name| self.patch(name, zone)).collect();
        stream::iter(patches).buffer_unordered(CONCURRENCY).try_collect().await
    }

    /// A strategic merge touches the one taint with our key.
    async fn patch(&self, name: &str, zone: Option<&Zone>) -> Result<(), StepError> {
        let taint = match zone {
            Some(zone) => json!({"key": marks::TAINT, "value": zone.as_str(), "effect": "NoSchedule"}),
            None => json!({"$patch": "delete", "key": marks::TAINT}),
        };
        let patch = Patch::Strategic(json!({"spec": {"taints": [taint]}}));
        match bounded(self.nodes.patch(name, &PatchParams::default(), &patch)).await {
            Ok(_) => Ok(()),
            Err(error) if status_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(step_error(&format!("node {name} can't be patched"), &error)),
        }
    }

    /// Nodes whose taint is not as wanted.
    fn wrong(&self, zone: &Zone, tainted: bool) -> Result<Vec<String>, StepError> {
        let view = (self.look)().map_err(StepError::soon)?;
        let nodes = view.nodes.into_iter().filter(|(_, node)| node.zone.as_ref() == Some(zone));
        let wrong = nodes.filter(|(_, node)| node.tainted != tainted && !(tainted && node.exempt));
        Ok(wrong.map(|(name, _)| name).collect())
    }
}

#[async_trait]
impl IsolationStep for Taint {
    fn name(&self) -> StepName {
        StepName::new("taint")
    }

    fn granularity(&self) -> Granularity {
        Granularity::AllOrNothing
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
        self.patch_all(&self.wrong(zone, true)?, Some(zone)).await
    }

    /// Reads back from the API server itself.
    async fn confirm(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        let list = bounded(self.nodes.list(&ListParams::default())).await;
        let nodes = list.map_err(|error| step_error("nodes can't be listed", &error))?;
        let tainted = |node: &Node| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            taints.into_iter().any(|taint| taint.key == marks::TAINT && taint.value.as_deref() == Some(zone.as_str()))
        };
        let view = (self.look)().map_err(StepError::soon)?;
        let in_zone = |node: &&Node| {
            let known = view.nodes.get(&node.name_any());
            known.is_some_and(|known| known.zone.as_ref() == Some(zone) && !known.exempt)
        };
        let count = nodes.items.iter().filter(in_zone).count();
        let done = nodes.items.iter().filter(in_zone).filter(|node| tainted(node)).count();
        let left = nodes.items.iter().filter(|node| tainted(node)).count();
        match share {
            Share::FULL if left > 0 => Err(StepError::soon(format!("{left} nodes still carry the taint"))),
            Share::FULL => Ok(()),
            _ if done < count => Err(StepError::soon(format!("{done} of {count} nodes carry the taint"))),
            _ => Ok(()),
        }
    }
}
