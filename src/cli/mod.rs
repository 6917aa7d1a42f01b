//! The command line: one file a command; only `render` prints.

mod acknowledge;
mod audit;
mod backtest;
mod check;
mod check_cluster;
mod cluster;
mod completions;
mod crd;
mod demo;
mod health;
mod isolate;
mod past;
mod pause;
mod preflight;
mod record;
mod reload;
mod remote;
mod render;
mod report;
mod restore;
mod run;
mod schema;
mod shown;
mod status;

pub use check_cluster::needed_rights;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::settings::{self, Settings, SettingsError};
use crate::telemetry::{self, LogFormat};

/// Detects gray availability-zone failures from Istio's metrics, and isolates the sick zone by reversible steps.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// Those of this process. Called `kubectl-zoneward` it is a plugin of kubectl, and names itself so.
    pub fn of_process() -> Self {
        let called = std::env::args_os().next().map(PathBuf::from);
        let is_plugin = called.is_some_and(|path| path.file_stem().is_some_and(|name| name == "kubectl-zoneward"));
        let command = Self::command();
        let command = if is_plugin { command.bin_name("kubectl zoneward") } else { command };
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed, or (check, preflight, audit verify, audit replay, demo) found something wrong
  2  the command line is wrong
  3  the configuration is wrong";

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch a mesh: poll, judge, put every change of mind on record, and act as far as `mode` lets it.
    Run(run::Arguments),
    /// Isolate a zone by hand, by the same guardrails and steps.
    Isolate(isolate::Arguments),
    /// Isolate a healthy zone for a while, to know that the others bear it; broken off when they do not.
    Drill(isolate::DrillArguments),
    /// Let an isolation that was recommended begin.
    Approve(isolate::ApproveArguments),
    /// Give a zone back, or all by the marks alone.
    Restore(restore::Arguments),
    /// Reset the spent budget of a zone, or of all: a person has looked at what was isolated.
    Acknowledge(acknowledge::Arguments),
    /// Stop all that zoneward does by itself, within a cycle; what is out stays so.
    Pause(pause::Arguments),
    /// End a pause.
    Resume(pause::ResumeArguments),
    /// Show zones and isolations.
    Status(status::Arguments),
    /// Say what isolating a zone now would change, and what speaks against it.
    Preflight(preflight::Arguments),
    /// Print the custom resource definitions, for `kubectl apply -f -`.
    Crd,
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print what a shell needs to complete commands and options.
    Completions(completions::Arguments),
    /// Check the configuration, and with --connect Prometheus, the cluster and the name server.
    Check(check::Arguments),
    /// Judge a past stretch, as `run` would have.
    Backtest(backtest::Arguments),
    /// Save a past stretch to a file, for `backtest --recording`.
    Record(record::Arguments),
    /// Watch a gray failure from onset to return in an embedded world.
    Demo(demo::Arguments),
    /// List the audit journal, verify that it is whole, tell its decisions, and make them again.
    Audit(audit::Arguments),
}

#[derive(Debug, Clone, clap::Args)]
struct ConfigArguments {
    /// Configuration file; variables such as `ZONEWARD_PROMETHEUS__URL` go over it
    /// [default: /etc/zoneward/config.yaml, else config/default.yaml, else built-in defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArguments {
    fn load(&self, url: Option<&str>) -> Result<Settings, SettingsError> {
        let mut environment: std::collections::BTreeMap<String, String> = std::env::vars().collect();
        if let Some(url) = url {
            environment.insert("ZONEWARD_PROMETHEUS__URL".to_owned(), url.to_owned());
        }
        for name in settings::unknown_variables(&environment) {
            tracing::warn!("the variable {name} is ignored: settings are named as ZONEWARD_PROMETHEUS__URL is");
        }
        Settings::load(self.file().as_deref(), environment)
    }

    /// The file that is read, if any.
    fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(settings::default_file)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// JSON, one object a line where there are several.
    Json,
}

/// What a command came to, other than an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It ran, and found something wrong.
    Found,
}

/// Runs one command; an error is printed with its causes.
pub async fn run(arguments: Arguments) -> ExitCode {
    let (format, level) = match &arguments.command {
        Command::Run(run) => (run.log_format(), "info"),
        Command::Isolate(_)
        | Command::Drill(_)
        | Command::Approve(_)
        | Command::Restore(_)
        | Command::Acknowledge(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Status(_)
        | Command::Preflight(_)
        | Command::Crd
        | Command::Check(_)
        | Command::Backtest(_)
        | Command::Record(_)
        | Command::Demo(_)
        | Command::Schema
        | Command::Completions(_)
        | Command::Audit(_) => (LogFormat::Text, "warn"),
    };
    telemetry::init_logs(format, level);
    let result = match arguments.command {
        Command::Run(arguments) => Box::pin(run::run(arguments)).await,
        Command::Isolate(arguments) => isolate::run(arguments).await,
        Command::Drill(arguments) => isolate::drill(arguments).await,
        Command::Approve(arguments) => isolate::approve(arguments).await,
        Command::Restore(arguments) => restore::run(arguments).await,
        Command::Acknowledge(arguments) => acknowledge::run(arguments).await,
        Command::Pause(arguments) => pause::run(arguments).await,
        Command::Resume(arguments) => pause::resume(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Preflight(arguments) => preflight::run(arguments).await,
        Command::Crd => crd::run(),
        Command::Schema => schema::run(),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Check(arguments) => check::run(arguments).await,
        Command::Backtest(arguments) => backtest::run(arguments).await,
        Command::Record(arguments) => record::run(arguments).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Audit(arguments) => audit::run(&arguments).await,
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(1),
        Err(error) => {
            render::error(&error);
            ExitCode::from(if error.downcast_ref::<SettingsError>().is_some() { 3 } else { 1 })
        }
    }
}

/// A moment, or the beginning of a day in UTC.
fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()).map_err(|_| {
        format!("`{text}` is not a moment: write one such as 2026-11-01T00:00:00Z, or a day such as 2026-11-01")
    })
}

/// The one clock that commands read.
#[allow(clippy::disallowed_methods, reason = "an edge: from here on it is an argument")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Returns when the process is asked to stop, from the call on.
fn shutdown() -> impl Future<Output = ()> {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    async move {
        let mut terminate = match terminate {
            Ok(signal) => signal,
            Err(error) => {
                tracing::warn!(%error, "SIGTERM can't be awaited");
                return std::future::pending().await;
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}
