//! Random runs of the whole loop, each from a seed: made-up meshes, faults, failures and people, and at each write, at each
//! moment, and at a calm end, every promise of the README.
//!
//! `--seeds 1000 --first 0` runs many. `--seed N` tells one, with all that happened in it; and, if a promise is broken, the least
//! of it that breaks the same promise.

#![allow(clippy::print_stdout, reason = "what it found is what it is for")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whoever asks for one disturbance does not care for the others")]

extern crate zoneward_core as zoneward;

mod ends;
mod promises;
mod replica;
mod run;
mod shrink;
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
use shrink::Cut;
use story::Story;

/// How many at first, where nobody says.
const SLICE: u64 = 120;

/// One in so many is told twice, and must be the same.
const TOLD_TWICE: u64 = 50;

/// Of so many broken promises the least story is looked for.
const SHRUNK: usize = 3;

struct Arguments {
    seeds: u64,
    first: u64,
    one: Option<u64>,
    cuts: Vec<Cut>,
}

impl Arguments {
    fn read() -> Result<Self, String> {
        let mut arguments = Self { seeds: SLICE, first: 0, one: None, cuts: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            let number = value.parse::<u64>().map_err(|_| format!("{word} takes a number"));
            match word.as_str() {
                "--seeds" => arguments.seeds = number?,
                "--first" => arguments.first = number?,
                "--seed" => arguments.one = Some(number?),
                "--cut" => arguments.cuts = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
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
        Some(seed) => within_runtime(|| one(seed, &arguments.cuts)),
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

/// Tells one, with all that happens in it; and the least of it that breaks the same promise.
fn one(seed: u64, cuts: &[Cut]) -> ExitCode {
    let mut story = Story::new(seed);
    for cut in cuts {
        match shrink::cut(&story, *cut) {
            Some(less) => story = less,
            None => println!("{cut} cuts nothing"),
        }
    }
    let Some(broken) = tell(&story) else { return ExitCode::SUCCESS };
    if cuts.is_empty() {
        tell_least(seed, story, broken);
    }
    ExitCode::FAILURE
}

fn tell(story: &Story) -> Option<Broken> {
    println!("{story}");
    let Watchman { broken, trace, .. } = run::run(story.clone(), true);
    trace.unwrap_or_default().iter().for_each(|line| println!("{line}"));
    if let Some(broken) = &broken {
        println!("{broken}");
    }
    broken
}

fn tell_least(seed: u64, story: Story, broken: Broken) {
    let (least, cuts, _) = shrink::shrink(story, broken);
    let cuts = cuts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    println!("\nThe least that breaks it: make simulate SIMULATE=\"--seed {seed} --cut {cuts}\"\n");
    tell(&least);
}

/// One seed's. Some are told twice, and must be the same.
fn watch(seed: u64) -> Watchman {
    let mut watchman = run::run(Story::new(seed), seed.is_multiple_of(TOLD_TWICE));
    if let Some(first) = watchman.trace.take() {
        let again = run::run(Story::new(seed), true).trace.unwrap_or_default();
        if first != again {
            let differs = first.iter().zip(&again).find(|(a, b)| a != b);
            let why = differs.map_or("one goes on".to_owned(), |(first, again)| format!("{first} / {again}"));
            let why = format!("equal seeds differ: {why}");
            watchman.broken.get_or_insert(Broken { promise: 7, at: 0, why });
        }
    }
    watchman
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
                let watchman = watch(seed);
                if let Some(broken) = watchman.broken {
                    println!("seed {seed}: {broken}");
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
    for (seed, broken) in found.iter().take(SHRUNK) {
        within_runtime(|| tell_least(*seed, Story::new(*seed), broken.clone()));
    }
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seen = seen.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ");
    println!("seen: {seen}");
    println!("{:.0} s", began.elapsed().as_secs_f64());
    println!("{} seeds run, {} promises broken", arguments.seeds, found.len());
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
