//! `zoneward crd`: the custom resources, to be applied.

use kube::CustomResourceExt;

use super::{Outcome, render};
use crate::isolate::resource::{Zone, ZoneIsolation};

pub(super) fn run() -> anyhow::Result<Outcome> {
    render::line(&yaml()?);
    Ok(Outcome::Done)
}

/// Both definitions as YAML documents.
fn yaml() -> anyhow::Result<String> {
    let isolation = serde_saphyr::to_string(&ZoneIsolation::crd())?;
    let zone = serde_saphyr::to_string(&Zone::crd())?;
    Ok(format!("{}\n---\n{}", isolation.trim_end(), zone.trim_end()))
}
