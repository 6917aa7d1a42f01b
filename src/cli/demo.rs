//! `zoneward demo`: the whole loop on the embedded world, from onset to return.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::render::{self, LiveView};
use super::{Outcome, Output};
use crate::audit::{self, Journal};
use crate::detect;
use crate::domain::{CycleLength, Event, Isolation, Mode, Period, Record};
use crate::isolate::{Executor, MemoryStore};
use crate::pipeline::{self, Pipeline};
use crate::ports::{AuditError, AuditSink, IsolationStore, Observer};
use crate::sim::{self, Scenario, World, WorldObserver};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Another story, such as one of config/scenarios [default: a gray failure in the seed article's mesh]
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Simulated seconds a second, such as 20x, or max [default: 21x; with --export 1x]
    #[arg(long)]
    speed: Option<Speed>,
    /// Equal seeds give equal stories
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Instead of judging it, export the mesh's metrics there, for a real Prometheus to scrape
    #[arg(long, value_name = "ADDRESS", conflicts_with = "journal")]
    export: Option<SocketAddr>,
    /// Also keep an audit journal there, as the daemon does, for `zoneward audit --from DIR`
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let times = text.strip_suffix('x').and_then(|n| n.parse().ok()).filter(|n: &f64| (0.1..=1000.0).contains(n));
        match (text, times) {
            ("max", _) => Ok(Self::Max),
            (_, Some(times)) => Ok(Self::Times(times)),
            (_, None) => Err(format!("`{text}` is not a speed: write one between 0.1x and 1000x, or max")),
        }
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let scenario = match &arguments.scenario {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
            Scenario::parse(&text).with_context(|| path.display().to_string())?
        }
        None => Scenario::article()?,
    };
    match arguments.export {
        Some(address) => export(scenario, &arguments, address).await,
        None => Story::new(scenario, &arguments)?.tell().await,
    }
}

/// A story being told.
struct Story {
    world: Arc<Mutex<World>>,
    observer: WorldObserver,
    pipeline: Pipeline,
    store: Arc<MemoryStore>,
    executor: Executor,
    narrator: Arc<Narrator>,
    speed: Speed,
    seed: u64,
    worst_while_isolated: Option<f64>,
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Story {
    fn new(scenario: Scenario, arguments: &Arguments) -> anyhow::Result<Self> {
        // A fixed day, so that equal seeds print equal lines.
        let start: Timestamp = "2026-01-01T00:00:00Z".parse()?;
        let mut settings = pipeline::Settings { mode: Mode::Enforce, ..pipeline::Settings::default() };
        settings.decide.expires_after = scenario.isolation_expires_after;
        let cycle = cycle(&settings.detect, &scenario);
        let journal =
            arguments.journal.clone().map(|directory| audit::Settings { directory, ..audit::Settings::default() });
        let journal = journal.map(|settings| Journal::start(&settings)).transpose()?;
        let narrator = Arc::new(Narrator::new(arguments.output, start, journal));
        let store = Arc::new(MemoryStore::default());
        let world = Arc::new(Mutex::new(World::new(scenario, start, arguments.seed)));
        Ok(Self {
            observer: WorldObserver::new(Arc::clone(&world), cycle),
            pipeline: Pipeline::new(settings, cycle, store.clone(), narrator.clone()),
            executor: Executor::trusting(sim::steps(&world), store.clone(), narrator.clone()),
            world,
            store,
            narrator,
            speed: arguments.speed.unwrap_or(Speed::Times(21.0)),
            seed: arguments.seed,
            worst_while_isolated: None,
        })
    }

    async fn tell(mut self) -> anyhow::Result<Outcome> {
        let (scenario, start) = {
            let world = lock(&self.world);
            (world.scenario().clone(), world.story_start())
        };
        let cycle = self.pipeline.history().cycle();
        self.narrator.open(&scenario);
        for snapshot in self.observer.observe(lock_now(&self.world), start).await? {
            self.pipeline.learn(&snapshot);
        }
        let end = start + scenario.duration.signed();
        let mut now = start;
        while now < end {
            now += SignedDuration::from_secs(1);
            lock(&self.world).run_until(now);
            self.announce(&scenario, now).await?;
            if cycle.at_or_before(now) == now {
                for snapshot in self.observer.observe(now, now).await? {
                    self.pipeline.tick(&mut self.observer, &snapshot, now).await?;
                }
            }
            self.executor.run_until_idle(now).await?;
            self.note_users(now);
            self.pace(now).await;
        }
        self.close(&scenario, now).await
    }

    /// What the world does is said by the world.
    async fn announce(&self, scenario: &Scenario, now: Timestamp) -> Result<(), AuditError> {
        let story_time = now.duration_since(lock(&self.world).story_start());
        for fault in &scenario.faults {
            let (event, prefix) = match story_time {
                time if time == fault.at.signed() => (Event::Fault, "the world breaks: "),
                time if time == fault.until.signed() => (Event::Repair, "the world mends: no longer "),
                _ => continue,
            };
            let mut record = Record::new(now, event, format!("{prefix}{}", fault.describe()));
            record.zone = if fault.zones.len() == 1 { fault.zones.first().cloned() } else { None };
            self.narrator.append(record).await?;
        }
        Ok(())
    }

    fn note_users(&mut self, now: Timestamp) {
        let records = self.narrator.records();
        let at = |event: Event| records.iter().find(|r| r.event == event).map(|r| r.time);
        let helped = at(Event::Effective).is_some_and(|effective| now.duration_since(effective) >= MINUTE);
        if helped && at(Event::Repair).is_none() {
            let ratio = lock(&self.world).users().success_ratio();
            self.worst_while_isolated = Some(self.worst_while_isolated.map_or(ratio, |worst| worst.min(ratio)));
        }
    }

    async fn pace(&self, now: Timestamp) {
        if let Speed::Times(times) = self.speed {
            let (users, sights) = {
                let world = lock(&self.world);
                (world.users(), world.sights(10))
            };
            let isolated: Vec<_> = self
                .store
                .list()
                .await
                .unwrap_or_default()
                .into_iter()
                .filter(Isolation::active)
                .map(|i| i.spec.zone)
                .collect();
            self.narrator.view(now, users.success_ratio(), &sights, &isolated);
            tokio::time::sleep(Duration::from_secs_f64(1.0 / times)).await;
        }
    }

    async fn close(&self, scenario: &Scenario, now: Timestamp) -> anyhow::Result<Outcome> {
        let records = self.narrator.records();
        let (at_end, clean) = {
            let world = lock(&self.world);
            (world.users().success_ratio(), world.clean())
        };
        let users = UsersSucceed { at_end, while_isolated: self.worst_while_isolated };
        let first_fault = records.iter().find(|r| r.event == Event::Fault).map(|r| r.time);
        let isolations: Vec<&Record> = records.iter().filter(|r| r.event == Event::Isolate).collect();
        let delay_s = first_fault.zip(isolations.first()).map(|(fault, r)| r.time.duration_since(fault).as_secs());
        let unmet = unmet(scenario, &records, users, clean);
        let verdict =
            if unmet.is_empty() { "as expected".to_owned() } else { format!("NOT as expected: {}", unmet.join("; ")) };
        let message = format!(
            "{verdict}. {} isolation{}{}; {:.2} % of users' requests succeed at the end; {}; seed {}",
            isolations.len(),
            if isolations.len() == 1 { "" } else { "s" },
            delay_s.map_or_else(String::new, |s| format!(", the first {s} s after the fault began")),
            100.0 * at_end,
            if clean { "nothing is left changed" } else { "something is left changed" },
            self.seed
        );
        let summary = Record::new(now, Event::Summary, message)
            .figure("as_expected", unmet.is_empty())
            .figure("isolations", isolations.len())
            .figure("delay_s", delay_s)
            .figure("users_success_ratio", (at_end * 1e6).round() / 1e6)
            .figure("users_success_ratio_while_isolated", self.worst_while_isolated.map(|r| (r * 1e6).round() / 1e6))
            .figure("clean", clean)
            .figure("seed", self.seed);
        self.narrator.append(summary).await?;
        Ok(if unmet.is_empty() { Outcome::Done } else { Outcome::Found })
    }
}

fn lock_now(world: &Mutex<World>) -> Timestamp {
    lock(world).now()
}

fn cycle(settings: &detect::Settings, scenario: &Scenario) -> CycleLength {
    CycleLength::at_least(settings.cycle.max(scenario.scrape_interval))
}

/// The share of users' requests that succeed, over a minute each.
#[derive(Debug, Clone, Copy)]
struct UsersSucceed {
    at_end: f64,
    /// The worst minute from one minute after the isolation showed until the fault was mended.
    while_isolated: Option<f64>,
}

/// What of the scenario's expectations did not come true.
fn unmet(scenario: &Scenario, records: &[Record], users: UsersSucceed, clean: bool) -> Vec<String> {
    let expect = &scenario.expect;
    let mut unmet = Vec::new();
    let isolated: Vec<&Record> = records.iter().filter(|r| r.event == Event::Isolate).collect();
    match &expect.isolate {
        None => {
            unmet.extend(isolated.iter().filter_map(|r| r.zone.as_ref()).map(|zone| format!("{zone} was isolated")));
        }
        Some(zone) => {
            let others = isolated.iter().filter_map(|r| r.zone.as_ref()).filter(|other| *other != zone);
            unmet.extend(others.map(|other| format!("{other} was isolated instead of {zone}")));
            let fault = records.iter().find(|r| r.event == Event::Fault).map(|r| r.time);
            let delays: Vec<SignedDuration> = isolated
                .iter()
                .filter(|r| r.zone.as_ref() == Some(zone))
                .filter_map(|r| fault.map(|fault| r.time.duration_since(fault)))
                .collect();
            let within = expect.within.map_or(SignedDuration::MAX, Period::signed);
            match delays[..] {
                [] => unmet.push(format!("{zone} was not isolated")),
                [delay] if delay.is_negative() => unmet.push(format!("{zone} was isolated before anything was wrong")),
                [delay] if delay > within => {
                    unmet.push(format!("{zone} was isolated after {} s only", delay.as_secs()));
                }
                [_] => {}
                _ => unmet.push(format!("{zone} was isolated {} times", delays.len())),
            }
            for event in [Event::Isolated, Event::Effective, Event::Restored] {
                if !records.iter().any(|r| r.event == event && r.zone.as_ref() == Some(zone)) {
                    unmet.push(format!("there was no `{event}`"));
                }
            }
        }
    }
    if let Some(reason) = &expect.held_by
        && !records.iter().any(|r| r.reason.as_ref().is_some_and(|held| held.as_str() == reason))
    {
        unmet.push(format!("nothing was held back by {reason}"));
    }
    for (when, ratio) in [("at the end", Some(users.at_end)), ("while it is isolated", users.while_isolated)] {
        if let Some(ratio) = ratio.filter(|ratio| *ratio < expect.users_succeed.as_fraction()) {
            unmet.push(format!("only {:.2} % of users' requests succeed {when}", 100.0 * ratio));
        }
    }
    if !clean {
        unmet.push("something is left changed".to_owned());
    }
    unmet
}

/// Tells people, or prints lines of JSON; keeps every record for the summary.
struct Narrator {
    output: Output,
    start: Timestamp,
    records: Mutex<Vec<Record>>,
    live: Mutex<LiveView>,
    journal: Option<Journal>,
}

impl Narrator {
    fn new(output: Output, start: Timestamp, journal: Option<Journal>) -> Self {
        Self { output, start, records: Mutex::default(), live: Mutex::default(), journal }
    }

    fn open(&self, scenario: &Scenario) {
        if self.output == Output::Table {
            let names: Vec<&str> = scenario.services.iter().map(|s| s.name.as_str()).collect();
            render::line(&format!("{}\n", scenario.title));
            render::line(&format!(
                "{} in {} zones, {} requests/s, {} of healthy history. Times count from the story's start.\n",
                names.join(" -> "),
                scenario.zones.len(),
                scenario.requests_per_second,
                scenario.history
            ));
        }
    }

    fn view(&self, now: Timestamp, users: f64, sights: &[sim::ZoneSight], isolated: &[crate::domain::Zone]) {
        if self.output == Output::Table {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.draw(&render::world(now.duration_since(self.start), users, sights, isolated));
        }
    }

    fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl AuditSink for Narrator {
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        match self.output {
            Output::Json => render::json(&record).map_err(std::io::Error::other)?,
            Output::Table => {
                let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
                live.say(&render::story_line(record.time.duration_since(self.start), &record));
            }
        }
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        match &self.journal {
            Some(journal) => journal.append(record).await,
            None => Ok(()),
        }
    }

    fn keeps_inputs(&self) -> bool {
        self.journal.is_some()
    }

    async fn keep_inputs(&self, time: Timestamp, file: Vec<u8>) -> Option<String> {
        match &self.journal {
            Some(journal) => journal.keep_inputs(time, file).await,
            None => None,
        }
    }
}

/// Lets the world live in real time, and serves what its proxies export.
async fn export(scenario: Scenario, arguments: &Arguments, address: SocketAddr) -> anyhow::Result<Outcome> {
    let times = match arguments.speed {
        None => 1.0,
        Some(Speed::Times(times)) => times,
        Some(Speed::Max) => anyhow::bail!("--export lives in real time: give --speed as a factor"),
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("--export {address}"))?;
    let history = scenario.history.signed();
    let began = super::now();
    let world = Arc::new(Mutex::new(World::new(scenario, began + history, arguments.seed)));
    let first = lock(&world).scenario().faults.iter().map(|fault| fault.at.signed()).min();
    let faults = first.map_or_else(
        || "nothing will go wrong".to_owned(),
        |at| {
            format!("the first fault is {} from now", Period::from_secs(((history + at).as_secs_f64() / times) as i64))
        },
    );
    let address = listener.local_addr()?;
    render::note(&format!(
        "exporting on http://{address}: scrape it with http_sd_configs: [{{url: http://{address}/targets}}]; {faults}"
    ));
    let stop = CancellationToken::new();
    let server = tokio::spawn(sim::export(listener, Arc::clone(&world), stop.clone()));
    let mut second = tokio::time::interval(Duration::from_millis(200));
    let shutdown = super::shutdown();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            _ = second.tick() => {
                let lived_s = super::now().duration_since(began).as_secs_f64() * times;
                lock(&world).run_until(began + SignedDuration::from_secs(lived_s as i64));
            }
            () = &mut shutdown => break,
        }
    }
    stop.cancel();
    server.await??;
    Ok(Outcome::Done)
}
