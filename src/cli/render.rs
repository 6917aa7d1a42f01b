//! All that is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use jiff::SignedDuration;
use serde::Serialize;

use crate::domain::{Record, Zone, inert, inert_json};
use crate::ports::{AuditError, AuditSink};
use crate::sim::ZoneSight;

pub(super) fn error(error: &anyhow::Error) {
    eprintln!("error: {}", inert(&format!("{error:#}")));
}

pub(super) fn line(text: &str) {
    // A reader that went away, as `head` does, is no failure.
    let _closed = writeln!(std::io::stdout(), "{}", inert(text));
}

pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&inert_json(serde_json::to_string(value)?));
    Ok(())
}

/// A note on standard error, beside the result.
pub(super) fn note(text: &str) {
    eprintln!("{}", inert(text));
}

/// Overwrites itself on a terminal, and says nothing elsewhere but its last word.
pub(super) fn progress(text: &str, last: bool) {
    let (mut stderr, text) = (std::io::stderr(), inert(text));
    if stderr.is_terminal() {
        let _closed = write!(stderr, "\r\x1b[2K{text}{}", if last { "\n" } else { "" });
        let _closed = stderr.flush();
    } else if last {
        eprintln!("{text}");
    }
}

pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    if !std::io::stdout().is_terminal() {
        table.set_width(160);
    }
    table.add_rows(rows);
    line(&table.to_string());
}

pub(super) fn records(records: &[Record]) {
    table(&["time", "event", "zone", "what"], records.iter().map(row).collect());
}

pub(super) fn row(record: &Record) -> Vec<String> {
    vec![
        record.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        record.event.to_string(),
        record.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        record.message.clone(),
    ]
}

/// Prints each record as it comes, as a line of JSON, or keeps it for a table.
#[derive(Debug, Default)]
pub(super) struct RecordPrinter {
    keep: bool,
    kept: Mutex<Vec<Record>>,
}

impl RecordPrinter {
    pub(super) fn new(output: super::Output) -> Self {
        Self { keep: output == super::Output::Table, kept: Mutex::default() }
    }

    pub(super) fn kept(&self) -> Vec<Record> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Prints nothing: for judgements that are shown otherwise.
pub(super) struct Silent;

#[async_trait]
impl AuditSink for Silent {
    async fn append(&self, _: Record) -> Result<(), AuditError> {
        Ok(())
    }
}

#[async_trait]
impl AuditSink for RecordPrinter {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        if self.keep {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        } else {
            json(&record).map_err(std::io::Error::other)?;
        }
        Ok(())
    }
}

/// A block of lines that is drawn over itself, with a story that grows above it. Only on a terminal.
#[derive(Debug, Default)]
pub(super) struct LiveView {
    drawn: usize,
    last: String,
}

impl LiveView {
    pub(super) fn draw(&mut self, text: &str) {
        if std::io::stdout().is_terminal() {
            self.erase();
            // A line that wraps would take two, and the next frame would erase too few.
            let width = terminal_width();
            let clipped: Vec<String> = text.lines().map(|line| line.chars().take(width).collect()).collect();
            line(&clipped.join("\n"));
            self.drawn = clipped.len();
            text.clone_into(&mut self.last);
        }
    }

    pub(super) fn say(&mut self, text: &str) {
        self.erase();
        line(text);
        if !self.last.is_empty() {
            let last = self.last.clone();
            self.draw(&last);
        }
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            let _closed = write!(std::io::stdout(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

fn terminal_width() -> usize {
    Table::new().set_content_arrangement(ContentArrangement::Dynamic).width().map_or(110, usize::from)
}

/// `+02:15`, from the story's start.
fn clock(story_time: SignedDuration) -> String {
    let seconds = story_time.as_secs();
    format!("+{:02}:{:02}", seconds / 60, seconds % 60)
}

pub(super) fn story_line(story_time: SignedDuration, record: &Record) -> String {
    let text = format!("{:<9} {}", record.event, record.message);
    let wrapped = wrap(&text, terminal_width().clamp(60, 140) - 8);
    let mut lines = wrapped.into_iter();
    let first = format!("{}  {}", clock(story_time), lines.next().unwrap_or_default());
    lines.fold(first, |all, line| format!("{all}\n{:18}{line}", ""))
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        if let Some(line) = lines.last_mut().filter(|line| line.len() + word.len() <= width || line.is_empty()) {
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// The zones at a glance: traffic, failures, and what the steps have changed.
pub(super) fn world(story_time: SignedDuration, users: f64, sights: &[ZoneSight], isolated: &[Zone]) -> String {
    const BAR: usize = 16;
    let most = sights.iter().map(|s| s.requests_per_second).fold(1.0, f64::max);
    let mut text = format!(
        "\n{}   of users' requests over the last minute, {:.2} % succeeded\n",
        clock(story_time),
        100.0 * users
    );
    for sight in sights {
        let full = (sight.requests_per_second / most * BAR as f64).round() as usize;
        let changes = [
            (sight.draining_pods > 0).then(|| format!("{}/{} pods drained", sight.draining_pods, sight.pods)),
            (!sight.in_dns).then(|| "not in DNS".to_owned()),
            (sight.tainted_nodes > 0).then(|| format!("{} nodes tainted", sight.tainted_nodes)),
        ];
        let changes: Vec<String> = changes.into_iter().flatten().collect();
        let failing = if sight.requests_per_second > 0.0 {
            format!("{:>5.1} % fail", 100.0 * sight.failed_ratio)
        } else {
            format!("{:>12}", "-")
        };
        let state = if isolated.contains(&sight.zone) { "ISOLATED" } else { "in use" };
        text += &format!(
            "  {:<16} {}{} {:>4.0} req/s {failing} {state:<8} {}\n",
            sight.zone,
            "█".repeat(full),
            "·".repeat(BAR - full),
            sight.requests_per_second,
            changes.join(", ")
        );
    }
    text
}
