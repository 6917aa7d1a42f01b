//! Planned maintenance, as a real Alertmanager tells it: it keeps a zone in rotation that is sick beyond doubt.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use zoneward::alertmanager;
use zoneward::domain::{Silences, Snapshot, Zone};
use zoneward::guard::{self, SilencesSettings};
use zoneward::pipeline::Pipeline;

use crate::executor::start;
use crate::guardrails::{minute, story};
use crate::support::alertmanager;

#[allow(clippy::disallowed_methods, reason = "a server that lives in real time")]
pub fn real_time() -> Timestamp {
    Timestamp::now()
}

/// For an hour from now on; returns its id.
async fn silence(url: &str, (name, value, is_regex, is_equal): (&str, &str, bool, bool)) -> String {
    let alert = json!({"name": "alertname", "value": "DiskFailure", "isRegex": false, "isEqual": true});
    let silence = json!({
        "matchers": [alert, {"name": name, "value": value, "isRegex": is_regex, "isEqual": is_equal}],
        "startsAt": real_time(), "endsAt": real_time() + SignedDuration::from_hours(1),
        "createdBy": "ops", "comment": "disks are replaced"
    });
    let answer = reqwest::Client::new().post(format!("{url}/api/v2/silences")).json(&silence).send().await.unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    answer["silenceID"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn maintenance_that_was_announced_in_an_alertmanager_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let server = alertmanager(folder.path());
    let url = server.url();
    let asked: SilencesSettings = serde_json::from_value(json!({"alertmanager": url})).unwrap();
    let seen = || async { alertmanager::read(&asked, real_time).await.unwrap() };
    assert!(seen().await.seen_at.is_some());
    silence(&url, ("instance", "cn-hangzhou-h", false, true)).await;
    silence(&url, ("zone", "cn-hangzhou-g", false, false)).await;
    silence(&url, ("zone", ".+|", true, true)).await;
    assert!(seen().await.of_zones.is_empty(), "none of them names a zone");
    let one = silence(&url, ("zone", "cn-hangzhou-(h|k)", true, true)).await;
    let other = silence(&url, ("zone", "cn-hangzhou-g", false, true)).await;
    let mut silences = seen().await;
    let of = |silences: &Silences, zone: &str| silences.of(&Zone::new(zone), real_time()).map(|it| it.id.clone());
    assert_eq!(of(&silences, "cn-hangzhou-h"), Some(one));
    assert_eq!(of(&silences, "cn-hangzhou-g"), Some(other));
    assert_eq!(of(&silences, "cn-hangzhou-h2"), None);

    // The story is told at another time.
    silences.of_zones.iter_mut().for_each(|silence| (silence.starts_at, silence.ends_at) = (start(), minute(6)));
    let settings = guard::Settings { silences: Some(asked.clone()), ..guard::Settings::default() };
    let announced = |pipeline: &mut Pipeline, _: &mut Snapshot| pipeline.silence(silences.clone());
    assert_eq!(story(settings.clone(), announced).await, (vec!["planned_maintenance".to_owned()], Some(6)));
    drop(server);
    let gone = alertmanager::read(&asked, real_time).await.unwrap_err().to_string();
    assert!(gone.contains("does not answer (guard.silences.alertmanager)"), "{gone}");
    assert_eq!(story(settings, |_, _| {}).await, (vec![], Some(2)), "what can't be asked stops nothing");
}
