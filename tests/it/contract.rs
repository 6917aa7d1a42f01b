//! What every step keeps to, whatever it changes: each verb may run twice and be cut short, undo restores what was, what
//! others have is left alone, and looking changes nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zoneward::domain::Zone;
use zoneward::domain::isolation::{Granularity, Receipt, Share};
use zoneward::isolate::steps::RealStep;
use zoneward::ports::{IsolationStep, StepError};
use zoneward::sim::steps;

use crate::executor::{sick, world};

/// Where a step's own record of what it did is, beside the receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    OnWhatIsChanged,
    /// What is changed has no place for marks.
    Nowhere,
}

/// The contract of a real step: of `zone`, beside `other`. `sight` is all that the step might change.
pub async fn holds(step: &dyn RealStep, mark: Mark, (zone, other): (&str, &str), sight: impl Fn() -> Value) {
    let (zone, other, name) = (Zone::new(zone), Zone::new(other), step.name());
    let before = sight();
    let preview = step.preview(&zone, Share::NONE).await.unwrap();
    assert!(!preview.changes.is_empty(), "{name} says what it would change");
    let _probes = step.probe().await;
    assert_eq!(sight(), before, "{name} changes nothing by looking");

    verbs_hold(step, mark, &zone, &sight).await;

    let receipt = step.capture(&zone).await.unwrap();
    out(step, &zone, &receipt).await;
    let isolated = sight();
    let _none_or_refused = step.sweep(Some(&other)).await;
    assert_eq!(sight(), isolated, "{name} sweeps no other zone");
    if mark == Mark::OnWhatIsChanged {
        assert!(!step.sweep(None).await.unwrap().is_empty(), "{name} says what it swept");
        settled(|| async { step.confirm(&zone, &Receipt::default(), Share::FULL).await }).await;
        assert_eq!(sight(), before, "{name} restores what was, with its record lost");
    }
    back(step, &zone, &receipt).await;
    assert_eq!(sight(), before, "{name} restores what was");
}

/// What the executor relies on.
pub async fn verbs_hold(step: &dyn IsolationStep, mark: Mark, zone: &Zone, sight: impl Fn() -> Value) {
    let (name, before) = (step.name(), sight());
    let receipt = step.capture(zone).await.unwrap();
    assert_eq!(step.capture(zone).await.unwrap(), receipt, "{name} captures the same twice");
    assert_eq!(sight(), before, "{name} changes nothing by capturing");

    // Undone before it was done, as after a crash between the two.
    back(step, zone, &receipt).await;
    assert_eq!(sight(), before, "{name} undoes nothing where nothing was done");

    out(step, zone, &receipt).await;
    let isolated = sight();
    assert_ne!(isolated, before, "{name} takes the zone out");
    assert!(step.confirm(zone, &receipt, Share::FULL).await.is_err(), "{name} does not call undone what is not");
    assert!(step.drift(zone, &receipt, Share::NONE).await.unwrap().is_empty(), "{name} has nothing to mend");
    out(step, zone, &receipt).await;
    assert_eq!(sight(), isolated, "{name} does the same again");
    if mark == Mark::OnWhatIsChanged {
        assert_eq!(step.marked().await.unwrap(), [zone.clone()].into(), "{name} finds its marks");
        assert_eq!(step.capture(zone).await.unwrap(), receipt, "{name} knows by its marks what was before");
    }
    if matches!(step.granularity(), Granularity::Pods | Granularity::Weights) {
        for percent in [50, 0, 99, 1] {
            let share = Share::percent(percent);
            twice(step, zone, &receipt, share).await;
        }
    }
    for _ in 0..2 {
        back(step, zone, &receipt).await;
        assert_eq!(sight(), before, "{name} restores what was");
        assert!(step.marked().await.unwrap().is_empty(), "{name} leaves no mark");
    }
    if mark == Mark::OnWhatIsChanged {
        out(step, zone, &receipt).await;
        back(step, zone, &Receipt::default()).await;
        assert_eq!(sight(), before, "{name} restores what was, with its receipt lost");
    }
}

async fn out(step: &dyn IsolationStep, zone: &Zone, receipt: &Receipt) {
    twice(step, zone, receipt, Share::NONE).await;
}

async fn back(step: &dyn IsolationStep, zone: &Zone, receipt: &Receipt) {
    twice(step, zone, receipt, Share::FULL).await;
}

async fn twice(step: &dyn IsolationStep, zone: &Zone, receipt: &Receipt, share: Share) {
    for _ in 0..2 {
        settled(|| async {
            step.apply(zone, receipt, share).await?;
            step.confirm(zone, receipt, share).await
        })
        .await;
    }
}

/// As the executor does it: what is worth another try gets one.
async fn settled<F: Future<Output = Result<(), StepError>>>(attempt: impl Fn() -> F) {
    let patience = Instant::now() + Duration::from_secs(20);
    while let Err(error) = attempt().await {
        let again = matches!(error, StepError::Transient { .. }) && Instant::now() < patience;
        assert!(again, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_embedded_worlds_steps_keep_to_the_contract() {
    let world = world();
    let sight = || json!(format!("{:?}", world.lock().unwrap().sights(1)));
    for (step, mark) in steps(&world).iter().zip([Mark::OnWhatIsChanged, Mark::Nowhere, Mark::OnWhatIsChanged]) {
        verbs_hold(step.as_ref(), mark, &sick(), sight).await;
    }
}
