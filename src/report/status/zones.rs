//! Each zone: its state and why, its last hour, and the evidence against it.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{badge, name, since, state, tone};
use crate::domain::overview::{Answer, Judged, Moment, Overview, Series, State, ZoneState};
use crate::domain::{CycleLength, Event, Mode, Period, Zone};
use crate::report::figure::Figure;
use crate::report::timeline::{Out, Sign, Timeline};
use crate::report::{card, lanes, plot, words};

pub(super) fn cards(overview: &Overview) -> Markup {
    html! {
        @if overview.zones.is_empty() {
            p.quiet {
                "No zone is known yet. The first judgement comes with the first cycle; and Prometheus has to name at least two zones."
            }
        }
        div.zones { @for zone in &overview.zones { (zone_card(zone, overview)) } }
    }
}

fn zone_card(zone: &ZoneState, overview: &Overview) -> Markup {
    let rehearsal = overview.daemon.mode == Mode::Observe;
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let newest = zone.course.last().filter(|moment| Some(moment.time) == overview.prometheus.seen);
    html! {
        article class=(format!("zone-card {}", tone(zone.state))) {
            h3 { (name(zone.zone.as_str())) " " (badge(zone.state, rehearsal)) }
            p.why { @if overview.prometheus.blind() && zone.state == State::Unknown { (before(zone)) } @else { (zone.why) } }
            dl.facts {
                @if let Some(at) = zone.since { (fact("since", since(at, overview.now))) }
                @if let Some(moment) = newest { (fact("now", traffic(moment, overview.prometheus.cycle_s))) }
                @if let Some((up, known)) = zone.scraped { (fact("proxies scraped", html! { (up) " of " (known) })) }
                @if let Some(hold) = &zone.hold { (fact("held by a person", html! { (hold) })) }
                @if out(zone.state) {}
                @else {
                    (fact("zoneward may isolate it", answer(&zone.by_itself, overview.prometheus.blind(), false)))
                    // In observe mode nobody carries it out.
                    @if !rehearsal { (fact("a person may", answer(&zone.by_hand, overview.prometheus.blind(), true))) }
                }
            }
        }
    }
}

const fn out(state: State) -> bool {
    match state {
        State::Healthy | State::Unknown | State::Suspect | State::Faulty => false,
        State::Returning | State::Isolated | State::Isolating | State::Waiting | State::Stuck => true,
    }
}

fn traffic(moment: &Moment, cycle_s: i64) -> Markup {
    let served = moment.served.unwrap_or_default();
    let rate = served.total / cycle_s.max(1) as f64;
    html! {
        (format!("{rate:.1} requests/s"))
        @if served.total > 0.0 { ", " (words::percent(served.failed / served.total)) " fail" }
    }
}

/// What was last known of a zone of which nothing is known now.
fn before(zone: &ZoneState) -> Markup {
    let judged = zone.course.iter().rev().find(|it| matches!(it.judged, Judged::Healthy | Judged::Worse));
    html! {
        "It can't be told."
        @if let Some(moment) = judged {
            " When it was last judged, at " (moment.time.strftime("%H:%M:%S").to_string()) ", it was "
            @if moment.judged == Judged::Healthy { "like its peers." } @else { "worse than its peers, or than its own past." }
        }
    }
}

fn answer(answer: &Answer, blind: bool, person: bool) -> Markup {
    html! {
        @if answer.admitted { "yes: every guardrail passes" }
        @else {
            // The page says at its top why nothing can be judged.
            @if blind && answer.held_by.as_deref() == Some("stale_data") { "no, as nothing can be judged" }
            @else { "no, as " (answer.why.as_deref().unwrap_or("a guardrail holds it")) }
            @if let (true, true, Some(name)) = (person, answer.overridable, &answer.held_by) {
                ". " code { "--override " (name.replace('_', "-")) } " would do"
            }
        }
    }
}

/// Failures, traffic and judgements of the newest hour.
pub(super) fn hour(overview: &Overview) -> Markup {
    let moments = || overview.zones.iter().flat_map(|zone| &zone.course);
    let (first, last) = (moments().map(|it| it.time).min(), moments().map(|it| it.time).max());
    let (Some(start), Some(end)) = (first, last) else { return html! { p.quiet { "Nothing was seen yet." } } };
    let cycle = CycleLength::at_least(Period::from_secs(overview.prometheus.cycle_s));
    let mut timeline = Timeline::new(start, end, cycle);
    for zone in &overview.zones {
        zone.course.iter().for_each(|moment| timeline.add_moment(&zone.zone, moment));
    }
    for entry in overview.records.iter().filter(|entry| entry.time >= start) {
        if let Some(sign) = sign(entry.event) {
            timeline.mark(entry.zone.as_ref(), sign, entry.time, None);
        }
    }
    timeline.outs = outs(overview, start);
    lanes::timeline(&timeline)
}

fn outs(overview: &Overview, start: Timestamp) -> Vec<Out> {
    let of = |isolation: &crate::domain::overview::IsolationState| {
        let (from, until) = (isolation.admitted_at?.max(start), isolation.restored_at);
        let said = if isolation.rehearsal { "would be isolated" } else { "isolated" };
        until.is_none_or(|at| at > start).then(|| Out { zone: isolation.zone.clone(), from, until, said })
    };
    overview.isolations.iter().filter_map(of).collect()
}

/// What of the records is marked in the strip.
const fn sign(event: Event) -> Option<Sign> {
    match event {
        Event::Isolate | Event::Isolated => Some(Sign::Isolate),
        Event::Restore => Some(Sign::Restore),
        Event::Blocked | Event::Refused => Some(Sign::Held),
        Event::Suspect => Some(Sign::Suspect),
        Event::Clear => Some(Sign::Clear),
        Event::Gap => Some(Sign::Gap),
        Event::Started
        | Event::Stopped
        | Event::Unrecorded
        | Event::Retired
        | Event::HandedOver
        | Event::ConfigurationChanged
        | Event::ConfigurationRefused
        | Event::Paused
        | Event::Resumed
        | Event::Acknowledged
        | Event::Admitted
        | Event::Reclassified
        | Event::Adopted
        | Event::Observed
        | Event::Step
        | Event::Mended
        | Event::Effective
        | Event::Ineffective
        | Event::RolledBack
        | Event::DrillBlocked
        | Event::DrillAborted
        | Event::DrillPassed
        | Event::Recovering
        | Event::Relapsed
        | Event::Restored
        | Event::Fault
        | Event::Repair
        | Event::Summary => None,
    }
}

/// What speaks against each zone, in numbers and as curves of all zones.
pub(super) fn evidence(overview: &Overview) -> Markup {
    let of = |zone: &Zone| overview.evidence.iter().filter(|series| series.zone == *zone).collect::<Vec<_>>();
    let zones = overview.zones.iter().map(|zone| (zone, of(&zone.zone))).filter(|(_, all)| !all.is_empty());
    let zones: Vec<(&ZoneState, Vec<&Series>)> = zones.collect();
    html! {
        @if zones.is_empty() { p.quiet { (nothing(overview)) } }
        @for (zone, all) in zones { (against(zone, &all, overview.daemon.mode == Mode::Observe)) }
    }
}

const fn nothing(overview: &Overview) -> &'static str {
    if overview.prometheus.blind() || overview.zones.is_empty() {
        "There is none, as nothing can be judged."
    } else {
        "There is none: no zone is worse than its peers, or than its own past, beyond chance."
    }
}

fn against(zone: &ZoneState, all: &[&Series], rehearsal: bool) -> Markup {
    let figures: Vec<Figure> = all.iter().map(|series| Figure::of_series(series)).collect();
    let items: Vec<_> = all.iter().map(|series| series.evidence.clone()).collect();
    html! {
        article.story {
            h3 { (name(zone.zone.as_str())) ", " (state(zone.state, rehearsal)) }
            (plot::legend(&figures))
            div.figures { @for figure in &figures { (plot::figure(figure)) } }
            (card::evidence(&items, &format!("Evidence against {}, in numbers", name(zone.zone.as_str()))))
        }
    }
}
