//! `zoneward check`: the configuration, and with `--connect` what Prometheus, the cluster and the name server have to show.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::{ConfigArguments, Outcome, Output, check_cluster, render};
use crate::domain::{CycleLength, Period, ServiceOverride, inert_name};
use crate::kubernetes;
use crate::observe::{Inspection, PrometheusObserver, ZoneFrom};
use crate::settings::{self, Settings, SettingsError};

const SHOWN_SERVICES: usize = 12;
/// Of the past, to know what is normal for each.
const TWO_ZONES_NEED: Period = Period::from_hours(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Also ask Prometheus, the cluster and the name server
    #[arg(long)]
    connect: bool,
    /// With --connect: the moment to look at, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = super::moment, requires = "connect")]
    at: Option<Timestamp>,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Problem,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    level: Level,
    what: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    pub(super) fn new(level: Level, what: &str, found: impl Into<String>) -> Self {
        Self { level, what: what.to_owned(), found: found.into(), hint: None }
    }

    /// A problem for later.
    pub(super) fn can_wait(&mut self) {
        if self.level == Level::Problem {
            self.level = Level::Warning;
            self.found = format!("{} (needed to act, not to observe)", self.found);
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let settings = match arguments.config.load(None) {
        Err(SettingsError::Invalid(problems)) if arguments.output == Output::Json => {
            for problem in &problems {
                render::json(&Finding::new(Level::Problem, &problem.path, &problem.problem))?;
            }
            return Err(SettingsError::Invalid(problems).into());
        }
        other => other?,
    };
    let source =
        arguments.config.file().map_or_else(|| "built-in defaults".to_owned(), |path| path.display().to_string());
    let mut findings = vec![match arguments.config.file() {
        Some(file) if settings::sets_nothing(&file) => {
            let found = format!("{source}: sets nothing, so all is by default");
            Finding::new(Level::Warning, "configuration", found).hint("config/default.yaml shows what can be set")
        }
        _ => Finding::new(Level::Ok, "configuration", format!("{source}: valid")),
    }];
    findings.extend(unwise(&settings));
    let configured = CycleLength::at_least(settings.detect.cycle);
    if let Err(error) = PrometheusObserver::new(settings.prometheus.clone(), configured) {
        findings.push(Finding::new(Level::Problem, "prometheus", format!("{:#}", anyhow::Error::from(error))));
    }
    if arguments.connect {
        findings.extend(connect(&settings, arguments.at.unwrap_or_else(super::now)).await?);
    }
    match arguments.output {
        Output::Json => findings.iter().try_for_each(render::json)?,
        Output::Table => render::table(
            &["", "what", "found"],
            findings
                .iter()
                .map(|f| {
                    let mark = match f.level {
                        Level::Ok => "ok",
                        Level::Warning => "warning",
                        Level::Problem => "PROBLEM",
                    };
                    let hint = f.hint.as_ref().map_or_else(String::new, |hint| format!("\n-> {hint}"));
                    vec![mark.to_owned(), f.what.clone(), format!("{}{hint}", f.found)]
                })
                .collect(),
        ),
    }
    let worst = findings.iter().map(|f| f.level).max();
    Ok(if worst == Some(Level::Problem) { Outcome::Found } else { Outcome::Done })
}

/// Legal, but unwise.
fn unwise(settings: &Settings) -> impl Iterator<Item = Finding> {
    let found = settings.unwise().into_iter();
    found.map(|advice| Finding::new(Level::Warning, &advice.path, advice.found).hint(advice.better))
}

async fn connect(settings: &Settings, at: Timestamp) -> anyhow::Result<Vec<Finding>> {
    let configured = CycleLength::at_least(settings.detect.cycle);
    let mut observer = PrometheusObserver::new(settings.prometheus.clone(), configured)?;
    if settings.prometheus.zone_from == ZoneFrom::Node
        && let Ok(client) = kubernetes::connect(&settings.kubernetes).await
        && let Ok(view) = kubernetes::read(&client, &settings.kubernetes).await
    {
        observer.learn_places(&view);
    }
    let inspection = match observer.inspect(at).await {
        Ok(inspection) => inspection,
        Err(error) => {
            let mut findings = vec![Finding::new(Level::Problem, "prometheus", error.to_string())];
            findings.extend(alertmanager(settings).await);
            findings.extend(check_cluster::connect(settings, &BTreeSet::new()).await);
            return Ok(findings);
        }
    };
    let mut findings = vec![Finding::new(Level::Ok, "prometheus", format!("{} answers", settings.prometheus.url))];
    findings.extend(
        inspection
            .warnings
            .iter()
            .map(|warning| Finding::new(Level::Warning, "prometheus", format!("warns: {warning}"))),
    );
    findings.extend(metrics(&inspection));
    findings.extend(nameless(&inspection, settings));
    findings.push(zones(&inspection, settings));
    findings.push(scrapes(&inspection, settings, configured));
    findings.push(match inspection.copies {
        0 => Finding::new(
            Level::Problem,
            "completeness",
            "`up` is not stored, so a lost zone can't be told from a quiet one",
        )
        .hint("let Prometheus store `up` with the labels of prometheus.labels.target"),
        1 => Finding::new(Level::Ok, "completeness", "`up` is stored, once for each target"),
        copies => Finding::new(Level::Problem, "completeness", format!("each target is stored {copies} times"))
            .hint("query a de-duplicating endpoint, or add the replica's label to prometheus.matchers"),
    });
    findings.extend(alertmanager(settings).await);
    let named = inspection.zones.iter().map(|(zone, _)| zone.clone()).filter(|z| !z.is_empty() && z != "unknown");
    findings.extend(check_cluster::connect(settings, &named.collect()).await);
    Ok(findings)
}

/// Isolating works without.
async fn alertmanager(settings: &Settings) -> Option<Finding> {
    let asked = settings.guard.silences.as_ref()?;
    let what = "guard.silences";
    Some(match crate::alertmanager::read(asked, super::now).await {
        Ok(silences) => {
            let found =
                format!("{} answers; silences that name zones: {}", asked.alertmanager, silences.of_zones.len());
            Finding::new(Level::Ok, what, found)
        }
        Err(error) => Finding::new(Level::Warning, what, error.to_string())
            .hint("planned maintenance holds no isolation until it answers"),
    })
}

fn metrics(inspection: &Inspection) -> Vec<Finding> {
    let requests = if inspection.services.is_empty() {
        Finding::new(Level::Problem, "istio_requests_total", "there is none").hint(
            "are the proxies scraped? do prometheus.matchers fit? are prometheus.labels.service and service_namespace \
             labels of the metric?",
        )
    } else {
        let count = inspection.services.len();
        let names: Vec<String> = inspection.services.iter().take(SHOWN_SERVICES).map(ToString::to_string).collect();
        let more = if count > SHOWN_SERVICES { ", …" } else { "" };
        Finding::new(Level::Ok, "istio_requests_total", format!("{count} services: {}{more}", names.join(", ")))
    };
    let durations = if inspection.duration_series == 0 {
        Finding::new(
            Level::Warning,
            "istio_request_duration_milliseconds",
            "there are no buckets: only errors are judged",
        )
        .hint("let the proxies export the histogram, and Prometheus keep it")
    } else {
        Finding::new(
            Level::Ok,
            "istio_request_duration_milliseconds",
            format!("{} bucket series", inspection.duration_series),
        )
    };
    vec![requests, durations]
}

/// Patterns that name no service that is there: misspelt, most likely.
fn nameless(inspection: &Inspection, settings: &Settings) -> Vec<Finding> {
    let names_none = |entry: &&ServiceOverride| !inspection.services.iter().any(|it| entry.pattern.matches(it));
    let said = |(i, entry): (usize, &ServiceOverride)| {
        let found = format!("`{}` names none of the {} services", entry.pattern, inspection.services.len());
        Finding::new(Level::Warning, &format!("services[{i}].match"), found)
            .hint("a glob over namespace/name, as istio_requests_total has them")
    };
    settings.services.iter().enumerate().filter(|(_, entry)| names_none(entry)).map(said).collect()
}

fn zones(inspection: &Inspection, settings: &Settings) -> Finding {
    let label = &settings.prometheus.labels.zone;
    let looked_up = settings.prometheus.zone_from == ZoneFrom::Node;
    let total: f64 = inspection.zones.iter().map(|(_, rate)| rate).sum();
    let what = if looked_up { "zones of pods".to_owned() } else { format!("zone label `{label}`") };
    if inspection.zones.is_empty() {
        return Finding::new(Level::Warning, &what, "not known yet: there are fewer than two samples of any series")
            .hint("look again after two scrapes");
    }
    let (unnamed, named): (Vec<_>, Vec<_>) =
        inspection.zones.iter().partition(|(zone, _)| zone.is_empty() || zone == "unknown");
    let names: Vec<String> = named
        .iter()
        .map(|(zone, rate)| {
            format!("{} ({:.0} % of {total:.0} reports/s)", inert_name(zone), 100.0 * rate / total.max(1e-9))
        })
        .collect();
    let missing: f64 = unnamed.iter().map(|(_, rate)| rate).sum();
    let how = if looked_up {
        "the cluster must know the pods of the metrics: do prometheus.labels.target name their namespace and name?"
    } else {
        "add the tag xds.node.locality.zone by a Telemetry resource (filled on ASM, AWS, GCP and Azure), or the \
               node's zone by relabelling (attach_metadata: {node: true}), or let the daemon look it up (prometheus.zone_from: node), or name another label in prometheus.labels.zone"
    };
    match named.len() {
        0 => Finding::new(Level::Problem, &what, "empty on every series").hint(how),
        1 => Finding::new(Level::Problem, &what, format!("only one zone: {}", names.join(", ")))
            .hint("two zones are needed to compare"),
        _ if missing > 0.01 * total => Finding::new(
            Level::Warning,
            &what,
            format!("{}; empty on {:.0} % of reports", names.join(", "), 100.0 * missing / total),
        )
        .hint(how),
        2 if settings.prometheus.history < TWO_ZONES_NEED => {
            let found =
                format!("two zones: {}, and prometheus.history is {}", names.join(", "), settings.prometheus.history);
            Finding::new(Level::Warning, &what, found)
                .hint(format!("between two zones only the past tells which one moved: at least {TWO_ZONES_NEED}"))
        }
        _ => Finding::new(Level::Ok, &what, names.join(", ")),
    }
}

fn scrapes(inspection: &Inspection, settings: &Settings, configured: CycleLength) -> Finding {
    let what = "scrape interval";
    let Some(interval) = inspection.scrape_interval else {
        return Finding::new(Level::Warning, what, "can't be measured, as there are too few samples");
    };
    let cycle = configured.max(CycleLength::at_least(interval));
    let lookback = settings.prometheus.lookback;
    let soonest = crate::domain::Period::from_secs(2 * cycle.seconds());
    if interval.signed() * 4 > lookback.signed() {
        Finding::new(Level::Problem, what, format!("{interval}, too long for prometheus.lookback of {lookback}"))
            .hint(format!("set prometheus.lookback to at least {}s", 4 * interval.signed().as_secs()))
    } else if cycle > configured {
        Finding::new(Level::Warning, what, format!("{interval}, longer than detect.cycle of {configured}")).hint(
            format!(
                "judging every {cycle} instead; a fault needs at least two scrapes, so expect {soonest} at the soonest"
            ),
        )
    } else {
        Finding::new(Level::Ok, what, format!("{interval}; a fault is decided on after {soonest} at the soonest"))
    }
}
