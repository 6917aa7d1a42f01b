//! Between the custom resources and the domain. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use super::conditions::camel_case;
use super::resource::{
    self, Condition, EffectStatus, Episode, ResidualStatus, SpecOrigin, StepStatus, ZoneIsolation, ZoneIsolationSpec,
    ZoneIsolationStatus,
};
use crate::domain::isolation::{Effect, IsolationSpec, OperatorHold, Receipt, Residual, StepEntry};
use crate::domain::{Admission, HoldReason, Isolation, Origin, ServiceId, Share, StepName, StepState, Zone};
use crate::kubernetes::marks;
use crate::ports::StoreError;

/// What a `ZoneIsolation` stands for.
pub(super) enum Object {
    Episode(Isolation),
    /// It has ended, and acts again once its spec changes.
    Ended {
        id: String,
        isolation: Isolation,
    },
}

pub(super) fn is_managed(object: &ZoneIsolation) -> bool {
    object.labels().get(marks::MANAGED_BY.0).is_some_and(|manager| manager == marks::MANAGED_BY.1)
}

fn moment(text: &str, what: &str, zone: &str) -> Result<Timestamp, StoreError> {
    let invalid = |_| StoreError::Impossible(format!("ZoneIsolation {zone}: {what} is `{text}`, which is no moment"));
    text.parse().map_err(invalid)
}

pub(super) fn isolation(object: &ZoneIsolation) -> Result<Object, StoreError> {
    let name = object.name_any();
    let generation = object.metadata.generation.unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let deleting = object.metadata.deletion_timestamp.as_ref();
    let spec = spec(object)?;
    let earlier_episode = status.restored_at.is_some() && status.observed_generation != Some(generation);
    let ended = status.restored_at.is_some() && !earlier_episode && deleting.is_none();
    if deleting.is_none() && earlier_episode {
        let changed_at = spec_changed_at(object).unwrap_or(Timestamp::UNIX_EPOCH);
        return Ok(Object::Episode(Isolation::new(episode_id(object, changed_at), spec, changed_at)));
    }
    let created_at = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let created_at = Timestamp::from_second(created_at).unwrap_or(Timestamp::UNIX_EPOCH);
    let read = |text: &Option<String>, what| text.as_deref().map(|text| moment(text, what, &name)).transpose();
    let requested_at = read(&status.requested_at, "status.requestedAt")?.unwrap_or(created_at);
    let mut isolation = Isolation::new(episode_id(object, requested_at), spec, requested_at);
    isolation.restore_requested_at =
        deleting.map(|time| Timestamp::from_second(time.0.as_second()).unwrap_or(Timestamp::UNIX_EPOCH));
    isolation.admission = match (read(&status.admitted_at, "status.admittedAt")?, &status.refused_by) {
        (Some(at), _) => Admission::Admitted(at),
        (None, Some(_)) => Admission::Refused(refusal(&status)),
        (None, None) => Admission::Pending,
    };
    for step in &status.steps {
        isolation.steps.insert(StepName::new(step.name.clone()), entry(step, &name)?);
    }
    isolation.isolated_at = read(&status.isolated_at, "status.isolatedAt")?;
    isolation.returning_since = read(&status.returning_since, "status.returningSince")?;
    let effect = status.effect.as_ref().map(|effect| self::effect(effect, &name)).transpose()?;
    // An earlier episode of the same object has left its own.
    isolation.effect = effect.filter(|effect| effect.measured_at >= requested_at);
    if ended {
        isolation.restored_at = read(&status.restored_at, "status.restoredAt")?;
        isolation.remains = true;
        return Ok(Object::Ended { id: isolation.id.clone(), isolation });
    }
    Ok(Object::Episode(isolation))
}

/// An episode keeps its name while its spec is edited.
fn episode_id(object: &ZoneIsolation, requested_at: Timestamp) -> String {
    format!("{}/{requested_at}", object.uid().unwrap_or_default())
}

fn spec_changed_at(object: &ZoneIsolation) -> Option<Timestamp> {
    let writes = object.managed_fields().iter().filter(|entry| entry.subresource.is_none());
    let newest = writes.filter_map(|entry| entry.time.as_ref().map(|time| time.0.as_second())).max()?;
    Timestamp::from_second(newest).ok()
}

fn spec(object: &ZoneIsolation) -> Result<IsolationSpec, StoreError> {
    let (spec, zone) = (&object.spec, object.name_any());
    Ok(IsolationSpec {
        origin: match spec.origin {
            SpecOrigin::Detector => Origin::Detector,
            SpecOrigin::Operator => Origin::Operator,
        },
        reason: spec.reason.clone(),
        evidence: spec.evidence.clone(),
        expires_at: moment(&spec.expires_at, "spec.expiresAt", &zone)?,
        share: Share::percent(spec.share_percent),
        only: spec.steps.iter().map(StepName::new).collect(),
        overrides: spec.overrides.iter().map(|name| name.to_lowercase().replace('-', "_")).collect(),
        approved: spec.approved,
        zone: Zone::new(zone),
    })
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

fn entry(step: &StepStatus, zone: &str) -> Result<StepEntry, StoreError> {
    let share = Share::percent(step.share_percent.unwrap_or_default());
    let state = match step.state.as_str() {
        "Pending" => StepState::Pending,
        "Captured" => StepState::Captured,
        "Applied" => StepState::Applied { share },
        "Confirmed" => StepState::Confirmed { share },
        "Undone" => StepState::Undone,
        "Stuck" => StepState::Stuck,
        other => {
            let why = format!("ZoneIsolation {zone}: the step {} is `{other}`, which is no state", step.name);
            return Err(StoreError::Impossible(why));
        }
    };
    let retry_at = step.retry_at.as_deref().map(|text| moment(text, "a step's retryAt", zone)).transpose()?;
    let receipt = step.receipt.clone().map(Receipt);
    Ok(StepEntry { state, receipt, failures: step.failures, retry_at, last_error: step.last_error.clone() })
}

pub(super) fn ledger(
    isolation: &Isolation,
    generation: Option<i64>,
    conditions: Vec<Condition>,
) -> ZoneIsolationStatus {
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
        observed_generation: generation,
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
        conditions,
    }
}

/// The object of a new isolation by zoneward's own hand, or by its command line.
pub fn object(spec: &IsolationSpec) -> ZoneIsolation {
    let resource = ZoneIsolationSpec {
        origin: match spec.origin {
            Origin::Detector => SpecOrigin::Detector,
            Origin::Operator => SpecOrigin::Operator,
        },
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
    object
}

fn milli(rps: f64) -> i64 {
    (rps * 1_000.0).round() as i64
}

pub(super) fn effect_status(effect: &Effect) -> EffectStatus {
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

fn effect(status: &EffectStatus, zone: &str) -> Result<Effect, StoreError> {
    let residual = |residual: &ResidualStatus| {
        let service: ServiceId = residual.service.parse().ok()?;
        Some(Residual { service, rps: residual.milli_requests_per_second as f64 / 1_000.0, why: residual.why.clone() })
    };
    Ok(Effect {
        before_rps: status.before_milli_requests_per_second as f64 / 1_000.0,
        after_rps: status.after_milli_requests_per_second as f64 / 1_000.0,
        measured_at: moment(&status.measured_at, "status.effect.measuredAt", zone)?,
        shown_after_s: status.shown_after_seconds,
        residual: status.residual.iter().filter_map(residual).collect(),
    })
}

/// What of an isolation goes into its zone's past; one that never began does not.
pub(super) fn episode(isolation: &Isolation) -> Option<Episode> {
    Some(Episode {
        id: isolation.id.clone(),
        origin: match isolation.spec.origin {
            Origin::Detector => SpecOrigin::Detector,
            Origin::Operator => SpecOrigin::Operator,
        },
        reason: isolation.spec.reason.chars().take(512).collect(),
        requested_at: isolation.requested_at.to_string(),
        admitted_at: isolation.admitted_at()?.to_string(),
        restored_at: isolation.restored_at?.to_string(),
    })
}

pub(super) fn past(zone: &resource::Zone) -> Vec<Isolation> {
    let name = zone.name_any();
    let isolation = |episode: &Episode| {
        let read = |text: &str| text.parse::<Timestamp>().ok();
        let spec = IsolationSpec {
            zone: Zone::new(name.clone()),
            origin: match episode.origin {
                SpecOrigin::Detector => Origin::Detector,
                SpecOrigin::Operator => Origin::Operator,
            },
            reason: episode.reason.clone(),
            evidence: Vec::new(),
            expires_at: read(&episode.restored_at)?,
            share: Share::NONE,
            only: Default::default(),
            overrides: Default::default(),
            approved: true,
        };
        let mut isolation = Isolation::new(episode.id.clone(), spec, read(&episode.requested_at)?);
        isolation.admission = Admission::Admitted(read(&episode.admitted_at)?);
        isolation.restored_at = read(&episode.restored_at);
        Some(isolation)
    };
    zone.status.iter().flat_map(|status| &status.episodes).filter_map(isolation).collect()
}

pub(super) fn hold(zone: &resource::Zone) -> Option<OperatorHold> {
    let created = zone.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    if let Some(why) = &zone.spec.hold {
        let since = Timestamp::from_second(created).unwrap_or(Timestamp::UNIX_EPOCH);
        return Some(OperatorHold { since, why: why.clone(), until_healthy: false });
    }
    let hold = zone.status.as_ref()?.operator_hold.as_ref()?;
    Some(OperatorHold { since: hold.since.parse().ok()?, why: hold.why.clone(), until_healthy: true })
}
