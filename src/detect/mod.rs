//! Which zone has a gray failure: compare, corroborate, persist, classify.
//!
//! Every cycle answers, for each zone, service and signal: how improbable is what was seen in the last w cycles if the
//! zone were like its peers *and* like its own past, whichever is worse (evidence, in nats), and how large is the excess
//! (effect)? A zone is at fault when both suffice, for as long as the effect's size requires, and nothing else explains
//! it: other zones just as bad, one bad pod, servers elsewhere, or services too small to matter.

mod classify;
mod compare;
mod corroborate;
mod history;
mod leave_out;
mod location;
mod lost;
mod noise;
mod past;
mod persist;
mod pool;
mod proportion;
mod recent;
mod regional;
mod settings;
mod shown;
#[cfg(test)]
mod staged;
mod tail;
mod track;

pub use classify::{Pods, detect};
pub use history::History;
pub use noise::BLOCK;
pub use settings::{REMEMBERED, Settings};
