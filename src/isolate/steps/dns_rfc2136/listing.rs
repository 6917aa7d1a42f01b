//! What a name has, as its server just said, and the one update that changes it (RFC 2136).
//!
//! Beside each name, `_zoneward.<name>` has one TXT string for each withdrawn address, `zone address TTL`: whoever
//! gives addresses back needs nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Message, OpCode, Query, UpdateMessage};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::domain::Zone;

const MARKER_TTL: u32 = 60;

/// As many records as a set may have when something is withdrawn: BIND allows no more by default, and both the update
/// that withdraws and the one that gives back fit into a message of 64 KiB.
const MOST_RECORDS: usize = 100;

/// Addresses and their TTL in seconds.
pub(super) type Addresses = BTreeMap<IpAddr, u32>;

/// A withdrawn address: its availability zone, and the TTL that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub zone: Zone,
    pub address: IpAddr,
    pub ttl: u32,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.zone, self.address, self.ttl)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(zone), Some(address), Some(ttl), None) => Ok(Self {
                zone: Zone::new(zone),
                address: address.parse().map_err(|_| ())?,
                ttl: ttl.parse().map_err(|_| ())?,
            }),
            _ => Err(()),
        }
    }
}

pub(super) struct Listing {
    pub dns_zone: Name,
    pub name: Name,
    pub a: Vec<Record>,
    pub aaaa: Vec<Record>,
    pub marker_name: Name,
    pub txt: Vec<Record>,
    /// Addresses whose marks are ours.
    pub ours: BTreeSet<IpAddr>,
}

impl Listing {
    pub fn addresses(&self) -> Addresses {
        let listed = self.a.iter().chain(&self.aaaa);
        listed.filter_map(|record| Some((record.data.ip_addr()?, record.ttl))).collect()
    }

    /// The marks, each with the record that holds it. Other text beside the name is somebody's own.
    fn marks(&self) -> impl Iterator<Item = (Mark, &Record)> {
        self.txt.iter().filter_map(|record| {
            let RData::TXT(txt) = &record.data else { return None };
            let [text] = &*txt.txt_data else { return None };
            let mark: Mark = std::str::from_utf8(text).ok()?.parse().ok()?;
            self.ours.contains(&mark.address).then_some((mark, record))
        })
    }

    /// What is withdrawn of a zone.
    pub fn withdrawn(&self, zone: &Zone) -> Addresses {
        self.marks().filter(|(mark, _)| mark.zone == *zone).map(|(mark, _)| (mark.address, mark.ttl)).collect()
    }

    pub fn withdrawn_zones(&self) -> BTreeSet<Zone> {
        self.marks().map(|(mark, _)| mark.zone).collect()
    }

    /// The update that takes these addresses of a zone out and marks them; `None` if none of them is there. Or why they
    /// must stay.
    pub fn withdrawal(&self, zone: &Zone, addresses: &BTreeSet<IpAddr>) -> Result<Option<Message>, String> {
        let (mut leaving, staying): (Addresses, Addresses) =
            self.addresses().into_iter().partition(|(address, _)| addresses.contains(address));
        if leaving.is_empty() {
            return Ok(None);
        }
        if staying.is_empty() {
            return Err(self.last(zone, "", leaving.keys()));
        }
        // IPv6 may go where IPv4 is left; but many callers know nothing but IPv4.
        let v4 = |address: &&IpAddr| address.is_ipv4();
        if leaving.keys().any(|it| v4(&it)) && !staying.keys().any(|it| v4(&it)) {
            return Err(self.last(zone, "IPv4 ", leaving.keys().filter(v4)));
        }
        let mut update = self.update();
        for address in leaving.keys() {
            update.add_update(deletion(&Record::from_rdata(self.name.clone(), 0, (*address).into())));
        }
        let marked = self.withdrawn(zone);
        leaving.retain(|address, _| !marked.contains_key(address));
        if [self.a.len(), self.aaaa.len(), self.txt.len() + leaving.len()].iter().any(|count| *count > MOST_RECORDS) {
            let limit = format!("{MOST_RECORDS} of a type is the most");
            return Err(format!("{} and {} have too many records: {limit}", self.name, self.marker_name));
        }
        let ttl = self.txt.first().map_or(MARKER_TTL, |record| record.ttl);
        update.add_updates(leaving.into_iter().map(|(address, had)| {
            let text = Mark { zone: zone.clone(), address, ttl: had }.to_string();
            Record::from_rdata(self.marker_name.clone(), ttl, RData::TXT(TXT::new(vec![text])))
        }));
        Ok(Some(update))
    }

    fn last<'a>(&self, zone: &Zone, family: &str, addresses: impl IntoIterator<Item = &'a IpAddr>) -> String {
        let (name, all) = (&self.name, enumerate(addresses));
        format!(
            "{name} would be left with no {family}address: all that it has, {all}, is of {zone}. It was left as it is. Give \
             the name an address in another zone, or give back one that is withdrawn"
        )
    }

    /// What a zone is to have here again, by its marks and by what is known to have been there.
    pub fn due(&self, zone: &Zone, were_there: &Addresses) -> Addresses {
        let mut due = were_there.clone();
        due.extend(self.withdrawn(zone));
        due
    }

    /// The update that puts back what is due and missing, and removes the zone's marks; `None` if it is so already.
    ///
    /// A set of addresses has one TTL. Where others' addresses are left in it, theirs is kept.
    pub fn return_of(&self, zone: &Zone, were_there: &Addresses) -> Option<Message> {
        let there = self.addresses();
        let mut missing = self.due(zone, were_there);
        missing.retain(|address, _| !there.contains_key(address));
        let marks: Vec<&Record> =
            self.marks().filter(|(mark, _)| mark.zone == *zone).map(|(_, record)| record).collect();
        if missing.is_empty() && marks.is_empty() {
            return None;
        }
        let mut update = self.update();
        for (address, ttl) in missing {
            let siblings = if address.is_ipv4() { &self.a } else { &self.aaaa };
            let ttl = siblings.first().map_or(ttl, |record| record.ttl);
            update.add_update(Record::from_rdata(self.name.clone(), ttl, address.into()));
        }
        update.add_updates(marks.into_iter().map(deletion));
        Some(update)
    }

    /// An update that asks for every right that a withdrawal takes, and changes nothing: it deletes what isn't there.
    pub fn rehearsal(&self, addresses: impl Iterator<Item = IpAddr>) -> Message {
        let mut update = self.update();
        let there = self.addresses();
        let unspecified = |address: IpAddr| if address.is_ipv4() { [0; 4].into() } else { IpAddr::from([0; 16]) };
        let absent: BTreeSet<IpAddr> = addresses.map(unspecified).filter(|a| !there.contains_key(a)).collect();
        for address in absent {
            update.add_update(deletion(&Record::from_rdata(self.name.clone(), 0, address.into())));
        }
        let text = TXT::new(vec!["zoneward check".to_owned()]);
        if !self.txt.iter().any(|record| matches!(&record.data, RData::TXT(there) if *there == text)) {
            update.add_update(deletion(&Record::from_rdata(self.marker_name.clone(), 0, RData::TXT(text))));
        }
        update
    }

    /// An update that the server refuses unless all is exactly as it was read (RFC 2136, 2.4.2 and 2.4.3).
    fn update(&self) -> Message {
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        message.add_zone(Query::query(self.dns_zone.clone(), RecordType::SOA));
        let sets = [
            (&self.name, RecordType::A, &self.a),
            (&self.name, RecordType::AAAA, &self.aaaa),
            (&self.marker_name, RecordType::TXT, &self.txt),
        ];
        for (name, kind, records) in sets {
            if records.is_empty() {
                let mut nothing = Record::update0(name.clone(), 0, kind);
                nothing.dns_class = DNSClass::NONE;
                message.add_pre_requisite(nothing);
            }
            message.add_pre_requisites(
                records.iter().map(|record| Record::from_rdata(name.clone(), 0, record.data.clone())),
            );
        }
        message
    }
}

pub(super) fn enumerate<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> String {
    addresses.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Deletes one record from its set (RFC 2136, 2.5.4).
fn deletion(record: &Record) -> Record {
    let mut deletion = record.clone();
    deletion.dns_class = DNSClass::NONE;
    deletion.ttl = 0;
    deletion
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_other_text_is_no_mark() {
        for text in ["cn-hangzhou-h 192.0.2.1 60", "a 2001:db8::1 0"] {
            assert_eq!(text.parse::<Mark>().map(|mark| mark.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "v=spf1 -all", "a 192.0.2.1", "a 192.0.2.1 -1", "a 192.0.2.1 60 b", "a 192.0.2.256 60"] {
            assert_eq!(text.parse::<Mark>(), Err(()), "{text}");
        }
    }
}
