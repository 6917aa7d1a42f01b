//! No more east-west traffic, by the control plane of Alibaba Cloud's mesh (ASM): the labels of isolated workloads name the
//! zone.
//!
//! That the field `LabelsForOffloadedWorkloads` does this is inferred from its name and from where the console's switch would
//! write; no documentation says so. What is certain is what is read back.

mod settings;

pub use settings::{Consent, Settings};

use std::collections::BTreeSet;

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::Value;

use super::{Preview, Probe, RealStep};
use crate::alibaba::{Call, Client, Endpoint, Error, Parameters, Surroundings, parameters};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::ports::{IsolationStep, StepError};

const VERSION: &str = "2020-01-11";
const LABELS: &str = "LabelsForOffloadedWorkloads";
const PLACE: &str = "/ServiceMesh/Spec/MeshConfig/ExtraConfiguration/IstiodExtraConfiguration";
const INFO: &str = "/ServiceMesh/ServiceMeshInfo";
/// From which istiod knows the draining label of `mesh_istio`.
const DRAINING_SINCE: (u32, u32) = (1, 22);

/// Writes one field, and gives back what was in it.
///
/// Guarantees: it writes only over what was there when the isolation began, if that was nothing, and over what it wrote
/// itself; anything else is somebody's, and is told.
pub struct MeshAsm {
    settings: Settings,
    client: Client,
}

/// What the mesh says of itself.
struct Seen {
    version: String,
    state: String,
    /// None if the mesh does not have the field.
    labels: Option<String>,
}

impl Seen {
    fn labels(&self) -> &str {
        self.labels.as_deref().unwrap_or_default()
    }
}

/// What was there, and what we write.
struct Texts<'a> {
    was: &'a str,
    wrote: &'a str,
}

impl MeshAsm {
    pub fn new(settings: Settings, surroundings: Surroundings) -> Self {
        let client = Client::new(settings.credentials, surroundings, settings.timeout);
        Self { settings, client }
    }

    fn endpoint(&self) -> Result<Endpoint, StepError> {
        self.settings.endpoint().map_err(permanent)
    }

    async fn call(&self, action: &str, query: Parameters) -> Result<Value, StepError> {
        let form = parameters([("ServiceMeshId", &self.settings.mesh_id)]);
        let (endpoint, right) = (self.endpoint()?, format!("servicemesh:{action} on *"));
        let call = Call { endpoint: &endpoint, action, version: VERSION, query, form, right };
        self.client.call(&call).await.map_err(|error| failure(&error))
    }

    async fn read(&self) -> Result<Seen, StepError> {
        let answer = self.call("DescribeServiceMeshDetail", Parameters::new()).await?;
        let info = |field: &str| answer.pointer(INFO)?.get(field)?.as_str().map(str::to_owned);
        let Some((version, state)) = info("Version").zip(info("State")) else {
            return Err(soon(format!("what ASM says of {} has no {INFO}", self.settings.mesh_id)));
        };
        let labels = answer.pointer(PLACE).and_then(|place| place.get(LABELS)?.as_str()).map(str::to_owned);
        Ok(Seen { version, state, labels })
    }

    async fn write(&self, seen: &Seen, labels: &str) -> Result<(), StepError> {
        if !seen.state.eq_ignore_ascii_case("running") {
            let mesh = &self.settings.mesh_id;
            return Err(soon(format!("the mesh {mesh} is {}: it takes a change once it is running", seen.state)));
        }
        self.call("UpdateMeshFeature", parameters([(LABELS, labels)])).await.map(|_| ())
    }

    async fn take_out(&self, texts: &Texts<'_>) -> Result<(), StepError> {
        let seen = self.read().await?;
        if seen.labels() == texts.wrote {
            Ok(())
        } else if !texts.was.is_empty() {
            Err(self.somebodys(texts.was))
        } else if seen.labels().is_empty() {
            self.write(&seen, texts.wrote).await
        } else {
            Err(self.drifted(&seen, texts))
        }
    }

    async fn give_back(&self, texts: &Texts<'_>) -> Result<(), StepError> {
        let seen = self.read().await?;
        if seen.labels() == texts.was {
            Ok(())
        } else if seen.labels() == texts.wrote {
            self.write(&seen, texts.was).await
        } else {
            Err(self.drifted(&seen, texts))
        }
    }

    fn somebodys(&self, was: &str) -> StepError {
        let mesh = &self.settings.mesh_id;
        permanent(format!(
            "{LABELS} of the mesh {mesh} is `{was}` already, which is somebody's own. It is left as it is, and the zone \
             takes east-west traffic: leave this step out, or empty the field"
        ))
    }

    fn drifted(&self, seen: &Seen, texts: &Texts<'_>) -> StepError {
        let (mesh, now, Texts { was, wrote }) = (&self.settings.mesh_id, seen.labels(), texts);
        permanent(format!(
            "{LABELS} of the mesh {mesh} is `{now}`: neither `{was}`, as before the isolation, nor `{wrote}`, as zoneward \
             writes it. Somebody changed it meanwhile, and it is left as it is: set it to one of the two"
        ))
    }
}

fn failure(error: &Error) -> StepError {
    let advice = "compare steps.mesh_asm.mesh_id, and whose credentials these are";
    let not_found = error.refusal().is_some_and(|refusal| refusal.status == 404 && !refusal.is_of_keys());
    error.for_step(not_found.then_some(advice))
}

fn permanent(why: impl Into<String>) -> StepError {
    StepError::Permanent { why: why.into() }
}

fn soon(why: impl Into<String>) -> StepError {
    StepError::Transient { why: why.into(), retry_after: SignedDuration::from_secs(2) }
}

/// None of a receipt of nothing.
fn texts(receipt: &Receipt) -> Result<Option<Texts<'_>>, StepError> {
    match (receipt.0.get("was"), receipt.0.get("wrote")) {
        (Some(was), Some(wrote)) => Ok(Some(Texts { was, wrote })),
        _ if receipt.0.is_empty() => Ok(None),
        _ => Err(permanent("the receipt does not say what was there and what was written")),
    }
}

#[async_trait]
impl IsolationStep for MeshAsm {
    fn name(&self) -> StepName {
        StepName::new("mesh_asm")
    }

    fn granularity(&self) -> Granularity {
        Granularity::AllOrNothing
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let was = self.read().await?.labels.unwrap_or_default();
        Ok(Receipt([("was".to_owned(), was), ("wrote".to_owned(), self.settings.labels_of(zone))].into()))
    }

    async fn apply(&self, _: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        match texts(receipt)? {
            Some(texts) if share > Share::NONE => self.give_back(&texts).await,
            Some(texts) => self.take_out(&texts).await,
            None if share > Share::NONE => Ok(()),
            None => Err(permanent("without a receipt nothing is written: nothing would say what to restore")),
        }
    }

    async fn confirm(&self, _: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let Some(texts) = texts(receipt)? else { return Ok(()) };
        let (seen, wanted) = (self.read().await?, if share > Share::NONE { texts.was } else { texts.wrote });
        if seen.labels() == wanted {
            return Ok(());
        }
        let (mesh, now) = (&self.settings.mesh_id, seen.labels());
        Err(soon(format!("{LABELS} of the mesh {mesh} reads `{now}`, and not `{wanted}` yet")))
    }

    /// None: what we write, a person may have written.
    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        Ok(BTreeSet::new())
    }
}

#[async_trait]
impl RealStep for MeshAsm {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let (seen, wanted) = (self.read().await?, self.settings.labels_of(zone));
        let (mesh, now) = (&self.settings.mesh_id, seen.labels());
        let change = if share > Share::NONE {
            format!("{LABELS} of the mesh {mesh} stays `{now}`")
        } else if now == wanted {
            format!("{LABELS} of the mesh {mesh} is `{now}` already, and stays so when the isolation ends")
        } else if now.is_empty() {
            format!("{LABELS} of the mesh {mesh} becomes `{wanted}`; that this takes the zone out is not documented")
        } else {
            format!("would be refused: {}", self.somebodys(now))
        };
        Ok(Preview { changes: vec![change], ..Preview::default() })
    }

    async fn probe(&self) -> Vec<Probe> {
        let whose = match self.client.acts_by() {
            Ok(whose) => whose,
            Err(error) => return vec![Probe::broken(error.to_string())],
        };
        let seen = match self.read().await {
            Ok(seen) => seen,
            Err(error) => return vec![Probe::broken(error.to_string())],
        };
        let (mesh, Seen { version, state, .. }) = (&self.settings.mesh_id, &seen);
        let mut probes =
            vec![Probe::Works(format!("the mesh {mesh} ({version}, {state}) is read with the rights of {whose}"))];
        probes.push(match (&seen.labels, seen.labels()) {
            (None, _) => Probe::unsure(
                format!("the mesh does not say {LABELS}"),
                "its version may not have the field, or it is left out while empty: confirm it before you rely on it",
            ),
            (Some(_), "") => Probe::Works(format!("{LABELS} is empty: it can be written, if the account may")),
            (Some(_), text) => Probe::unsure(
                format!("{LABELS} is `{text}`: that is somebody's own, unless zoneward isolates a zone right now"),
                "it is never overwritten: empty it, or leave this step out",
            ),
        });
        let draining = if version_of(version).is_some_and(|version| version >= DRAINING_SINCE) {
            "this mesh is new enough for it"
        } else {
            "this mesh is older than 1.22, which it takes"
        };
        probes.push(Probe::unsure(
            format!("no documentation says that {LABELS} takes a zone out, and how it reads a comma"),
            format!(
                "toggle the console's switch, compare DescribeServiceMeshDetail before and after, and see the traffic end; \
                 or use steps.mesh_istio: {draining}"
            ),
        ));
        probes
    }

    /// Gives nothing back, as it can't know what is ours; says what is there.
    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let seen = self.read().await?;
        let text = seen.labels();
        let concerned =
            zone.map_or_else(|| self.settings.may_be_ours(text), |zone| self.settings.labels_of(zone) == text);
        let rule = "given back only where a ZoneIsolation says that zoneward wrote it";
        let told = format!("nothing by marks, as the mesh keeps none ({LABELS} is `{text}`; {rule})");
        Ok(if concerned { vec![told] } else { Vec::new() })
    }
}

/// Of a version such as `v1.22.6.12-g0f8d2a31-aliyun`: the first two numbers.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let new_enough = |text| version_of(text).is_some_and(|version| version >= DRAINING_SINCE);
        assert!(new_enough("v1.22.6.12-g0f8d2a31-aliyun") && new_enough("1.100.0"));
        assert!(!new_enough("v1.9.7") && !new_enough("") && !new_enough("v2"));
    }
}
