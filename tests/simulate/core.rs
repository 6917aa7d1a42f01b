//! Of the daemon what decides and acts, without what speaks to the world.

#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, reason = "as random runs have it"))]

#[path = "../../src/domain/mod.rs"]
pub mod domain;

#[path = "../../src/ports.rs"]
pub mod ports;

#[path = "../../src/detect/mod.rs"]
pub mod detect;

#[path = "../../src/decide/mod.rs"]
pub mod decide;

#[path = "../../src/guard/mod.rs"]
pub mod guard;

#[path = "../../src/pipeline/mod.rs"]
pub mod pipeline;

#[path = "../../src/isolate"]
pub mod isolate {
    mod admission;
    mod execute;
    mod ledger;
    mod plan;
    mod store;
    mod sweep;
    mod unrecorded;
    mod verb;
    mod words;

    pub mod steps {
        pub type Look = dyn Fn() -> Result<crate::domain::ClusterView, String> + Send + Sync;
    }

    pub use admission::{HandsOver, Told, admission, unseen};
    pub use execute::{Admit, AdvanceError, Executor};
    pub use ledger::{IllegalTransition, StepEvent};
    pub use store::MemoryStore;
    pub use sweep::{SweepError, Sweeper};
}

// All that follows is for `make mutants`: every test that needs no more than the core, and nothing else, so that it builds fast.
#[cfg(test)]
extern crate self as zoneward;

#[cfg(test)]
#[allow(dead_code, reason = "what only its exporter needs")]
#[path = "../../src/sim"]
pub mod sim {
    mod cluster;
    mod mesh;
    mod observer;
    mod pod;
    mod scenario;
    mod steps;
    mod world;

    pub use observer::WorldObserver;
    pub use pod::EDGES_MS;
    pub use scenario::{Expectation, Scenario, ScenarioError};
    pub use steps::steps;
    pub use world::{Seen, SeenPod, Users, World, ZoneSight};
}

#[cfg(test)]
#[path = "../it/detection.rs"]
mod detection;

#[cfg(test)]
#[path = "../it/drills.rs"]
mod drills;

#[cfg(test)]
#[path = "../it/executor.rs"]
mod executor;

#[cfg(test)]
#[path = "../it/executor_time.rs"]
mod executor_time;

#[cfg(test)]
#[path = "../it/guardrails.rs"]
mod guardrails;

#[cfg(test)]
#[path = "../it/holds.rs"]
mod holds;

#[cfg(test)]
#[path = "../it/reclassification.rs"]
mod reclassification;

#[cfg(test)]
mod ends;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod replica;
#[cfg(test)]
mod run;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod story;
#[cfg(test)]
mod world;

#[cfg(test)]
#[test]
fn random_runs_keep_every_promise() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime of one thread");
    let _guard = runtime.enter();
    for seed in 0..60 {
        let broken = run::run(story::Story::new(seed), false).broken;
        assert!(broken.is_none(), "seed {seed}: {}", broken.expect("a broken promise"));
    }
}
