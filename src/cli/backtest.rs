//! `zoneward backtest`: the very same pipeline over a past stretch, in simulated time.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::render::{self, RecordPrinter};
use super::report::{self, Page, Tap};
use super::{ConfigArguments, Outcome, Output};
use crate::domain::{CycleLength, Event, Mode, Record};
use crate::isolate::{Executor, MemoryStore};
use crate::observe::{PrometheusObserver, ZoneFrom};
use crate::pipeline::{self, Pipeline};
use crate::ports::{AuditSink, IsolationStore, Observer};
use crate::report::About;

/// Cycles between two words of progress.
const CHUNK_CYCLES: i32 = 240;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Base address of Prometheus [default: prometheus.url]
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// First moment, RFC 3339. Nothing before it is known.
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    start: Timestamp,
    /// Last moment, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::moment)]
    end: Timestamp,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Also write a web page, of one file, that shows what would have been done and why
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    if arguments.end <= arguments.start {
        bail!("--end ({}) must be later than --start ({})", arguments.end, arguments.start);
    }
    if arguments.end > super::now() {
        bail!("--end ({}) is in the future", arguments.end);
    }
    arguments.report.as_deref().map_or(Ok(()), report::check)?;
    let settings = arguments.config.load(arguments.prometheus.as_deref())?;
    if settings.prometheus.zone_from == ZoneFrom::Node {
        bail!(
            "a backtest takes the zone from a label (prometheus.zone_from: label): on which nodes the pods of the past ran \
             is not known"
        );
    }
    let began = std::time::Instant::now();
    let cycle = CycleLength::at_least(settings.detect.cycle);
    let mut observer = PrometheusObserver::new(settings.prometheus.clone(), cycle)?;
    if let Some(interval) = observer.fit_to_scrapes(arguments.end).await.context("measuring the scrape interval")?
        && observer.cycle() != cycle
    {
        render::note(&format!(
            "targets are scraped every {interval}: judging every {} instead of every {cycle} (detect.cycle)",
            observer.cycle()
        ));
    }
    let cycle = observer.cycle();
    let about = About {
        start: cycle.at_or_after(arguments.start),
        end: arguments.end,
        cycle,
        settings: report::settings(&settings, cycle),
    };
    let mut page = arguments.report.map(|path| Page::new(path, about));
    let printer = Arc::new(RecordPrinter::new(arguments.output));
    let audit = Arc::new(Tap::new(printer.clone()));
    let store = Arc::new(MemoryStore::default());
    // The past can only be rehearsed.
    let rehearsal = pipeline::Settings { mode: Mode::Observe, ..settings.pipeline() };
    let mut pipeline = Pipeline::new(rehearsal, cycle, store.clone(), audit.clone());

    let mut executor = Executor::trusting(Vec::new(), store.clone(), audit.clone());
    let mut next = cycle.at_or_after(arguments.start);
    let (mut cycles, mut blind) = (0_u64, 0_u64);
    while next <= arguments.end {
        let last = (next + cycle.signed() * (CHUNK_CYCLES - 1)).min(arguments.end);
        let snapshots = observer.observe(next, last).await.context("reading history")?;
        for snapshot in snapshots {
            cycles += 1;
            blind += u64::from(snapshot.global_gaps().next().is_some());
            pipeline.tick(&mut observer, &snapshot, snapshot.time).await?;
            executor.run_until_idle(snapshot.time).await?;
            let records = audit.take();
            if let (Some(page), Some(sight)) = (&mut page, pipeline.sight()) {
                page.cycle(&sight, &records);
            }
        }
        next = cycle.at_or_after(last + cycle.signed());
        render::progress(&format!("{cycles} cycles judged, up to {last}"), next > arguments.end);
    }
    let isolations = store.list().await?.len();
    let usage = observer.usage();
    let message = format!(
        "{cycles} cycles of {cycle}, {blind} of them without judgement; {isolations} isolation{}; {} queries, {:.1} MB",
        if isolations == 1 { "" } else { "s" },
        usage.queries,
        usage.response_bytes as f64 / 1e6
    );
    let summary = Record::new(arguments.end, Event::Summary, message)
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
