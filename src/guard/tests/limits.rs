//! What may be set.

use serde_json::{Value, json};

use super::settings::PolicyOf;
use super::*;

/// The keys that are named as wrong.
fn wrong(change: impl FnOnce(&mut Settings)) -> Vec<&'static str> {
    let mut settings = Settings::default();
    change(&mut settings);
    settings.problems().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn what_is_at_a_limit_is_legal_and_what_is_beyond_is_named() {
    assert!(wrong(|_| {}).is_empty());
    assert_eq!(wrong(|it| it.max_isolated_zones = 0), ["max_isolated_zones"]);
    assert_eq!(wrong(|it| it.min_healthy_zones = 0), ["min_healthy_zones"]);
    for per_day in [0, 1_001] {
        assert_eq!(wrong(|it| it.max_isolations_per_day = per_day), ["max_isolations_per_day"]);
        assert_eq!(wrong(|it| it.max_isolations_per_day_of_all = per_day), ["max_isolations_per_day_of_all"]);
    }
    assert!(wrong(|it| (it.max_isolations_per_day, it.max_isolations_per_day_of_all) = (1, 1_000)).is_empty());
    let (day, longer) = (Period::from_hours(24), Period::from_secs(24 * 3600 + 1));
    for stale_after in [Period::from_secs(0), longer] {
        assert_eq!(wrong(|it| it.stale_after = stale_after), ["stale_after"]);
    }
    assert!(wrong(|it| (it.stale_after, it.cool_down) = (Period::from_secs(1), Period::from_secs(0))).is_empty());
    assert!(wrong(|it| (it.stale_after, it.cool_down) = (day, day)).is_empty());
    assert_eq!(wrong(|it| it.cool_down = longer), ["cool_down"]);
}

#[test]
fn lists_are_bounded() {
    let policies = |many| vec![PolicyOf { matches: "*/*".parse().unwrap(), policy: Policy::Warn }; many];
    assert!(wrong(|it| it.capacity_traps_of = policies(1_000)).is_empty());
    assert_eq!(wrong(|it| it.capacity_traps_of = policies(1_001)), ["capacity_traps_of"]);
    let window = json!({"from": "00:00", "to": "01:00", "why": "batches"});
    let windows = |many| serde_json::from_value(Value::Array(vec![window.clone(); many])).unwrap();
    assert!(wrong(|it| it.blocked_windows = windows(64)).is_empty());
    assert_eq!(wrong(|it| it.blocked_windows = windows(65)), ["blocked_windows"]);
}

#[test]
fn where_silences_are_asked_for_is_an_address_without_a_password_and_a_label() {
    let silences = |key: &str, value: &str| -> SilencesSettings {
        let mut asked = json!({"alertmanager": "http://alertmanager:9093"});
        asked[key] = json!(value);
        serde_json::from_value(asked).unwrap()
    };
    let plain = silences("alertmanager", "https://alertmanager/");
    assert_eq!((plain.zone_label.as_str(), plain.timeout), ("zone", Period::from_secs(5)));
    let wrong = |key: &str, value: &str| wrong(|it| it.silences = Some(silences(key, value)));
    for legal in ["http://alertmanager:9093", "https://alertmanager/", "http://alertmanager/of/@ops"] {
        assert!(wrong("alertmanager", legal).is_empty(), "{legal}");
    }
    for address in ["alertmanager:9093", "ftp://alertmanager", "http://", "https:///", "http://ops:secret@alertmanager"]
    {
        assert_eq!(wrong("alertmanager", address), ["silences.alertmanager"], "{address}");
    }
    for label in ["zone", "zone_2", "_ZONE"] {
        assert!(wrong("zone_label", label).is_empty(), "{label}");
    }
    for label in ["", "2zone", "topology.kubernetes.io/zone", "zone-b"] {
        assert_eq!(wrong("zone_label", label), ["silences.zone_label"], "{label}");
    }
    for timeout in ["1s", "1m"] {
        assert!(wrong("timeout", timeout).is_empty(), "{timeout}");
    }
    for timeout in ["0s", "61s"] {
        assert_eq!(wrong("timeout", timeout), ["silences.timeout"], "{timeout}");
    }
}
