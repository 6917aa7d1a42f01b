//! No more north-south traffic: a zone's targets leave `DNSEndpoint` objects (`externaldns.k8s.io/v1alpha1`), from which
//! external-dns makes records (`--source=crd`). No DNS secret is needed here. Until clients notice it takes external-dns'
//! interval (a minute by default) and the records' TTL.
//!
//! Not by server-side apply: `endpoints` and `targets` are atomic lists, of which nobody can own a part. A forced apply
//! would take the whole list from whoever keeps it (`GitOps`), and to let go of it again would delete it. So an object is
//! changed by a merge patch that is refused if anybody else has written the object since it was read, as nodes are.
//! What `GitOps` puts back meanwhile, the executor takes out again within seconds.

mod settings;
mod targets;

pub use settings::{ObjectSettings, Settings};

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::SignedDuration;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};

use self::targets::{Object, Withdrawn};
use super::{Preview, Probe, RealStep};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::kubernetes::{bounded, status_code, step_error};
use crate::ports::{IsolationStep, StepError};

/// Tries against others' writes to the same object.
const MOST_TRIES: usize = 5;

/// external-dns looks once a minute by default: some tries must outlast that.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// Withdraws targets, and gives back what was there.
///
/// Guarantees: an object changes in one write, with the note of what was withdrawn (`zoneward.io/withdrawn`); others'
/// targets, their order and other zones' notes are never touched; no list is left empty, as external-dns would ignore it
/// and keep the records. Needs get and patch on dnsendpoints.
pub struct ExternalDns {
    settings: Settings,
    client: Client,
}

impl ExternalDns {
    pub fn new(settings: Settings, client: &Client) -> Self {
        Self { settings, client: client.clone() }
    }

    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("externaldns.k8s.io", "v1alpha1", "DNSEndpoint");
        let resource = ApiResource::from_gvk_with_plural(&kind, "dnsendpoints");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// What it is now; `None` if there is none.
    async fn look(&self, id: &str) -> Result<Option<Object>, StepError> {
        let (namespace, name) = id.split_once('/').unwrap_or_default();
        let found = bounded(self.api(namespace).get_opt(name)).await;
        let found = found.map_err(|error| step_error(&format!("the DNSEndpoint {id} can't be read"), &error))?;
        found.map(|object| Object::read(id.to_owned(), &object).map_err(permanent)).transpose()
    }

    async fn must_be(&self, object: &ObjectSettings) -> Result<Object, StepError> {
        self.look(&object.id()).await?.ok_or_else(|| missing(&object.id()))
    }

    /// Carries out a change, again if somebody else was faster. Whether there was anything to change; an object that is
    /// gone is not changed.
    async fn change(
        &self,
        id: &str,
        edit: impl Fn(&mut Object) -> Result<bool, String> + Send,
    ) -> Result<bool, StepError> {
        let (namespace, name) = id.split_once('/').unwrap_or_default();
        for _ in 0..MOST_TRIES {
            let Some(mut object) = self.look(id).await? else { return Ok(false) };
            if !edit(&mut object).map_err(permanent)? {
                return Ok(false);
            }
            let patch = Patch::Merge(object.patch());
            match bounded(self.api(namespace).patch(name, &PatchParams::default(), &patch)).await {
                Ok(_) => return Ok(true),
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(step_error(&format!("the DNSEndpoint {id} can't be patched"), &error)),
            }
        }
        Err(StepError::soon(format!("the DNSEndpoint {id} is written by others all the time")))
    }

    async fn withdraw(&self, zone: &Zone) -> Result<(), StepError> {
        let concerned = || self.settings.objects.iter().filter(|object| !object.addresses_of(zone).is_empty());
        // Every object first, so that nothing is withdrawn if one of them would be left with no target.
        for object in concerned() {
            self.must_be(object).await?.withdraw(zone, object.addresses_of(zone)).map_err(permanent)?;
        }
        for object in concerned() {
            self.change(&object.id(), |it| it.withdraw(zone, object.addresses_of(zone))).await?;
        }
        Ok(())
    }

    /// What the receipt says was there, in the objects of the settings and in those that they named at the time.
    fn to_restore(&self, zone: &Zone, receipt: &Receipt) -> Result<BTreeMap<String, Vec<Withdrawn>>, StepError> {
        let concerned = self.settings.objects.iter().filter(|object| !object.addresses_of(zone).is_empty());
        let mut objects: BTreeMap<String, Vec<Withdrawn>> = concerned.map(|it| (it.id(), Vec::new())).collect();
        for (key, value) in &receipt.0 {
            let id = key.split_once(' ').map(|(id, _)| id).filter(|id| id.contains('/'));
            let (Some(id), Ok(withdrawn)) = (id, serde_json::from_str(value)) else {
                return Err(permanent(format!("the receipt has `{key}`: `{value}`, which names no targets")));
            };
            objects.entry(id.to_owned()).or_default().push(withdrawn);
        }
        Ok(objects)
    }

    /// By the settings, the receipt, and the notes on objects whose addresses the settings do not name any more.
    async fn give_back(&self, zone: &Zone, receipt: &Receipt) -> Result<(), StepError> {
        let mut objects = self.to_restore(zone, receipt)?;
        for object in &self.settings.objects {
            objects.entry(object.id()).or_default();
        }
        // Each is tried, whatever came of another.
        let mut result = Ok(());
        for (id, were_there) in &objects {
            let changed = self.change(id, |it| Ok(it.give_back(zone, were_there))).await;
            result = result.and(changed.map(|_| ()));
        }
        result
    }

    async fn confirm_withdrawn(&self, zone: &Zone) -> Result<(), StepError> {
        for object in &self.settings.objects {
            let addresses = object.addresses_of(zone);
            if addresses.is_empty() {
                continue;
            }
            let seen = self.must_be(object).await?;
            if let Some((of, left)) = seen.there(addresses).into_iter().next() {
                return Err(StepError::soon(format!("{}: {of} still has {} of {zone}", seen.id, left.join(", "))));
            }
            self.observed(&seen)?;
        }
        Ok(())
    }

    async fn confirm_returned(&self, zone: &Zone, receipt: &Receipt) -> Result<(), StepError> {
        for (id, were_there) in self.to_restore(zone, receipt)? {
            let Some(seen) = self.look(&id).await? else { continue };
            let lacking = seen.lacks(zone, &were_there);
            if !lacking.is_empty() {
                return Err(StepError::soon(format!("{id} still lacks {} of {zone}", lacking.join(", "))));
            }
            if seen.zones().contains(zone) {
                return Err(StepError::soon(format!("{id} still has a note of {zone}")));
            }
            self.observed(&seen)?;
        }
        Ok(())
    }

    /// Whether external-dns has seen the object as it is now. That it has changed the records it does not say.
    fn observed(&self, object: &Object) -> Result<(), StepError> {
        let (id, generation) = (&object.id, object.generation);
        let waits = self.settings.wait_for_external_dns;
        let seen = match object.observed {
            Some(observed) if observed >= generation => return Ok(()),
            Some(observed) => format!("saw {observed} last"),
            None => "has seen none".to_owned(),
        };
        let why =
            format!("external-dns has not seen {id} as it is now, generation {generation}: it {seen}. {NOT_SEEN}");
        if waits { Err(StepError::Transient { why, retry_after: LOOK_AGAIN }) } else { Ok(()) }
    }

    /// What an object is like before anything is done to it.
    async fn inspect(&self, object: &ObjectSettings) -> Result<Vec<Probe>, StepError> {
        let mut seen = self.must_be(object).await?;
        let (id, api) = (object.id(), self.api(&object.namespace));
        let (params, patch) = (PatchParams { dry_run: true, ..PatchParams::default() }, Patch::Merge(seen.rehearsal()));
        let rehearsed = api.patch(&object.name, &params, &patch);
        // A conflict shows the right, too.
        if let Err(error) = bounded(rehearsed).await
            && status_code(&error) != Some(409)
        {
            return Err(step_error(&format!("the DNSEndpoint {id} can't be patched"), &error));
        }
        let mut probes = Vec::new();
        for (zone, addresses) in &object.addresses {
            let there = seen.would_be_withdrawn(zone, addresses);
            let listed: Vec<String> = there.iter().map(|it| format!("{} {}", it.of, it.targets.join(", "))).collect();
            if listed.is_empty() {
                let found = format!("{id} has none of {} of {zone}", addresses.join(", "));
                probes.push(Probe::unsure(found, "compare the settings with the object's targets"));
            } else if let Err(why) = seen.withdraw(zone, addresses).map(|_| seen.give_back(zone, &[])) {
                seen = self.must_be(object).await?;
                probes.push(Probe::broken(why));
            } else {
                probes.push(Probe::Works(format!("{id} has {} of {zone}, and can be changed", listed.join("; "))));
            }
        }
        if let Err(error) = self.observed(&seen) {
            probes.push(Probe::unsure(error.to_string(), "set wait_for_external_dns: false if that is so for good"));
        }
        Ok(probes)
    }
}

const NOT_SEEN: &str = "Does it run with --source=crd, do its filters take the object in, and may it update \
                        dnsendpoints/status? (wait_for_external_dns)";

fn permanent(why: impl Into<String>) -> StepError {
    StepError::Permanent { why: why.into() }
}

fn missing(id: &str) -> StepError {
    permanent(format!(
        "there is no DNSEndpoint {id}: is it named as in the cluster, and is the custom resource of external-dns installed?"
    ))
}

#[async_trait]
impl IsolationStep for ExternalDns {
    fn name(&self) -> StepName {
        StepName::new("dns_external_dns")
    }

    fn granularity(&self) -> Granularity {
        Granularity::AllOrNothing
    }

    /// What the zone has in each object, and what is withdrawn of it already, as that was there before.
    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let mut receipt = Receipt::default();
        for object in self.settings.objects.iter().filter(|object| !object.addresses_of(zone).is_empty()) {
            let seen = self.must_be(object).await?;
            for (i, it) in seen.would_be_withdrawn(zone, object.addresses_of(zone)).iter().enumerate() {
                let text = serde_json::to_string(it).map_err(|error| permanent(error.to_string()))?;
                receipt.0.insert(format!("{} {i}", seen.id), text);
            }
        }
        Ok(receipt)
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if share > Share::NONE { self.give_back(zone, receipt).await } else { self.withdraw(zone).await }
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if share > Share::NONE {
            self.confirm_returned(zone, receipt).await
        } else {
            self.confirm_withdrawn(zone).await
        }
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        let mut zones = BTreeSet::new();
        for object in &self.settings.objects {
            zones.extend(self.look(&object.id()).await?.iter().flat_map(Object::zones));
        }
        Ok(zones)
    }
}

#[async_trait]
impl RealStep for ExternalDns {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let mut preview = Preview::default();
        for object in &self.settings.objects {
            let (id, addresses) = (object.id(), object.addresses_of(zone));
            if addresses.is_empty() {
                preview.changes.push(format!("{id}: no address of the zone is configured"));
                continue;
            }
            let mut seen = self.must_be(object).await?;
            let verb = if share > Share::NONE { "keeps" } else { "loses" };
            let there = seen.there(addresses).into_iter();
            preview.changes.extend(there.map(|(of, targets)| format!("{id}: {of} {verb} {}", targets.join(", "))));
            if share == Share::NONE
                && let Err(why) = seen.withdraw(zone, addresses)
            {
                preview.left_alone.entry(why).or_default().push(id);
            }
        }
        Ok(preview)
    }

    async fn probe(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for object in &self.settings.objects {
            match self.inspect(object).await {
                Ok(found) => probes.extend(found),
                Err(error) => probes.push(Probe::broken(error.to_string())),
            }
        }
        probes
    }

    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let mut lines = Vec::new();
        for id in self.settings.objects.iter().map(ObjectSettings::id) {
            let marked = self.look(&id).await?.map(|object| object.zones()).unwrap_or_default();
            for marked in marked.iter().filter(|marked| zone.is_none_or(|zone| zone == *marked)) {
                if self.change(&id, |it| Ok(it.give_back(marked, &[]))).await? {
                    lines.push(format!("{id} has the targets of {marked} again"));
                }
            }
        }
        Ok(lines)
    }
}
