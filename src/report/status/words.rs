//! What states are called, and how they look: by a shape and a word, never by colour alone.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::domain::overview::{Compared, Ruling, State};
use crate::domain::{Event, Mode, Origin};
use crate::report::words::between;

/// Of a name that a label holds: longer ones are cut.
const LONGEST_NAME: usize = 120;

pub(super) const fn state(state: State, rehearsal: bool) -> &'static str {
    match (state, rehearsal) {
        (State::Healthy, _) => "healthy",
        (State::Unknown, _) => "not judged",
        (State::Suspect, _) => "suspect",
        (State::Returning, _) => "coming back",
        (State::Isolated | State::Isolating, true) => "would be isolated",
        (State::Isolated, false) => "isolated",
        (State::Isolating, false) => "being isolated",
        (State::Faulty, _) => "worse, in rotation",
        (State::Waiting, _) => "waits for a person",
        (State::Stuck, _) => "stuck",
    }
}

/// The tone in which a state is drawn.
pub(super) const fn tone(state: State) -> &'static str {
    match state {
        State::Healthy => "calm",
        State::Unknown => "blind",
        State::Suspect => "doubt",
        State::Returning => "back",
        State::Isolated | State::Isolating => "out",
        State::Faulty | State::Waiting | State::Stuck => "alarm",
    }
}

/// A shape for each tone.
pub(super) fn icon(tone: &str) -> Markup {
    let outline = match tone {
        "calm" => "M3 8.5L6.5 12L13 4.5",
        "blind" => "M5.2 5.6a2.9 2.9 0 1 1 4.3 2.6c-1 .6-1.5 1.1-1.5 2.2M8 13v.1",
        "doubt" => "M8 2L14 8L8 14L2 8Z",
        "back" => "M3 10L8 4L13 10M8 4V14",
        "out" => "M3 3H13V13H3ZM3 13L13 3",
        _ => "M8 2L15 14H1ZM8 6.5V10M8 12v.1",
    };
    html! {
        svg.icon width="16" height="16" viewBox="0 0 16 16" aria-hidden="true" { path d=(outline) {} }
    }
}

pub(super) fn badge(of: State, rehearsal: bool) -> Markup {
    let tone = tone(of);
    html! { span class=(format!("state {tone}")) { (icon(tone)) (state(of, rehearsal)) } }
}

pub(super) const fn compared(compared: Compared) -> (&'static str, &'static str, &'static str) {
    match compared {
        Compared::NoTraffic => ("none", "–", "no traffic"),
        Compared::Alike => ("alike", "●", "like its peers"),
        Compared::Unknown => ("blind", "?", "not judged"),
        Compared::Suspicious => ("doubt", "◆", "suspicious"),
        Compared::Worse => ("alarm", "▲", "worse"),
    }
}

pub(super) const fn ruling(ruling: Ruling) -> (&'static str, &'static str, &'static str) {
    match ruling {
        Ruling::Holds => ("holds", "✕", "holds"),
        Ruling::Warns => ("warns", "!", "warns"),
        Ruling::NotEvaluated => ("blind", "?", "not evaluated"),
        Ruling::Passes => ("passes", "✓", "passes"),
    }
}

pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "it only watches, and says what it would do",
        Mode::Recommend => "a person approves each isolation",
        Mode::Enforce => "it isolates by itself",
    }
}

pub(super) const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Detector => "zoneward's own judgement",
        Origin::Operator => "a person",
        Origin::Drill => "a drill",
    }
}

/// How loud an event is.
pub(super) const fn event(event: Event) -> &'static str {
    match event {
        Event::Isolate | Event::Isolated | Event::Admitted => "out",
        Event::Ineffective | Event::RolledBack | Event::Relapsed | Event::Unrecorded | Event::DrillAborted => "alarm",
        Event::Suspect | Event::Blocked | Event::Refused | Event::DrillBlocked | Event::Reclassified => "doubt",
        Event::Clear | Event::Restored | Event::Observed | Event::Effective | Event::DrillPassed | Event::Resumed => {
            "calm"
        }
        Event::Recovering | Event::Restore => "back",
        Event::Gap | Event::Paused | Event::ConfigurationRefused => "blind",
        Event::Started
        | Event::Stopped
        | Event::Retired
        | Event::HandedOver
        | Event::ConfigurationChanged
        | Event::Acknowledged
        | Event::Adopted
        | Event::Step
        | Event::Mended
        | Event::Fault
        | Event::Repair
        | Event::Summary => "plain",
    }
}

/// `03:12:15`, with the day where that is another one.
pub(super) fn clock(time: Timestamp, now: Timestamp) -> Markup {
    let today = time.strftime("%F").to_string() == now.strftime("%F").to_string();
    let format = if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    html! { time.nowrap datetime=(time) { (time.strftime(format).to_string()) } }
}

/// `03:12:15 UTC, 4 min ago`.
pub(super) fn since(time: Timestamp, now: Timestamp) -> Markup {
    html! { (clock(time, now)) " UTC, " (between(time, now)) " ago" }
}

/// A name from a label, of a length that can be read.
pub(super) fn name(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}
