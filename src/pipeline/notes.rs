//! What goes on record beside decisions: gaps, suspicions, effects, and the ends of holds.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::{ACKNOWLEDGED_LATELY, GAP_CYCLES, GapKey, HEALED_CYCLES, Pipeline, TRAFFIC_CYCLES, TickError, gap_key};
use crate::decide;
use crate::domain::{
    Decision, Effect, Event, Finding, Gap, Isolation, OperatorHold, Record, Sight, Snapshot, Verdict, Zone,
};
use crate::ports::AuditError;

impl Pipeline {
    /// Gaps of the snapshot, and those that judging came upon. One that lasts goes on record, and its end too.
    pub(super) async fn note_gaps(&mut self, sight: &Sight, isolations: &[Isolation]) -> Result<(), AuditError> {
        let Sight { snapshot, assessment } = sight;
        let judged = assessment.zones.values().flat_map(|finding| finding.verdict.gaps());
        let isolated = |zone: &Zone| isolations.iter().any(|i| i.holds_zone_out() && i.zone() == zone);
        // That an isolated zone gets no requests is what was wanted.
        let unexpected = |gap: &&Gap| !matches!(gap, Gap::NoTraffic { zone } if isolated(zone));
        let seen: BTreeMap<GapKey, &Gap> =
            snapshot.gaps.iter().chain(judged).filter(unexpected).map(|gap| (gap_key(gap), gap)).collect();
        let ended: Vec<GapKey> = self.gaps.keys().filter(|key| !seen.contains_key(*key)).cloned().collect();
        for key in ended {
            if let Some((cycles, gap)) = self.gaps.remove(&key)
                && cycles >= GAP_CYCLES
            {
                let record = Record::new(snapshot.time, Event::Observed, format!("no longer: {gap}"));
                self.record(record, gap.zone()).await?;
            }
        }
        for (key, gap) in seen {
            let (cycles, newest) = self.gaps.entry(key).or_insert_with(|| (0, gap.clone()));
            *cycles = cycles.saturating_add(1);
            newest.clone_from(gap);
            if *cycles == GAP_CYCLES {
                let message = match gap.zone() {
                    None => format!("nothing is decided, as {gap}"),
                    Some(_) => format!("not judged, as {gap}"),
                };
                let mut record = Record::new(snapshot.time, Event::Gap, message);
                record.verdict = Some(Verdict::Inconclusive { gaps: vec![gap.clone()] });
                self.record(record, gap.zone()).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn note_suspicion(
        &mut self,
        zone: &Zone,
        finding: &Finding,
        decision: &Decision,
        time: Timestamp,
    ) -> Result<(), AuditError> {
        let standing = self.standings.entry(zone.clone()).or_default();
        let record = match &finding.verdict {
            Verdict::Inconclusive { .. } => return Ok(()),
            Verdict::Healthy if standing.suspect && !self.history.watched(zone) => {
                (standing.suspect, standing.held_by) = (false, None);
                Record::new(time, Event::Clear, format!("{zone} is like its peers, and like its own past, again"))
            }
            Verdict::Healthy => return Ok(()),
            Verdict::ZoneFault
            | Verdict::ServiceFault { .. }
            | Verdict::InstanceFault { .. }
            | Verdict::NodeFault { .. }
            | Verdict::RolloutInProgress { .. }
            | Verdict::RegionalFault
            | Verdict::FaultElsewhere { .. } => {
                if standing.suspect {
                    return Ok(());
                }
                standing.suspect = true;
                let (held, reason) = match decision {
                    Decision::Hold(reason) => (format!("; held, as {reason}"), Some(reason.clone())),
                    Decision::Isolate(_) => (String::new(), None),
                };
                let everywhere = finding.evidence.first().is_some_and(|evidence| evidence.peers_alike);
                let than = if everywhere { "its own past, as its peers are" } else { "its peers and its own past" };
                let message = format!("{zone} is worse than {than}: {}{held}", strongest(finding));
                let record = Record::new(time, Event::Suspect, message).evidence(&finding.evidence);
                Record { reason, ..record }
            }
        };
        self.record(Record { verdict: Some(finding.verdict.clone()), ..record }, Some(zone)).await
    }

    /// What a person has looked at since the last cycle. After a change of the replica that acts it may stand twice on record.
    pub(super) async fn note_acknowledged(
        &mut self,
        isolations: &[Isolation],
        now: Timestamp,
    ) -> Result<(), AuditError> {
        let mut newest: BTreeMap<&Zone, (Timestamp, usize)> = BTreeMap::new();
        for (isolation, at) in isolations.iter().filter_map(|i| Some((i, i.acknowledged_at?))) {
            let (_, count) = newest.entry(isolation.zone()).or_insert((at, 0));
            *count += 1;
        }
        for (zone, (at, count)) in newest {
            let known = self.acknowledged.insert(zone.clone(), at);
            let lately = now.duration_since(at) <= ACKNOWLEDGED_LATELY;
            if self.leads && known != Some(at) && (known.is_some() || lately) {
                let message =
                    format!("a person has looked at {count} isolations of {zone}: they are on no budget any more");
                self.record(Record::new(now, Event::Acknowledged, message), Some(zone)).await?;
            }
        }
        Ok(())
    }

    /// What differed for a day, and is taken for normal from now on.
    pub(super) async fn note_adopted(&mut self, time: Timestamp) -> Result<(), AuditError> {
        for (service, zone) in self.history.adopted() {
            let message = format!(
                "{service} was worse in {zone} than in its peers for a day: from now on that is taken to be its normal state"
            );
            self.record(Record::new(time, Event::Adopted, message), Some(&zone)).await?;
        }
        Ok(())
    }

    /// Follows each zone's traffic, and notes whether it shows an isolation.
    pub(super) async fn note_effect(
        &mut self,
        snapshot: &Snapshot,
        isolations: &mut [Isolation],
    ) -> Result<(), TickError> {
        if snapshot.global_gaps().next().is_some() {
            return Ok(());
        }
        let (cycle, acts) = (self.history.cycle(), self.acts());
        for zone in self.history.zones().to_vec() {
            let standing = self.standings.entry(zone.clone()).or_default();
            let Some(isolation) = isolations.iter_mut().find(|i| i.holds_zone_out() && *i.zone() == zone) else {
                standing.served.push_front(snapshot.served_by(&zone).total);
                standing.served.truncate(TRAFFIC_CYCLES);
                standing.ineffective = false;
                continue;
            };
            if !acts || isolation.returning_since.is_some() {
                continue;
            }
            let before_rps = match &isolation.effect {
                Some(effect) => effect.before_rps,
                None => mean(&standing.served) / cycle.as_secs_f64(),
            };
            let Some(effect) = decide::effect(isolation, before_rps, snapshot, cycle) else { continue };
            let shown_now = effect.shown() && isolation.effect.as_ref().is_none_or(|earlier| !earlier.shown());
            let late = decide::ineffective(isolation, &effect, snapshot.time) && !standing.ineffective;
            standing.ineffective |= late;
            isolation.effect = Some(effect.clone());
            self.store.save_course(isolation).await?;
            if shown_now || late {
                let event = if shown_now { Event::Effective } else { Event::Ineffective };
                let mut record = Record::new(snapshot.time, event, effect_in_words(&zone, &effect));
                record.effective = Some(effect);
                self.record(record, Some(&zone)).await?;
            }
        }
        Ok(())
    }

    /// An operator's restore stands as long as the fault it was made in: until the zone, with traffic, was healthy for a
    /// while.
    pub(super) async fn end_holds(
        &mut self,
        sight: &Sight,
        isolations: &[Isolation],
        holds: &BTreeMap<Zone, OperatorHold>,
    ) -> Result<(), TickError> {
        for (zone, finding) in &sight.assessment.zones {
            let out = isolations.iter().any(|i| i.holds_zone_out() && i.zone() == zone);
            let healthy = finding.verdict == Verdict::Healthy && !out;
            let quiet = !self.history.watched(zone);
            let standing = self.standings.entry(zone.clone()).or_default();
            standing.healthy_cycles = if healthy { standing.healthy_cycles.saturating_add(1) } else { 0 };
            let Some(hold) = holds.get(zone).filter(|hold| hold.until_healthy) else { continue };
            if self.acts() && quiet && self.standings[zone].healthy_cycles >= HEALED_CYCLES {
                let message = format!("{zone} is healthy: the hold of {:.0} ends ({})", hold.since, hold.why);
                self.record(Record::new(sight.snapshot.time, Event::Clear, message), Some(zone)).await?;
                self.store.release(zone, hold.since).await?;
            }
        }
        Ok(())
    }
}

pub(super) fn strongest(finding: &Finding) -> String {
    finding.evidence.first().map_or_else(|| "no evidence".to_owned(), ToString::to_string)
}

fn effect_in_words(zone: &Zone, effect: &Effect) -> String {
    let figures =
        format!("its servers answered {:.1} requests/s before and {:.1} now", effect.before_rps, effect.after_rps);
    if let Some(seconds) = effect.shown_after_s {
        return format!("the isolation of {zone} shows after {seconds} s: {figures}");
    }
    let remains = effect.residual.iter().map(|r| format!("{} {:.1}/s ({})", r.service, r.rps, r.why));
    format!("the isolation of {zone} does not show: {figures}; {}", remains.collect::<Vec<_>>().join("; "))
}

fn mean(values: &VecDeque<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
