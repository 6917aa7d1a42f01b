//! `zoneward run`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use futures::future::OptionFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::{self, Hands};
use super::health::{CountingSink, DaemonStatus};
use super::reload::Reload;
use super::{ConfigArguments, Outcome};
use crate::alertmanager;
use crate::audit::Journal;
use crate::detect;
use crate::domain::cluster::CpuUse;
use crate::domain::{CycleLength, Event, Gap, Mode, Pause, Record, Silences, Snapshot, Zone};
use crate::isolate::{AdvanceError, Executor, MemoryStore};
use crate::kubernetes;
use crate::notify::Count;
use crate::observe::{PrometheusObserver, Recall, ZoneFrom};
use crate::pipeline::{Pipeline, TickError};
use crate::ports::{AuditSink, IsolationStore, Observer};
use crate::serve::{self, Status as _};
use crate::settings::Settings;
use crate::telemetry::LogFormat;

/// Cycles that are caught up with after Prometheus could not be read.
const MOST_CAUGHT_UP: i64 = 240;
/// How long the start waits for the cluster, where zones are looked up there.
const PLACES_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at the CPU that pods use.
const CPU_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Between two measurements of the scrape interval.
const MEASURE_EVERY: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
    /// Where the audit journal goes [default: audit.directory]
    #[arg(long, value_name = "DIR")]
    audit_directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Arguments {
    pub(super) const fn log_format(&self) -> LogFormat {
        match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        }
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let reload = Reload::new(arguments.config, arguments.audit_directory);
    let settings = reload.load()?;
    let cycle = CycleLength::at_least(settings.detect.cycle);
    let observer = PrometheusObserver::new(settings.prometheus.clone(), cycle)?;
    let asked_to_stop = super::shutdown();
    let listener = TcpListener::bind(&settings.serve.listen)
        .await
        .with_context(|| format!("can't listen on {} (serve.listen)", settings.serve.listen))?;
    let journal = Journal::start(&settings.audit)?;
    let status = Arc::new(DaemonStatus::new(&settings));
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let eyes = cluster::look_on(&settings, &tasks, &stop).await?;
    let counted = Arc::clone(&status);
    let count: Arc<Count> = Arc::new(move |target, outcome| counted.metrics.notified(target, outcome.as_str()));
    let notifiers = eyes.notifiers(&settings, &count, &tasks, &stop);
    let sink = Arc::new(CountingSink { journal, status: Arc::clone(&status), notifiers });
    let server = tasks.spawn(serve::serve(listener, status.clone(), stop.clone()));
    sink.note(Record::new(
        super::now(),
        Event::Started,
        format!(
            "zoneward {} watches {} in {} mode{}",
            env!("CARGO_PKG_VERSION"),
            settings.prometheus.url,
            settings.mode.as_str(),
            eyes.where_it_acts(settings.mode)
        ),
    ))
    .await;

    let silences = alertmanager::watch(settings.guard.silences.as_ref(), super::now, &tasks, &stop);
    let mut hands = match settings.mode {
        Mode::Observe => None,
        Mode::Recommend | Mode::Enforce => {
            Some(eyes.hands(&settings, sink.clone(), silences.clone(), &tasks, &stop)?)
        }
    };
    if let Some(hands) = &hands {
        let _only_here = status.isolations.set(hands.isolations.clone());
        let _only_here = status.pause.set(hands.pause.clone());
        let _only_here = status.shown.replica.set(eyes.replica(hands));
    }
    let executor = hands.as_mut().and_then(|hands| hands.executor.take());
    let store: Arc<dyn IsolationStore> = match &hands {
        Some(hands) => hands.store.clone(),
        None => Arc::new(MemoryStore::default()),
    };
    let daemon = Daemon {
        rehearsal: hands.is_none().then(|| Executor::trusting(Vec::new(), store.clone(), sink.clone())),
        store,
        hands,
        eyes,
        settings,
        reload,
        observer,
        sink: Arc::clone(&sink),
        status,
        seen_until: None,
        measured_at: None,
        cpu_use: None,
        cpu_asked_at: None,
        mesh: (0, 0),
        pause: Pause::Off,
        silences,
    };
    let acting = executor.is_some();
    let result = tokio::select! {
        result = daemon.watch() => result,
        () = asked_to_stop => Ok(()),
        _ = OptionFuture::from(executor), if acting => Err(anyhow::anyhow!("what carries isolations out has failed")),
    };
    let farewell = match &result {
        Ok(()) => "stopped, as was asked".to_owned(),
        Err(error) => format!("stopped by a failure: {error:#}"),
    };
    let recorded = sink.append(Record::new(super::now(), Event::Stopped, farewell)).await;
    stop.cancel();
    tasks.close();
    // A client that keeps its connection open must not keep the process.
    let _late = tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await;
    if server.is_finished() {
        server.await?.context("serving")?;
    }
    result?;
    recorded?;
    Ok(Outcome::Done)
}

struct Daemon {
    settings: Settings,
    reload: Reload,
    observer: PrometheusObserver,
    store: Arc<dyn IsolationStore>,
    /// What advances isolations where nothing else does, in observe mode.
    rehearsal: Option<Executor>,
    hands: Option<Hands>,
    eyes: cluster::Eyes,
    sink: Arc<CountingSink>,
    status: Arc<DaemonStatus>,
    seen_until: Option<Timestamp>,
    measured_at: Option<Timestamp>,
    cpu_use: Option<Arc<CpuUse>>,
    cpu_asked_at: Option<Timestamp>,
    /// Services and zones that were last said to be watched.
    mesh: (usize, usize),
    /// What was last said of a pause.
    pause: Pause,
    silences: watch::Receiver<Silences>,
}

impl Daemon {
    /// Every cycle, on the grid, for ever.
    async fn watch(mut self) -> anyhow::Result<()> {
        self.measure(super::now()).await;
        if self.settings.prometheus.zone_from == ZoneFrom::Node {
            self.wait_for_places().await;
        }
        let mut pipeline = self.pipeline();
        self.refill(&mut pipeline).await;
        self.status.shown.cycle(None, self.observer.cycle().seconds());
        loop {
            let cycle = self.observer.cycle();
            let now = super::now();
            let due = cycle.at_or_before(now) + cycle.signed();
            self.status.turned(now, cycle);
            self.rest(&mut pipeline, due.duration_since(now).unsigned_abs()).await;
            if self.measured_at.is_none_or(|at| due.duration_since(at) >= MEASURE_EVERY) {
                self.measure(due).await;
                if self.observer.cycle() != cycle {
                    pipeline = self.pipeline();
                    self.seen_until = None;
                    self.refill(&mut pipeline).await;
                    continue;
                }
            }
            self.sink.catch_up(due).await;
            self.reload(&mut pipeline, due).await;
            self.cycle(&mut pipeline, due).await?;
        }
    }

    /// Until the next cycle; that a person pauses it, or resumes, is put on record at once.
    async fn rest(&mut self, pipeline: &mut Pipeline, time: Duration) {
        let mut rest = std::pin::pin!(tokio::time::sleep(time));
        loop {
            let pause = self.hands.as_mut().map(|hands| &mut hands.pause);
            let changed = OptionFuture::from(pause.map(watch::Receiver::changed));
            tokio::select! {
                () = &mut rest => return,
                Some(Ok(())) = changed => self.note_pause(pipeline, super::now()).await,
            }
        }
    }

    /// Takes over a new edition of the configuration, in every stage before the next judgement.
    async fn reload(&mut self, pipeline: &mut Pipeline, now: Timestamp) {
        let Some(record) = self.reload.look(&mut self.settings, now) else { return };
        if record.event == Event::ConfigurationChanged {
            pipeline.retune(self.settings.pipeline());
            self.observer.retune(self.settings.prometheus.services.clone());
            if let Some(hands) = &self.hands {
                hands.guard.send_replace(self.settings.guard.clone());
            }
        }
        self.sink.note(record).await;
    }

    /// Without the cluster the past would be of no zone.
    async fn wait_for_places(&self) {
        let patience = Instant::now() + PLACES_WITHIN;
        while self.eyes.view().is_none() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn pipeline(&self) -> Pipeline {
        let (settings, cycle) = (self.settings.pipeline(), self.observer.cycle());
        let mut pipeline = Pipeline::new(settings, cycle, Arc::clone(&self.store), self.sink.clone());
        if let Some(hands) = &self.hands {
            pipeline.show_to(Arc::clone(&hands.sights));
        }
        pipeline
    }

    async fn measure(&mut self, now: Timestamp) {
        let before = self.observer.cycle();
        match self.observer.fit_to_scrapes(now).await {
            Ok(Some(interval)) => {
                self.measured_at = Some(now);
                let cycle = self.observer.cycle();
                if cycle != before {
                    tracing::warn!(
                        "targets are scraped every {interval}, longer than the cycle of {before} (detect.cycle): judging \
                         every {cycle} instead; a fault needs at least two scrapes, so expect {} at the soonest",
                        crate::domain::Period::from_secs(2 * cycle.seconds())
                    );
                }
            }
            Ok(None) => tracing::warn!("no scrape interval can be measured yet, as there are no request metrics"),
            Err(error) => tracing::debug!(%error, "the scrape interval can't be measured"),
        }
    }

    /// Takes in the past, of which nothing is decided.
    async fn refill(&mut self, pipeline: &mut Pipeline) {
        let cycle = self.observer.cycle();
        if let Some(view) = self.eyes.view() {
            self.observer.learn_places(&view);
        }
        let last = cycle.at_or_before(super::now()) - cycle.signed();
        let first = last - self.settings.prometheus.history.signed();
        let recall = Recall { exact_cycles: detect::REMEMBERED as i32, merged_cycles: detect::BLOCK as i32 };
        let learn = |snapshot: &Snapshot, cycles: u32| pipeline.learn_alike(snapshot, cycles);
        match self.observer.recall((first, last), recall, learn).await {
            Ok(cycles) => {
                self.seen_until = Some(last);
                let (services, zones) = (pipeline.history().services(), pipeline.history().zones().len());
                tracing::info!(cycles, services, zones, "history refilled");
            }
            Err(error) => {
                // A part of it must not be learned twice.
                pipeline.forget_past();
                tracing::warn!(%error, "history can't be refilled; starting without any");
            }
        }
        self.report_usage();
    }

    /// One cycle, and those missed before it.
    async fn cycle(&mut self, pipeline: &mut Pipeline, due: Timestamp) -> anyhow::Result<()> {
        let began = Instant::now();
        let cycle = self.observer.cycle();
        if self.seen_until.is_some_and(|seen| due <= seen) {
            tracing::warn!("the clock went back: waiting until it has passed what was seen");
            return Ok(());
        }
        if self.seen_until.is_none() {
            self.refill(pipeline).await;
        }
        let oldest = due - cycle.signed() * (MOST_CAUGHT_UP as i32 - 1);
        let first = self.seen_until.map_or(due, |seen| seen + cycle.signed()).max(oldest);
        let mut view = self.eyes.view();
        let seen = view.is_some();
        if let Some(view) = &mut view {
            self.observer.learn_places(view);
            view.cpu_use.clone_from(&self.cpu_use);
        }
        let mut snapshots = match self.observer.observe(first, due).await {
            Ok(snapshots) => {
                self.seen_until = Some(due);
                snapshots
            }
            Err(error) => {
                self.status.metrics.failed_cycle();
                tracing::warn!(%error, "Prometheus could not be read; holding");
                vec![Snapshot::unobserved(due, Gap::QueryFailed { why: error.to_string() })]
            }
        };
        if let Some(newest) = snapshots.last_mut() {
            newest.cluster = view;
        }
        pipeline.lead(self.hands.as_ref().is_none_or(Hands::lead));
        pipeline.silence(self.silences.borrow().clone());
        self.note_pause(pipeline, due).await;
        for snapshot in &snapshots {
            self.judge(pipeline, snapshot, due).await?;
        }
        self.report_usage();
        self.status.shown.cycle(pipeline.scene(), cycle.seconds());
        if let Some(newest) = snapshots.last() {
            self.status.saw(newest);
        }
        if let Some(hands) = &self.hands {
            let ready_in = self.eyes.here().filter(|_| self.status.ready().is_ok());
            hands.stand_by(ready_in, 3 * cycle.signed().unsigned_abs());
            if self.status.unrecorded().is_some() {
                hands.let_another_act();
            }
        }
        self.note_mesh(pipeline);
        if let Some(sight) = pipeline.sight() {
            let took_s = began.elapsed().as_secs_f64();
            self.status.metrics.cycle(&sight.assessment, pipeline.history().services(), took_s);
            if let Some(hands) = &mut self.hands {
                self.status.metrics.leads(hands.lead());
                hands.note_verdicts(&sight, due).await;
            }
        }
        if seen {
            self.look_at_cpu(due).await;
        }
        Ok(())
    }

    /// Now and then, once the cycle is decided, as a slow answer must not delay it; what can't be known is old after a while,
    /// and then guardrails do without.
    async fn look_at_cpu(&mut self, due: Timestamp) {
        let soon = self.cpu_asked_at.is_some_and(|at| due.duration_since(at) < CPU_EVERY);
        if self.settings.guard.max_cpu.is_none() || soon {
            return;
        }
        self.cpu_asked_at = Some(due);
        match self.observer.cpu_use(due).await {
            Ok(Some(seen)) => self.cpu_use = Some(Arc::new(seen)),
            Ok(None) => tracing::debug!("no container's CPU is counted (guard.max_cpu)"),
            Err(error) => tracing::debug!(%error, "the CPU that pods use can't be read"),
        }
    }

    /// One cycle of judgement; in observe mode, of rehearsed isolations too. Without the store or the journal nothing is
    /// decided.
    async fn judge(&mut self, pipeline: &mut Pipeline, snapshot: &Snapshot, due: Timestamp) -> anyhow::Result<()> {
        let trouble = match pipeline.tick(&mut self.observer, snapshot, due).await {
            Ok(()) => None,
            Err(error @ (TickError::Store(_) | TickError::Audit(_))) => {
                self.status.metrics.failed_cycle();
                tracing::error!("nothing is decided in this cycle: {error}");
                Some(format!("nothing was decided in the newest cycle: {error}"))
            }
        };
        self.status.shown.trouble(trouble);
        if let Some(rehearsal) = &mut self.rehearsal {
            match rehearsal.run_until_idle(due).await {
                Ok(()) | Err(AdvanceError::Audit(_)) => {}
                Err(error @ (AdvanceError::Store(_) | AdvanceError::Illegal(_))) => return Err(error.into()),
            }
            self.status.shown.rehearsed(self.store.list().await.unwrap_or_default());
        }
        Ok(())
    }

    /// Lets the pipeline know, and says so whenever that changes.
    async fn note_pause(&mut self, pipeline: &mut Pipeline, now: Timestamp) {
        let Some(hands) = &self.hands else { return };
        let pause = hands.pause.borrow().clone();
        pipeline.pause(pause.clone());
        if matches!(&pause, Pause::Unknown { why } if why.ends_with(kubernetes::NOT_YET)) {
            return;
        }
        let known = std::mem::replace(&mut self.pause, pause.clone());
        let unknown = |pause: &Pause| matches!(pause, Pause::Unknown { .. });
        if known == pause || (unknown(&known) && unknown(&pause)) {
            return;
        }
        let event = if pause.is_off() { Event::Resumed } else { Event::Paused };
        let what = if pause.is_off() { "" } else { ": nothing is begun, and what is out stays as it is" };
        let message = format!("{pause}{what}");
        tracing::warn!("{message}");
        self.sink.note(Record::new(now, event, message)).await;
    }

    /// Says what is watched, whenever that changes.
    fn note_mesh(&mut self, pipeline: &Pipeline) {
        let history = pipeline.history();
        let mesh = (history.services(), history.zones().len());
        if mesh != self.mesh && mesh.1 > 0 {
            self.mesh = mesh;
            let zones = history.zones().iter().map(Zone::as_str).collect::<Vec<_>>().join(", ");
            tracing::info!("watching {} services in {} zones: {zones}", mesh.0, mesh.1);
        }
    }

    fn report_usage(&self) {
        let usage = self.observer.usage();
        self.status.metrics.usage(usage.queries, usage.failed_queries, usage.response_bytes);
    }
}
