//! A day's backtest by the binary, beside Prometheus' own time for the very same queries.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use zoneward::domain::CycleLength;
use zoneward::observe::PrometheusObserver;

use crate::{ask, mesh, process, prometheus, support, watch};

/// Cycles asked for at once.
const CHUNK: i32 = 240;

pub async fn backtest(services: usize, hours: i64, major: u32) {
    let folder = tempfile::tempdir().unwrap();
    let server = prometheus(major, folder.path());
    let cycle = CycleLength::at_least(watch::settings(&server.url()).detect.cycle);
    let last = cycle.at_or_before(Timestamp::now() - SignedDuration::from_mins(1));
    let first = last - SignedDuration::from_hours(hours);
    let began = Instant::now();
    let (series, samples) = mesh::load(&server.url(), services, first - SignedDuration::from_mins(6), last).await;
    eprintln!("{series} series, {samples} samples written in {:.0} s", began.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(5)).await;

    let observer = PrometheusObserver::new(watch::settings(&server.url()).prometheus, cycle).unwrap();
    let client = reqwest::Client::builder().timeout(Duration::from_mins(2)).build().unwrap();
    let (began, before) = (Instant::now(), process::cpu_s(server.id()));
    let (mut next, mut bytes) = (first, 0);
    while next <= last {
        let end = (next + cycle.signed() * (CHUNK - 1)).min(last);
        for query in observer.queries() {
            bytes += ask(&client, &server, &query, next, end, cycle).await;
        }
        next = end + cycle.signed();
    }
    let (bare_s, bare_cpu_s) = (began.elapsed().as_secs_f64(), process::cpu_s(server.id()) - before);
    println!("Prometheus alone: {bare_s:.1} s, {bare_cpu_s:.1} s of processor time, {:.0} MB", bytes as f64 / 1e6);

    let began = Instant::now();
    let mut child = support::zoneward()
        .args(["backtest", "--config", "config/default.yaml", "--output", "json", "--prometheus", &server.url()])
        .args(["--start", &first.to_string(), "--end", &last.to_string()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (mut peak_mib, mut cpu_s) = (0.0, 0.0);
    while child.try_wait().unwrap().is_none() {
        if std::fs::read_to_string(format!("/proc/{}/status", child.id())).is_ok_and(|it| it.contains("VmHWM")) {
            peak_mib = process::memory_mib(child.id()).1;
            cpu_s = process::cpu_s(child.id());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let took_s = began.elapsed().as_secs_f64();
    assert!(child.wait().unwrap().success());
    println!(
        "backtest of {hours} h of {services} services: {took_s:.1} s ({:.2} x), {cpu_s:.1} s of processor time, peak {peak_mib:.0} MiB",
        took_s / bare_s
    );
}
