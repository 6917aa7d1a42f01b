//! What came of an isolation: harm, or no good, gives the capacity back.

use jiff::Timestamp;

use super::{Pipeline, TRAFFIC_CYCLES, TickError};
use crate::decide::{self, Picture};
use crate::domain::{Event, Isolation, OperatorHold, Origin, Record, Snapshot, Zone};

impl Pipeline {
    /// Remembers the newest cycles' figures, and of each zone in rotation what they say.
    pub(super) fn remember_figures(&mut self, snapshot: &Snapshot, isolations: &[Isolation]) {
        if snapshot.global_gaps().next().is_some() {
            return;
        }
        self.figures.push_front(decide::figures(snapshot));
        self.figures.truncate(TRAFFIC_CYCLES);
        for zone in self.history.zones() {
            if !isolations.iter().any(|i| i.active() && i.zone() == zone) {
                let standing = self.standings.entry(zone.clone()).or_default();
                (standing.before, standing.failing_since) = (Some(Picture::of(zone, self.figures.iter())), None);
            }
        }
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
        for isolation in isolations.iter_mut().filter(|i| i.holds_zone_out() && !i.returning(now)) {
            let zone = isolation.zone().clone();
            let after = Picture::of(&zone, self.figures.iter());
            let span = self.history.cycle().signed() * self.figures.len() as i32;
            let standing = self.standings.entry(zone.clone()).or_default();
            let failing = standing
                .before
                .as_ref()
                .and_then(|before| decide::failing(isolation, (before, &after), &self.settings.rollback, (now, span)));
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
            let by_hand = isolation.spec.origin == Origin::Operator;
            let record = in_words(&zone, &why, by_hand, snapshot.time);
            self.record(record, Some(&zone)).await?;
            if !by_hand {
                let why = format!("its isolation was given up, as {why}: a person should look");
                self.store.hold(&zone, OperatorHold { since: now, why, until_healthy: true }).await?;
                isolation.end(why_ended(), now);
                self.store.save_course(isolation).await?;
            }
            self.standings.entry(zone).or_default().rolled_back = Some(since);
        }
        Ok(())
    }
}

fn why_ended() -> String {
    "it did harm, or no good".to_owned()
}

/// What a person asked for is for a person to end.
fn in_words(zone: &Zone, why: &str, by_hand: bool, time: Timestamp) -> Record {
    if by_hand {
        let message =
            format!("the isolation of {zone} may do harm, or no good: {why}; a person asked for it, and it stays");
        return Record::new(time, Event::Ineffective, message);
    }
    let message = format!(
        "the isolation of {zone} is given up: {why}; {zone} is not isolated again until it was healthy: a person should look"
    );
    Record::new(time, Event::RolledBack, message)
}
