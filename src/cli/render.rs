//! All that is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::domain::Record;
use crate::ports::{AuditError, AuditSink};

pub(super) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

pub(super) fn line(text: &str) {
    // A reader that went away, as `head` does, is no failure.
    let _closed = writeln!(std::io::stdout(), "{text}");
}

pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?);
    Ok(())
}

/// A note on standard error, beside the result.
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// Overwrites itself on a terminal, and says nothing elsewhere but its last word.
pub(super) fn progress(text: &str, last: bool) {
    let mut stderr = std::io::stderr();
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
    let row = |record: &Record| {
        vec![
            record.time.to_string(),
            record.event.to_string(),
            record.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
            record.message.clone(),
        ]
    };
    table(&["time", "event", "zone", "what"], records.iter().map(row).collect());
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
