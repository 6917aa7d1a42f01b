//! The ways to take a zone out of rotation: one file a step, and the one list of them.

pub mod dns_rfc2136;
mod mesh_istio;
mod taint;

pub use dns_rfc2136::Rfc2136;
pub use mesh_istio::{DrainPlan, MeshIstio, drain_plan};
pub use taint::TaintNodes;

use std::sync::Arc;

use kube::Client;
use serde::{Deserialize, Serialize};

use crate::domain::ClusterView;
use crate::ports::IsolationStep;

/// Looks at the cluster: as new as can be had, or why it can't be.
pub type Look = dyn Fn() -> Result<ClusterView, String> + Send + Sync;

/// The section `steps`: those that are there are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub mesh_istio: Option<mesh_istio::Settings>,
    pub dns_rfc2136: Option<dns_rfc2136::Settings>,
    pub taint: Option<taint::Settings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mesh_istio: Some(Default::default()), dns_rfc2136: None, taint: Some(Default::default()) }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mesh = self
            .mesh_istio
            .iter()
            .flat_map(mesh_istio::Settings::problems)
            .map(|(k, p)| (format!("mesh_istio.{k}"), p));
        let dns = self
            .dns_rfc2136
            .iter()
            .flat_map(dns_rfc2136::Settings::problems)
            .map(|(k, p)| (format!("dns_rfc2136.{k}"), p));
        let mut problems: Vec<(String, String)> = mesh.chain(dns).collect();
        if self.mesh_istio.is_none() && self.dns_rfc2136.is_none() && self.taint.is_none() {
            problems.push((String::new(), "no step is left: an isolation would do nothing".to_owned()));
        }
        problems
    }
}

/// The configured steps.
pub fn steps(settings: &Settings, client: &Client, look: &Arc<Look>) -> Vec<Arc<dyn IsolationStep>> {
    let mut steps: Vec<Arc<dyn IsolationStep>> = Vec::new();
    if let Some(settings) = &settings.mesh_istio {
        steps.push(Arc::new(MeshIstio::new(settings.clone(), client, Arc::clone(look))));
    }
    if let Some(settings) = &settings.dns_rfc2136 {
        steps.push(Arc::new(Rfc2136::new(settings.clone())));
    }
    if let Some(settings) = &settings.taint {
        steps.push(Arc::new(TaintNodes::new(settings.clone(), client, Arc::clone(look))));
    }
    steps
}
