//! Sees the mesh through Prometheus: exact increments by service and zone, and how complete they are.

mod decode;
mod failures;
mod prometheus;
mod queries;
mod settings;

pub use failures::FailureClasses;
pub use prometheus::{ConnectError, Inspection, PrometheusObserver, Usage};
pub use settings::{BasicAuth, Header, Labels, Override, Settings};
