//! `zoneward restore`: a zone back into rotation, or all of them by marks alone.

use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::ListParams;

use super::remote::{Followed, Goal, Remote, api_error};
use super::{ConfigArguments, Outcome, render};
use crate::domain::{Isolation, OperatorHold, Receipt, Share, StepName, Zone};
use crate::isolate::KubernetesStore;
use crate::isolate::resource::{StepStatus, ZoneIsolation};
use crate::isolate::steps::{self, RealStep};
use crate::kubernetes::{bounded, marks, read_pause, status_code};
use crate::leadership::TAKEN_OVER_WITHIN;
use crate::ports::{IsolationStore, StepError};

/// How long a daemon that acts has to let go of what was deleted.
const LET_GO_WITHIN: Duration = Duration::from_mins(1);
/// How long what was undone may take to read so.
const READ_BACK_WITHIN: Duration = Duration::from_secs(30);
/// Clocks differ, and a daemon has its chance first.
const OVERDUE_AFTER: SignedDuration = SignedDuration::from_mins(2);

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

/// Undoes, once, what is overdue while nobody acts. The objects stay: a daemon that comes back ends them, and says so.
async fn expired(remote: &Remote, now: Timestamp) -> anyhow::Result<Outcome> {
    if let Some(who) = remote.renews().await? {
        render::line(&format!("nothing to do: {who} acts, and gives back what expires"));
        return Ok(Outcome::Done);
    }
    let pause = read_pause(&remote.client, now).await;
    if pause.is_on() {
        render::line(&format!("nothing is done: {pause}"));
        return Ok(Outcome::Done);
    }
    let store = KubernetesStore::new(&remote.client);
    let due = now - OVERDUE_AFTER;
    let isolations = store.list().await?;
    let overdue: Vec<&Isolation> =
        isolations.iter().filter(|i| i.holds_zone_out() && (i.expired(due) || i.returning(due))).collect();
    if overdue.is_empty() {
        render::line("nothing is overdue");
    }
    let mut left = Vec::new();
    for isolation in overdue {
        let zone = isolation.zone();
        let Some(object) = remote.isolation(zone.as_str()).await? else { continue };
        if object.annotations().get(marks::GIVEN_BACK) == Some(&isolation.id) {
            render::line(&format!("{zone} was given back already; its ZoneIsolation waits for a daemon"));
            continue;
        }
        render::line(&format!("{zone} is overdue since {:.0}, and no daemon acts", isolation.expires_at()));
        let done = sweep(remote, Some(zone), &receipts(&object)).await;
        done.iter().for_each(print_swept);
        let lost = not_undone(&object, &done);
        // What a person does about it from now on is theirs.
        if lost.is_empty() && done.iter().all(|(_, result)| result.is_ok()) {
            store.note_given_back(&object, &isolation.id).await?;
        } else {
            left.extend(lost);
            left.push(format!("{zone}: run it again"));
        }
    }
    if left.is_empty() { Ok(Outcome::Done) } else { bail!("not all was undone: {}", left.join("; ")) }
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
    let mut lost: Vec<String> = objects.iter().flat_map(|object| not_undone(object, &done)).collect();
    if remove_finalizers && !(lost.is_empty() && failed == 0) {
        let_go(remote, &objects).await?;
        let in_vain = done.iter().filter(|(_, result)| result.is_err());
        lost.extend(in_vain.map(|(step, _)| format!("what carries marks of {step}")));
        bail!("nothing holds the ZoneIsolations any more, and nobody will restore these: {}", lost.join("; "));
    }
    if !lost.is_empty() {
        bail!(
            "these are not undone, so their ZoneIsolations stay, with what is to be restored: {}. Run it again, with the \
             daemon's configuration and credentials",
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
            let by_receipt = undo(step.as_ref(), zone, receipt).await;
            undone = undone.and_then(|lines| by_receipt.map(|()| lines));
        }
        swept.push((step.name(), undone));
    }
    swept
}

/// And reads back that it is so, which may take a while.
async fn undo(step: &dyn RealStep, zone: &Zone, receipt: &Receipt) -> Result<(), StepError> {
    let patience = Instant::now() + READ_BACK_WITHIN;
    step.apply(zone, receipt, Share::FULL).await?;
    loop {
        match step.confirm(zone, receipt, Share::FULL).await {
            Err(StepError::Transient { .. }) if Instant::now() < patience => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            read_back => return read_back,
        }
    }
}

fn receipts(object: &ZoneIsolation) -> Vec<Known> {
    let zone = Zone::new(object.name_any());
    let steps = object.status.iter().flat_map(|status| &status.steps);
    let known =
        |entry: &StepStatus| Some((zone.clone(), StepName::new(entry.name.clone()), Receipt(entry.receipt.clone()?)));
    steps.filter_map(known).collect()
}

/// Steps of a ledger that began, and that nothing was run for, or in vain.
fn not_undone(object: &ZoneIsolation, done: &[Swept]) -> Vec<String> {
    let steps = object.status.iter().flat_map(|status| &status.steps);
    let began = steps.filter(|entry| !matches!(entry.state.as_str(), "Pending" | "Undone"));
    let unknown =
        began.filter(|entry| !done.iter().any(|(step, result)| step.as_str() == entry.name && result.is_ok()));
    let said = |entry: &StepStatus| {
        let receipt = entry.receipt.iter().flatten().map(|(key, value)| format!("{key} {value}"));
        format!("{} of {} ({})", entry.name, object.name_any(), receipt.collect::<Vec<_>>().join(", "))
    };
    unknown.map(said).collect()
}

/// Where no daemon takes its finalizer off, we do; but not while one acts, which may be in the middle of a step.
async fn let_go(remote: &Remote, objects: &[ZoneIsolation]) -> anyhow::Result<()> {
    let mut left = still_there(remote, objects).await?;
    if left.is_empty() {
        return Ok(());
    }
    let patience_s = TAKEN_OVER_WITHIN.as_secs();
    render::line(&format!("looking for {patience_s} s whether a daemon acts, which would let go of them"));
    let acts = remote.renews().await?;
    let patience = Instant::now() + LET_GO_WITHIN;
    while acts.is_some() && !left.is_empty() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(500)).await;
        left = still_there(remote, objects).await?;
    }
    left = still_there(remote, objects).await?;
    if let Some(who) = acts.filter(|_| !left.is_empty()) {
        bail!("{who} acts, and still gives back {} zones: see `zoneward status`, and run it again", left.len());
    }
    for object in &left {
        KubernetesStore::new(&remote.client).let_go(object).await?;
    }
    Ok(())
}

async fn still_there(remote: &Remote, objects: &[ZoneIsolation]) -> anyhow::Result<Vec<ZoneIsolation>> {
    let mut left = Vec::new();
    for object in objects {
        let now = remote.isolation(&object.name_any()).await?;
        left.extend(now.filter(|now| now.uid() == object.uid()));
    }
    Ok(left)
}
