//! A closer look: one service in one zone, pod by pod, and which of its pods came or went lately.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::PrometheusObserver;
use super::api::{ApiError, Kind};
use super::decode::{self, Reading, Stretch};
use super::settings::ZoneFrom;
use super::stream::Row;
use crate::domain::verdict::{NEW_FOR, PodView, Suspect};
use crate::domain::{Calls, Histogram, PodAge, PodCalls, Zone};
use crate::ports::ObserveError;

/// What tells one proxy from another, and its zone.
type Proxies = BTreeSet<(Vec<String>, Zone)>;

/// The proxies of a service: those that report now, and those that did before anything that is new.
#[derive(Default)]
struct Ages {
    now: Proxies,
    then: Proxies,
}

impl Ages {
    fn of(&self, proxy: &(Vec<String>, Zone)) -> PodAge {
        if self.then.is_empty() || self.now.is_empty() {
            // Nothing is known of then, or of now, so nothing is known to be new or gone.
            PodAge::Unknown
        } else if !self.now.contains(proxy) {
            PodAge::Gone
        } else if self.then.contains(proxy) {
            PodAge::Settled
        } else {
            PodAge::New
        }
    }
}

/// One pod while its rows are read.
#[derive(Default)]
struct Pod {
    node: Option<String>,
    proxy: Vec<String>,
    calls: Calls,
    buckets: Vec<(f64, f64)>,
}

impl PrometheusObserver {
    pub(super) async fn closer_look(
        &mut self,
        suspect: &Suspect,
        at: Timestamp,
    ) -> Result<Vec<PodCalls>, ObserveError> {
        let first = at - self.cycle.signed() * (suspect.cycles as i32 - 1);
        let stretch = Stretch { first, cycles: suspect.cycles, cycle: self.cycle };
        let ages = self.ages(suspect, at).await?;
        let Self { api, queries, settings, places, .. } = self;
        let (labels, reading) = (&settings.labels, Reading { settings, places });
        let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
        let mut take = |row: &Row<'_>| {
            let place = reading.place(row);
            if settings.zone_from == ZoneFrom::Node && place.is_none_or(|place| place.zone != suspect.zone) {
                return;
            }
            let total: f64 = stretch.values(row).map(|(_, count)| count).sum();
            let pod = pods.entry(row.label(&labels.pod).to_owned()).or_default();
            let labelled = Some(row.label(&labels.node)).filter(|node| !node.is_empty());
            pod.node = place.map(|place| place.node.clone()).or_else(|| labelled.map(str::to_owned));
            pod.proxy = labels.target.iter().map(|name| row.label(name).to_owned()).collect();
            if suspect.view == PodView::Durations {
                pod.buckets.extend(row.label("le").parse().ok().map(|edge: f64| (edge, total)));
            } else {
                let failed = decode::is_failure(row, &suspect.service, settings);
                pod.calls += Calls { total, failed: if failed { total } else { 0.0 } };
            }
        };
        let warnings = api.range(queries.pods(suspect), stretch, &mut take).await?;
        if let Some(warning) = warnings.first() {
            return Err(ObserveError(format!("incomplete answer by pod: {warning}")));
        }
        let pod = |(name, pod): (String, Pod)| PodCalls {
            pod: name,
            node: pod.node,
            age: ages.of(&(pod.proxy, suspect.zone.clone())),
            calls: pod.calls,
            latency: Histogram::from_cumulative(&pod.buckets),
        };
        Ok(pods.into_iter().map(pod).collect())
    }

    async fn ages(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Ages, ApiError> {
        let seen_at = at - SignedDuration::try_from(self.settings.offset.unsigned()).unwrap_or_default();
        let (now, then) = (self.queries.proxies_now(suspect), self.queries.proxies_before(suspect, NEW_FOR));
        Ok(Ages { now: self.seen_proxies(&now, seen_at).await?, then: self.seen_proxies(&then, seen_at).await? })
    }

    async fn seen_proxies(&mut self, query: &str, at: Timestamp) -> Result<Proxies, ApiError> {
        let Self { api, settings, places, .. } = self;
        let (target, reading) = (&settings.labels.target, Reading { settings, places });
        let mut seen = Proxies::new();
        let mut take = |row: &Row<'_>| {
            let proxy = target.iter().map(|name| row.label(name).to_owned()).collect();
            seen.extend(reading.zone(row).map(|zone| (proxy, Zone::new(zone))));
        };
        api.instant(query, at, Kind::Vector, &mut take).await?;
        Ok(seen)
    }
}
