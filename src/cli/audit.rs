//! `zoneward audit`: list and filter the journal, or verify its chain.

use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp;

use super::{ConfigArguments, Outcome, Output, render};
use crate::audit::{self, Entry};
use crate::domain::Event;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where the journal is [default: audit.directory]
    #[arg(long, value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Only entries from then on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    since: Option<Timestamp>,
    #[arg(long)]
    zone: Option<String>,
    /// Such as isolate or blocked
    #[arg(long, value_parser = event)]
    event: Option<Event>,
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that no entry was changed, left out or put in.
    Verify,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let directory = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => arguments.config.load(None)?.audit.directory,
    };
    match arguments.command {
        Some(Command::Verify) => verify(&directory, arguments.output),
        None => {
            let entries: Vec<Entry> = audit::read(&directory)?.into_iter().filter(|e| arguments.wants(e)).collect();
            match arguments.output {
                Output::Json => entries.iter().try_for_each(|entry| render::json(&entry.record))?,
                Output::Table => render::records(&entries.into_iter().map(|e| e.record).collect::<Vec<_>>()),
            }
            Ok(Outcome::Done)
        }
    }
}

impl Arguments {
    fn wants(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        self.since.is_none_or(|since| record.time >= since)
            && self.zone.as_deref().is_none_or(|zone| record.zone.as_ref().is_some_and(|z| z.as_str() == zone))
            && self.event.is_none_or(|event| record.event == event)
    }
}

fn event(name: &str) -> Result<Event, String> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|error| error.to_string())
}

fn verify(directory: &std::path::Path, output: Output) -> anyhow::Result<Outcome> {
    let result = audit::verify(directory);
    if let Err(error @ audit::ReviewError::Broken { .. }) = &result {
        match output {
            Output::Json => render::json(&serde_json::json!({"whole": false, "problem": error.to_string()}))?,
            Output::Table => render::line(&format!("broken: {error}")),
        }
        return Ok(Outcome::Found);
    }
    let verified = result?;
    match output {
        Output::Json => render::json(&serde_json::json!({
            "whole": true, "segments": verified.segments, "entries": verified.entries, "torn": verified.torn
        }))?,
        Output::Table => {
            render::line(&format!("whole: {} entries in {} segments", verified.entries, verified.segments));
            for segment in verified.torn {
                render::line(&format!("{segment}: its last line is incomplete; the process was stopped while writing"));
            }
        }
    }
    Ok(Outcome::Done)
}
