//! Of the daemon what decides and acts, without what speaks to the world.

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
