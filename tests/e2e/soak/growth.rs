//! Whether something grows, whatever it does in between.

use super::process;

/// Over the second half of the last daemon's life, beside a share of what there is.
const SHARE: f64 = 0.05;
const MIB: f64 = 3.0;
const FILES: f64 = 4.0;
const THREADS: f64 = 2.0;

/// A daemon as the kernel sees it.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub at: f64,
    daemon: u32,
    resident_mib: f64,
    files: f64,
    threads: f64,
    pub cpu_s: f64,
}

impl Sample {
    pub fn of(daemon: u32, at: f64) -> Self {
        let count = |of: &str| std::fs::read_dir(format!("/proc/{daemon}/{of}")).unwrap().count() as f64;
        Self {
            at,
            daemon,
            resident_mib: process::memory_mib(daemon).0,
            files: count("fd"),
            threads: count("task"),
            cpu_s: process::cpu_s(daemon),
        }
    }
}

/// How much the values grew over all of the times: Theil and Sen's line, the median of the slopes between any two points, as
/// a quarter of the points may lie anywhere without moving it far.
fn growth(points: &[(f64, f64)]) -> f64 {
    let pairs = points.iter().enumerate().flat_map(|(nth, a)| points[nth + 1..].iter().map(move |b| (a, b)));
    let mut slopes: Vec<f64> = pairs.filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    slopes.sort_by(f64::total_cmp);
    match (points.first(), points.last(), slopes.get(slopes.len() / 2)) {
        (Some(first), Some(last), Some(slope)) => slope * (last.0 - first.0),
        _ => 0.0,
    }
}

/// Says how something went, and what is wrong with it if it grew by more than is allowed.
pub fn judge(what: &str, points: &[(f64, f64)], allowed: f64) -> (String, Option<String>) {
    let grown = growth(points);
    let problem = format!("{what} grew by {grown:.1}, more than {allowed:.1}");
    (format!("{grown:+.2}"), (grown > allowed).then_some(problem))
}

/// The table of a daemon that may have been another one in the first half; returns what grew.
pub fn print(samples: &[Sample]) -> Vec<String> {
    type Value = fn(&Sample) -> f64;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return vec!["the daemon was never looked at".to_owned()];
    };
    let of_last: Vec<&Sample> = samples.iter().filter(|it| it.daemon == last.daemon).collect();
    let half = &of_last[of_last.len() / 2..];
    let middle = half[0];
    let lines: [(&str, Value, f64); 3] = [
        ("resident (MiB)", |it| it.resident_mib, MIB + SHARE * middle.resident_mib),
        ("open files", |it| it.files, FILES),
        ("threads", |it| it.threads, THREADS),
    ];
    println!("                  start   middle      end   line over the second half");
    let mut problems = Vec::new();
    for (what, value, allowed) in lines {
        let points: Vec<(f64, f64)> = half.iter().map(|it| (it.at, value(it))).collect();
        let (grown, problem) = judge(what, &points, allowed);
        println!("{what:<16} {:>6.1} {:>8.1} {:>8.1}   {grown}", value(first), value(middle), value(last));
        problems.extend(problem);
    }
    problems
}
