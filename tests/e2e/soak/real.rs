//! On real parts: Prometheus scrapes each second, the daemon acts at the API server and the name server, and all but the last
//! are killed at random and come back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use zoneward::audit::{self, Source};
use zoneward::domain::{Record, StepState, Zone};

use super::account::{Account, Bounds, Entry, Outage, judge};
use super::growth::{self, Sample};
use super::plan::{self, Pace, Trouble};
use crate::bind::Bind;
use crate::cluster::Cluster;
use crate::scene::{self, Mesh, NAME};
use crate::support::{Process, eventually, free_address, prometheus_at, run, stderr, stdout, zoneward};

const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
/// One pod of three is no zone.
const REPLICAS: usize = 3;
const WORLD: &str = "services:\n\
    - {name: mocka, errors: 0.1%, median_ms: 4}\n\
    - {name: mockb, errors: 0.1%, median_ms: 5}\n\
    - {name: mockc, errors: 0.1%, median_ms: 6}\n\
    requests_per_second: 300\nhistory: 10s\nscrape_interval: 1s\nduration: 24h";
const PACE: Pace = Pace {
    first: 60,
    lasts: (60, 110),
    back: 75,
    harmless: (20, 40),
    blip: (2, 3),
    unseen: (10, 25),
    gap: (10, 25),
    blips: 2,
    roll_outs: 0,
};
/// All that takes minutes by default takes seconds.
const PACED: &str = "mode: enforce\ndetect: {cycle: 2s}\nservice: {shortest: 6s, longest: 12s, clear: 1m}\n\
    guard: {stale_after: 15s, cool_down: 1s, max_isolations_per_day: 1000, max_isolations_per_day_of_all: 1000}\n\
    isolate: {expires_after: 1m}\nrollback: {lasting: 15s}\n\
    recovery: {healthy_for: 10s, refill: 10s, shares: [30%, 60%, 100%], trial: 6s, longest_trial: 10s, back_off: 5s}\n\
    audit: {segment_size: 1MiB, keep_size: 64MiB}\n";
const BOUNDS: Bounds = Bounds { found: 40.0, back: 90.0, recovery: 15.0 };
/// A daemon that was killed holds its Lease for so long.
const LEASE_S: f64 = 20.0;

const SAMPLE_S: f64 = 15.0;
const LOOK_S: f64 = 2.0;
const PATIENCE: Duration = Duration::from_mins(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Prometheus,
    ApiServer,
    Daemon,
}

/// A part that goes, and comes back some seconds later.
#[derive(Debug, Clone, Copy)]
struct Restart {
    at: f64,
    part: Part,
    gone: f64,
    /// Killed, or asked to end.
    killed: bool,
}

pub fn soak(seconds: i64, seed: u64) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let troubles = plan::troubles(&mut rng, &PACE, &ZONES, seconds);
    assert!(!troubles.is_empty(), "too short for any fault: at least 4m");
    let restarts = restarts(&mut rng, seconds);
    let mut soak = Soak::set(&troubles);
    for (trouble, nth) in troubles.iter().zip(1..) {
        println!("{nth:>3}. {:>5} to {:>5} s: {}", trouble.at, trouble.until, trouble.title);
    }
    soak.live(seconds as f64, restarts);
    soak.settle();
    let mut problems = soak.close(&troubles);
    problems.splice(0..0, std::mem::take(&mut soak.problems));
    problems
}

/// Prometheus and the API server every few minutes, some times both; the daemon twice, early, so that the second half shows
/// whether it grows.
fn restarts(rng: &mut ChaCha8Rng, seconds: i64) -> Vec<Restart> {
    let mut all = Vec::new();
    let (mut at, end) = (40.0, seconds as f64 - 60.0);
    loop {
        at += rng.random_range(40.0..180.0);
        if at > end {
            break;
        }
        let parts: &[Part] = match rng.random_range(0..5) {
            0 | 1 => &[Part::Prometheus],
            2 | 3 => &[Part::ApiServer],
            _ => &[Part::Prometheus, Part::ApiServer],
        };
        for part in parts {
            let (gone, killed) = (rng.random_range(1.0..20.0), rng.random_bool(0.7));
            all.push(Restart { at, part: *part, gone, killed });
        }
    }
    for (share, killed) in [(0.2, true), (0.4, false)] {
        let at = seconds as f64 * rng.random_range(share - 0.1..share);
        all.push(Restart { at, part: Part::Daemon, gone: rng.random_range(0.0..5.0), killed });
    }
    all.sort_by(|a, b| b.at.total_cmp(&a.at));
    all
}

struct Soak {
    folder: PathBuf,
    cluster: Cluster,
    bind: Bind,
    _mesh: Mesh,
    scraped_at: SocketAddr,
    prometheus_address: SocketAddr,
    daemon_address: SocketAddr,
    prometheus: Option<Process>,
    daemon: Option<Process>,
    /// When the story began.
    start: Timestamp,
    before: Value,
    /// Parts that are gone: since when, and when they come back.
    gone: BTreeMap<Part, (f64, f64)>,
    outages: Vec<(Part, Outage)>,
    samples: Vec<Sample>,
    /// Processor seconds of daemons that have ended.
    spent_s: f64,
    looks: usize,
    clean_looks: usize,
    unanswered: usize,
    told: usize,
    problems: Vec<String>,
}

impl Soak {
    fn set(troubles: &[Trouble]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak");
        let _none = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let cluster = scene::cluster(&ZONES);
        cluster.apply(&scene::workloads(&ZONES, REPLICAS));
        let bind = scene::name_server(&ZONES);
        let scenario = folder.join("scenario.yaml");
        std::fs::write(&scenario, plan::scenario(troubles, &ZONES, WORLD)).unwrap();
        let scraped_at = free_address();
        let pods = ZONES.len() * (3 * REPLICAS + 1);
        let (mesh, fault) = Mesh::start(&scenario, scraped_at, (&cluster, &bind), &ZONES, pods);
        let (prometheus_address, daemon_address) = (free_address(), free_address());
        let config = format!(
            "{PACED}prometheus: {{url: 'http://{prometheus_address}', history: 5m}}\nkubernetes: {{namespace: zoneward}}\n{}",
            scene::dns_step(&bind, &ZONES)
        );
        std::fs::write(folder.join("config.yaml"), config).unwrap();
        let mut soak = Self {
            start: fault - SignedDuration::from_secs(troubles[0].at),
            before: scene::everything(&cluster).unwrap(),
            folder,
            cluster,
            bind,
            _mesh: mesh,
            scraped_at,
            prometheus_address,
            daemon_address,
            prometheus: None,
            daemon: None,
            gone: BTreeMap::new(),
            outages: Vec::new(),
            samples: Vec::new(),
            spent_s: 0.0,
            looks: 0,
            clean_looks: 0,
            unanswered: 0,
            told: 0,
            problems: Vec::new(),
        };
        soak.start(Part::Prometheus);
        soak.start(Part::Daemon);
        soak
    }

    #[allow(clippy::disallowed_methods, reason = "it lives in real time")]
    fn now(&self) -> f64 {
        Timestamp::now().duration_since(self.start).as_secs_f64()
    }

    fn live(&mut self, seconds: f64, mut restarts: Vec<Restart>) {
        let (mut look, mut sample) = (0.0, 0.0);
        while self.now() < seconds {
            self.bring_back();
            while let Some(restart) = restarts.pop_if(|next| next.at <= self.now()) {
                self.stop(restart);
            }
            if self.now() >= look {
                self.look();
                look = self.now() + LOOK_S;
            }
            if self.now() >= sample {
                self.sample();
                self.tell();
                sample = self.now() + SAMPLE_S;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn start(&mut self, part: Part) {
        match part {
            Part::Prometheus => {
                let scrape = format!(
                    "scrape_configs:\n- job_name: mesh\n  http_sd_configs: \
                     [{{url: 'http://{}/targets', refresh_interval: 1s}}]",
                    self.scraped_at
                );
                self.prometheus = Some(prometheus_at(self.prometheus_address, 3, &self.folder, &scrape, "20s"));
            }
            Part::ApiServer => self.cluster.start_api_server(),
            Part::Daemon => {
                let log = self.folder.join("daemon.log");
                let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
                let mut command = zoneward();
                command
                    .args(["run", "--config"])
                    .arg(self.folder.join("config.yaml"))
                    .arg("--audit-directory")
                    .arg(self.journal())
                    .env("KUBECONFIG", self.cluster.kubeconfig())
                    .env("ZONEWARD_SERVE__LISTEN", self.daemon_address.to_string())
                    .stderr(log);
                self.daemon = Some(Process::start(&mut command, self.daemon_address, "/healthz"));
            }
        }
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("audit")
    }

    fn stop(&mut self, restart: Restart) {
        let now = self.now();
        if self.gone.contains_key(&restart.part) {
            return;
        }
        let (mut gone_s, mut by) = (restart.gone, if restart.killed { "killed" } else { "asked to end" });
        let end = |process: Option<Process>| match process {
            Some(process) if !restart.killed => drop(process.terminate()),
            killed => drop(killed),
        };
        match restart.part {
            Part::Prometheus => end(self.prometheus.take()),
            Part::ApiServer => {
                by = "killed";
                self.cluster.stop_api_server();
            }
            Part::Daemon => {
                self.sample();
                self.spent_s += self.samples.last().map_or(0.0, |sample| sample.cpu_s);
                end(self.daemon.take());
            }
        }
        if restart.part == Part::Daemon {
            gone_s = gone_s.min(5.0);
        }
        println!("{now:>6.0} s  {:?} is {by}, and comes back {gone_s:.0} s later", restart.part);
        self.gone.insert(restart.part, (now, now + gone_s));
    }

    fn bring_back(&mut self) {
        let due: Vec<Part> =
            self.gone.iter().filter(|(_, (_, back))| self.now() >= *back).map(|(part, _)| *part).collect();
        for part in due {
            self.start(part);
            let (from, _) = self.gone.remove(&part).unwrap();
            let lease_s = if part == Part::Daemon { LEASE_S } else { 0.0 };
            self.outages.push((part, Outage { from, to: self.now() + lease_s }));
        }
    }

    /// From outside, with no word of the daemon's: never two zones out, and nothing left of what has ended.
    fn look(&mut self) {
        if self.gone.contains_key(&Part::ApiServer) {
            return;
        }
        let isolations = |cluster: &Cluster| -> Result<usize, String> {
            let list = cluster.read("/apis/zoneward.io/v1alpha1/zoneisolations")?;
            Ok(list["items"].as_array().map_or(0, Vec::len))
        };
        let listed = self.bind.dig(NAME, "A");
        let seen = isolations(&self.cluster).and_then(|active| Ok((active, scene::everything(&self.cluster)?)));
        let (at, (active, everything)) = match (self.now(), seen) {
            (at, Ok(seen)) => (at, seen),
            (at, Err(error)) => {
                return self.problems.push(format!("{at:.0} s: the API server does not answer: {error}"));
            }
        };
        self.looks += 1;
        let marked = scene::marked(&everything, &listed, &ZONES);
        if marked.len() > 1 {
            self.problems.push(format!("{at:.0} s: several zones are out: {marked:?}"));
        }
        // One may have begun meanwhile.
        if active == 0 && isolations(&self.cluster) == Ok(0) {
            self.clean_looks += 1;
            if everything != self.before || listed.len() != ZONES.len() {
                self.problems.push(format!("{at:.0} s: no isolation, and something is left: {marked:?}"));
            }
        }
    }

    fn sample(&mut self) {
        let at = self.now();
        let Some(daemon) = &mut self.daemon else { return };
        if daemon.has_ended() {
            self.problems.push(format!("{at:.0} s: the daemon has ended by itself"));
            self.daemon = None;
            self.gone.insert(Part::Daemon, (at, at));
            return;
        }
        self.samples.push(Sample::of(daemon.id(), at));
    }

    /// What is on record by now, if it can be read while it is written.
    fn records(&self) -> Option<Vec<Record>> {
        let (entries, _) = audit::read(&Source::Directory(self.journal())).ok()?;
        Some(entries.into_iter().map(|entry| entry.record).collect())
    }

    /// The journal as it grows.
    fn tell(&mut self) {
        let Some(records) = self.records() else { return };
        for record in records.iter().skip(self.told) {
            let at = record.time.duration_since(self.start).as_secs();
            let zone = record.zone.as_ref().map_or("", Zone::as_str);
            let stuck = record.step.as_ref().is_none_or(|step| step.state == StepState::Stuck);
            if stuck {
                println!("{at:>6} s  {:<12} {zone:<8} {}", record.event.as_str(), record.message);
            }
        }
        self.told = records.len();
    }

    /// All parts are there, and what is out comes back.
    fn settle(&mut self) {
        self.gone.values_mut().for_each(|(_, back)| *back = 0.0);
        self.bring_back();
        let clean = || {
            let list = self.cluster.read("/apis/zoneward.io/v1alpha1/zoneisolations").ok()?;
            list["items"].as_array()?.is_empty().then_some(())
        };
        eventually("no isolation is left", PATIENCE, clean);
        self.look();
        self.sample();
        let noted = self.bind.dig(&format!("_zoneward.{NAME}"), "TXT");
        if !noted.is_empty() {
            self.problems.push(format!("the name server still has {noted:?}"));
        }
        self.spent_s += self.samples.last().map_or(0.0, |sample| sample.cpu_s);
        if !self.daemon.take().unwrap().terminate().success() {
            self.problems.push("the daemon ended with an error".to_owned());
        }
        self.tell();
    }

    /// The table; and what is wrong.
    fn close(&self, troubles: &[Trouble]) -> Vec<String> {
        let entries: Vec<Entry> =
            self.records().unwrap_or_default().iter().filter_map(|record| Entry::of(record, self.start)).collect();
        let outages: Vec<Outage> = self.outages.iter().map(|(_, outage)| *outage).collect();
        let account: Account = judge(troubles, &entries, &outages, &BOUNDS);
        account.print();
        let mut problems = account.problems;
        for part in [Part::Prometheus, Part::ApiServer, Part::Daemon] {
            let of: Vec<f64> = self.outages.iter().filter(|(it, _)| *it == part).map(|(_, o)| o.to - o.from).collect();
            println!("{part:?}: {} restarts, {:.0} s gone in all", of.len(), of.iter().sum::<f64>());
        }
        println!(
            "{} looks from outside, {} of them with no isolation and all as before; {} had no answer",
            self.looks, self.clean_looks, self.unanswered
        );
        if self.clean_looks == 0 || self.unanswered > self.looks / 10 {
            problems.push("too little was seen from outside".to_owned());
        }
        println!("the daemon: {:.0} s of processor time", self.spent_s);
        problems.extend(growth::print(&self.samples));
        let verified = run(&["audit", "verify", "--from", self.journal().to_str().unwrap()]);
        println!("{}", stdout(&verified).trim());
        if !verified.status.success() {
            problems.push(format!("the journal does not verify: {}", stderr(&verified)));
        }
        let files = std::fs::read_dir(self.journal()).unwrap();
        let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        println!("the journal: {} bytes in {} files", sizes.iter().sum::<u64>(), sizes.len());
        println!("everything else is in {}", self.folder.display());
        problems
    }
}
