//! The page for the post-mortem: what a journal tells of a stretch, story by story, with what the decisions rested on.
//!
//! Like the page of a backtest it is a file of its own: no network, no script.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::collect::figures;
use super::draw::{Scale, px, time_axis, time_ticks};
use super::figure::Figure;
use super::page::{STYLE, head, moment, policy};
use super::story::MOST_PLOTTED;
use super::timeline::Sign;
use super::{card, lanes, plot, words};
use crate::domain::{Assessment, CycleLength, Event, GuardrailSaid, Record, Sight, Snapshot, Zone, inert};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 8.0;
const RIGHT: f64 = WIDTH - 18.0;
const LANE: f64 = 84.0;
/// Within a lane, from its top: where marks stand, and where the bar of a zone that is out begins and ends.
const MARKS: f64 = 32.0;
const BAR: (f64, f64) = (44.0, 58.0);

/// One entry by its ID, and what was seen when it was decided, as far as that was kept.
#[derive(Debug, Clone)]
pub struct Told {
    pub id: String,
    pub record: Record,
    /// Oldest first.
    pub seen: Vec<Snapshot>,
}

/// All that goes onto the page.
#[derive(Debug, Clone)]
pub struct Review {
    pub start: Timestamp,
    pub end: Timestamp,
    /// Where the journal was read, and what the check of its chain said.
    pub journal: String,
    pub verified: String,
    pub cycle: CycleLength,
    /// Each of one zone, in order.
    pub stories: Vec<Vec<Told>>,
    /// What concerns no zone.
    pub others: Vec<Told>,
}

impl Review {
    /// The page.
    pub fn html(&self) -> String {
        let title = format!("zoneward review, {} to {} UTC", words::clock(self.start), words::clock(self.end));
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head(&title, STYLE, &policy()))
                body {
                    header { (self.header()) }
                    main {
                        section aria-labelledby="timeline" {
                            h2 #timeline { "The whole stretch" }
                            @if self.stories.is_empty() { p.quiet { "Nothing is on record of any zone." } }
                            @else { (self.timeline()) }
                        }
                        section aria-labelledby="stories" {
                            h2 #stories { "What happened, zone by zone" }
                            @for (at, story) in self.stories.iter().enumerate() { (self.story(at, story)) }
                        }
                        @if !self.others.is_empty() {
                            section aria-labelledby="others" { h2 #others { "Beside it" } (entries(&self.others, None)) }
                        }
                    }
                    footer { (footer()) }
                }
            }
        };
        inert(&page.into_string()).into_owned()
    }

    fn header(&self) -> Markup {
        let count = |which: fn(&Record) -> bool| {
            self.stories.iter().filter(|story| story.iter().any(|told| which(&told.record))).count().to_string()
        };
        let tile = |value: String, what: &str| html! { div { dt { (what) } dd { (value) } } };
        html! {
            p.kicker { "zoneward review" }
            h1 { (self.headline()) }
            p.stretch {
                time datetime=(self.start) { (words::clock(self.start)) } " to "
                time datetime=(self.end) { (words::clock(self.end)) } " UTC, " (words::between(self.start, self.end))
                "; from " (self.journal)
            }
            dl.tiles {
                (tile(self.stories.len().to_string(), "stories"))
                (tile(count(|record| record.event == Event::Isolated), "isolations carried out"))
                (tile(count(|record| record.event == Event::Isolate && record.rehearsal), "rehearsed"))
                (tile(count(|record| record.event == Event::Blocked), "with a fault held back"))
                (tile(self.entries().filter(|told| told.record.inputs.is_some()).count().to_string(), "entries to replay"))
            }
            p.quiet { "The journal: " (self.verified) }
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Told> {
        self.stories.iter().flatten()
    }

    fn headline(&self) -> String {
        let of = |event: Event| {
            let entries = self.entries().filter(move |told| told.record.event == event);
            entries.filter_map(|told| told.record.zone.as_ref().map(|zone| (zone, told)))
        };
        let times = |number: usize| if number == 1 { "once".to_owned() } else { format!("{number} times") };
        let mut zones: BTreeMap<&Zone, usize> = BTreeMap::new();
        of(Event::Isolated).for_each(|(zone, _)| *zones.entry(zone).or_default() += 1);
        if !zones.is_empty() {
            let zones: Vec<String> = zones.iter().map(|(zone, count)| format!("{zone} {}", times(*count))).collect();
            return format!("Isolated: {}", zones.join(", "));
        }
        let wished: BTreeSet<&Zone> = of(Event::Isolate).map(|(zone, _)| zone).collect();
        if let Some(first) = wished.first() {
            let more = if wished.len() > 1 { format!(" and {} more", wished.len() - 1) } else { String::new() };
            return format!("Nothing was isolated, though {first}{more} would have been");
        }
        match of(Event::Blocked).count() {
            0 => "Nothing was isolated, and nothing held back".to_owned(),
            count => format!("Nothing was isolated: a fault was held back {}", times(count)),
        }
    }

    /// A lane a zone: what was decided, and when it was out.
    fn timeline(&self) -> Markup {
        let mut zones: BTreeMap<&Zone, Vec<(usize, &[Told])>> = BTreeMap::new();
        for (at, story) in self.stories.iter().enumerate() {
            if let Some(zone) = zone(story) {
                zones.entry(zone).or_default().push((at, story));
            }
        }
        let x = Scale::time(self.start, self.end, (LEFT, RIGHT));
        let times = time_ticks(self.start, self.end, 10);
        let height = LANE * zones.len() as f64;
        html! {
            p.legend {
                @for sign in Sign::ALL.into_iter().rev().filter(|sign| *sign != Sign::Gap) {
                    span {
                        svg.sample width="26" height="16" viewBox="-13 -8 26 16" aria-hidden="true" { (lanes::shape(sign)) }
                        (words::sign(sign))
                    }
                }
                span {
                    svg.sample width="26" height="16" viewBox="-13 -8 26 16" aria-hidden="true" {
                        rect.worse x="-12" y="-5" width="24" height="10" {}
                    }
                    "out of rotation, or in part"
                }
            }
            div.wide tabindex="0" role="region" aria-label="Timeline of all zones" {
                svg.lanes viewBox=(format!("0 0 {WIDTH} {height}")) role="group" aria-label="Decisions by zone" {
                    @for (lane, (zone, stories)) in zones.iter().enumerate() {
                        g transform=(format!("translate(0 {})", LANE * lane as f64)) {
                            text.zone x="0" y="12" { (zone) }
                            (time_axis(&x, &times, (MARKS - 10.0, BAR.1)))
                            @for (at, story) in stories { (self.bar(&x, story)) (marks(&x, *at, story)) }
                        }
                    }
                }
            }
        }
    }

    fn bar(&self, x: &Scale, story: &[Told]) -> Markup {
        let find = |events: &[Event]| story.iter().find(|told| events.contains(&told.record.event));
        let from = find(&[Event::Step]).or_else(|| find(&[Event::Isolated])).map(|told| told.record.time);
        let to = find(&[Event::Restored]).map_or(self.end, |told| told.record.time);
        html! {
            @if let Some(from) = from {
                @let (left, right) = (x.at_time(from), x.at_time(to));
                rect.worse x=(px(left)) width=(px((right - left).max(1.5))) y=(px(BAR.0)) height=(px(BAR.1 - BAR.0)) {
                    title { "out of rotation, " (words::clock(from)) " to " (words::clock(to)) }
                }
            }
        }
    }

    fn story(&self, at: usize, story: &[Told]) -> Markup {
        let (Some(first), Some(last)) = (story.first(), story.last()) else { return html! {} };
        let decided = decisive(story).unwrap_or(first);
        let record = &decided.record;
        let (class, said) = came_to(story);
        let figures = if at < MOST_PLOTTED { self.figures(story, decided) } else { Vec::new() };
        html! {
            article.story id=(format!("story-{at}")) {
                h3 {
                    span class=(format!("badge {class}")) { (said) } " "
                    (record.zone.as_ref().map_or("", Zone::as_str)) " "
                    span.at { (moment(first.record.time)) " UTC, " (words::between(first.record.time, last.record.time)) }
                }
                p.sentence { (record.message) }
                dl.facts { (facts(story, decided)) }
                @if !record.evidence.is_empty() { (card::evidence(&record.evidence, &format!("Evidence of story {at}"))) }
                @if !figures.is_empty() {
                    (plot::legend(&figures))
                    div.figures { @for figure in &figures { (plot::figure(figure)) } }
                }
                @if !record.guardrails.is_empty() { (guardrails(record)) }
                details open[story.len() <= 40] {
                    summary { (words::count(story.len(), "entry", "entries")) }
                    (entries(story, Some(record.time)))
                }
            }
        }
    }

    /// What every decision of the story saw, on the evidence of the decisive one.
    fn figures(&self, story: &[Told], decided: &Told) -> Vec<Figure> {
        let mut seen: BTreeMap<Timestamp, &Snapshot> = BTreeMap::new();
        story.iter().flat_map(|told| &told.seen).for_each(|snapshot| {
            seen.entry(snapshot.time).or_insert(snapshot);
        });
        let sight = |snapshot: &&Snapshot| {
            let assessment = Assessment { time: snapshot.time, zones: BTreeMap::new(), unsettled: BTreeSet::new() };
            Arc::new(Sight { snapshot: (*snapshot).clone(), assessment })
        };
        let seen: Vec<Arc<Sight>> = seen.values().map(sight).collect();
        if seen.is_empty() { Vec::new() } else { figures(&decided.record, &seen, self.cycle) }
    }
}

fn zone(story: &[Told]) -> Option<&Zone> {
    story.first().and_then(|told| told.record.zone.as_ref())
}

/// The entry that a story turns on.
fn decisive(story: &[Told]) -> Option<&Told> {
    let order = [Event::Isolate, Event::Admitted, Event::Blocked, Event::Suspect, Event::Gap];
    order.into_iter().find_map(|event| story.iter().find(|told| told.record.event == event))
}

fn came_to(story: &[Told]) -> (&'static str, &'static str) {
    let has = |event: Event| story.iter().any(|told| told.record.event == event);
    let rehearsed = story.iter().any(|told| told.record.event == Event::Isolate && told.record.rehearsal);
    if rehearsed {
        ("isolate", "would have been isolated")
    } else if has(Event::RolledBack) || has(Event::Reclassified) {
        ("isolate", "isolated, and given up")
    } else if has(Event::Isolated) {
        ("isolate", "isolated")
    } else if has(Event::Isolate) || has(Event::Admitted) {
        ("isolate", "to be isolated")
    } else if has(Event::Blocked) || has(Event::Refused) {
        ("blocked", "held back")
    } else if has(Event::Suspect) {
        ("suspect", "suspected, not decided")
    } else {
        ("gap", "noted")
    }
}

/// The steps of the story, each by how long it took.
fn facts(story: &[Told], decided: &Told) -> Markup {
    let record = &decided.record;
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let milestones = [
        (Event::Suspect, "suspect"),
        (Event::Isolated, "every step confirmed"),
        (Event::Effective, "shown by the traffic"),
        (Event::Recovering, "first on its way back"),
        (Event::Restored, "back in rotation"),
    ];
    let when = |time: Timestamp| {
        let (from, to, word) =
            if time < record.time { (time, record.time, "before") } else { (record.time, time, "later") };
        html! { (moment(time)) ", " (words::between(from, to)) " " (word) }
    };
    html! {
        (fact("ID", html! { code { (decided.id) } }))
        (fact("decided", moment(record.time)))
        @if let Some(verdict) = &record.verdict { (fact("verdict", html! { (words::verdict(verdict)) })) }
        @if let Some(reason) = &record.reason { (fact("held, as", html! { (reason) })) }
        @for (event, name) in milestones {
            @if let Some(told) = story.iter().find(|told| told.record.event == event && told.id != decided.id) {
                (fact(name, when(told.record.time)))
            }
        }
        @if let Some(effect) = story.iter().rev().find_map(|told| told.record.effective.as_ref()) {
            (fact("effect", html! { (format!("{:.1} requests/s before, {:.1} after", effect.before_rps, effect.after_rps)) }))
        }
        @if record.inputs.is_some() {
            (fact("decide it again", html! { code { "zoneward audit replay " (decided.id) } }))
        }
    }
}

fn guardrails(record: &Record) -> Markup {
    let passed = record.guardrails.iter().filter(|said| said.1 == GuardrailSaid::Passed).count();
    html! {
        details {
            summary { (passed) " of " (record.guardrails.len()) " guardrails passed" }
            div.wide { table {
                thead { tr { th scope="col" { "guardrail" } th scope="col" { "outcome" } th scope="col" { "figures" } } }
                tbody { @for said in &record.guardrails { tr {
                    th scope="row" { (words::plain(&said.0)) } td { (said.1.as_str()) } td { (said.2) }
                } } }
            } }
        }
    }
}

fn entries(told: &[Told], decided: Option<Timestamp>) -> Markup {
    let after = |time: Timestamp| {
        decided.map(|at| {
            let sign = if time < at { "−" } else { "+" };
            format!("{sign}{}", words::between(at.min(time), at.max(time)))
        })
    };
    html! {
        div.wide { table {
            thead { tr {
                th scope="col" { "ID" } th scope="col" { "time" }
                @if decided.is_some() { th.number scope="col" { "after" } }
                th scope="col" { "event" } th scope="col" { "what" }
            } }
            tbody { @for Told { id, record, .. } in told { tr {
                td { code { (id) } }
                td { (moment(record.time)) }
                @if let Some(after) = after(record.time) { td.number { (after) } }
                th scope="row" { (words::plain(record.event.as_str())) }
                td { (record.message) }
            } } }
        } }
    }
}

fn marks(x: &Scale, at: usize, story: &[Told]) -> Markup {
    let signs = [
        (Event::Suspect, Sign::Suspect),
        (Event::Blocked, Sign::Held),
        (Event::Refused, Sign::Held),
        (Event::Isolate, Sign::Isolate),
        (Event::Restored, Sign::Restore),
        (Event::Clear, Sign::Clear),
    ];
    let sign = |event: Event| signs.into_iter().find(|(of, _)| *of == event).map(|(_, sign)| sign);
    html! {
        @for (told, sign) in story.iter().filter_map(|told| sign(told.record.event).map(|sign| (told, sign))) {
            @let said = format!("{} {}", words::clock(told.record.time), words::sign(sign));
            a href=(format!("#story-{at}")) aria-label=(said) {
                g transform=(format!("translate({:.1} {MARKS})", x.at_time(told.record.time))) {
                    (lanes::shape(sign)) title { (said) }
                }
            }
        }
    }
}

fn footer() -> Markup {
    html! {
        details {
            summary { "How to read it" }
            p {
                "Times are in UTC. A story goes from a suspicion to the zone's return, or until the zone is like its peers again. "
                "Curves are of what the detector remembered when it decided, about twelve minutes, and end with the decision. "
                "Every entry has an ID: " code { "zoneward audit show ID" } " tells it in full, and "
                code { "zoneward audit replay ID" } " decides it again from what it rested on, byte by byte."
            }
        }
        p.quiet { "zoneward " (env!("CARGO_PKG_VERSION")) }
    }
}
