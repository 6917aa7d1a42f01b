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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::verdict::{Signal, Vantage};
    use crate::domain::{Evidence, Gap, IsolationSpec, Nats, Period, Share};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn zone(letter: char) -> Zone {
        Zone::new(format!("zone-{letter}"))
    }

    fn evidence(severity: f64) -> Evidence {
        Evidence {
            service: None,
            signal: Signal::ServerErrors,
            vantage: Vantage::Server,
            nats: Nats::new(20.0),
            peers_alike: false,
            seen: severity,
            expected: 0.0,
            excess_low: 0.0,
            excess_high: severity,
            zone_requests: 1000.0,
            peers_seen: 0.0,
            peer_requests: 1000.0,
            window: Period::from_mins(1),
            bad_cycles: 4,
            window_cycles: 4,
            severity,
        }
    }

    fn sick(severity: f64) -> Finding {
        let evidence = vec![evidence(severity), evidence(severity / 2.0)];
        Finding { verdict: Verdict::ZoneFault, persistent: true, evidence, ..Finding::healthy() }
    }

    fn isolation(letter: char) -> Isolation {
        let spec = IsolationSpec {
            zone: zone(letter),
            origin: Origin::Detector,
            reason: "test".into(),
            evidence: Vec::new(),
            expires_at: NOW,
            share: Share::NONE,
            only: Default::default(),
            overrides: Default::default(),
            approved: true,
        };
        Isolation::new("1".into(), spec, NOW)
    }

    /// What is decided, in order: a zone, and why not, if so.
    fn decided(zones: &[(char, Finding)], isolations: &[Isolation]) -> Vec<(String, String)> {
        let zones = zones.iter().map(|(letter, finding)| (zone(*letter), finding.clone())).collect();
        let assessment = Assessment { time: NOW, zones, unsettled: Default::default() };
        let word = |decision: Decision| match decision {
            Decision::Isolate(request) => {
                assert_eq!((request.origin, request.expires_after), (Origin::Detector, Period::from_hours(1)));
                "isolate".to_owned()
            }
            Decision::Hold(reason) => reason.as_str().to_owned(),
        };
        let decisions = decide(&assessment, isolations, &Settings::default());
        decisions.into_iter().map(|(zone, decision)| (zone.to_string(), word(decision))).collect()
    }

    fn told(decided: &[(String, String)]) -> Vec<(&str, &str)> {
        decided.iter().map(|(zone, word)| (zone.as_str(), word.as_str())).collect()
    }

    #[test]
    fn wishes_to_isolate_come_first_the_most_severe_at_the_front() {
        let service_fault = Verdict::ServiceFault { affected_share: 0.01, needed_share: 0.2 };
        let narrow = Finding { verdict: service_fault, ..sick(0.9) };
        let zones = [('a', narrow), ('b', sick(0.1)), ('c', sick(0.3)), ('d', sick(0.1)), ('e', Finding::healthy())];
        let decided = decided(&zones, &[]);
        let order = [
            ("zone-c", "isolate"),
            ("zone-b", "isolate"),
            ("zone-d", "isolate"),
            ("zone-a", "too_narrow"),
            ("zone-e", "no_fault"),
        ];
        assert_eq!(told(&decided), order);
    }

    #[test]
    fn a_zone_that_is_out_or_waits_for_a_person_is_not_wished_for_again() {
        let zones = [('a', sick(0.3)), ('b', sick(0.1))];
        let with = |isolation: Isolation| decided(&zones, &[isolation]);
        assert_eq!(told(&with(isolation('a'))), [("zone-b", "isolate"), ("zone-a", "already_isolated")]);
        let mut waits = isolation('a');
        waits.spec.approved = false;
        assert_eq!(told(&with(waits)), [("zone-b", "isolate"), ("zone-a", "not_approved")]);
        let ended = Isolation { restored_at: Some(NOW), ..isolation('a') };
        assert_eq!(told(&with(ended)), [("zone-a", "isolate"), ("zone-b", "isolate")]);
    }

    #[test]
    fn only_a_zones_own_fault_that_lasts_is_worth_an_isolation() {
        for (verdict, word) in [
            (Verdict::Healthy, "no_fault"),
            (Verdict::ZoneFault, "not_yet_persistent"),
            (Verdict::InstanceFault { pod: "web-1".into() }, "single_instance"),
            (Verdict::NodeFault { node: "node-1".into() }, "single_node"),
            (Verdict::RegionalFault, "regional_fault"),
            (Verdict::RolloutInProgress { new_pods: 1, pods: 3 }, "rollout_in_progress"),
            (Verdict::FaultElsewhere { why: "servers in zone-b".into() }, "fault_elsewhere"),
            (Verdict::Inconclusive { gaps: vec![Gap::NoTraffic { zone: zone('a') }] }, "stale_data"),
        ] {
            let persistent = verdict != Verdict::ZoneFault;
            let finding = Finding { verdict, persistent, ..Finding::healthy() };
            assert_eq!(told(&decided(&[('a', finding)], &[])), [("zone-a", word)]);
        }
    }
}
