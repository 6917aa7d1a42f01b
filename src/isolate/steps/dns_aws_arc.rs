//! No more traffic of load balancers: a zonal shift of AWS Application Recovery Controller, for load balancers (ALB and NLB
//! with zonal shift enabled), Auto Scaling groups, and EKS clusters. A shift of an EKS cluster also takes the zone out of
//! `EndpointSlice`s, which Istio reads; that it covers east-west traffic so is inferred, and not verified.
//!
//! Each shift expires by itself (`expires_in`), and is extended while the isolation lasts: with all of zoneward dead, AWS
//! gives the zone back. Shifts are ours by their comment, `zoneward: ZONE …`. The API has no idempotency token: who
//! gets "there is one already" lists, and goes on with it if it is ours.

mod calls;
mod settings;

pub use settings::Settings;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_arczonalshift::config::SharedCredentialsProvider;
use aws_sdk_arczonalshift::types::AppliedStatus;
use jiff::Timestamp;

use self::calls::{Calls, Outcome, Shift, permanent};
use self::settings::ZoneId;
use super::{Look, Preview, Probe, RealStep};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::ports::{IsolationStep, StepError};

/// Shifts resources away from a zone.
///
/// Guarantees: others' shifts are never extended or cancelled, and none is begun beside them; nothing is begun if one of
/// the resources has somebody else's. Needs what deploy/aws/iam-policy.json grants.
pub struct AwsArc {
    settings: Settings,
    look: Arc<Look>,
    calls: Calls,
}

/// What is to be done about a resource.
enum Act {
    Start,
    Extend(Shift),
}

impl AwsArc {
    pub fn new(settings: Settings, look: Arc<Look>) -> Self {
        Self { calls: Calls::new(settings.clone(), None), settings, look }
    }

    /// With credentials of one's own, wherever they come from.
    pub fn with_credentials(settings: Settings, look: Arc<Look>, credentials: SharedCredentialsProvider) -> Self {
        Self { calls: Calls::new(settings.clone(), Some(credentials)), settings, look }
    }

    fn zone_id(&self, zone: &Zone) -> Result<String, StepError> {
        match self.settings.zone_id(zone, || (self.look)()) {
            ZoneId::Known(id) => Ok(id),
            ZoneId::Unseen(why) => Err(StepError::soon(why)),
            ZoneId::Unknown(why) => Err(permanent(format!(
                "the id by which AWS knows the zone {zone} is not known: {why}. Name it: steps.dns_aws_arc.zone_ids"
            ))),
        }
    }

    /// Every resource first, so that nothing is begun if one of them is somebody else's.
    async fn plan(&self, zone: &Zone, zone_id: &str) -> Result<Vec<(String, Act)>, StepError> {
        let active = self.calls.active().await?;
        let half = self.settings.expires_in.signed().as_secs() / 2;
        let mut acts = Vec::new();
        for arn in &self.settings.resources {
            match shift_of(&active, arn) {
                None => acts.push((arn.clone(), Act::Start)),
                Some(shift) if shift.is_of(zone) && shift.away_from == zone_id => {
                    if shift.expires_at - seconds_since_epoch() < half {
                        acts.push((arn.clone(), Act::Extend(shift.clone())));
                    }
                }
                Some(shift) => return Err(somebody_elses(shift)),
            }
        }
        Ok(acts)
    }

    async fn shift_away(&self, zone: &Zone) -> Result<(), StepError> {
        let zone_id = self.zone_id(zone)?;
        let mut result = Ok(());
        // Each is tried, whatever came of another.
        for (arn, act) in self.plan(zone, &zone_id).await? {
            let done = match act {
                Act::Start => self.start(&arn, zone, &zone_id).await,
                Act::Extend(shift) => match self.calls.extend(&shift).await {
                    Ok(Outcome::Done) => Ok(()),
                    Ok(Outcome::Otherwise) => self.start(&arn, zone, &zone_id).await,
                    Err(error) => Err(error),
                },
            };
            result = result.and(done);
        }
        result
    }

    /// One that is there already may be ours, of a call whose answer was lost.
    async fn start(&self, arn: &str, zone: &Zone, zone_id: &str) -> Result<(), StepError> {
        match self.calls.start(arn, zone, zone_id).await? {
            Outcome::Done => Ok(()),
            Outcome::Otherwise => match shift_of(&self.calls.active().await?, arn) {
                Some(shift) if shift.is_of(zone) && shift.away_from == zone_id => Ok(()),
                Some(shift) => Err(somebody_elses(shift)),
                None => Err(StepError::soon(format!("{arn} has a zonal shift that is not listed yet"))),
            },
        }
    }

    /// Ours, of the resources of the settings and of those that a receipt names.
    async fn ours(&self, receipt: &Receipt) -> Result<Vec<(Zone, Shift)>, StepError> {
        let concerned = |arn: &String| self.settings.resources.contains(arn) || receipt.0.contains_key(arn);
        let active = self.calls.active().await?;
        let ours = active.into_iter().filter(|shift| concerned(&shift.resource));
        Ok(ours.filter_map(|shift| Some((shift.zone()?, shift))).collect())
    }

    async fn give_back(&self, zone: Option<&Zone>, receipt: &Receipt) -> Result<Vec<String>, StepError> {
        let (mut lines, mut result) = (Vec::new(), Ok(()));
        for (of, shift) in self.ours(receipt).await? {
            if zone.is_none_or(|zone| *zone == of) {
                let done = self.calls.cancel(&shift).await;
                lines.push(format!("{} is not shifted away from {of} any more", shift.resource));
                result = result.and(done);
            }
        }
        result.map(|()| lines)
    }

    async fn confirm_shifted(&self, zone: &Zone) -> Result<(), StepError> {
        let zone_id = self.zone_id(zone)?;
        let ours = self.ours(&Receipt::default()).await?;
        for arn in &self.settings.resources {
            let shift = ours.iter().find(|(of, shift)| of == zone && shift.resource == *arn);
            let Some((_, shift)) = shift.filter(|(_, shift)| shift.away_from == zone_id) else {
                return Err(StepError::soon(format!("{arn} has no zonal shift of ours away from {zone_id}")));
            };
            let resource = self.calls.managed(arn).await?;
            let listed = resource.zonal_shifts().iter().find(|it| it.zonal_shift_id() == shift.id);
            if listed.is_none_or(|it| *it.applied_status() != AppliedStatus::Applied) {
                return Err(StepError::soon(format!("{arn}: the zonal shift away from {zone_id} is not applied yet")));
            }
            if let Some(weight) = resource.applied_weights().get(&zone_id).filter(|weight| **weight > 0.0) {
                return Err(StepError::soon(format!("{arn} still has a weight of {weight} in {zone_id}")));
            }
        }
        Ok(())
    }

    /// Whether a resource may be shifted, as far as that can be told without doing so.
    async fn inspect(&self, arn: &str, active: &[Shift]) -> Probe {
        let resource = match self.calls.managed(arn).await {
            Ok(resource) => resource,
            Err(error) => return Probe::broken(error.to_string()),
        };
        if let Some(shift) = shift_of(active, arn).filter(|shift| shift.zone().is_none()) {
            return Probe::unsure(somebody_elses(shift).to_string(), "while it lasts, this step can't isolate");
        }
        let weights: std::collections::BTreeMap<_, _> = resource.applied_weights().iter().collect();
        let weights: Vec<String> = weights.into_iter().map(|(zone, weight)| format!("{zone} {weight}")).collect();
        let autoshift = resource.zonal_autoshift_status().map_or("unknown", |status| status.as_str());
        Probe::Works(format!("{arn}: zone weights {}; autoshift {autoshift}", weights.join(", ")))
    }

    /// By which ids AWS knows the zones of nodes.
    fn zones(&self) -> Probe {
        let view = match (self.look)() {
            Ok(view) => view,
            Err(why) => return Probe::unsure(format!("zones are not known: {why}"), "look again"),
        };
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for zone in view.zones().into_keys() {
            match self.settings.zone_id(zone, || Ok(view.clone())) {
                ZoneId::Known(id) => known.push(format!("{zone} is {id}")),
                ZoneId::Unknown(why) | ZoneId::Unseen(why) => unknown.push(format!("{zone}: {why}")),
            }
        }
        if unknown.is_empty() {
            Probe::Works(known.join(", "))
        } else {
            Probe::broken_but(unknown.join("; "), "name the ids in steps.dns_aws_arc.zone_ids, such as use1-az1")
        }
    }
}

/// A resource has one at a time that somebody wants. A practice run of AWS ends when one begins (inferred).
fn shift_of<'a>(active: &'a [Shift], arn: &str) -> Option<&'a Shift> {
    active.iter().find(|shift| shift.resource == arn && shift.wanted)
}

fn somebody_elses(shift: &Shift) -> StepError {
    let Shift { id, resource, away_from, comment, .. } = shift;
    let whose =
        if shift.zone().is_some() { "a zonal shift of ours for another zone" } else { "somebody else's zonal shift" };
    permanent(format!(
        "{resource} has {whose}, away from {away_from} ({comment:?}, {id}): cancel it, or wait until it ends"
    ))
}

#[allow(clippy::disallowed_methods, reason = "an edge: AWS says by the clock when a shift expires")]
fn seconds_since_epoch() -> i64 {
    Timestamp::now().as_second()
}

#[async_trait]
impl IsolationStep for AwsArc {
    fn name(&self) -> StepName {
        StepName::new("dns_aws_arc")
    }

    fn granularity(&self) -> Granularity {
        Granularity::AllOrNothing
    }

    /// The resources, each with the shift that it had of others. Undo goes by the comment on ours.
    async fn capture(&self, _: &Zone) -> Result<Receipt, StepError> {
        let active = self.calls.active().await?;
        let before = |arn: &String| {
            let others = shift_of(&active, arn).filter(|shift| shift.zone().is_none());
            others.map_or_else(String::new, |shift| format!("away from {} ({})", shift.away_from, shift.id))
        };
        Ok(Receipt(self.settings.resources.iter().map(|arn| (arn.clone(), before(arn))).collect()))
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if share > Share::NONE {
            self.give_back(Some(zone), receipt).await?;
            return Ok(());
        }
        self.shift_away(zone).await
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if share == Share::NONE {
            return self.confirm_shifted(zone).await;
        }
        match self.ours(receipt).await?.iter().find(|(of, _)| of == zone) {
            Some((_, shift)) => {
                Err(StepError::soon(format!("{} is still shifted away from {}", shift.resource, shift.away_from)))
            }
            None => Ok(()),
        }
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        Ok(self.ours(&Receipt::default()).await?.into_iter().map(|(zone, _)| zone).collect())
    }
}

#[async_trait]
impl RealStep for AwsArc {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let mut preview = Preview::default();
        if share > Share::NONE {
            preview.changes = self.settings.resources.iter().map(|arn| format!("{arn} is not shifted")).collect();
            return Ok(preview);
        }
        let (zone_id, active) = (self.zone_id(zone)?, self.calls.active().await?);
        let span = self.settings.expires_in;
        for arn in &self.settings.resources {
            match shift_of(&active, arn).filter(|shift| !shift.is_of(zone)) {
                Some(shift) => {
                    preview.left_alone.entry(somebody_elses(shift).to_string()).or_default().push(arn.clone());
                }
                None => preview.changes.push(format!("{arn} is shifted away from {zone_id}, for {span} at a time")),
            }
        }
        Ok(preview)
    }

    async fn probe(&self) -> Vec<Probe> {
        let mut probes = vec![self.zones()];
        match self.calls.active().await {
            Ok(active) => {
                for arn in &self.settings.resources {
                    probes.push(self.inspect(arn, &active).await);
                }
            }
            Err(error) => probes.push(Probe::broken(error.to_string())),
        }
        probes
    }

    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        self.give_back(zone, &Receipt::default()).await
    }
}
