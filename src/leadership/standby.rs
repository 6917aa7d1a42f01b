//! Followers that are ready to act say so, and where they are: a leader in a sick zone hands over to one elsewhere.
//!
//! All stand in one annotation of one Lease beside the one that counts. A follower's entry changes as long as it is ready;
//! whoever reads tells by its own clock how long ago.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};

use super::{LEASE, lost_if_conflict};
use crate::domain::Zone;

const STANDBY_NAME: &str = "zoneward-standby";
const ANNOTATION: &str = "zoneward.io/standby";
/// Replicas that are kept track of.
const MOST: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    zone: Zone,
    beat: u64,
}

/// Who is ready, by identity.
pub(super) struct Standbys {
    api: Api<Lease>,
    identity: String,
    beat: u64,
    /// Each entry as it is, since when, and whether it was seen to change.
    seen: BTreeMap<String, (Entry, Instant, bool)>,
}

impl Standbys {
    pub(super) fn new(client: &Client, identity: String) -> Self {
        Self { api: Api::default_namespaced(client.clone()), identity, beat: 0, seen: BTreeMap::new() }
    }

    /// Takes in what others say, and says where this replica is if it is ready.
    pub(super) async fn turn(&mut self, ready_in: Option<Zone>) -> kube::Result<()> {
        let found = self.api.get_opt(STANDBY_NAME).await?;
        let mut entries = found.as_ref().map(entries).unwrap_or_default();
        self.note(&entries, Instant::now());
        let Some(zone) = ready_in else { return Ok(()) };
        entries.retain(|identity, _| self.seen.get(identity).is_none_or(|(_, since, _)| since.elapsed() <= 2 * LEASE));
        self.beat += 1;
        entries.insert(self.identity.clone(), Entry { zone, beat: self.beat });
        let exists = found.is_some();
        let mut lease = found.unwrap_or_default();
        lease.metadata.name = Some(STANDBY_NAME.to_owned());
        let text = serde_json::to_string(&entries).map_err(kube::Error::SerdeError)?;
        lease.annotations_mut().insert(ANNOTATION.to_owned(), text);
        let params = PostParams::default();
        let written = if exists {
            self.api.replace(STANDBY_NAME, &params, &lease).await
        } else {
            self.api.create(&params, &lease).await
        };
        // Another was quicker: there is a next turn.
        lost_if_conflict(written).map(|_| ())
    }

    fn note(&mut self, entries: &BTreeMap<String, Entry>, now: Instant) {
        self.seen.retain(|identity, _| entries.contains_key(identity));
        for (identity, entry) in entries.iter().filter(|(identity, _)| **identity != self.identity) {
            match self.seen.get(identity) {
                Some((known, _, _)) if known == entry => {}
                known => {
                    let changed = known.is_some();
                    self.seen.insert(identity.clone(), (entry.clone(), now, changed));
                }
            }
        }
    }

    /// Those that were seen to be ready within the last lease.
    pub(super) fn ready(&self, now: Instant) -> BTreeMap<String, Zone> {
        let fresh = |since: Instant, changed: bool| changed && now.duration_since(since) <= LEASE;
        let ready = self.seen.iter().filter(|(_, (_, since, changed))| fresh(*since, *changed));
        ready.map(|(identity, (entry, ..))| (identity.clone(), entry.zone.clone())).collect()
    }
}

/// Whatever else stands there is nobody's.
fn entries(lease: &Lease) -> BTreeMap<String, Entry> {
    let text = lease.annotations().get(ANNOTATION).map_or("{}", String::as_str);
    let all: BTreeMap<String, Entry> = serde_json::from_str(text).unwrap_or_default();
    all.into_iter().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(beats: &[(&str, &str, u64)]) -> BTreeMap<String, Entry> {
        let entry = |(_, zone, beat): &(&str, &str, u64)| Entry { zone: Zone::new(*zone), beat: *beat };
        beats.iter().map(|it| (it.0.to_owned(), entry(it))).collect()
    }

    #[tokio::test]
    async fn ready_is_who_was_heard_of_lately_and_not_who_once_was() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let mut standbys = Standbys::new(&Client::try_from(config).unwrap(), "me".to_owned());
        let start = Instant::now();
        let ready = |standbys: &Standbys, at: Instant| standbys.ready(at).into_keys().collect::<Vec<_>>();
        standbys.note(&said(&[("me", "a", 1), ("left", "b", 7), ("lives", "c", 1)]), start);
        assert!(ready(&standbys, start).is_empty(), "each may have been said long ago");
        let later = start + Duration::from_secs(2);
        standbys.note(&said(&[("me", "a", 2), ("left", "b", 7), ("lives", "c", 2)]), later);
        assert_eq!(ready(&standbys, later), ["lives"]);
        standbys.note(&said(&[("me", "a", 3), ("left", "b", 7), ("lives", "c", 2)]), later + LEASE);
        assert_eq!(ready(&standbys, later + LEASE), ["lives"]);
        assert!(ready(&standbys, later + 2 * LEASE).is_empty(), "it has fallen silent");
    }
}
