//! The ports, as one replica has them: each call may be held up, fail before or after its effect, or be the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use rand::RngExt;
use zoneward::domain::verdict::Suspect;
use zoneward::domain::{
    ClusterView, Coverage, Gap, Isolation, IsolationSpec, OperatorHold, PodCalls, Probes, Record, Snapshot, Zone,
};
use zoneward::ports::{AuditError, AuditSink, IsolationStore, ObserveError, Observer, StoreError};

use crate::stage::{Answered, Fate, Place, Stage};
use crate::story::What;
use crate::world::{CYCLE, PAST, moment, second};

/// One replica's, in one of its lives.
#[derive(Clone)]
pub struct Ends {
    pub stage: Arc<Stage>,
    pub replica: usize,
}

impl Ends {
    /// A call to the store begins, and may be the last, or fail before it has an effect.
    async fn begin(&self) -> Result<Fate, StoreError> {
        self.stage.pass(self.replica, Place::Store).await;
        match self.stage.lock().fate_in_store(self.replica) {
            Fate::Before => Err(StoreError::Unavailable("no answer".to_owned())),
            fate @ (Fate::Goes | Fate::After) => Ok(fate),
        }
    }

    /// It has had its effect, and the answer may be lost.
    async fn end(&self, fate: Fate) -> Result<(), StoreError> {
        self.stage.pass(self.replica, Place::Store).await;
        match fate {
            Fate::After => Err(StoreError::Unavailable("the answer was lost".to_owned())),
            Fate::Goes | Fate::Before => Ok(()),
        }
    }

    /// As new as can be had.
    pub fn look(&self) -> Result<ClusterView, String> {
        let mut world = self.stage.lock();
        let mine = |replica: Option<usize>| replica.is_none_or(|of| of == self.replica);
        let blind = world.disturbs(|what| matches!(what, What::Blind { replica } if mine(*replica)).then_some(()));
        if blind.is_some() {
            return Err("no answer".to_owned());
        }
        let old = world.disturbs(|what| match what {
            What::Old { replica, seconds } if mine(*replica) => Some(*seconds),
            _ => None,
        });
        let Some(seconds) = old else { return Ok(world.mesh.cluster()) };
        let mut ago = || world.now - world.fate.random_range(0..=seconds);
        let (nodes, pods) = (ago(), ago());
        Ok(world.mesh.cluster_at(nodes, pods))
    }
}

#[async_trait]
impl IsolationStore for Ends {
    async fn list(&self) -> Result<Vec<Isolation>, StoreError> {
        let fate = self.begin().await?;
        let all = self.stage.memory.list().await?;
        let all = self.stage.lock().with_wishes(all);
        self.end(fate).await?;
        Ok(all)
    }

    async fn create(&self, spec: IsolationSpec, now: Timestamp) -> Result<(), StoreError> {
        let fate = self.begin().await?;
        let wish = spec.clone();
        let created = self.stage.memory.create(spec, now).await;
        if created.is_ok() {
            self.stage.lock().note_wish(self.replica, &wish);
        }
        self.end(fate).await?;
        created
    }

    async fn save(&self, isolation: &Isolation) -> Result<(), StoreError> {
        let fate = self.begin().await?;
        let before = self.stage.memory.list().await?;
        let saved = self.stage.memory.save(isolation).await;
        if saved.is_ok() {
            self.stage.lock().note_ledger(self.replica, &before, isolation);
        }
        self.end(fate).await?;
        saved
    }

    async fn save_course(&self, isolation: &Isolation) -> Result<(), StoreError> {
        let fate = self.begin().await?;
        let saved = self.stage.memory.save_course(isolation).await;
        if saved.is_ok() {
            self.stage.lock().note_course(self.replica, isolation);
        }
        self.end(fate).await?;
        saved
    }

    async fn holds(&self) -> Result<BTreeMap<Zone, OperatorHold>, StoreError> {
        let fate = self.begin().await?;
        let holds = self.stage.memory.holds().await?;
        self.end(fate).await?;
        Ok(holds)
    }

    async fn hold(&self, zone: &Zone, hold: OperatorHold) -> Result<(), StoreError> {
        let fate = self.begin().await?;
        self.stage.memory.hold(zone, hold).await?;
        self.end(fate).await
    }

    async fn release(&self, zone: &Zone, since: Timestamp) -> Result<(), StoreError> {
        let fate = self.begin().await?;
        self.stage.memory.release(zone, since).await?;
        self.end(fate).await
    }
}

#[async_trait]
impl AuditSink for Ends {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        self.stage.pass(self.replica, Place::Audit).await;
        let fate = self.stage.lock().fate_in_audit(self.replica);
        let full = || Err(std::io::Error::other("no space left").into());
        if fate == Fate::Before {
            return full();
        }
        self.stage.lock().note_record(self.replica, &record, fate == Fate::Goes);
        self.stage.pass(self.replica, Place::Audit).await;
        if fate == Fate::After { full() } else { Ok(()) }
    }
}

#[async_trait]
impl Observer for Ends {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        let late = {
            let world = self.stage.lock();
            let late = world.disturbs(|what| match what {
                What::Late { replica, seconds } if replica.is_none_or(|of| of == self.replica) => Some(*seconds),
                _ => None,
            });
            late.map(|seconds| world.now + seconds)
        };
        if let Some(until) = late {
            self.stage.sleep(until).await;
        }
        let mut world = self.stage.lock();
        let unobserved = world.disturbs(|what| match what {
            What::Unobserved { replica } if replica.is_none_or(|of| of == self.replica) => Some(()),
            _ => None,
        });
        if unobserved.is_some() {
            world.replicas[self.replica].answered = Answered::default();
            return Err(ObserveError("no answer".to_owned()));
        }
        let lost = world.disturbs(|what| match what {
            What::Lost { replica, zones } if replica.is_none_or(|of| of == self.replica) => Some(zones.clone()),
            _ => None,
        });
        let mut snapshots = Vec::new();
        let mut at = second(first).max(CYCLE - PAST);
        while at <= second(last) {
            let missing = || {
                let gap = Gap::NoRequests { metric: "istio_requests_total".to_owned() };
                Snapshot::unobserved(moment(at), gap)
            };
            let mut snapshot = world.mesh.snapshot(at).unwrap_or_else(missing);
            for zone in lost.iter().flatten() {
                lose(&mut snapshot, &world.mesh.places[*zone].name);
            }
            snapshots.push(snapshot);
            at += CYCLE;
        }
        world.replicas[self.replica].answered = snapshots.last().map_or_else(Answered::default, |newest| Answered {
            whole: newest.global_gaps().next().is_none(),
            lost: newest.gaps.iter().filter_map(Gap::zone).cloned().collect(),
        });
        Ok(snapshots)
    }

    async fn observe_pods(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Vec<PodCalls>, ObserveError> {
        self.stage.pass(self.replica, Place::Store).await;
        let world = self.stage.lock();
        let unobserved = world.disturbs(|what| match what {
            What::Unobserved { replica } if replica.is_none_or(|of| of == self.replica) => Some(()),
            _ => None,
        });
        if unobserved.is_some() {
            return Err(ObserveError("no answer".to_owned()));
        }
        Ok(world.mesh.pods(suspect, second(at)))
    }

    async fn probe(&mut self, zone: &Zone) -> Option<Probes> {
        self.stage.pass(self.replica, Place::Store).await;
        let world = self.stage.lock();
        let at = world.mesh.at(zone).filter(|_| world.story.probes)?;
        Some(world.mesh.probe(at, world.now))
    }
}

/// As the real one says it when a zone's proxies are not scraped.
fn lose(snapshot: &mut Snapshot, zone: &Zone) {
    snapshot.cells.values_mut().for_each(|cells| {
        cells.remove(zone);
    });
    if let Some(coverage) = snapshot.coverage.get_mut(zone) {
        *coverage = Coverage { up: 0, ..*coverage };
    }
    let seen: Vec<Zone> = snapshot.coverage.iter().filter(|(_, c)| c.up > 0).map(|(zone, _)| zone.clone()).collect();
    snapshot.gaps = if seen.len() < 2 {
        vec![Gap::TooFewZonesScraped { zones: seen }]
    } else {
        let lost = snapshot.coverage.iter().filter(|(_, coverage)| coverage.up == 0);
        lost.map(|(zone, coverage)| Gap::ScrapesLost { zone: zone.clone(), coverage: *coverage }).collect()
    };
}
