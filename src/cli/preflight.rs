//! `zoneward preflight`: if the zone were isolated now, what would move, what would not, and which guardrail says no.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::remote::{Remote, judge, silences};
use super::{ConfigArguments, Outcome, Output, render};
use crate::domain::{ClusterView, Isolation, IsolationSpec, OperatorHold, Origin, Request, Share, StepName, Zone};
use crate::guard::{self, Situation};
use crate::isolate::KubernetesStore;
use crate::isolate::steps::{self, Look, some_of};
use crate::kubernetes::{explain, read, read_pause};
use crate::ports::IsolationStore;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    zone: String,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let remote = Remote::connect(&arguments.config).await?;
    let now = super::now();
    let spec = IsolationSpec {
        zone: Zone::new(arguments.zone),
        origin: Origin::Operator,
        reason: String::new(),
        evidence: Vec::new(),
        expires_at: now + remote.settings.isolate.expires_after.signed(),
        share: Share::NONE,
        only: BTreeSet::new(),
        overrides: BTreeSet::new(),
        approved: true,
    };
    examine(&remote, &spec, now).await?.print(arguments.output)
}

/// What an isolation would meet.
#[derive(Debug, Serialize)]
pub(super) struct Preflight {
    zone: Zone,
    verdict: String,
    /// Whether there is an isolation of it already.
    already: bool,
    /// Whether a guardrail says no.
    held: bool,
    guardrails: Vec<Guardrail>,
    moves: Vec<Move>,
    left_alone: Vec<LeftAlone>,
}

#[derive(Debug, Serialize)]
struct Guardrail {
    name: &'static str,
    says: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

#[derive(Debug, Serialize)]
struct Move {
    step: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct LeftAlone {
    why: String,
    pods: Vec<String>,
}

pub(super) async fn examine(remote: &Remote, spec: &IsolationSpec, now: Timestamp) -> anyhow::Result<Preflight> {
    let zone = &spec.zone;
    let cluster = read(&remote.client, &remote.settings.kubernetes)
        .await
        .map_err(|error| anyhow::anyhow!("the cluster can't be read: {}", explain(&error)))?;
    let store = KubernetesStore::new(&remote.client);
    let isolations: Vec<Isolation> = store.list().await.context("ZoneIsolations")?;
    let holds: BTreeMap<Zone, OperatorHold> = store.holds().await.context("Zones")?;
    let pause = read_pause(&remote.client, now).await;
    let silences = silences(&remote.settings).await;
    let sight = judge(&remote.settings, &cluster, now).await?;
    let situation = Situation {
        snapshot: &sight.snapshot,
        assessment: &sight.assessment,
        cluster: Some(&cluster),
        isolations: &isolations,
        holds: &holds,
        pause: &pause,
        silences: &silences,
        leads: true,
        acts: true,
    };
    let request = Request::of(&Isolation::new(String::new(), spec.clone(), now), now);
    let already =
        isolations.iter().any(|isolation| isolation.active() && isolation.spec.approved && isolation.zone() == zone);
    let outcomes = guard::examine(&situation, &request, &remote.settings.guard, now);
    let finding = sight.assessment.zones.get(zone);
    let (moves, left_alone) = previews(remote, &cluster, spec).await?;
    Ok(Preflight {
        zone: zone.clone(),
        verdict: finding.map_or_else(
            || "not judged".to_owned(),
            |finding| {
                let evidence = finding.evidence.first().map_or_else(String::new, |evidence| format!(": {evidence}"));
                format!("{}{evidence}", finding.verdict.as_str())
            },
        ),
        already,
        held: outcomes.iter().any(|(_, outcome)| matches!(outcome, guard::Outcome::Held(_))),
        guardrails: outcomes.into_iter().map(|(name, outcome)| guardrail(name, outcome)).collect(),
        moves,
        left_alone,
    })
}

fn guardrail(name: &'static str, outcome: guard::Outcome) -> Guardrail {
    let (says, why) = match outcome {
        guard::Outcome::Passed => ("passes", String::new()),
        guard::Outcome::Held(reason) => ("NO", reason.to_string()),
        guard::Outcome::Warned(reason) => ("warns", reason.to_string()),
        guard::Outcome::NotEvaluated => ("not evaluated", "what it needs is not there".to_owned()),
        guard::Outcome::Overridden(reason) => ("overridden", reason.to_string()),
    };
    Guardrail { name, says, why }
}

/// The configured steps that are asked for, each with what it would change, and what none of them would touch.
async fn previews(
    remote: &Remote,
    cluster: &ClusterView,
    spec: &IsolationSpec,
) -> anyhow::Result<(Vec<Move>, Vec<LeftAlone>)> {
    let cluster = cluster.clone();
    let look: Arc<Look> = Arc::new(move || Ok(cluster.clone()));
    let steps = steps::steps(&remote.settings.steps, &remote.client, &look);
    let names: Vec<StepName> = steps.iter().map(|step| step.name()).collect();
    if let Some(unknown) = spec.only.iter().find(|name| !names.contains(name)) {
        let names = names.iter().map(StepName::as_str).collect::<Vec<_>>().join(", ");
        anyhow::bail!("no step `{unknown}` is configured; there are {names} (steps)");
    }
    let (mut moves, mut left_alone) = (Vec::new(), Vec::new());
    for step in steps.iter().filter(|step| spec.only.is_empty() || spec.only.contains(&step.name())) {
        let name = step.name().to_string();
        match step.preview(&spec.zone, spec.share).await {
            Ok(preview) => {
                moves.extend(preview.changes.into_iter().map(|what| Move { step: name.clone(), what }));
                left_alone.extend(preview.left_alone.into_iter().map(|(why, pods)| LeftAlone { why, pods }));
            }
            Err(error) => moves.push(Move { step: name, what: format!("can't be told: {error}") }),
        }
    }
    Ok((moves, left_alone))
}

impl Preflight {
    /// Whether a guardrail says no is the outcome.
    pub(super) fn print(&self, output: Output) -> anyhow::Result<Outcome> {
        match output {
            Output::Json => render::json(self)?,
            Output::Table => self.tables(),
        }
        Ok(if self.held || self.already { Outcome::Found } else { Outcome::Done })
    }

    fn tables(&self) {
        render::line(&format!("{}: {}", self.zone, self.verdict));
        let rows = self.guardrails.iter().map(|g| vec![g.says.to_owned(), g.name.to_owned(), g.why.clone()]).collect();
        render::table(&["", "guardrail", "why"], rows);
        render::table(
            &["step", "what would change"],
            self.moves.iter().map(|m| vec![m.step.clone(), m.what.clone()]).collect(),
        );
        if !self.left_alone.is_empty() {
            let row = |left: &LeftAlone| vec![left.pods.len().to_string(), left.why.clone(), some_of(&left.pods)];
            render::table(&["pods", "left alone, as", "which"], self.left_alone.iter().map(row).collect());
        }
        render::line(match (self.already, self.held) {
            (true, _) => "there is a ZoneIsolation of it already: see `zoneward status`",
            (false, true) => "it would not be isolated",
            (false, false) => "it would be isolated",
        });
    }
}
