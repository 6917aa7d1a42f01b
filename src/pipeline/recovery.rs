//! The way back of isolated zones, cycle by cycle.

use jiff::Timestamp;

use super::{Pipeline, TickError};
use crate::decide::{self, Basis, Signs};
use crate::domain::{Event, Finding, Gap, Isolation, Record, Recovery, Sight, Stage, Zone};
use crate::ports::Observer;

impl Pipeline {
    /// Takes in what this cycle says of each zone that is out, and brings it a stage further where that is due.
    pub(super) async fn recover(
        &mut self,
        observer: &mut dyn Observer,
        sight: &Sight,
        isolations: &mut [Isolation],
        now: Timestamp,
    ) -> Result<(), TickError> {
        for isolation in isolations.iter_mut().filter(|i| i.holds_zone_out() && !i.returning(now)) {
            let zone = isolation.zone().clone();
            self.watch(observer, sight, isolation).await;
            let standing = self.standings.entry(zone.clone()).or_default();
            let basis = Basis {
                signs: &standing.signs,
                cluster: sight.snapshot.cluster.as_ref(),
                severity: Some(standing.severity),
                cycle: self.history.cycle(),
            };
            let Some(next) = decide::recover(isolation, basis, &self.settings.recovery, now) else { continue };
            if let Some(record) = in_words(&zone, isolation.recovery.as_ref(), &next, sight.snapshot.time) {
                self.record(record, Some(&zone)).await?;
            }
            isolation.recovery = Some(next);
            self.store.save_course(isolation).await?;
        }
        Ok(())
    }

    /// A stage is judged on what was seen since it began, and on nothing before.
    async fn watch(&mut self, observer: &mut dyn Observer, sight: &Sight, isolation: &Isolation) {
        let Some(recovery) = &isolation.recovery else { return };
        let zone = isolation.zone();
        let standing = self.standings.entry(zone.clone()).or_default();
        if standing.signs.since != Some(recovery.since) {
            standing.signs = Signs { since: Some(recovery.since), ..Signs::default() };
            if recovery.stage != Stage::Out || recovery.relapses > 0 {
                self.history.start_anew(zone);
            }
            return;
        }
        let probes = observer.probe(zone).await;
        let unknown = || Finding::inconclusive(vec![Gap::NoTraffic { zone: zone.clone() }]);
        let finding = sight.assessment.zones.get(zone).cloned().unwrap_or_else(unknown);
        let traffic = (sight.snapshot.served_by(zone).total, sight.snapshot.called_by(zone).total);
        standing.signs.add(&finding, traffic, probes.as_ref());
    }
}

fn in_words(zone: &Zone, before: Option<&Recovery>, next: &Recovery, time: Timestamp) -> Option<Record> {
    let why = &next.why;
    let (event, message) = match next.stage {
        Stage::Out if before.is_none() => return None,
        Stage::Out => (Event::Relapsed, format!("{zone} is taken out again: {why}")),
        Stage::Refilling => (Event::Recovering, format!("{zone} may have new pods again: {why}")),
        Stage::Trial { share } => (
            Event::Recovering,
            format!("{zone} gets {share} of its usual east-west traffic, to be judged on it: {why}"),
        ),
        Stage::Ended => (Event::Recovering, format!("{zone} has recovered: {why}")),
    };
    Some(Record::new(time, event, message).figure("relapses", next.relapses).figure("stage", next.stage.as_str()))
}
