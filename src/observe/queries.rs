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

use super::settings::{Settings, ZoneFrom};
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
    cycle: String,
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
            cycle: format!("{}s", cycle.seconds()),
            fresh_s: 2 * cycle.seconds() + 5,
            failed_grpc: grpc.join("|"),
        }
    }

    /// Requests by zone, service and outcome.
    pub fn requests(&self, reporter: Reporter) -> String {
        self.increments(REQUESTS, reporter, "", &self.by(&CODE_LABELS))
    }

    /// Durations of well-answered requests by zone, service and bucket.
    pub fn durations(&self) -> String {
        self.increments(DURATION_BUCKETS, Reporter::Server, &self.well_answered(), &self.by(&["le"]))
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

    /// How many proxies of each zone answered their last scrape, and how many did not. An old `up` is none: Prometheus
    /// shows it for five minutes after it stopped to scrape.
    pub fn coverage(&self) -> String {
        let up = format!("up{{{}}}", self.matchers);
        let (zone, target) = (&self.zone, &self.target);
        format!(
            r#"count_values by ({zone}) ("{UP_LABEL}", max by ({target}) ({up} and (time() - timestamp({up}) < {fresh_s})) * on ({target}) group_right() {proxies})"#,
            fresh_s = self.fresh_s,
            proxies = self.proxies(&if self.zone_is_label { format!("{target},{zone}") } else { target.clone() }),
        )
    }

    /// How often the same proxy is stored.
    pub fn copies(&self) -> String {
        let (matchers, target) = (self.selector(r#"instance!="""#), &self.target);
        format!("max(count by (job,instance,{target}) (up{{{matchers}}}) and on ({target}) {})", self.proxies(target))
    }

    /// The proxies that were seen within the look-back.
    fn proxies(&self, by: &str) -> String {
        format!("group by ({by}) (last_over_time({REQUESTS}{{{}}}[{}]))", self.matchers, self.lookback)
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

    pub fn duration_series(&self) -> String {
        format!("count({DURATION_BUCKETS}{{{}}})", self.matchers)
    }

    /// A few proxies.
    pub fn some_targets(&self) -> String {
        format!("topk(3, {})", self.proxies(&self.target))
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
        let reporter = format!(r#"reporter="{}""#, reporter.as_str());
        let everything = self.selector(&reporter);
        let selector = if only.is_empty() { everything.clone() } else { format!("{everything},{only}") };
        let (target, lookback, cycle) = (&self.target, &self.lookback, &self.cycle);
        let now = format!("last_over_time({metric}{{{selector}}}[{lookback}])");
        let then = format!("last_over_time({metric}{{{selector}}}[{lookback}] offset {cycle})");
        let requests = format!("{REQUESTS}{{{everything}}}");
        let known =
            format!("group by ({target}) ({requests} and last_over_time({requests}[{lookback}] offset {cycle}))");
        format!(
            "sum by ({by}) (({now} - {then} >= 0) or ({now} and {now} - {then} < 0) or (({now} unless {then}) and on ({target}) {known}))"
        )
    }
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
            queries.requests(Reporter::Server),
            queries.requests(Reporter::Client),
            queries.durations(),
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
