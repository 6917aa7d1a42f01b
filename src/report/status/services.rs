//! Services by zone: those that stand out in full, all of them in a compact grid.

use maud::{Markup, html};

use super::words::{compared, name};
use crate::domain::overview::{Compared, Overview, ServiceState, Standing};
use crate::domain::{ServiceId, Signal, Zone};
use crate::report::words;

/// Services that stand out: beyond these the grid has them.
const MOST_IN_FULL: usize = 40;
/// Services in the grid, and their cells: beyond these a filter finds them.
const MOST_IN_GRID: usize = 600;
const MOST_CELLS: usize = 6_000;
/// So many are shown without being asked for.
const FEW: usize = 24;
/// Services of one part of the grid.
const PART: usize = 50;

pub(super) fn services(overview: &Overview, filter: &str) -> Markup {
    let wanted = filter.trim().to_lowercase();
    let fits = |it: &&ServiceState| wanted.is_empty() || it.service.to_string().to_lowercase().contains(&wanted);
    let shown: Vec<&ServiceState> = overview.services.iter().filter(fits).collect();
    let out: Vec<&ServiceState> = shown.iter().copied().filter(|it| it.worst() >= Compared::Suspicious).collect();
    let zones: Vec<&Zone> = overview.zones.iter().map(|zone| &zone.zone).collect();
    let (all, most) = (shown.len(), MOST_IN_GRID.min(MOST_CELLS / zones.len().max(1)));
    html! {
        @if overview.services.is_empty() { p.quiet { "No service is known yet." } }
        @else {
            (search(filter, overview.services.len(), all))
            @if out.is_empty() && all > 0 { p { (calm(overview)) } }
            @else if !out.is_empty() {
                (in_full(&out[..out.len().min(MOST_IN_FULL)], &zones))
                @if out.len() > MOST_IN_FULL {
                    p.quiet { "And " (out.len() - MOST_IN_FULL) " more that stand out, in the grid below." }
                }
            }
            @if all > 0 {
                details #all-services open[all <= FEW || !wanted.is_empty()] {
                    summary { "All " (words::count(all, "service", "services")) @if !wanted.is_empty() { " whose name fits" } }
                    (legend())
                    div.grid { @for part in shown[..all.min(most)].chunks(PART) { (grid(part, &zones)) } }
                    @if all > most {
                        p.quiet { "And " (all - most) " more: the field above finds them." }
                    }
                }
            }
        }
    }
}

fn calm(overview: &Overview) -> &'static str {
    if overview.prometheus.blind() {
        "Nothing is known of any of them now; traffic is as it was last seen."
    } else {
        "None of them stands out in any zone."
    }
}

/// It works by the keyboard, and without a script.
fn search(filter: &str, all: usize, shown: usize) -> Markup {
    html! {
        form.search method="get" action="./" role="search" {
            label for="filter" { "Services whose name contains" } " "
            input #filter type="search" name="service" value=(filter) maxlength="200" autocomplete="off" spellcheck="false";
            " " button type="submit" { "Show" }
            @if !filter.trim().is_empty() {
                " " a href="./" { "Show all" }
                p.quiet { (shown) " of " (all) " services fit." }
            }
        }
    }
}

fn in_full(services: &[&ServiceState], zones: &[&Zone]) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label="Services that stand out" { table.services {
            thead { tr { th scope="col" { "service" } @for zone in zones { th scope="col" { (name(zone.as_str())) } } } }
            tbody { @for it in services { tr {
                th scope="row" { (service(&it.service)) }
                @for zone in zones { (full_cell(it.zones.get(*zone))) }
            } } }
        } }
    }
}

fn full_cell(standing: Option<&Standing>) -> Markup {
    let Some(standing) = standing else { return html! { td.none { "–" } } };
    let (class, mark, said) = compared(standing.compared);
    html! {
        td class=(class) {
            strong { span aria-hidden="true" { (mark) } " " (said) }
            @if let Some(signal) = standing.signal { br; (stands_out(standing, signal)) }
            br; span.quiet { (traffic(standing)) }
        }
    }
}

/// What was seen of the signal that stands out the most, against what was expected.
fn stands_out(standing: &Standing, signal: Signal) -> String {
    let Standing { seen, expected, .. } = standing;
    let against = |what: &str| format!("{} {what}, {} expected", words::percent(*seen), words::percent(*expected));
    match signal {
        Signal::ServerErrors => against("fail"),
        Signal::ClientErrors => against("of its clients' calls fail"),
        Signal::LostCalls => against("of the calls never reach it"),
        Signal::SlowRequests => against("are slow"),
        Signal::VerySlowRequests => against("are very slow"),
        Signal::Latency => format!("takes {seen:.2} times as long as usual"),
    }
}

fn traffic(standing: &Standing) -> String {
    let failed = standing.failed.map_or_else(String::new, |share| format!(", {} fail", words::percent(share)));
    format!("{}/s{failed}", rate(standing.requests_per_second))
}

fn rate(rate: f64) -> String {
    if rate >= 9.95 || rate == 0.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

fn grid(services: &[&ServiceState], zones: &[&Zone]) -> Markup {
    html! {
        table.compact {
            thead { tr { th scope="col" { "service" } @for zone in zones { th.number scope="col" { (name(zone.as_str())) } } } }
            tbody { @for it in services { tr {
                th scope="row" { (service(&it.service)) }
                @for zone in zones { (cell(it.zones.get(*zone))) }
            } } }
        }
    }
}

fn cell(standing: Option<&Standing>) -> Markup {
    let Some(standing) = standing.filter(|it| it.compared != Compared::NoTraffic) else {
        return html! { td.number.none { "–" } };
    };
    let (class, mark, said) = compared(standing.compared);
    html! { td class=(format!("number {class}")) title=(said) { (mark) " " (rate(standing.requests_per_second)) "/s" } }
}

fn legend() -> Markup {
    let all = [Compared::Alike, Compared::Suspicious, Compared::Worse, Compared::Unknown, Compared::NoTraffic];
    html! {
        p.legend {
            @for (class, mark, said) in all.map(compared) { span { span class=(format!("mark {class}")) { (mark) } (said) } }
            span { "and requests that the zone's servers answer per second" }
        }
    }
}

fn service(service: &ServiceId) -> Markup {
    html! { span.namespace { (name(&service.namespace)) "/" } (name(&service.name)) }
}
