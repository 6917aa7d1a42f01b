//! `make scale`: what zoneward costs, beside what it costs Prometheus, and beside the same judgement as rules of Prometheus.
//!
//! ```text
//! mesh ─ remote write ─> Prometheus <─ the bare queries    (its time, and how much it answers)
//!                                   <─ watch, a process    (zoneward's time and memory, from start over refill)
//!                                   <─ rules               (the time of the same judgement, by itself)
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measurement prints, reads the clock, and fails by panicking"
)]

mod backtest;
mod detect;
mod mesh;
mod process;
mod rules;
#[allow(dead_code, reason = "shared with the integration tests")]
#[path = "../../tests/it/support.rs"]
mod support;
mod watch;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use jiff::{SignedDuration, Timestamp};
use zoneward::domain::{CycleLength, percent_encoded};
use zoneward::observe::PrometheusObserver;

use support::Process;
use watch::{Stretch, Took};

/// Minutes of samples that are there before they are due, for the rules to see while they run.
const AHEAD_MINS: i64 = 8;
/// Services above which history is shorter: writing it takes long.
const MANY: usize = 2000;
const MANY_HISTORY_MINS: i64 = 3;
/// Cycles in which the bare queries are asked.
const BARE: i32 = 3;
/// Evaluations of the rules that are waited for.
const EVALUATIONS: u32 = 3;

/// Measures processor time, memory and bytes on a made-up mesh in a real Prometheus.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Of three zones each
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 10_000])]
    services: Vec<usize>,
    /// Minutes of history, for up to 2,000 services
    #[arg(long, default_value_t = 120)]
    history_mins: i64,
    /// Cycles that are measured
    #[arg(long, default_value_t = 8)]
    cycles: i32,
    /// Leave the rules out
    #[arg(long)]
    no_rules: bool,
    /// Of Prometheus: 2 or 3
    #[arg(long, default_value_t = 3)]
    major: u32,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// zoneward alone, in a process of its own
    #[command(hide = true)]
    Watch(Stretch),
    /// One step of the detector, on one core
    Detect {
        #[arg(long, default_value_t = 2000)]
        services: usize,
        #[arg(long, default_value_t = 20)]
        steps: i32,
    },
    /// Memory over simulated days
    Days {
        #[arg(long, default_value_t = 50)]
        services: usize,
        #[arg(long, default_value_t = 7)]
        days: i32,
    },
    /// A backtest, beside Prometheus' own time for its queries
    Backtest {
        #[arg(long, default_value_t = 100)]
        services: usize,
        #[arg(long, default_value_t = 24)]
        hours: i64,
        #[arg(long, default_value_t = 3)]
        major: u32,
    },
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let arguments = Arguments::parse();
    match &arguments.what {
        Some(What::Watch(stretch)) => runtime.block_on(watch::watch(stretch)),
        Some(What::Detect { services, steps }) => {
            let ms = runtime.block_on(detect::step_ms(*services, *steps));
            println!("one step of {services} services x 3 zones: {ms:.0} ms of processor time");
        }
        Some(What::Days { services, days }) => {
            let seen = runtime.block_on(detect::days_mib(*services, *days));
            println!("{services} services, resident after two hours, and after each day: {seen:.1?} MiB");
        }
        Some(What::Backtest { services, hours, major }) => {
            runtime.block_on(backtest::backtest(*services, *hours, *major));
        }
        None => {
            let mut rows = Vec::new();
            for services in &arguments.services {
                rows.push(runtime.block_on(scale(*services, &arguments)));
                print(&rows);
            }
        }
    }
}

/// One size of mesh.
struct Row {
    services: usize,
    series: usize,
    bare: Bare,
    took: Took,
    /// Processor seconds of Prometheus in one cycle of zoneward.
    server_s: f64,
    rules: Option<Rules>,
}

/// A cycle's queries, asked by nobody in particular.
struct Bare {
    cpu_s: f64,
    wall_s: f64,
    bytes: f64,
}

/// One evaluation of the rules.
struct Rules {
    cpu_s: f64,
    wall_s: f64,
}

async fn scale(services: usize, arguments: &Arguments) -> Row {
    let history_mins = if services > MANY { MANY_HISTORY_MINS } else { arguments.history_mins };
    let folder = tempfile::tempdir().unwrap();
    let server = prometheus(arguments.major, folder.path());
    let now = Timestamp::now();
    let ahead_mins = if arguments.no_rules { 0 } else { AHEAD_MINS };
    let (first, last) =
        (now - SignedDuration::from_mins(history_mins + 5), now + SignedDuration::from_mins(ahead_mins));
    let began = Instant::now();
    let (series, samples) = mesh::load(&server.url(), services, first, last).await;
    eprintln!(
        "{services} services: {series} series, {samples} samples written in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    tokio::time::sleep(Duration::from_secs(2)).await;

    let cycle = CycleLength::at_least(watch::settings(&server.url()).detect.cycle);
    let from = cycle.at_or_before(now - SignedDuration::from_mins(4));
    let bare = bare(&server, services, from, cycle).await;
    eprintln!("bare: {:.2} s of processor time, {:.1} MB", bare.cpu_s, bare.bytes / 1e6);
    let (took, server_s) = in_a_process(&server, from, history_mins, arguments.cycles);
    eprintln!("{took:?}");
    let rules = if arguments.no_rules { None } else { Some(evaluated(&server, folder.path()).await) };
    Row { services, series, bare, took, server_s, rules }
}

/// One that takes what is written to it, and can be told to look at its rules again.
fn prometheus(major: u32, folder: &Path) -> Process {
    let address = support::free_address();
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "global: {evaluation_interval: 15s}\nrule_files: ['rules*.yml']\n").unwrap();
    let mut command = Command::new(support::part(&format!("prometheus-{major}")));
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .args(["--web.enable-remote-write-receiver", "--web.enable-lifecycle", "--log.level=error"])
        .args(["--query.timeout=2m"]);
    Process::start(&mut command, address, "/-/ready")
}

async fn bare(server: &Process, services: usize, from: Timestamp, cycle: CycleLength) -> Bare {
    let settings = watch::settings(&server.url());
    let observer = PrometheusObserver::new(settings.prometheus.clone(), cycle).unwrap();
    let client = reqwest::Client::builder().timeout(Duration::from_mins(2)).build().unwrap();
    let (mut bytes, before, began) = (0, process::cpu_s(server.id()), Instant::now());
    for nth in 0..BARE {
        let at = from + cycle.signed() * nth;
        for query in observer.queries() {
            let asked = Instant::now();
            let answer = ask(&client, server, &query, at, at, cycle).await;
            if nth == 0 {
                eprintln!("  {:.2} s, {:.1} MB: {:.90}...", asked.elapsed().as_secs_f64(), answer as f64 / 1e6, query);
            }
            bytes += answer;
        }
    }
    assert!(bytes as usize > 1000 * services, "nothing was answered");
    let each = |all: f64| all / f64::from(BARE);
    Bare {
        cpu_s: each(process::cpu_s(server.id()) - before),
        wall_s: each(began.elapsed().as_secs_f64()),
        bytes: each(bytes as f64),
    }
}

/// How many bytes a range query answers.
async fn ask(
    client: &reqwest::Client,
    server: &Process,
    query: &str,
    first: Timestamp,
    last: Timestamp,
    cycle: CycleLength,
) -> u64 {
    let (first, last) = (first.as_second().to_string(), last.as_second().to_string());
    let step = cycle.seconds().to_string();
    let form = [("query", query), ("start", &first), ("end", &last), ("step", &step)];
    let body: String = form.iter().map(|(key, value)| format!("{key}={}&", percent_encoded(value))).collect();
    let request = client
        .post(format!("{}/api/v1/query_range", server.url()))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body);
    let mut answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}: {}", query, answer.text().await.unwrap());
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await.unwrap() {
        bytes += chunk.len() as u64;
    }
    bytes
}

/// zoneward in a process of its own, and the processor time of Prometheus for one of its cycles.
fn in_a_process(server: &Process, from: Timestamp, history_mins: i64, cycles: i32) -> (Took, f64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["watch", "--url", &server.url(), "--from", &from.to_string()])
        .args(["--cycles", &cycles.to_string(), "--history-mins", &history_mins.to_string()])
        .stdout(Stdio::piped());
    let at_start = process::cpu_s(server.id());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let before = process::cpu_s(server.id());
    eprintln!("{:.1} s of Prometheus' processor time until the first decision", before - at_start);
    let took = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let server_s = (process::cpu_s(server.id()) - before) / f64::from(cycles);
    assert!(child.wait().unwrap().success());
    (took, server_s)
}

/// The rules, evaluated by the same Prometheus.
async fn evaluated(server: &Process, folder: &Path) -> Rules {
    std::fs::write(folder.join("rules.yml"), rules::rules()).unwrap();
    let client = reqwest::Client::new();
    let reloaded = client.post(format!("{}/-/reload", server.url())).send().await.unwrap();
    assert!(reloaded.status().is_success(), "{}", reloaded.text().await.unwrap());
    let count = || {
        let (_, text) = server.get("/metrics");
        let of = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit_once(' ')).map_or(0.0, |(_, value)| value.parse::<f64>().unwrap())
        };
        let failed = of("prometheus_rule_evaluation_failures_total");
        assert!(failed <= 0.0, "{failed} rules failed");
        (of("prometheus_rule_group_iterations_total"), of("prometheus_rule_group_last_duration_seconds"))
    };
    let until = |target: f64| async move {
        let (waited, mut rests) = (Instant::now(), Duration::ZERO);
        while count().0 < target || count().1 <= 0.0 {
            assert!(waited.elapsed() < Duration::from_mins(5), "the rules are never evaluated");
            rests += Duration::from_millis(200);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        rests
    };
    // The first evaluation makes the series.
    until(1.0).await;
    let (first, before) = (count().0, process::cpu_s(server.id()));
    until(first + f64::from(EVALUATIONS)).await;
    let turns = count().0 - first;
    Rules { cpu_s: (process::cpu_s(server.id()) - before) / turns, wall_s: count().1 }
}

fn print(rows: &[Row]) {
    println!(
        "| services x 3 zones | series | answers | Prometheus: CPU, wall | zoneward: CPU | share | both | as rules | memory: steady, peak | start to first decision |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for Row { services, series, bare, took, server_s, rules } in rows {
        println!(
            "| {services} | {series} | {:.1} MB | {:.3} s, {:.3} s | {:.3} s | {:.0} % | {:.3} s | {} | {:.0} MiB, {:.0} MiB | {:.1} s ({:.1} s CPU) |",
            bare.bytes / 1e6,
            bare.cpu_s,
            bare.wall_s,
            took.cycle_cpu_s,
            took.cycle_cpu_s / bare.cpu_s * 100.0,
            server_s + took.cycle_cpu_s,
            rules.as_ref().map_or_else(|| "-".to_owned(), |it| format!("{:.3} s ({:.2} s wall)", it.cpu_s, it.wall_s)),
            took.steady_mib,
            took.peak_mib,
            took.first_decision_s,
            took.first_decision_cpu_s
        );
    }
}
