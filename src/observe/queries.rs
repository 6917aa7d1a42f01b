//! From signals to `PromQL`: a fixed number of grouped queries a cycle, whatever the number of services.
//!
//! Increments are exact. `increase()` extrapolates, and never sees the first jump of a series, which Envoy exports only
//! once it is non-zero: a burst of a code never seen before would be invisible. Here the last value now is compared
//! with the last value one cycle earlier:
//! - a missed scrape is made good by the next one, as the look-back bridges it;
//! - a counter that fell was reset, and counts as it stands;
//! - a series that was not there counts as it stands if its proxy has another one that was there a cycle earlier and
//!   still is, and not at all otherwise, as then its past is unknown: a proxy that comes back, or one all of whose series
//!   were renamed, as a new pod label that the scrape configuration maps does.
//!
//! Cheap, too: matching series by all their labels is what costs Prometheus most. `irate` over a subquery that holds the two
//! values reads each series once, and matches none. Series that were not there are asked for apart, and only of proxies that
//! have some; those of durations are left out, as are durations after a missed scrape: what is not known of them is few, and
//! tells no zone from another.

use std::collections::BTreeSet;

use super::settings::{Settings, ZoneFrom};
use super::shards::Shard;
use crate::domain::verdict::{PodView, Suspect};
use crate::domain::{CycleLength, Period};

pub(super) const REQUESTS: &str = "istio_requests_total";
pub(super) const DURATION_BUCKETS: &str = "istio_request_duration_milliseconds_bucket";
/// As kubelets export it.
const CPU: &str = "container_cpu_usage_seconds_total";
pub(super) const CODE_LABELS: [&str; 3] = ["response_code", "grpc_response_status", "response_flags"];
/// Holds whether a target answered its last scrape: 0 or 1.
pub(super) const UP_LABEL: &str = "zoneward_up";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reporter {
    Server,
    Client,
}

impl Reporter {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "destination",
            Self::Client => "source",
        }
    }
}

/// Writes the queries for one configuration and cycle length.
#[derive(Debug, Clone)]
pub(super) struct Queries {
    matchers: String,
    /// The labels that tell a zone: its own, or those of the proxy, whose zone is then looked up.
    zone: String,
    /// Whether the zone has a label of its own, to ask for one alone.
    zone_is_label: bool,
    service: [String; 2],
    pod: String,
    node: String,
    target: String,
    lookback: String,
    cycle_s: i64,
    offset_s: i64,
    /// Two scrapes, at the least.
    fresh_s: i64,
    failed_grpc: String,
}

impl Queries {
    pub fn new(settings: &Settings, cycle: CycleLength) -> Self {
        let labels = &settings.labels;
        let grpc: Vec<String> =
            settings.services.usual.failures.grpc_statuses.iter().map(ToString::to_string).collect();
        Self {
            matchers: settings.matchers.join(","),
            zone: match settings.zone_from {
                ZoneFrom::Label => labels.zone.clone(),
                ZoneFrom::Node => labels.target.join(","),
            },
            zone_is_label: settings.zone_from == ZoneFrom::Label,
            service: [labels.service_namespace.clone(), labels.service.clone()],
            pod: labels.pod.clone(),
            node: labels.node.clone(),
            target: labels.target.join(","),
            lookback: format!("{}s", settings.lookback.signed().as_secs()),
            cycle_s: cycle.seconds(),
            offset_s: settings.offset.signed().as_secs(),
            fresh_s: 2 * cycle.seconds() + 5,
            failed_grpc: grpc.join("|"),
        }
    }

    /// A second's share of the requests of a cycle, by vantage, zone, service and outcome.
    pub fn requests(&self, shard: &Shard) -> String {
        let by = format!("reporter,{}", self.by(&CODE_LABELS));
        let requests = self.lasting(&format!("{REQUESTS}{{{}}}", self.selector(&self.of_shard(shard))));
        format!("sum by ({by}) (irate({}))", self.two_values(&requests))
    }

    /// Proxies of which a series was there either now or a cycle earlier, and not both.
    pub fn changing(&self) -> String {
        let requests = self.lasting(&format!("{REQUESTS}{{{}}}", self.matchers));
        format!("group by ({}) (count_over_time({}) == 1)", self.target, self.two_values(&requests))
    }

    /// Requests of a cycle of series that were not there before, by vantage, zone, service and outcome: of some proxies, by
    /// the last of the labels that name them, or of all.
    pub fn newcomers(&self, proxies: Option<&BTreeSet<String>>) -> String {
        let some = |proxies: &BTreeSet<String>| {
            let names: Vec<String> = proxies.iter().map(|name| regex::escape(name)).collect();
            let label = self.target.rsplit(',').next().unwrap_or_default();
            format!("{label}=~{}", quoted(&names.join("|")))
        };
        let selector = self.selector(&proxies.map(some).unwrap_or_default());
        let (by, target) = (format!("reporter,{}", self.by(&CODE_LABELS)), format!("reporter,{}", self.target));
        format!("sum by ({by}) ({})", self.new_series(REQUESTS, &selector, (&selector, &target)))
    }

    /// A second's share of the durations of well-answered requests of a cycle, by zone, service and bucket.
    pub fn durations(&self, shard: &Shard) -> String {
        let only = [r#"reporter="destination""#, &self.well_answered(), &self.of_shard(shard)].join(",");
        let (by, offset) = (self.by(&["le"]), offset(self.offset_s));
        let buckets = format!("{DURATION_BUCKETS}{{{}}}{offset}", self.selector(only.trim_end_matches(',')));
        format!("sum by ({by}) (irate({}))", self.two_values(&buckets))
    }

    fn of_shard(&self, shard: &Shard) -> String {
        if shard.is_all() { String::new() } else { format!("{}=~{}", self.service[1], quoted(&shard.pattern())) }
    }

    /// The last value of each series, which outlasts missed scrapes.
    fn lasting(&self, series: &str) -> String {
        format!("last_over_time({series}[{}]{})", self.lookback, offset(self.offset_s))
    }

    /// At the end of the cycle and of the one before: steps of a subquery lie on the grid, as cycles do.
    fn two_values(&self, of: &str) -> String {
        format!("({of})[{}s:{}s]", self.cycle_s + 1, self.cycle_s)
    }

    fn well_answered(&self) -> String {
        let well = r#"response_code=~"[123]..""#;
        if self.failed_grpc.is_empty() {
            // An empty pattern would match what has no gRPC status, which is most.
            return well.to_owned();
        }
        format!(r#"{well},grpc_response_status!~"{}""#, self.failed_grpc)
    }

    fn of_service(&self, suspect: &Suspect) -> String {
        let Suspect { service, .. } = suspect;
        format!("{}={},{}={}", self.service[0], quoted(&service.namespace), self.service[1], quoted(&service.name))
    }

    /// The proxies that serve the service, or call it, in all zones: those that report now.
    pub fn proxies_now(&self, suspect: &Suspect) -> String {
        let (by, selector, fresh_s) = (self.proxy_and_zone(), self.of_reporter(suspect), self.fresh_s);
        format!("group by ({by}) (last_over_time({REQUESTS}{{{selector}}}[{fresh_s}s]))")
    }

    /// And those that reported a while ago. A stretch of lost scrapes does not make a pod new.
    pub fn proxies_before(&self, suspect: &Suspect, ago: Period) -> String {
        let (by, selector, ago_s) = (self.proxy_and_zone(), self.of_reporter(suspect), ago.signed().as_secs());
        format!("group by ({by}) (last_over_time({REQUESTS}{{{selector}}}[{ago_s}s] offset {ago_s}s))")
    }

    fn proxy_and_zone(&self) -> String {
        if self.zone_is_label { format!("{},{}", self.target, self.zone) } else { self.target.clone() }
    }

    fn of_reporter(&self, suspect: &Suspect) -> String {
        let reporter = match suspect.view {
            PodView::Servers | PodView::Durations => Reporter::Server,
            PodView::Clients => Reporter::Client,
        };
        self.selector(&format!(r#"reporter="{}",{}"#, reporter.as_str(), self.of_service(suspect)))
    }

    /// One service in one zone by pod, and by outcome or bucket.
    pub fn pods(&self, suspect: &Suspect) -> String {
        let mut only = self.of_service(suspect);
        if self.zone_is_label {
            only += &format!(",{}={}", self.zone, quoted(suspect.zone.as_str()));
        }
        let by = |more: &[&str]| [&[self.pod.as_str(), &self.target, &self.node], more].concat().join(",");
        match suspect.view {
            PodView::Servers => self.increments(REQUESTS, Reporter::Server, &only, &by(&CODE_LABELS)),
            PodView::Clients => self.increments(REQUESTS, Reporter::Client, &only, &by(&CODE_LABELS)),
            PodView::Durations => {
                let only = format!("{},{only}", self.well_answered());
                self.increments(DURATION_BUCKETS, Reporter::Server, &only, &by(&["le"]))
            }
        }
    }

    /// How many proxies of each zone answered their last scrape, and how many did not, with how often each is stored: the
    /// label holds a hundred times that, and one more where it answered. An old `up` is none: Prometheus shows it for five
    /// minutes after it stopped to scrape.
    pub fn coverage(&self) -> String {
        let (zone, target, offset) = (&self.zone, &self.target, offset(self.offset_s));
        let up = format!("up{{{}}}{offset}", self.matchers);
        let fresh_s = self.fresh_s + self.offset_s;
        let answered = format!("max by ({target}) ({up} and (time() - timestamp({up}) < {fresh_s}))");
        // Where instances are told apart: several ports of a pod are no copies.
        let stored = format!("up{{{}}}{offset}", self.selector(r#"instance!="""#));
        let copies = format!("max by ({target}) (count by (job,instance,{target}) ({stored}))");
        let by = if self.zone_is_label { format!("{target},{zone}") } else { target.clone() };
        format!(
            r#"count_values by ({zone}) ("{UP_LABEL}", (({answered} + 100 * {copies}) or {answered}) * on ({target}) group_right() {proxies})"#,
            proxies = self.proxies(&by, &offset),
        )
    }

    /// How often the same proxy is stored.
    pub fn copies(&self) -> String {
        let (matchers, target) = (self.selector(r#"instance!="""#), &self.target);
        format!(
            "max(count by (job,instance,{target}) (up{{{matchers}}}) and on ({target}) {})",
            self.proxies(target, "")
        )
    }

    /// The proxies that were seen within the look-back.
    fn proxies(&self, by: &str, offset: &str) -> String {
        format!("group by ({by}) (last_over_time({REQUESTS}{{{}}}[{}]{offset}))", self.matchers, self.lookback)
    }

    /// CPU of each pod, in cores, as kubelets' cAdvisor counts it; the rows without a container are sums of the others.
    pub fn cpu(&self) -> String {
        let selector = self.selector(r#"container!="""#);
        format!("sum by (namespace,pod) (rate({CPU}{{{selector}}}[3m]))")
    }

    /// Request rate by zone, as anyone would look whether there is any.
    pub fn rate_by(&self, labels: &str) -> String {
        format!("sum by ({labels}) (rate({REQUESTS}{{{}}}[{}]))", self.matchers, self.lookback)
    }

    pub fn rate_by_zone(&self) -> String {
        self.rate_by(&self.zone)
    }

    pub fn services(&self) -> String {
        format!("group by ({}) ({REQUESTS}{{{}}})", self.service.join(","), self.matchers)
    }

    /// How many services by zone there are; of zones that are looked up, by proxy.
    pub fn cells(&self) -> String {
        format!("count(group by ({}) ({REQUESTS}{{{}}}))", self.by(&[]), self.matchers)
    }

    pub fn duration_series(&self) -> String {
        format!("count({DURATION_BUCKETS}{{{}}})", self.matchers)
    }

    /// A few proxies.
    pub fn some_targets(&self) -> String {
        format!("topk(3, {})", self.proxies(&self.target, ""))
    }

    /// The raw samples of one proxy, for their times.
    pub fn samples_of(&self, target: &[(String, String)]) -> String {
        let only: Vec<String> = target.iter().map(|(label, value)| format!("{label}={}", quoted(value))).collect();
        format!("{REQUESTS}{{{}}}[{}]", self.selector(&only.join(",")), self.lookback)
    }

    fn by(&self, more: &[&str]) -> String {
        let own = [self.zone.as_str(), &self.service[0], &self.service[1]];
        own.into_iter().chain(more.iter().copied()).collect::<Vec<_>>().join(",")
    }

    fn selector(&self, more: &str) -> String {
        [more, &self.matchers].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
    }

    fn increments(&self, metric: &str, reporter: Reporter, only: &str, by: &str) -> String {
        let everything = self.selector(&format!(r#"reporter="{}""#, reporter.as_str()));
        let selector = format!("{everything},{only}");
        let [now, then] = self.now_and_then(metric, &selector);
        let new = self.new_series(metric, &selector, (&everything, &self.target));
        format!("sum by ({by}) (({now} - {then} >= 0) or ({now} and {now} - {then} < 0) or {new})")
    }

    fn now_and_then(&self, metric: &str, selector: &str) -> [String; 2] {
        [0, self.cycle_s].map(|ago_s| {
            format!("last_over_time({metric}{{{selector}}}[{}]{})", self.lookback, offset(self.offset_s + ago_s))
        })
    }

    /// Those that were not there, of proxies that are known by another one among their requests.
    fn new_series(&self, metric: &str, selector: &str, (requests, proxy): (&str, &str)) -> String {
        let [now, then] = self.now_and_then(metric, selector);
        let requests = format!("{REQUESTS}{{{requests}}}");
        let (still, lookback, was) = (offset(self.offset_s), &self.lookback, offset(self.offset_s + self.cycle_s));
        let known = format!("group by ({proxy}) ({requests}{still} and last_over_time({requests}[{lookback}]{was}))");
        format!("(({now} unless {then}) and on ({proxy}) {known})")
    }
}

/// How long ago.
fn offset(seconds: i64) -> String {
    if seconds == 0 { String::new() } else { format!(" offset {seconds}s") }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ServiceId, Zone};

    #[test]
    fn extra_matchers_reach_every_selector() {
        let settings = Settings { matchers: vec![r#"cluster="prod""#.to_owned()], ..Settings::default() };
        let queries = Queries::new(&settings, CycleLength::at_least(Period::from_secs(15)));
        let suspect =
            |view| Suspect { service: ServiceId::new("default", "mocka"), zone: Zone::new("a"), view, cycles: 8 };
        let all = [
            queries.requests(&Shard::default()),
            queries.changing(),
            queries.newcomers(None),
            queries.newcomers(Some(&["mocka-1".to_owned()].into())),
            queries.durations(&Shard::default()),
            queries.coverage(),
            queries.copies(),
            queries.pods(&suspect(PodView::Servers)),
            queries.pods(&suspect(PodView::Clients)),
            queries.pods(&suspect(PodView::Durations)),
            queries.proxies_now(&suspect(PodView::Servers)),
            queries.proxies_before(&suspect(PodView::Clients), Period::from_mins(10)),
            queries.cpu(),
            queries.rate_by_zone(),
            queries.services(),
            queries.cells(),
            queries.duration_series(),
            queries.some_targets(),
            queries.samples_of(&[("pod".to_owned(), "p\"1".to_owned())]),
        ];
        for query in all {
            let selectors =
                ["istio_", "up{", "container_cpu"].iter().map(|name| query.matches(name).count()).sum::<usize>();
            assert_eq!(query.matches(r#"cluster="prod""#).count(), selectors, "{query}");
        }
    }
}
