//! Configuration: file and environment, read as it was written, then validated as a whole.

mod edition;
mod heal;
mod schema;
mod unwise;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{Mode, ServiceOverride, ServiceSettings, Services};
use crate::isolate::steps;
use crate::{audit, decide, detect, guard, kubernetes, notify, observe, pipeline, serve};

pub use schema::schema;
pub use unwise::Advice;

const ENVIRONMENT_PREFIX: &str = "ZONEWARD_";

/// The whole configuration; a struct of the stages' own settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub mode: Mode,
    pub prometheus: observe::Settings,
    pub detect: detect::Settings,
    pub guard: guard::Settings,
    pub isolate: decide::Settings,
    pub rollback: decide::RollbackSettings,
    pub recovery: decide::RecoverySettings,
    pub probes: Vec<observe::ProbeSettings>,
    pub drills: decide::DrillSettings,
    pub steps: steps::Settings,
    pub kubernetes: kubernetes::Settings,
    pub audit: audit::Settings,
    pub notify: notify::Settings,
    pub serve: serve::Settings,
    pub service: ServiceSettings,
    /// What differs for the services that a pattern names. Later entries win.
    pub services: Vec<ServiceOverride>,
}

/// One thing that is wrong in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where, such as `detect.cycle`.
    pub path: String,
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("the configuration can't be read")]
    Unreadable(#[from] config::ConfigError),
    #[error("the configuration has {} problem{}:\n  {}", .0.len(), if .0.len() == 1 { "" } else { "s" },
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Invalid(Vec<Problem>),
}

impl Settings {
    /// From a file, and over it from variables such as `ZONEWARD_PROMETHEUS__URL`. Reports every problem at once.
    pub fn load(file: Option<&Path>, environment: BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            builder = builder.add_source(config::File::from(path).format(config::FileFormat::Yaml));
        }
        let source = config::Environment::with_prefix("ZONEWARD")
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .source(Some(ours(environment).into_iter().collect()));
        let tree: serde_json::Value = builder.add_source(source).build()?.try_deserialize()?;
        let (mut settings, mut problems, removed): (Self, _, _) = heal::deserialize(tree);
        settings.hand_over();
        for mut found in settings.problems() {
            found.path = removed.in_file(&found.path);
            // A value that could not be read was replaced by its default: say only what was wrong with it.
            if !problems.iter().any(|known| known.path == found.path) {
                problems.push(found);
            }
        }
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError::Invalid(problems)) }
    }

    /// Gives each stage its part of what stands at the top.
    fn hand_over(&mut self) {
        let services = Services { usual: self.service.clone(), overrides: self.services.clone() };
        self.prometheus.services = services.clone();
        self.detect.services = services;
        self.prometheus.probes.clone_from(&self.probes);
        self.recovery.gradual = self.steps.share_traffic();
        self.guard.taints_nodes = self.steps.taint.is_some();
        self.guard.min_ready_elsewhere = self.steps.mesh_istio.as_ref().map_or(1, |step| step.min_ready_elsewhere);
    }

    fn problems(&self) -> Vec<Problem> {
        let of = |section: &'static str| {
            move |(key, problem): (String, String)| {
                let path = if key.is_empty() { section.to_owned() } else { format!("{section}.{key}") };
                Problem { path, problem }
            }
        };
        let of_list = |list: &'static str| {
            move |(at, problem): (String, String)| Problem { path: format!("{list}{at}"), problem }
        };
        let owned = |problems: Vec<(&'static str, String)>| problems.into_iter().map(|(k, p)| (k.to_owned(), p));
        let mut problems: Vec<Problem> = self.prometheus.problems().into_iter().map(of("prometheus")).collect();
        problems.extend(owned(self.detect.problems()).map(of("detect")));
        problems.extend(owned(self.guard.problems()).map(of("guard")));
        problems.extend(owned(self.isolate.problems()).map(of("isolate")));
        problems.extend(owned(self.rollback.problems()).map(of("rollback")));
        problems.extend(owned(self.recovery.problems()).map(of("recovery")));
        problems.extend(owned(self.drills.problems()).map(of("drills")));
        problems.extend(observe::ProbeSettings::problems(&self.probes).into_iter().map(of_list("probes")));
        problems.extend(owned(self.audit.problems()).map(of("audit")));
        problems.extend(owned(self.serve.problems()).map(of("serve")));
        problems.extend(self.steps.problems().into_iter().map(of("steps")));
        problems.extend(self.notify.problems().into_iter().map(of("notify")));
        let of_services = self.detect.services.problems().into_iter();
        problems.extend(of_services.map(|(path, problem)| Problem { path, problem }));
        if self.guard.unreachable_services == guard::Unreachable::Skip && self.steps.mesh_asm.is_some() {
            let problem = "skip is not for steps.mesh_asm, which leaves no service alone".to_owned();
            problems.push(Problem { path: "guard.unreachable_services".to_owned(), problem });
        }
        let (cycle, lookback) = (self.detect.cycle, self.prometheus.lookback);
        if lookback.signed() < cycle.signed() * 4 {
            let problem =
                format!("{lookback} is below four times detect.cycle ({cycle}): a late scrape would look new");
            problems.push(Problem { path: "prometheus.lookback".to_owned(), problem });
        }
        problems
    }

    pub fn pipeline(&self) -> pipeline::Settings {
        pipeline::Settings {
            detect: self.detect.clone(),
            decide: self.isolate.clone(),
            guard: self.guard.clone(),
            rollback: self.rollback.clone(),
            recovery: self.recovery.clone(),
            drills: self.drills.clone(),
            mode: self.mode,
        }
    }
}

/// Kubernetes puts `ZONEWARD_SERVICE_HOST` and its like into every pod beside a Service of our name: ours name a section
/// (two underscores), or the mode.
fn ours(environment: BTreeMap<String, String>) -> BTreeMap<String, String> {
    environment.into_iter().filter(|(name, _)| is_ours(name)).collect()
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(ENVIRONMENT_PREFIX).is_some_and(|rest| rest == "MODE" || rest.contains("__"))
}

/// Whether a file sets nothing: what an editor left behind, or a template that was never filled in.
pub fn sets_nothing(file: &Path) -> bool {
    let says_nothing = |line: &str| line.is_empty() || line.starts_with('#') || line == "---" || line == "...";
    std::fs::read_to_string(file).is_ok_and(|text| text.lines().map(str::trim).all(says_nothing))
}

/// Variables of our name that are neither settings, nor Kubernetes' own, nor the tests'.
pub fn unknown_variables(environment: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let known = |rest: &str| rest.starts_with("SERVICE_") || rest.starts_with("PORT") || rest == "PARTS";
    let unknown =
        move |name: &&str| !is_ours(name) && name.strip_prefix(ENVIRONMENT_PREFIX).is_some_and(|rest| !known(rest));
    environment.keys().map(String::as_str).filter(unknown)
}

/// Where the configuration is looked for when none is named.
pub fn default_file() -> Option<PathBuf> {
    [PathBuf::from("/etc/zoneward/config.yaml"), PathBuf::from("config/default.yaml")].into_iter().find(|p| p.exists())
}
