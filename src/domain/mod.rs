//! Shared vocabulary: pure data, no behaviour beyond what keeps it consistent.

mod calendar;
pub mod cluster;
pub mod decision;
mod failures;
pub mod isolation;
pub mod observation;
pub mod overview;
mod pause;
pub mod quantity;
pub mod record;
pub mod recovery;
pub mod service;
pub mod silence;
pub mod verdict;
pub mod zone;

pub use calendar::{Day, NamedTimeZone, TimeOfDay};
pub use cluster::ClusterView;
pub use decision::{Decision, HoldReason, Mode, Request};
pub use failures::FailureClasses;
pub use isolation::{
    Admission, Effect, Isolation, IsolationSpec, OperatorHold, Origin, Receipt, Residual, Share, StepName, StepState,
};
pub use observation::{Calls, Cell, Coverage, Gap, Histogram, PodAge, PodCalls, Snapshot};
pub use overview::Overview;
pub use pause::Pause;
pub use quantity::{Bytes, CycleLength, Factor, Nats, Period, Ratio};
pub use record::{Event, Guardrail, GuardrailSaid, Record};
pub use recovery::{Probes, Recovery, ReturnMode, Stage};
pub use service::{ServiceOverride, ServiceSettings, Services};
pub use silence::{Silence, Silences};
pub use verdict::{Assessment, Evidence, Finding, Sight, Signal, Vantage, Verdict};
pub use zone::{ServiceId, ServicePattern, Zone};
