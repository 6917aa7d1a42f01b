//! `zoneward backtest`: the very same pipeline over a past stretch, in simulated time.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::past::Past;
use super::render::{self, RecordPrinter};
use super::report::{self, Page, Tap};
use super::{ConfigArguments, Outcome, Output};
use crate::domain::{Event, Mode, Record};
use crate::isolate::{Executor, MemoryStore};
use crate::pipeline::{self, Pipeline};
use crate::ports::{AuditSink, IsolationStore};
use crate::report::About;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Base address of Prometheus [default: prometheus.url]
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// A recording to replay instead, made by `zoneward record`
    #[arg(long, value_name = "FILE", conflicts_with = "prometheus")]
    recording: Option<PathBuf>,
    /// First moment, RFC 3339. Nothing before it is known. [a recording: its first]
    #[arg(long, value_name = "TIME", value_parser = super::moment, required_unless_present = "recording")]
    start: Option<Timestamp>,
    /// Last moment, RFC 3339 [a recording: its last]
    #[arg(long, value_name = "TIME", value_parser = super::moment, required_unless_present = "recording")]
    end: Option<Timestamp>,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Also write a web page, of one file, that shows what would have been done and why
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    arguments.report.as_deref().map_or(Ok(()), report::check)?;
    let settings = arguments.config.load(arguments.prometheus.as_deref())?;
    let began = std::time::Instant::now();
    let mut past = match &arguments.recording {
        Some(file) => Past::of_recording(file, arguments.start, arguments.end)?,
        None => Past::of_prometheus(&settings, arguments.start, arguments.end).await?,
    };
    let cycle = past.cycle;
    let about = About { start: past.next, end: past.last, cycle, settings: report::settings(&settings, cycle) };
    let mut page = arguments.report.map(|path| Page::new(path, about));
    let printer = Arc::new(RecordPrinter::new(arguments.output));
    let audit = Arc::new(Tap::new(printer.clone()));
    let store = Arc::new(MemoryStore::default());
    // The past can only be rehearsed.
    let rehearsal = pipeline::Settings { mode: Mode::Observe, ..settings.pipeline() };
    let mut pipeline = Pipeline::new(rehearsal, cycle, store.clone(), audit.clone());

    let mut executor = Executor::trusting(Vec::new(), store.clone(), audit.clone());
    let (mut cycles, mut blind) = (0_u64, 0_u64);
    loop {
        let snapshots = past.snapshots().await?;
        if snapshots.is_empty() {
            break;
        }
        for snapshot in snapshots {
            cycles += 1;
            blind += u64::from(snapshot.global_gaps().next().is_some());
            pipeline.tick(past.observer(), &snapshot, snapshot.time).await?;
            executor.run_until_idle(snapshot.time).await?;
            let records = audit.take();
            if let (Some(page), Some(sight)) = (&mut page, pipeline.sight()) {
                page.cycle(&sight, &records);
            }
        }
    }
    let isolations = store.list().await?.len();
    let usage = past.usage();
    let message = format!(
        "{cycles} cycles of {cycle}, {blind} of them without judgement; {isolations} isolation{}; {} queries, {:.1} MB",
        if isolations == 1 { "" } else { "s" },
        usage.queries,
        usage.response_bytes as f64 / 1e6
    );
    let summary = Record::new(past.last, Event::Summary, message)
        .figure("cycles", cycles)
        .figure("cycle_s", cycle.seconds())
        .figure("cycles_without_judgement", blind)
        .figure("isolations", isolations)
        .figure("queries", usage.queries)
        .figure("response_bytes", usage.response_bytes)
        .figure("seconds", (began.elapsed().as_secs_f64() * 100.0).round() / 100.0);
    audit.append(summary.clone()).await?;
    if arguments.output == Output::Table {
        render::records(&printer.kept());
    }
    if blind == cycles {
        render::note("warning: nothing could be judged in all of this stretch; its gaps say why");
    }
    if let Some(page) = page {
        page.write(summary)?;
    }
    Ok(Outcome::Done)
}
