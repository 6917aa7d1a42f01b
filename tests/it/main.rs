//! The binary as its users run it, on the real servers of `tests/parts.sh`.

mod backfill;
mod cli;
mod detection;
mod executor;
mod hostile;
mod live;
mod scenarios;
mod support;
mod tidy;
