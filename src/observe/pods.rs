//! A closer look: one service in one zone, pod by pod, and which of its pods came or went lately.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::PrometheusObserver;
use super::api::ApiError;
use super::decode::{self, Stretch};
use super::settings::ZoneFrom;
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
        let offset_s = self.settings.offset.as_secs_f64();
        let stretch = Stretch { first, cycles: suspect.cycles, cycle: self.cycle, offset_s };
        let answer = self.api.range(&self.queries.pods(suspect), stretch).await?;
        if let Some(warning) = answer.warnings.first() {
            return Err(ObserveError(format!("incomplete answer by pod: {warning}")));
        }
        let ages = self.ages(suspect, at).await?;
        let mut pods: BTreeMap<&str, Pod> = BTreeMap::new();
        for row in &answer.rows {
            let reading = self.reading();
            let place = reading.place(|name| row.metric().get(name));
            if self.settings.zone_from == ZoneFrom::Node && place.is_none_or(|place| place.zone != suspect.zone) {
                continue;
            }
            let total: f64 = stretch.values(row).map(|(_, count)| count).sum();
            let pod = pods.entry(decode::label(row, &self.settings.labels.pod)).or_default();
            let labelled = Some(decode::label(row, &self.settings.labels.node)).filter(|node| !node.is_empty());
            pod.node = place.map(|place| place.node.clone()).or_else(|| labelled.map(str::to_owned));
            pod.proxy = self.settings.labels.target.iter().map(|name| decode::label(row, name).to_owned()).collect();
            if suspect.view == PodView::Durations {
                pod.buckets.extend(decode::label(row, "le").parse().ok().map(|edge: f64| (edge, total)));
            } else {
                let failed = decode::is_failure(row, &suspect.service, &self.settings);
                pod.calls += Calls { total, failed: if failed { total } else { 0.0 } };
            }
        }
        let pod = |(name, pod): (&str, Pod)| PodCalls {
            pod: name.to_owned(),
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
        let (rows, _) = self.api.vector(query, at).await?;
        let reading = self.reading();
        let proxy = |get: &dyn Fn(&str) -> Option<String>, zone| {
            let target = self.settings.labels.target.iter().map(|name| get(name).unwrap_or_default());
            (target.collect(), zone)
        };
        let seen = rows.iter().filter_map(|row| {
            let zone = reading.zone(|name| row.metric().get(name))?;
            Some(proxy(&|name| row.metric().get(name).cloned(), zone))
        });
        Ok(seen.collect())
    }
}
