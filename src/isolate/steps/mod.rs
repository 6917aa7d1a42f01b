//! The ways to take a zone out of rotation: one file a step, and the one list of them.

pub mod dns_alibaba;
pub mod dns_aws_arc;
pub mod dns_external_dns;
pub mod dns_rfc2136;
pub mod mesh_asm;
pub mod mesh_distribute;
pub mod mesh_istio;
pub mod taint;
pub mod webhook;

pub use dns_alibaba::DnsAlibaba;
pub use dns_aws_arc::AwsArc;
pub use dns_external_dns::ExternalDns;
pub use dns_rfc2136::Rfc2136;
pub use mesh_asm::MeshAsm;
pub use mesh_distribute::MeshDistribute;
pub use mesh_istio::MeshIstio;
pub use taint::TaintNodes;
pub use webhook::Webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;
use serde::{Deserialize, Serialize};

use crate::domain::{ClusterView, Share, Zone};
use crate::ports::{IsolationStep, StepError};

/// Looks at the cluster: as new as can be had, or why it can't be.
pub type Look = dyn Fn() -> Result<ClusterView, String> + Send + Sync;

/// A step of the real world: beside what the executor asks of it, what people ask.
#[async_trait]
pub trait RealStep: IsolationStep {
    /// What giving the zone this share would change. Changes nothing.
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError>;

    /// Whether it would work, as far as that can be told without changing anything.
    async fn probe(&self) -> Vec<Probe>;

    /// Gives back whatever carries this step's marks, of one zone or of all, whatever is on record. Says what it did.
    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError>;
}

/// What a step would do, in sentences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    pub changes: Vec<String>,
    /// What it would not touch, by the reason.
    pub left_alone: BTreeMap<String, Vec<String>>,
}

/// What a look before acting has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    Works(String),
    /// It may work; what to do to be sure.
    Unsure {
        found: String,
        hint: String,
    },
    Broken {
        found: String,
        hint: Option<String>,
    },
}

impl Probe {
    pub fn broken(found: impl Into<String>) -> Self {
        Self::Broken { found: found.into(), hint: None }
    }

    pub fn broken_but(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Broken { found: found.into(), hint: Some(hint.into()) }
    }

    pub fn unsure(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsure { found: found.into(), hint: hint.into() }
    }
}

/// A step's section of the configuration; its key is the step's name.
pub trait StepSettings {
    /// What is illegal, each as the key and what is allowed.
    fn problems(&self) -> Vec<(String, String)>;

    fn step(&self, client: &Client, look: &Arc<Look>) -> Arc<dyn RealStep>;
}

/// The one list: adding a step is a line here, its file, its part of config/default.yaml and of deploy/, and its test.
macro_rules! steps {
    ($($name:ident = $default:expr;)*) => {
        /// The section `steps`: those that are there are taken.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Settings {
            $(pub $name: Option<$name::Settings>,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Settings {
            fn taken(&self) -> Vec<(&'static str, &dyn StepSettings)> {
                let mut taken: Vec<(&'static str, &dyn StepSettings)> = Vec::new();
                $(taken.extend(self.$name.as_ref().map(|settings| (stringify!($name), settings as &dyn StepSettings)));)*
                taken
            }
        }
    };
}

steps! {
    mesh_istio = Some(Default::default());
    mesh_asm = None;
    mesh_distribute = None;
    dns_rfc2136 = None;
    dns_alibaba = None;
    dns_external_dns = None;
    dns_aws_arc = None;
    webhook = None;
    taint = Some(Default::default());
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(String, String)> {
        let of = |(name, settings): (&'static str, &dyn StepSettings)| {
            settings.problems().into_iter().map(move |(key, problem)| (format!("{name}.{key}"), problem))
        };
        let taken = self.taken();
        if taken.is_empty() {
            return vec![(String::new(), "no step is left: an isolation would do nothing".to_owned())];
        }
        let mut problems: Vec<(String, String)> = taken.into_iter().flat_map(of).collect();
        if self.mesh_istio.is_some() && self.mesh_distribute.is_some() {
            let why = "does what mesh_istio does in another way: take one of them, here by mesh_istio: null";
            problems.push(("mesh_distribute".to_owned(), why.to_owned()));
        }
        problems
    }

    /// Whether any of them can give a zone a part of its traffic.
    pub fn share_traffic(&self) -> bool {
        self.mesh_istio.is_some()
            || self.mesh_distribute.is_some()
            || self.webhook.as_ref().is_some_and(|webhook| webhook.partial_shares)
    }

    /// The configured steps, and those whose marks tell all there is to know, configured or not.
    fn with_own_marks(&self) -> Self {
        Self {
            mesh_istio: Some(self.mesh_istio.clone().unwrap_or_default()),
            taint: Some(self.taint.clone().unwrap_or_default()),
            ..self.clone()
        }
    }
}

/// Names for people, of which there may be many.
pub fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = if names.len() > SHOWN { format!(", and {} more", names.len() - SHOWN) } else { String::new() };
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    if shown.is_empty() { "none".to_owned() } else { format!("{}{more}", shown.join(", ")) }
}

/// The configured steps.
pub fn steps(settings: &Settings, client: &Client, look: &Arc<Look>) -> Vec<Arc<dyn RealStep>> {
    settings.taken().into_iter().map(|(_, settings)| settings.step(client, look)).collect()
}

/// Every step that can undo without knowing the cluster: what may have left marks.
pub fn sweepers(settings: &Settings, client: &Client) -> Vec<Arc<dyn RealStep>> {
    let blind: Arc<Look> = Arc::new(|| Ok(ClusterView::default()));
    steps(&settings.with_own_marks(), client, &blind)
}
