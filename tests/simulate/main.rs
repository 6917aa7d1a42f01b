//! Random runs of the whole loop, each from a seed: made-up meshes, faults, failures and people, and at each write, at each
//! moment, and at a calm end, every promise of the README.
//!
//! `cargo test --test simulate -- --seeds 1000 --first 0` runs many, `--seed N` tells one, with all that happened.

#![allow(clippy::print_stdout, reason = "what it found is what it is for")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whoever asks for one disturbance does not care for the others")]

mod ends;
mod promises;
mod replica;
mod run;
mod stage;
mod steps;
mod story;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use promises::{Broken, Watchman};
use story::Story;

/// How many at first, where nobody says.
const SLICE: u64 = 120;

/// One in so many is told twice, and must be the same.
const TOLD_TWICE: u64 = 50;

struct Arguments {
    seeds: u64,
    first: u64,
    one: Option<u64>,
    keep: Option<Vec<usize>>,
}

impl Arguments {
    fn read() -> Result<Self, String> {
        let mut arguments = Self { seeds: SLICE, first: 0, one: None, keep: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            let number = value.parse::<u64>().map_err(|_| format!("{word} takes a number"));
            match word.as_str() {
                "--seeds" => arguments.seeds = number?,
                "--first" => arguments.first = number?,
                "--seed" => arguments.one = Some(number?),
                "--keep" => arguments.keep = Some(value.split(',').filter_map(|nth| nth.parse().ok()).collect()),
                // Whatever cargo adds is for other harnesses.
                _ => {}
            }
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(why) => {
            println!("{why}");
            return ExitCode::from(2);
        }
    };
    match arguments.one {
        Some(seed) => tell(seed, arguments.keep.as_deref()),
        None => many(&arguments),
    }
}

/// Verbs are bounded by a timer, which must exist, and never rings: in a run time stands still but for steps.
fn within_runtime<T>(what: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime of one thread");
    let _guard = runtime.enter();
    what()
}

fn tell(seed: u64, keep: Option<&[usize]>) -> ExitCode {
    let story = Story::new(seed);
    let story = keep.map_or_else(|| story.clone(), |keep| story.only(keep));
    println!("{story}");
    let Watchman { broken, trace, .. } = within_runtime(|| run::run(story, true));
    trace.unwrap_or_default().iter().for_each(|line| println!("{line}"));
    match broken {
        Some(broken) => {
            println!("{}", in_words(&broken));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn in_words(broken: &Broken) -> String {
    format!("promise {} is broken {} s after the start: {}", broken.promise, broken.at, broken.why)
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first + arguments.seeds;
    let found: Mutex<BTreeMap<u64, Broken>> = Mutex::default();
    let seen: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let work = || {
        within_runtime(|| {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return;
                }
                let mut watchman = run::run(Story::new(seed), seed.is_multiple_of(TOLD_TWICE));
                if let Some(first) = watchman.trace.take() {
                    let again = run::run(Story::new(seed), true).trace.unwrap_or_default();
                    let differs = first.iter().zip(&again).find(|(a, b)| a != b);
                    let why = differs.map(|(first, again)| format!("equal seeds differ: {first} / {again}"));
                    let broken = why.map(|why| Broken { promise: 7, at: 0, why });
                    watchman.broken = watchman.broken.or(broken);
                }
                if let Some(broken) = watchman.broken {
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, broken);
                }
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                watchman.seen.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
            }
        });
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        (0..threads).for_each(|_| {
            scope.spawn(work);
        });
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (seed, broken) in found.iter().take(10) {
        println!("seed {seed}: {}", in_words(broken));
    }
    for (seed, broken) in found.iter().take(3) {
        within_runtime(|| shrink(*seed, broken));
    }
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seen = seen.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ");
    println!("seen: {seen}");
    println!("{:.0} s", began.elapsed().as_secs_f64());
    println!("{} seeds, {} promises broken", arguments.seeds, found.len());
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Leaves out one disturbance after the other, as long as the same promise is broken.
fn shrink(seed: u64, broken: &Broken) {
    let whole = Story::new(seed);
    let mut kept: Vec<usize> = (0..whole.disturbances.len()).collect();
    let mut last = broken.clone();
    let mut smaller = true;
    while std::mem::take(&mut smaller) {
        for nth in kept.clone() {
            let fewer: Vec<usize> = kept.iter().copied().filter(|kept| *kept != nth).collect();
            let again = run::run(whole.only(&fewer), false).broken;
            if let Some(again) = again.filter(|again| again.promise == broken.promise) {
                (kept, last, smaller) = (fewer, again, true);
            }
        }
    }
    println!("\n{}", whole.only(&kept));
    println!("{}", in_words(&last));
    let kept = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    println!("make simulate SIMULATE=\"--seed {seed} --keep {kept}\" tells it\n");
}
