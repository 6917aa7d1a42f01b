//! Between the custom resources and the domain. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::conditions::camel_case;
use super::resource::{
    self, Condition, EffectStatus, Episode, RecoveryStatus, ResidualStatus, SpecOrigin, StepStatus, ZoneIsolation,
    ZoneIsolationSpec, ZoneIsolationStatus,
};
use crate::domain::isolation::{Effect, IsolationSpec, OperatorHold, Receipt, Residual, StepEntry};
use crate::domain::{
    Admission, HoldReason, Isolation, Origin, Recovery, ServiceId, Share, Stage, StepName, StepState, Zone,
};
use crate::kubernetes::marks;

pub(super) fn is_managed(object: &ZoneIsolation) -> bool {
    object.labels().get(marks::MANAGED_BY.0).is_some_and(|manager| manager == marks::MANAGED_BY.1)
}

fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

fn seconds(time: Option<&Time>) -> Timestamp {
    time.and_then(|time| Timestamp::from_second(time.0.as_second()).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The episode that an object stands for. Nothing in it is unreadable, so that one object can't keep others from being
/// looked after: an end that can't be read is never reached, and bounded like any other; a state that can't is stuck.
pub(super) fn isolation(object: &ZoneIsolation) -> Isolation {
    let generation = object.metadata.generation.unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let deleting = object.metadata.deletion_timestamp.as_ref();
    let of_earlier_spec = status.observed_generation != Some(generation);
    let fresh = status.restored_at.is_some() && of_earlier_spec && deleting.is_none();
    let requested_at = match status.requested_at.as_deref().and_then(moment) {
        Some(at) if !fresh => at,
        Some(_) => spec_changed_at(object),
        None => seconds(object.metadata.creation_timestamp.as_ref()),
    };
    let id = format!("{}/{requested_at}", object.uid().unwrap_or_default());
    let mut isolation = Isolation::new(id, spec(object), requested_at);
    (isolation.generation, isolation.edited) = (generation, of_earlier_spec);
    // What is edited while a zone is given back is for the next episode.
    if let (Some(of), true, false) = (status.observed_generation, status.returning_since.is_some(), fresh) {
        (isolation.generation, isolation.edited) = (of, false);
    }
    if fresh {
        return isolation;
    }
    let read = |text: &Option<String>| text.as_deref().and_then(moment);
    isolation.restore_requested_at = deleting.map(|time| seconds(Some(time)));
    isolation.admission = match (read(&status.admitted_at), &status.refused_by) {
        (Some(at), _) => Admission::Admitted(at),
        (None, Some(_)) => Admission::Refused(refusal(&status)),
        (None, None) => Admission::Pending,
    };
    isolation.steps = status.steps.iter().map(|step| (StepName::new(step.name.clone()), entry(step))).collect();
    isolation.isolated_at = read(&status.isolated_at);
    isolation.returning_since = read(&status.returning_since);
    // An earlier episode of the same object has left its own.
    isolation.effect = status.effect.as_ref().and_then(effect).filter(|effect| effect.measured_at >= requested_at);
    isolation.recovery = status.recovery.as_ref().and_then(recovery).filter(|recovery| recovery.since >= requested_at);
    // As long as our finalizer is on an object that is deleted, its end is to be made known once more.
    let ours_is_done = !object.finalizers().iter().any(|finalizer| finalizer == marks::FINALIZER);
    if deleting.is_none() || ours_is_done {
        isolation.restored_at = read(&status.restored_at);
        isolation.remains = isolation.restored_at.is_some();
    }
    isolation
}

/// Of the newest write to anything but the status.
fn spec_changed_at(object: &ZoneIsolation) -> Timestamp {
    let writes = object.managed_fields().iter().filter(|entry| entry.subresource.is_none());
    writes.map(|entry| seconds(entry.time.as_ref())).max().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn spec(object: &ZoneIsolation) -> IsolationSpec {
    let spec = &object.spec;
    IsolationSpec {
        zone: Zone::new(object.name_any()),
        origin: spec.origin.into(),
        reason: spec.reason.clone(),
        evidence: spec.evidence.clone(),
        expires_at: moment(&spec.expires_at).unwrap_or(Timestamp::MAX),
        share: Share::percent(spec.share_percent.min(99)),
        only: spec.steps.iter().map(StepName::new).collect(),
        overrides: spec.overrides.iter().map(|name| name.to_lowercase().replace('-', "_")).collect(),
        approved: spec.approved,
    }
}

impl From<SpecOrigin> for Origin {
    fn from(origin: SpecOrigin) -> Self {
        match origin {
            SpecOrigin::Detector => Self::Detector,
            SpecOrigin::Operator => Self::Operator,
            SpecOrigin::Drill => Self::Drill,
        }
    }
}

impl From<Origin> for SpecOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Detector => Self::Detector,
            Origin::Operator => Self::Operator,
            Origin::Drill => Self::Drill,
        }
    }
}

/// Of a refusal only its kind and its sentence are kept.
fn refusal(status: &ZoneIsolationStatus) -> HoldReason {
    let kind = status.refused_by.clone().unwrap_or_default();
    let said = status.conditions.iter().find(|condition| condition.type_ == "Admitted");
    let why = said.map(|condition| condition.message.clone()).unwrap_or_default();
    match kind.as_str() {
        "not_approved" => HoldReason::NotApproved,
        _ => HoldReason::Refused { kind, why },
    }
}

fn entry(step: &StepStatus) -> StepEntry {
    let share = Share::percent(step.share_percent.unwrap_or_default());
    let mut last_error = step.last_error.clone();
    let state = match step.state.as_str() {
        "Pending" => StepState::Pending,
        "Captured" => StepState::Captured,
        "Applied" => StepState::Applied { share },
        "Confirmed" => StepState::Confirmed { share },
        "Undone" => StepState::Undone,
        "Stuck" => StepState::Stuck,
        other => {
            last_error = Some(format!("the ledger says `{other}`, which is no state"));
            StepState::Stuck
        }
    };
    let retry_at = step.retry_at.as_deref().and_then(moment);
    StepEntry { state, receipt: step.receipt.clone().map(Receipt), failures: step.failures, retry_at, last_error }
}

/// As conditions write a moment.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn ledger(isolation: &Isolation, conditions: Vec<Condition>) -> ZoneIsolationStatus {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let steps = isolation.steps.iter().map(|(name, entry)| StepStatus {
        name: name.as_str().to_owned(),
        state: camel_case(entry.state.as_str()),
        share_percent: match entry.state {
            StepState::Applied { share } | StepState::Confirmed { share } => Some(share.as_percent()),
            StepState::Pending | StepState::Captured | StepState::Undone | StepState::Stuck => None,
        },
        receipt: entry.receipt.clone().map(|receipt| receipt.0),
        failures: entry.failures,
        retry_at: text(entry.retry_at),
        last_error: entry.last_error.clone(),
    });
    ZoneIsolationStatus {
        observed_generation: Some(isolation.generation),
        requested_at: text(Some(isolation.requested_at)),
        admitted_at: text(isolation.admitted_at()),
        isolated_at: text(isolation.isolated_at),
        returning_since: text(isolation.returning_since),
        restored_at: text(isolation.restored_at),
        refused_by: match &isolation.admission {
            Admission::Refused(reason) => Some(reason.as_str().to_owned()),
            Admission::Pending | Admission::Admitted(_) => None,
        },
        steps: steps.collect(),
        effect: None,
        recovery: None,
        conditions,
    }
}

/// The object of a new isolation by zoneward's own hand, or by its command line.
pub fn object(spec: &IsolationSpec) -> ZoneIsolation {
    let resource = ZoneIsolationSpec {
        origin: spec.origin.into(),
        reason: spec.reason.chars().take(2048).collect(),
        evidence: spec.evidence.iter().take(64).cloned().collect(),
        expires_at: spec.expires_at.to_string(),
        share_percent: spec.share.as_percent(),
        steps: spec.only.iter().map(|step| step.as_str().to_owned()).collect(),
        overrides: spec.overrides.iter().cloned().collect(),
        approved: spec.approved,
    };
    let mut object = ZoneIsolation::new(spec.zone.as_str(), resource);
    object.labels_mut().insert(marks::MANAGED_BY.0.to_owned(), marks::MANAGED_BY.1.to_owned());
    if spec.origin == Origin::Detector {
        // So that one that a person declines by deleting it is seen to be declined.
        object.finalizers_mut().push(marks::FINALIZER.to_owned());
    }
    object
}

fn milli(rps: f64) -> i64 {
    (rps * 1_000.0).round() as i64
}

/// What metrics say of it.
pub(super) fn course(isolation: &Isolation, conditions: Vec<Condition>) -> ZoneIsolationStatus {
    let recovery = isolation.recovery.as_ref().map(|recovery| RecoveryStatus {
        stage: camel_case(recovery.stage.as_str()),
        share_percent: match recovery.stage {
            Stage::Trial { share } => Some(share.as_percent()),
            Stage::Out | Stage::Refilling | Stage::Ended => None,
        },
        since: recovery.since.to_string(),
        why: recovery.why.chars().take(1024).collect(),
        relapses: recovery.relapses,
        not_before: recovery.not_before.map(|at| at.to_string()),
    });
    let effect = isolation.effect.as_ref().map(effect_status);
    ZoneIsolationStatus { effect, recovery, conditions, ..ZoneIsolationStatus::default() }
}

/// What can't be read is no evidence: the zone is out.
fn recovery(status: &RecoveryStatus) -> Option<Recovery> {
    let stage = match (status.stage.as_str(), status.share_percent) {
        ("Refilling", _) => Stage::Refilling,
        ("Trial", Some(percent)) => Stage::Trial { share: Share::percent(percent) },
        ("Ended", _) => Stage::Ended,
        _ => Stage::Out,
    };
    let not_before = status.not_before.as_deref().and_then(moment);
    Some(Recovery {
        stage,
        since: moment(&status.since)?,
        why: status.why.clone(),
        relapses: status.relapses,
        not_before,
    })
}

fn effect_status(effect: &Effect) -> EffectStatus {
    let residual = effect.residual.iter().map(|residual| ResidualStatus {
        service: residual.service.to_string(),
        milli_requests_per_second: milli(residual.rps),
        why: residual.why.clone(),
    });
    EffectStatus {
        before_milli_requests_per_second: milli(effect.before_rps),
        after_milli_requests_per_second: milli(effect.after_rps),
        measured_at: effect.measured_at.to_string(),
        shown_after_seconds: effect.shown_after_s,
        residual: residual.collect(),
    }
}

fn effect(status: &EffectStatus) -> Option<Effect> {
    let residual = |residual: &ResidualStatus| {
        let service: ServiceId = residual.service.parse().ok()?;
        Some(Residual { service, rps: residual.milli_requests_per_second as f64 / 1_000.0, why: residual.why.clone() })
    };
    Some(Effect {
        before_rps: status.before_milli_requests_per_second as f64 / 1_000.0,
        after_rps: status.after_milli_requests_per_second as f64 / 1_000.0,
        measured_at: moment(&status.measured_at)?,
        shown_after_s: status.shown_after_seconds,
        residual: status.residual.iter().filter_map(residual).collect(),
    })
}

/// What of an isolation goes into its zone's past; one that never began does not.
pub(super) fn episode(isolation: &Isolation) -> Option<Episode> {
    Some(Episode {
        id: isolation.id.clone(),
        origin: isolation.spec.origin.into(),
        reason: isolation.spec.reason.chars().take(512).collect(),
        requested_at: isolation.requested_at.to_string(),
        admitted_at: isolation.admitted_at()?.to_string(),
        restored_at: isolation.restored_at?.to_string(),
    })
}

pub(super) fn past(zone: &resource::Zone) -> Vec<Isolation> {
    let name = zone.name_any();
    let isolation = |episode: &Episode| {
        let spec = IsolationSpec {
            zone: Zone::new(name.clone()),
            origin: episode.origin.into(),
            reason: episode.reason.clone(),
            evidence: Vec::new(),
            expires_at: moment(&episode.restored_at)?,
            share: Share::NONE,
            only: Default::default(),
            overrides: Default::default(),
            approved: true,
        };
        let mut isolation = Isolation::new(episode.id.clone(), spec, moment(&episode.requested_at)?);
        isolation.admission = Admission::Admitted(moment(&episode.admitted_at)?);
        isolation.restored_at = moment(&episode.restored_at);
        Some(isolation)
    };
    zone.status.iter().flat_map(|status| &status.episodes).filter_map(isolation).collect()
}

/// Since when isolations are on the zone's budget; a moment that is yet to come is none.
pub(super) fn acknowledged_at(zone: &resource::Zone, now: Timestamp) -> Option<Timestamp> {
    zone.spec.acknowledged_at.as_deref().and_then(moment).filter(|at| *at <= now)
}

pub(super) fn hold(zone: &resource::Zone) -> Option<OperatorHold> {
    if let Some(why) = &zone.spec.hold {
        let since = seconds(zone.metadata.creation_timestamp.as_ref());
        return Some(OperatorHold { since, why: why.clone(), until_healthy: false });
    }
    let hold = zone.status.as_ref()?.operator_hold.as_ref()?;
    Some(OperatorHold { since: moment(&hold.since)?, why: hold.why.clone(), until_healthy: true })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    use super::*;
    use crate::isolate::conditions::conditions;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn time_of(text: &str) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(at(text).as_second()).unwrap())
    }

    /// Asked for at noon by a person, with a ledger in the middle of things.
    fn under_way() -> Isolation {
        let spec = IsolationSpec {
            zone: Zone::new("zone-b"),
            origin: Origin::Operator,
            reason: "disks".into(),
            evidence: vec!["what was seen".into()],
            expires_at: at("2026-01-01T14:00:00Z"),
            share: Share::percent(5),
            only: [StepName::new("mesh"), StepName::new("dns")].into(),
            overrides: ["cooling_down".to_owned()].into(),
            approved: true,
        };
        let mut isolation = Isolation::new("u-1/2026-01-01T12:00:00Z".into(), spec, at("2026-01-01T12:00:00Z"));
        isolation.generation = 1;
        isolation.admission = Admission::Admitted(at("2026-01-01T12:00:01.5Z"));
        let applied = StepEntry { state: StepState::Applied { share: Share::percent(5) }, ..StepEntry::default() };
        let receipt = Some(Receipt([("api.example.org. 192.0.2.2".to_owned(), "60".to_owned())].into()));
        let stuck = StepEntry { state: StepState::Stuck, receipt, failures: 6, ..StepEntry::default() };
        isolation.steps = [(StepName::new("mesh"), applied), (StepName::new("dns"), stuck)].into();
        isolation
    }

    fn stored(isolation: &Isolation) -> ZoneIsolation {
        let mut object = object(&isolation.spec);
        object.metadata.uid = Some("u-1".into());
        object.metadata.generation = Some(isolation.generation);
        object.metadata.creation_timestamp = Some(time_of("2026-01-01T12:00:00Z"));
        object.status = Some(ledger(isolation, conditions(isolation, &[], at("2026-01-01T12:00:02Z"))));
        object
    }

    fn edit_at(object: &mut ZoneIsolation, text: &str) {
        object.metadata.generation = Some(2);
        let write = ManagedFieldsEntry { time: Some(time_of(text)), ..Default::default() };
        object.metadata.managed_fields = Some(vec![write]);
    }

    #[test]
    fn an_isolation_is_read_back_as_it_was_written() {
        let expected = under_way();
        assert_eq!(isolation(&stored(&expected)), expected);
    }

    #[test]
    fn an_episode_keeps_its_name_and_its_ledger_while_its_spec_is_edited() {
        let mut object = stored(&under_way());
        edit_at(&mut object, "2026-01-01T12:30:00Z");
        let read = isolation(&object);
        assert_eq!((read.id.as_str(), read.generation, read.edited), ("u-1/2026-01-01T12:00:00Z", 2, true));
        assert_eq!(read.steps, under_way().steps);
    }

    #[test]
    fn what_is_edited_on_the_way_back_is_for_the_next_episode() {
        let mut returning = under_way();
        returning.returning_since = Some(at("2026-01-01T14:00:00Z"));
        let mut object = stored(&returning);
        edit_at(&mut object, "2026-01-01T14:00:03Z");
        let read = isolation(&object);
        assert!(read.returning(at("2026-01-01T14:00:04Z")) && !read.edited);
        returning.restored_at = Some(at("2026-01-01T14:00:05Z"));
        object.status = stored(&returning).status;
        assert_eq!(isolation(&object).admission, Admission::Pending, "and that begins once this one has ended");
    }

    #[test]
    fn one_that_has_ended_remains_until_its_spec_changes_and_then_begins_anew() {
        let mut ended = under_way();
        ended.restored_at = Some(at("2026-01-01T14:00:05Z"));
        let mut object = stored(&ended);
        let read = isolation(&object);
        assert!(read.remains && !read.active());
        edit_at(&mut object, "2026-01-01T15:00:00Z");
        let read = isolation(&object);
        assert!(read.active() && !read.remains && read.steps.is_empty());
        assert_eq!((read.id.as_str(), read.admission), ("u-1/2026-01-01T15:00:00Z", Admission::Pending));
    }

    #[test]
    fn one_that_is_deleted_after_its_end_is_finished_again_and_let_go() {
        let mut ended = under_way();
        ended.restored_at = Some(at("2026-01-01T14:00:05Z"));
        let mut object = stored(&ended);
        object.metadata.deletion_timestamp = Some(time_of("2026-01-01T16:00:00Z"));
        assert!(!isolation(&object).active(), "it is others' finalizers that it waits for");
        object.metadata.finalizers = Some(vec![marks::FINALIZER.to_owned()]);
        let read = isolation(&object);
        assert!(read.active() && read.returning(at("2026-01-01T16:00:00Z")));
    }

    #[test]
    fn the_effect_of_an_earlier_episode_is_not_this_ones() {
        let mut object = stored(&under_way());
        let effect = |text: &str| EffectStatus {
            before_milli_requests_per_second: 90_000,
            after_milli_requests_per_second: 0,
            measured_at: text.into(),
            shown_after_seconds: Some(5),
            residual: Vec::new(),
        };
        object.status.as_mut().unwrap().effect = Some(effect("2026-01-01T11:00:00Z"));
        assert_eq!(isolation(&object).effect, None);
        object.status.as_mut().unwrap().effect = Some(effect("2026-01-01T12:01:00Z"));
        assert!(isolation(&object).effect.unwrap().shown());
    }

    #[test]
    fn what_cannot_be_read_is_stuck_or_bounded_and_stops_nothing() {
        let mut object = stored(&under_way());
        object.spec.expires_at = "9999-12-31T23:59:59Z".into();
        object.status.as_mut().unwrap().steps[0].state = "Teleported".into();
        let read = isolation(&object);
        let entry = &read.steps[&StepName::new("dns")];
        assert_eq!(entry.state, StepState::Stuck);
        assert!(entry.last_error.as_ref().unwrap().contains("Teleported"));
        assert_eq!(read.expires_at(), at("2026-01-04T12:00:01.5Z"), "three days after it began");
    }

    #[test]
    fn conditions_say_what_the_ledger_says_and_keep_their_time_while_it_does() {
        let mut isolation = under_way();
        let said = |isolation: &Isolation, before: &[Condition], now: &str| conditions(isolation, before, at(now));
        let of = |all: &[Condition], type_: &str| {
            let found = all.iter().find(|condition| condition.type_ == type_).unwrap();
            (found.status.clone(), found.reason.clone())
        };
        let first = said(&isolation, &[], "2026-01-01T12:00:02Z");
        assert_eq!(of(&first, "Stalled"), ("True".into(), "StepStuck".into()));
        assert_eq!(of(&first, "Ready"), ("False".into(), "StepStuck".into()));
        for entry in isolation.steps.values_mut() {
            *entry = StepEntry { state: StepState::Confirmed { share: Share::percent(5) }, ..StepEntry::default() };
        }
        isolation.isolated_at = Some(at("2026-01-01T12:00:05Z"));
        let second = said(&isolation, &first, "2026-01-01T12:00:06Z");
        assert_eq!(of(&second, "Ready"), ("True".into(), "Isolated".into()));
        let times = |all: &[Condition]| all.iter().map(|c| c.last_transition_time.clone()).collect::<Vec<_>>();
        assert_eq!(times(&second)[0], times(&first)[0], "Admitted has not changed");
        assert_eq!(times(&second)[4], "2026-01-01T12:00:06Z", "Ready has");
        isolation.admission = Admission::Refused(HoldReason::NotApproved);
        isolation.isolated_at = None;
        assert_eq!(of(&said(&isolation, &[], "2026-01-01T12:01:00Z"), "Admitted").1, "NotApproved");
    }
}
