//! `zoneward pause` and `zoneward resume`: all that zoneward does by itself stops, and goes on.

use anyhow::bail;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::remote::{Remote, api_error};
use super::{ConfigArguments, Outcome, render};
use crate::domain::{Isolation, Period};
use crate::isolate::KubernetesStore;
use crate::kubernetes::{PAUSE_NAME, PAUSE_REASON, PAUSE_UNTIL, bounded, marks, read_pause, status_code};
use crate::ports::IsolationStore;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Why, for those who wonder
    #[arg(long, default_value = "no reason is given")]
    reason: String,
    /// For how long, such as 2h [default: until `zoneward resume`]
    #[arg(long = "for", value_name = "TIME")]
    pause_for: Option<Period>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    config: ConfigArguments,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    // Whole seconds are enough for people.
    let now = Timestamp::from_second(super::now().as_second())?;
    let until = match arguments.pause_for {
        Some(period) if period.is_zero() => bail!("--for must be longer than nothing"),
        Some(period) => Some(now.checked_add(period.signed())?.to_string()),
        None => None,
    };
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": PAUSE_NAME, "labels": {marks::MANAGED_BY.0: marks::MANAGED_BY.1}},
        "data": {PAUSE_REASON: arguments.reason, PAUSE_UNTIL: until},
    });
    let api: Api<ConfigMap> = Api::default_namespaced(remote.client.clone());
    let changed = bounded(api.patch(PAUSE_NAME, &PatchParams::default(), &Patch::Merge(&object))).await;
    match changed {
        Err(error) if status_code(&error) == Some(404) => {
            let object: ConfigMap = serde_json::from_value(without_nulls(object))?;
            bounded(api.create(&PostParams::default(), &object)).await
        }
        other => other,
    }
    .map_err(|error| api_error("the pause can't be written", &error))?;
    render::line(&read_pause(&remote.client, now).await.to_string());
    let isolations = KubernetesStore::new(&remote.client).list().await?;
    let out: Vec<String> = isolations.iter().filter(|i| i.holds_zone_out()).map(stays).collect();
    if out.is_empty() {
        render::line("no zone is isolated, and none will be");
    }
    out.iter().for_each(|line| render::line(line));
    Ok(Outcome::Done)
}

fn stays(isolation: &Isolation) -> String {
    let (zone, end) = (isolation.zone(), isolation.expires_at());
    format!(
        "{zone} is out, and stays as it is, also after {end:.0}, when it expires; `zoneward restore {zone}` gives it back all \
         the same"
    )
}

fn without_nulls(mut object: serde_json::Value) -> serde_json::Value {
    if let Some(data) = object["data"].as_object_mut() {
        data.retain(|_, value| !value.is_null());
    }
    object
}

pub(super) async fn resume(arguments: ResumeArguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    let was = read_pause(&remote.client, super::now()).await;
    let api: Api<ConfigMap> = Api::default_namespaced(remote.client.clone());
    match bounded(api.delete(PAUSE_NAME, &DeleteParams::default())).await {
        Ok(_) if was.is_on() => render::line("resumed: what waited goes on, and what has expired is given back"),
        Ok(_) => render::line("the pause had ended; what was left of it is gone"),
        Err(error) if status_code(&error) == Some(404) => render::line("it was not paused"),
        Err(error) => return Err(api_error("the pause can't be ended", &error)),
    }
    Ok(Outcome::Done)
}
