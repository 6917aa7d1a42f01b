//! The page as a whole, from its headline to its tables.

use std::collections::BTreeSet;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::collect::gap_of;
use super::story::{Kind, Story, Tally};
use super::{Report, card, lanes, words};
use crate::domain::{Gap, Zone, inert};

/// Gaps that are shown at first sight.
const MOST_GAPS: usize = 12;

pub(super) const STYLE: &str = include_str!("style.css");
/// Nothing from elsewhere, and nothing that runs: what the page says of itself, the browser enforces.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Of every page; `more` is what only some have.
pub(super) fn head(title: &str, style: &str, more: &Markup) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            (more)
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            style { (PreEscaped(style)) }
        }
    }
}

/// Of a page that is a file, and so can't be served with one.
pub(super) fn policy() -> Markup {
    html! { meta http-equiv="Content-Security-Policy" content=(POLICY); }
}

pub(super) fn html(report: &Report) -> String {
    let about = &report.about;
    let title = format!("zoneward backtest, {} to {} UTC", words::clock(about.start), words::clock(about.end));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&title, STYLE, &policy()))
            body {
                header { (header(report)) }
                main {
                    section aria-labelledby="timeline" {
                        h2 #timeline { "The whole stretch" }
                        @if report.timeline.zones.is_empty() { p.quiet { "No zone was seen." } }
                        @else { (lanes::timeline(&report.timeline)) }
                    }
                    section aria-labelledby="decisions" { h2 #decisions { "Decisions" } (decisions(report)) }
                    section aria-labelledby="held" { h2 #held { "What was held back, and why" } (held(report)) }
                    section aria-labelledby="gaps" { h2 #gaps { "What could not be judged" } (gaps(report)) }
                }
                footer { (footer(report)) }
            }
        }
    };
    inert(&page.into_string()).into_owned()
}

fn header(report: &Report) -> Markup {
    let about = &report.about;
    let figure = |name: &str| report.summary.figures.get(name).and_then(serde_json::Value::as_u64);
    let number = |name: &str| figure(name).map_or_else(|| "–".to_owned(), |number| number.to_string());
    let tile = |value: String, what: &str| html! { div { dt { (what) } dd { (value) } } };
    let held: usize = report.stories.held.values().map(|tally| tally.count).sum();
    html! {
        p.kicker { "zoneward backtest" }
        h1 { (headline(report)) }
        p.stretch {
            time datetime=(about.start) { (words::clock(about.start)) } " to "
            time datetime=(about.end) { (words::clock(about.end)) } " UTC, "
            (words::between(about.start, about.end)) "; " (zones(report)) ". A rehearsal: nothing was done."
        }
        dl.tiles {
            (tile(report.stories.isolations.to_string(), "would-be isolations"))
            (tile(held.to_string(), "held back"))
            (tile(number("cycles"), &format!("cycles of {}", about.cycle)))
            (tile(number("cycles_without_judgement"), "cycles without judgement"))
            (tile(number("queries"), "queries to Prometheus"))
            @if let Some(bytes) = figure("response_bytes") {
                (tile(format!("{:.1} MB", bytes as f64 / 1e6), "read"))
            }
        }
    }
}

/// The answer in one sentence.
fn headline(report: &Report) -> String {
    let stories = &report.stories;
    let isolated = stories.of(&[Kind::Isolated]);
    let judged = judged(report);
    let held: usize = stories.held.values().map(|tally| tally.count).sum();
    // That little is known at first goes without saying.
    let early = |story: &&Story| matches!(gap_of(&story.record), Some(Gap::TooLittleData { .. }));
    let lasting_gap = stories.of(&[Kind::Gap]).iter().any(|story| !early(story));
    match isolated.as_slice() {
        [only] => format!("{} would have been isolated, once, at {} UTC", zone(only), words::clock(only.record.time)),
        [first, ..] => {
            let zones: BTreeSet<String> = isolated.iter().map(|story| zone(story)).collect();
            format!(
                "{} would have been isolated {} times in all, first at {} UTC",
                listed(zones),
                isolated.len(),
                words::clock(first.record.time)
            )
        }
        [] if !judged => "Nothing could be judged, so nothing would have been done".to_owned(),
        [] if held > 0 => {
            let suspect = if held == 1 {
                "a zone was suspect once, and was".to_owned()
            } else {
                format!("zones were suspect {held} times, and were")
            };
            format!("Nothing would have been isolated: {suspect} left in rotation")
        }
        [] if lasting_gap => {
            "Nothing would have been done: no zone was worse than its peers while it could be judged".to_owned()
        }
        [] => "All was well: no zone was worse than its peers beyond chance".to_owned(),
    }
}

/// Whether anything could be judged at all.
fn judged(report: &Report) -> bool {
    report.timeline.zones.values().flatten().any(|bin| bin.cycles > bin.unjudged)
}

fn zone(story: &Story) -> String {
    story.record.zone.as_ref().map_or_else(|| "every zone".to_owned(), Zone::to_string)
}

fn zones(report: &Report) -> String {
    let zones = &report.timeline.zones;
    match zones.len() {
        0 => "no zone was seen".to_owned(),
        1 => format!("one zone, {}", listed(zones.keys().map(Zone::to_string))),
        count => format!("{count} zones: {}", listed(zones.keys().map(Zone::to_string))),
    }
}

/// `a, b and c`.
pub(super) fn listed(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<String> = names.into_iter().collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn decisions(report: &Report) -> Markup {
    let stories = &report.stories;
    let all = stories.of(&[Kind::Isolated, Kind::Held, Kind::Passed]);
    let (plotted, others): (Vec<&Story>, Vec<&Story>) = all.into_iter().partition(|story| card::worth(story));
    html! {
        @if plotted.is_empty() && others.is_empty() {
            p.quiet {
                @if judged(report) { "There was nothing to decide: no zone was suspected of anything." }
                @else {
                    "Nothing is decided on data that can't be judged. " a href="#gaps" { "What was missing" } " says why."
                }
            }
        }
        @for story in plotted { (card::card(story, report.about.end)) }
        @if !others.is_empty() {
            h3 { "Others, in short" }
            p.quiet { "Curves are kept for the weightiest only." }
            (card::table(&others))
        }
        @if stories.untold > 0 {
            p.quiet { "And " (stories.untold) " more, which are only counted. A shorter stretch shows them." }
        }
    }
}

fn held(report: &Report) -> Markup {
    let mut tallies: Vec<(&String, &Tally)> = report.stories.held.iter().collect();
    tallies.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.count));
    html! {
        @if tallies.is_empty() { p.quiet { "Nothing was held back." } }
        @else {
            div.wide { table {
                thead { tr {
                    th { "why" } th.number { "times" } th { "zones" }
                    th { "first" } th { "last" } th { "in the newest case" }
                } }
                tbody { @for (reason, tally) in tallies { tr {
                    th scope="row" { (words::plain(reason)) }
                    td.number { (tally.count) }
                    td { (listed(tally.zones.iter().map(Zone::to_string))) }
                    td { (moment(tally.first)) } td { (moment(tally.last)) }
                    td { (tally.example) }
                } } }
            } }
        }
    }
}

/// Gaps that began and ended together, and are of one kind, are one.
fn gaps(report: &Report) -> Markup {
    let stories = report.stories.of(&[Kind::Gap]);
    let together: Vec<&[&Story]> = stories
        .chunk_by(|a, b| {
            kind(a) == kind(b) && a.record.time == b.record.time && a.ended == b.ended && a.figures.is_empty()
        })
        .collect();
    let (first, more) = together.split_at(together.len().min(MOST_GAPS));
    html! {
        @if stories.is_empty() { p.quiet { "There was no gap: every cycle could be judged." } }
        @else { (gap_table(first, report.about.end)) }
        @if !more.is_empty() {
            details {
                summary { (words::count(more.len(), "more gap", "more gaps")) }
                (gap_table(more, report.about.end))
            }
        }
        @for story in stories.iter().filter(|story| card::worth(story)) { (card::card(story, report.about.end)) }
    }
}

fn kind(gap: &Story) -> &'static str {
    gap_of(&gap.record).map_or("gap", Gap::as_str)
}

fn gap_table(groups: &[&[&Story]], end: Timestamp) -> Markup {
    let row = |group: &[&Story], first: &Story| {
        html! { tr {
            th scope="row" {
                @for story in group.iter().filter(|story| !card::worth(story)) {
                    span id=(format!("story-{}", story.id)) {}
                }
                (words::plain(kind(first)))
            }
            td { (listed(group.iter().map(|story| zone(story)))) }
            td { (moment(first.record.time)) }
            td { @if let Some(ended) = first.ended { (moment(ended)) } @else { "the end" } }
            td.nowrap { (words::between(first.record.time, first.ended.unwrap_or(end))) }
            td { (first.record.message) }
        } }
    };
    let header = ["what", "zones", "noted", "until", "how long", "in full"];
    html! {
        div.wide { table {
            thead { tr { @for name in header { th { (name) } } } }
            tbody { @for group in groups { @if let Some(first) = group.first() { (row(group, first)) } } }
        } }
    }
}

pub(super) fn moment(time: Timestamp) -> Markup {
    html! { time.nowrap datetime=(time) { (words::clock(time)) } }
}

fn footer(report: &Report) -> Markup {
    html! {
        details {
            summary { "The configuration that decided" }
            dl.settings {
                @for (name, value) in &report.about.settings { div { dt { code { (name) } } dd { (value) } } }
            }
        }
        details {
            summary { "How to read it" }
            p {
                "Times are in UTC. Each zone is compared with its peers and with its own past; a zone that alone is worse, "
                "for long enough and broadly enough, would be isolated. An isolation in a backtest has no effect on the "
                "metrics, so the fault goes on as it did."
            }
            p {
                "Seen and expected are of the window judged; the interval holds the difference with 95 % confidence. "
                "Odds of chance of e" sup { "−10" } " mean that chance alone would show as much about once in 22 000 looks. "
                "Durations are estimated from the buckets of a histogram, as Prometheus does, and so is the edge from which "
                "requests count as slow: it is a bucket's, the one that shows the share that was seen. Of durations, the "
                "expected level is that of the cycles before."
            }
        }
        p.quiet { (report.summary.message) ". zoneward " (env!("CARGO_PKG_VERSION")) }
    }
}
