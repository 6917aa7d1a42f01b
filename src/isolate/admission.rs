//! Whether an isolation may begin: the guard, on what is newest.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::execute::Admit;
use super::steps::Look;
use crate::domain::{Assessment, Gap, HoldReason, Isolation, Pause, Request, Sight, Silences, Snapshot};
use crate::guard::{self, Situation};

/// Whether another replica is to do it, which leads from now on.
pub type HandsOver = dyn Fn(&Isolation, Timestamp) -> bool + Send + Sync;

/// What people say, as of now.
pub struct Told {
    pub guard: watch::Receiver<guard::Settings>,
    pub pause: watch::Receiver<Pause>,
    pub silences: watch::Receiver<Silences>,
}

/// The guard, on what is newest: the last cycle's judgement, and the cluster of this moment.
pub fn admission(
    told: Told,
    look: Arc<Look>,
    sights: watch::Receiver<Option<Arc<Sight>>>,
    hands_over: Box<HandsOver>,
) -> Box<Admit> {
    Box::new(move |isolation, all, holds, now| {
        let sight = sights.borrow().clone().unwrap_or_else(|| Arc::new(unseen(now)));
        let cluster = look();
        let (pause, silences) = (told.pause.borrow().clone(), told.silences.borrow().clone());
        let situation = Situation {
            snapshot: &sight.snapshot,
            assessment: &sight.assessment,
            cluster: cluster.as_ref().ok(),
            isolations: all,
            holds,
            pause: &pause,
            silences: &silences,
            leads: true,
            acts: true,
        };
        let settings = told.guard.borrow().clone();
        let admitted = guard::admit(&situation, &Request::of(isolation, now), &settings, now)?;
        if hands_over(isolation, now) { Err(HoldReason::NotLeader) } else { Ok(admitted) }
    })
}

/// Before any cycle was judged.
pub fn unseen(now: Timestamp) -> Sight {
    let gap = Gap::QueryFailed { why: "no cycle has been judged yet".to_owned() };
    let assessment = Assessment { time: now, zones: Default::default(), unsettled: Default::default() };
    Sight { snapshot: Snapshot::unobserved(now, gap), assessment }
}
