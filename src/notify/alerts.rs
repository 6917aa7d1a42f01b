//! Which alerts fire, by what is on record and what is in hand. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::InHand;
use crate::domain::{Event, HoldReason, Isolation, Record, Stage, StepState, Zone};

/// Alerts at once, those included that are to be said to have ended: far more than there are zones.
const MOST_ALERTS: usize = 512;
const LONGEST_WHY: usize = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    ZoneFault,
    ZoneHeld,
    ZoneIsolated,
    StepStuck,
    IsolationIneffective,
    IsolationRolledBack,
    ZoneRelapsed,
    PausedWhileIsolated,
}

impl Name {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ZoneFault => "ZonewardZoneFault",
            Self::ZoneHeld => "ZonewardZoneHeld",
            Self::ZoneIsolated => "ZonewardZoneIsolated",
            Self::StepStuck => "ZonewardStepStuck",
            Self::IsolationIneffective => "ZonewardIsolationIneffective",
            Self::IsolationRolledBack => "ZonewardIsolationRolledBack",
            Self::ZoneRelapsed => "ZonewardZoneRelapsed",
            Self::PausedWhileIsolated => "ZonewardPausedWhileIsolated",
        }
    }

    /// Critical is what waits for a person.
    pub const fn severity(self) -> &'static str {
        match self {
            Self::ZoneFault | Self::StepStuck | Self::IsolationIneffective | Self::IsolationRolledBack => "critical",
            Self::ZoneHeld | Self::ZoneIsolated | Self::ZoneRelapsed | Self::PausedWhileIsolated => "warning",
        }
    }

    pub fn summary(self, zone: &Zone) -> String {
        match self {
            Self::ZoneFault => format!("{zone} alone is worse than its peers, and waits for a person"),
            Self::ZoneHeld => format!("{zone} is worse than its peers, and is not isolated"),
            Self::ZoneIsolated => format!("{zone} is out of rotation"),
            Self::StepStuck => format!("a step of the isolation of {zone} is stuck"),
            Self::IsolationIneffective => format!("the isolation of {zone} does not help"),
            Self::IsolationRolledBack => format!("the isolation of {zone} was given up"),
            Self::ZoneRelapsed => format!("{zone} got worse on its way back, and was taken out again"),
            Self::PausedWhileIsolated => format!("zoneward is paused, and {zone} stays out of rotation"),
        }
    }

    /// What ends with the isolation, and is known to no replica but the one that acts.
    const fn is_of_isolation(self) -> bool {
        match self {
            Self::ZoneFault | Self::ZoneHeld | Self::IsolationRolledBack => false,
            Self::ZoneIsolated
            | Self::StepStuck
            | Self::IsolationIneffective
            | Self::ZoneRelapsed
            | Self::PausedWhileIsolated => true,
        }
    }
}

pub type Key = (Name, Zone);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub since: Timestamp,
    /// When it ended, if so.
    pub ended_at: Option<Timestamp>,
    pub why: String,
}

/// What fires, and what has ended and nobody has been told of yet.
#[derive(Debug, Default)]
pub struct Alerts {
    known: BTreeMap<Key, Alert>,
    /// Zones that zoneward wants to isolate itself.
    wanted: BTreeSet<Zone>,
    /// Zones of which it is on record that their isolation waits for a person, or would if there were hands.
    rehearsed: BTreeSet<Zone>,
    /// Whether an alert has begun or ended since this was last asked.
    changed: bool,
    dropped: u64,
}

impl Alerts {
    pub fn note(&mut self, record: &Record) {
        let Some(zone) = &record.zone else { return };
        let (at, why) = (record.time, record.message.as_str());
        match record.event {
            // A drill has no verdict.
            Event::Isolate if record.verdict.is_some() => {
                self.remember(zone, record.rehearsal);
                self.end(Name::ZoneHeld, zone, at);
                if record.rehearsal {
                    self.fire(Name::ZoneFault, zone, why, at);
                }
            }
            Event::Blocked if record.reason != Some(HoldReason::NotLeader) => {
                self.end(Name::ZoneFault, zone, at);
                self.rehearsed.remove(zone);
                self.fire(Name::ZoneHeld, zone, why, at);
            }
            // What a person was refused, that person was told.
            Event::Refused if self.wanted.contains(zone) => self.fire(Name::ZoneHeld, zone, why, at),
            Event::Ineffective => self.fire(Name::IsolationIneffective, zone, why, at),
            Event::Effective => self.end(Name::IsolationIneffective, zone, at),
            Event::RolledBack | Event::Reclassified => self.fire(Name::IsolationRolledBack, zone, why, at),
            Event::Isolated => self.end(Name::IsolationRolledBack, zone, at),
            Event::Clear => {
                self.wanted.remove(zone);
                self.rehearsed.remove(zone);
                for name in [Name::ZoneFault, Name::ZoneHeld, Name::IsolationRolledBack] {
                    self.end(name, zone, at);
                }
            }
            Event::Started
            | Event::Stopped
            | Event::Unrecorded
            | Event::Retired
            | Event::HandedOver
            | Event::ConfigurationChanged
            | Event::ConfigurationRefused
            | Event::Paused
            | Event::Resumed
            | Event::Suspect
            | Event::Blocked
            | Event::Isolate
            | Event::Acknowledged
            | Event::Admitted
            | Event::Refused
            | Event::Adopted
            | Event::Gap
            | Event::Observed
            | Event::Step
            | Event::Mended
            | Event::DrillBlocked
            | Event::DrillAborted
            | Event::DrillPassed
            | Event::Recovering
            | Event::Relapsed
            | Event::Restore
            | Event::Restored
            | Event::Fault
            | Event::Repair
            | Event::Summary => {}
        }
    }

    /// What is in hand goes over what is on record, as another replica may have begun it.
    pub fn see(&mut self, in_hand: &InHand, now: Timestamp) {
        let InHand { isolations, pause } = in_hand;
        let keys: Vec<Key> = self.known.keys().cloned().collect();
        for (name, zone) in keys {
            let isolation = isolations.iter().find(|i| *i.zone() == zone);
            let out = isolation.is_some_and(Isolation::holds_zone_out);
            let lasts = match name {
                Name::ZoneFault => !out && (self.rehearsed.contains(&zone) || isolation.is_some_and(waits)),
                Name::ZoneHeld => !out,
                Name::IsolationRolledBack => true,
                Name::IsolationIneffective => out,
                Name::ZoneIsolated => isolation.and_then(isolated).is_some(),
                Name::StepStuck => isolation.and_then(stuck).is_some(),
                Name::ZoneRelapsed => isolation.and_then(relapsed).is_some(),
                Name::PausedWhileIsolated => out && !pause.is_off(),
            };
            if !lasts {
                self.end(name, &zone, now);
            }
        }
        for isolation in isolations {
            let paused = (isolation.holds_zone_out() && !pause.is_off()).then(|| (pause.to_string(), now));
            let alerts = [
                (Name::ZoneFault, waits(isolation).then(|| (isolation.spec.reason.clone(), isolation.requested_at))),
                (Name::ZoneIsolated, isolated(isolation)),
                (Name::StepStuck, stuck(isolation).map(|why| (why, now))),
                (Name::ZoneRelapsed, relapsed(isolation)),
                (Name::PausedWhileIsolated, paused),
            ];
            for (name, (why, since)) in alerts.into_iter().filter_map(|(name, alert)| Some((name, alert?))) {
                self.fire(name, isolation.zone(), &why, since);
            }
        }
    }

    /// Another replica acts: what has become of isolations is not known here.
    pub fn forget_isolations(&mut self) {
        self.known.retain(|(name, _), alert| !name.is_of_isolation() && alert.ended_at.is_none());
    }

    /// Whether an alert has begun or ended since this was last asked.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Alerts that there was no room for, since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    pub const fn all(&self) -> &BTreeMap<Key, Alert> {
        &self.known
    }

    /// Somebody was told of these. What ended need not be said again.
    pub fn told(&mut self, told: &BTreeMap<Key, Alert>) {
        self.known.retain(|key, alert| alert.ended_at.is_none() || told.get(key) != Some(alert));
    }

    fn remember(&mut self, zone: &Zone, rehearsal: bool) {
        if self.wanted.len() < MOST_ALERTS {
            self.wanted.insert(zone.clone());
            if rehearsal {
                self.rehearsed.insert(zone.clone());
            }
        }
    }

    fn fire(&mut self, name: Name, zone: &Zone, why: &str, since: Timestamp) {
        let key = (name, zone.clone());
        let why = why.chars().take(LONGEST_WHY).collect();
        let full = self.known.len() >= MOST_ALERTS;
        match self.known.get_mut(&key) {
            Some(alert) if alert.ended_at.is_none() => alert.why = why,
            None if full => self.dropped += 1,
            Some(_) | None => {
                self.known.insert(key, Alert { since, ended_at: None, why });
                self.changed = true;
            }
        }
    }

    fn end(&mut self, name: Name, zone: &Zone, at: Timestamp) {
        if let Some(alert) = self.known.get_mut(&(name, zone.clone())).filter(|alert| alert.ended_at.is_none()) {
            alert.ended_at = Some(at.max(alert.since));
            self.changed = true;
        }
    }
}

/// Whether a person is to approve it.
const fn waits(isolation: &Isolation) -> bool {
    isolation.active() && !isolation.spec.approved && isolation.admitted_at().is_none()
}

fn isolated(isolation: &Isolation) -> Option<(String, Timestamp)> {
    let since = isolation.admitted_at().filter(|_| isolation.active())?;
    Some((format!("{}; until {:.0} at the latest", isolation.spec.reason, isolation.ends_at()), since))
}

fn stuck(isolation: &Isolation) -> Option<String> {
    let steps = isolation.steps.iter().filter(|(_, entry)| isolation.active() && entry.state == StepState::Stuck);
    let why: Vec<String> = steps
        .map(|(name, entry)| format!("{name}: {}", entry.last_error.as_deref().unwrap_or("no reason is known")))
        .collect();
    (!why.is_empty()).then(|| why.join("; "))
}

fn relapsed(isolation: &Isolation) -> Option<(String, Timestamp)> {
    let recovery = isolation.recovery.as_ref().filter(|_| isolation.holds_zone_out())?;
    (recovery.stage == Stage::Out && recovery.relapses > 0).then(|| (recovery.why.clone(), recovery.since))
}
