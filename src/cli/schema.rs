//! `zoneward schema`: the JSON Schema of the configuration.

use super::{Outcome, render};
use crate::settings;

pub(super) fn run() -> anyhow::Result<Outcome> {
    render::line(&serde_json::to_string_pretty(&settings::schema())?);
    Ok(Outcome::Done)
}
