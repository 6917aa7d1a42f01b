//! Clocks that jump, and verbs that never end.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use zoneward::domain::isolation::{Granularity, Receipt, Share, StepEntry, StepName};
use zoneward::domain::{StepState, Zone};
use zoneward::ports::{IsolationStep, IsolationStore, StepError};
use zoneward::sim::steps;

use crate::executor::{Fail, Records, Store, Verb, executor, sabotaged, start, wish, world};

#[tokio::test]
async fn a_clock_that_jumps_delays_no_step_for_longer_than_it_would_have_waited() {
    for verb in [Verb::Apply, Verb::Confirm, Verb::Keep] {
        let world = world();
        let steps = sabotaged(&world, 0, verb, Fail::Before);
        let (store, records) = (Arc::<Store>::default(), Arc::<Records>::default());
        let mut wish = wish();
        wish.expires_at = start() + SignedDuration::from_hours(3);
        store.create(wish, start()).await.unwrap();
        let mut executor = executor(&steps, &store, &records);
        // A look every ten seconds on a clock that is an hour fast at first, then set right, then set back by a minute.
        let fast = SignedDuration::from_hours(1);
        for (set, looks) in [(fast, 2), (SignedDuration::ZERO, 7), (SignedDuration::from_mins(-1), 14)] {
            for look in 0..looks {
                let now = start() + set + SignedDuration::from_secs(10 * look);
                executor.run_until_idle(now).await.unwrap();
            }
            let isolation = store.list().await.unwrap().pop().unwrap();
            let confirmed = |entry: &StepEntry| matches!(entry.state, StepState::Confirmed { .. });
            assert!(set == fast || isolation.steps.values().all(confirmed), "{verb:?}, {set:?}: {isolation:?}");
        }
    }
}

/// Answers nothing, ever.
struct Silent(Arc<dyn IsolationStep>);

#[async_trait]
impl IsolationStep for Silent {
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

#[tokio::test(start_paused = true)]
async fn a_verb_that_never_ends_is_one_that_failed_and_the_other_steps_do_not_wait_for_it() {
    let world = world();
    let mut all = steps(&world);
    all[0] = Arc::new(Silent(Arc::clone(&all[0])));
    let (store, records) = (Arc::<Store>::default(), Arc::<Records>::default());
    store.create(wish(), start()).await.unwrap();
    executor(&all, &store, &records).run_until_idle(start()).await.unwrap();
    let isolation = store.list().await.unwrap().pop().unwrap();
    let entry = |name: &str| isolation.steps[&StepName::new(name)].clone();
    assert_eq!(entry("mesh").last_error.as_deref(), Some("it took more than 300 s"));
    let out = StepState::Confirmed { share: Share::NONE };
    assert_eq!((entry("dns").state, entry("taint").state), (out, out));
}
