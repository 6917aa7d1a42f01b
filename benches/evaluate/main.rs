//! `make evaluate`: how well the detector does, beside what users would otherwise reach for and beside the limit of what
//! any rule can do, over many seeds and without a network.
//!
//! ```text
//! family (a file) ─ seed ─> scenario ─> truth ─> world ─ snapshots ─> pipeline, baselines ─> score ─> report
//!                                          └───> bound
//! ```

mod baselines;
mod bound;
mod family;
mod noise;
mod pod;
mod report;
mod run;
mod scenario;
mod score;
mod truth;
mod world;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use zoneward::pipeline;
use zoneward::settings::Settings;

use family::Family;
use run::Run;

/// Measures the detector on made-up meshes: recall, delay, false isolations, beside other methods and the limit.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds of each family, but for healthy days; they take three mixes of traffic in turn, so use multiples of three
    #[arg(long, default_value_t = 12)]
    seeds: u64,
    /// The first seed: tune on some, judge on others
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Names of families, such as 'healthy*' or '{severe,moderate}-*'
    #[arg(long, default_value = "*")]
    families: String,
    /// Healthy days, each a seed
    #[arg(long, default_value_t = 60)]
    days: u64,
    /// [default: as many as there are cores]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Tell what was put on record in each scenario
    #[arg(long)]
    details: bool,
    /// The detector's configuration
    #[arg(long, value_name = "FILE", default_value = "config/default.yaml")]
    config: PathBuf,
    /// The folder of families
    #[arg(long, value_name = "DIRECTORY", default_value = "config/scenarios/evaluation")]
    folder: PathBuf,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

fn main() -> ExitCode {
    match evaluate(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn evaluate(arguments: &Arguments) -> anyhow::Result<()> {
    let families = families(&arguments.folder, &arguments.families)?;
    let settings = Settings::load(Some(&arguments.config), BTreeMap::new())?.pipeline();
    let jobs: Vec<(&Family, u64)> = families
        .iter()
        .flat_map(|family| {
            let count = if score::is_healthy(&family.name) { arguments.days } else { arguments.seeds };
            (0..count).map(move |nth| (family, arguments.first_seed + nth))
        })
        .collect();
    if jobs.is_empty() {
        bail!("nothing to do: --seeds and --days are 0 for all of these families");
    }
    if !arguments.seeds.is_multiple_of(family::MIXES as u64) {
        report::note("note: seeds take three mixes of traffic in turn, and these are not all of them equally often");
    }
    let threads = match arguments.threads {
        Some(threads) => threads.get(),
        None => std::thread::available_parallelism()?.get(),
    };
    let runs = run_all(&jobs, threads, &settings)?;
    match arguments.output {
        Output::Table => report::print(&runs, arguments.details),
        Output::Json => report::print_json(&runs, arguments.details)?,
    }
    Ok(())
}

fn families(folder: &Path, pattern: &str) -> anyhow::Result<Vec<Family>> {
    let glob = globset::Glob::new(pattern).context("--families")?.compile_matcher();
    let known = Family::read_all(folder)?;
    let names: Vec<String> = known.iter().map(|family| family.name.clone()).collect();
    let chosen: Vec<Family> = known.into_iter().filter(|family| glob.is_match(&family.name)).collect();
    if chosen.is_empty() {
        bail!("no family is named `{pattern}`; there are {}", names.join(", "));
    }
    Ok(chosen)
}

/// In the order of the jobs, however many threads share them.
fn run_all(jobs: &[(&Family, u64)], threads: usize, settings: &pipeline::Settings) -> anyhow::Result<Vec<Run>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Run>> = Mutex::new(BTreeMap::new());
    let work = || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((family, seed)) = jobs.get(index) else { return Ok(()) };
            let run = runtime
                .block_on(run::run(family, *seed, settings))
                .with_context(|| format!("{} seed {seed}", family.name))?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(index, run);
            report::progress(done.len(), jobs.len());
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}
