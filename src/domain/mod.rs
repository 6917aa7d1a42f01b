//! Shared vocabulary: pure data, no behaviour beyond what keeps it consistent.

mod address;
mod calendar;
pub mod cluster;
pub mod decision;
mod failures;
mod inert;
pub mod isolation;
pub mod observation;
pub mod overview;
mod pause;
pub mod quantity;
pub mod record;
pub mod recovery;
mod secret;
pub mod service;
pub mod silence;
pub mod verdict;
pub mod zone;

pub use address::{percent_encoded, problem_of_address, problem_of_base_address, shown_address};
pub use calendar::{Day, NamedTimeZone, TimeOfDay};
pub use cluster::ClusterView;
pub use decision::{Decision, HoldReason, Mode, Request};
pub use failures::FailureClasses;
pub use inert::{inert, inert_json, inert_name};
pub use isolation::{
    Admission, Effect, Isolation, IsolationSpec, OperatorHold, Origin, Receipt, Residual, Share, StepName, StepState,
};
pub use observation::{Calls, Cell, Coverage, Gap, Histogram, PodAge, PodCalls, Snapshot};
pub use overview::Overview;
pub use pause::Pause;
pub use quantity::{Bytes, CycleLength, Factor, Nats, Period, Ratio};
pub use record::{Event, Guardrail, GuardrailSaid, Record};
pub use recovery::{Probes, Recovery, ReturnMode, Stage};
pub use secret::{Secret, hide_in_json};
pub use service::{ServiceOverride, ServiceSettings, Services};
pub use silence::{Silence, Silences};
pub use verdict::{Assessment, Evidence, Finding, Sight, Signal, Vantage, Verdict};
pub use zone::{ServiceId, ServicePattern, Zone};
