//! The binary as its users run it, on the real servers of `tests/parts.sh`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backfill;
mod cli;
mod detection;
mod executor;
mod hostile;
mod live;
mod scenarios;
mod secured;
mod support;
mod tidy;
