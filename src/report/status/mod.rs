//! The status page: how things stand now, at one glance, and then in detail. It shows, and changes nothing.
//!
//! It is one document, with nothing from elsewhere: a style, and a few lines that fetch the page anew and keep what was
//! opened, focused and scrolled to. Without them the browser loads it again.

mod guardrails;
mod ledger;
mod services;
mod words;
mod zones;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::words::{badge, clock, icon, name, since, tone};
use super::page;
use crate::domain::overview::{Entry, Overview, State};
use crate::domain::{Mode, inert};

/// Seconds until the page is fetched anew.
const EVERY_S: i64 = 10;
/// Entries that are shown at first sight.
const FIRST_ENTRIES: usize = 15;
/// Cycles after which the newest one is too old.
const STALE_CYCLES: i64 = 3;

const SCRIPT: &str = include_str!("status.js");
const OWN_STYLE: &str = include_str!("status.css");

/// All of the page's style.
pub fn style() -> String {
    format!("{}{OWN_STYLE}", page::STYLE)
}

/// All of the page's script.
pub const fn script() -> &'static str {
    SCRIPT
}

/// The page. With a filter only the services whose name holds it are listed.
pub fn html(overview: &Overview, filter: &str) -> String {
    let title = format!("{} – zoneward", overview.headline.text);
    let more = html! {
        meta name="robots" content="noindex";
        noscript { meta http-equiv="refresh" content=(EVERY_S); }
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (page::head(&title, &style(), &more))
            body.status data-every=(EVERY_S) {
                a.skip href="#zones" { "Skip to the zones" }
                p #refreshed .refreshed role="status" {}
                div #page {
                    header { (header(overview)) }
                    main { (sections(overview, filter)) }
                    footer { (footer(overview)) }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    inert(&page.into_string()).into_owned()
}

fn header(overview: &Overview) -> Markup {
    let (daemon, look, now) = (&overview.daemon, &overview.prometheus, overview.now);
    let tone = tone(overview.headline.state);
    let tile =
        |what: &str, value: &str, more: Markup| html! { div { dt { (what) } dd { (value) } dd.more { (more) } } };
    let cycle = html! { (overview.prometheus.services) " services, every " (look.cycle_s) " s" };
    html! {
        p.kicker { "zoneward status, " (clock(now, now)) " UTC" }
        h1 class=(tone) { (icon(tone)) span { (overview.headline.text) } }
        (notices(overview))
        dl.tiles {
            (tile("mode", daemon.mode.as_str(), html! { (words::mode(daemon.mode)) }))
            @if daemon.mode == Mode::Observe { (tile("acts", "nobody", html! { "in observe mode nothing is done" })) }
            @else if daemon.leads { (tile("this replica", "leads", html! { (daemon.replica.as_deref().map_or_else(String::new, name)) })) }
            @else {
                (tile("this replica", "follows", html! {
                    @match &daemon.leader {
                        Some(leader) => { (name(leader)) " leads, and acts" }
                        None => "who leads is not known"
                    }
                }))
            }
            @if daemon.paused.is_some() { (tile("paused", "yes", html! { "nothing begins" })) }
            @else { (tile("paused", "no", html! { "no person holds it back" })) }
            @match look.seen {
                Some(seen) => (tile("last look at Prometheus", &format!("{} ago", super::words::between(seen, now)), cycle)),
                None => (tile("last look at Prometheus", "none yet", cycle))
            }
        }
    }
}

/// What has to be known before all else.
fn notices(overview: &Overview) -> Markup {
    let (daemon, look, now) = (&overview.daemon, &overview.prometheus, overview.now);
    let old = look.cycle.is_some_and(|at| now.duration_since(at).as_secs() > STALE_CYCLES * look.cycle_s.max(1) + 5);
    html! {
        @for trouble in daemon.trouble.iter() { p.notice.alarm { (icon("alarm")) span { (trouble) } } }
        @if let (true, Some(cycle)) = (old, look.cycle) {
            p.notice.alarm { (icon("alarm")) span { "What is shown is old: the newest cycle is of " (since(cycle, now)) "." } }
        }
        @for gap in &look.gaps {
            p.notice.blind {
                (icon("blind"))
                span { (gap) ". No data is neither healthy nor sick: nothing is decided, and what is isolated stays so." }
            }
        }
        @if let Some(why) = &daemon.unrecorded {
            p.notice.alarm { (icon("alarm")) span { "Nothing can be put on record, and so nothing begins: " (why) } }
        }
        @if let Some(paused) = &daemon.paused {
            p.notice.doubt { (icon("doubt")) span { (paused) ". Nothing begins; what is out stays as it is." } }
        }
        @if daemon.mode != Mode::Observe && !daemon.leads {
            p.notice.plain { span {
                "This replica is a follower: it sees and judges what is shown here, and does nothing. "
                @match &daemon.leader {
                    Some(leader) => { (name(leader)) " leads; its ledger may be newer than what is shown here." }
                    None => "Which replica leads, if one does, it does not know."
                }
            } }
        }
    }
}

fn sections(overview: &Overview, filter: &str) -> Markup {
    let section = |id: &str, title: &str, content: Markup| {
        html! { section aria-labelledby=(id) { h2 id=(id) tabindex="-1" { (title) } (content) } }
    };
    let all = [
        ("zones", "Zones", zones::cards(overview)),
        ("isolations", "Isolations", ledger::isolations(overview)),
        ("hour", "The last hour", zones::hour(overview)),
        ("evidence", "Evidence", zones::evidence(overview)),
        ("services", "Services by zone", services::services(overview, filter)),
        ("guardrails", "Guardrails", guardrails::table(overview)),
        ("records", "Recent decisions", records(&overview.records, overview)),
    ];
    html! {
        nav aria-label="On this page" { ul { @for (id, title, _) in &all { li { a href=(format!("#{id}")) { (title) } } } } }
        @for (id, title, content) in all { (section(id, title, content)) }
    }
}

fn records(records: &[Entry], overview: &Overview) -> Markup {
    let (first, more) = records.split_at(records.len().min(FIRST_ENTRIES));
    html! {
        @if records.is_empty() { p.quiet { "Nothing was put on record yet by this process." } }
        @else { (record_table(first, overview, "The newest decisions")) }
        @if !more.is_empty() {
            details #older {
                summary { (super::words::count(more.len(), "earlier one", "earlier ones")) }
                (record_table(more, overview, "Earlier decisions"))
            }
        }
        p.quiet { "What this process put on record since it began; " code { "zoneward audit" } " shows the whole journal." }
    }
}

fn record_table(records: &[Entry], overview: &Overview, label: &str) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(label) { table {
            thead { tr {
                th scope="col" { "time, UTC" } th scope="col" { "event" } th scope="col" { "zone" } th scope="col" { "in full" }
            } }
            tbody { @for entry in records { tr {
                td { (clock(entry.time, overview.now)) }
                td { span class=(format!("event {}", words::event(entry.event))) {
                    (super::words::plain(entry.event.as_str())) @if entry.rehearsal { " (rehearsal)" }
                } }
                th scope="row" { @if let Some(zone) = &entry.zone { (name(zone.as_str())) } @else { "–" } }
                td.text { (entry.message) }
            } } }
        } }
    }
}

fn footer(overview: &Overview) -> Markup {
    let states = [
        (State::Healthy, "like its peers, and like its own past"),
        (State::Unknown, "missing, stale or partial data: it can't be told, and nothing is done"),
        (State::Suspect, "worse beyond chance; not for long enough, not widely enough, or something else explains it"),
        (State::Faulty, "it alone is worse, for long enough; what keeps it in rotation stands beside it"),
        (State::Waiting, "its isolation was asked for, and a person or a guardrail lets it wait"),
        (State::Isolating, "steps are being taken"),
        (State::Isolated, "every step was read back"),
        (State::Returning, "it gets its traffic back, by shares or as a whole"),
        (State::Stuck, "a step can go neither forward nor back without a person"),
    ];
    html! {
        p {
            "This page only shows. To act: " code { "zoneward isolate" } ", " code { "restore" } ", " code { "approve" } ", "
            code { "pause" } ", or " code { "kubectl" } ". For programs: " a href="status.json" { "status.json" } ", "
            a href="metrics" { "metrics" } "."
        }
        details #reading {
            summary { "How to read it" }
            dl.key { @for (state, said) in states { div { dt { (badge(state, false)) } dd { (said) } } } }
            p {
                "Times are in UTC. Each zone is compared with its peers and with its own past, service by service. Excess is "
                "what was seen above what both let expect; odds of chance of e" sup { "−10" } " mean that chance alone would "
                "show as much about once in 22 000 looks."
            }
        }
        p.quiet { "zoneward " (overview.daemon.zoneward) @if !overview.prometheus.url.is_empty() { ", on " (overview.prometheus.url) } }
    }
}
