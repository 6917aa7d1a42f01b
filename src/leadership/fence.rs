//! Lets writes pass as long as this replica leads.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Held, lock};
use crate::domain::isolation::{Granularity, IsolationSpec, OperatorHold, Receipt, Share, StepName};
use crate::domain::{Isolation, Zone};
use crate::ports::{IsolationStep, IsolationStore, StepError, StoreError};

const NO_MORE: &str = "this replica leads no more";

/// Guarantees: work goes on only while this replica leads, without a break; a process that was stopped for a while sends
/// nothing more once it runs again. Work that is cut short may have done what it had sent.
#[derive(Debug, Clone)]
pub struct Fence {
    held: Arc<Mutex<Held>>,
}

impl Fence {
    pub(super) const fn new(held: Arc<Mutex<Held>>) -> Self {
        Self { held }
    }

    /// The result, or none if this replica did not lead until then.
    pub async fn pass<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let term = self.term()?.0;
        let mut work = pin!(work);
        let mut lapse = pin!(tokio::time::sleep_until(Instant::now().into()));
        poll_fn(|context| {
            loop {
                // Before anything else: how long ago the last look was is not known.
                let Some((_, until)) = self.term().filter(|(now, _)| *now == term) else { return Poll::Ready(None) };
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(Some(done));
                }
                lapse.as_mut().reset(until.into());
                if lapse.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Which time of leading it is, and until when it lasts.
    fn term(&self) -> Option<(u64, Instant)> {
        let held = lock(&self.held);
        held.until.filter(|_| held.leads()).map(|until| (held.term, until))
    }
}

/// A step that does nothing unless this replica leads.
pub struct FencedStep {
    pub step: Arc<dyn IsolationStep>,
    pub fence: Fence,
}

impl FencedStep {
    async fn pass<T>(&self, verb: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        self.fence.pass(verb).await.unwrap_or_else(|| Err(StepError::soon(NO_MORE)))
    }
}

#[async_trait]
impl IsolationStep for FencedStep {
    fn name(&self) -> StepName {
        self.step.name()
    }

    fn granularity(&self) -> Granularity {
        self.step.granularity()
    }

    fn follows_cluster(&self) -> bool {
        self.step.follows_cluster()
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        self.pass(self.step.capture(zone)).await
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.pass(self.step.apply(zone, receipt, share)).await
    }

    async fn drift(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<Vec<String>, StepError> {
        self.pass(self.step.drift(zone, receipt, share)).await
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.pass(self.step.confirm(zone, receipt, share)).await
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        self.pass(self.step.marked()).await
    }
}

/// A store that anyone may read, and that writes nothing unless this replica leads.
pub struct FencedStore {
    pub store: Arc<dyn IsolationStore>,
    pub fence: Fence,
}

impl FencedStore {
    async fn pass(&self, write: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        self.fence.pass(write).await.unwrap_or_else(|| Err(StoreError::Unavailable(NO_MORE.to_owned())))
    }
}

#[async_trait]
impl IsolationStore for FencedStore {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        self.store.list().await
    }

    async fn create(&self, spec: IsolationSpec, now: Timestamp) -> Result<(), StoreError> {
        self.pass(self.store.create(spec, now)).await
    }

    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError> {
        self.pass(self.store.save(isolation)).await
    }

    async fn save_course(&self, isolation: &Isolation) -> Result<(), StoreError> {
        self.pass(self.store.save_course(isolation)).await
    }

    async fn holds(&self) -> Result<BTreeMap<Zone, OperatorHold>, StoreError> {
        self.store.holds().await
    }

    async fn hold(&self, zone: &Zone, hold: OperatorHold) -> Result<(), StoreError> {
        self.pass(self.store.hold(zone, hold)).await
    }

    async fn release(&self, zone: &Zone, since: Timestamp) -> Result<(), StoreError> {
        self.pass(self.store.release(zone, since)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const TRUST: Duration = Duration::from_millis(200);

    fn led_for(trust: Duration) -> Fence {
        let held = Held { until: Some(Instant::now() + trust), term: 1, ..Held::default() };
        Fence::new(Arc::new(Mutex::new(held)))
    }

    /// Writes for as long as it is let, a call after the other.
    async fn calls(made: &AtomicUsize) {
        loop {
            made.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_ends_when_the_lead_does_and_not_before() {
        let fence = led_for(TRUST);
        assert_eq!(fence.pass(async { 1 }).await, Some(1));
        let began = Instant::now();
        assert_eq!(fence.pass(std::future::pending::<()>()).await, None);
        assert!(began.elapsed() >= TRUST);
        assert_eq!(fence.pass(async { 1 }).await, None, "and nothing begins any more");
    }

    #[tokio::test]
    async fn renewed_leadership_lets_work_go_on() {
        let fence = led_for(TRUST);
        let work = async {
            lock(&fence.held).until = Some(Instant::now() + 100 * TRUST);
            tokio::time::sleep(TRUST + TRUST).await;
            1
        };
        assert_eq!(fence.pass(work).await, Some(1));
    }

    #[tokio::test]
    async fn a_process_that_was_stopped_makes_no_further_call() {
        let (fence, made) = (led_for(TRUST), AtomicUsize::new(0));
        let mut work = pin!(fence.pass(calls(&made)));
        assert!(futures::poll!(work.as_mut()).is_pending());
        // As SIGSTOP does: nothing runs, and every timer is due afterwards.
        std::thread::sleep(2 * TRUST);
        assert_eq!(work.await, None);
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_was_begun_in_an_earlier_time_of_leading_does_not_go_on_in_a_later_one() {
        let (fence, made) = (led_for(TRUST), AtomicUsize::new(0));
        let mut work = pin!(fence.pass(calls(&made)));
        assert!(futures::poll!(work.as_mut()).is_pending());
        *lock(&fence.held) = Held { until: Some(Instant::now() + TRUST), term: 2, ..Held::default() };
        assert_eq!(work.await, None);
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
