//! Takes a zone out of rotation and gives it back: the one executor, whoever asked.

mod admission;
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

pub use admission::{HandsOver, Told, admission, unseen};
pub use controller::Controller;
pub use convert::object;
pub use execute::{Admit, AdvanceError, Executor};
pub use kubernetes_store::KubernetesStore;
pub use ledger::{IllegalTransition, StepEvent};
pub use store::MemoryStore;
pub use sweep::{SweepError, Sweeper};
