//! What one cycle's data say, with a closer look where they don't suffice.

use jiff::Timestamp;

use super::{Pipeline, inputs};
use crate::detect::{self, Pods};
use crate::domain::{Assessment, Finding, Gap, Snapshot};
use crate::ports::Observer;

/// Rounds of a closer look in one cycle: each settles at least one suspect.
const MOST_CLOSER_LOOKS: usize = 8;

impl Pipeline {
    /// Detects, looks closer at what is unsettled, and detects again.
    pub(super) async fn judge(
        &self,
        observer: &mut dyn Observer,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> (Assessment, inputs::Looks) {
        let (mut pods, mut looks) = (Pods::new(), inputs::Looks::new());
        let mut assessment = detect::detect(&self.history, &pods, &self.settings.detect, now);
        for _ in 0..MOST_CLOSER_LOOKS {
            if assessment.unsettled.is_empty() {
                break;
            }
            for suspect in &assessment.unsettled {
                let look = observer.observe_pods(suspect, snapshot.time).await.map_err(|error| error.to_string());
                looks.push((suspect.clone(), look.clone()));
                match look {
                    Ok(seen) => {
                        pods.insert(suspect.clone(), seen);
                    }
                    Err(error) => return (unsettled_as_gaps(assessment, &error), looks),
                }
            }
            assessment = detect::detect(&self.history, &pods, &self.settings.detect, now);
        }
        (unsettled_as_gaps(assessment, "too many suspects to look at in one cycle"), looks)
    }
}

/// What could not be settled is not known.
fn unsettled_as_gaps(mut assessment: Assessment, why: &str) -> Assessment {
    for suspect in std::mem::take(&mut assessment.unsettled) {
        let gap = Gap::QueryFailed { why: format!("the pods of {} in {}: {why}", suspect.service, suspect.zone) };
        assessment.zones.insert(suspect.zone, Finding::inconclusive(vec![gap]));
    }
    assessment
}
