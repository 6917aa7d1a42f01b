//! No more north-south traffic: a zone's addresses leave the DNS names of Alibaba Cloud's load balancers (NLB and ALB), by
//! their zonal shift.

mod balancer;
mod plan;
mod probe;
mod settings;

pub use settings::{Kind, LoadBalancer, Settings};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;

use self::balancer::{Balancer, Mapping, Seen, State, Verb};
use self::plan::{Line, all_of, lines, note, permanent};
use super::{Look, Preview, Probe, RealStep};
use crate::alibaba::{Client, Error, Refusal, Surroundings};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::ports::{IsolationStep, StepError};

/// Shifts zones, and gives back what it shifted.
///
/// Guarantees: what is read of a load balancer decides what is done, not what was answered; no load balancer loses its last
/// active zone, as far as could be read before any was shifted; what was out before is somebody else's, and stays so. Each
/// load balancer is tried, and every failure told.
/// Assumptions: between that reading and the shift nobody else shifts the same zone: the cloud keeps no note of who did it.
pub struct DnsAlibaba {
    settings: Settings,
    client: Client,
    look: Arc<Look>,
}

type Looked<T> = Vec<(T, Result<Seen, Error>)>;

impl DnsAlibaba {
    pub fn new(settings: Settings, surroundings: Surroundings, look: &Arc<Look>) -> Self {
        let client = Client::new(settings.credentials, surroundings, settings.timeout);
        Self { settings, client, look: Arc::clone(look) }
    }

    /// By their keys in a receipt.
    fn balancers(&self) -> Result<BTreeMap<String, Balancer>, StepError> {
        let of = |settings| Balancer::of(settings).map(|balancer| (plan::key(&balancer), balancer)).map_err(permanent);
        self.settings.load_balancers.iter().map(of).collect()
    }

    fn cloud_zone(&self, zone: &Zone) -> Result<String, StepError> {
        self.settings.cloud_zone(zone).map_err(permanent)
    }

    /// All at once: one that is slow keeps none waiting.
    async fn read_all(&self) -> Result<Looked<Balancer>, StepError> {
        let read = async |balancer: Balancer| {
            let seen = balancer.read(&self.client).await;
            (balancer, seen)
        };
        Ok(join_all(self.balancers()?.into_values().map(read)).await)
    }

    async fn read_lines(&self, receipt: &Receipt) -> Result<Looked<Line>, StepError> {
        let read = async |line: Line| {
            let seen = line.balancer.read(&self.client).await;
            (line, seen)
        };
        Ok(join_all(lines(receipt, &self.balancers()?)?.into_iter().map(read)).await)
    }

    async fn shift(&self, receipt: &Receipt) -> Result<(), StepError> {
        let looked = self.read_lines(receipt).await?;
        let last = looked.iter().find_map(|(line, seen)| line.last(seen.as_ref().ok()?));
        if let Some(last) = last {
            return Err(last);
        }
        let mut errors = self.unnoted(receipt)?;
        let due = due(&looked, &mut errors, Line::to_shift);
        errors.extend(self.change(due, Verb::Start).await);
        all_of(&errors)
    }

    async fn give_back(&self, receipt: &Receipt) -> Result<(), StepError> {
        let mut looked = self.read_lines(receipt).await?;
        looked.retain(|(line, seen)| !is_gone(line, seen));
        let mut errors = Vec::new();
        let due = due(&looked, &mut errors, Line::to_give_back);
        errors.extend(self.change(due, Verb::Cancel).await);
        all_of(&errors)
    }

    /// What is configured, and was not noted: it is not shifted, as nothing would say that it is to be given back.
    fn unnoted(&self, receipt: &Receipt) -> Result<Vec<StepError>, StepError> {
        let balancers = self.balancers()?;
        let unnoted = balancers.iter().filter(|(key, _)| !receipt.0.contains_key(*key));
        let told = unnoted.map(|(_, balancer)| {
            permanent(format!(
                "{balancer} was not shifted: when the isolation began it could not be read, or was not configured. See \
                 what `zoneward check --connect` says of it; then give the zone back, and isolate it anew"
            ))
        });
        Ok(told.collect())
    }

    /// Every one is tried; returns what failed.
    async fn change(&self, due: Vec<(&Line, &Mapping)>, verb: Verb) -> Vec<StepError> {
        let change = async |(line, mapping): (&Line, &Mapping)| {
            match line.balancer.change(&self.client, verb, mapping).await {
                // Somebody was faster; confirming will show.
                Err(error) if error.refusal().is_some_and(says_already_so) => None,
                done => done.err().map(|error| line.balancer.failure(&error)),
            }
        };
        join_all(due.into_iter().map(change)).await.into_iter().flatten().collect()
    }
}

fn due<'a>(
    looked: &'a Looked<Line>,
    errors: &mut Vec<StepError>,
    decide: impl Fn(&'a Line, &'a Seen) -> Result<Option<&'a Mapping>, StepError>,
) -> Vec<(&'a Line, &'a Mapping)> {
    let mut due = Vec::new();
    for (line, seen) in looked {
        let decided = seen.as_ref().map_err(|error| line.balancer.failure(error)).and_then(|seen| decide(line, seen));
        match decided {
            Ok(mapping) => due.extend(mapping.map(|mapping| (line, mapping))),
            Err(error) => errors.push(error),
        }
    }
    due
}

/// Whether it was deleted, and a person has taken it out of the settings: else it may be the credentials' mistake.
fn is_gone(line: &Line, seen: &Result<Seen, Error>) -> bool {
    let refusal = seen.as_ref().err().and_then(Error::refusal);
    !line.configured && refusal.is_some_and(Refusal::is_not_found)
}

fn says_already_so(refusal: &Refusal) -> bool {
    refusal.code.ends_with("ZoneMappingsNotChanged")
}

#[async_trait]
impl IsolationStep for DnsAlibaba {
    fn name(&self) -> StepName {
        StepName::new("dns_alibaba")
    }

    fn granularity(&self) -> Granularity {
        Granularity::AllOrNothing
    }

    /// How each load balancer has the zone. One that can't be read for good keeps no other waiting: applying tells of it.
    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let cloud_zone = self.cloud_zone(zone)?;
        let (mut receipt, mut errors) = (Receipt::default(), Vec::new());
        for (balancer, seen) in self.read_all().await? {
            let noted = seen.map_err(|error| balancer.failure(&error));
            match noted.and_then(|seen| note(&balancer, &seen, &cloud_zone)) {
                Ok(note) => drop(receipt.0.insert(plan::key(&balancer), note)),
                Err(error) => errors.push(error),
            }
        }
        let waits = errors.iter().any(|error| matches!(error, StepError::Transient { .. }));
        if waits || receipt.0.is_empty() {
            all_of(&errors)?;
        }
        Ok(receipt)
    }

    async fn apply(&self, _: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if share > Share::NONE { self.give_back(receipt).await } else { self.shift(receipt).await }
    }

    async fn confirm(&self, _: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let given_back = share > Share::NONE;
        let wanted = if given_back { State::Active } else { State::Shifted };
        let mut errors = Vec::new();
        for (line, seen) in self.read_lines(receipt).await? {
            if given_back && is_gone(&line, &seen) {
                continue;
            }
            let seen = seen.map_err(|error| line.balancer.failure(&error));
            errors.extend(seen.and_then(|seen| line.confirm(&seen, &wanted)).err());
        }
        all_of(&errors)
    }

    /// None: the cloud keeps no note of who shifted a zone. Records are all there is to undo by.
    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        Ok(BTreeSet::new())
    }
}

#[async_trait]
impl RealStep for DnsAlibaba {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let cloud_zone = self.cloud_zone(zone)?;
        let mut changes = Vec::new();
        for (balancer, seen) in self.read_all().await? {
            changes.push(match seen {
                Ok(seen) => probe::prospect(&balancer, &seen, &cloud_zone, share),
                Err(error) => format!("can't be told: {}", balancer.failure(&error)),
            });
        }
        Ok(Preview { changes, ..Preview::default() })
    }

    async fn probe(&self) -> Vec<Probe> {
        self.check().await
    }

    /// Gives nothing back, as it can't know what is ours; says what is shifted.
    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let only = zone.map(|zone| self.cloud_zone(zone)).transpose()?;
        let (mut shifted, mut errors) = (Vec::new(), Vec::new());
        for (balancer, seen) in self.read_all().await? {
            match seen {
                Ok(seen) => shifted.extend(
                    seen.zone_mappings
                        .iter()
                        .filter(|mapping| mapping.status == State::Shifted)
                        .filter(|mapping| only.as_ref().is_none_or(|only| *only == mapping.zone_id))
                        .map(|mapping| format!("{} of {balancer}", mapping.zone_id)),
                ),
                Err(error) => errors.push(balancer.failure(&error)),
            }
        }
        all_of(&errors)?;
        let told = |shifted: &[String]| {
            let rule = "given back only where a ZoneIsolation says that zoneward did it";
            format!("nothing by marks, as the cloud keeps none (shifted: {}; {rule})", shifted.join(", "))
        };
        Ok(if shifted.is_empty() { Vec::new() } else { vec![told(&shifted)] })
    }
}
