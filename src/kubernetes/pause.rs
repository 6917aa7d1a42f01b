//! The one object by which people pause zoneward: a `ConfigMap`, so that `kubectl` does without us.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::watch::{Edges, keep};
use super::{bounded, explain};
use crate::domain::Pause;

/// The `ConfigMap` in `kubernetes.namespace` that pauses zoneward while it is there.
pub const PAUSE_NAME: &str = "zoneward-pause";
/// Its keys, neither of which is needed: why, and when the pause ends by itself.
pub const PAUSE_REASON: &str = "reason";
pub const PAUSE_UNTIL: &str = "until";

/// Between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LONGEST_REASON: usize = 500;

/// Whether zoneward is paused, asked once.
pub async fn read_pause(client: &Client, now: Timestamp) -> Pause {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    match bounded(api.get_opt(PAUSE_NAME)).await {
        Ok(object) => pause(object.as_ref(), now),
        Err(error) => Pause::Unknown { why: explain(&error) },
    }
}

/// Whether zoneward is paused, kept up to date.
pub fn watch_pause(
    client: &Client,
    clock: fn() -> Timestamp,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> watch::Receiver<Pause> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (edges, mut changes) = Edges::new(stop);
    let health = edges.health.clone();
    let config = watcher::Config::default().fields(&format!("metadata.name={PAUSE_NAME}"));
    let store = keep(api, config, "configmaps", tasks, edges);
    let state = move || match health.trouble() {
        None => pause(store.state().first().map(AsRef::as_ref), clock()),
        Some(why) => Pause::Unknown { why },
    };
    let (sender, receiver) = watch::channel(state());
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => break,
            }
            let newest = state();
            sender.send_if_modified(|known| {
                let differs = *known != newest;
                *known = newest;
                differs
            });
        }
    });
    receiver
}

/// What the object says. An end that can't be read is none: the pause lasts until the object goes.
fn pause(object: Option<&ConfigMap>, now: Timestamp) -> Pause {
    let Some(object) = object else { return Pause::Off };
    let value = |key: &str| object.data.as_ref().and_then(|data| data.get(key)).map(|text| text.trim());
    let mut why = value(PAUSE_REASON).filter(|why| !why.is_empty()).unwrap_or("no reason is given").to_owned();
    why = why.chars().take(LONGEST_REASON).collect();
    let until: Option<Timestamp> = match value(PAUSE_UNTIL).filter(|text| !text.is_empty()).map(str::parse) {
        Some(Ok(until)) => Some(until),
        Some(Err(_)) => {
            why += &format!(" (its `{PAUSE_UNTIL}` is no moment such as 2026-11-24T18:00:00Z, so it has no end)");
            None
        }
        None => None,
    };
    if until.is_some_and(|until| until <= now) {
        return Pause::Off;
    }
    let created = object.metadata.creation_timestamp.as_ref();
    let since = created.and_then(|time| Timestamp::from_second(time.0.as_second()).ok()).unwrap_or(now);
    Pause::On { since, until, why }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(data: &serde_json::Value) -> Pause {
        let metadata = json!({"name": "zoneward-pause", "creationTimestamp": "2026-11-24T10:00:00Z"});
        let object: ConfigMap = serde_json::from_value(json!({"metadata": metadata, "data": data})).unwrap();
        pause(Some(&object), "2026-11-24T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_object_pauses_while_it_is_there_or_until_the_moment_it_names() {
        assert_eq!(pause(None, Timestamp::UNIX_EPOCH), Pause::Off);
        assert_eq!(
            told(&json!(null)).to_string(),
            "zoneward is paused since 2026-11-24T10:00:00Z, until it is resumed: no reason is given"
        );
        let until = told(&json!({"reason": "release", "until": "2026-11-24T14:00:00+01:00"}));
        assert_eq!(
            until.to_string(),
            "zoneward is paused since 2026-11-24T10:00:00Z, until 2026-11-24T13:00:00Z: release"
        );
        assert_eq!(told(&json!({"until": "2026-11-24T12:00:00Z"})), Pause::Off, "it has ended");
        let unreadable = told(&json!({"until": "tomorrow"}));
        assert!(unreadable.is_on() && unreadable.to_string().contains("it has no end"), "{unreadable}");
    }
}
