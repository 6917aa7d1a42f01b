//! One story: what was decided, on what evidence, and the curves around it.

use jiff::Timestamp;
use maud::{Markup, html};

use super::page::moment;
use super::story::{Kind, Story};
use super::{plot, words};
use crate::domain::{Evidence, Zone};

/// Whether a story has more to show than a line of a table.
pub(super) fn worth(story: &Story) -> bool {
    story.kind == Kind::Isolated || !story.figures.is_empty()
}

const fn badge(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Isolated => ("isolate", "would be isolated"),
        Kind::Held => ("blocked", "held back"),
        Kind::Passed => ("suspect", "suspected, not decided"),
        Kind::Gap => ("gap", "not judged"),
    }
}

pub(super) fn card(story: &Story, end: Timestamp) -> Markup {
    let record = &story.record;
    let (class, said) = badge(story.kind);
    html! {
        article.story id=(format!("story-{}", story.id)) {
            h3 {
                span class=(format!("badge {class}")) { (said) } " "
                @if let Some(zone) = &record.zone { (zone) } @else { "every zone" }
                " " span.at { (moment(record.time)) " UTC" }
            }
            p.sentence { (record.message) }
            dl.facts { (facts(story, end)) }
            @if !record.evidence.is_empty() { (evidence(&record.evidence, &format!("Evidence of story {}", story.id))) }
            @if story.more_evidence > 0 {
                p.quiet { "And " (words::count(story.more_evidence, "weaker piece", "weaker pieces")) " of evidence." }
            }
            @if !story.figures.is_empty() {
                (plot::legend(&story.figures))
                div.figures { @for figure in &story.figures { (plot::figure(figure)) } }
            }
        }
    }
}

fn facts(story: &Story, end: Timestamp) -> Markup {
    let record = &story.record;
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let ended = match story.kind {
        Kind::Isolated => "given back",
        Kind::Held | Kind::Passed => "like its peers again",
        Kind::Gap => "judged again",
    };
    html! {
        @if let (Some(verdict), false) = (&record.verdict, story.kind == Kind::Gap) {
            (fact("verdict", html! { (words::verdict(verdict)) }))
        }
        @if let Some(reason) = &record.reason { (fact("held, as", html! { (reason) })) }
        @if let Some(since) = story.suspect_since {
            (fact("suspect since", html! { (moment(since)) ", " (words::between(since, record.time)) " before" }))
        }
        @if let Some(at) = story.ended {
            (fact(ended, html! { (moment(at)) ", " (words::between(record.time, at)) " later" }))
        } @else {
            (fact(ended, html! { "not within this stretch (" (words::between(record.time, end)) " from here)" }))
        }
        @if !record.warnings.is_empty() { (fact("to be known", html! { (record.warnings.join("; ")) })) }
        @if !record.not_evaluated.is_empty() {
            (fact("not evaluated", html! {
                (record.not_evaluated.iter().map(|name| words::plain(name)).collect::<Vec<_>>().join(", "))
            }))
        }
    }
}

/// What was seen, in numbers.
pub(super) fn evidence(items: &[Evidence], label: &str) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(label) { table.evidence {
            thead { tr {
                th scope="col" { "service" } th scope="col" { "what" } th.number scope="col" { "seen" }
                th.number scope="col" { "expected" } th.number scope="col" { "difference, 95 %" }
                th.number scope="col" { "requests: zone, peers" } th.number scope="col" { "window" }
                th.number scope="col" { "odds of chance" }
            } }
            tbody { @for item in items { (row(item)) } }
        } }
    }
}

fn row(item: &Evidence) -> Markup {
    let [seen, expected, excess] = words::effect(item);
    html! { tr {
        th scope="row" { (words::service(item.service.as_ref())) }
        td { (words::signal(item.signal)) }
        td.number { (seen) } td.number { (expected) } td.number { (excess) }
        td.number { (format!("{:.0}, {:.0}", item.zone_requests, item.peer_requests)) }
        td.number { (item.window) }
        td.number { "e" sup { (format!("−{:.0}", item.nats.get())) } }
    } }
}

/// Stories in a line each.
pub(super) fn table(stories: &[&Story]) -> Markup {
    html! {
        div.wide { table {
            thead { tr { th { "time" } th { "zone" } th { "what" } th { "in full" } } }
            tbody { @for story in stories { tr id=(format!("story-{}", story.id)) {
                td { (moment(story.record.time)) }
                td { (story.record.zone.as_ref().map_or("every zone", Zone::as_str)) }
                td { (badge(story.kind).1) }
                td { (story.record.message) }
            } } }
        } }
    }
}
