//! What a cycle leaves to be shown, and how it is shown: the overview is made when somebody asks for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::Pipeline;
use crate::decide;
use crate::domain::overview::{
    self, Answer, DaemonState, Entry, Headline, IsolationState, Judged, Look, Moment, Overview, Series, ServiceState,
    State, ZoneState, bounded,
};
use crate::domain::{
    Decision, Finding, Gap, HoldReason, Isolation, Mode, OperatorHold, Pause, Sight, Silences, Verdict, Zone,
};
use crate::guard::{self, Situation};

/// Of a zone, and of all: what can be looked at.
const MOST_SERIES_OF_ZONE: usize = 6;
const MOST_SERIES: usize = 12;
/// Past isolations that are shown.
const MOST_PAST: usize = 20;

/// One cycle's end. It never changes.
#[derive(Debug, Clone)]
pub struct Scene {
    sight: Arc<Sight>,
    isolations: Vec<Isolation>,
    holds: BTreeMap<Zone, OperatorHold>,
    pause: Pause,
    silences: Silences,
    guard: guard::Settings,
    decide: decide::Settings,
    services: Vec<ServiceState>,
    series: Vec<Series>,
    courses: BTreeMap<Zone, (Vec<Moment>, Option<Timestamp>)>,
    seen: Option<Timestamp>,
}

/// What else there is to know, as of the moment in which it is asked for.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub daemon: DaemonState,
    pub url: String,
    pub cycle_s: i64,
    /// What of the scene's somebody knows newer, or knows of beside them.
    pub isolations: Vec<Isolation>,
    pub pause: Option<Pause>,
    /// The newest first.
    pub records: Vec<Entry>,
}

impl Pipeline {
    /// What the newest cycle leaves to be shown; nothing before the first.
    pub fn scene(&self) -> Option<Scene> {
        let sight = self.sight()?;
        let zones = sight.assessment.zones.keys();
        let courses = zones.map(|zone| (zone.clone(), (self.course.of(zone), self.course.since(zone))));
        Some(Scene {
            isolations: self.ledger.0.clone(),
            holds: self.ledger.1.clone(),
            pause: self.pause.clone(),
            silences: self.silences.clone(),
            guard: self.settings.guard.clone(),
            decide: self.settings.decide.clone(),
            services: self.history.standings(),
            series: self.series(&sight),
            courses: courses.collect(),
            seen: self.history.seen(),
            sight,
        })
    }

    /// The strongest evidence of each zone, and of all of them the most severe.
    fn series(&self, sight: &Sight) -> Vec<Series> {
        let mut all: Vec<Series> = Vec::new();
        for (zone, finding) in &sight.assessment.zones {
            let mut seen = BTreeSet::new();
            let once = finding.evidence.iter().filter(|item| seen.insert((item.service.clone(), item.signal)));
            all.extend(once.take(MOST_SERIES_OF_ZONE).map(|item| self.history.series(zone, item)));
        }
        all.sort_by(|a, b| b.evidence.severity.total_cmp(&a.evidence.severity));
        all.truncate(MOST_SERIES);
        all
    }
}

/// All that is known now.
///
/// Pure. Guardrails are asked anew, as time alone changes what they say.
pub fn overview(scene: Option<&Scene>, around: Surroundings, now: Timestamp) -> Overview {
    let Surroundings { daemon, url, cycle_s, isolations, pause, records } = around;
    let mut look = Look { url, cycle_s, ..Look::default() };
    let mut shown = Overview {
        version: overview::VERSION,
        now,
        headline: Headline { state: State::Unknown, text: String::new() },
        zones: Vec::new(),
        services: Vec::new(),
        evidence: Vec::new(),
        isolations: Vec::new(),
        prometheus: Look::default(),
        daemon,
        records,
    };
    if let Some(scene) = scene {
        let isolations = &newest(&scene.isolations, isolations);
        let pause = pause.as_ref().unwrap_or(&scene.pause);
        let snapshot = &scene.sight.snapshot;
        look.cycle = Some(snapshot.time);
        look.seen = scene.seen;
        look.gaps = snapshot.global_gaps().map(|gap| bounded(&gap.to_string())).collect();
        look.services = scene.services.len();
        shown.zones = zones(scene, &shown.daemon, (isolations, pause), now);
        shown.services.clone_from(&scene.services);
        unknown_where_not_judged(&mut shown.services, &shown.zones);
        shown.evidence.clone_from(&scene.series);
        shown.isolations = ledger(isolations, shown.daemon.mode == Mode::Observe, now);
    }
    shown.prometheus = look;
    shown.headline = headline(&shown);
    shown
}

/// A scene is of its cycle; what is carried out meanwhile is known to who does.
fn newest(of_cycle: &[Isolation], known: Vec<Isolation>) -> Vec<Isolation> {
    let mut isolations = of_cycle.to_vec();
    for isolation in known {
        match isolations.iter_mut().find(|it| it.id == isolation.id && it.zone() == isolation.zone()) {
            Some(older) => *older = isolation,
            None => isolations.push(isolation),
        }
    }
    isolations
}

fn ledger(isolations: &[Isolation], rehearsal: bool, now: Timestamp) -> Vec<IsolationState> {
    let of = |isolation: &Isolation| IsolationState::of(isolation, rehearsal, now);
    let (active, past): (Vec<&Isolation>, Vec<&Isolation>) = isolations.iter().partition(|i| i.active());
    active.into_iter().chain(past.into_iter().rev().take(MOST_PAST)).map(of).collect()
}

/// Every zone that was judged, and each that is isolated whether it was or not.
fn zones(
    scene: &Scene,
    daemon: &DaemonState,
    (isolations, pause): (&[Isolation], &Pause),
    now: Timestamp,
) -> Vec<ZoneState> {
    let Scene { sight, holds, .. } = scene;
    let situation = Situation {
        snapshot: &sight.snapshot,
        assessment: &sight.assessment,
        cluster: sight.snapshot.cluster.as_ref(),
        isolations,
        holds,
        pause,
        silences: &scene.silences,
        leads: daemon.leads,
        acts: daemon.mode != Mode::Observe,
    };
    let judged = sight.assessment.zones.keys();
    let decisions: BTreeMap<Zone, Decision> =
        decide::decide(&sight.assessment, isolations, &scene.decide).into_iter().collect();
    let names: BTreeSet<&Zone> = judged.chain(isolations.iter().filter(|i| i.active()).map(Isolation::zone)).collect();
    let of = |zone: &Zone| {
        let nothing = || Finding::inconclusive(vec![Gap::NoTraffic { zone: zone.clone() }]);
        let finding = sight.assessment.zones.get(zone).cloned().unwrap_or_else(nothing);
        let isolation = isolations.iter().find(|i| i.active() && i.zone() == zone);
        let (guardrails, [mut by_itself, by_hand]) = guard::standing(&situation, zone, &scene.guard, now);
        let (course, since) = scene.courses.get(zone).cloned().unwrap_or_default();
        // What is not wished for is not held by guardrails.
        if let Some(Decision::Hold(reason)) = decisions.get(zone) {
            let rehearsed = !situation.acts && *reason == HoldReason::AlreadyIsolated;
            let why = if rehearsed { "it would be isolated already".to_owned() } else { bounded(&reason.to_string()) };
            let (why, held_by) = (Some(why), Some(reason.as_str().to_owned()));
            by_itself = Answer { admitted: false, why, held_by, overridable: false };
        }
        let (state, why) = match isolation {
            Some(isolation) => out(&IsolationState::of(isolation, !situation.acts, now)),
            None => in_rotation(&finding, &by_itself),
        };
        ZoneState {
            zone: zone.clone(),
            state,
            why: bounded(&why),
            since: isolation.map(|i| i.admitted_at().unwrap_or(i.requested_at)).or(since),
            verdict: finding.verdict,
            hold: holds.get(zone).map(|hold| bounded(&format!("since {:.0}: {}", hold.since, hold.why))),
            scraped: sight.snapshot.coverage.get(zone).map(|coverage| (coverage.up, coverage.known)),
            by_itself,
            by_hand,
            guardrails,
            course,
        }
    };
    names.into_iter().map(of).collect()
}

/// What is said of a zone that an isolation is about.
fn out(isolation: &IsolationState) -> (State, String) {
    let why = match isolation.state {
        State::Stuck => format!("a person has to look. {}", isolation.stuck().collect::<Vec<_>>().join("; ")),
        State::Waiting => match &isolation.refused {
            Some(why) => format!("{why}. Asked for: {}", isolation.reason),
            None => format!("not taken up yet. Asked for: {}", isolation.reason),
        },
        State::Returning => match &isolation.recovery {
            Some(recovery) => recovery.why.clone(),
            None => "it is being given back".to_owned(),
        },
        State::Isolated | State::Isolating | State::Healthy | State::Unknown | State::Suspect | State::Faulty => {
            isolation.reason.clone()
        }
    };
    (isolation.state, why)
}

/// What is said of a zone in rotation: what was seen, and why nothing is done.
fn in_rotation(finding: &Finding, by_itself: &Answer) -> (State, String) {
    let state = match Judged::by(&finding.verdict) {
        Judged::Healthy => return (State::Healthy, "like its peers, and like its own past".to_owned()),
        Judged::Not | Judged::Past => {
            let gaps: Vec<String> = finding.verdict.gaps().iter().map(ToString::to_string).collect();
            return (State::Unknown, gaps.join("; "));
        }
        Judged::Worse if finding.verdict == Verdict::ZoneFault && finding.persistent => State::Faulty,
        Judged::Worse => State::Suspect,
    };
    let seen = super::notes::strongest(finding);
    let why_not = by_itself.why.as_ref().map_or_else(String::new, |why| format!(". Not isolated, as {why}"));
    (state, format!("{seen}{why_not}"))
}

/// No data is neither healthy nor zero: of a zone that can't be judged, no service is known.
fn unknown_where_not_judged(services: &mut [ServiceState], zones: &[ZoneState]) {
    let judged = |zone: &Zone| zones.iter().any(|it| it.zone == *zone && it.verdict.gaps().is_empty());
    for (_, standing) in services.iter_mut().flat_map(|service| &mut service.zones).filter(|(zone, _)| !judged(zone)) {
        if standing.compared != overview::Compared::NoTraffic {
            standing.compared = overview::Compared::Unknown;
        }
    }
}

/// What is the matter, the loudest first; zones that are alike are named together.
fn headline(shown: &Overview) -> Headline {
    let (observe, look) = (shown.daemon.mode == Mode::Observe, &shown.prometheus);
    let mut alike: BTreeMap<Reverse<State>, Vec<&str>> = BTreeMap::new();
    for zone in &shown.zones {
        alike.entry(Reverse(zone.state)).or_default().push(zone.zone.as_str());
    }
    let Some(Reverse(state)) = alike.keys().next().copied() else {
        return Headline { state: State::Unknown, text: "Nothing has been judged yet".to_owned() };
    };
    let all = shown.zones.len();
    let said = alike.into_iter().filter(|(of, _)| of.0 != State::Healthy || state == State::Healthy);
    let texts = said.map(|(Reverse(of), zones)| {
        let since =
            look.seen.map_or_else(|| "so far".to_owned(), |at| format!("since {}", at.strftime("%H:%M:%S UTC")));
        match (of, zones.len()) {
            (State::Unknown, _) if look.blind() => format!("nothing can be judged {since}"),
            (State::Unknown, count) if count == all => "no zone can be judged".to_owned(),
            (State::Healthy, count) if count > 1 => format!("all {count} zones are healthy"),
            (_, count) => format!("{} {}", listed(&zones), state_in_words(of, count > 1, observe)),
        }
    });
    let text = texts.collect::<Vec<_>>().join("; ");
    // What begins with a zone's name keeps its spelling.
    let begins_with_a_name = shown.zones.iter().any(|zone| text.starts_with(zone.zone.as_str()));
    let text = if begins_with_a_name { text } else { capitalized(&text) };
    Headline { state, text }
}

/// `a, b and c`.
fn listed(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// As the end of a sentence about a zone.
fn state_in_words(state: State, several: bool, observe: bool) -> String {
    let (is, has, alone) = if several { ("are", "have", "are each") } else { ("is", "has", "alone is") };
    match (state, observe) {
        (State::Healthy, _) => format!("{is} healthy"),
        (State::Unknown, _) => "can't be judged".to_owned(),
        (State::Suspect, _) => format!("{is} suspect"),
        (State::Returning, false) => format!("{is} coming back"),
        (State::Returning, true) => "would be coming back".to_owned(),
        (State::Isolated | State::Isolating, true) => "would be isolated".to_owned(),
        (State::Isolated, false) => format!("{is} isolated"),
        (State::Isolating, false) => format!("{is} being isolated"),
        (State::Faulty, _) => format!("{alone} worse, and {is} in rotation"),
        (State::Waiting, _) => format!("{has} an isolation that was asked for, and has not begun"),
        (State::Stuck, _) => format!("{has} a step that is stuck: a person has to look"),
    }
}
