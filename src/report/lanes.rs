//! The timeline: a lane a zone.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};

use super::draw::{Scale, Unit, path, px, time_axis, time_ticks, value_axis};
use super::figure::MOST_ZONES;
use super::timeline::{Bin, Judged, Mark, Sign, Timeline};
use super::words;
use crate::domain::{Calls, Zone};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 18.0;
/// Within a lane, from its top: where marks stand, and where each strip begins and ends.
const MARKS: f64 = 30.0;
const FAILED: (f64, f64) = (44.0, 104.0);
const TRAFFIC: (f64, f64) = (120.0, 150.0);
const JUDGED: (f64, f64) = (156.0, 161.0);
const LANE: f64 = 196.0;

pub(super) fn timeline(timeline: &Timeline) -> Markup {
    let height = LANE * timeline.zones.len() as f64;
    let x = Scale::time(timeline.start, timeline.end, (LEFT, RIGHT));
    let bins = || timeline.zones.values().flatten();
    let failed = bins().flat_map(|bin| [share(bin.served), share(bin.called)]).flatten().fold(0.0, f64::max);
    let failed = Unit::Share.ticks(failed, 3);
    let rate = |bin: &Bin| bin.served.total / timeline.part.as_secs_f64();
    let mut traffic = Unit::PerSecond.ticks(bins().map(rate).fold(0.0, f64::max), 4);
    // So low a strip has room for two.
    traffic.drain(1..traffic.len() - 1);
    let times = time_ticks(timeline.start, timeline.end, 10);
    html! {
        (legend(timeline))
        @if timeline.zones.len() >= MOST_ZONES { p.quiet { "Only " (MOST_ZONES) " zones are shown." } }
        div.wide tabindex="0" role="region" aria-label="Timeline of all zones" {
            svg.lanes viewBox=(format!("0 0 {WIDTH} {height}")) role="group"
                aria-label=(format!("Failures, traffic and decisions of {} zones", timeline.zones.len())) {
                (hatch())
                @for (at, (zone, bins)) in timeline.zones.iter().enumerate() {
                    g transform=(format!("translate(0 {})", LANE * at as f64)) {
                        text.zone x="0" y="12" { (zone) }
                        text.tick x=(px(RIGHT)) y="12" text-anchor="end" { (words::lane(bins, timeline.part)) }
                        (isolations(&x, zone, timeline))
                        (unjudged(&x, timeline, bins))
                        (time_axis(&x, &times, (FAILED.0, JUDGED.1)))
                        (strip(&x, &failed, FAILED, |top| html! {
                            path.served d=(line(&x, timeline, bins, top, |bin| share(bin.served))) {
                                title { "failed, as " (zone) " served it" }
                            }
                            path.called d=(line(&x, timeline, bins, top, |bin| share(bin.called))) {
                                title { "failed, as clients in " (zone) " saw it" }
                            }
                        }))
                        (strip(&x, &traffic, TRAFFIC, |top| html! {
                            path.traffic d=(area(&x, timeline, bins, top, rate)) { title { "requests answered" } }
                        }))
                        (verdicts(&x, timeline, bins))
                        (marks(&x, timeline, zone))
                    }
                }
            }
        }
    }
}

fn share(calls: Calls) -> Option<f64> {
    (calls.total > 0.0).then(|| calls.failed / calls.total)
}

/// One strip with its axis; what is in it is drawn over the rules.
fn strip(x: &Scale, ticks: &[(f64, String)], (top, bottom): (f64, f64), content: impl Fn(&Scale) -> Markup) -> Markup {
    let most = ticks.last().map_or(1.0, |(value, _)| *value);
    let y = Scale { values: (0.0, most), pixels: (bottom, top) };
    html! { (value_axis(&y, ticks, x.pixels)) (content(&y)) }
}

/// The middle of a part.
fn middle(x: &Scale, timeline: &Timeline, at: usize) -> f64 {
    x.at_time(edge(timeline, at) + timeline.part / 2)
}

/// Where a part begins.
fn edge(timeline: &Timeline, at: usize) -> Timestamp {
    timeline.start + timeline.part * i32::try_from(at).unwrap_or(i32::MAX)
}

fn line(x: &Scale, timeline: &Timeline, bins: &[Bin], y: &Scale, value: impl Fn(&Bin) -> Option<f64>) -> String {
    path(bins.iter().enumerate().map(|(at, bin)| value(bin).map(|v| (middle(x, timeline, at), y.at(v)))))
}

/// Filled down to nought, where something was seen.
fn area(x: &Scale, timeline: &Timeline, bins: &[Bin], y: &Scale, value: impl Fn(&Bin) -> f64) -> String {
    let part = |from: usize, to: usize| {
        let points = (from..to).map(|at| Some((middle(x, timeline, at), y.at(value(&bins[at])))));
        let (first, last) = (middle(x, timeline, from), middle(x, timeline, to - 1));
        format!("{}L{last:.1} {bottom:.1}L{first:.1} {bottom:.1}Z", path(points), bottom = y.pixels.0)
    };
    let seen = runs(bins, |bin| bin.seen > 0).into_iter().filter(|run| run.0);
    seen.map(|(_, from, to)| part(from, to)).collect()
}

/// Parts in a row of which the same is true, as (first, behind the last).
fn runs<T: PartialEq>(bins: &[Bin], of: impl Fn(&Bin) -> T) -> Vec<(T, usize, usize)> {
    let mut runs: Vec<(T, usize, usize)> = Vec::new();
    for (at, bin) in bins.iter().enumerate() {
        let value = of(bin);
        match runs.last_mut() {
            Some((last, _, end)) if *last == value => *end = at + 1,
            _ => runs.push((value, at, at + 1)),
        }
    }
    runs
}

fn verdicts(x: &Scale, timeline: &Timeline, bins: &[Bin]) -> Markup {
    html! {
        @for (judged, from, to) in runs(bins, Bin::judged).into_iter().filter(|run| run.0 != Judged::Never) {
            @let (left, right) = (x.at_time(edge(timeline, from)), x.at_time(edge(timeline, to)));
            @let (class, said) = match judged {
                Judged::Healthy => ("healthy", "like its peers"),
                Judged::Worse => ("worse", "worse than its peers or its past"),
                Judged::Not | Judged::Never => ("unknown", "not judged"),
            };
            rect class=(class) x=(px(left)) width=(px((right - left).max(1.0))) y=(px(JUDGED.0))
                height=(px(JUDGED.1 - JUDGED.0)) {
                title { (said) ", " (words::clock(edge(timeline, from))) " to " (words::clock(edge(timeline, to))) }
            }
        }
    }
}

fn unjudged(x: &Scale, timeline: &Timeline, bins: &[Bin]) -> Markup {
    html! {
        @for (_, from, to) in runs(bins, |bin| bin.judged() == Judged::Not).into_iter().filter(|run| run.0) {
            @let (left, right) = (x.at_time(edge(timeline, from)), x.at_time(edge(timeline, to)));
            rect fill="url(#hatch)" x=(px(left)) width=(px(right - left)) y=(px(FAILED.0))
                height=(px(TRAFFIC.1 - FAILED.0)) {}
        }
    }
}

fn isolations(x: &Scale, zone: &Zone, timeline: &Timeline) -> Markup {
    html! {
        @for out in timeline.outs.iter().filter(|out| out.zone == *zone) {
            @let (left, right) = (x.at_time(out.from), x.at_time(out.until.unwrap_or(timeline.end)));
            rect.isolated x=(px(left)) width=(px((right - left).max(1.5))) y=(px(FAILED.0))
                height=(px(JUDGED.1 - FAILED.0)) { title { (out.said) } }
        }
    }
}

fn marks(x: &Scale, timeline: &Timeline, zone: &Zone) -> Markup {
    let here = |sign: Sign| {
        let of_sign = timeline.marks.iter().filter(move |((.., other), _)| *other == sign);
        of_sign.filter(|((of, ..), _)| of.as_ref().is_none_or(|of| of == zone)).map(|(_, mark)| mark)
    };
    let drawn = |sign, mark: &Mark| {
        html! {
            g transform=(format!("translate({:.1} {MARKS})", x.at_time(mark.time))) {
                (shape(sign)) title { (said(sign, mark)) }
            }
        }
    };
    html! {
        @for sign in Sign::ALL {
            @for mark in here(sign) {
                @if let Some(story) = mark.story {
                    a href=(format!("#story-{story}")) aria-label=(said(sign, mark)) { (drawn(sign, mark)) }
                } @else {
                    (drawn(sign, mark))
                }
            }
        }
    }
}

fn said(sign: Sign, mark: &Mark) -> String {
    let more = if mark.count > 1 { format!(" ({} times about here)", mark.count) } else { String::new() };
    format!("{} {}{more}", words::clock(mark.time), words::sign(sign))
}

/// Told apart by shape, not by colour alone.
pub(super) fn shape(sign: Sign) -> Markup {
    let (class, outline) = match sign {
        Sign::Isolate => ("sign isolate", "M-8 -8H8L0 7Z"),
        Sign::Restore => ("sign restore", "M-7 6H7L0 -7Z"),
        Sign::Held => ("sign blocked", "M-6 -6H6V6H-6ZM-6 0H6"),
        Sign::Suspect => ("sign suspect", "M0 -6L6 0L0 6L-6 0Z"),
        Sign::Clear => ("sign clear", "M-5 0L-1 4L5 -4"),
        Sign::Gap => ("sign gap", "M-4 -4L4 4M4 -4L-4 4"),
    };
    html! { path class=(class) d=(outline) {} }
}

fn hatch() -> Markup {
    html! {
        defs {
            (PreEscaped("<pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
                patternTransform=\"rotate(45)\"><path class=\"hatch\" d=\"M0 0V6\"/></pattern>"))
        }
    }
}

fn legend(timeline: &Timeline) -> Markup {
    let stands = |sign: &Sign| timeline.marks.keys().any(|(.., other)| other == sign);
    let entry = |content: Markup, said: &str| {
        html! { span {
            svg.sample width="26" height="16" viewBox="-13 -8 26 16" aria-hidden="true" { (content) }
            (said)
        } }
    };
    let line = |class: &str| html! { path class=(class) d="M-12 0H12" {} };
    let traffic = html! { path.traffic d="M-12 6V-2L0 -5L12 -3V6Z" {} };
    let judged = html! {
        rect.healthy x="-12" y="-3" width="12" height="6" {} rect.worse x="0" y="-3" width="12" height="6" {}
    };
    let hatched = html! { rect fill="url(#hatch)" x="-12" y="-7" width="24" height="14" {} };
    html! {
        p.legend {
            (entry(line("served"), "failed, as the zone served it"))
            (entry(line("called"), "failed, as clients in the zone saw it"))
            (entry(traffic, "requests answered per second"))
            (entry(judged, "like its peers, or worse"))
            (entry(hatched, "not judged"))
            @for sign in Sign::ALL.into_iter().rev().filter(stands) { (entry(shape(sign), words::sign(sign))) }
        }
    }
}
