//! A pause: a person wants zoneward to keep its hands off for a while.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Isolation;

/// Whether a person has paused zoneward.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    #[default]
    Off,
    On {
        since: Timestamp,
        /// When it ends by itself.
        until: Option<Timestamp>,
        why: String,
    },
    /// It can't be told: nothing begins, and what is to end ends.
    Unknown { why: String },
}

impl Pause {
    pub const fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Whether a person has paused it, for sure.
    pub const fn is_on(&self) -> bool {
        matches!(self, Self::On { .. })
    }

    /// Whether it leaves an isolation as it is. What a person gives back is given back all the same.
    pub fn stops(&self, isolation: &Isolation, now: Timestamp) -> bool {
        match self {
            Self::Off => false,
            Self::On { .. } => isolation.restore_requested_at.is_none(),
            Self::Unknown { .. } => !isolation.returning(now),
        }
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "zoneward is not paused"),
            Self::On { since, until, why } => {
                write!(f, "zoneward is paused since {since:.0}, until ")?;
                match until {
                    Some(until) => write!(f, "{until:.0}")?,
                    None => write!(f, "it is resumed")?,
                }
                write!(f, ": {why}")
            }
            Self::Unknown { why } => write!(f, "whether zoneward is paused can't be told: {why}"),
        }
    }
}
