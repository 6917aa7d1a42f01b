//! Sees the mesh through Prometheus: exact increments by service and zone, and how complete they are.

mod api;
mod decode;
mod pods;
mod probe;
mod prometheus;
mod queries;
mod recall;
mod recording;
mod settings;
mod shards;
mod stream;

pub use api::{ConnectError, Usage};
pub use probe::ProbeSettings;
pub use prometheus::{Inspection, PrometheusObserver};
pub use recall::Recall;
pub use recording::{Head, RecordedObserver, Recorder, RecordingError};
pub use settings::{BasicAuth, Header, Labels, Settings, ZoneFrom};
