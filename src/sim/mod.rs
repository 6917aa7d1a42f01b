//! The embedded world: a mesh in several zones whose faults are known, seeded and deterministic.
//!
//! It is an observer and three steps, so that the demo and the scenario tests run the same pipeline and the same executor
//! as a real cluster does; and it exports its metrics as Istio would, for a real Prometheus to scrape.

mod cluster;
mod exporter;
mod mesh;
mod observer;
mod pod;
mod scenario;
mod steps;
mod world;

pub use exporter::{Target, export};
pub use observer::WorldObserver;
pub use pod::EDGES_MS;
pub use scenario::{Expectation, Scenario, ScenarioError};
pub use steps::steps;
pub use world::{Seen, SeenPod, Users, World, ZoneSight};
