//! zoneward watches a service mesh through Prometheus, compares every availability zone with its peers by statistical
//! tests, and, when one zone alone is worse for long enough and broadly enough, takes it out of rotation by reversible
//! steps, with a record that lets anyone replay why.
//!
//! ```text
//! observe ──> detect ──> decide ──> guard ──> audit ──> request          isolate::Executor
//! Snapshot    Assessment Decision   admit     Record    Isolation ─────> plan ──> verb ──> ledger, until done
//! ```
//!
//! Data flows one way. `detect`, `decide` and `guard` are pure: no I/O, no clock (`now` is an argument), ordered maps
//! only; so `run`, `backtest` and `demo` are the same pipeline over different ends. The ends stand behind the traits of
//! [`ports`]: real ones ([`observe`], [`audit`]) and those of the embedded world ([`sim`]). Who may import whom is
//! checked by a test.
//!
//! Isolations are custom resources ([`isolate::resource`]), whoever makes them: the pipeline, the command line, or
//! `kubectl`. [`isolate::Controller`] runs the executor on them, in the one replica that leads ([`leadership`]).
//! [`kubernetes::ClusterWatch`] is the one view of the cluster, for guardrails and steps alike.
//!
//! Observe mode is a rehearsal: the same decisions, guardrails and executor, with a store in memory and no steps.

pub mod domain;
pub mod ports;

pub mod kubernetes;

pub mod alibaba;

pub mod http;

pub mod alertmanager;

pub mod observe;

pub mod detect;

pub mod decide;

pub mod guard;

pub mod pipeline;

pub mod isolate;

pub mod audit;

pub mod leadership;

pub mod notify;

pub mod settings;

pub mod serve;

pub mod telemetry;

pub mod sim;

pub mod report;

pub mod cli;
