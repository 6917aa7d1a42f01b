//! Asks an Alertmanager for its silences. What can't be asked stops nothing.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::silence::{Silence, SilencedZones};
use crate::domain::{Silences, Zone};
use crate::guard::SilencesSettings;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Of one answer: some thousands of silences.
const MOST_BYTES: usize = 8 << 20;
const SHOWN_CHARS: usize = 200;

#[derive(Debug, Error)]
pub enum SilencesError {
    #[error("{path} can't be read ({setting}): {source}")]
    File { setting: &'static str, path: String, source: std::io::Error },
    #[error("{setting}: {why}")]
    Invalid { setting: &'static str, why: String },
    #[error("{url} does not answer (guard.silences.alertmanager): {why}")]
    Unreachable { url: String, why: String },
    #[error("{url} answers {status} (guard.silences.alertmanager): {text}")]
    Refused { url: String, status: u16, text: String },
    #[error("{url} does not answer as an Alertmanager does (guard.silences.alertmanager): {why}")]
    Unreadable { url: String, why: String },
}

/// Silences, kept up to date. Until the first answer, and while there is none, they stay as they were last seen.
pub fn watch(
    settings: Option<&SilencesSettings>,
    clock: fn() -> Timestamp,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> watch::Receiver<Silences> {
    let (sender, receiver) = watch::channel(Silences::default());
    let Some(settings) = settings.cloned() else { return receiver };
    let stop = stop.clone();
    tasks.spawn(async move {
        let mut said = None;
        loop {
            let answer = tokio::select! {
                answer = read(&settings, clock) => answer,
                () = stop.cancelled() => break,
            };
            let trouble = answer.as_ref().err().map(ToString::to_string);
            if let Ok(silences) = answer {
                sender.send_replace(silences);
            }
            if said != trouble {
                if let Some(why) = &trouble {
                    tracing::warn!("planned maintenance can't be asked for, and holds nothing new: {why}");
                } else {
                    tracing::info!("planned maintenance is known again");
                }
                said = trouble;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => break,
            }
        }
    });
    receiver
}

/// Silences, asked once.
pub async fn read(settings: &SilencesSettings, clock: fn() -> Timestamp) -> Result<Silences, SilencesError> {
    let url = format!("{}/api/v2/silences", settings.alertmanager.trim_end_matches('/'));
    let unreachable = |error: reqwest::Error| SilencesError::Unreachable { url: url.clone(), why: causes(&error) };
    let mut request = client(settings)?.get(&url);
    if let Some(path) = &settings.bearer_token_file {
        let token = file("guard.silences.bearer_token_file", path)?;
        request = request.bearer_auth(String::from_utf8_lossy(&token).trim());
    }
    let seen_at = clock();
    let mut response = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            let why = format!("the answer is larger than {} MiB", MOST_BYTES >> 20);
            return Err(SilencesError::Unreadable { url, why });
        }
    }
    let status = response.status();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body).trim().chars().take(SHOWN_CHARS).collect();
        return Err(SilencesError::Refused { url, status: status.as_u16(), text });
    }
    let answers: Vec<Answer> = serde_json::from_slice(&body)
        .map_err(|error| SilencesError::Unreadable { url: url.clone(), why: error.to_string() })?;
    let of_zones = answers.into_iter().filter_map(|answer| answer.of_zones(&settings.zone_label)).collect();
    Ok(Silences { seen_at: Some(seen_at), of_zones })
}

fn client(settings: &SilencesSettings) -> Result<reqwest::Client, SilencesError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("zoneward/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.timeout.unsigned())
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &settings.ca_file {
        let setting = "guard.silences.ca_file";
        let invalid = |error: reqwest::Error| SilencesError::Invalid { setting, why: causes(&error) };
        builder = builder.add_root_certificate(reqwest::Certificate::from_pem(&file(setting, path)?).map_err(invalid)?);
    }
    builder.build().map_err(|error| SilencesError::Invalid { setting: "guard.silences", why: causes(&error) })
}

fn file(setting: &'static str, path: &Path) -> Result<Vec<u8>, SilencesError> {
    let failed = |source| SilencesError::File { setting, path: path.display().to_string(), source };
    std::fs::read(path).map_err(failed)
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A silence as the API v2 gives it, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    id: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    created_by: String,
    starts_at: Timestamp,
    ends_at: Timestamp,
    matchers: Vec<Matcher>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Matcher {
    name: String,
    value: String,
    is_regex: bool,
    /// Older ones know no other.
    #[serde(default = "yes")]
    is_equal: bool,
}

const fn yes() -> bool {
    true
}

impl Answer {
    /// What all zones but some are silenced for names none.
    fn of_zones(self, zone_label: &str) -> Option<Silence> {
        let matcher = self.matchers.iter().find(|matcher| matcher.name == zone_label && matcher.is_equal)?;
        let zones = if matcher.is_regex {
            SilencedZones::pattern(&matcher.value)?
        } else {
            SilencedZones::One(Zone::new(matcher.value.clone()))
        };
        let Self { id, comment: why, created_by: by, starts_at, ends_at, .. } = self;
        Some(Silence { id, by, why, starts_at, ends_at, zones })
    }
}
