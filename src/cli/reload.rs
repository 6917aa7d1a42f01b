//! Hot reload: a new edition of the configuration file takes effect within a cycle; one that is wrong changes nothing.

use std::path::PathBuf;

use super::ConfigArguments;
use crate::domain::{Event, Record};
use crate::settings::{Settings, SettingsError};

/// Looks whether the file has changed. Its text is compared, as a `ConfigMap`'s files are replaced, not written.
pub(super) struct Reload {
    arguments: ConfigArguments,
    /// What the command line says goes over every edition.
    audit_directory: Option<PathBuf>,
    file: Option<PathBuf>,
    text: Option<Vec<u8>>,
    /// Whether the newest edition was refused.
    refused: bool,
}

impl Reload {
    pub(super) fn new(arguments: ConfigArguments, audit_directory: Option<PathBuf>) -> Self {
        let file = arguments.file();
        let text = file.as_ref().and_then(|file| std::fs::read(file).ok());
        Self { arguments, audit_directory, file, text, refused: false }
    }

    /// The edition that is there now.
    pub(super) fn load(&self) -> Result<Settings, SettingsError> {
        let mut settings = self.arguments.load(None)?;
        if let Some(directory) = &self.audit_directory {
            settings.audit.directory.clone_from(directory);
        }
        Ok(settings)
    }

    /// Takes a new edition over, if there is one; what came of it is for the record.
    pub(super) fn look(&mut self, settings: &mut Settings, now: jiff::Timestamp) -> Option<Record> {
        let file = self.file.clone()?;
        // While the file is being replaced there may be none.
        let text = std::fs::read(&file).ok()?;
        // While it is being written it may be empty, which would be an edition of nothing but defaults.
        if text.trim_ascii().is_empty() || self.text.as_ref() == Some(&text) {
            return None;
        }
        self.text = Some(text);
        let after_refusal = std::mem::replace(&mut self.refused, false);
        let newer = match self.load() {
            Ok(newer) => newer,
            Err(error) => {
                self.refused = true;
                let why = format!("{:#}", anyhow::Error::from(error));
                let message = format!("{} is not taken over, and the earlier edition stays: {why}", file.display());
                tracing::error!("{message}");
                return Some(Record::new(now, Event::ConfigurationRefused, message));
            }
        };
        let changes = settings.adopt(newer);
        let unchanged = changes.adopted.is_empty() && changes.at_next_start.is_empty();
        if unchanged && !after_refusal {
            return None;
        }
        let what = if changes.adopted.is_empty() && after_refusal {
            "nothing new, it is as before the edition that was refused".to_owned()
        } else {
            listed(&changes.adopted)
        };
        let mut message = format!("{} is taken over: {what}", file.display());
        if !changes.at_next_start.is_empty() {
            message += &format!("; only a start takes over {}", listed(&changes.at_next_start));
        }
        tracing::warn!("{message}");
        Some(Record::new(now, Event::ConfigurationChanged, message))
    }
}

fn listed(paths: &[String]) -> String {
    if paths.is_empty() { "nothing".to_owned() } else { paths.join(", ") }
}
