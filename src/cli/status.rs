//! `zoneward status`: zones, and what is done about them, as the custom resources tell.

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use super::remote::{Remote, api_error, condition};
use super::{ConfigArguments, Outcome, Output, render};
use crate::domain::Pause;
use crate::isolate::resource::{self, ZoneIsolation};
use crate::kubernetes::{bounded, read_pause};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Status {
    /// Which replica acts.
    acting: String,
    /// Whether a person has paused it, and why; nothing if not.
    paused: Option<String>,
    zones: Vec<ZoneRow>,
    isolations: Vec<IsolationRow>,
}

#[derive(Debug, Serialize)]
struct ZoneRow {
    zone: String,
    verdict: Option<String>,
    since: Option<String>,
    hold: Option<String>,
    past_isolations: usize,
}

#[derive(Debug, Serialize)]
struct IsolationRow {
    zone: String,
    ready: String,
    message: String,
    reason: String,
    expires_at: String,
    steps: Vec<String>,
    effect: Option<String>,
    recovery: Option<String>,
    residual: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    let all = ListParams::default();
    let zones: Api<resource::Zone> = Api::all(remote.client.clone());
    let zones = bounded(zones.list(&all)).await.map_err(|error| api_error("Zones can't be listed", &error))?;
    let isolations = bounded(remote.isolations.list(&all)).await;
    let isolations = isolations.map_err(|error| api_error("ZoneIsolations can't be listed", &error))?;
    let now = super::now();
    let status = Status {
        acting: remote.who_acts(now).await.to_string(),
        paused: Some(read_pause(&remote.client, now).await)
            .filter(|pause| !pause.is_off())
            .as_ref()
            .map(Pause::to_string),
        zones: zones.items.iter().map(zone_row).collect(),
        isolations: isolations.items.iter().map(isolation_row).collect(),
    };
    match arguments.output {
        Output::Json => render::json(&status)?,
        Output::Table => {
            status.print();
            render::note(&format!(
                "evidence, guardrails and decisions are on the status page: kubectl -n {} port-forward deployment/zoneward 9900",
                remote.settings.kubernetes.namespace
            ));
        }
    }
    Ok(Outcome::Done)
}

fn zone_row(zone: &resource::Zone) -> ZoneRow {
    let status = zone.status.clone().unwrap_or_default();
    let held = status.operator_hold.map(|hold| format!("since {}: {}", hold.since, hold.why));
    ZoneRow {
        zone: zone.name_any(),
        verdict: status.verdict,
        since: status.verdict_since,
        hold: match (zone.spec.hold.clone(), held) {
            (Some(hold), Some(held)) => Some(format!("{hold}\n{held}")),
            (hold, held) => hold.or(held),
        },
        past_isolations: status.episodes.len(),
    }
}

fn isolation_row(object: &ZoneIsolation) -> IsolationRow {
    let status = object.status.clone().unwrap_or_default();
    let ready = condition(object, "Ready");
    let rps = |milli: i64| milli as f64 / 1_000.0;
    let steps = status.steps.iter().map(|step| {
        let error = step.last_error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
        format!("{} {}{error}", step.name, step.state)
    });
    let effect = status.effect.as_ref().map(|effect| {
        let shown = effect.shown_after_seconds.map_or_else(String::new, |s| format!(", shown after {s} s"));
        let (before, after) = (effect.before_milli_requests_per_second, effect.after_milli_requests_per_second);
        format!("{:.1} requests/s before, {:.1} now{shown}", rps(before), rps(after))
    });
    let residual = status.effect.iter().flat_map(|effect| &effect.residual);
    let deleted = object.metadata.deletion_timestamp.as_ref().filter(|_| status.returning_since.is_none());
    let (state, message) = match (deleted, ready) {
        (Some(at), _) => ("To be given back".to_owned(), format!("deleted at {}, and not taken up yet", at.0)),
        (None, Some(ready)) => (ready.reason.clone(), ready.message.clone()),
        (None, None) => ("Not taken up yet".to_owned(), String::new()),
    };
    IsolationRow {
        zone: object.name_any(),
        ready: state,
        message,
        reason: object.spec.reason.clone(),
        expires_at: object.spec.expires_at.clone(),
        steps: steps.collect(),
        effect,
        recovery: condition(object, "Recovering").map(|it| format!("{}: {}", it.reason, it.message)),
        residual: residual
            .map(|r| format!("{} {:.1}/s: {}", r.service, rps(r.milli_requests_per_second), r.why))
            .collect(),
    }
}

impl Status {
    fn print(&self) {
        render::line(&self.acting);
        self.paused.iter().for_each(|paused| render::line(paused));
        let zone = |row: &ZoneRow| {
            vec![
                row.zone.clone(),
                row.verdict.clone().unwrap_or_else(|| "not judged yet".to_owned()),
                row.since.clone().unwrap_or_default(),
                row.hold.clone().unwrap_or_default(),
                row.past_isolations.to_string(),
            ]
        };
        render::table(
            &["zone", "verdict", "since", "operator's hold", "past isolations"],
            self.zones.iter().map(zone).collect(),
        );
        if self.isolations.is_empty() {
            render::line("no zone is isolated");
            return;
        }
        let isolation = |row: &IsolationRow| {
            let recovery = row.recovery.as_ref().map(|recovery| format!("way back: {recovery}"));
            let lines = [row.effect.clone().unwrap_or_default(), row.residual.join("\n"), recovery.unwrap_or_default()];
            let effect: Vec<String> = lines.into_iter().filter(|line| !line.is_empty()).collect();
            vec![
                row.zone.clone(),
                format!("{}\n{}", row.ready, row.message),
                row.steps.join("\n"),
                effect.join("\n"),
                row.expires_at.clone(),
            ]
        };
        render::table(
            &["isolation", "state", "steps", "effect", "expires"],
            self.isolations.iter().map(isolation).collect(),
        );
    }
}
