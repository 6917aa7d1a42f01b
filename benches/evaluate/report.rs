//! All that is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde_json::{Value, json};

use super::family::Expect;
use super::run::{OURS, Run};
use super::score::{self, FalseRate, Summary};

/// Columns for people whose terminal says none.
const WIDTH: u16 = 170;

pub fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

pub fn note(text: &str) {
    eprintln!("{text}");
}

/// Overwrites itself on a terminal, and says nothing elsewhere.
pub fn progress(done: usize, of: usize) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _closed = write!(stderr, "\r\x1b[2K{}", if done < of { format!("{done} of {of}") } else { String::new() });
        let _closed = stderr.flush();
    }
}

fn line(text: &str) {
    // A reader that went away, as `head` does, is no failure.
    let _closed = writeln!(std::io::stdout(), "{text}");
}

fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    table.add_rows(rows);
    line(&table.to_string());
}

fn methods(runs: &[Run]) -> Vec<&'static str> {
    runs.first().map(|run| run.outcomes.iter().map(|(name, _)| *name).collect()).unwrap_or_default()
}

fn by_family(runs: &[Run]) -> BTreeMap<&str, Vec<&Run>> {
    let mut families: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        families.entry(&run.scenario.family).or_default().push(run);
    }
    families
}

pub fn print(runs: &[Run], details: bool) {
    let methods = methods(runs);
    let header: Vec<&str> =
        ["family", "severity", "limit", "delay/limit"].into_iter().chain(methods.iter().copied()).collect();
    let row = |(family, runs): (&str, Vec<&Run>)| {
        let scenario = &runs[0].scenario;
        let ours = score::summarize(&runs, OURS);
        let limit = match scenario.expect {
            Expect::Isolate(_) => format!("{}/{}", whole(ours.limit_plain_p50_s), whole(ours.limit_dispersed_p50_s)),
            Expect::Nothing | Expect::Either => scenario.expect.to_string(),
        };
        let mut cells = vec![family.to_owned(), scenario.severity.as_str().to_owned(), limit];
        cells.push(ours.delay_over_limit.map_or_else(String::new, |ratio| format!("{ratio:.1}")));
        cells.extend(methods.iter().map(|method| cell(&score::summarize(&runs, method), scenario.expect)));
        cells
    };
    table(&header, by_family(runs).into_iter().map(row).collect());
    line(
        "limit: Lorden's, plain/dispersed; cells: found/possible, delay p50/p90 in s, F false isolations (in scenarios), W of a wrong zone",
    );
    print_totals(runs, &methods);
    if details {
        runs.iter().for_each(print_story);
    }
}

/// `3/3 41/43 F1`.
fn cell(summary: &Summary, expect: Expect) -> String {
    let mut parts = Vec::new();
    if let Expect::Isolate(_) = expect {
        parts.push(format!("{}/{}", summary.found, summary.possible));
        if summary.found > 0 {
            parts.push(format!("{}/{}", whole(summary.delay_p50_s), whole(summary.delay_p90_s)));
        }
    }
    if summary.false_ones > 0 {
        let of = if summary.must_not > 0 {
            format!(" ({}/{})", summary.must_not_isolated, summary.must_not)
        } else {
            String::new()
        };
        parts.push(format!("F{}{of}", summary.false_ones));
    }
    if summary.wrong_zone > 0 {
        parts.push(format!("W{}", summary.wrong_zone));
    }
    if parts.is_empty() { "ok".to_owned() } else { parts.join(" ") }
}

fn print_totals(runs: &[Run], methods: &[&str]) {
    let all: Vec<&Run> = runs.iter().collect();
    let header = [
        "method",
        "recall",
        "severe",
        "moderate",
        "subtle",
        "p50",
        "p90",
        "delay/limit",
        "must-not isolated",
        "false",
        "wrong zone",
        "false per healthy zone-day",
    ];
    let row = |method: &&str| {
        let total = score::summarize(&all, method);
        let mut cells = vec![(*method).to_owned(), format!("{}/{}", total.found, total.possible)];
        cells.extend(score::by_severity(&all, method).iter().map(|(_, found, possible)| format!("{found}/{possible}")));
        cells.extend([whole(total.delay_p50_s), whole(total.delay_p90_s)]);
        cells.push(total.delay_over_limit.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")));
        cells.push(format!("{}/{}", total.must_not_isolated, total.must_not));
        cells.extend([total.false_ones.to_string(), total.wrong_zone.to_string()]);
        let rate = score::false_isolations(&all, method);
        cells.push(rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.2}", rate.per_zone_day)));
        cells
    };
    table(&header, methods.iter().map(row).collect());
    line(&intervals_in_words(&all));
    if let Some(rate) = score::false_trips(&all) {
        line(&format!("false trips on healthy days, with isolations left out: {}", in_words(rate)));
    }
    let others: usize =
        all.iter().filter(|run| !score::is_healthy(&run.scenario.family)).map(|r| r.false_trips.len()).sum();
    line(&format!("false trips in other scenarios, with isolations left out: {others}"));
    line(&seeds_in_words(&all));
    if let Some(cost) = cost(&all) {
        line(&format!("a healthy zone-day took {cost:.2} s of one core"));
    }
}

fn intervals_in_words(runs: &[&Run]) -> String {
    let total = score::summarize(runs, OURS);
    let severities = score::by_severity(runs, OURS).into_iter().map(|(name, found, of)| (name.as_str(), found, of));
    let shares = [("recall", total.found, total.possible)].into_iter().chain(severities);
    let shares = shares.chain([("must-not isolated", total.must_not_isolated, total.must_not)]);
    let words = shares.filter_map(|(name, count, of)| {
        let [low, high] = score::interval(count, of)?;
        Some(format!("{name} {:.1} to {:.1} %", 100.0 * low, 100.0 * high))
    });
    format!("of {OURS}, with 95 % confidence: {}", words.collect::<Vec<_>>().join(", "))
}

fn in_words(rate: FalseRate) -> String {
    format!(
        "{} in {:.1} zone-days, {:.3} a zone-day, {:.1} a zone-year; at most {:.1} a zone-year with 95 % confidence",
        rate.count, rate.zone_days, rate.per_zone_day, rate.per_zone_year, rate.per_zone_year_at_most
    )
}

fn seeds(runs: &[&Run], healthy: bool) -> Option<(u64, u64)> {
    let seeds =
        || runs.iter().filter(|run| score::is_healthy(&run.scenario.family) == healthy).map(|run| run.scenario.seed);
    seeds().min().zip(seeds().max())
}

fn seeds_in_words(runs: &[&Run]) -> String {
    let words = |(first, last): (u64, u64)| format!("{first} to {last}");
    let faults = seeds(runs, false).map_or_else(|| "none".to_owned(), words);
    let days = seeds(runs, true).map_or_else(|| "none".to_owned(), words);
    format!("seeds: {faults}; of healthy days: {days}")
}

/// Seconds for a healthy zone-day, world, detector and baselines together.
fn cost(runs: &[&Run]) -> Option<f64> {
    let days = || runs.iter().filter(|run| score::is_healthy(&run.scenario.family));
    let zone_days: f64 = days().map(|run| run.scenario.zone_days()).sum();
    (zone_days > 0.0).then(|| days().map(|run| run.seconds).sum::<f64>() / zone_days)
}

/// Of each scenario in which something is to tell: what was missed, false, or late.
fn print_story(run: &Run) {
    let Some(outcome) = score::outcome(run, OURS) else { return };
    let scenario = &run.scenario;
    let expected = scenario.fault.map_or_else(
        || scenario.expect.to_string(),
        |fault| format!("isolate {} from {:.0} to {:.0} s", scenario.zones[fault.zone], fault.start_s, fault.end_s),
    );
    let came = outcome.delay_s.map_or_else(String::new, |delay_s| format!(", found after {delay_s:.0} s"));
    line(&format!("\n{} seed {}: {}: {expected}{came}", scenario.family, scenario.seed, scenario.title));
    for it in &run.story {
        line(&format!("  {:>6.0} s  {:<8} {}", it.at_s, it.event, it.message));
    }
}

pub fn print_json(runs: &[Run], details: bool) -> anyhow::Result<()> {
    let methods = methods(runs);
    let all: Vec<&Run> = runs.iter().collect();
    let families: serde_json::Map<String, Value> = by_family(runs)
        .into_iter()
        .map(|(family, runs)| {
            let of: serde_json::Map<String, Value> =
                methods.iter().map(|method| ((*method).to_owned(), json!(score::summarize(&runs, method)))).collect();
            let scenario = &runs[0].scenario;
            let expect = scenario.expect.to_string();
            let severity = scenario.severity.as_str();
            let family_report = json!({"title": scenario.title, "severity": severity, "expect": expect, "methods": of});
            (family.to_owned(), family_report)
        })
        .collect();
    let total = |method: &&str| {
        let severities: serde_json::Map<String, Value> = score::by_severity(&all, method)
            .into_iter()
            .map(|(severity, found, possible)| {
                let interval = score::interval(found, possible);
                (severity.as_str().to_owned(), json!({"found": found, "possible": possible, "interval": interval}))
            })
            .collect();
        let summary = score::summarize(&all, method);
        let total = json!({
            "recall_interval": score::interval(summary.found, summary.possible),
            "must_not_interval": score::interval(summary.must_not_isolated, summary.must_not),
            "all": summary,
            "by_severity": severities,
            "healthy_days": score::false_isolations(&all, method),
        });
        ((*method).to_owned(), total)
    };
    let totals: serde_json::Map<String, Value> = methods.iter().map(total).collect();
    let mut report = json!({
        "families": families,
        "totals": totals,
        "false_trips_on_healthy_days": score::false_trips(&all),
        "false_trips_elsewhere":
            all.iter().filter(|run| !score::is_healthy(&run.scenario.family)).map(|run| run.false_trips.len()).sum::<usize>(),
        "seeds": {"faults": seeds(&all, false), "healthy_days": seeds(&all, true)},
        "seconds_per_healthy_zone_day": cost(&all),
    });
    if details {
        report["scenarios"] = runs.iter().map(scenario).collect();
    }
    line(&serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn scenario(run: &Run) -> Value {
    let outcome = score::outcome(run, OURS).cloned().unwrap_or_default();
    json!({
        "family": run.scenario.family,
        "seed": run.scenario.seed,
        "limit_s": run.bound.dispersed_s,
        "delay_s": outcome.delay_s,
        "false": outcome.false_ones.len(),
        "wrong_zone": outcome.wrong_zone.len(),
        "false_trips": run.false_trips.len(),
        "seconds": run.seconds,
        "story": run.story,
    })
}

fn whole(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0}"))
}
