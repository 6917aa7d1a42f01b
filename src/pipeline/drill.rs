//! Drills: begun when they are due, broken off when anything speaks against them, and what came of them put on record.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{GAP_CYCLES, Pipeline, TickError};
use crate::decide;
use crate::domain::{
    Admission, Event, HoldReason, Isolation, IsolationSpec, Mode, OperatorHold, Origin, Record, Request, Share, Sight,
    Stage, Zone,
};
use crate::guard;

/// What guardrails refuse is left to whoever asked for it for so long, and then ends.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(15);

impl Pipeline {
    /// Begins the drill that is due.
    pub(super) async fn begin_drill(
        &mut self,
        sight: &Sight,
        holds: &BTreeMap<Zone, OperatorHold>,
        now: Timestamp,
    ) -> Result<(), TickError> {
        let isolations = self.store.list().await?;
        let due = decide::due_drill(&self.settings.drills, self.history.zones(), &isolations, self.drill_tried, now);
        let Some(zone) = due else { return Ok(()) };
        self.drill_tried = Some(now);
        let lasts = self.settings.drills.lasts;
        let request = Request {
            zone: zone.clone(),
            origin: Origin::Drill,
            expires_after: lasts,
            evidence: Vec::new(),
            overrides: BTreeSet::new(),
        };
        let situation = self.situation(sight, &isolations, holds);
        let taken = isolations.iter().any(|i| i.active() && *i.zone() == zone);
        let free = if taken { Err(HoldReason::AlreadyIsolated) } else { Ok(()) };
        let admitted = free.and_then(|()| guard::admit(&situation, &request, &self.settings.guard, now));
        if let Err(reason) = admitted {
            let mut record =
                Record::new(sight.snapshot.time, Event::DrillBlocked, format!("no drill of {zone}: {reason}"));
            record.reason = Some(reason);
            return Ok(self.record(record, Some(&zone)).await?);
        }
        let reason = format!("a drill of {lasts}, as scheduled");
        let record = Record::new(sight.snapshot.time, Event::Isolate, format!("{zone} is to be isolated: {reason}"));
        self.record(record, Some(&zone)).await?;
        let spec = IsolationSpec {
            zone,
            origin: Origin::Drill,
            reason,
            evidence: Vec::new(),
            expires_at: now + lasts.signed(),
            share: Share::NONE,
            only: BTreeSet::new(),
            overrides: BTreeSet::new(),
            approved: self.settings.mode != Mode::Recommend,
        };
        Ok(self.store.create(spec, now).await?)
    }

    /// Watches drills that are under way.
    pub(super) async fn watch_drills(
        &mut self,
        sight: &Sight,
        isolations: &mut [Isolation],
        now: Timestamp,
    ) -> Result<(), TickError> {
        let time = sight.snapshot.time;
        let under_way = |i: &&mut Isolation| i.active() && i.spec.origin == Origin::Drill && !i.returning(now);
        for drill in isolations.iter_mut().filter(under_way) {
            let zone = drill.zone().clone();
            if let Admission::Refused(reason) = drill.admission.clone() {
                if drill.spec.approved && now.duration_since(drill.requested_at) >= REFUSED_FOR {
                    let message = format!("no drill of {zone}: {reason}");
                    let record = Record::new(time, Event::DrillBlocked, message);
                    self.record(record, Some(&zone)).await?;
                    drill.end("guardrails did not let the drill begin".to_owned(), now);
                    self.store.save_course(drill).await?;
                }
                continue;
            }
            let out = drill.recovery.as_ref().is_none_or(|recovery| recovery.stage == Stage::Out);
            let Some(since) = drill.admitted_at().filter(|_| out) else { continue };
            if drill.expired(now) {
                self.pass(drill, since, time).await?;
                continue;
            }
            let blind = self.gaps.iter().any(|((_, of), (cycles, _))| of.is_none() && *cycles >= GAP_CYCLES);
            let blind = blind.then(|| "what comes of it can't be seen".to_owned());
            let Some(why) = decide::breaks_off(&zone, &sight.assessment).or(blind) else { continue };
            let message = format!("the drill of {zone} is broken off: {why}");
            self.record(Record::new(time, Event::DrillAborted, message), Some(&zone)).await?;
            drill.end("its drill is broken off".to_owned(), now);
            self.store.save_course(drill).await?;
        }
        Ok(())
    }

    async fn pass(&mut self, drill: &Isolation, since: Timestamp, time: Timestamp) -> Result<(), TickError> {
        let zone = drill.zone();
        let standing = self.standings.entry(zone.clone()).or_default();
        if standing.drill_passed.replace(since) == Some(since) {
            return Ok(());
        }
        let (event, what) = if drill.isolated_at.is_some() {
            (Event::DrillPassed, "passed: the others bore its traffic")
        } else {
            (Event::DrillAborted, "came to nothing: not every step was confirmed in its time")
        };
        let message = format!("the drill of {zone}, since {since:.0}, {what}");
        Ok(self.record(Record::new(time, event, message), Some(zone)).await?)
    }
}
