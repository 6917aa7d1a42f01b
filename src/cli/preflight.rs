//! `zoneward preflight`: if the zone were isolated now, what would move, what would not, and which guardrail says no.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::remote::{Remote, judge};
use super::{ConfigArguments, Outcome, Output, render};
use crate::domain::cluster::PodId;
use crate::domain::{ClusterView, Isolation, IsolationSpec, OperatorHold, Origin, Request, Share, StepName, Zone};
use crate::guard::{self, Situation};
use crate::isolate::KubernetesStore;
use crate::isolate::steps::drain_plan;
use crate::kubernetes::{explain, read};
use crate::ports::IsolationStore;
use crate::settings::Settings;

/// Pods and services named of many.
const SHOWN: usize = 12;

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
    step: &'static str,
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
    let sight = judge(&remote.settings, &cluster, now).await?;
    let situation = Situation {
        snapshot: &sight.snapshot,
        assessment: &sight.assessment,
        cluster: Some(&cluster),
        isolations: &isolations,
        holds: &holds,
        leads: true,
        acts: true,
    };
    let request = Request::of(&Isolation::new(String::new(), spec.clone(), now), now);
    let already =
        isolations.iter().any(|isolation| isolation.active() && isolation.spec.approved && isolation.zone() == zone);
    let outcomes = guard::examine(&situation, &request, &remote.settings.guard, now);
    let finding = sight.assessment.zones.get(zone);
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
        moves: moves(&remote.settings, &cluster, spec)?,
        left_alone: left_alone(&remote.settings, &cluster, spec),
    })
}

fn guardrail(name: &'static str, outcome: guard::Outcome) -> Guardrail {
    let (says, why) = match outcome {
        guard::Outcome::Passed => ("passes", String::new()),
        guard::Outcome::Held(reason) => ("NO", reason.to_string()),
        guard::Outcome::NotEvaluated => ("not evaluated", "what it needs is not there".to_owned()),
        guard::Outcome::Overridden(reason) => ("overridden", reason.to_string()),
    };
    Guardrail { name, says, why }
}

/// The configured steps that are asked for, each with what it would change.
fn moves(settings: &Settings, cluster: &ClusterView, spec: &IsolationSpec) -> anyhow::Result<Vec<Move>> {
    let mut moves = Vec::new();
    if let Some(mesh) = &settings.steps.mesh_istio {
        let plan = drain_plan(cluster, &spec.zone, spec.share, mesh.min_ready_elsewhere);
        let mut by_service: BTreeMap<String, usize> = BTreeMap::new();
        for pod in plan.drained.iter().filter_map(|id| cluster.pods.get(id)) {
            pod.services.iter().for_each(|service| *by_service.entry(service.to_string()).or_default() += 1);
        }
        let services: Vec<String> = by_service.iter().map(|(service, pods)| format!("{service} ({pods})")).collect();
        moves.push(Move { step: "mesh", what: format!("{} pods drained: {}", plan.drained.len(), named(&services)) });
    }
    if let Some(dns) = &settings.steps.dns_rfc2136 {
        for record in &dns.records {
            let addresses = record.addresses.get(&spec.zone).into_iter().flatten().map(ToString::to_string);
            let addresses: Vec<String> = addresses.collect();
            let what = if addresses.is_empty() {
                format!("{}: no address of the zone is configured", record.name)
            } else {
                format!("{} loses {}", record.name, addresses.join(", "))
            };
            moves.push(Move { step: "dns", what });
        }
    }
    if settings.steps.taint.is_some() {
        let nodes = cluster.nodes.iter().filter(|(_, node)| node.zone.as_ref() == Some(&spec.zone) && !node.exempt);
        let names: Vec<String> = nodes.map(|(name, _)| name.clone()).collect();
        moves.push(Move { step: "taint", what: format!("{} nodes take no new pods: {}", names.len(), named(&names)) });
    }
    let configured = |name: &StepName| moves.iter().any(|step| step.step == name.as_str());
    if let Some(unknown) = spec.only.iter().find(|name| !configured(name)) {
        let names: BTreeSet<&str> = moves.iter().map(|step| step.step).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        anyhow::bail!("no step `{unknown}` is configured; there are {names} (steps)");
    }
    moves.retain(|step| spec.only.is_empty() || spec.only.contains(&StepName::new(step.step)));
    Ok(moves)
}

fn left_alone(settings: &Settings, cluster: &ClusterView, spec: &IsolationSpec) -> Vec<LeftAlone> {
    let Some(mesh) = &settings.steps.mesh_istio else { return Vec::new() };
    let plan = drain_plan(cluster, &spec.zone, spec.share, mesh.min_ready_elsewhere);
    let mut by_reason: BTreeMap<String, Vec<&PodId>> = BTreeMap::new();
    plan.kept.iter().for_each(|(pod, why)| by_reason.entry(why.clone()).or_default().push(pod));
    let group =
        |(why, pods): (String, Vec<&PodId>)| LeftAlone { why, pods: pods.iter().map(ToString::to_string).collect() };
    by_reason.into_iter().map(group).collect()
}

fn named(names: &[String]) -> String {
    let more = if names.len() > SHOWN { format!(", and {} more", names.len() - SHOWN) } else { String::new() };
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    if shown.is_empty() { "none".to_owned() } else { format!("{}{more}", shown.join(", ")) }
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
            self.moves.iter().map(|m| vec![m.step.to_owned(), m.what.clone()]).collect(),
        );
        if !self.left_alone.is_empty() {
            let row = |left: &LeftAlone| vec![left.pods.len().to_string(), left.why.clone(), named(&left.pods)];
            render::table(&["pods", "left alone, as", "which"], self.left_alone.iter().map(row).collect());
        }
        render::line(match (self.already, self.held) {
            (true, _) => "there is a ZoneIsolation of it already: see `zoneward status`",
            (false, true) => "it would not be isolated",
            (false, false) => "it would be isolated",
        });
    }
}
