//! `zoneward audit`: list and filter the journal, verify its chain, tell a decision, and make it again.

mod replay;
mod report;
mod show;

use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;

use super::{ConfigArguments, Outcome, Output, moment, render};
use crate::audit::{self, Entry, Source, Verified};
use crate::domain::{Event, Record};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where the journal is: its directory, one of its files, or - for standard input, where other lines may be among its
    /// own, as in a log [default: audit.directory]
    #[arg(long, alias = "directory", value_name = "PATH", global = true)]
    from: Option<PathBuf>,
    /// Only entries from then on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only entries up to then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only entries of this zone
    #[arg(long)]
    zone: Option<String>,
    /// Only entries such as isolate,blocked
    #[arg(long, value_delimiter = ',', value_parser = event)]
    event: Vec<Event>,
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that no entry was changed, left out or put in.
    Verify,
    /// Tell a decision: what was seen, the verdict, each guardrail, and what was then done.
    Show {
        /// As it is listed; its first digits do, if no other begins so
        id: String,
    },
    /// Write a stretch as one web page, for the post-mortem: every story with its evidence, steps, effect and recovery.
    Report {
        /// First moment, RFC 3339 [default: that of the oldest entry]
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<Timestamp>,
        /// Last moment [default: that of the newest entry]
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<Timestamp>,
        /// Of this zone alone
        #[arg(long)]
        zone: Option<String>,
        /// The page to write
        #[arg(value_name = "FILE.html")]
        file: PathBuf,
    },
    /// Decide again, from what was kept of a decision, and say whether the same comes of it, byte by byte.
    Replay {
        /// As it is listed; its first digits do, if no other begins so
        id: String,
    },
}

pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let source = match &arguments.from {
        Some(path) => Source::of(path),
        None => Source::of(&arguments.config.load(None)?.audit.directory),
    };
    match &arguments.command {
        Some(Command::Verify) => verify(&source, arguments.output),
        Some(Command::Show { id }) => show::show(&read(&source)?, id, arguments.output),
        Some(Command::Report { since, until, zone, file }) => {
            report::write(&source, &read(&source)?, (*since, *until), zone.as_deref(), file)
        }
        Some(Command::Replay { id }) => replay::replay(&source, &read(&source)?, id, arguments.output).await,
        None => arguments.list(&source),
    }
}

/// An entry as it is listed.
#[derive(Serialize)]
pub(super) struct Listed<'a> {
    id: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

impl<'a> Listed<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self { id: entry.id(), record: &entry.record }
    }
}

impl Arguments {
    fn list(&self, source: &Source) -> anyhow::Result<Outcome> {
        let entries = read(source)?;
        let all = entries.len();
        let entries: Vec<&Entry> = entries.iter().filter(|entry| self.wants(entry)).collect();
        if entries.is_empty() {
            render::note(&format!("none of {all} entries is as asked for"));
        }
        match self.output {
            Output::Json => entries.iter().try_for_each(|entry| render::json(&Listed::of(entry)))?,
            Output::Table => {
                let row = |entry: &&Entry| [vec![entry.id().to_owned()], render::row(&entry.record)].concat();
                render::table(&["id", "time", "event", "zone", "what"], entries.iter().map(row).collect());
            }
        }
        Ok(Outcome::Done)
    }

    fn wants(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
            && self.zone.as_deref().is_none_or(|zone| record.zone.as_ref().is_some_and(|z| z.as_str() == zone))
            && (self.event.is_empty() || self.event.contains(&record.event))
    }
}

/// All entries; that other lines were passed over is said.
fn read(source: &Source) -> anyhow::Result<Vec<Entry>> {
    let (entries, others) = audit::read(source)?;
    if others > 0 {
        render::note(&format!("{others} other lines were passed over"));
    }
    Ok(entries)
}

fn event(name: &str) -> Result<Event, String> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|error| error.to_string())
}

fn verify(source: &Source, output: Output) -> anyhow::Result<Outcome> {
    let result = audit::verify(source);
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
            "whole": true, "segments": verified.segments, "entries": verified.entries, "torn": verified.torn,
            "retired": verified.retired > 0, "loose": verified.loose, "other_lines": verified.others
        }))?,
        Output::Table => in_words(&verified).iter().for_each(|text| render::line(text)),
    }
    Ok(Outcome::Done)
}

fn in_words(verified: &Verified) -> Vec<String> {
    let Verified { segments, entries, torn, retired, loose, others } = verified;
    let mut text = vec![format!("whole: {entries} entries in {segments} segments")];
    text.extend(
        torn.iter()
            .map(|segment| format!("{segment}: its last line is incomplete; the process was stopped while writing")),
    );
    if *retired > 0 {
        text.push("what was before the oldest entry was retired, as is on record".to_owned());
    }
    text.extend(
        loose.iter().map(|at| format!("{at}: what it continues is not there, so nothing is known of what was before")),
    );
    if *others > 0 {
        text.push(format!("{others} other lines were passed over"));
    }
    text
}
