//! zoneward alone in a process: the real observer and pipeline, from start over refill to so many cycles, and what they take.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zoneward::detect;
use zoneward::domain::{CycleLength, Mode, Record};
use zoneward::isolate::MemoryStore;
use zoneward::observe::{PrometheusObserver, Recall};
use zoneward::pipeline::{self, Pipeline};
use zoneward::ports::{AuditError, AuditSink, Observer};
use zoneward::settings::Settings;

use crate::process;

#[derive(Debug, Clone, clap::Args)]
pub struct Stretch {
    #[arg(long)]
    pub url: String,
    /// The first cycle that is decided on
    #[arg(long)]
    pub from: Timestamp,
    #[arg(long, default_value_t = 8)]
    pub cycles: i32,
    /// Minutes that are read before
    #[arg(long, default_value_t = 120)]
    pub history_mins: i64,
}

/// What it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Took {
    pub services: usize,
    pub judged: usize,
    pub first_decision_s: f64,
    pub first_decision_cpu_s: f64,
    pub cycle_cpu_s: f64,
    pub cycle_wall_s: f64,
    pub cycle_bytes: f64,
    pub cycle_queries: f64,
    pub after_refill_mib: f64,
    pub steady_mib: f64,
    pub peak_mib: f64,
}

/// The journal of a measurement.
struct Nowhere;

#[async_trait]
impl AuditSink for Nowhere {
    async fn append(&self, _record: Record) -> Result<(), AuditError> {
        Ok(())
    }
}

pub fn settings(url: &str) -> Settings {
    let url = [("ZONEWARD_PROMETHEUS__URL".to_owned(), url.to_owned())];
    Settings::load(Some(Path::new("config/default.yaml")), BTreeMap::from(url)).unwrap()
}

pub fn pipeline_of(settings: &Settings, cycle: CycleLength) -> Pipeline {
    let rehearsal = pipeline::Settings { mode: Mode::Observe, ..settings.pipeline() };
    Pipeline::new(rehearsal, cycle, Arc::new(MemoryStore::default()), Arc::new(Nowhere))
}

pub async fn watch(stretch: &Stretch) {
    let (began, me) = (Instant::now(), std::process::id());
    let settings = settings(&stretch.url);
    let cycle = CycleLength::at_least(settings.detect.cycle);
    let mut observer = PrometheusObserver::new(settings.prometheus.clone(), cycle).unwrap();
    observer.fit_to_scrapes(stretch.from).await.unwrap();
    let mut pipeline = pipeline_of(&settings, cycle);
    let before = stretch.from - jiff::SignedDuration::from_mins(stretch.history_mins);
    let recall = Recall { exact_cycles: detect::REMEMBERED as i32, merged_cycles: detect::BLOCK as i32 };
    observer
        .recall((before, stretch.from - cycle.signed()), recall, |snapshot, cycles| {
            pipeline.learn_alike(snapshot, cycles);
        })
        .await
        .unwrap();
    let after_refill_mib = process::memory_mib(me).0;
    one(&mut pipeline, &mut observer, stretch.from).await;
    let first_decision_s = began.elapsed().as_secs_f64();
    say("ready");
    let (cpu, wall, usage) = (process::cpu_s(me), Instant::now(), observer.usage());
    for nth in 1..=stretch.cycles {
        one(&mut pipeline, &mut observer, stretch.from + cycle.signed() * nth).await;
    }
    let each = |all: f64| all / f64::from(stretch.cycles);
    let (steady_mib, peak_mib) = process::memory_mib(me);
    let took = Took {
        services: pipeline.history().services(),
        judged: pipeline.sight().map_or(0, |sight| {
            sight.assessment.zones.values().filter(|finding| format!("{:?}", finding.verdict) == "Healthy").count()
        }),
        first_decision_s,
        first_decision_cpu_s: cpu,
        cycle_cpu_s: each(process::cpu_s(me) - cpu),
        cycle_wall_s: each(wall.elapsed().as_secs_f64()),
        cycle_bytes: each((observer.usage().response_bytes - usage.response_bytes) as f64),
        cycle_queries: each((observer.usage().queries - usage.queries) as f64),
        after_refill_mib,
        steady_mib,
        peak_mib,
    };
    say(&serde_json::to_string(&took).unwrap());
}

async fn one(pipeline: &mut Pipeline, observer: &mut PrometheusObserver, at: Timestamp) {
    for snapshot in observer.observe(at, at).await.unwrap() {
        pipeline.tick(observer, &snapshot, at).await.unwrap();
    }
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}
