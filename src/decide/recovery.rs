//! How an isolated zone comes back: step by step, each on evidence.
//!
//! A zone without traffic looks healthy to every metric, so silence proves nothing. What does: its pods answer when asked
//! directly, or their own calls to others succeed. Then it gets small shares of its traffic, each judged by the statistics
//! that found the fault, on nothing but what was seen since that share began. It gets worse again, and is taken out again,
//! for longer each time.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::{
    ClusterView, CycleLength, Finding, Gap, Isolation, Origin, Period, Probes, Ratio, Recovery, ReturnMode, Share,
    Stage, Verdict, Zone,
};

/// A pause after a relapse never gets longer.
const LONGEST_BACK_OFF: SignedDuration = SignedDuration::from_hours(4);
/// Failures that are expected, were the fault half as bad as it was: to see none of so many is no chance.
const TELLING_FAILURES: f64 = 10.0;
/// How bad a fault is taken to have been if that is not known.
const USUAL_SEVERITY: f64 = 0.03;
const FEWEST_REQUESTS: f64 = 100.0;
/// Of the times that pods are asked, some fail in health; one always may.
const TOLERABLE_FAILURES: Ratio = Ratio::from_percent(1.0);
/// Calls of a zone's own pods in a cycle that say something.
const FEWEST_CALLS: f64 = 10.0;

/// The section `recovery`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub mode: ReturnMode,
    pub healthy_for: Period,
    pub refill: Period,
    pub min_ready: Ratio,
    pub shares: Vec<Ratio>,
    pub trial: Period,
    pub longest_trial: Period,
    pub back_off: Period,
    /// Whether there is a step that can give a part of the traffic.
    #[serde(skip)]
    pub gradual: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: ReturnMode::Evidence,
            healthy_for: Period::from_mins(5),
            refill: Period::from_mins(5),
            min_ready: Ratio::from_percent(50.0),
            shares: [5.0, 25.0, 50.0, 100.0].map(Ratio::from_percent).to_vec(),
            trial: Period::from_mins(2),
            longest_trial: Period::from_mins(15),
            back_off: Period::from_mins(10),
            gradual: true,
        }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let percents: Vec<f64> = self.shares.iter().map(|share| share.as_fraction() * 100.0).collect();
        let whole = percents.iter().all(|percent| *percent >= 1.0 && (percent - percent.round()).abs() < 1e-9);
        if self.shares.len() > 20 || !whole || !percents.is_sorted_by(|a, b| a < b) {
            problems.push(("shares", "at most 20 whole percentages from 1% on, each above the one before".to_owned()));
        }
        let most = Period::from_hours(1);
        for (key, period) in [
            ("healthy_for", self.healthy_for),
            ("refill", self.refill),
            ("trial", self.trial),
            ("longest_trial", self.longest_trial),
            ("back_off", self.back_off),
        ] {
            if period > most {
                problems.push((key, format!("{period} is above {most}")));
            }
        }
        if self.longest_trial < self.trial {
            problems.push(("longest_trial", format!("{} is below trial ({})", self.longest_trial, self.trial)));
        }
        problems
    }

    fn share(&self, nth: usize) -> Option<Share> {
        self.shares
            .get(nth)
            .filter(|_| self.gradual)
            .map(|share| Share::percent((share.as_fraction() * 100.0).round() as u8))
    }
}

/// What was seen of an isolated zone since its stage began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signs {
    /// Which stage, by when it began.
    pub since: Option<Timestamp>,
    /// Requests that its servers answered, and calls that its clients made.
    pub served: f64,
    /// Cycles in which something showed that it is well, since something showed that it is not.
    pub good_cycles: u32,
    /// In these cycles, what came of asking its pods, and the calls that they made themselves.
    pub asked: u32,
    pub failed: u32,
    pub called: f64,
    /// Of the newest cycle.
    pub newest: Newest,
}

/// What one cycle says of an isolated zone.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Newest {
    #[default]
    Nothing,
    /// Nothing is known of it, and that is not for want of traffic.
    Unseen,
    /// It has too little traffic to say.
    Quiet,
    Well,
    /// Something is wrong that is no fault of the zone's.
    Unclear,
    /// It is at fault, as the evidence says.
    Worse(String),
}

impl Signs {
    /// Takes in one cycle.
    pub fn add(&mut self, finding: &Finding, (served, called): (f64, f64), probes: Option<&Probes>) {
        self.served += served;
        self.newest = newest(finding);
        let (asked, failed) = probes.map_or((0, 0), |probes| (probes.asked, probes.failed));
        self.asked = self.asked.saturating_add(asked);
        self.failed = self.failed.saturating_add(failed);
        self.called += called;
        let tolerable = (TOLERABLE_FAILURES.as_fraction() * f64::from(self.asked)).max(1.0);
        let sick = finding.verdict == Verdict::ZoneFault && finding.persistent;
        if sick || f64::from(self.failed) > tolerable {
            (self.good_cycles, self.asked, self.failed, self.called) = (0, 0, 0, 0.0);
        } else if asked > 0 || (probes.is_none() && finding.verdict == Verdict::Healthy && called >= FEWEST_CALLS) {
            self.good_cycles = self.good_cycles.saturating_add(1);
        }
    }

    fn in_words(&self) -> String {
        if self.asked > 0 {
            format!("its pods answer when asked ({} of {} times not)", self.failed, self.asked)
        } else {
            format!("its pods' own calls succeed ({:.0} of them)", self.called)
        }
    }
}

fn newest(finding: &Finding) -> Newest {
    match &finding.verdict {
        Verdict::Healthy => Newest::Well,
        Verdict::ZoneFault => {
            Newest::Worse(finding.evidence.first().map_or_else(|| "no evidence".to_owned(), ToString::to_string))
        }
        Verdict::Inconclusive { gaps } => {
            let quiet = |gap: &Gap| matches!(gap, Gap::NoTraffic { .. } | Gap::TooLittleData { .. });
            if gaps.iter().all(quiet) { Newest::Quiet } else { Newest::Unseen }
        }
        Verdict::ServiceFault { .. }
        | Verdict::InstanceFault { .. }
        | Verdict::NodeFault { .. }
        | Verdict::RolloutInProgress { .. }
        | Verdict::RegionalFault
        | Verdict::FaultElsewhere { .. } => Newest::Unclear,
    }
}

/// What the way back rests on.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    pub signs: &'a Signs,
    pub cluster: Option<&'a ClusterView>,
    /// How bad the fault was, as a share of failed requests; none if that is not known.
    pub severity: Option<f64>,
    pub cycle: CycleLength,
}

/// The next stage of a zone's way back, once it is due.
///
/// Pure. Concerns isolations that are admitted and not being given back already.
pub fn recover(isolation: &Isolation, basis: Basis<'_>, settings: &Settings, now: Timestamp) -> Option<Recovery> {
    let admitted_at = isolation.admitted_at()?;
    if settings.mode == ReturnMode::Timer || isolation.returning(now) {
        return None;
    }
    let Some(recovery) = &isolation.recovery else {
        let why = "it was isolated".to_owned();
        return Some(Recovery { stage: Stage::Out, since: admitted_at, why, relapses: 0, not_before: None });
    };
    let lasted = now.duration_since(recovery.since);
    let to = |stage: Stage, why: String| {
        let Recovery { relapses, not_before, .. } = *recovery;
        Some(Recovery { stage, since: now, why, relapses, not_before })
    };
    if basis.signs.newest == Newest::Unseen {
        // All is held as it is for a while; but what a person asked for ends when that person said.
        let over = isolation.spec.origin != Origin::Detector && isolation.expired(now);
        return over.then(|| to(Stage::Ended, "its isolation expired, and nothing can be judged".to_owned())).flatten();
    }
    match recovery.stage {
        Stage::Out => {
            may_come_back(isolation, recovery, basis, settings, now).and_then(|why| to(Stage::Refilling, why))
        }
        Stage::Refilling => {
            let short = short_of_pods(isolation.zone(), basis.cluster, settings);
            if short.is_some() && lasted < settings.refill.signed() {
                return None;
            }
            let why = short.unwrap_or_else(|| "its pods are ready".to_owned());
            let stage = settings.share(0).map_or(Stage::Ended, |share| Stage::Trial { share });
            to(stage, why)
        }
        Stage::Trial { share } => match &basis.signs.newest {
            Newest::Worse(evidence) => Some(relapse(recovery, share, evidence, settings, now)),
            Newest::Nothing | Newest::Unseen | Newest::Unclear => None,
            Newest::Well | Newest::Quiet => {
                let why = passed(share, basis, settings, lasted)?;
                let next = settings.shares.iter().position(|s| percent(*s) > share.as_percent());
                let stage =
                    next.and_then(|nth| settings.share(nth)).map_or(Stage::Ended, |share| Stage::Trial { share });
                to(stage, why)
            }
        },
        Stage::Ended => None,
    }
}

fn percent(share: Ratio) -> u8 {
    (share.as_fraction() * 100.0).round() as u8
}

/// Why a zone that is out may get traffic again.
fn may_come_back(
    isolation: &Isolation,
    recovery: &Recovery,
    basis: Basis<'_>,
    settings: &Settings,
    now: Timestamp,
) -> Option<String> {
    if recovery.not_before.is_some_and(|at| now < at) {
        return None;
    }
    if isolation.expired(now) {
        return Some(format!("its isolation expired at {:.0}", isolation.expires_at()));
    }
    let good_for = basis.cycle.signed() * basis.signs.good_cycles as i32;
    let shown = settings.mode == ReturnMode::Evidence
        && isolation.isolated_at.is_some()
        && basis.signs.good_cycles > 0
        && good_for >= settings.healthy_for.signed();
    shown.then(|| format!("for {} {}", Period::from_secs(good_for.as_secs()), basis.signs.in_words()))
}

/// The service that lacks the most of its pods in the zone.
fn short_of_pods(zone: &Zone, cluster: Option<&ClusterView>, settings: &Settings) -> Option<String> {
    let cluster = cluster?;
    let mut worst: Option<(f64, String)> = None;
    for (service, ready) in cluster.ready_pods() {
        let here = f64::from(ready.get(zone).copied().unwrap_or(0));
        let elsewhere: Vec<f64> = ready.iter().filter(|(z, _)| *z != &zone).map(|(_, n)| f64::from(*n)).collect();
        let usual = elsewhere.iter().sum::<f64>() / elsewhere.len().max(1) as f64;
        // What never ran in the zone is not missed there.
        let runs_here =
            cluster.pods.values().any(|pod| pod.zone.as_ref() == Some(zone) && pod.services.contains(service));
        if runs_here
            && here < settings.min_ready.as_fraction() * usual
            && worst.as_ref().is_none_or(|w| here / usual < w.0)
        {
            let said = format!(
                "{service} has {here:.0} ready pods in {zone}, and {usual:.0} in each other zone: a descheduler would move \
                 some back"
            );
            worst = Some((here / usual, said));
        }
    }
    worst.map(|(_, said)| said)
}

/// Whether a share was watched for long enough, and what that rests on.
fn passed(share: Share, basis: Basis<'_>, settings: &Settings, lasted: SignedDuration) -> Option<String> {
    let severity = basis.severity.filter(|severity| *severity > 0.0).unwrap_or(USUAL_SEVERITY);
    let needed = (2.0 * TELLING_FAILURES / severity).max(FEWEST_REQUESTS);
    let seen = basis.signs.served;
    let time = Period::from_secs(lasted.as_secs());
    if lasted >= settings.trial.signed() && seen >= needed {
        return Some(format!(
            "with {share} of its usual traffic it answered {seen:.0} requests in {time} like its peers"
        ));
    }
    (lasted >= settings.longest_trial.signed()).then(|| {
        format!("with {share} of its usual traffic nothing stood out in {time}, on no more than {seen:.0} requests")
    })
}

fn relapse(recovery: &Recovery, share: Share, evidence: &str, settings: &Settings, now: Timestamp) -> Recovery {
    let relapses = recovery.relapses.saturating_add(1);
    let pause = (settings.back_off.signed() * (1 << (relapses - 1).min(10))).min(LONGEST_BACK_OFF);
    let why = format!(
        "with {share} of its usual traffic it was worse again: {evidence}; tried again in {}",
        Period::from_secs(pause.as_secs())
    );
    Recovery { stage: Stage::Out, since: now, why, relapses, not_before: Some(now + pause) }
}

#[cfg(test)]
mod tests;
