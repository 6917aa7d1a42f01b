//! Tells people, by what the audit journal holds: one file a target.

mod kubernetes_events;

pub use kubernetes_events::KubernetesEvents;
