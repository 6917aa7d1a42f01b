//! The article's three steps on the embedded world.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::SignedDuration;

use super::observer::lock;
use super::world::{MARK, World};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::ports::{IsolationStep, StepError};

/// Mesh, load-balancer DNS, node taint.
pub fn steps(world: &Arc<Mutex<World>>) -> Vec<Arc<dyn IsolationStep>> {
    vec![
        Arc::new(Mesh { world: Arc::clone(world) }),
        Arc::new(LoadBalancerDns { world: Arc::clone(world) }),
        Arc::new(Taint { world: Arc::clone(world) }),
    ]
}

fn not_yet(why: String) -> StepError {
    StepError::Transient { why, retry_after: SignedDuration::from_secs(1) }
}

/// No more east-west traffic: the zone's pods carry Istio's draining label.
struct Mesh {
    world: Arc<Mutex<World>>,
}

/// The pods of a zone that carry traffic at a share: so many of each service, in order of name.
fn kept(pods: usize, share: Share) -> usize {
    (share.as_fraction() * pods as f64).ceil() as usize
}

#[async_trait]
impl IsolationStep for Mesh {
    fn name(&self) -> StepName {
        StepName::new("mesh")
    }

    fn granularity(&self) -> Granularity {
        Granularity::Pods
    }

    /// The label on each pod is its own record.
    async fn capture(&self, _: &Zone) -> Result<Receipt, StepError> {
        Ok(Receipt::default())
    }

    async fn apply(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        let mut world = lock(&self.world);
        let services: Vec<String> = world.scenario().services.iter().map(|s| s.name.clone()).collect();
        for service in services {
            let mine = |pod: &super::pod::Pod| pod.zone == *zone && pod.service == service;
            let keep = kept(world.pods.iter().filter(|pod| mine(pod)).count(), share);
            for (nth, pod) in world.pods.iter_mut().filter(|pod| mine(pod)).enumerate() {
                match &pod.draining {
                    Some(mark) if mark != MARK => {}
                    Some(_) | None => pod.draining = (nth >= keep).then(|| MARK.to_owned()),
                }
            }
        }
        Ok(())
    }

    async fn confirm(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        let world = lock(&self.world);
        for service in &world.scenario().services {
            let pods: Vec<_> = world.pods.iter().filter(|p| p.zone == *zone && p.service == service.name).collect();
            let draining = pods.iter().filter(|pod| pod.draining.is_some()).count();
            if draining != pods.len() - kept(pods.len(), share) {
                return Err(not_yet(format!("{draining} of {} pods of {} are drained", pods.len(), service.name)));
            }
        }
        Ok(())
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        let world = lock(&self.world);
        let ours = world.pods.iter().filter(|pod| pod.draining.as_deref() == Some(MARK));
        Ok(ours.map(|pod| pod.zone.clone()).collect())
    }
}

/// No more north-south traffic: the load balancer's DNS name loses the zone's address.
struct LoadBalancerDns {
    world: Arc<Mutex<World>>,
}

const WAS_LISTED: &str = "was_listed";

#[async_trait]
impl IsolationStep for LoadBalancerDns {
    fn name(&self) -> StepName {
        StepName::new("dns")
    }

    fn granularity(&self) -> Granularity {
        Granularity::AllOrNothing
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let listed = lock(&self.world).cluster.dns.contains(zone);
        Ok(Receipt([(WAS_LISTED.to_owned(), listed.to_string())].into()))
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let mut world = lock(&self.world);
        let dns = &mut world.cluster.dns;
        if share > Share::NONE {
            if receipt.0.get(WAS_LISTED).is_some_and(|was| was == "true") {
                dns.insert(zone.clone());
            }
        } else if dns.len() == 1 && dns.contains(zone) {
            return Err(StepError::Permanent { why: "it is the last address of the name".to_owned() });
        } else {
            dns.remove(zone);
        }
        Ok(())
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let listed = lock(&self.world).cluster.dns.contains(zone);
        let wanted = share > Share::NONE && receipt.0.get(WAS_LISTED).is_some_and(|was| was == "true");
        if listed == wanted {
            Ok(())
        } else {
            Err(not_yet(format!("the name {} the zone", if listed { "still has" } else { "lacks" })))
        }
    }

    /// The name has no place for marks: its receipt is all there is.
    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        Ok(BTreeSet::new())
    }
}

/// No new pods: the zone's nodes carry a taint of our own.
struct Taint {
    world: Arc<Mutex<World>>,
}

#[async_trait]
impl IsolationStep for Taint {
    fn name(&self) -> StepName {
        StepName::new("taint")
    }

    fn granularity(&self) -> Granularity {
        Granularity::NewPods
    }

    /// The taint on each node is its own record.
    async fn capture(&self, _: &Zone) -> Result<Receipt, StepError> {
        Ok(Receipt::default())
    }

    async fn apply(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        for node in lock(&self.world).cluster.nodes.values_mut().filter(|node| node.zone == *zone) {
            if share == Share::FULL {
                node.taints.remove(MARK);
            } else {
                node.taints.insert(MARK.to_owned());
            }
        }
        Ok(())
    }

    async fn confirm(&self, zone: &Zone, _: &Receipt, share: Share) -> Result<(), StepError> {
        let world = lock(&self.world);
        let mut nodes = world.cluster.nodes.values().filter(|node| node.zone == *zone);
        let tainted = share != Share::FULL;
        if nodes.all(|node| node.taints.contains(MARK) == tainted) {
            Ok(())
        } else {
            Err(not_yet("not every node reads back".to_owned()))
        }
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        let world = lock(&self.world);
        let ours = world.cluster.nodes.values().filter(|node| node.taints.contains(MARK));
        Ok(ours.map(|node| node.zone.clone()).collect())
    }
}
