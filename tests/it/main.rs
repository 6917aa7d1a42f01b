//! The binary as its users run it, on the real servers of `tests/parts.sh`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acting;
mod backfill;
mod bind;
mod cli;
#[allow(dead_code, reason = "shared with the end-to-end test")]
mod cluster;
mod crash;
mod detection;
mod distribute;
mod dns;
mod dns_trouble;
mod evaluation;
mod executor;
mod holds;
mod hostile;
mod istio;
mod istiod;
mod live;
mod recordings;
mod relay;
mod reload;
mod scenarios;
mod secured;
mod stage;
mod steps;
mod support;
mod tidy;
mod trouble;
