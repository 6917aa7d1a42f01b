//! One story, in which a zone is sick beyond doubt from the second minute on: each of these guardrails alone keeps it in
//! rotation.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use zoneward::domain::ClusterView;
use zoneward::domain::cluster::{CpuUse, Node, Pod, PodId, Service, Workload, WorkloadId};
use zoneward::domain::{CycleLength, Event, Mode, Pause, Period, ServiceId, Snapshot, Zone};
use zoneward::guard::{self, Policy, Unreachable};
use zoneward::isolate::MemoryStore;
use zoneward::pipeline::{Pipeline, Settings};
use zoneward::ports::{IsolationStore, Observer};
use zoneward::sim::WorldObserver;

use crate::executor::{Records, start, world};

pub fn minute(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

/// The first eight minutes. Returns what held the zone back, and in which minute it was isolated.
pub async fn story(
    guard: guard::Settings,
    mut every_cycle: impl FnMut(&mut Pipeline, &mut Snapshot),
) -> (Vec<String>, Option<i64>) {
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let (store, records) = (Arc::new(MemoryStore::default()), Arc::new(Records::default()));
    let mut observer = WorldObserver::new(world(), cycle);
    let settings = Settings { mode: Mode::Enforce, guard, ..Settings::default() };
    let mut pipeline = Pipeline::new(settings, cycle, store.clone(), records.clone());
    for snapshot in observer.observe(minute(-15), start()).await.unwrap() {
        pipeline.learn(&snapshot);
    }
    for mut snapshot in observer.observe(start() + cycle.signed(), minute(8)).await.unwrap() {
        every_cycle(&mut pipeline, &mut snapshot);
        pipeline.tick(&mut observer, &snapshot, snapshot.time).await.unwrap();
    }
    let blocked = records.kept().into_iter().filter(|record| record.event == Event::Blocked);
    let why = blocked.map(|record| record.reason.unwrap().as_str().to_owned()).collect();
    let isolated = store.list().await.unwrap().first().map(|i| i.requested_at.duration_since(start()).as_mins());
    (why, isolated)
}

#[tokio::test]
async fn without_any_of_them_the_zone_is_isolated() {
    assert_eq!(story(guard::Settings::default(), |_, _| {}).await, (vec![], Some(2)));
}

#[tokio::test]
async fn a_pause_until_it_ends() {
    let on = Pause::On { since: start(), until: None, why: "release".into() };
    let pause = |pipeline: &mut Pipeline, snapshot: &mut Snapshot| {
        pipeline.pause(if snapshot.time < minute(6) { on.clone() } else { Pause::Off });
    };
    assert_eq!(story(guard::Settings::default(), pause).await, (vec!["paused".to_owned()], Some(6)));
}

#[tokio::test]
async fn a_blocked_window_until_it_ends() {
    let window = r#"[{"from": "23:00", "to": "00:06", "why": "batches"}]"#;
    let settings = guard::Settings { blocked_windows: serde_json::from_str(window).unwrap(), ..Default::default() };
    assert_eq!(story(settings, |_, _| {}).await, (vec!["blocked_window".to_owned()], Some(6)));
}

/// A node in each zone.
fn nodes() -> ClusterView {
    let mut view = ClusterView::default();
    for letter in ["g", "h", "k"] {
        let zone = Some(Zone::new(format!("cn-hangzhou-{letter}")));
        view.nodes.insert(letter.to_owned(), Node { zone, available: true, ..Node::default() });
    }
    view
}

#[tokio::test]
async fn pods_that_nothing_could_replace_elsewhere_if_that_is_to_hold() {
    let mut cluster = nodes();
    let id = WorkloadId { namespace: "default".into(), kind: "StatefulSet".into(), name: "ledger".into() };
    let pinned = [(Zone::new("cn-hangzhou-h"), (1, "its nodeSelector".to_owned()))].into();
    cluster.workloads.insert(id, Workload { pinned, ..Workload::default() });
    let until_the_sixth = |_: &mut Pipeline, snapshot: &mut Snapshot| {
        let early = snapshot.time < minute(6);
        snapshot.cluster = Some(if early { cluster.clone() } else { nodes() });
    };
    let holds = guard::Settings { capacity_traps: Policy::Hold, ..guard::Settings::default() };
    assert_eq!(story(holds, until_the_sixth).await, (vec!["capacity_trap".to_owned()], Some(6)));
    assert_eq!(story(guard::Settings::default(), until_the_sixth).await, (vec![], Some(2)), "it warns by default");
}

#[tokio::test]
async fn endpoints_elsewhere_without_the_cpu_for_what_would_move_there() {
    let mut cluster = nodes();
    let mockb = ServiceId::new("default", "mockb");
    cluster.services.insert(mockb.clone(), Service::default());
    let mut cpu = CpuUse { seen_at: start(), pods: BTreeMap::new() };
    for letter in ["g", "h", "k"] {
        let zone = Some(Zone::new(format!("cn-hangzhou-{letter}")));
        let id = PodId { namespace: "default".into(), name: format!("mockb-{letter}") };
        cpu.pods.insert(id.clone(), 800);
        let services = [mockb.clone()].into();
        cluster.pods.insert(id, Pod { zone, ready: true, services, cpu_limit: Some(1_000), ..Pod::default() });
    }
    let busy_until_the_sixth = |_: &mut Pipeline, snapshot: &mut Snapshot| {
        let mut cpu = CpuUse { seen_at: snapshot.time, ..cpu.clone() };
        if snapshot.time >= minute(6) {
            cpu.pods.values_mut().for_each(|used| *used = 300);
        }
        snapshot.cluster = Some(ClusterView { cpu_use: Some(Arc::new(cpu)), ..cluster.clone() });
    };
    let held = story(guard::Settings::default(), busy_until_the_sixth).await;
    assert_eq!(held, (vec!["insufficient_cpu".to_owned()], Some(6)));
    let unasked = guard::Settings { max_cpu: None, ..guard::Settings::default() };
    assert_eq!(story(unasked, busy_until_the_sixth).await, (vec![], Some(2)));
}

#[tokio::test]
async fn a_service_that_runs_in_the_zone_alone_unless_it_is_to_be_left_there() {
    let mut cluster = nodes();
    let ledger = ServiceId::new("default", "ledger");
    cluster.services.insert(ledger.clone(), Service::default());
    let zone = Some(Zone::new("cn-hangzhou-h"));
    let pod = Pod { zone, ready: true, services: [ledger].into(), ..Pod::default() };
    cluster.pods.insert(PodId { namespace: "default".into(), name: "ledger-1".into() }, pod);
    let alone = |_: &mut Pipeline, snapshot: &mut Snapshot| snapshot.cluster = Some(cluster.clone());
    assert_eq!(story(guard::Settings::default(), alone).await, (vec!["unreachable_service".to_owned()], None));
    let skip = guard::Settings { unreachable_services: Unreachable::Skip, ..guard::Settings::default() };
    assert_eq!(story(skip, alone).await, (vec![], Some(2)));
}
