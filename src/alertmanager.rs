//! Asks an Alertmanager for its silences. What can't be asked stops nothing.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::silence::{Silence, SilencedZones};
use crate::domain::{Silences, Zone};
use crate::guard::SilencesSettings;
use crate::http::{Access, HttpError};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Of one answer: some thousands of silences.
const MOST_BYTES: usize = 8 << 20;

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
pub async fn read(settings: &SilencesSettings, clock: fn() -> Timestamp) -> Result<Silences, HttpError> {
    let url = format!("{}/api/v2/silences", settings.alertmanager.trim_end_matches('/'));
    let access = Access {
        section: "guard.silences",
        address: "alertmanager",
        bearer_token_file: settings.bearer_token_file.as_deref(),
        ca_file: settings.ca_file.as_deref(),
        headers: &[],
        timeout: settings.timeout,
        most_bytes: MOST_BYTES,
        path_is_secret: false,
    };
    let seen_at = clock();
    let body = access.get(&url).await?;
    let answers: Vec<Answer> = serde_json::from_slice(&body).map_err(|error| access.unreadable(&url, &error))?;
    let of_zones = answers.into_iter().filter_map(|answer| answer.of_zones(&settings.zone_label)).collect();
    Ok(Silences { seen_at: Some(seen_at), of_zones })
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
