//! What came of an isolation: harm, or no good, gives the capacity back.

use jiff::{SignedDuration, Timestamp};

use super::{Pipeline, TRAFFIC_CYCLES, TickError};
use crate::decide::{self, Picture};
use crate::domain::{Event, Isolation, OperatorHold, Origin, Record, Snapshot, Zone};

/// An isolation takes this long at most from its first write to its last, or is not judged by its outcome.
const LONGEST_START: SignedDuration = SignedDuration::from_mins(10);

impl Pipeline {
    /// Remembers a cycle's figures, past ones too: whoever starts while a zone is out knows what was before.
    pub(super) fn remember_figures(&mut self, snapshot: &Snapshot) {
        if snapshot.global_gaps().next().is_some() {
            return;
        }
        let cycle = self.history.cycle().signed();
        let oldest =
            snapshot.time - self.settings.rollback.watch.signed() - LONGEST_START - cycle * TRAFFIC_CYCLES as i32;
        self.figures.push_front((snapshot.time, decide::figures(snapshot)));
        while self.figures.back().is_some_and(|(time, _)| *time < oldest) {
            self.figures.pop_back();
        }
    }

    /// What the last cycles before a moment say of a zone.
    fn picture_before(&self, zone: &Zone, until: Timestamp) -> Picture {
        let before = self.figures.iter().filter(|(time, _)| *time <= until).take(TRAFFIC_CYCLES);
        Picture::of(zone, before.map(|(_, figures)| figures))
    }

    /// Gives up what does harm or no good. A zone that still fails then is held until it is healthy, or a person decides.
    pub(super) async fn roll_back(
        &mut self,
        snapshot: &Snapshot,
        isolations: &mut [Isolation],
        now: Timestamp,
    ) -> Result<(), TickError> {
        if !self.acts() || snapshot.global_gaps().next().is_some() {
            return Ok(());
        }
        for (zone, standing) in &mut self.standings {
            if !isolations.iter().any(|i| i.active() && i.zone() == zone) {
                standing.failing_since = None;
            }
        }
        for isolation in isolations.iter_mut().filter(|i| i.holds_zone_out() && !i.returning(now)) {
            let zone = isolation.zone().clone();
            let Some(began) = isolation.admitted_at() else { continue };
            let (before, after) = (self.picture_before(&zone, began), self.picture_before(&zone, snapshot.time));
            let span = self.history.cycle().signed() * TRAFFIC_CYCLES as i32;
            let failing = decide::failing(isolation, (&before, &after), &self.settings.rollback, (now, span));
            let standing = self.standings.entry(zone.clone()).or_default();
            let Some(why) = failing else {
                standing.failing_since = None;
                continue;
            };
            let since = *standing.failing_since.get_or_insert(now);
            if now.duration_since(since) < self.settings.rollback.lasting.signed()
                || standing.rolled_back == Some(since)
            {
                continue;
            }
            let origin = isolation.spec.origin;
            self.record(in_words(&zone, &why, origin, snapshot.time), Some(&zone)).await?;
            if origin == Origin::Detector {
                let why = format!("its isolation was given up, as {why}: a person should look");
                self.store.hold(&zone, OperatorHold { since: now, why, until_healthy: true }).await?;
            }
            if origin != Origin::Operator {
                isolation.end("it did harm, or no good".to_owned(), now);
                self.store.save_course(isolation).await?;
            }
            self.standings.entry(zone).or_default().rolled_back = Some(since);
        }
        Ok(())
    }
}

fn in_words(zone: &Zone, why: &str, origin: Origin, time: Timestamp) -> Record {
    let (event, message) = match origin {
        Origin::Detector => {
            let then = format!("{zone} is not isolated again until it was healthy: a person should look");
            (Event::RolledBack, format!("the isolation of {zone} is given up: {why}; {then}"))
        }
        Origin::Drill => (Event::DrillAborted, format!("the drill of {zone} is broken off: {why}")),
        // What a person asked for is for a person to end.
        Origin::Operator => {
            let then = "a person asked for it, and it stays";
            (Event::Ineffective, format!("the isolation of {zone} may do harm, or no good: {why}; {then}"))
        }
    };
    Record::new(time, event, message)
}
