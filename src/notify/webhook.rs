//! Any receiver of `CloudEvents` 1.0, in their structured JSON form: one event a record, in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Acting, Count, Outcome};
use crate::domain::{Event, Period, Record, StepState, problem_of_address};
use crate::http::{Access, Header, HttpError, problems_of_headers};
use crate::ports::Notifier;

const TARGET: &str = "webhook";
/// Records that wait for a slow receiver; more are dropped.
const MOST_WAITING: usize = 256;
const TRIES: u32 = 5;
/// Before the second try; twice as long before each more.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// For what waits when the process ends.
const FAREWELL: Duration = Duration::from_secs(3);
const LARGEST_ANSWER: usize = 64 * 1024;
/// What everybody who passes an event on must be able to.
const LARGEST_EVENT: usize = 64 * 1024;

/// The section `notify.webhook`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    pub url: String,
    #[serde(default = "events")]
    pub events: Vec<Event>,
    #[serde(default = "source")]
    pub source: String,
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    #[serde(default)]
    pub headers: Vec<Header>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default = "timeout")]
    pub timeout: Period,
}

fn events() -> Vec<Event> {
    vec![
        Event::Blocked,
        Event::Isolate,
        Event::Admitted,
        Event::Refused,
        Event::Isolated,
        Event::Effective,
        Event::Ineffective,
        Event::RolledBack,
        Event::Reclassified,
        Event::Recovering,
        Event::Relapsed,
        Event::Restore,
        Event::Restored,
        Event::Clear,
        Event::Paused,
        Event::Resumed,
        Event::DrillBlocked,
        Event::DrillAborted,
        Event::DrillPassed,
    ]
}

fn source() -> String {
    "/zoneward".to_owned()
}

const fn timeout() -> Period {
    Period::from_secs(5)
}

impl WebhookSettings {
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = problems_of_headers(&self.headers);
        let mut add = |key: &str, problem: String| problems.push((key.to_owned(), problem));
        if let Some(problem) = problem_of_address(&self.url) {
            add("url", problem);
        }
        if self.events.is_empty() {
            add("events", "is empty: nothing would be sent".to_owned());
        }
        let legal = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        if self.source.is_empty() || self.source.len() > 200 || !self.source.chars().all(legal) {
            add("source", format!("`{}` is no reference of at most 200 characters", self.source));
        }
        if self.timeout < Period::from_secs(1) || self.timeout > Period::from_mins(1) {
            add("timeout", format!("{} is outside 1s to 1m", self.timeout));
        }
        problems
    }

    fn wants(&self, record: &Record) -> bool {
        let stuck = record.step.as_ref().is_some_and(|step| step.state == StepState::Stuck);
        stuck || self.events.contains(&record.event)
    }
}

/// Sends records in the background.
pub struct Webhook {
    settings: Arc<WebhookSettings>,
    queue: mpsc::Sender<Record>,
    acting: Arc<Acting>,
    count: Arc<Count>,
}

impl Webhook {
    pub fn start(
        settings: WebhookSettings,
        acting: Arc<Acting>,
        count: Arc<Count>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let settings = Arc::new(settings);
        let (queue, mut records) = mpsc::channel::<Record>(MOST_WAITING);
        let sender = Sender { settings: Arc::clone(&settings), count: Arc::clone(&count) };
        let stop = stop.clone();
        tasks.spawn(async move {
            let sends = async {
                loop {
                    tokio::select! {
                        record = records.recv() => match record {
                            Some(record) => sender.send(&record).await,
                            None => break,
                        },
                        () = stop.cancelled() => records.close(),
                    }
                }
            };
            let ends = async {
                stop.cancelled().await;
                tokio::time::sleep(FAREWELL).await;
            };
            tokio::select! {
                () = sends => {}
                () = ends => {}
            }
        });
        Self { settings, queue, acting, count }
    }
}

impl Notifier for Webhook {
    fn notify(&self, record: &Record) {
        if !self.settings.wants(record) || !(is_of_the_process(record.event) || (self.acting)().is_some()) {
            return;
        }
        if self.queue.try_send(record.clone()).is_err() {
            (self.count)(TARGET, Outcome::Dropped);
            tracing::warn!(event = record.event.as_str(), "an event for the webhook was dropped, as too many wait");
        }
    }
}

/// What each replica says of itself, whoever acts.
const fn is_of_the_process(event: Event) -> bool {
    matches!(
        event,
        Event::Started
            | Event::Stopped
            | Event::Unrecorded
            | Event::Retired
            | Event::HandedOver
            | Event::ConfigurationChanged
            | Event::ConfigurationRefused
    )
}

struct Sender {
    settings: Arc<WebhookSettings>,
    count: Arc<Count>,
}

impl Sender {
    /// Tries a few times, and then gives it up.
    async fn send(&self, record: &Record) {
        let body = cloud_event(record, &self.settings.source);
        let mut rest = RETRY_AFTER;
        for tries in 1..=TRIES {
            match self.post(body.clone()).await {
                Ok(()) => return (self.count)(TARGET, Outcome::Sent),
                Err(error) if tries < TRIES && error.is_transient() => {
                    tracing::debug!("an event for the webhook is sent again: {error}");
                    tokio::time::sleep(rest.max(error.retry_after().unwrap_or_default())).await;
                    rest *= 2;
                }
                Err(error) => {
                    tracing::warn!(event = record.event.as_str(), tries, "an event is lost to the webhook: {error}");
                    break;
                }
            }
        }
        (self.count)(TARGET, Outcome::Failed);
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), HttpError> {
        let access = Access {
            section: "notify.webhook",
            address: "url",
            bearer_token_file: self.settings.bearer_token_file.as_deref(),
            ca_file: self.settings.ca_file.as_deref(),
            headers: &self.settings.headers,
            timeout: self.settings.timeout,
            most_bytes: LARGEST_ANSWER,
            path_is_secret: true,
        };
        access.post(&self.settings.url, "application/cloudevents+json", body).await?;
        Ok(())
    }
}

/// The same for the same record, in every try and from every replica: receivers know it again by its id.
fn cloud_event(record: &Record, source: &str) -> Vec<u8> {
    let data = serde_json::to_value(record).unwrap_or_default();
    let id = hex::encode(&Sha256::digest(data.to_string())[..16]);
    let mut event = json!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": format!("io.zoneward.{}", record.event.as_str()),
        "time": record.time,
        "datacontenttype": "application/json",
        "data": data,
    });
    if let Some(zone) = &record.zone {
        event["subject"] = zone.as_str().into();
    }
    let text = event.to_string();
    if text.len() <= LARGEST_EVENT {
        return text.into_bytes();
    }
    // The journal has it all.
    for long in ["evidence", "verdict", "effective", "services", "figures"] {
        event["data"].as_object_mut().and_then(|data| data.remove(long));
    }
    if let Some(message) = event["data"]["message"].as_str().filter(|message| message.len() > LARGEST_EVENT / 4) {
        let shorter: String = message.chars().take(LARGEST_EVENT / 16).collect();
        event["data"]["message"] = Value::from(shorter);
    }
    event.to_string().into_bytes()
}
