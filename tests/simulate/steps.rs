//! The three kinds of steps on the small mesh: draining pods, a name's addresses, tainting nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use zoneward::domain::Zone;
use zoneward::domain::cluster::Draining;
use zoneward::domain::isolation::{Granularity, Receipt, Share, StepName};
use zoneward::ports::{IsolationStep, StepError};

use crate::ends::Ends;
use crate::stage::{Place, World};
use crate::story::StepFailure;
use crate::world::NODES;

const WAS_LISTED: &str = "was_listed";
pub const NAMES: [&str; 3] = ["mesh", "dns", "taint"];

pub fn steps(ends: &Ends, configured: [bool; 3]) -> Vec<Arc<dyn IsolationStep>> {
    let step = |which: usize| Arc::new(Step { ends: ends.clone(), which }) as Arc<dyn IsolationStep>;
    (0..3).filter(|which| configured[*which]).map(step).collect()
}

struct Step {
    ends: Ends,
    which: usize,
}

impl Step {
    async fn verb(&self) -> Option<StepFailure> {
        self.ends.stage.pass(self.ends.replica, Place::Verb(self.which)).await;
        self.ends.stage.lock().fate_of_step(self.which)
    }

    fn fails(failure: Option<StepFailure>, at: StepFailure) -> Result<(), StepError> {
        match failure {
            Some(StepFailure::Permanent) if at == StepFailure::Before => {
                Err(StepError::Permanent { why: "not allowed".to_owned() })
            }
            Some(failure) if failure == at => Err(StepError::soon("no answer")),
            Some(_) | None => Ok(()),
        }
    }

    /// How many things there are to change, one call each.
    fn things(&self, world: &World, zone: usize) -> usize {
        match self.which {
            0 => world.mesh.places[zone].pods.len(),
            1 => 1,
            _ => NODES,
        }
    }
}

/// Whether the nth thing of a zone is as a share wants it, if it is ours to change.
fn as_wanted(world: &World, which: usize, (zone, nth): (usize, usize), receipt: &Receipt, share: Share) -> bool {
    let place = &world.mesh.places[zone];
    match which {
        0 => {
            let pod = &place.pods[nth];
            let wanted = drains(world, (zone, nth), share);
            match &pod.draining {
                Draining::Others => true,
                Draining::Ours(_) => wanted,
                Draining::No => !wanted,
            }
        }
        1 => place.listed == listed(receipt, share),
        _ => place.tainted[nth] == (share != Share::FULL),
    }
}

fn listed(receipt: &Receipt, share: Share) -> bool {
    share > Share::NONE && receipt.0.get(WAS_LISTED).is_none_or(|was| was == "true")
}

/// Of each service so many pods are kept, in order.
fn drains(world: &World, (zone, nth): (usize, usize), share: Share) -> bool {
    let pods = &world.mesh.places[zone].pods;
    let service = pods[nth].service;
    let all = pods.iter().filter(|pod| pod.service == service).count();
    let before = pods[..nth].iter().filter(|pod| pod.service == service).count();
    before >= (share.as_fraction() * all as f64).ceil() as usize
}

#[async_trait]
impl IsolationStep for Step {
    fn name(&self) -> StepName {
        StepName::new(NAMES[self.which])
    }

    fn granularity(&self) -> Granularity {
        [Granularity::Pods, Granularity::AllOrNothing, Granularity::NewPods][self.which]
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let failure = self.verb().await;
        Self::fails(failure, StepFailure::Before)?;
        let world = self.ends.stage.lock();
        let Some(at) = world.mesh.at(zone) else { return Ok(Receipt::default()) };
        if self.which != 1 {
            return Ok(Receipt::default());
        }
        Ok(Receipt([(WAS_LISTED.to_owned(), world.mesh.places[at].listed.to_string())].into()))
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let failure = self.verb().await;
        let Some(at) = self.ends.stage.lock().mesh.at(zone) else { return Ok(()) };
        self.ends.stage.lock().note_verb(self.ends.replica, self.which, at, share);
        Self::fails(failure, StepFailure::Before)?;
        let things = self.things(&self.ends.stage.lock(), at);
        for nth in 0..things {
            if nth == things / 2 {
                Self::fails(failure, StepFailure::Half)?;
            }
            if as_wanted(&self.ends.stage.lock(), self.which, (at, nth), receipt, share) {
                continue;
            }
            self.ends.stage.pass(self.ends.replica, Place::Write).await;
            let mut world = self.ends.stage.lock();
            if !as_wanted(&world, self.which, (at, nth), receipt, share) {
                world.note_change(self.ends.replica, self.which, at, share);
                change(&mut world, self.which, (at, nth), receipt, share);
                world.after_change(self.ends.replica);
            }
        }
        Self::fails(failure, StepFailure::After)
    }

    async fn drift(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<Vec<String>, StepError> {
        let world = self.ends.stage.lock();
        let Some(at) = world.mesh.at(zone) else { return Ok(Vec::new()) };
        let unlike = |nth: &usize| !as_wanted(&world, self.which, (at, *nth), receipt, share);
        let count = (0..self.things(&world, at)).filter(unlike).count();
        Ok((count > 0).then(|| format!("{count} were changed by others")).into_iter().collect())
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let failure = self.verb().await;
        Self::fails(failure, StepFailure::Before)?;
        let world = self.ends.stage.lock();
        let Some(at) = world.mesh.at(zone) else { return Ok(()) };
        let things = self.things(&world, at);
        if (0..things).all(|nth| as_wanted(&world, self.which, (at, nth), receipt, share)) {
            Ok(())
        } else {
            Err(StepError::soon("it does not read back"))
        }
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        self.verb().await;
        let world = self.ends.stage.lock();
        let places = world.mesh.places.iter().filter(|place| match self.which {
            0 => place.pods.iter().any(|pod| matches!(pod.draining, Draining::Ours(_))),
            // The name has no place for marks: its receipt is all there is.
            1 => false,
            _ => place.tainted.contains(&true),
        });
        Ok(places.map(|place| place.name.clone()).collect())
    }
}

fn change(world: &mut World, which: usize, (zone, nth): (usize, usize), receipt: &Receipt, share: Share) {
    let drained = which == 0 && drains(world, (zone, nth), share);
    let place = &mut world.mesh.places[zone];
    match which {
        0 => place.pods[nth].draining = if drained { Draining::Ours(place.name.clone()) } else { Draining::No },
        1 => place.listed = listed(receipt, share),
        _ => place.tainted[nth] = share != Share::FULL,
    }
}
