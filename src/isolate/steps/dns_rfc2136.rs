//! No more north-south traffic: a zone's addresses leave the names' record sets, by dynamic updates (RFC 2136) that are
//! signed (RFC 8945).

mod conversation;
mod listing;
mod settings;

pub use settings::{RecordSettings, Settings};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use async_trait::async_trait;
use hickory_proto::op::Message;
use hickory_proto::rr::Name;

use self::conversation::{Conversation, permanent, transient};
use self::listing::{Addresses, Listing, enumerate};
use self::settings::parse_name;
use super::{Preview, Probe, RealStep};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::ports::{IsolationStep, StepError};

/// Withdraws addresses, and gives back what was there.
///
/// Guarantees: a name changes in one update, which the server refuses if anybody else has changed it since it was read;
/// others' addresses and other zones' marks are never touched; no name loses its last address.
pub struct Rfc2136 {
    settings: Settings,
}

impl Rfc2136 {
    pub const fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// What is where, and whether the server takes the key.
    async fn check(&self) -> Result<Vec<String>, StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        let mut lines = vec![format!("{} answers", self.settings.server)];
        for (name, record) in self.names()? {
            let listing = self.look(&mut conversation, &name, &Addresses::new()).await?;
            for zone in record.addresses.keys() {
                lines.extend(sight(&listing, zone, &record.addresses_of(zone)));
            }
            let addresses = record.addresses.values().flatten().copied();
            conversation.update(listing.rehearsal(addresses), &name).await?;
            lines.push(format!("{name} and its marker can be changed with the key {}", self.settings.key_name));
        }
        Ok(lines)
    }

    /// What a name has. Of the marks beside it, those of addresses that the settings or a receipt name are ours: others may
    /// withdraw addresses of the same name.
    async fn look(
        &self,
        conversation: &mut Conversation<'_>,
        name: &Name,
        were_there: &Addresses,
    ) -> Result<Listing, StepError> {
        let mut listing = conversation.read(name).await?;
        let names = self.names()?;
        let configured = names.iter().filter(|(known, _)| known == name);
        let addresses = configured.flat_map(|(_, record)| record.addresses.values().flatten());
        listing.ours = addresses.chain(were_there.keys()).copied().collect();
        Ok(listing)
    }

    fn names(&self) -> Result<Vec<(Name, &RecordSettings)>, StepError> {
        let named = |record| Ok((name_of(record)?, record));
        self.settings.records.iter().map(named).collect()
    }

    async fn withdraw(&self, zone: &Zone) -> Result<(), StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        let mut updates: Vec<(Name, Message)> = Vec::new();
        // Every name first, so that nothing is withdrawn if one of them would be left with no address.
        for (name, record) in self.names()? {
            let listing = self.look(&mut conversation, &name, &Addresses::new()).await?;
            let withdrawal = listing.withdrawal(zone, &record.addresses_of(zone)).map_err(permanent)?;
            updates.extend(withdrawal.map(|update| (name, update)));
        }
        for (name, update) in updates {
            conversation.update(update, &name).await?;
        }
        Ok(())
    }

    async fn give_back(&self, zone: &Zone, receipt: &Receipt) -> Result<(), StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        // Each is tried, whatever came of another.
        let mut result = Ok(());
        for (name, were_there) in self.to_restore(receipt)? {
            let returned = match self.look(&mut conversation, &name, &were_there).await {
                Ok(listing) => match listing.return_of(zone, &were_there) {
                    Some(update) => conversation.update(update, &name).await,
                    None => Ok(()),
                },
                Err(error) => Err(error),
            };
            result = result.and(returned);
        }
        result
    }

    /// What the receipt says was there, at the names of the settings and at those that they had at the time.
    fn to_restore(&self, receipt: &Receipt) -> Result<BTreeMap<Name, Addresses>, StepError> {
        let mut names: BTreeMap<Name, Addresses> =
            self.names()?.into_iter().map(|(name, _)| (name, Addresses::new())).collect();
        for (key, ttl) in &receipt.0 {
            let unreadable =
                || permanent(format!("the receipt has `{key}`: `{ttl}`, which is no name, address and TTL"));
            let (name, address) = key.split_once(' ').ok_or_else(unreadable)?;
            let name = parse_name(name).map_err(|_| unreadable())?;
            let address = address.parse().map_err(|_| unreadable())?;
            names.entry(name).or_default().insert(address, ttl.parse().map_err(|_| unreadable())?);
        }
        Ok(names)
    }

    async fn confirm_withdrawn(&self, zone: &Zone) -> Result<(), StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        for (name, record) in self.names()? {
            let there = self.look(&mut conversation, &name, &Addresses::new()).await?.addresses();
            let left: Vec<IpAddr> =
                record.addresses_of(zone).into_iter().filter(|address| there.contains_key(address)).collect();
            if !left.is_empty() {
                return Err(transient(format!("{name} still has {} of {zone}", enumerate(&left))));
            }
        }
        Ok(())
    }

    async fn confirm_returned(&self, zone: &Zone, receipt: &Receipt) -> Result<(), StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        for (name, were_there) in self.to_restore(receipt)? {
            let listing = self.look(&mut conversation, &name, &were_there).await?;
            let there = listing.addresses();
            let missing: Vec<IpAddr> =
                listing.due(zone, &were_there).into_keys().filter(|address| !there.contains_key(address)).collect();
            if !missing.is_empty() {
                return Err(transient(format!("{name} still lacks {} of {zone}", enumerate(&missing))));
            }
            if !listing.withdrawn(zone).is_empty() {
                return Err(transient(format!("{} still has marks of {zone}", listing.marker_name)));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl IsolationStep for Rfc2136 {
    fn name(&self) -> StepName {
        StepName::new("dns_rfc2136")
    }

    fn granularity(&self) -> Granularity {
        Granularity::AllOrNothing
    }

    /// The zone's addresses that are there, each as `name address` and its TTL. One with a mark was there before.
    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        let mut receipt = Receipt::default();
        for (name, record) in self.names()? {
            let listing = self.look(&mut conversation, &name, &Addresses::new()).await?;
            let of_zone = record.addresses_of(zone);
            let mut were_there = listing.addresses();
            were_there.retain(|address, _| of_zone.contains(address));
            for (address, ttl) in listing.due(zone, &were_there) {
                receipt.0.insert(format!("{} {address}", name.to_ascii()), ttl.to_string());
            }
        }
        Ok(receipt)
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if share > Share::NONE { self.give_back(zone, receipt).await } else { self.withdraw(zone).await }
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        if share > Share::NONE {
            self.confirm_returned(zone, receipt).await
        } else {
            self.confirm_withdrawn(zone).await
        }
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        let mut zones = BTreeSet::new();
        for (name, _) in self.names()? {
            zones.extend(self.look(&mut conversation, &name, &Addresses::new()).await?.withdrawn_zones());
        }
        Ok(zones)
    }
}

#[async_trait]
impl RealStep for Rfc2136 {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let change = |record: &RecordSettings| {
            let addresses: Vec<IpAddr> = record.addresses_of(zone).into_iter().collect();
            if addresses.is_empty() {
                format!("{}: no address of the zone is configured", record.name)
            } else if share > Share::NONE {
                format!("{} keeps {}", record.name, enumerate(&addresses))
            } else {
                format!("{} loses {}", record.name, enumerate(&addresses))
            }
        };
        Ok(Preview { changes: self.settings.records.iter().map(change).collect(), ..Preview::default() })
    }

    async fn probe(&self) -> Vec<Probe> {
        vec![match self.check().await {
            Ok(lines) => Probe::Works(lines.join("\n")),
            Err(error) => Probe::broken(error.to_string()),
        }]
    }

    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let mut conversation = Conversation::open(&self.settings).await?;
        let mut lines = Vec::new();
        for (name, _) in self.names()? {
            let withdrawn = self.look(&mut conversation, &name, &Addresses::new()).await?.withdrawn_zones();
            for zone in withdrawn.iter().filter(|withdrawn| zone.is_none_or(|zone| zone == *withdrawn)) {
                // Read anew: the zone before has changed it.
                let listing = self.look(&mut conversation, &name, &Addresses::new()).await?;
                let Some(update) = listing.return_of(zone, &Addresses::new()) else { continue };
                conversation.update(update, &name).await?;
                let there = listing.addresses();
                lines.extend(listing.withdrawn(zone).into_iter().map(|(address, ttl)| match there.get(&address) {
                    None => format!("{name} has {address} of {zone} again, with a TTL of {ttl} s"),
                    Some(_) => format!("{name} had {address} of {zone} again already"),
                }));
            }
        }
        Ok(lines)
    }
}

fn name_of(record: &RecordSettings) -> Result<Name, StepError> {
    parse_name(&record.name).map_err(permanent)
}

/// What is there of a zone, for people.
fn sight(listing: &Listing, zone: &Zone, addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    let (name, there, withdrawn) = (&listing.name, listing.addresses(), listing.withdrawn(zone));
    let mut lines: Vec<String> = addresses
        .iter()
        .map(|address| match (there.get(address), withdrawn.get(address)) {
            (Some(ttl), _) => format!("{name} has {address} of {zone}, with a TTL of {ttl} s"),
            (None, Some(_)) => format!("{name} has {address} of {zone} withdrawn"),
            (None, None) => format!("{name} does not have {address} of {zone}: compare the settings with the server"),
        })
        .collect();
    lines.extend(listing.withdrawal(zone, addresses).err());
    lines
}
