//! `zoneward isolate` and `zoneward approve`: a person's hand on the very same executor.

use std::collections::BTreeSet;

use anyhow::bail;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::remote::{Followed, Goal, Remote, api_error, check_name, condition};
use super::{ConfigArguments, Outcome, Output, preflight, render};
use crate::domain::isolation::LONGEST_ISOLATION;
use crate::domain::{IsolationSpec, Origin, Period, Share, StepName, Zone};
use crate::guard;
use crate::isolate::{KubernetesStore, object};
use crate::kubernetes::{bounded, status_code};
use crate::ports::IsolationStore;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The zone, as the nodes' topology.kubernetes.io/zone names it
    zone: String,
    /// Why, for those who read the audit journal
    #[arg(long)]
    reason: String,
    /// For how long at most, such as 2h
    #[arg(long = "for", value_name = "TIME", value_parser = period)]
    expires_after: Period,
    /// Only this step, such as taint; may be given several times [default: all that are configured]
    #[arg(long = "step", value_name = "STEP")]
    steps: Vec<String>,
    /// How much of its usual east-west traffic the zone may have, in percent; all-or-nothing steps are taken whole
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..100))]
    share: u8,
    /// A guardrail that need not pass, such as cooling-down; may be given several times
    #[arg(long = "override", value_name = "GUARDRAIL", value_parser = guardrail)]
    overrides: Vec<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DrillArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The zone, as the nodes' topology.kubernetes.io/zone names it
    zone: String,
    /// For how long, such as 30m
    #[arg(long = "for", value_name = "TIME", value_parser = period)]
    lasts: Period,
    /// Why, for those who read the audit journal
    #[arg(long, default_value = "a drill")]
    reason: String,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ApproveArguments {
    #[command(flatten)]
    config: ConfigArguments,
    zone: String,
    /// A guardrail that need not pass, such as blocked-window; may be given several times
    #[arg(long = "override", value_name = "GUARDRAIL", value_parser = guardrail)]
    overrides: Vec<String>,
}

fn period(text: &str) -> Result<Period, String> {
    let period: Period = text.parse()?;
    if period < Period::from_mins(1) || period.signed() > LONGEST_ISOLATION {
        return Err(format!("{period} is outside 1m to 72h"));
    }
    Ok(period)
}

fn guardrail(name: &str) -> Result<String, String> {
    let name = name.to_lowercase().replace('-', "_");
    if guard::overridable().any(|known| known == name) {
        return Ok(name);
    }
    let names: Vec<String> = guard::overridable().map(|known| known.replace('_', "-")).collect();
    Err(format!("no guardrail of that name can be overridden; these can: {}", names.join(", ")))
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    if arguments.reason.trim().is_empty() {
        bail!("--reason must say something: it goes into the audit journal");
    }
    let remote = Remote::connect(&arguments.config).await?;
    // Whole seconds are enough for people.
    let now = Timestamp::from_second(super::now().as_second())?;
    let spec = IsolationSpec {
        zone: Zone::new(arguments.zone.clone()),
        origin: Origin::Operator,
        reason: arguments.reason,
        evidence: Vec::new(),
        expires_at: now + arguments.expires_after.signed(),
        share: Share::percent(arguments.share),
        only: arguments.steps.iter().map(StepName::new).collect(),
        overrides: arguments.overrides.iter().cloned().collect(),
        approved: true,
    };
    begin(&remote, spec, arguments.dry_run).await
}

pub(super) async fn drill(arguments: DrillArguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    let now = Timestamp::from_second(super::now().as_second())?;
    let spec = IsolationSpec {
        zone: Zone::new(arguments.zone),
        origin: Origin::Drill,
        reason: arguments.reason,
        evidence: Vec::new(),
        expires_at: now + arguments.lasts.signed(),
        share: Share::NONE,
        only: BTreeSet::new(),
        overrides: BTreeSet::new(),
        approved: true,
    };
    begin(&remote, spec, arguments.dry_run).await
}

async fn begin(remote: &Remote, spec: IsolationSpec, dry_run: bool) -> anyhow::Result<Outcome> {
    let now = super::now();
    if dry_run {
        return preflight::examine(remote, &spec, now).await?.print(Output::Table);
    }
    let zone = spec.zone.as_str();
    check_name(zone)?;
    let acting = remote.who_acts(now).await;
    if acting.is_over() {
        bail!("{zone} is not isolated: {acting}");
    }
    note_hold(remote, &spec.zone).await?;
    match bounded(remote.isolations.create(&PostParams::default(), &object(&spec))).await {
        Ok(_) => {}
        Err(error) if status_code(&error) == Some(409) => {
            let known = remote.isolation(zone).await?;
            let state = known.as_ref().and_then(|o| condition(o, "Ready")).map(|c| format!(": {}", c.message));
            bail!(
                "there is a ZoneIsolation {zone} already{}. See `zoneward status`; end it by `zoneward restore {zone}`",
                state.unwrap_or_default()
            );
        }
        Err(error) => return Err(api_error("the ZoneIsolation can't be made", &error)),
    }
    render::line(&format!("{zone}: asked for, until {}", spec.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")));
    follow(remote, zone, true).await
}

pub(super) async fn approve(arguments: ApproveArguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    let zone = &arguments.zone;
    let Some(known) = remote.isolation(zone).await? else {
        bail!("there is no ZoneIsolation {zone} to approve; `zoneward status` shows those there are");
    };
    if known.spec.approved {
        render::line(&format!("{zone}: approved already"));
    } else {
        let overrides = [known.spec.overrides.clone(), arguments.overrides].concat();
        let patch =
            json!({"metadata": {"uid": known.metadata.uid}, "spec": {"approved": true, "overrides": overrides}});
        bounded(remote.isolations.patch(zone, &PatchParams::default(), &Patch::Merge(&patch)))
            .await
            .map_err(|error| api_error("the ZoneIsolation can't be approved", &error))?;
        render::line(&format!("{zone}: approved. {}", known.spec.reason));
    }
    follow(&remote, zone, false).await
}

/// Until the zone is out. What is refused, or taken up by nobody, is withdrawn if it was made just now: nothing may begin
/// by itself later, when nobody looks.
async fn follow(remote: &Remote, zone: &str, made_now: bool) -> anyhow::Result<Outcome> {
    let followed = tokio::select! {
        followed = remote.follow(zone, Goal::Isolated) => followed?,
        _ = tokio::signal::ctrl_c() => return interrupted(remote, zone, made_now).await,
    };
    let why = match followed {
        Followed::Reached => {
            render::line(&format!("{zone} is out of rotation. `zoneward status` shows its effect"));
            return Ok(Outcome::Done);
        }
        Followed::StillUnderWay => {
            render::line(&format!("{zone}: not every step is confirmed yet; it goes on. See `zoneward status`"));
            return Ok(Outcome::Found);
        }
        Followed::Vanished => bail!("the ZoneIsolation {zone} was deleted meanwhile"),
        Followed::Refused { kind, why } => {
            let name = kebab_case(&kind);
            let hint = if guard::overridable().any(|known| known.replace('_', "-") == name) {
                format!("; `--override {name}` lets it pass")
            } else {
                String::new()
            };
            format!("{zone} is not isolated: {why} ({name}){hint}")
        }
        Followed::Ignored => {
            format!("{zone} is not isolated: no daemon took it up; {}", remote.who_acts(super::now()).await)
        }
    };
    if made_now && let Some(made) = remote.isolation(zone).await? {
        KubernetesStore::new(&remote.client).delete(&made).await?;
        bail!("{why}. The request is withdrawn");
    }
    bail!("{why}")
}

/// A person's hold binds the detector; another person may not know of it.
async fn note_hold(remote: &Remote, zone: &Zone) -> anyhow::Result<()> {
    if let Some(hold) = KubernetesStore::new(&remote.client).holds().await?.get(zone) {
        render::note(&format!(
            "note: an operator holds {zone} since {:.0}, for zoneward's own part: {}",
            hold.since, hold.why
        ));
    }
    Ok(())
}

/// What has not begun is withdrawn; what has goes on.
async fn interrupted(remote: &Remote, zone: &str, made_now: bool) -> anyhow::Result<Outcome> {
    let Some(object) = remote.isolation(zone).await? else { bail!("interrupted") };
    let begun = object.status.as_ref().is_some_and(|status| status.admitted_at.is_some());
    if made_now && !begun {
        KubernetesStore::new(&remote.client).delete(&object).await?;
        bail!("interrupted before it began: the request is withdrawn");
    }
    bail!("no longer followed; it goes on. `zoneward status` shows it, `zoneward restore {zone}` gives the zone back")
}

/// `AnotherZoneIsolated` as `another-zone-isolated`.
fn kebab_case(camel: &str) -> String {
    let mut text = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
