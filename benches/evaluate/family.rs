//! A family: one kind of situation, written as a file, of which every seed makes another scenario.
//!
//! Zones are letters here. Which real zone a letter stands for, and all that a range leaves open, the seed decides.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::Deserialize;
use zoneward::domain::{Factor, Period, Ratio};

/// Mixes of traffic that seeds take in turn: even, steep, and low.
pub const MIXES: usize = 3;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// The file's name.
    #[serde(skip)]
    pub name: String,
    /// For people.
    pub title: String,
    pub severity: Severity,
    pub expect: Expect,
    /// When a fault that creeps up begins to count; its start, unless said.
    #[serde(default)]
    pub counts_from: Option<Period>,
    /// How many; or each one's share of the traffic.
    #[serde(default = "three")]
    pub zones: usize,
    #[serde(default)]
    pub shares: Vec<Ratio>,
    #[serde(default)]
    pub nodes_per_zone: usize,
    #[serde(default = "forty_minutes")]
    pub duration: Period,
    #[serde(default = "fifteen_seconds")]
    pub scrape_interval: Period,
    /// Share of calls that stay in their zone whatever the others could take.
    #[serde(default = "none")]
    pub locality: Ratio,
    /// How often a failed call is tried again, on any server.
    #[serde(default)]
    pub retries: i32,
    /// Share of a service's failures that its callers pass on as their own.
    #[serde(default = "none")]
    pub propagation: Ratio,
    #[serde(default)]
    pub noise: Noise,
    /// What services fail usually, unless they say it themselves.
    #[serde(default = "usual_errors")]
    pub usual_errors: [Ratio; 2],
    /// The gateway calls the first, each of the first four calls the next, and the gateway calls all others.
    pub services: Vec<Service>,
    #[serde(default)]
    pub effects: Vec<Effect>,
    #[serde(default)]
    pub offsets: Vec<Offset>,
    #[serde(default)]
    pub roll_outs: Vec<RollOut>,
    #[serde(default)]
    pub scrapes: Vec<Scrapes>,
    #[serde(default)]
    pub stray_failures: Vec<StrayFailures>,
    /// Short glitches of one service in one zone, as garbage collection or a node's hiccup cause, at any time.
    #[serde(default)]
    pub blips: usize,
    /// Pods that are replaced, at any time.
    #[serde(default)]
    pub restarts: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Severe,
    Moderate,
    Subtle,
}

impl Severity {
    pub const ALL: [Self; 3] = [Self::Severe, Self::Moderate, Self::Subtle];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Severe => "severe",
            Self::Moderate => "moderate",
            Self::Subtle => "subtle",
        }
    }
}

/// What a good judge does: `isolate a`, `nothing`, or `either` where both can be defended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Isolate(Letter),
    Nothing,
    Either,
}

/// A zone's place in the file: `a` is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Letter(pub usize);

/// Requests per second over all zones, written `60/s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: String,
    /// One a mix; or between which it is drawn.
    #[serde(default)]
    pub rates: Option<[Rate; MIXES]>,
    #[serde(default)]
    pub rate_between: Option<[Rate; 2]>,
    #[serde(default)]
    pub errors: Option<Ratio>,
    #[serde(default = "usual_median")]
    pub median: [Period; 2],
    /// In each zone.
    #[serde(default = "two")]
    pub pods: usize,
    #[serde(default)]
    pub grpc: bool,
    /// So many services alike, numbered.
    #[serde(default = "one")]
    pub copies: usize,
}

/// What changes, from one moment to another. No zones, or no services, means all of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    pub at: Period,
    pub until: Period,
    #[serde(default)]
    pub zones: Vec<Letter>,
    #[serde(default)]
    pub services: Vec<String>,
    /// Only in these mixes of traffic.
    #[serde(default)]
    pub mixes: Vec<usize>,
    /// Share of requests that fail in the server.
    #[serde(default)]
    pub errors: Option<Ratio>,
    #[serde(default)]
    pub slowdown: Option<Factor>,
    #[serde(default)]
    pub tail: Option<Tail>,
    /// Share of calls from these zones that fail to connect: to any zone, or to those of `to`.
    #[serde(default)]
    pub connect_failures: Option<Ratio>,
    #[serde(default)]
    pub to: Vec<Letter>,
    /// Share of requests for what does not exist.
    #[serde(default)]
    pub not_found: Option<Ratio>,
    /// What is left of the usual traffic; the other zones take over the rest.
    #[serde(default)]
    pub traffic: Option<Ratio>,
    /// Comes and goes: in force for so long of every period.
    #[serde(default)]
    pub lasting: Option<Period>,
    #[serde(default)]
    pub every: Option<Period>,
    /// Grows from nothing for so long.
    #[serde(default)]
    pub ramp: Option<Period>,
    /// Between the zones' onsets, in any order.
    #[serde(default)]
    pub stagger: Option<[Period; 2]>,
    /// Only so many pods of each service, those on so many nodes, or those born within so long from the effect's start.
    #[serde(default)]
    pub pods: Option<usize>,
    #[serde(default)]
    pub nodes: Option<usize>,
    #[serde(default)]
    pub new_pods: Option<Period>,
}

/// A share of requests so slow that the p99 becomes so many times as long.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    pub share: Ratio,
    pub p99: Factor,
}

/// How zones differ since ever.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offset {
    pub zones: Vec<Letter>,
    #[serde(default)]
    pub slowdown: Option<Factor>,
    #[serde(default)]
    pub errors: Option<Factor>,
}

/// Pods are replaced one after another, by ones of new names unless said.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollOut {
    pub at: Period,
    pub zones: Vec<Letter>,
    pub services: Vec<String>,
    #[serde(default = "between_pods")]
    pub every: Period,
    /// Mixes in which the new ones have the old names, as those of a `StatefulSet` do.
    #[serde(default)]
    pub same_names: Vec<usize>,
}

/// What happens to scrapes: some or all are lost, or every second one, or each is stored more than once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scrapes {
    pub at: Period,
    pub until: Period,
    #[serde(default)]
    pub zones: Vec<Letter>,
    #[serde(default)]
    pub lost: Option<Ratio>,
    #[serde(default)]
    pub every_second_lost: bool,
    #[serde(default)]
    pub copies: Option<u32>,
}

/// Single failed requests, placed by hand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrayFailures {
    pub at: Period,
    pub zone: Letter,
    pub service: String,
    /// After the first one.
    pub then: [Period; 2],
}

/// Over-dispersion: how traffic, failures and durations wander, zone by zone.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// Of the request rate, as a share of it.
    pub traffic: Ratio,
    pub traffic_correlation: Period,
    /// Shape of the failure share's gamma distribution: the smaller, the burstier.
    pub error_shape: f64,
    pub error_correlation: Period,
    /// Of the median latency, as a share of it.
    pub latency: Ratio,
    pub latency_correlation: Period,
    /// Share of the variance that all zones of a service have in common.
    pub shared: Ratio,
    pub missed_scrapes: Ratio,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            traffic: Ratio::from_percent(20.0),
            traffic_correlation: Period::from_secs(60),
            error_shape: 4.0,
            error_correlation: Period::from_secs(60),
            latency: Ratio::from_percent(3.0),
            latency_correlation: Period::from_secs(60),
            shared: Ratio::from_percent(50.0),
            missed_scrapes: Ratio::from_percent(0.5),
        }
    }
}

const fn one() -> usize {
    1
}
const fn two() -> usize {
    2
}
const fn three() -> usize {
    3
}
const fn none() -> Ratio {
    Ratio::from_percent(0.0)
}
const fn forty_minutes() -> Period {
    Period::from_mins(40)
}
const fn fifteen_seconds() -> Period {
    Period::from_secs(15)
}
const fn between_pods() -> Period {
    Period::from_secs(25)
}
const fn usual_errors() -> [Ratio; 2] {
    [Ratio::from_percent(0.05), Ratio::from_percent(0.3)]
}
fn usual_median() -> [Period; 2] {
    ["8ms", "120ms"].map(|text| text.parse().unwrap_or(Period::from_secs(1)))
}

impl Family {
    /// All families of a folder, in order of their names.
    pub fn read_all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry?.path());
        }
        paths.sort();
        let yaml = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        yaml.map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &text).with_context(|| format!("{}", path.display()))
    }

    /// From YAML. Keys that mean nothing are refused.
    pub fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let source = config::File::from_str(text, config::FileFormat::Yaml);
        let tree: serde_json::Value = config::Config::builder().add_source(source).build()?.try_deserialize()?;
        let family: Self = serde_path_to_error::deserialize(&tree)
            .map_err(|error| anyhow::anyhow!("{}: {}", error.path(), error.inner()))?;
        let family = Self { name: name.to_owned(), ..family };
        family.check()?;
        Ok(family)
    }

    fn check(&self) -> anyhow::Result<()> {
        if !(2..=8).contains(&self.zones) {
            bail!("zones: from 2 to 8");
        }
        if !self.shares.is_empty() && self.shares.len() != self.zones {
            bail!("shares: one for each of {} zones", self.zones);
        }
        let scrape_s = self.scrape_interval.signed().as_secs();
        if scrape_s < 5 || scrape_s % 5 != 0 || self.scrape_interval.signed().subsec_nanos() != 0 {
            bail!("scrape_interval: a multiple of 5s");
        }
        for service in &self.services {
            if service.rates.is_some() == service.rate_between.is_some() {
                bail!("services: {} needs either rates or rate_between", service.name);
            }
            if service.pods == 0 || service.copies == 0 {
                bail!("services: {} has none", service.name);
            }
        }
        let named = self.effects.iter().flat_map(|effect| &effect.services);
        let named = named.chain(self.roll_outs.iter().flat_map(|it| &it.services));
        for name in named.chain(self.stray_failures.iter().map(|it| &it.service)) {
            if !self.services.iter().any(|service| service.name == *name && service.copies == 1) {
                bail!("services: `{name}` is not among them");
            }
        }
        let letters = self.effects.iter().flat_map(|effect| effect.zones.iter().chain(&effect.to));
        let letters = letters.chain(self.offsets.iter().flat_map(|it| &it.zones));
        let letters = letters.chain(self.roll_outs.iter().flat_map(|it| &it.zones));
        let letters = letters.chain(self.scrapes.iter().flat_map(|it| &it.zones));
        let expected = match &self.expect {
            Expect::Isolate(letter) => Some(letter),
            Expect::Nothing | Expect::Either => None,
        };
        for letter in letters.chain(self.stray_failures.iter().map(|it| &it.zone)).chain(expected) {
            if letter.0 >= self.zones {
                bail!("zones: there are only {}", self.zones);
            }
        }
        for effect in &self.effects {
            if effect.until <= effect.at {
                bail!("effects: one ends at {}, before it begins at {}", effect.until, effect.at);
            }
            if effect.lasting.is_some() != effect.every.is_some() {
                bail!("effects: `lasting` and `every` go together");
            }
            if effect.nodes.is_some() && self.nodes_per_zone == 0 {
                bail!("effects: `nodes` needs nodes_per_zone");
            }
        }
        if expected.is_some() && self.effects.is_empty() {
            bail!("expect: nothing happens for which to isolate a zone");
        }
        Ok(())
    }
}

impl FromStr for Letter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            [letter @ b'a'..=b'h'] => Ok(Self(usize::from(letter - b'a'))),
            _ => Err(format!("`{text}` is not a zone: write a letter from a to h")),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix("/s").and_then(|number| number.trim().parse().ok());
        number
            .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a rate: write requests per second, such as 60/s"))
    }
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nothing" => Ok(Self::Nothing),
            "either" => Ok(Self::Either),
            _ => text
                .strip_prefix("isolate ")
                .ok_or_else(|| format!("`{text}` is not expected of anyone: isolate a, nothing, or either"))?
                .parse()
                .map(Self::Isolate),
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Isolate(_) => "isolate",
            Self::Nothing => "nothing",
            Self::Either => "either",
        })
    }
}

macro_rules! through_text {
    ($($it:ident),*) => {$(
        impl<'de> Deserialize<'de> for $it {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
through_text!(Letter, Rate, Expect);
