//! Takes a zone out of rotation and gives it back: the one executor, whoever asked.

mod conditions;
mod controller;
mod convert;
mod execute;
mod kubernetes_store;
mod ledger;
mod plan;
pub mod resource;
pub mod steps;
mod store;
mod sweep;
mod unrecorded;
mod verb;
mod words;

pub use controller::{Controller, HandsOver, unseen};
pub use convert::object;
pub use execute::{Admit, AdvanceError, Executor};
pub use kubernetes_store::KubernetesStore;
pub use ledger::{IllegalTransition, StepEvent};
pub use store::MemoryStore;
pub use sweep::{SweepError, Sweeper};
