//! Drills: a healthy zone is isolated on purpose, to know that the others bear it. When, which zone, and when to break off.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::{Assessment, Day, Isolation, NamedTimeZone, Origin, Period, TimeOfDay, Verdict, Zone};

/// More times than people remember.
const MOST_TIMES: usize = 64;
/// A time that was missed by more is left out.
const LATEST: SignedDuration = SignedDuration::from_mins(10);

/// The section `drills`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub lasts: Period,
    pub schedule: Vec<DrillTime>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lasts: Period::from_mins(30), schedule: Vec::new() }
    }
}

/// Such as every Tuesday at 10:00 in Berlin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillTime {
    /// None named is every day.
    #[serde(default)]
    pub days: Vec<Day>,
    pub at: TimeOfDay,
    #[serde(default)]
    pub time_zone: NamedTimeZone,
    /// In turn; none named is all.
    #[serde(default)]
    pub zones: Vec<Zone>,
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.lasts < Period::from_mins(1) || self.lasts > Period::from_hours(24) {
            problems.push(("lasts", format!("{} is outside 1m to 24h", self.lasts)));
        }
        if self.schedule.len() > MOST_TIMES {
            problems.push(("schedule", format!("at most {MOST_TIMES} times")));
        }
        problems
    }
}

impl DrillTime {
    /// When it was due, if that was a moment ago.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.time_zone.date(now);
        let days = [today.yesterday().ok(), Some(today)].into_iter().flatten();
        let on =
            |day: &jiff::civil::Date| self.days.is_empty() || self.days.iter().any(|it| it.weekday() == day.weekday());
        let mut moments = days.filter(on).filter_map(|day| self.at.on(day, &self.time_zone));
        moments.find(|at| *at <= now && now.duration_since(*at) < LATEST)
    }
}

/// The zone whose drill is due and was not tried yet: of those that may be, the one whose last drill is the longest ago.
///
/// Pure. `tried` is when a drill was last begun, or tried to be.
pub fn due_drill(
    settings: &Settings,
    zones: &[Zone],
    isolations: &[Isolation],
    tried: Option<Timestamp>,
    now: Timestamp,
) -> Option<Zone> {
    let of_drills = || isolations.iter().filter(|i| i.spec.origin == Origin::Drill);
    let last = of_drills().map(|drill| drill.requested_at).chain(tried).max();
    let time =
        settings.schedule.iter().find(|time| time.due(now).is_some_and(|at| last.is_none_or(|last| last < at)))?;
    let may = |zone: &&Zone| time.zones.is_empty() || time.zones.contains(zone);
    let last_of = |zone: &Zone| of_drills().filter(|i| i.zone() == zone).map(|i| i.requested_at).max();
    zones.iter().filter(may).min_by_key(|zone| last_of(zone)).cloned()
}

/// Why a drill is to be broken off, as far as other zones tell: it must never be in the way of what is in earnest.
pub fn breaks_off(zone: &Zone, assessment: &Assessment) -> Option<String> {
    assessment.zones.iter().filter(|(other, _)| *other != zone).find_map(|(other, finding)| {
        let evidence = finding.evidence.first().map(ToString::to_string).unwrap_or_default();
        match finding.verdict {
            Verdict::ZoneFault => Some(format!("{other} looks sick: {evidence}")),
            Verdict::RegionalFault if finding.persistent => Some(format!("{other} is worse than it was: {evidence}")),
            Verdict::RegionalFault
            | Verdict::Healthy
            | Verdict::ServiceFault { .. }
            | Verdict::InstanceFault { .. }
            | Verdict::NodeFault { .. }
            | Verdict::RolloutInProgress { .. }
            | Verdict::FaultElsewhere { .. }
            | Verdict::Inconclusive { .. } => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{Admission, Finding, IsolationSpec, Share};

    fn moment(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn settings() -> Settings {
        let schedule = json!([{"days": ["tue"], "at": "10:00", "time_zone": "Europe/Berlin"}]);
        Settings { schedule: serde_json::from_value(schedule).unwrap(), ..Settings::default() }
    }

    fn zones() -> [Zone; 3] {
        ["a", "b", "c"].map(Zone::new)
    }

    fn drill(zone: &str, at: &str) -> Isolation {
        let spec = IsolationSpec {
            zone: Zone::new(zone),
            origin: Origin::Drill,
            reason: String::new(),
            evidence: Vec::new(),
            expires_at: moment(at),
            share: Share::NONE,
            only: Default::default(),
            overrides: Default::default(),
            approved: true,
        };
        let mut drill = Isolation::new(at.to_owned(), spec, moment(at));
        drill.admission = Admission::Admitted(moment(at));
        drill
    }

    #[test]
    fn a_drill_is_due_at_its_time_once_and_not_long_after() {
        let due = |now, tried| due_drill(&settings(), &zones(), &[], tried, moment(now));
        // 2026-11-24 is a Tuesday; Berlin is an hour ahead.
        assert_eq!(due("2026-11-24T08:59:50Z", None), None);
        assert_eq!(due("2026-11-24T09:00:05Z", None), Some(Zone::new("a")));
        assert_eq!(due("2026-11-24T09:00:20Z", Some(moment("2026-11-24T09:00:05Z"))), None, "it was tried");
        assert_eq!(due("2026-11-24T09:00:20Z", Some(moment("2026-11-24T09:00:00Z"))), None, "to the second");
        assert_eq!(due("2026-11-24T09:09:59Z", None), Some(Zone::new("a")));
        assert_eq!(due("2026-11-24T09:10:00Z", None), None, "what was missed is left out");
        assert_eq!(due("2026-11-25T09:00:05Z", None), None, "on a Wednesday");
    }

    #[test]
    fn a_drill_lasts_a_minute_to_a_day_at_sixty_four_times_at_the_most() {
        let wrong = |lasts, times| -> Vec<&'static str> {
            let schedule = vec![settings().schedule[0].clone(); times];
            let settings = Settings { lasts: Period::from_secs(lasts), schedule };
            settings.problems().into_iter().map(|(key, _)| key).collect()
        };
        assert!(wrong(60, 64).is_empty() && wrong(86_400, 1).is_empty());
        assert_eq!(wrong(59, 1), ["lasts"]);
        assert_eq!(wrong(86_401, 1), ["lasts"]);
        assert_eq!(wrong(60, 65), ["schedule"]);
    }

    #[test]
    fn zones_take_turns() {
        let past = [drill("a", "2026-11-10T09:00:05Z"), drill("b", "2026-11-17T09:00:05Z")];
        let next = |past: &[Isolation]| due_drill(&settings(), &zones(), past, None, moment("2026-11-24T09:00:05Z"));
        assert_eq!(next(&past), Some(Zone::new("c")), "one that never had its turn");
        let all = [past.to_vec(), vec![drill("c", "2026-11-03T09:00:05Z")]].concat();
        assert_eq!(next(&all), Some(Zone::new("c")));
        let begun = [past.to_vec(), vec![drill("c", "2026-11-24T09:00:04Z")]].concat();
        assert_eq!(next(&begun), None, "another replica began it");
    }

    #[test]
    fn a_drill_is_broken_off_as_soon_as_another_zone_looks_sick() {
        let with = |verdict: Verdict, persistent: bool| {
            let finding = Finding { verdict, persistent, ..Finding::healthy() };
            let zones = [(Zone::new("a"), Finding::healthy()), (Zone::new("b"), finding)].into();
            let assessment = Assessment { time: moment("2026-11-24T09:00:00Z"), zones, unsettled: Default::default() };
            (breaks_off(&Zone::new("a"), &assessment).is_some(), breaks_off(&Zone::new("b"), &assessment).is_some())
        };
        assert_eq!(with(Verdict::ZoneFault, false), (true, false));
        assert_eq!(with(Verdict::RegionalFault, false), (false, false));
        assert_eq!(with(Verdict::RegionalFault, true), (true, false));
        assert_eq!(with(Verdict::Healthy, true), (false, false));
    }
}
