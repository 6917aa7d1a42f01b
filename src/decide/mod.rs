//! From verdicts to what should be done: one match.

mod drill;
mod effect;
mod outcome;
mod recovery;
mod settings;

pub use drill::{DrillTime, Settings as DrillSettings, breaks_off, due_drill};
pub use effect::{effect, ineffective};
pub use outcome::{Figures, Picture, Settings as RollbackSettings, failing, figures};
pub use recovery::{Basis, Settings as RecoverySettings, Signs, recover};
pub use settings::Settings;

use std::collections::BTreeSet;

use crate::domain::{Assessment, Decision, Finding, HoldReason, Isolation, Origin, Request, Verdict, Zone};

/// What the verdict on each zone calls for; wishes to isolate come first, the most severe at the front.
///
/// Pure. Guardrails come after it.
pub fn decide(assessment: &Assessment, isolations: &[Isolation], settings: &Settings) -> Vec<(Zone, Decision)> {
    let severity = |finding: &Finding| finding.evidence.iter().map(|e| e.severity).fold(0.0, f64::max);
    let mut zones: Vec<(&Zone, &Finding)> = assessment.zones.iter().collect();
    zones.sort_by(|a, b| severity(b.1).total_cmp(&severity(a.1)).then_with(|| a.0.cmp(b.0)));
    let isolation = |zone: &Zone| isolations.iter().find(|i| i.active() && i.zone() == zone);
    let decision = |(zone, finding): (&Zone, &Finding)| {
        let hold_or_isolate = match isolation(zone) {
            Some(isolation) if !isolation.spec.approved => Decision::Hold(HoldReason::NotApproved),
            Some(_) => Decision::Hold(HoldReason::AlreadyIsolated),
            None => for_zone(zone, finding, settings),
        };
        (zone.clone(), hold_or_isolate)
    };
    let mut decisions: Vec<(Zone, Decision)> = zones.into_iter().map(decision).collect();
    decisions.sort_by_key(|(_, decision)| !matches!(decision, Decision::Isolate(_)));
    decisions
}

fn for_zone(zone: &Zone, finding: &Finding, settings: &Settings) -> Decision {
    let hold = match &finding.verdict {
        Verdict::Healthy => HoldReason::NoFault,
        Verdict::ZoneFault if finding.persistent => {
            return Decision::Isolate(Request {
                zone: zone.clone(),
                origin: Origin::Detector,
                expires_after: settings.expires_after,
                evidence: finding.evidence.clone(),
                overrides: BTreeSet::new(),
            });
        }
        Verdict::ZoneFault => HoldReason::NotYetPersistent { lasted: finding.lasted, needed: finding.needed },
        Verdict::ServiceFault { affected_share, needed_share } => {
            HoldReason::TooNarrow { affected_share: *affected_share, needed_share: *needed_share }
        }
        Verdict::InstanceFault { pod } => HoldReason::SingleInstance { pod: pod.clone() },
        Verdict::NodeFault { node } => HoldReason::SingleNode { node: node.clone() },
        Verdict::RegionalFault => HoldReason::RegionalFault,
        Verdict::RolloutInProgress { new_pods, pods } => {
            HoldReason::RolloutInProgress { new_pods: *new_pods, pods: *pods }
        }
        Verdict::FaultElsewhere { why } => HoldReason::FaultElsewhere { why: why.clone() },
        Verdict::Inconclusive { gaps } => {
            HoldReason::StaleData { why: gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ") }
        }
    };
    Decision::Hold(hold)
}
