//! A pause: zoneward keeps its hands off, and a person still gets a zone back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use zoneward::domain::isolation::{Granularity, Receipt, Share, StepName};
use zoneward::domain::{Event, Isolation, Pause, Zone};
use zoneward::isolate::Executor;
use zoneward::ports::{IsolationStep, IsolationStore, StepError};
use zoneward::sim::steps;

use crate::executor::{Records, Store, executor, sick, start, wish, world};
use crate::stage::Stage;
use crate::support::{eventually, json_lines, run, stdout, text};

const SOON: Duration = Duration::from_secs(30);

fn on() -> Pause {
    Pause::On { since: start(), until: None, why: "release".into() }
}

fn unknown() -> Pause {
    Pause::Unknown { why: "it can't be read".into() }
}

fn minute(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

/// An isolation of ten minutes in the embedded world.
struct Episode {
    executor: Executor,
    store: Arc<Store>,
    records: Arc<Records>,
    pause: watch::Sender<Pause>,
    world: Arc<std::sync::Mutex<zoneward::sim::World>>,
}

impl Episode {
    async fn new(pause: Pause) -> Self {
        let (world, store, records) = (world(), Arc::<Store>::default(), Arc::<Records>::default());
        store.create(wish(), start()).await.unwrap();
        let (pause, seen) = watch::channel(pause);
        let executor = executor(&steps(&world), &store, &records).pausable(seen);
        Self { executor, store, records, pause, world }
    }

    async fn at(&mut self, minutes: i64) -> Isolation {
        self.executor.run_until_idle(minute(minutes)).await.unwrap();
        self.store.list().await.unwrap().pop().unwrap()
    }

    fn drained(&self) -> bool {
        self.world.lock().unwrap().sights(1).iter().any(|zone| zone.draining_pods > 0)
    }
}

#[tokio::test]
async fn what_is_out_stays_as_it_is_and_is_given_back_when_resumed() {
    let mut episode = Episode::new(Pause::Off).await;
    assert!(episode.at(0).await.isolated_at.is_some());
    episode.pause.send_replace(on());
    let before = episode.at(5).await;
    let kept = episode.records.kept().len();
    for minutes in 10..15 {
        assert_eq!(episode.at(minutes).await, before, "not a word is written to its ledger");
    }
    assert!(episode.drained());
    let said: Vec<_> = episode.records.kept().split_off(kept);
    assert_eq!(said.len(), 1, "once: {said:?}");
    assert_eq!((said[0].event, said[0].zone.clone()), (Event::Paused, Some(sick())));
    assert!(said[0].message.contains("stays as it is, as zoneward is paused"), "{}", said[0].message);
    episode.pause.send_replace(Pause::Off);
    assert!(episode.at(15).await.restored_at.is_some() && !episode.drained());
}

#[tokio::test]
async fn what_a_person_gives_back_is_given_back_all_the_same() {
    let mut episode = Episode::new(Pause::Off).await;
    let mut isolation = episode.at(0).await;
    episode.pause.send_replace(on());
    isolation.restore_requested_at = Some(minute(1));
    episode.store.save(&isolation).await.unwrap();
    assert!(episode.at(1).await.restored_at.is_some() && !episode.drained());
}

#[tokio::test]
async fn a_pause_that_cannot_be_read_stops_what_goes_forward_and_no_undo() {
    let mut episode = Episode::new(unknown()).await;
    let waits = episode.at(0).await;
    assert!(waits.admitted_at().is_some() && waits.steps.is_empty() && !episode.drained(), "{waits:?}");
    episode.pause.send_replace(Pause::Off);
    assert!(episode.at(1).await.isolated_at.is_some() && episode.drained());
    episode.pause.send_replace(unknown());
    assert!(episode.at(10).await.restored_at.is_some() && !episode.drained());
}

/// Works on its pods for ever.
struct Endless(Arc<dyn IsolationStep>);

#[async_trait]
impl IsolationStep for Endless {
    fn name(&self) -> StepName {
        self.0.name()
    }

    fn granularity(&self) -> Granularity {
        self.0.granularity()
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        self.0.capture(zone).await
    }

    async fn apply(&self, _: &Zone, _: &Receipt, _: Share) -> Result<(), StepError> {
        std::future::pending().await
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.0.confirm(zone, receipt, share).await
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        self.0.marked().await
    }
}

#[tokio::test]
async fn a_verb_on_its_way_is_cut_short() {
    let world = world();
    let mut all = steps(&world);
    all[0] = Arc::new(Endless(Arc::clone(&all[0])));
    let (store, records) = (Arc::<Store>::default(), Arc::<Records>::default());
    store.create(wish(), start()).await.unwrap();
    let (pause, seen) = watch::channel(Pause::Off);
    let mut executor = executor(&all, &store, &records).pausable(seen);
    let later = async {
        tokio::task::yield_now().await;
        pause.send_replace(on());
    };
    let (advanced, ()) = tokio::join!(executor.run_until_idle(start()), later);
    advanced.unwrap();
    let isolation = store.list().await.unwrap().pop().unwrap();
    let told = isolation.steps[&all[0].name()].last_error.clone().unwrap();
    assert!(told.starts_with("it was cut short, as zoneward is paused"), "{told}");
}

#[test]
fn one_object_pauses_all_replicas_whoever_made_it() {
    let stage = Stage::new();
    let daemon = stage.daemon("one");
    stage.leads("one");
    let metric = |value: &str| daemon.get("/metrics").1.contains(&format!("zoneward_paused {value}\n")).then_some(());
    eventually("it knows that it is not paused", SOON, || metric("0"));
    assert!(stage.said(&["resume"]).contains("it was not paused"));

    // By kubectl, in the simplest form.
    stage.cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: zoneward-pause, namespace: zoneward}}");
    eventually("it is paused", SOON, || metric("1"));
    let by_hand = ["isolate", "zone-b", "--reason", "x", "--for", "1h", "--override", "stale-data"];
    let refused = stage.refused(&by_hand);
    assert!(refused.contains("zoneward is paused since") && refused.contains("(paused)"), "{refused}");
    assert!(stage.said(&["resume"]).contains("what waited goes on"));
    eventually("it goes on", SOON, || metric("0"));

    // By its own command, over a running isolation.
    stage.said(&by_hand);
    let told = stage.said(&["pause", "--reason", "release 42", "--for", "2h"]);
    assert!(told.contains(": release 42") && told.contains("zone-b is out, and stays as it is"), "{told}");
    eventually("it is paused again", SOON, || metric("1"));
    let status = stage.said(&["status"]);
    assert!(status.contains("zoneward is paused since"), "{status}");
    stage.cluster.kubectl(&["taint", "node", "zone-b-0", "zoneward.io/isolated-"]);
    let soon = format!(r#"{{"spec": {{"expiresAt": "{}"}}}}"#, Stage::in_future(Duration::from_secs(1)));
    stage.cluster.kubectl(&["patch", "zoneisolation", "zone-b", "--type=merge", "-p", &soon]);
    let waits = || stage.get(&["events", "-n", "default"]).to_string().contains("zone-b is due to be given back");
    eventually("what expires waits aloud", SOON, || waits().then_some(()));
    assert_eq!((stage.drained().len(), stage.tainted()), (2, vec!["zone-b-1".to_owned()]), "nothing is mended");
    let overdue = stage.said(&["restore", "--expired"]);
    assert!(overdue.contains("acts, and gives back") || overdue.contains("is paused"), "{overdue}");
    assert!(stage.said(&["restore", "zone-b"]).contains("is back in rotation"));
    assert!(stage.is_clean());
    stage.said(&["resume"]);
    let journal = stage.path("one");
    let on_record = || {
        let told = stdout(&run(&["audit", "--directory", journal.to_str().unwrap(), "--output", "json"]));
        let events = json_lines(&told).iter().map(|r| text(r, "event").to_owned()).collect::<Vec<_>>();
        events.contains(&"paused".to_owned()) && events.contains(&"resumed".to_owned())
    };
    eventually("both are on record", SOON, || on_record().then_some(()));
    let shown = || {
        let shown = stage.get(&["events", "-n", "zoneward"]).to_string();
        ["\"Paused\"", "\"Resumed\"", "zoneward-pause", "release 42"].iter().all(|said| shown.contains(said))
    };
    eventually("both are Events of the ConfigMap", SOON, || shown().then_some(()));
}
