//! People are told: by a real Alertmanager, and by a server that takes `CloudEvents` as their specification has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zoneward::domain::isolation::StepEntry;
use zoneward::domain::{
    Admission, Event, Isolation, IsolationSpec, Origin, Pause, Record, Share, StepName, StepState, Verdict, Zone,
};
use zoneward::notify::{Acting, Alertmanager, AlertmanagerSettings, Count, InHand, Outcome, Webhook, WebhookSettings};
use zoneward::ports::Notifier;

use crate::maintenance::real_time;
use crate::support::{Process, alertmanager, text};

const ZONE: &str = "zone-b";

/// Waits until something is so.
async fn soon<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..300 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never came true: {what}")
}

/// What a daemon gives to those who tell.
#[derive(Default)]
struct Daemon {
    in_hand: Mutex<Option<InHand>>,
    counts: Mutex<BTreeMap<(&'static str, Outcome), u64>>,
    stop: CancellationToken,
}

impl Daemon {
    fn that_acts() -> Arc<Self> {
        Arc::new(Self { in_hand: Mutex::new(Some(InHand::default())), ..Self::default() })
    }

    fn acting(self: &Arc<Self>) -> Arc<Acting> {
        let this = Arc::clone(self);
        Arc::new(move || this.in_hand.lock().unwrap().clone())
    }

    fn count(self: &Arc<Self>) -> Arc<Count> {
        let this = Arc::clone(self);
        Arc::new(move |target, outcome| *this.counts.lock().unwrap().entry((target, outcome)).or_default() += 1)
    }

    fn counted(&self, target: &'static str, outcome: Outcome) -> u64 {
        self.counts.lock().unwrap().get(&(target, outcome)).copied().unwrap_or_default()
    }

    fn has(&self, isolations: Vec<Isolation>, pause: Pause) {
        *self.in_hand.lock().unwrap() = Some(InHand { isolations, pause });
    }

    fn alertmanager(self: &Arc<Self>, settings: Value) -> Alertmanager {
        let settings: AlertmanagerSettings = serde_json::from_value(settings).unwrap();
        Alertmanager::start(settings, self.acting(), self.count(), real_time, &TaskTracker::new(), &self.stop)
    }

    fn webhook(self: &Arc<Self>, settings: Value) -> Webhook {
        let settings: WebhookSettings = serde_json::from_value(settings).unwrap();
        Webhook::start(settings, self.acting(), self.count(), &TaskTracker::new(), &self.stop)
    }
}

fn record(event: Event, message: &str) -> Record {
    Record::new(real_time(), event, message).zone(&Zone::new(ZONE))
}

fn isolation() -> Isolation {
    let now = real_time();
    let spec = IsolationSpec {
        zone: Zone::new(ZONE),
        origin: Origin::Operator,
        reason: "disk failures".to_owned(),
        evidence: Vec::new(),
        expires_at: now + SignedDuration::from_hours(1),
        share: Share::NONE,
        only: BTreeSet::new(),
        overrides: BTreeSet::new(),
        approved: true,
    };
    let mut isolation = Isolation::new("one".to_owned(), spec, now);
    isolation.admission = Admission::Admitted(now);
    isolation
}

/// What fires, by name.
async fn firing(server: &Process) -> BTreeMap<String, Value> {
    let answer = reqwest::get(format!("{}/api/v2/alerts", server.url())).await.unwrap();
    let alerts: Vec<Value> = answer.json().await.unwrap();
    alerts.into_iter().map(|alert| (text(&alert["labels"], "alertname").to_owned(), alert)).collect()
}

async fn fires_just(server: &Process, names: &[&str]) -> BTreeMap<String, Value> {
    soon(&format!("just {names:?} fire"), async || {
        let alerts = firing(server).await;
        alerts.keys().map(String::as_str).eq(names.iter().copied()).then_some(alerts)
    })
    .await
}

#[tokio::test]
async fn an_alert_lasts_as_long_as_what_it_is_about_whichever_replica_acts() {
    let folder = tempfile::tempdir().unwrap();
    let server = alertmanager(folder.path());
    let settings = json!({
        "urls": ["http://127.0.0.1:9", server.url()], "resend": "1s",
        "labels": {"cluster": "prod"}, "link": "https://graphs.example.org/?zone={zone}&from=now"
    });
    let (one, other) = (Daemon::that_acts(), Arc::new(Daemon::default()));
    let (tells, keeps_still) = (one.alertmanager(settings.clone()), other.alertmanager(settings));

    let mut would_be = record(Event::Isolate, "zone-b would be isolated for 1h");
    (would_be.verdict, would_be.rehearsal) = (Some(Verdict::ZoneFault), true);
    tells.notify(&would_be);
    keeps_still.notify(&record(Event::Blocked, "said by one that does not act"));
    let alert = fires_just(&server, &["ZonewardZoneFault"]).await.remove("ZonewardZoneFault").unwrap();
    let labels = json!({"alertname": "ZonewardZoneFault", "zone": ZONE, "severity": "critical", "cluster": "prod"});
    assert_eq!(alert["labels"], labels);
    assert_eq!(alert["annotations"]["description"], "zone-b would be isolated for 1h");
    assert_eq!(alert["generatorURL"], "https://graphs.example.org/?zone=zone-b&from=now");
    let ends_at = |alert: &Value| text(alert, "endsAt").parse::<Timestamp>().unwrap();
    soon("it is said again", async || {
        let again = firing(&server).await;
        again.get("ZonewardZoneFault").filter(|again| ends_at(again) > ends_at(&alert)).map(drop)
    })
    .await;
    tells.notify(&record(Event::Clear, "zone-b is like its peers again"));
    fires_just(&server, &[]).await;

    // A zone goes out, and a step gets stuck; nothing of it is on this replica's record.
    let mut isolated = isolation();
    let error = Some("the name server is gone".to_owned());
    let stuck = StepEntry { state: StepState::Stuck, last_error: error, ..StepEntry::default() };
    isolated.steps.insert(StepName::new("dns"), stuck);
    one.has(vec![isolated.clone()], Pause::Unknown { why: "the API server is gone".to_owned() });
    let three = ["ZonewardPausedWhileIsolated", "ZonewardStepStuck", "ZonewardZoneIsolated"];
    let alerts = fires_just(&server, &three).await;
    assert_eq!(alerts["ZonewardStepStuck"]["annotations"]["description"], "dns: the name server is gone");
    assert_eq!(alerts["ZonewardZoneIsolated"]["labels"]["severity"], "warning");

    // The other one takes over: what it knows nothing of is said no more, and lapses.
    *one.in_hand.lock().unwrap() = None;
    isolated.steps.clear();
    other.has(vec![isolated], Pause::Off);
    fires_just(&server, &["ZonewardZoneIsolated"]).await;
    other.has(Vec::new(), Pause::Off);
    fires_just(&server, &[]).await;
    assert!(one.counted("alertmanager", Outcome::Sent) > 0 && one.counted("alertmanager", Outcome::Failed) > 0);
}

type Got = Arc<Mutex<Vec<(StatusCode, HeaderMap, Value)>>>;

/// Answers so, one after the other, and then that all is well.
async fn receiver(mut answers: Vec<StatusCode>) -> (String, Got) {
    answers.reverse();
    let (got, answers) = (Got::default(), Arc::new(Mutex::new(answers)));
    let serve = async |State((got, answers)): State<(Got, Arc<Mutex<Vec<StatusCode>>>)>, headers, body: Bytes| {
        let status = answers.lock().unwrap().pop().unwrap_or(StatusCode::OK);
        got.lock().unwrap().push((status, headers, serde_json::from_slice(&body).unwrap()));
        status
    };
    let router = Router::new().fallback(serve).with_state((Arc::clone(&got), answers));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?key=hidden", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    (url, got)
}

async fn after(got: &Got, calls: usize) -> Vec<(StatusCode, HeaderMap, Value)> {
    soon(&format!("{calls} calls"), async || {
        let got = got.lock().unwrap();
        (got.len() >= calls).then(|| got.clone())
    })
    .await
}

#[tokio::test]
async fn events_reach_a_webhook_that_fails_at_first_once_each_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a secret\n").unwrap();
    let trouble = vec![StatusCode::INTERNAL_SERVER_ERROR, StatusCode::OK, StatusCode::FORBIDDEN];
    let (url, got) = receiver(trouble).await;
    let daemon = Daemon::that_acts();
    let webhook = daemon.webhook(json!({
        "url": url, "source": "/zoneward/prod", "bearer_token_file": token,
        "headers": [{"name": "X-Team", "value": "a"}],
        "events": ["isolated", "effective", "restored", "stopped"]
    }));
    let isolated = record(Event::Isolated, "zone-b is out of rotation");
    webhook.notify(&record(Event::Suspect, "nobody asked for these"));
    webhook.notify(&isolated);
    webhook.notify(&record(Event::Effective, "the receiver does not want this one"));
    webhook.notify(&record(Event::Restored, "zone-b is back in rotation"));
    let calls = after(&got, 4).await;
    let types: Vec<&str> = calls.iter().map(|(_, _, event)| text(event, "type")).collect();
    let expected = ["isolated", "isolated", "effective", "restored"].map(|event| format!("io.zoneward.{event}"));
    assert_eq!(types, expected, "a server's failure is tried again, a refusal is not");

    let (_, headers, event) = &calls[0];
    assert_eq!(headers["content-type"], "application/cloudevents+json");
    assert_eq!(
        (&headers["authorization"], &headers["x-team"]),
        (&"Bearer a secret".parse().unwrap(), &"a".parse().unwrap())
    );
    let id = text(event, "id").to_owned();
    assert!(!id.is_empty());
    let whole = json!({
        "specversion": "1.0", "id": id, "source": "/zoneward/prod", "type": "io.zoneward.isolated", "subject": ZONE,
        "time": isolated.time, "datacontenttype": "application/json", "data": isolated
    });
    assert_eq!(*event, whole);
    assert_eq!(calls[1].2, whole, "the same in every try");
    let ids: BTreeSet<&str> = calls.iter().map(|(_, _, event)| text(event, "id")).collect();
    assert_eq!(ids.len(), 3, "each event has its own");
    soon("all are counted", async || (daemon.counted("webhook", Outcome::Sent) == 2).then_some(())).await;
    assert_eq!(daemon.counted("webhook", Outcome::Failed), 1);

    // Another replica acts; but what this one does itself, it says.
    *daemon.in_hand.lock().unwrap() = None;
    webhook.notify(&record(Event::Isolated, "said by the other one"));
    webhook.notify(&Record::new(real_time(), Event::Stopped, "as was asked"));
    let stopped = &after(&got, 5).await[4].2;
    assert_eq!((text(stopped, "type"), stopped.get("subject")), ("io.zoneward.stopped", None));
    let mut stuck = record(Event::Step, "dns: stuck");
    stuck.step = Some(serde_json::from_value(json!({"name": "dns", "state": "stuck"})).unwrap());
    daemon.has(Vec::new(), Pause::Off);
    webhook.notify(&stuck);
    assert_eq!(text(&after(&got, 6).await[5].2, "type"), "io.zoneward.step", "a stuck step is always told of");
}

/// Takes connections, and never says a word.
async fn black_hole() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    url
}

#[tokio::test]
async fn a_target_that_hangs_delays_nobody_and_what_it_can_not_take_is_counted() {
    let hangs = black_hole().await;
    let (url, got) = receiver(Vec::new()).await;
    let daemon = Daemon::that_acts();
    let targets: [Arc<dyn Notifier>; 3] = [
        Arc::new(daemon.alertmanager(json!({"urls": [hangs], "timeout": "1m"}))),
        Arc::new(daemon.webhook(json!({"url": hangs, "timeout": "1m", "events": ["blocked"]}))),
        Arc::new(daemon.webhook(json!({"url": url, "events": ["restored"]}))),
    ];
    let tell = |record: &Record| targets.iter().for_each(|target| target.notify(record));
    (0..300).for_each(|i| tell(&record(Event::Blocked, &format!("held, {i}"))));
    tell(&record(Event::Restored, "the other one is told of this"));
    after(&got, 1).await;
    let dropped = daemon.counted("webhook", Outcome::Dropped);
    assert!((300 - 257..=300 - 256).contains(&dropped), "256 wait, and one may be under way: {dropped}");
}

#[test]
fn what_is_wrong_in_the_settings_is_named_at_once() {
    let settings: zoneward::notify::Settings = serde_json::from_value(json!({
        "alertmanager": {
            "urls": ["ftp://a", "http://me:pw@a"], "labels": {"zone": "x", "a-b": "x", "team": ""}, "link": "{zone}",
            "resend": "1s", "timeout": "2m"
        },
        "webhook": {
            "url": "hooks", "events": [], "source": "a b", "timeout": "0s",
            "headers": [{"name": "a b", "value": "x"}, {"name": "Content-Type", "value": "x"}, {"name": "x"}]
        }
    }))
    .unwrap();
    let keys: Vec<String> = settings.problems().into_iter().map(|(key, _)| key).collect();
    let of_alertmanager = "urls[0] urls[1] labels.a-b labels.team labels.zone link resend timeout";
    let of_webhook = "headers[0].name headers[1].name headers[2] url events source timeout";
    let expected = [("alertmanager", of_alertmanager), ("webhook", of_webhook)];
    let expected = expected.iter().flat_map(|(of, keys)| keys.split(' ').map(move |key| format!("{of}.{key}")));
    assert_eq!(keys, expected.collect::<Vec<_>>());
}
