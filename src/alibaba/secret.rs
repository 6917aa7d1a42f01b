//! What must never be shown.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// Before they expire, keys are renewed: a call with them may take a while, and clocks differ.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// Has no `Display`, and a `Debug` that shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// The text without this in it: servers quote what they were sent.
    pub(super) fn hide_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, HIDDEN) }
    }
}

const HIDDEN: &str = "<hidden>";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

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
        let secrets = [Some(&self.id), Some(&self.secret), self.token.as_ref()];
        secrets.into_iter().flatten().fold(text.to_owned(), |text, secret| secret.hide_in(&text))
    }
}
