//! Zonal shift of NLB and ALB on the documented server: what was there comes back exactly, others' shifts stay, the last zone
//! stays, and each failure is told and can be gone back from.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::domain::{ClusterView, Zone};
use zoneward::isolate::steps::dns_alibaba::{DnsAlibaba, Settings};
use zoneward::isolate::steps::{Look, Probe, RealStep, StepSettings};
use zoneward::ports::{IsolationStep, StepError};

use crate::alibaba_cloud::{Balancer, Cloud};
use crate::contract::{self, Mark};

pub const START: &str = "StartShiftLoadBalancerZones";
pub const CANCEL: &str = "CancelShiftLoadBalancerZones";

pub fn settings(cloud: &Cloud, ids: &[&str]) -> Settings {
    let balancer = |id: &&str| json!({"kind": &id[..3], "id": id, "region": "cn-hangzhou", "endpoint": cloud.url()});
    let balancers: Vec<_> = ids.iter().map(balancer).collect();
    let settings: Settings = serde_json::from_value(json!({"load_balancers": balancers, "timeout": "1s"})).unwrap();
    assert_eq!(settings.problems(), []);
    settings
}

pub fn step_of(cloud: &Cloud, settings: Settings) -> DnsAlibaba {
    let look: Arc<Look> = Arc::new(|| Ok(ClusterView::default()));
    DnsAlibaba::new(settings, cloud.surroundings(), &look)
}

/// `nlb-2` has no address in the zone `h`.
pub fn step(cloud: &Cloud) -> DnsAlibaba {
    step_of(cloud, settings(cloud, &["nlb-1", "alb-1", "nlb-2"]))
}

pub fn zone(name: &str) -> Zone {
    Zone::new(format!("cn-hangzhou-{name}"))
}

pub fn everything(cloud: &Cloud) -> BTreeMap<String, Balancer> {
    cloud.world().balancers.clone()
}

pub async fn shift(step: &DnsAlibaba, name: &str) -> Receipt {
    let receipt = step.capture(&zone(name)).await.unwrap();
    step.apply(&zone(name), &receipt, Share::NONE).await.unwrap();
    step.confirm(&zone(name), &receipt, Share::NONE).await.unwrap();
    receipt
}

pub async fn give_back(step: &DnsAlibaba, name: &str, receipt: &Receipt) {
    step.apply(&zone(name), receipt, Share::FULL).await.unwrap();
    step.confirm(&zone(name), receipt, Share::FULL).await.unwrap();
}

pub fn permanent<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
    match result {
        Err(StepError::Permanent { why }) => why,
        other => panic!("{other:?}"),
    }
}

pub fn transient<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
    match result {
        Err(StepError::Transient { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_verb_may_run_twice_and_undo_restores_what_was() {
    let cloud = Cloud::start().await;
    let (step, before) = (step(&cloud), everything(&cloud));
    let receipt = step.capture(&zone("h")).await.unwrap();
    assert_eq!(step.capture(&zone("h")).await.unwrap(), receipt);
    let expected = [
        ("alb cn-hangzhou alb-1", "active cn-hangzhou-h vsw-cn-hangzhou-h"),
        ("nlb cn-hangzhou nlb-1", "active cn-hangzhou-h vsw-cn-hangzhou-h"),
        ("nlb cn-hangzhou nlb-2", "absent cn-hangzhou-h"),
    ];
    assert_eq!(receipt, Receipt(expected.map(|(key, was)| (key.to_owned(), was.to_owned())).into()));
    for _ in 0..2 {
        step.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
        step.confirm(&zone("h"), &receipt, Share::NONE).await.unwrap();
    }
    assert_eq!(
        (cloud.state("nlb-1", "h"), cloud.state("alb-1", "h"), cloud.world().changes),
        ("Shifted".into(), "Shifted".into(), 2)
    );
    assert!(step.confirm(&zone("h"), &receipt, Share::FULL).await.is_err(), "it is not undone yet");
    for _ in 0..2 {
        give_back(&step, "h", &receipt).await;
    }
    assert_eq!((everything(&cloud), cloud.world().changes), (before, 4));
    assert!(step.marked().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_somebody_else_shifted_stays_theirs() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    cloud.set("nlb-1", "h", "Shifted");
    let before = everything(&cloud);
    let receipt = shift(&step, "h").await;
    assert_eq!(cloud.state("alb-1", "h"), "Shifted");
    give_back(&step, "h", &receipt).await;
    assert_eq!(everything(&cloud), before);
    // They give it back in the middle of it: that is told, and not undone.
    step.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
    cloud.set("nlb-1", "h", "Active");
    let why = permanent(step.apply(&zone("h"), &receipt, Share::NONE).await);
    assert!(why.starts_with("nlb-1 (cn-hangzhou) takes traffic in cn-hangzhou-h again: somebody else"), "{why}");
    give_back(&step, "h", &receipt).await;
    assert_eq!((cloud.state("nlb-1", "h"), cloud.state("alb-1", "h")), ("Active".into(), "Active".into()));
}

#[tokio::test]
async fn a_shift_that_somebody_takes_back_is_made_again() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    let receipt = shift(&step, "h").await;
    cloud.set("alb-1", "h", "Active");
    assert!(step.confirm(&zone("h"), &receipt, Share::NONE).await.is_err());
    step.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
    step.confirm(&zone("h"), &receipt, Share::NONE).await.unwrap();
    // And what somebody gives back first is given back.
    cloud.set("alb-1", "h", "Active");
    give_back(&step, "h", &receipt).await;
}

#[tokio::test]
async fn the_last_active_zone_of_any_load_balancer_keeps_all_as_they_are() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    cloud.set("nlb-1", "j", "Shifted");
    cloud.set("nlb-1", "k", "Stopped");
    let before = everything(&cloud);
    let receipt = step.capture(&zone("h")).await.unwrap();
    let why = permanent(step.apply(&zone("h"), &receipt, Share::NONE).await);
    let expected = "nlb-1 (cn-hangzhou) would be left with no active zone: cn-hangzhou-h is the last one in its DNS name. \
                    It is left as it is. Give it another zone, or give back one that is shifted";
    assert_eq!(why, expected);
    assert_eq!((everything(&cloud), cloud.world().changes), (before.clone(), 0));
    let changes = step.preview(&zone("h"), Share::NONE).await.unwrap().changes;
    assert_eq!(changes[1], format!("would be refused: {expected}"));
    give_back(&step, "h", &receipt).await;
    assert_eq!(everything(&cloud), before);
}

#[tokio::test]
async fn a_change_that_takes_time_is_waited_for() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    cloud.world().lag = 3;
    let receipt = step.capture(&zone("h")).await.unwrap();
    step.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
    let why = transient(step.confirm(&zone("h"), &receipt, Share::NONE).await);
    assert!(why.contains("alb-1 (cn-hangzhou) has cn-hangzhou-h as Active, and not Shifted yet"), "{why}");
    let why = transient(step.apply(&zone("h"), &receipt, Share::NONE).await);
    assert!(why.contains("alb-1 (cn-hangzhou) is Configuring: it takes a change once it is Active"), "{why}");
    while step.confirm(&zone("h"), &receipt, Share::NONE).await.is_err() {}
    assert_eq!(cloud.world().changes, 2);
    step.apply(&zone("h"), &receipt, Share::FULL).await.unwrap();
    while step.confirm(&zone("h"), &receipt, Share::FULL).await.is_err() {}
    assert_eq!((cloud.state("nlb-1", "h"), cloud.world().changes), ("Active".into(), 4));
}

#[tokio::test]
async fn a_preview_says_what_would_change() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    cloud.world().balancers.get_mut("nlb-1").unwrap().cross_zone = true;
    let changes = step.preview(&zone("h"), Share::NONE).await.unwrap().changes;
    let expected = [
        "alb-1 (cn-hangzhou) loses cn-hangzhou-h from its DNS name lb.example.org, and keeps cn-hangzhou-j, cn-hangzhou-k",
        "nlb-1 (cn-hangzhou) loses cn-hangzhou-h from its DNS name lb.example.org, and keeps cn-hangzhou-j, cn-hangzhou-k. \
         Cross-zone forwarding is on: its other zones still send to backends in cn-hangzhou-h, until other steps take \
         those out",
        "nlb-2 (cn-hangzhou) has no address in cn-hangzhou-h: nothing to do",
    ];
    assert_eq!(changes, expected);
    let changes = step.preview(&zone("h"), Share::percent(100)).await.unwrap().changes;
    assert_eq!(changes[0], "alb-1 (cn-hangzhou) keeps cn-hangzhou-h in its DNS name");
    cloud.set("alb-1", "h", "Shifted");
    let changes = step.preview(&zone("h"), Share::NONE).await.unwrap().changes;
    assert!(
        changes[0].starts_with("alb-1 (cn-hangzhou) has cn-hangzhou-h as Shifted already: it is left so"),
        "{changes:?}"
    );
    assert_eq!(cloud.world().changes, 0);
}

#[tokio::test]
async fn a_probe_rehearses_and_changes_nothing() {
    let cloud = Cloud::start().await;
    let before = everything(&cloud);
    let probes = step(&cloud).probe().await;
    let all = "cn-hangzhou-h Active, cn-hangzhou-j Active, cn-hangzhou-k Active";
    let works = |text: String| Probe::Works(text);
    let expected = [
        works("calls have the rights of the access key of the environment".to_owned()),
        works(format!("alb-1 (cn-hangzhou), lb.example.org: {all}")),
        works(format!("nlb-1 (cn-hangzhou), lb.example.org: {all}")),
        works("nlb-2 (cn-hangzhou), lb.example.org: cn-hangzhou-j Active, cn-hangzhou-k Active".to_owned()),
    ];
    assert_eq!(probes, expected);
    let calls = cloud.take_calls();
    assert!(calls.contains(&format!("{START} alb-1 cn-hangzhou-h rehearsed")), "{calls:?}");
    assert_eq!((everything(&cloud), cloud.world().changes), (before, 0));

    cloud.world().balancers.get_mut("alb-1").unwrap().mode = "Dynamic";
    cloud.world().balancers.get_mut("nlb-1").unwrap().cross_zone = true;
    cloud.set("nlb-2", "j", "Shifted");
    let probes = step(&cloud).probe().await;
    assert!(matches!(&probes[2], Probe::Broken { found, .. } if found.contains("alb-1 must be one in static IP mode")));
    let unsure: Vec<&str> = probes
        .iter()
        .filter_map(|probe| if let Probe::Unsure { found, .. } = probe { Some(found.as_str()) } else { None })
        .collect();
    assert!(unsure[0].contains("Cross-zone forwarding is on"), "{unsure:?}");
    assert_eq!(unsure[1], "nlb-2 (cn-hangzhou) has fewer than two active zones: none can be shifted");
    let nobody = step_of(&cloud, settings(&cloud, &["nlb-404"])).probe().await;
    assert!(matches!(&nobody[1], Probe::Broken { found, .. } if found.contains("there is no nlb-404")), "{nobody:?}");
}

#[tokio::test]
async fn a_sweep_gives_back_nothing_and_says_what_is_shifted() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    assert_eq!(step.sweep(None).await, Ok(vec![]));
    let receipt = shift(&step, "h").await;
    let lines = step.sweep(Some(&zone("h"))).await.unwrap();
    let expected = "nothing by marks, as the cloud keeps none (shifted: cn-hangzhou-h of alb-1 (cn-hangzhou), \
                    cn-hangzhou-h of nlb-1 (cn-hangzhou); given back only where a ZoneIsolation says that zoneward did it)";
    assert_eq!(lines, [expected]);
    assert_eq!(step.sweep(Some(&zone("j"))).await, Ok(vec![]));
    assert_eq!(cloud.state("nlb-1", "h"), "Shifted");
    give_back(&step, "h", &receipt).await;
}

#[tokio::test]
async fn load_balancers_keep_to_the_contract() {
    let cloud = Cloud::start().await;
    let sight = || json!(format!("{:?}", everything(&cloud)));
    contract::holds(&step(&cloud), Mark::Nowhere, ("cn-hangzhou-h", "cn-hangzhou-i"), sight).await;
}
