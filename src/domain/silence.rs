//! Planned maintenance, as silences of an Alertmanager tell of it.

use jiff::Timestamp;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::Zone;

/// What is known of silences.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Silences {
    /// When they were last seen; never, where there is none to ask.
    pub seen_at: Option<Timestamp>,
    /// Those that name zones.
    pub of_zones: Vec<Silence>,
}

impl Silences {
    /// The one that silences the zone now, and for the longest.
    pub fn of(&self, zone: &Zone, now: Timestamp) -> Option<&Silence> {
        let lasts = |silence: &&Silence| silence.starts_at <= now && now < silence.ends_at;
        self.of_zones.iter().filter(lasts).filter(|silence| silence.zones.names(zone)).max_by_key(|it| it.ends_at)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Silence {
    pub id: String,
    pub by: String,
    pub why: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub zones: SilencedZones,
}

/// The zones that a matcher names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilencedZones {
    One(Zone),
    Pattern(#[serde(with = "as_text")] Regex),
}

impl SilencedZones {
    /// A regular expression, which is to match a zone's whole name. One that also matches where there is no zone at all names
    /// none.
    pub fn pattern(text: &str) -> Option<Self> {
        let pattern = Regex::new(&format!("^(?:{text})$")).ok()?;
        (!pattern.is_match("")).then_some(Self::Pattern(pattern))
    }

    fn names(&self, zone: &Zone) -> bool {
        match self {
            Self::One(named) => named == zone,
            Self::Pattern(pattern) => pattern.is_match(zone.as_str()),
        }
    }
}

mod as_text {
    use regex::Regex;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(pattern: &Regex, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(pattern.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
        Regex::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
