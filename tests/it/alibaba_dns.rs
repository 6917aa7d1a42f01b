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

use crate::alibaba_cloud::{Balancer, Cloud, Fault};

const START: &str = "StartShiftLoadBalancerZones";
const CANCEL: &str = "CancelShiftLoadBalancerZones";

fn settings(cloud: &Cloud, ids: &[&str]) -> Settings {
    let balancer = |id: &&str| json!({"kind": &id[..3], "id": id, "region": "cn-hangzhou", "endpoint": cloud.url()});
    let balancers: Vec<_> = ids.iter().map(balancer).collect();
    let settings: Settings = serde_json::from_value(json!({"load_balancers": balancers, "timeout": "1s"})).unwrap();
    assert_eq!(settings.problems(), []);
    settings
}

fn step_of(cloud: &Cloud, settings: Settings) -> DnsAlibaba {
    let look: Arc<Look> = Arc::new(|| Ok(ClusterView::default()));
    DnsAlibaba::new(settings, cloud.surroundings(), &look)
}

/// `nlb-2` has no address in the zone `h`.
fn step(cloud: &Cloud) -> DnsAlibaba {
    step_of(cloud, settings(cloud, &["nlb-1", "alb-1", "nlb-2"]))
}

fn zone(name: &str) -> Zone {
    Zone::new(format!("cn-hangzhou-{name}"))
}

fn everything(cloud: &Cloud) -> BTreeMap<String, Balancer> {
    cloud.world().balancers.clone()
}

async fn shift(step: &DnsAlibaba, name: &str) -> Receipt {
    let receipt = step.capture(&zone(name)).await.unwrap();
    step.apply(&zone(name), &receipt, Share::NONE).await.unwrap();
    step.confirm(&zone(name), &receipt, Share::NONE).await.unwrap();
    receipt
}

async fn give_back(step: &DnsAlibaba, name: &str, receipt: &Receipt) {
    step.apply(&zone(name), receipt, Share::FULL).await.unwrap();
    step.confirm(&zone(name), receipt, Share::FULL).await.unwrap();
}

fn permanent<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
    match result {
        Err(StepError::Permanent { why }) => why,
        other => panic!("{other:?}"),
    }
}

fn transient<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
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
async fn a_crash_between_two_load_balancers_is_gone_on_from() {
    let cloud = Cloud::start().await;
    let (first, before) = (step(&cloud), everything(&cloud));
    let receipt = first.capture(&zone("h")).await.unwrap();
    let one = step_of(&cloud, settings(&cloud, &["nlb-1"]));
    let of_one = Receipt(receipt.0.clone().into_iter().filter(|(key, _)| key.ends_with("nlb-1")).collect());
    one.apply(&zone("h"), &of_one, Share::NONE).await.unwrap();
    // Another process goes on, with the receipt that was saved.
    let second = step(&cloud);
    second.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
    second.confirm(&zone("h"), &receipt, Share::NONE).await.unwrap();
    one.apply(&zone("h"), &of_one, Share::FULL).await.unwrap();
    give_back(&step(&cloud), "h", &receipt).await;
    assert_eq!(everything(&cloud), before);
}

/// Every call fails in turn, alone and with all that follow; then the cloud is whole again, and what was begun is undone.
#[tokio::test]
async fn a_failure_at_any_call_is_told_and_undone() {
    let mut points = 0;
    for (lasts, at) in [false, true].into_iter().flat_map(|lasts| (0..11).map(move |at| (lasts, at))) {
        let cloud = Cloud::start().await;
        cloud.set("alb-1", "k", "Shifted");
        let (step, before) = (step(&cloud), everything(&cloud));
        let mut faults = vec![None; at];
        faults.push(Some(Fault::Refuse(500, "InternalError")));
        if lasts {
            cloud.world().fails_after = Some(at);
        } else {
            cloud.next(&faults);
        }
        let mut receipt = Receipt::default();
        let outcome = async {
            receipt = step.capture(&zone("h")).await?;
            step.apply(&zone("h"), &receipt, Share::NONE).await?;
            step.confirm(&zone("h"), &receipt, Share::NONE).await
        };
        let why = transient(outcome.await);
        assert!(why.contains("InternalError"), "{why}");
        cloud.next(&[]);
        cloud.world().fails_after = None;
        give_back(&step, "h", &receipt).await;
        assert_eq!(everything(&cloud), before, "call {at}, lasting: {lasts}");
        points += 1;
    }
    assert_eq!(points, 22, "3 reads, 3 reads and 2 shifts, 3 reads: each alone, and with all that follow");
}

#[tokio::test]
async fn one_load_balancer_that_fails_keeps_no_other_from_its_turn() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    let receipt = step.capture(&zone("h")).await.unwrap();
    cloud.world().balancers.get_mut("nlb-1").unwrap().status = "Configuring".to_owned();
    let why = transient(step.apply(&zone("h"), &receipt, Share::NONE).await);
    assert_eq!(why, "nlb-1 (cn-hangzhou) is Configuring: it takes a change once it is Active");
    assert_eq!(cloud.state("alb-1", "h"), "Shifted");
    cloud.world().balancers.get_mut("nlb-1").unwrap().status = "Active".to_owned();
    // Done, though the answer was lost: the next reading shows it.
    cloud.next(&[None, None, None, Some(Fault::DoneButLost)]);
    transient(step.apply(&zone("h"), &receipt, Share::NONE).await);
    step.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
    assert_eq!((cloud.state("nlb-1", "h"), cloud.world().changes), ("Shifted".into(), 2));
}

#[tokio::test]
async fn one_that_can_not_be_read_is_told_and_the_others_are_shifted() {
    let cloud = Cloud::start().await;
    let step = step_of(&cloud, settings(&cloud, &["alb-1", "nlb-1", "nlb-404"]));
    let receipt = step.capture(&zone("h")).await.unwrap();
    assert_eq!(receipt.0.len(), 2);
    let why = permanent(step.apply(&zone("h"), &receipt, Share::NONE).await);
    assert!(why.starts_with("nlb-404 (cn-hangzhou) was not shifted: when the isolation began"), "{why}");
    assert_eq!((cloud.state("nlb-1", "h"), cloud.state("alb-1", "h")), ("Shifted".into(), "Shifted".into()));
    give_back(&step, "h", &receipt).await;
    let alone = step_of(&cloud, settings(&cloud, &["nlb-404"]));
    let why = permanent(alone.capture(&zone("h")).await);
    assert!(why.ends_with("there is no nlb-404 (cn-hangzhou) for this account: compare its id, kind and region, and whose credentials these are"), "{why}");
}

#[tokio::test]
async fn a_wrong_region_or_zone_is_told() {
    let cloud = Cloud::start().await;
    let mut elsewhere = settings(&cloud, &["nlb-1"]);
    elsewhere.load_balancers[0].region = "cn-beijing".to_owned();
    elsewhere.zones = [(zone("h"), "cn-beijing-h".to_owned())].into();
    let why = permanent(step_of(&cloud, elsewhere).capture(&zone("h")).await);
    assert!(why.contains("there is no nlb-1 (cn-beijing) for this account"), "{why}");
    let mut named = settings(&cloud, &["nlb-1"]);
    let why = permanent(step_of(&cloud, named.clone()).capture(&Zone::new("zone-b")).await);
    assert!(why.starts_with("zone-b is no zone of cn-hangzhou, where the load balancers are: "), "{why}");
    named.zones = [(Zone::new("zone-b"), "cn-hangzhou-j".to_owned())].into();
    let step = step_of(&cloud, named);
    let receipt = step.capture(&Zone::new("zone-b")).await.unwrap();
    step.apply(&Zone::new("zone-b"), &receipt, Share::NONE).await.unwrap();
    assert_eq!(cloud.state("nlb-1", "j"), "Shifted");
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let cloud = Cloud::start().await;
    let step = step_of(&cloud, settings(&cloud, &["nlb-1"]));
    cloud.world().denied.insert(START);
    let receipt = step.capture(&zone("h")).await.unwrap();
    let why = permanent(step.apply(&zone("h"), &receipt, Share::NONE).await);
    let right = format!("nlb:{START} on acs:nlb:cn-hangzhou:*:loadbalancer/nlb-1");
    assert!(why.ends_with(&format!("let the account's RAM policy allow {right}")), "{why}");
    let probes = step.probe().await;
    assert!(matches!(&probes[2], Probe::Broken { found, .. } if found.ends_with(&right)), "{probes:?}");
    cloud.world().denied = [CANCEL].into();
    let probes = step.probe().await;
    assert!(
        matches!(&probes[2], Probe::Broken { found, .. } if found.contains(&format!("nlb:{CANCEL}"))),
        "{probes:?}"
    );
}

/// ALB says so; what we read a moment ago is not what is there.
#[tokio::test]
async fn somebody_who_was_faster_is_no_failure() {
    let cloud = Cloud::start().await;
    let step = step_of(&cloud, settings(&cloud, &["alb-1"]));
    let receipt = step.capture(&zone("h")).await.unwrap();
    cloud.next(&[None, Some(Fault::Refuse(400, "OperationDenied.ZoneMappingsNotChanged"))]);
    step.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
    assert!(step.confirm(&zone("h"), &receipt, Share::NONE).await.is_err(), "what is read decides");
}

#[tokio::test]
async fn what_left_the_settings_is_given_back_all_the_same() {
    let cloud = Cloud::start().await;
    let (configured, before) = (step_of(&cloud, settings(&cloud, &["nlb-1"])), everything(&cloud));
    let receipt = shift(&configured, "h").await;
    let other = step_of(&cloud, settings(&cloud, &["nlb-2"]));
    give_back(&other, "h", &receipt).await;
    assert_eq!(everything(&cloud), before);
    // One that was deleted is told, until a person takes it out of the settings.
    let receipt = shift(&configured, "h").await;
    cloud.world().balancers.remove("nlb-1");
    let why = permanent(configured.apply(&zone("h"), &receipt, Share::FULL).await);
    assert!(why.contains("there is no nlb-1"), "{why}");
    give_back(&other, "h", &receipt).await;
    // But keys that are refused are no load balancer that is gone.
    cloud.world().keys.clear();
    let why = permanent(other.apply(&zone("h"), &receipt, Share::FULL).await);
    assert!(why.contains("InvalidAccessKeyId.NotFound") && !why.contains("there is no nlb-1"), "{why}");
    let unreadable = Receipt([("nlb-1".to_owned(), "active".to_owned())].into());
    let why = permanent(configured.apply(&zone("h"), &unreadable, Share::FULL).await);
    assert_eq!(why, "the receipt has `nlb-1`: `active`, which is no load balancer and state");
}

/// The same on the way back: what fails is told, and the next try ends it.
#[tokio::test]
async fn a_failure_at_any_call_of_the_return_is_told_and_made_good() {
    for (lasts, at) in [false, true].into_iter().flat_map(|lasts| (0..8).map(move |at| (lasts, at))) {
        let cloud = Cloud::start().await;
        let (step, before) = (step(&cloud), everything(&cloud));
        let receipt = shift(&step, "h").await;
        let mut faults = vec![None; at];
        faults.push(Some(Fault::Refuse(500, "InternalError")));
        if lasts {
            cloud.world().fails_after = Some(at);
        } else {
            cloud.next(&faults);
        }
        let outcome = async {
            step.apply(&zone("h"), &receipt, Share::FULL).await?;
            step.confirm(&zone("h"), &receipt, Share::FULL).await
        };
        assert!(transient(outcome.await).contains("InternalError"), "call {at}, lasting: {lasts}");
        cloud.next(&[]);
        cloud.world().fails_after = None;
        give_back(&step, "h", &receipt).await;
        assert_eq!(everything(&cloud), before, "call {at}, lasting: {lasts}");
    }
}

#[tokio::test]
async fn a_zone_that_left_a_load_balancer_is_nobodys_failure() {
    let cloud = Cloud::start().await;
    let step = step(&cloud);
    let receipt = shift(&step, "h").await;
    cloud.world().balancers.get_mut("nlb-1").unwrap().zones.remove("cn-hangzhou-h");
    step.apply(&zone("h"), &receipt, Share::NONE).await.unwrap();
    step.confirm(&zone("h"), &receipt, Share::NONE).await.unwrap();
    give_back(&step, "h", &receipt).await;
    cloud.set("nlb-2", "h", "Active");
    let why = permanent(step.apply(&zone("h"), &receipt, Share::NONE).await);
    assert!(why.starts_with("nlb-2 (cn-hangzhou) has addresses in cn-hangzhou-h since the isolation began"), "{why}");
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
