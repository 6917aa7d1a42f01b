//! Zonal shift when calls fail, somebody interferes, or the process dies: it is told, gone on from, and undone.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use zoneward::domain::isolation::{IsolationSpec, Receipt, Share};
use zoneward::domain::{Isolation, Origin, Record, Zone};
use zoneward::isolate::steps::{Probe, RealStep};
use zoneward::isolate::{Executor, MemoryStore};
use zoneward::ports::{AuditError, AuditSink, IsolationStep, IsolationStore};

use crate::alibaba_cloud::{Cloud, Fault};
use crate::alibaba_dns::{
    CANCEL, START, everything, give_back, permanent, settings, shift, step, step_of, transient, zone,
};

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

struct Silent;

#[async_trait]
impl AuditSink for Silent {
    async fn append(&self, _: Record) -> Result<(), AuditError> {
        Ok(())
    }
}

/// A process that dies at any call, out and back; another goes on with nothing but what was saved.
#[tokio::test]
async fn whatever_call_the_process_dies_at_another_ends_what_it_began() {
    async fn run(cloud: &Cloud, store: &Arc<MemoryStore>, now: Timestamp) {
        let step: Arc<dyn IsolationStep> = Arc::new(step(cloud));
        let mut executor = Executor::trusting(vec![step], store.clone(), Arc::new(Silent));
        executor.run_until_idle(now).await.unwrap();
    }
    let later = SignedDuration::from_mins(2);
    for (out, back) in (0..12).map(|at| (at, 100)).chain((0..9).map(|at| (100, at))) {
        let (cloud, store) = (Cloud::start().await, Arc::new(MemoryStore::default()));
        cloud.set("alb-1", "k", "Shifted");
        let (before, mut now) = (everything(&cloud), "2026-11-24T12:00:00Z".parse::<Timestamp>().unwrap());
        let spec = IsolationSpec {
            zone: zone("h"),
            origin: Origin::Operator,
            reason: "x".to_owned(),
            evidence: Vec::new(),
            expires_at: now + SignedDuration::from_hours(1),
            share: Share::NONE,
            only: Default::default(),
            overrides: Default::default(),
            approved: true,
        };
        store.create(spec, now).await.unwrap();
        cloud.world().fails_after = Some(out);
        run(&cloud, &store, now).await;
        cloud.world().fails_after = None;
        now += later;
        run(&cloud, &store, now).await;
        assert_eq!(
            (cloud.state("nlb-1", "h"), cloud.state("alb-1", "h")),
            ("Shifted".into(), "Shifted".into()),
            "{out}"
        );
        let mut out_now = store.list().await.unwrap().into_iter().find(Isolation::active).unwrap();
        out_now.end("the test says so".to_owned(), now);
        store.save_course(&out_now).await.unwrap();
        cloud.world().fails_after = Some(back);
        run(&cloud, &store, now).await;
        cloud.world().fails_after = None;
        run(&cloud, &store, now + later).await;
        assert_eq!(everything(&cloud), before, "out {out}, back {back}");
        let isolations: Vec<Isolation> = store.list().await.unwrap();
        assert!(isolations.iter().all(|isolation| isolation.restored_at.is_some()), "out {out}, back {back}");
    }
}
