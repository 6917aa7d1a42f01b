//! Tells people, by what the audit journal holds: one file a target.

mod alertmanager;
mod alerts;
mod kubernetes_events;
mod webhook;

pub use alertmanager::{Alertmanager, AlertmanagerSettings};
pub use kubernetes_events::KubernetesEvents;
pub use webhook::{Webhook, WebhookSettings};

use serde::{Deserialize, Serialize};

use crate::domain::{Isolation, Pause};

/// The section `notify`; config/default.yaml describes each field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub alertmanager: Option<AlertmanagerSettings>,
    pub webhook: Option<WebhookSettings>,
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(String, String)> {
        let of = |section: &'static str| move |(key, problem): (String, String)| (format!("{section}.{key}"), problem);
        let mut problems: Vec<(String, String)> = Vec::new();
        problems.extend(self.alertmanager.iter().flat_map(AlertmanagerSettings::problems).map(of("alertmanager")));
        problems.extend(self.webhook.iter().flat_map(WebhookSettings::problems).map(of("webhook")));
        problems
    }
}

/// What came of a message to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Sent,
    /// In the last try.
    Failed,
    /// It was never tried, as too many wait.
    Dropped,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// Counts messages, by target.
pub type Count = dyn Fn(&'static str, Outcome) + Send + Sync;

/// What the replica that acts has in hand. In observe mode there is nothing.
#[derive(Debug, Clone, Default)]
pub struct InHand {
    /// Those that have not ended.
    pub isolations: Vec<Isolation>,
    pub pause: Pause,
}

/// What this replica has in hand; none while another one acts.
pub type Acting = dyn Fn() -> Option<InHand> + Send + Sync;
