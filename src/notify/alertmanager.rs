//! Alerts of an Alertmanager. They are said again as long as they last, and that they have ended is said at once; with
//! zoneward gone they end by themselves after four times as long.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::alerts::{Alert, Alerts, Key};
use super::{Acting, Count, Outcome};
use crate::domain::{Period, Record, percent_encoded, problem_of_address, problem_of_base_address};
use crate::http::{Access, HttpError};
use crate::ports::Notifier;

const TARGET: &str = "alertmanager";
/// Between two looks at what is in hand.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Times that an alert may fail to be said again before it ends by itself.
const MISSED: i32 = 4;
const LARGEST_ANSWER: usize = 64 * 1024;
const MOST_URLS: usize = 8;
const MOST_LABELS: usize = 16;
const OURS: [&str; 3] = ["alertname", "zone", "severity"];

/// The section `notify.alertmanager`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerSettings {
    pub urls: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub link: Option<String>,
    #[serde(default = "resend")]
    pub resend: Period,
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default = "timeout")]
    pub timeout: Period,
}

const fn resend() -> Period {
    Period::from_mins(1)
}

const fn timeout() -> Period {
    Period::from_secs(5)
}

impl AlertmanagerSettings {
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: String, problem: String| problems.push((key, problem));
        if self.urls.is_empty() || self.urls.len() > MOST_URLS {
            add("urls".to_owned(), format!("{} addresses are outside 1 to {MOST_URLS}", self.urls.len()));
        }
        for (i, url) in self.urls.iter().enumerate() {
            if let Some(problem) = problem_of_base_address(url) {
                add(format!("urls[{i}]"), problem);
            }
        }
        if self.labels.len() > MOST_LABELS {
            add("labels".to_owned(), format!("{} are more than {MOST_LABELS}", self.labels.len()));
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for (name, value) in &self.labels {
            let legal = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(letter);
            if !legal || OURS.contains(&name.as_str()) {
                add(format!("labels.{name}"), "is not a label name, or one that zoneward sets".to_owned());
            } else if value.is_empty() {
                add(format!("labels.{name}"), "is empty, which is no label".to_owned());
            }
        }
        if let Some(problem) = self.link.as_deref().and_then(|link| problem_of_address(&of_zone(link, "zone"))) {
            add("link".to_owned(), problem);
        }
        for (key, period, least, most) in [
            ("resend", self.resend, Period::from_secs(5), Period::from_mins(10)),
            ("timeout", self.timeout, Period::from_secs(1), Period::from_mins(1)),
        ] {
            if period < least || period > most {
                add(key.to_owned(), format!("{period} is outside {least} to {most}"));
            }
        }
        problems
    }
}

/// Keeps alerts as they are to be, and says so in the background.
pub struct Alertmanager {
    alerts: Arc<Mutex<Alerts>>,
    wake: Arc<Notify>,
}

impl Alertmanager {
    pub fn start(
        settings: AlertmanagerSettings,
        acting: Arc<Acting>,
        count: Arc<Count>,
        clock: fn() -> Timestamp,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (alerts, wake) = (Arc::default(), Arc::new(Notify::new()));
        let (stop, woken) = (stop.clone(), Arc::clone(&wake));
        let mut teller =
            Teller { settings, alerts: Arc::clone(&alerts), acting, count, clock, again_at: None, said: None };
        tasks.spawn(async move {
            let turn = async {
                loop {
                    teller.turn().await;
                    let _late = tokio::time::timeout(LOOK_EVERY, woken.notified()).await;
                }
            };
            tokio::select! {
                () = turn => {}
                () = stop.cancelled() => {}
            }
        });
        Self { alerts, wake }
    }
}

impl Notifier for Alertmanager {
    fn notify(&self, record: &Record) {
        lock(&self.alerts).note(record);
        self.wake.notify_one();
    }
}

struct Teller {
    settings: AlertmanagerSettings,
    alerts: Arc<Mutex<Alerts>>,
    acting: Arc<Acting>,
    count: Arc<Count>,
    clock: fn() -> Timestamp,
    /// When it is to be said again, whatever happens.
    again_at: Option<Instant>,
    /// What was last said of trouble.
    said: Option<String>,
}

impl Teller {
    async fn turn(&mut self) {
        let (in_hand, now) = ((self.acting)(), (self.clock)());
        let Some(in_hand) = in_hand else {
            lock(&self.alerts).forget_isolations();
            self.again_at = None;
            return;
        };
        let (told, changed) = {
            let mut alerts = lock(&self.alerts);
            alerts.see(&in_hand, now);
            (0..alerts.dropped()).for_each(|_| (self.count)(TARGET, Outcome::Dropped));
            (alerts.all().clone(), alerts.changed())
        };
        if told.is_empty() || !(changed || self.again_at.is_none_or(|at| Instant::now() >= at)) {
            return;
        }
        let answers = join_all(self.settings.urls.iter().map(|url| self.post(url, &told, now))).await;
        answers.iter().for_each(|answer| {
            (self.count)(TARGET, if answer.is_ok() { Outcome::Sent } else { Outcome::Failed });
        });
        // Alertmanagers of one cluster tell each other.
        if answers.iter().any(Result::is_ok) {
            lock(&self.alerts).told(&told);
        }
        let all_well = answers.iter().all(Result::is_ok);
        let rest = if all_well { self.settings.resend.unsigned() } else { RETRY_AFTER };
        self.again_at = Some(Instant::now() + rest);
        self.say(answers.into_iter().find_map(Result::err));
    }

    async fn post(&self, url: &str, told: &BTreeMap<Key, Alert>, now: Timestamp) -> Result<(), HttpError> {
        let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
        let alerts: Vec<Value> = told.iter().map(|(key, alert)| in_json(key, alert, &self.settings, now)).collect();
        let access = Access {
            section: "notify.alertmanager",
            address: "urls",
            bearer_token_file: self.settings.bearer_token_file.as_deref(),
            ca_file: self.settings.ca_file.as_deref(),
            headers: &[],
            timeout: self.settings.timeout,
            most_bytes: LARGEST_ANSWER,
            path_is_secret: false,
        };
        access.post(&url, "application/json", Value::Array(alerts).to_string().into_bytes()).await?;
        Ok(())
    }

    fn say(&mut self, trouble: Option<HttpError>) {
        let trouble = trouble.map(|error| error.to_string());
        if self.said == trouble {
            return;
        }
        if let Some(why) = &trouble {
            tracing::warn!("alerts can't be sent, and are tried again: {why}");
        } else {
            tracing::info!("alerts are sent again");
        }
        self.said = trouble;
    }
}

fn in_json((name, zone): &Key, alert: &Alert, settings: &AlertmanagerSettings, now: Timestamp) -> Value {
    let mut labels = settings.labels.clone();
    for (label, value) in OURS.into_iter().zip([name.as_str(), zone.as_str(), name.severity()]) {
        labels.insert(label.to_owned(), value.to_owned());
    }
    let lapses_at = now.saturating_add(settings.resend.signed() * MISSED).unwrap_or(now);
    let mut json = json!({
        "labels": labels,
        "annotations": {"summary": name.summary(zone), "description": alert.why},
        "startsAt": alert.since,
        "endsAt": alert.ended_at.unwrap_or(lapses_at),
    });
    if let Some(link) = &settings.link {
        json["generatorURL"] = of_zone(link, zone.as_str()).into();
    }
    json
}

/// The link with the zone in it.
fn of_zone(link: &str, zone: &str) -> String {
    link.replace("{zone}", &percent_encoded(zone))
}

fn lock(alerts: &Mutex<Alerts>) -> std::sync::MutexGuard<'_, Alerts> {
    alerts.lock().unwrap_or_else(PoisonError::into_inner)
}
