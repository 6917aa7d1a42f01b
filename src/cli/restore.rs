//! `zoneward restore`: a zone back into rotation, or all of them by marks alone.

use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;

use super::remote::{Acting, Followed, Goal, Remote, api_error};
use super::{ConfigArguments, Outcome, render};
use crate::domain::{Isolation, OperatorHold, Receipt, Share, StepName, Zone};
use crate::isolate::KubernetesStore;
use crate::isolate::resource::{StepStatus, ZoneIsolation};
use crate::isolate::steps;
use crate::kubernetes::{bounded, status_code};
use crate::ports::{IsolationStore, StepError};

/// How long a daemon has to let go of what was deleted, before its finalizer is taken off.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    which: Which,
    /// With --all: let go even of what could not be undone, so that nothing holds a deletion; prints what that is
    #[arg(long, requires = "all")]
    remove_finalizers: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The zone, as the nodes' topology.kubernetes.io/zone names it
    zone: Option<String>,
    /// Every zone, by the marks on nodes, pods and names alone; needs no daemon and no ledger
    #[arg(long)]
    all: bool,
    /// What has expired, if no daemon acts that would give it back: for a watchdog
    #[arg(long)]
    expired: bool,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    match &arguments.which.zone {
        Some(zone) => one(&remote, zone).await,
        None if arguments.which.expired => expired(&remote, super::now()).await,
        None => all(&remote, arguments.remove_finalizers, super::now()).await,
    }
}

async fn one(remote: &Remote, zone: &str) -> anyhow::Result<Outcome> {
    let Some(object) = remote.isolation(zone).await? else {
        render::line(&format!("{zone} is not isolated: there is no ZoneIsolation of it"));
        return Ok(Outcome::Done);
    };
    let acting = remote.who_acts(super::now()).await;
    if acting.is_over() {
        render::note(&format!("warning: {acting}"));
    }
    let begun = object.status.as_ref().is_some_and(|status| status.admitted_at.is_some());
    KubernetesStore::new(&remote.client).delete(&object).await?;
    match remote.follow(zone, Goal::Gone).await? {
        Followed::Reached | Followed::Vanished if begun => {
            render::line(&format!("{zone} is back in rotation: every step was undone"));
            Ok(Outcome::Done)
        }
        Followed::Reached | Followed::Vanished => {
            render::line(&format!("{zone} was not isolated, and will not be: its ZoneIsolation is withdrawn"));
            Ok(Outcome::Done)
        }
        Followed::Ignored | Followed::Refused { .. } => bail!(
            "{zone} is to be given back, but no daemon does it; {}. `zoneward restore --all` undoes by the marks alone",
            remote.who_acts(super::now()).await
        ),
        Followed::StillUnderWay => {
            bail!("{zone} is being given back, but not every step is undone yet; see `zoneward status`")
        }
    }
}

/// Undoes what is overdue while nobody acts. The objects stay: a daemon that comes back ends them, and says so.
async fn expired(remote: &Remote, now: Timestamp) -> anyhow::Result<Outcome> {
    let acting = remote.who_acts(now).await;
    if matches!(acting, Acting::Unknown) {
        bail!("{acting}: what has expired is left as it is");
    }
    if !acting.is_over() {
        render::line(&format!("nothing to do: {acting}"));
        return Ok(Outcome::Done);
    }
    let isolations = KubernetesStore::new(&remote.client).list().await?;
    let overdue: Vec<&Isolation> = isolations.iter().filter(|i| i.holds_zone_out() && i.returning(now)).collect();
    if overdue.is_empty() {
        render::line("nothing has expired");
    }
    let mut failed = 0;
    for isolation in overdue {
        let zone = isolation.zone();
        render::line(&format!("{zone} is overdue since {:.0}, and no daemon acts", isolation.expires_at()));
        let receipts = isolation
            .steps
            .iter()
            .filter_map(|(name, entry)| Some((zone.clone(), name.clone(), entry.receipt.clone()?)));
        let done = sweep(remote, Some(zone), &receipts.collect::<Vec<_>>()).await;
        done.iter().for_each(print_swept);
        failed += done.iter().filter(|(_, result)| result.is_err()).count();
    }
    if failed > 0 {
        bail!("{failed} steps could not be undone; what they marked stays marked: run it again");
    }
    Ok(Outcome::Done)
}

fn print_swept((step, result): &Swept) {
    match result {
        Ok(undone) if undone.is_empty() => render::line(&format!("{step}: nothing of ours was left")),
        Ok(told) => render::line(&format!("{step}: {}", told.join("; "))),
        Err(error) => render::line(&format!("{step}: NOT undone: {error}")),
    }
}

/// First no daemon shall want them any more, then what was done is undone.
async fn all(remote: &Remote, remove_finalizers: bool, now: Timestamp) -> anyhow::Result<Outcome> {
    let objects = delete_all(remote, now).await?;
    let done = sweep(remote, None, &objects.iter().flat_map(receipts).collect::<Vec<_>>()).await;
    let failed = done.iter().filter(|(_, result)| result.is_err()).count();
    done.iter().for_each(print_swept);
    let lost: Vec<String> = objects.iter().flat_map(|object| not_undone(object, &done)).collect();
    if remove_finalizers {
        let_go(remote, &objects).await?;
        if !lost.is_empty() || failed > 0 {
            bail!(
                "nothing holds the ZoneIsolations any more, and {failed} steps failed; nobody will restore these: {}",
                lost.join("; ")
            );
        }
    }
    if !lost.is_empty() {
        bail!(
            "nothing here can undo these, so their ZoneIsolations stay, with what is to be restored: {}. Run it with the \
             daemon's configuration",
            lost.join("; ")
        );
    }
    if failed > 0 {
        bail!("{failed} of {} steps could not be undone; what they marked stays marked: run it again", done.len());
    }
    let_go(remote, &objects).await?;
    render::line("every zone is back in rotation");
    Ok(Outcome::Done)
}

async fn delete_all(remote: &Remote, now: Timestamp) -> anyhow::Result<Vec<ZoneIsolation>> {
    let objects = match bounded(remote.isolations.list(&ListParams::default())).await {
        Ok(list) => list.items,
        // Without the custom resource nobody wants anything.
        Err(error) if status_code(&error) == Some(404) => return Ok(Vec::new()),
        Err(error) => return Err(api_error("ZoneIsolations can't be listed", &error)),
    };
    let store = KubernetesStore::new(&remote.client);
    for object in &objects {
        let zone = object.name_any();
        let why = "all were given back by hand".to_owned();
        let held = store.hold(&Zone::new(zone.clone()), OperatorHold { since: now, why, until_healthy: true }).await;
        if let Err(error) = held {
            render::note(&format!("warning: zoneward may isolate {zone} again, as no hold can be noted: {error}"));
        }
        store.delete(object).await?;
        render::line(&format!("{zone}: its ZoneIsolation is deleted"));
    }
    Ok(objects)
}

type Swept = (StepName, Result<Vec<String>, StepError>);

/// What a ledger says of a step of a zone.
type Known = (Zone, StepName, Receipt);

async fn sweep(remote: &Remote, zone: Option<&Zone>, known: &[Known]) -> Vec<Swept> {
    let mut swept = Vec::new();
    for step in steps::sweepers(&remote.settings.steps, &remote.client) {
        let mut undone = step.sweep(zone).await;
        // A ledger may know of what has no mark, or what the settings do not name any more.
        for (zone, _, receipt) in known.iter().filter(|(_, name, _)| *name == step.name()) {
            let by_receipt = step.apply(zone, receipt, Share::FULL).await;
            undone = undone.and_then(|lines| by_receipt.map(|()| lines));
        }
        swept.push((step.name(), undone));
    }
    swept
}

fn receipts(object: &ZoneIsolation) -> Vec<Known> {
    let zone = Zone::new(object.name_any());
    let steps = object.status.iter().flat_map(|status| &status.steps);
    let known =
        |entry: &StepStatus| Some((zone.clone(), StepName::new(entry.name.clone()), Receipt(entry.receipt.clone()?)));
    steps.filter_map(known).collect()
}

/// Steps of a ledger that began, and that nothing was run for.
fn not_undone(object: &ZoneIsolation, done: &[Swept]) -> Vec<String> {
    let steps = object.status.iter().flat_map(|status| &status.steps);
    let began = steps.filter(|entry| !matches!(entry.state.as_str(), "Pending" | "Undone"));
    let unknown = began.filter(|entry| !done.iter().any(|(step, _)| step.as_str() == entry.name));
    let said = |entry: &StepStatus| {
        let receipt = entry.receipt.iter().flatten().map(|(key, value)| format!("{key} {value}"));
        format!("{} of {} ({})", entry.name, object.name_any(), receipt.collect::<Vec<_>>().join(", "))
    };
    unknown.map(said).collect()
}

/// Where no daemon takes its finalizer off, we do: everything is undone.
async fn let_go(remote: &Remote, objects: &[ZoneIsolation]) -> anyhow::Result<()> {
    if !objects.is_empty() {
        render::line(&format!(
            "waiting up to {} s for a daemon to let go of what was deleted",
            LET_GO_WITHIN.as_secs()
        ));
    }
    let patience = Instant::now() + LET_GO_WITHIN;
    let store = KubernetesStore::new(&remote.client);
    for object in objects {
        let zone = object.name_any();
        while let Some(left) = remote.isolation(&zone).await?.filter(|left| left.uid() == object.uid()) {
            if Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            store.let_go(&left).await?;
            break;
        }
    }
    Ok(())
}
