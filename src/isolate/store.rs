//! Isolations in memory: for rehearsals and for the embedded world.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::domain::isolation::{IsolationSpec, OperatorHold};
use crate::domain::{Isolation, Zone};
use crate::ports::{IsolationStore, StoreError};

/// Past episodes that are kept, for cool-down and budget.
const MOST_PAST: usize = 256;

#[derive(Debug, Default)]
pub struct MemoryStore {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    isolations: Vec<Isolation>,
    holds: BTreeMap<Zone, OperatorHold>,
    episodes: u64,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of this very episode, and of no later one of its zone.
    fn change(&self, isolation: &Isolation, change: impl FnOnce(&mut Isolation)) -> Result<(), StoreError> {
        let mut memory = self.lock();
        let active = memory.isolations.iter_mut().find(|i| i.active() && i.id == isolation.id);
        active.map(change).ok_or_else(|| StoreError::NotActive(isolation.zone().clone()))
    }
}

#[async_trait]
impl IsolationStore for MemoryStore {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        Ok(self.lock().isolations.clone())
    }

    async fn create(&self, spec: IsolationSpec, now: Timestamp) -> Result<(), StoreError> {
        let mut memory = self.lock();
        if memory.isolations.iter().any(|i| i.active() && *i.zone() == spec.zone) {
            return Err(StoreError::AlreadyActive(spec.zone));
        }
        if memory.isolations.len() >= MOST_PAST
            && let Some(oldest) = memory.isolations.iter().position(|i| !i.active())
        {
            memory.isolations.remove(oldest);
        }
        memory.episodes += 1;
        let id = memory.episodes.to_string();
        memory.isolations.push(Isolation::new(id, spec, now));
        Ok(())
    }

    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError> {
        self.change(isolation, |stored| {
            let (effect, recovery) = (stored.effect.take(), stored.recovery.take());
            *stored = Isolation { effect, recovery, ..isolation.clone() };
        })
    }

    async fn save_course(&self, isolation: &Isolation) -> Result<(), StoreError> {
        self.change(isolation, |stored| {
            (stored.effect, stored.recovery) = (isolation.effect.clone(), isolation.recovery.clone());
        })
    }

    async fn holds(&self) -> Result<BTreeMap<Zone, OperatorHold>, StoreError> {
        Ok(self.lock().holds.clone())
    }

    async fn hold(&self, zone: &Zone, hold: OperatorHold) -> Result<(), StoreError> {
        self.lock().holds.insert(zone.clone(), hold);
        Ok(())
    }

    async fn release(&self, zone: &Zone, since: Timestamp) -> Result<(), StoreError> {
        let mut memory = self.lock();
        if memory.holds.get(zone).is_some_and(|hold| hold.until_healthy && hold.since == since) {
            memory.holds.remove(zone);
        }
        Ok(())
    }
}
