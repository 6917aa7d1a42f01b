//! Keys, and how long they last.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::domain::{Secret, hide_in_json};

/// Before they expire, keys are renewed: a call with them may take a while, and clocks differ.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// An access key, and the token that goes with a temporary one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    pub id: Secret,
    pub secret: Secret,
    pub token: Option<Secret>,
    pub expires: Option<Timestamp>,
}

impl Keys {
    pub(super) fn fresh(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires.duration_since(now) > RENEWED_BEFORE)
    }

    pub(super) fn valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }

    pub(super) fn hide_in(&self, text: &str) -> String {
        Secret::hide_all(&self.all(), text)
    }

    pub(super) fn hide_in_json(&self, json: Value) -> Value {
        hide_in_json(&self.all(), json)
    }

    fn all(&self) -> Vec<Secret> {
        [Some(&self.id), Some(&self.secret), self.token.as_ref()].into_iter().flatten().cloned().collect()
    }
}
