//! Isolations: how far each step has come, what the metrics say of it, and when it ends.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{badge, clock, name, origin, since};
use crate::domain::overview::{IsolationState, Overview, StepLine};
use crate::domain::{Effect, Stage, StepState};
use crate::report::words;

/// Traffic that remains, service by service: more of it is counted.
const MOST_RESIDUAL: usize = 8;

pub(super) fn isolations(overview: &Overview) -> Markup {
    let (active, past): (Vec<_>, Vec<_>) = overview.isolations.iter().partition(|isolation| isolation.active());
    html! {
        @if active.is_empty() { p.quiet { "No zone is isolated, and none waits to be." } }
        @for isolation in active { (isolation_card(isolation, overview.now)) }
        @if !past.is_empty() {
            details #past {
                summary { (words::count(past.len(), "past isolation", "past isolations")) }
                (past_table(&past, overview.now))
            }
        }
    }
}

fn isolation_card(isolation: &IsolationState, now: Timestamp) -> Markup {
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    html! {
        article.story {
            h3 { (name(isolation.zone.as_str())) " " (badge(isolation.state, isolation.rehearsal)) }
            @if isolation.rehearsal { p.quiet { "A rehearsal, as in observe mode nothing is done." } }
            p.sentence { (isolation.reason) }
            dl.facts {
                (fact("asked for by", html! { (origin(isolation.origin)) ", " (clock(isolation.requested_at, now)) }))
                @if let Some(why) = &isolation.refused { (fact("not begun, as", html! { (why) })) }
                @if let Some(at) = isolation.admitted_at { (fact("begun", since(at, now))) }
                @if let Some(at) = isolation.isolated_at { (fact("every step read back", since(at, now))) }
                @if let Some(at) = isolation.returning_since { (fact("given back", since(at, now))) }
                (fact("expires", expiry(isolation, now)))
                @if !isolation.overrides.is_empty() { (fact("overrides", html! { (isolation.overrides.join(", ")) })) }
                @if let Some(effect) = &isolation.effect { (fact("effect", effect_line(effect))) }
                @if let Some(recovery) = &isolation.recovery {
                    (fact("way back", html! {
                        @match recovery.stage {
                            Stage::Trial { share } => { (share) " of its traffic, on trial" }
                            Stage::Out => "not begun",
                            Stage::Refilling => "new pods may come",
                            Stage::Ended => "all is given back",
                        }
                        ", since " (clock(recovery.since, now)) ": " (recovery.why)
                        @if recovery.relapses > 0 { " (" (words::count(recovery.relapses as usize, "relapse", "relapses")) ")" }
                    }))
                }
            }
            @if isolation.steps.is_empty() {
                p.quiet { @if isolation.rehearsal { "It would have no steps to take." } @else { "No step was taken yet." } }
            } @else { (steps(isolation, now)) }
        }
    }
}

fn expiry(isolation: &IsolationState, now: Timestamp) -> Markup {
    let at = isolation.expires_at;
    html! {
        (clock(at, now)) " UTC, "
        @if at > now { "in " (words::between(now, at)) } @else { (words::between(at, now)) " ago" }
    }
}

fn steps(isolation: &IsolationState, now: Timestamp) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(format!("Steps of the isolation of {}", isolation.zone)) { table {
            thead { tr {
                th scope="col" { "step" } th scope="col" { "state" } th.number scope="col" { "traffic left" }
                th.number scope="col" { "failures in a row" } th scope="col" { "last error, and when it is tried again" }
            } }
            tbody { @for step in &isolation.steps { tr {
                th scope="row" { code { (step.name) } }
                td { (step_state(step)) }
                td.number { @if let Some(share) = share(step.state) { (share) } @else { "–" } }
                td.number { (step.failures) }
                td.text {
                    @match &step.error { Some(error) => (error), None => "–" }
                    @if let Some(at) = step.retry_at { "; again at " (clock(at, now)) }
                }
            } } }
        } }
    }
}

fn step_state(step: &StepLine) -> Markup {
    let said = match step.state {
        StepState::Pending => "not begun",
        StepState::Captured => "state before is saved",
        StepState::Applied { .. } => "applied, not read back yet",
        StepState::Confirmed { .. } => "confirmed: read back",
        StepState::Undone => "undone",
        StepState::Stuck => "stuck",
    };
    html! {
        @if step.stuck { span.state.alarm { (super::icon("alarm")) @if step.state == StepState::Stuck { "stuck" } @else { (said) ", in vain" } } }
        @else { (said) }
    }
}

const fn share(state: StepState) -> Option<crate::domain::Share> {
    match state {
        StepState::Applied { share } | StepState::Confirmed { share } => Some(share),
        StepState::Pending | StepState::Captured | StepState::Undone | StepState::Stuck => None,
    }
}

fn effect_line(effect: &Effect) -> Markup {
    let more = effect.residual.len().saturating_sub(MOST_RESIDUAL);
    html! {
        (format!("its servers answered {:.1} requests/s before, and {:.1} now", effect.before_rps, effect.after_rps))
        @if let Some(seconds) = effect.shown_after_s { "; shown after " (seconds) " s" }
        @else { "; not shown yet" }
        @if !effect.residual.is_empty() {
            ". What remains: "
            @for (at, it) in effect.residual.iter().take(MOST_RESIDUAL).enumerate() {
                @if at > 0 { "; " } (it.service) (format!(" {:.1}/s (", it.rps)) (it.why) ")"
            }
            @if more > 0 { "; and " (more) " more" }
        }
    }
}

fn past_table(past: &[&IsolationState], now: Timestamp) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label="Past isolations" { table {
            thead { tr {
                th scope="col" { "zone" } th scope="col" { "began" } th scope="col" { "ended" } th scope="col" { "lasted" }
                th scope="col" { "asked for by" } th scope="col" { "why" }
            } }
            tbody { @for it in past { tr {
                th scope="row" { (name(it.zone.as_str())) }
                td { @match it.admitted_at { Some(at) => (clock(at, now)), None => "never" } }
                td { @if let Some(at) = it.restored_at { (clock(at, now)) } }
                td.nowrap { @if let (Some(from), Some(to)) = (it.admitted_at, it.restored_at) { (words::between(from, to)) } @else { "–" } }
                td { (origin(it.origin)) }
                td.text { (it.reason) }
            } } }
        } }
    }
}
