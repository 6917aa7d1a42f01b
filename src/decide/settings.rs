//! How long an isolation may last.

use serde::{Deserialize, Serialize};

use crate::domain::Period;

/// The section `isolate`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub expires_after: Period,
}

impl Default for Settings {
    fn default() -> Self {
        Self { expires_after: Period::from_hours(1) }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        if self.expires_after < Period::from_mins(1) || self.expires_after > Period::from_hours(72) {
            vec![("expires_after", format!("{} is outside 1m to 72h", self.expires_after))]
        } else {
            Vec::new()
        }
    }
}
