//! The status page: what it says in each state, and that it says no more, whatever labels hold.
//!
//! `make page` writes the page of each state into a folder, to be looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use zoneward::domain::isolation::{Granularity, Receipt, Share, StepName};
use zoneward::domain::overview::{Compared, DaemonState, Entry, Overview, ServiceState, Standing, State};
use zoneward::domain::{
    CycleLength, Event, Gap, Mode, Pause, Period, Record, ServiceId, Signal, Snapshot, StepState, Zone,
};
use zoneward::isolate::{Executor, MemoryStore};
use zoneward::pipeline::{self, Pipeline, Surroundings};
use zoneward::ports::{IsolationStep, Observer, StepError};
use zoneward::report::status;
use zoneward::sim::{self, Scenario, World, WorldObserver};

use crate::executor::Records;
use crate::support::{Process, eventually, root};

/// A zone of which a third fails from the third minute to the sixth, and that can be probed.
const STORY: &str = "
title: a page
zones: [cn-hangzhou-h, cn-hangzhou-i, cn-hangzhou-k]
services:
  - {name: frontend, errors: 0.05%, median_ms: 20}
  - {name: checkout, errors: 0.1%, median_ms: 8}
  - {name: payments, errors: 0.1%, median_ms: 5}
  - {name: ledger, errors: 0.02%, median_ms: 3}
requests_per_second: 45
history: 20m
duration: 60m
probes: true
faults:
  - {at: 3m, until: 6m, zones: [cn-hangzhou-i], services: [payments, ledger], errors: 30%}
expect: {users_succeed: 0%}
";
const SICK: &str = "cn-hangzhou-i";

struct Stage {
    world: Arc<Mutex<World>>,
    observer: WorldObserver,
    pipeline: Pipeline,
    executor: Executor,
    records: Arc<Records>,
    now: Timestamp,
}

impl Stage {
    /// In health, with a history behind it.
    async fn new(break_step: Option<&'static str>) -> Self {
        let start: Timestamp = "2026-11-26T03:00:00Z".parse().unwrap();
        let scenario = Scenario::parse(STORY).unwrap();
        let world = World::new(scenario, start, 1);
        let (born, now) = (world.now(), world.story_start());
        let world = Arc::new(Mutex::new(world));
        let mut settings = pipeline::Settings { mode: Mode::Enforce, ..pipeline::Settings::default() };
        settings.guard.cool_down = Period::from_mins(15);
        let cycle = CycleLength::at_least(settings.detect.cycle);
        let (store, records) = (Arc::new(MemoryStore::default()), Arc::new(Records::default()));
        let sabotage = |step: Arc<dyn IsolationStep>| -> Arc<dyn IsolationStep> {
            if Some(step.name().as_str()) == break_step { Arc::new(Broken(step)) } else { step }
        };
        let steps = sim::steps(&world).into_iter().map(sabotage).collect();
        let mut stage = Self {
            observer: WorldObserver::new(Arc::clone(&world), cycle),
            pipeline: Pipeline::new(settings, cycle, store.clone(), records.clone()),
            executor: Executor::trusting(steps, store, records.clone()),
            now,
            world,
            records,
        };
        for snapshot in stage.observer.observe(born, stage.now).await.unwrap() {
            stage.pipeline.learn(&snapshot);
        }
        stage
    }

    /// One cycle, in which the daemon sees the mesh, or does not.
    async fn cycle(&mut self, lost: Option<&Gap>) {
        for _ in 0..15 {
            self.now += SignedDuration::from_secs(1);
            self.world.lock().unwrap().run_until(self.now);
            self.executor.run_until_idle(self.now).await.unwrap();
        }
        let seen = self.observer.observe(self.now, self.now).await.unwrap();
        let mut snapshot = lost.map_or_else(|| seen[0].clone(), |gap| Snapshot::unobserved(self.now, gap.clone()));
        snapshot.cluster.clone_from(&seen[0].cluster);
        self.pipeline.tick(&mut self.observer, &snapshot, self.now).await.unwrap();
        self.executor.run_until_idle(self.now).await.unwrap();
    }

    async fn until(&mut self, what: &str, mut reached: impl FnMut(&[Record]) -> bool) {
        for _ in 0..200 {
            self.cycle(None).await;
            if reached(&self.records.kept()) {
                return;
            }
        }
        panic!("{what}: {:#?}", self.records.kept().iter().map(|r| &r.message).collect::<Vec<_>>());
    }

    async fn until_event(&mut self, event: Event) {
        self.until(event.as_str(), |records| records.iter().any(|record| record.event == event)).await;
    }

    fn overview(&self) -> Overview {
        self.overview_in(Mode::Enforce)
    }

    /// As it would be told of the same cycles in another mode.
    fn overview_in(&self, mode: Mode) -> Overview {
        let scene = self.pipeline.scene().unwrap();
        let isolations = self.executor.active().to_vec();
        let records = self.records.kept().iter().rev().map(Entry::of).collect();
        let mut around = Surroundings { isolations, records, ..surroundings() };
        around.daemon.mode = mode;
        pipeline::overview(Some(&scene), around, self.now + SignedDuration::from_secs(4))
    }
}

fn surroundings() -> Surroundings {
    let daemon = DaemonState {
        zoneward: env!("CARGO_PKG_VERSION").to_owned(),
        mode: Mode::Enforce,
        replica: Some("zoneward-7d9c6b5f4-x2x8k-0b7e91c3".to_owned()),
        leads: true,
        ..DaemonState::default()
    };
    Surroundings { daemon, url: "http://prometheus.monitoring:9090".to_owned(), cycle_s: 15, ..Surroundings::default() }
}

/// Fails for good whenever it is applied.
struct Broken(Arc<dyn IsolationStep>);

#[async_trait]
impl IsolationStep for Broken {
    fn name(&self) -> StepName {
        self.0.name()
    }

    fn granularity(&self) -> Granularity {
        self.0.granularity()
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        self.0.capture(zone).await
    }

    async fn apply(&self, _: &Zone, _: &Receipt, _: Share) -> Result<(), StepError> {
        Err(StepError::Permanent {
            why: "the name server refuses the update (NOTAUTH): does its key have the right?".into(),
        })
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.0.confirm(zone, receipt, share).await
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        self.0.marked().await
    }
}

/// The page as one reads it; and in a file, for those who look at it.
fn read(name: &str, overview: &Overview) -> String {
    let html = status::html(overview, "");
    if let Some(folder) = std::env::var_os("ZONEWARD_PAGES") {
        let folder = root().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.html")), &html).unwrap();
        std::fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(overview).unwrap()).unwrap();
    }
    assert!(!html.contains("NaN"), "{name}");
    as_text(&html)
}

fn as_text(html: &str) -> String {
    let tags = regex::Regex::new("(?s)<(style|script)>.*?</(style|script)>|<[^>]*>").unwrap();
    let text = tags.replace_all(html, " ");
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn says(text: &str, all: &[&str]) {
    for part in all {
        assert!(text.contains(part), "missing: {part}\n{text}");
    }
}

fn state_of(overview: &Overview, zone: &str) -> State {
    overview.zones.iter().find(|it| it.zone.as_str() == zone).unwrap().state
}

#[tokio::test]
async fn each_state_is_said_first_and_then_why() {
    let nothing = pipeline::overview(None, surroundings(), "2026-11-26T03:00:00Z".parse().unwrap());
    says(&read("1-empty", &nothing), &["Nothing has been judged yet", "No zone is known yet", "none yet", "enforce"]);

    let mut stage = Stage::new(None).await;
    for _ in 0..8 {
        stage.cycle(None).await;
    }
    let healthy = stage.overview();
    let text = read("2-healthy", &healthy);
    says(
        &text,
        &["All 3 zones are healthy", "this replica leads", "paused no", "like its peers, and like its own past"],
    );
    says(
        &text,
        &["last look at Prometheus 4 s ago", "There is none: no zone is worse than its peers", "No zone is isolated"],
    );
    says(&text, &["None of them stands out in any zone", "All 4 services", "2 healthy would be left, and 1 must"]);
    says(&text, &["4 s old, and up to 1m will do", "0 of 3 of this zone in 24 h", "up to 2.5 times will do"]);
    assert!(healthy.zones.iter().all(|zone| zone.by_hand.admitted && !zone.by_itself.admitted), "{:?}", healthy.zones);

    stage.until_event(Event::Suspect).await;
    let suspect = stage.overview();
    let text = read("3-suspect", &suspect);
    says(&text, &["Not isolated, as it has been seen for", "must last", "▲ worse"]);
    says(&text, &["percentage points more than expected", "default/ledger", "like its peers, and like its own past"]);
    assert_eq!(suspect.headline.state, State::Suspect);
    assert!(
        suspect.headline.text.starts_with(SICK) && suspect.headline.text.contains("suspect"),
        "{:?}",
        suspect.headline
    );
    assert_eq!(suspect.services[0].worst(), Compared::Worse, "what stands out comes first");

    stage.until_event(Event::Effective).await;
    let isolated = stage.overview();
    let text = read("4-isolated", &isolated);
    says(
        &text,
        &["cn-hangzhou-i is isolated", "confirmed: read back", "zoneward's own judgement", "expires", "shown after"],
    );
    says(&text, &["another zone isolated ✕ holds cn-hangzhou-i is out already, and at most 1 may be"]);
    let rehearsed = serde_json::to_string(&stage.overview_in(Mode::Observe).zones).unwrap();
    assert!(
        rehearsed.contains("cn-hangzhou-i would be out already") && rehearsed.contains("it would be isolated already")
    );

    let gap = Gap::QueryFailed { why: "http://prometheus.monitoring:9090 can't be reached: connection refused".into() };
    for _ in 0..4 {
        stage.cycle(Some(&gap)).await;
    }
    let lost = stage.overview();
    let text = read("6-prometheus-lost", &lost);
    says(
        &text,
        &["cn-hangzhou-i is isolated; nothing can be judged since 03:", "connection refused", "nothing is decided"],
    );
    says(&text, &["last look at Prometheus 1 min 4 s ago", "Nothing is known of any of them now"]);
    says(&text, &["When it was last judged, at 03:", "it was like its peers", "--override stale-data would do"]);
    assert_eq!(state_of(&lost, "cn-hangzhou-h"), State::Unknown, "no data is neither healthy nor sick");
    assert!(
        lost.services
            .iter()
            .flat_map(|it| it.zones.values())
            .all(|it| it.compared >= Compared::Unknown || it.compared == Compared::NoTraffic)
    );

    stage.until("a trial", |records| records.iter().filter(|r| r.event == Event::Recovering).count() >= 3).await;
    says(&read("7-coming-back", &stage.overview()), &["cn-hangzhou-i is coming back", "on trial", "way back"]);

    stage.until_event(Event::Restored).await;
    stage.cycle(None).await;
    says(&read("8-given-back", &stage.overview()), &["All 3 zones are healthy", "1 past isolation", "cooling down"]);
}

#[tokio::test]
async fn a_step_that_is_stuck_is_the_first_thing_said() {
    let mut stage = Stage::new(Some("dns")).await;
    let stuck = |record: &Record| record.step.as_ref().is_some_and(|step| step.state == StepState::Stuck);
    stage.until("a stuck step", |records| records.iter().any(stuck)).await;
    stage.cycle(None).await;
    let stuck = stage.overview();
    let text = read("5-stuck", &stuck);
    says(&text, &["cn-hangzhou-i has a step that is stuck: a person has to look", "dns", "(NOTAUTH)", "again at"]);
    assert_eq!((stuck.headline.state, state_of(&stuck, SICK)), (State::Stuck, State::Stuck));

    let mut follower = stage.overview();
    follower.daemon.leads = false;
    follower.daemon.leader = Some("zoneward-7d9c6b5f4-q9w2m-77aa01b2".to_owned());
    follower.daemon.paused =
        zoneward::domain::overview::paused(&Pause::On { since: stage.now, until: None, why: "release".to_owned() });
    let text = read("9-follower-paused", &follower);
    says(&text, &["This replica is a follower", "zoneward-7d9c6b5f4-q9w2m-77aa01b2 leads", "zoneward is paused since"]);
}

/// What a running daemon serves, and that it takes nothing.
pub fn is_served(daemon: &Process, zone: &str) {
    let (status, head, page) = ask(daemon.address, "GET", "/");
    assert!(status == 200 && head.contains("content-type: text/html; charset=utf-8"), "{head}");
    let inline = |tag: &str| {
        let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
        let text = rest.split_once(&format!("</{tag}>")).unwrap().0;
        format!("{tag}-src 'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
    };
    let policy = head.lines().find(|line| line.starts_with("content-security-policy: default-src 'none'; ")).unwrap();
    for part in [&inline("style"), &inline("script"), "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !head.contains("set-cookie") && head.contains("cache-control: no-store"),
        "{head}"
    );
    // Between the two looks a cycle may end.
    eventually("page and JSON agree", Duration::from_secs(20), || {
        let (_, _, page) = ask(daemon.address, "GET", "/");
        let (_, head, json) = ask(daemon.address, "GET", "/status.json");
        assert!(head.contains("content-type: application/json"), "{head}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let text = as_text(&page);
        let all = |list: &str, key: &str| {
            let items = json[list].as_array().unwrap();
            items.iter().all(|item| item[key].as_str().is_some_and(|said| text.contains(said)))
        };
        assert_eq!(json["version"], 1);
        let zones = json["zones"].as_array().unwrap();
        (text.contains(json["headline"]["text"].as_str().unwrap())
            && text.contains(&format!("{zone} would be isolated"))
            && zones.iter().any(|it| it["zone"] == zone && it["state"] == "isolated")
            && all("zones", "why")
            && all("isolations", "reason")
            && all("records", "message"))
        .then_some(())
    });
    let (status, head, body) = ask(daemon.address, "HEAD", "/");
    assert!(status == 200 && body.is_empty(), "{head}");
    for (method, path) in [("POST", "/"), ("PUT", "/status.json"), ("DELETE", "/"), ("PATCH", "/")] {
        assert_eq!(ask(daemon.address, method, path).0, 405, "{method} {path}");
    }
    for strange in ["/?service=%3Cscript%3E", "/?service=a&service=b", "/?service=%ff%00", "/?x"] {
        let (status, _, page) = ask(daemon.address, "GET", strange);
        assert!(status == 200 && !page.contains("value=\"<"), "{strange}");
    }
}

/// The status, the head in small letters, and the body.
fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: zoneward\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let names = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_lowercase()),
        None => format!("{line}\n"),
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.lines().map(names).collect(), body.to_owned())
}

/// Three zones and five hundred services, one of which fails in one zone.
fn large(services: usize, name: impl Fn(usize) -> ServiceId, zones: &[Zone]) -> Overview {
    let now: Timestamp = "2026-11-26T03:00:00Z".parse().unwrap();
    let mut overview = pipeline::overview(None, surroundings(), now);
    let standing = |nth: usize, at: usize| {
        let worse = nth < 12 && at == 1;
        Standing {
            compared: if worse {
                Compared::Worse
            } else if nth % 31 == 7 {
                Compared::NoTraffic
            } else {
                Compared::Alike
            },
            requests_per_second: 3.7 * (nth % 97) as f64,
            failed: Some(if worse { 0.21 } else { 0.001 }),
            signal: worse.then_some(Signal::ServerErrors),
            nats: if worse { 80.0 } else { 0.0 },
            seen: 0.21,
            expected: 0.003,
        }
    };
    let row = |nth: usize| ServiceState {
        service: name(nth),
        zones: zones.iter().enumerate().map(|(at, zone)| (zone.clone(), standing(nth, at))).collect::<BTreeMap<_, _>>(),
    };
    overview.services = (0..services).map(row).collect();
    overview
}

#[tokio::test]
async fn with_five_hundred_services_it_stays_small_and_what_is_sick_comes_first() {
    let mut stage = Stage::new(None).await;
    stage.until_event(Event::Suspect).await;
    let mut overview = stage.overview();
    let zones: Vec<Zone> = overview.zones.iter().map(|zone| zone.zone.clone()).collect();
    let name =
        |nth: usize| ServiceId::new(format!("team-{:02}", nth % 23), format!("service-with-a-long-name-{nth:03}"));
    overview.services = large(500, name, &zones).services;
    overview.prometheus.services = 500;
    let entry = overview.records[0].clone();
    overview.records = vec![Entry { message: "x".repeat(2_000), ..entry }; 200];
    read("10-500-services", &overview);
    let html = status::html(&overview, "");
    assert!(html.len() < 1_500_000, "{} bytes", html.len());
    let (sick, well) =
        (html.find("service-with-a-long-name-003").unwrap(), html.find("service-with-a-long-name-400").unwrap());
    assert!(sick < html.find("all-services").unwrap() && sick < well);
    assert!(html.contains("<details id=\"all-services\">"), "the healthy ones are folded");

    let html = status::html(&overview, " NAME-40");
    let text = as_text(&html);
    says(&text, &["10 of 500 services fit", "service-with-a-long-name-407"]);
    assert!(!text.contains("service-with-a-long-name-003") && html.contains("<details id=\"all-services\" open>"));
}

#[test]
fn names_from_labels_are_text_and_nothing_else() {
    let hostile = "\"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>\u{1b}[31m\u{202e}";
    let zones = [Zone::new(hostile), Zone::new(format!("b{hostile}"))];
    let mut overview = large(20, |nth| ServiceId::new(hostile, format!("{nth}{hostile}{}", "y".repeat(9_000))), &zones);
    overview.headline.text = hostile.to_owned();
    overview.daemon.leader = Some(hostile.to_owned());
    overview.daemon.trouble = Some(hostile.to_owned());
    overview.prometheus.gaps = vec![hostile.to_owned()];
    let html = status::html(&overview, hostile);
    let document = html.replace(&status::style(), "").replace(status::script(), "");
    assert_eq!(document.matches("<script").count(), 1, "the page's own");
    for forbidden in ["<img", "src=", "\u{1b}", "\u{202e}", "http://", "https://", "url(", "style=", "@import"] {
        let known = document.replace(&hostile.replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"), "");
        let known = known.replace("http://prometheus.monitoring:9090", "");
        let escaped = ["src=", "http://"].contains(&forbidden);
        assert!(escaped || !known.contains(forbidden), "{forbidden}");
    }
    assert!(html.len() < 300_000, "a name is cut: {} bytes", html.len());
    assert!(document.contains("&lt;script&gt;alert(1)"));
    for own in [status::style(), status::script().to_owned()] {
        assert!(!own.contains("//") || !own.contains("http"), "nothing from elsewhere");
    }
}
