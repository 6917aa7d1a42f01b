//! The audit journal: append-only JSON lines in a hash chain, over segments that are rotated and, when they are old or too
//! many, retired, which is on record itself.

mod inputs;
mod journal;
mod lock;
mod retention;
mod review;
mod segment;
mod source;
mod story;

pub use inputs::{InputsError, inputs};
pub use journal::Journal;
pub use review::{Entry, ID_DIGITS, ReviewError, Verified, find, read, verify};
pub use source::Source;
pub use story::{stories, story};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::{Bytes, Period, Record, inert_json};

/// The section `audit`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub directory: PathBuf,
    pub segment_size: Bytes,
    pub segment_age: Period,
    pub keep_for: Period,
    pub keep_size: Bytes,
    pub stdout: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/zoneward/audit"),
            segment_size: Bytes::from_mib(8),
            segment_age: Period::from_hours(24),
            keep_for: Period::from_hours(90 * 24),
            keep_size: Bytes::from_mib(512),
            stdout: false,
        }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.segment_age < Period::from_mins(1) {
            problems.push(("segment_age", format!("{} is below 1m", self.segment_age)));
        }
        if self.keep_for < self.segment_age {
            problems.push(("keep_for", format!("{} is below segment_age ({})", self.keep_for, self.segment_age)));
        }
        if self.keep_size.get() / 4 < self.segment_size.get() {
            let problem = format!("{} is below four times segment_size ({})", self.keep_size, self.segment_size);
            problems.push(("keep_size", problem));
        }
        problems
    }
}

/// Before the first entry of all.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const EXTENSION: &str = "jsonl";

/// A record as the journal has it, byte by byte.
pub fn text_of(record: &Record) -> serde_json::Result<String> {
    serde_json::to_string(record).map(inert_json)
}

/// SHA-256 over the hash before, the number and the record exactly as it is written.
fn chain_hash(previous: &str, number: u64, record: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(number.to_be_bytes());
    hasher.update(record);
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests;
