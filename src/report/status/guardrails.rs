//! Guardrails: what each would say now, with its current value, if a zone were to be isolated.

use maud::{Markup, html};

use super::words::{name, ruling};
use crate::domain::overview::{GuardrailState, Overview, Ruling, ZoneState};
use crate::report::words;

pub(super) fn table(overview: &Overview) -> Markup {
    let zones = &overview.zones;
    let Some(first) = zones.first() else { return html! { p.quiet { "There is no zone to ask them about yet." } } };
    html! {
        p.quiet {
            "What each would say of isolating a zone now. Nothing is isolated unless all pass; those marked " em { "can be overridden" }
            " a person may override, each by its name."
        }
        div.wide tabindex="0" role="region" aria-label="Guardrails by zone" { table.guardrails {
            thead { tr { th scope="col" { "guardrail" } @for zone in zones { th scope="col" { (name(zone.zone.as_str())) } } } }
            tbody { @for guardrail in &first.guardrails { (row(guardrail, zones)) } }
        } }
    }
}

fn row(guardrail: &GuardrailState, zones: &[ZoneState]) -> Markup {
    let of = |zone: &ZoneState| zone.guardrails.iter().find(|it| it.name == guardrail.name).cloned();
    let cells: Vec<GuardrailState> = zones.iter().filter_map(of).collect();
    let same = cells.len() > 1 && cells.iter().all(|cell| cell == guardrail);
    html! { tr {
        th scope="row" {
            (words::plain(&guardrail.name))
            @if guardrail.overridable { " " span.quiet { "can be overridden" } }
        }
        @if same { (cell(guardrail, cells.len())) } @else { @for it in &cells { (cell(it, 1)) } }
    } }
}

fn cell(guardrail: &GuardrailState, zones: usize) -> Markup {
    let (class, mark, said) = ruling(guardrail.ruling);
    html! {
        td class=(class) colspan=[(zones > 1).then_some(zones)] {
            span.mark aria-hidden="true" { (mark) } " " strong { (said) } " "
            span.says { (guardrail.says) }
            @if guardrail.ruling == Ruling::Holds && guardrail.person_passes { span.quiet { " (zoneward itself, not a person)" } }
        }
    }
}
