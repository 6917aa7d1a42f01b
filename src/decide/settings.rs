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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolation_lasts_a_minute_to_three_days() {
        let wrong = |seconds| -> Vec<&'static str> {
            let settings = Settings { expires_after: Period::from_secs(seconds) };
            settings.problems().into_iter().map(|(key, _)| key).collect()
        };
        assert!(wrong(60).is_empty() && wrong(72 * 3600).is_empty());
        assert_eq!(wrong(59), ["expires_after"]);
        assert_eq!(wrong(72 * 3600 + 1), ["expires_after"]);
    }
}
