//! The way back of an isolated zone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Share;

/// How an isolated zone comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReturnMode {
    /// A person gives it back. What nobody gives back comes by shares once it has expired.
    Manual,
    /// All at once when it expires.
    Timer,
    /// By shares, as soon as something shows that it has recovered, or once it has expired.
    #[default]
    Evidence,
}

/// How far an isolated zone is on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub stage: Stage,
    /// When the stage began.
    pub since: Timestamp,
    /// What led to it, with the numbers.
    pub why: String,
    /// How often the zone got worse again on its way.
    pub relapses: u32,
    /// After a relapse, when it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// No traffic, no new pods: it is watched for signs of recovery.
    Out,
    /// New pods may come again, so that there is somebody to serve what will be given back.
    Refilling,
    /// It gets a share of its usual traffic, and is judged on it.
    Trial { share: Share },
    /// Nothing keeps it out any more: all is given back.
    Ended,
}

impl Stage {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Refilling => "refilling",
            Self::Trial { .. } => "trial",
            Self::Ended => "ended",
        }
    }
}

/// What came of asking a zone's pods directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    pub asked: u32,
    pub failed: u32,
    /// What the first that failed said.
    pub why: Option<String>,
}
