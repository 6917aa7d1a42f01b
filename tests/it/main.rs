//! The binary as its users run it, on the real servers of `tests/parts.sh`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acting;
mod admission;
mod alerts;
mod alibaba;
mod alibaba_cloud;
mod alibaba_dns;
mod alibaba_dns_trouble;
mod alibaba_mesh;
mod alibaba_signature;
mod alibaba_sts;
mod availability;
mod aws_arc;
mod aws_server;
mod backfill;
mod bind;
mod cli;
#[allow(dead_code, reason = "shared with the end-to-end test")]
mod cluster;
mod contract;
mod crash;
mod deploy;
mod detection;
mod distribute;
mod dns;
mod dns_trouble;
mod documents;
mod drills;
mod evaluation;
mod executor;
mod executor_time;
mod external_dns;
mod guarded;
mod guardrails;
mod holds;
mod hostile;
mod increments;
mod istio;
mod istiod;
mod live;
mod maintenance;
mod names;
mod notify;
mod page;
mod pause;
#[allow(dead_code, reason = "shared with the end-to-end test")]
mod planted;
mod probes;
mod reclassification;
mod recordings;
mod recovery;
mod relay;
mod reload;
mod review;
mod scenarios;
mod schema;
mod secrets;
mod secured;
mod server;
mod stage;
mod steps;
mod support;
mod tidy;
mod trouble;
mod webhook;
