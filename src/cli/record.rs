//! `zoneward record`: a past stretch as a file, to replay with other settings and without Prometheus.

use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;

use super::past::Past;
use super::{ConfigArguments, Outcome, render};
use crate::detect::History;
use crate::domain::verdict::Suspect;
use crate::observe::{Head, Recorder};

/// Cycles over which pods may be compared: those of the shortest comparison, and of longer windows.
const LOOKS: [usize; 3] = [8, 12, 20];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Base address of Prometheus [default: prometheus.url]
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// First moment, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    start: Timestamp,
    /// Last moment, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    end: Timestamp,
    /// The recording; one that is there is replaced
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let settings = arguments.config.load(arguments.prometheus.as_deref())?;
    let mut past = Past::of_prometheus(&settings, Some(arguments.start), Some(arguments.end)).await?;
    let head = Head::new(past.cycle, arguments.start, arguments.end);
    let mut recorder = Recorder::create(&arguments.output, head).context("writing the recording")?;
    let mut history = History::new(&settings.detect, past.cycle);
    let (mut cycles, mut looks, mut failed) = (0_u64, 0_u64, Vec::new());
    loop {
        let snapshots = past.snapshots().await?;
        if snapshots.is_empty() {
            break;
        }
        for snapshot in snapshots {
            recorder.snapshot(&snapshot)?;
            history.push(&snapshot, &settings.detect);
            cycles += 1;
            if snapshot.global_gaps().next().is_some() {
                // Nothing is judged, so nobody looks closer.
                continue;
            }
            // Pods are recorded wherever more sensitive settings might want to see them.
            for suspect in history.suspects() {
                for cycles in LOOKS {
                    let suspect = Suspect { cycles, ..suspect.clone() };
                    match past.observer().observe_pods(&suspect, snapshot.time).await {
                        Ok(look) => {
                            recorder.closer_look(&suspect, &look)?;
                            looks += 1;
                        }
                        Err(error) => failed.push(format!("{} in {}: {error}", suspect.service, suspect.zone)),
                    }
                }
            }
        }
    }
    recorder.finish()?;
    let bytes = std::fs::metadata(&arguments.output).map_or(0, |file| file.len());
    render::line(&format!(
        "{}: {cycles} cycles of {}, {looks} closer looks, {:.1} kB",
        arguments.output.display(),
        past.cycle,
        bytes as f64 / 1e3
    ));
    // A replay has a gap there, as a backtest has.
    if let Some(first) = failed.first() {
        render::note(&format!("warning: {} closer looks failed and are missing, the first at {first}", failed.len()));
    }
    Ok(Outcome::Done)
}
