//! Isolations in memory: for rehearsals and for the embedded world.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::domain::isolation::Effective;
use crate::domain::{Isolation, Zone};
use crate::ports::{IsolationStore, StoreError};

/// Past episodes that are kept, for cool-down and budget.
const MOST_PAST: usize = 256;

#[derive(Debug, Default)]
pub struct MemoryStore {
    isolations: Mutex<Vec<Isolation>>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Vec<Isolation>> {
        self.isolations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, zone: &Zone, change: impl FnOnce(&mut Isolation)) -> Result<(), StoreError> {
        let mut isolations = self.lock();
        let active = isolations.iter_mut().find(|i| i.active() && i.zone == *zone);
        active.map(change).ok_or_else(|| StoreError::NotActive(zone.clone()))
    }
}

#[async_trait]
impl IsolationStore for MemoryStore {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        Ok(self.lock().clone())
    }

    async fn create(&self, isolation: Isolation) -> Result<(), StoreError> {
        let mut isolations = self.lock();
        if isolations.iter().any(|i| i.active() && i.zone == isolation.zone) {
            return Err(StoreError::AlreadyActive(isolation.zone));
        }
        if isolations.len() >= MOST_PAST
            && let Some(oldest) = isolations.iter().position(|i| !i.active())
        {
            isolations.remove(oldest);
        }
        isolations.push(isolation);
        Ok(())
    }

    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError> {
        self.change(&isolation.zone, |stored| {
            let effective = stored.effective;
            *stored = isolation.clone();
            stored.effective = effective;
        })
    }

    async fn save_effective(&self, zone: &Zone, effective: Effective) -> Result<(), StoreError> {
        self.change(zone, |stored| stored.effective = Some(effective))
    }
}
