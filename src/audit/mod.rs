//! The audit journal: append-only JSON lines in a hash chain, one segment a process.

mod journal;
mod review;

pub use journal::Journal;
pub use review::{Entry, ReviewError, Verified, read, verify};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub directory: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { directory: PathBuf::from("/var/lib/zoneward/audit") }
    }
}

/// Before the first entry of all.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const EXTENSION: &str = "jsonl";

/// SHA-256 over the hash before, the number and the record exactly as it is written.
fn chain_hash(previous: &str, number: u64, record: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(number.to_be_bytes());
    hasher.update(record);
    hex::encode(hasher.finalize())
}
