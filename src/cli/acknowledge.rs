//! `zoneward acknowledge`: a person has looked at what was isolated, and the budget begins anew.

use anyhow::bail;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::remote::{Remote, api_error};
use super::{ConfigArguments, Outcome, render};
use crate::isolate::resource;
use crate::kubernetes::bounded;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The zone, as the nodes' topology.kubernetes.io/zone names it
    zone: Option<String>,
    /// Every zone
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    let zones: Api<resource::Zone> = Api::all(remote.client.clone());
    let known = bounded(zones.list(&ListParams::default())).await;
    let mut known = known.map_err(|error| api_error("Zones can't be listed", &error))?.items;
    if let Some(zone) = &arguments.which.zone {
        known.retain(|object| object.name_any() == *zone);
        if known.is_empty() {
            bail!("there is no Zone {zone}, so nothing of it is on a budget; `zoneward status` shows those there are");
        }
    }
    // Whole seconds are enough for people.
    let now = Timestamp::from_second(super::now().as_second())?;
    for object in known {
        let (zone, past) = (object.name_any(), object.status.map_or(0, |status| status.episodes.len()));
        let patch = json!({"spec": {"acknowledgedAt": now.to_string()}});
        bounded(zones.patch(&zone, &PatchParams::default(), &Patch::Merge(&patch)))
            .await
            .map_err(|error| api_error("the Zone can't be changed", &error))?;
        render::line(&format!("{zone}: its budget begins anew at {now}; {past} past isolations are kept"));
    }
    Ok(Outcome::Done)
}
