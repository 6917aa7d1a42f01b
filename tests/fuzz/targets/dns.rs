//! Messages of a DNS server, and the updates that follow from what they list.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, Record, RecordType};

use super::listing::{Listing, Mark, enumerate};
use crate::domain::Zone;
use crate::{MIB, within};

/// A header may claim so many records of each kind, and names may be compressed.
const MOST_BYTES: usize = 128 * MIB;

pub fn run(data: &[u8]) {
    within(MOST_BYTES, || {
        let Ok(message) = Message::from_vec(data) else { return };
        drop((message.to_string(), message.signature().map(ToString::to_string)));
        let listing = listing(&message);
        let there = listing.addresses();
        let marked: BTreeSet<Zone> = listing.withdrawn_zones();
        for zone in marked.into_iter().chain([Zone::new("a")]).take(4) {
            let half: BTreeSet<IpAddr> = there.keys().copied().step_by(2).collect();
            match listing.withdrawal(&zone, &half) {
                Ok(update) => update.iter().for_each(sendable),
                Err(why) => assert!(!why.is_empty()),
            }
            listing.return_of(&zone, &there).iter().for_each(sendable);
            let returned = listing.due(&zone, &there);
            assert!(there.keys().all(|address| returned.contains_key(address)), "an address is lost on the way back");
            drop(enumerate(returned.keys()));
        }
        sendable(&listing.rehearsal(there.keys().copied()));
    });
}

fn listing(message: &Message) -> Listing {
    let of = |kind: RecordType| -> Vec<Record> {
        message.answers.iter().filter(|record| record.record_type() == kind).cloned().collect()
    };
    let named = message.answers.first().map_or_else(Name::root, |record| record.name.clone());
    let (a, aaaa, txt) = (of(RecordType::A), of(RecordType::AAAA), of(RecordType::TXT));
    let mut ours: BTreeSet<IpAddr> = a.iter().chain(&aaaa).filter_map(|record| record.data.ip_addr()).collect();
    ours.insert([192, 0, 2, 1].into());
    let text = txt.iter().filter_map(|record| record.data.to_string().trim_matches('"').parse::<Mark>().ok());
    text.for_each(|mark| assert!(mark.to_string().parse() == Ok(mark), "a mark reads back as another"));
    Listing { dns_zone: named.clone(), marker_name: named.clone(), name: named, a, aaaa, txt, ours }
}

/// That it is too large is said elsewhere.
fn sendable(update: &Message) {
    if let Ok(bytes) = update.to_vec() {
        drop(Message::from_vec(&bytes));
    }
}
