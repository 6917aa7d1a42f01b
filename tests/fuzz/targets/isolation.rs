//! The custom resources: read, written and read again; and the ledger, whatever comes of a step.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use zoneward::domain::isolation::{Granularity, Receipt, Share};
use zoneward::domain::{Isolation, Pause, Request};
use zoneward::isolate::{KubernetesStore, StepEvent};
use zoneward::ports::{IsolationStore, StepError};

use crate::api_server::ApiServer;
use crate::wait;

pub fn run(data: &[u8]) {
    let Ok(input) = serde_json::from_slice::<Value>(data) else { return };
    let events = input["events"].as_str().unwrap_or_default().to_owned();
    wait(async {
        let client = ApiServer::new(input).client();
        let store = KubernetesStore::new(&client);
        drop(store.holds().await);
        let Ok(first) = store.list().await else { return };
        for isolation in first.iter().filter(|isolation| isolation.active()) {
            told(isolation);
            drop((store.save(isolation).await, store.save_course(isolation).await));
        }
        let second = store.list().await.expect("what was written can be read");
        for isolation in first.iter().filter(|isolation| isolation.active()) {
            same(isolation, &second);
        }
        for isolation in second.iter().filter(|isolation| isolation.active()) {
            drop((store.save(isolation).await, store.save_course(isolation).await));
        }
        let third = store.list().await.expect("what was written can be read");
        assert_eq!(format!("{second:#?}"), format!("{third:#?}"), "written and read again, it is another");
        third.into_iter().for_each(|isolation| advance(isolation, &events));
    });
}

/// The ledger is what was written.
fn same(before: &Isolation, all: &[Isolation]) {
    let Some(after) = all.iter().find(|after| after.id == before.id) else { return };
    // Of two objects of one name the API server would hold one.
    if all.iter().filter(|other| other.zone() == before.zone() && other.active()).count() == 1 {
        assert_eq!((&after.steps, after.admitted_at()), (&before.steps, before.admitted_at()), "the ledger is another");
    }
}

fn told(isolation: &Isolation) {
    let moments = [Timestamp::UNIX_EPOCH, isolation.requested_at, isolation.expires_at(), isolation.ends_at()];
    for now in moments {
        let granularities = [Granularity::Pods, Granularity::Weights, Granularity::NewPods, Granularity::AllOrNothing];
        assert!(granularities.into_iter().all(|granularity| isolation.wanted(granularity, now) <= Share::FULL));
        drop((Request::of(isolation, now), isolation.returning(now), Pause::Off.stops(isolation, now)));
    }
}

/// One letter an event; after an illegal one nothing has changed.
fn advance(mut isolation: Isolation, events: &str) {
    let mut now: Timestamp = "2026-01-01T12:00:00.123Z".parse().expect("a moment");
    for event in events.chars().take(1_000) {
        let share = Share::percent(u8::try_from(u32::from(event) % 128).unwrap_or_default());
        let why = || event.to_string();
        let event = match event {
            'c' => StepEvent::Captured(Receipt([(why(), why())].into())),
            'k' => StepEvent::Kept(vec![why()]),
            'n' => StepEvent::NothingToUndo,
            'p' => StepEvent::Failed(StepError::Permanent { why: why() }),
            't' => StepEvent::Failed(StepError::Transient { why: why(), retry_after: SignedDuration::MAX }),
            'A'..='M' => StepEvent::Applied(share),
            'N'..='Z' => StepEvent::Confirmed(share),
            'u' => StepEvent::Applied(Share::FULL),
            _ => StepEvent::Confirmed(Share::FULL),
        };
        for entry in isolation.steps.values_mut() {
            let before = entry.clone();
            if entry.record(event.clone(), now).is_err() {
                assert_eq!(*entry, before, "an illegal event changed it");
            }
        }
        now += SignedDuration::from_millis(1_234);
    }
}
