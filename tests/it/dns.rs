//! The DNS step on a real BIND: what was there comes back exactly, others' records stay, and refusals tell what to do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zoneward::domain::Zone;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::isolate::steps::dns_rfc2136::{Rfc2136, Settings};
use zoneward::isolate::steps::{Probe, RealStep, StepSettings};
use zoneward::ports::{IsolationStep, StepError};

use crate::bind::{Bind, KEY_NAME};
use crate::contract::{self, Mark};

pub const RECORDS: &[&str] = &[
    "api 60 IN A 192.0.2.1",
    "api 60 IN A 192.0.2.2",
    "api 60 IN A 192.0.2.3",
    "api 300 IN AAAA 2001:db8::1",
    "api 300 IN AAAA 2001:db8::2",
    "api 900 IN TXT \"somebody's own\"",
];

/// `a` has an address that is not listed, 192.0.2.10. The whole of IPv6 is in `a` and `b`.
pub fn settings(address: SocketAddr, bind: &Bind) -> Settings {
    serde_json::from_value(serde_json::json!({
        "server": address.to_string(), "zone": "example.org.",
        "key_name": KEY_NAME, "key_file": bind.key_file(), "timeout": "2s",
        "records": [{ "name": "api.example.org.", "addresses": {
            "a": ["192.0.2.1", "192.0.2.10", "2001:db8::1"], "b": ["192.0.2.2", "2001:db8::2"], "c": ["192.0.2.3"] } }],
    }))
    .unwrap()
}

pub fn step(bind: &Bind) -> Rfc2136 {
    let settings = settings(bind.address(), bind);
    assert_eq!(settings.problems(), []);
    Rfc2136::new(settings)
}

pub fn zone(name: &str) -> Zone {
    Zone::new(name)
}

pub fn listed(bind: &Bind) -> Vec<String> {
    ["A", "AAAA"].iter().flat_map(|kind| bind.dig("api.example.org.", kind)).collect()
}

pub fn marks(bind: &Bind) -> Vec<String> {
    bind.dig("_zoneward.api.example.org.", "TXT")
}

pub async fn withdraw(step: &Rfc2136, name: &str) -> Receipt {
    let receipt = step.capture(&zone(name)).await.unwrap();
    step.apply(&zone(name), &receipt, Share::NONE).await.unwrap();
    step.confirm(&zone(name), &receipt, Share::NONE).await.unwrap();
    receipt
}

pub async fn give_back(step: &Rfc2136, name: &str, receipt: &Receipt) {
    step.apply(&zone(name), receipt, Share::FULL).await.unwrap();
    step.confirm(&zone(name), receipt, Share::FULL).await.unwrap();
}

/// Why a person has to mend something.
pub fn permanent<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
    match result {
        Err(StepError::Permanent { why }) => why,
        other => panic!("{other:?}"),
    }
}

/// Why another try is worth it.
pub fn transient<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
    match result {
        Err(StepError::Transient { why, retry_after }) => {
            assert_eq!(retry_after.as_secs(), 2);
            why
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_there_comes_back_exactly() {
    let bind = Bind::start("example.org.", RECORDS);
    let (step, before) = (step(&bind), listed(&bind));
    let receipt = withdraw(&step, "a").await;
    let expected = [("api.example.org. 192.0.2.1", "60"), ("api.example.org. 2001:db8::1", "300")];
    assert_eq!(receipt, Receipt(expected.map(|(key, ttl)| (key.to_owned(), ttl.to_owned())).into()));
    assert_eq!(
        listed(&bind),
        [
            "api.example.org. 60 IN A 192.0.2.2",
            "api.example.org. 60 IN A 192.0.2.3",
            "api.example.org. 300 IN AAAA 2001:db8::2"
        ]
    );
    assert_eq!(
        marks(&bind),
        [
            "_zoneward.api.example.org. 60 IN TXT \"a 192.0.2.1 60\"",
            "_zoneward.api.example.org. 60 IN TXT \"a 2001:db8::1 300\""
        ]
    );
    give_back(&step, "a", &receipt).await;
    assert_eq!(listed(&bind), before);
    assert_eq!(marks(&bind), [""; 0]);
    assert_eq!(bind.dig("api.example.org.", "TXT"), ["api.example.org. 900 IN TXT \"somebody's own\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_may_run_twice() {
    let bind = Bind::start("example.org.", RECORDS);
    let updates = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&updates);
    let address = between(bind.address(), move |message| {
        count.fetch_add(usize::from(is_update_request(message)), Ordering::SeqCst);
    });
    let (step, before) = (Rfc2136::new(settings(address, &bind)), listed(&bind));
    let receipt = withdraw(&step, "a").await;
    let (once, marked) = (listed(&bind), marks(&bind));
    assert_eq!(withdraw(&step, "a").await, receipt, "what was withdrawn was there before");
    assert_eq!((listed(&bind), marks(&bind), updates.load(Ordering::SeqCst)), (once, marked, 1));
    give_back(&step, "a", &receipt).await;
    give_back(&step, "a", &receipt).await;
    assert_eq!((listed(&bind), marks(&bind), updates.load(Ordering::SeqCst)), (before, vec![], 2));
}

#[tokio::test]
async fn the_last_address_of_a_name_stays() {
    let bind = Bind::start("example.org.", RECORDS);
    let step = step(&bind);
    let (a, b) = (withdraw(&step, "a").await, withdraw(&step, "b").await);
    let left = listed(&bind);
    assert_eq!(left, ["api.example.org. 60 IN A 192.0.2.3"], "IPv6 may go, as IPv4 is left");
    let why = permanent(step.apply(&zone("c"), &Receipt::default(), Share::NONE).await);
    assert_eq!(
        why,
        "api.example.org. would be left with no address: all that it has, 192.0.2.3, is of c. It was left as it is. \
         Give the name an address in another zone, or give back one that is withdrawn"
    );
    assert_eq!(listed(&bind), left);
    give_back(&step, "a", &a).await;
    withdraw(&step, "c").await;
    give_back(&step, "b", &b).await;
    assert_eq!(listed(&bind).len(), 4);
}

#[tokio::test]
async fn zones_do_not_disturb_each_other() {
    let bind = Bind::start("example.org.", RECORDS);
    let (step, before) = (step(&bind), listed(&bind));
    let a = withdraw(&step, "a").await;
    let of_a = marks(&bind);
    let b = withdraw(&step, "b").await;
    assert_eq!(marks(&bind).len(), 4);
    give_back(&step, "b", &b).await;
    assert_eq!(marks(&bind), of_a);
    give_back(&step, "a", &a).await;
    assert_eq!(listed(&bind), before);
}

#[tokio::test]
async fn marks_are_enough_to_give_back() {
    let bind = Bind::start("example.org.", RECORDS);
    let (step, before) = (step(&bind), listed(&bind));
    withdraw(&step, "a").await;
    give_back(&step, "a", &Receipt::default()).await;
    assert_eq!((listed(&bind), marks(&bind)), (before.clone(), vec![]));

    withdraw(&step, "a").await;
    withdraw(&step, "b").await;
    let again = |address, zone, ttl| format!("api.example.org. has {address} of {zone} again, with a TTL of {ttl} s");
    let lines = step.sweep(Some(&zone("b"))).await.unwrap();
    assert_eq!(lines, [again("192.0.2.2", "b", 60), again("2001:db8::2", "b", 300)]);
    withdraw(&step, "b").await;
    let lines = step.sweep(None).await.unwrap();
    assert_eq!(lines.len(), 4);
    assert_eq!(step.sweep(None).await, Ok(vec![]));
    assert_eq!((listed(&bind), marks(&bind)), (before, vec![]));
}

#[tokio::test]
async fn an_address_that_was_put_back_by_hand_is_withdrawn_again() {
    let bind = Bind::start("example.org.", &["api 60 IN A 192.0.2.2", "api 300 IN AAAA 2001:db8::1"]);
    let step = step(&bind);
    let receipt = withdraw(&step, "a").await;
    let marked = marks(&bind);
    // Another client adds it, with a TTL of its own, and leaves the mark.
    let mut by_hand = settings(bind.address(), &bind);
    by_hand.records[0].addresses = [(zone("hand"), vec!["2001:db8::1".parse().unwrap()])].into();
    let by_hand = Rfc2136::new(by_hand);
    let added = Receipt([("api.example.org. 2001:db8::1".to_owned(), "30".to_owned())].into());
    give_back(&by_hand, "hand", &added).await;
    let why = transient(step.confirm(&zone("a"), &receipt, Share::NONE).await);
    assert_eq!(why, "api.example.org. still has 2001:db8::1 of a");
    let why = transient(step.confirm(&zone("a"), &receipt, Share::FULL).await);
    assert_eq!(why, "_zoneward.api.example.org. still has marks of a");
    withdraw(&step, "a").await;
    assert_eq!(marks(&bind), marked);
    give_back(&by_hand, "hand", &added).await;
    let lines = step.sweep(None).await.unwrap();
    assert_eq!(lines, ["api.example.org. had 2001:db8::1 of a again already"]);
    assert_eq!(bind.dig("api.example.org.", "AAAA"), ["api.example.org. 30 IN AAAA 2001:db8::1"]);
    assert_eq!(marks(&bind), [""; 0]);
}

/// Others' TTL is theirs: a set has one, and what comes back into it takes it on.
#[tokio::test]
async fn a_ttl_that_was_changed_meanwhile_is_kept() {
    let bind = Bind::start("example.org.", &["api 60 IN A 192.0.2.2"]);
    let receipt = Receipt([("api.example.org. 192.0.2.1".to_owned(), "30".to_owned())].into());
    give_back(&step(&bind), "a", &receipt).await;
    assert_eq!(listed(&bind), ["api.example.org. 60 IN A 192.0.2.1", "api.example.org. 60 IN A 192.0.2.2"]);
}

#[tokio::test]
async fn nothing_is_withdrawn_if_one_name_would_be_left_empty() {
    let mut records = RECORDS.to_vec();
    records.push("xn--bcher-kva 60 IN A 192.0.2.1");
    let bind = Bind::start("example.org.", &records);
    let before = listed(&bind);
    let mut settings = settings(bind.address(), &bind);
    let mut other = settings.records[0].clone();
    other.name = "XN--BCHER-KVA.example.org".to_owned();
    settings.records.push(other);
    let step = Rfc2136::new(settings);
    let receipt = step.capture(&zone("a")).await.unwrap();
    assert_eq!(receipt.0.get("xn--bcher-kva.example.org. 192.0.2.1").map(String::as_str), Some("60"));
    let why = permanent(step.apply(&zone("a"), &receipt, Share::NONE).await);
    assert!(why.contains("would be left with no address"), "{why}");
    assert_eq!((listed(&bind), marks(&bind)), (before, vec![]));
    give_back(&step, "a", &receipt).await;
    let receipt = Receipt([("api.example.org.".to_owned(), "60".to_owned())].into());
    let why = permanent(step.apply(&zone("a"), &receipt, Share::FULL).await);
    assert_eq!(why, "the receipt has `api.example.org.`: `60`, which is no name, address and TTL");
}

/// As many as settings and records may have, in one message each way.
#[tokio::test]
async fn many_addresses_go_and_come_back() {
    let records: Vec<String> = (0..100)
        .flat_map(|i| {
            [format!("api 60 IN A 192.0.2.{i}"), format!("api 60 IN AAAA 2001:db8:ffff:ffff:ffff:ffff:ffff:{i:x}")]
        })
        .collect();
    let bind = Bind::start("example.org.", &records.iter().map(String::as_str).collect::<Vec<_>>());
    let mut settings = settings(bind.address(), &bind);
    let of_zone = |i: u16| {
        (0..10).flat_map(move |j| {
            let v6 = [0x2001, 0xdb8, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, i * 10 + j];
            [[192, 0, 2, u8::try_from(i * 10 + j).unwrap()].into(), v6.into()]
        })
    };
    let zones: Vec<String> = (0..6).map(|i| format!("{i}{}", "z".repeat(62))).collect();
    settings.records[0].addresses = (0..).zip(&zones).map(|(i, name)| (zone(name), of_zone(i).collect())).collect();
    assert_eq!(settings.problems(), []);
    let (step, before) = (Rfc2136::new(settings), listed(&bind));
    let mut receipts = Vec::new();
    for name in &zones[..5] {
        receipts.push((name, withdraw(&step, name).await));
    }
    assert_eq!((listed(&bind).len(), marks(&bind).len()), (100, 100));
    let why = permanent(step.apply(&zone(&zones[5]), &Receipt::default(), Share::NONE).await);
    assert!(why.ends_with("have too many records: 100 of a type is the most"), "{why}");
    for (name, receipt) in receipts {
        give_back(&step, name, &receipt).await;
    }
    assert_eq!((listed(&bind), marks(&bind)), (before, vec![]));
}

#[tokio::test]
async fn confirm_tells_what_is_not_so() {
    let bind = Bind::start("example.org.", RECORDS);
    let step = step(&bind);
    let receipt = step.capture(&zone("a")).await.unwrap();
    let why = transient(step.confirm(&zone("a"), &receipt, Share::NONE).await);
    assert_eq!(why, "api.example.org. still has 192.0.2.1, 2001:db8::1 of a");
    step.apply(&zone("a"), &receipt, Share::NONE).await.unwrap();
    let why = transient(step.confirm(&zone("a"), &receipt, Share::FULL).await);
    assert_eq!(why, "api.example.org. still lacks 192.0.2.1, 2001:db8::1 of a");
}

/// Passes messages on to a server, each as it is or as `change` leaves it.
pub fn between(server: SocketAddr, change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> SocketAddr {
    fn pass(mut from: TcpStream, mut to: TcpStream, change: &dyn Fn(&mut Vec<u8>)) -> std::io::Result<()> {
        loop {
            let mut length = [0; 2];
            from.read_exact(&mut length)?;
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            from.read_exact(&mut message)?;
            change(&mut message);
            to.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes())?;
            to.write_all(&message)?;
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, change) = (listener.local_addr().unwrap(), Arc::new(change));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let change = Arc::clone(&change);
                std::thread::spawn(move || {
                    let _ = pass(from, to.try_clone().unwrap(), &*change);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    address
}

/// An opcode of 5, without the flag of an answer.
pub fn is_update_request(message: &[u8]) -> bool {
    message[2] >> 3 == 5
}

#[tokio::test]
async fn a_probe_says_what_is_where_and_changes_nothing() {
    let bind = Bind::start("example.org.", RECORDS);
    let step = step(&bind);
    withdraw(&step, "b").await;
    let serial = bind.dig("example.org.", "SOA");
    let probes = step.probe().await;
    let expected = [
        format!("{} answers", bind.address()),
        "api.example.org. has 192.0.2.1 of a, with a TTL of 60 s".to_owned(),
        "api.example.org. does not have 192.0.2.10 of a: compare the settings with the server".to_owned(),
        "api.example.org. has 2001:db8::1 of a, with a TTL of 300 s".to_owned(),
        "api.example.org. has 192.0.2.2 of b withdrawn".to_owned(),
        "api.example.org. has 2001:db8::2 of b withdrawn".to_owned(),
        "api.example.org. has 192.0.2.3 of c, with a TTL of 60 s".to_owned(),
        "api.example.org. and its marker can be changed with the key zoneward-key".to_owned(),
    ];
    assert_eq!(probes, [Probe::Works(expected.join("\n"))]);
    assert_eq!(bind.dig("example.org.", "SOA"), serial);
    // A rotated key is read anew, by a step that lives on.
    std::fs::write(bind.key_file(), "YW5vdGhlciBzZWNyZXQ=").unwrap();
    let probes = step.probe().await;
    assert!(
        matches!(&probes[..], [Probe::Broken { found, .. }] if found.contains("compare it with the server's")),
        "{probes:?}"
    );
}

#[tokio::test]
async fn marks_of_others_at_the_same_name_are_left_alone() {
    let bind = Bind::start("example.org.", RECORDS);
    // Another cluster knows two addresses of the same zone at the same name, which this one does not.
    let theirs: Settings = serde_json::from_value(serde_json::json!({
        "server": bind.address().to_string(), "zone": "example.org.", "key_name": KEY_NAME, "key_file": bind.key_file(),
        "records": [{ "name": "api.example.org.", "addresses": { "a": ["192.0.2.3"] } }],
    }))
    .unwrap();
    let theirs = Rfc2136::new(theirs);
    withdraw(&theirs, "a").await;
    let mut settings = settings(bind.address(), &bind);
    settings.records[0].addresses.remove(&zone("c"));
    let ours = Rfc2136::new(settings);
    assert!(ours.marked().await.unwrap().is_empty());
    assert_eq!(theirs.marked().await.unwrap(), [zone("a")].into());
    let receipt = withdraw(&ours, "a").await;
    assert_eq!(ours.marked().await.unwrap(), [zone("a")].into());
    give_back(&ours, "a", &receipt).await;
    assert!(!listed(&bind).iter().any(|line| line.ends_with("192.0.2.3")), "what they withdrew stays withdrawn");
    assert_eq!(theirs.marked().await.unwrap(), [zone("a")].into());
}

#[tokio::test]
async fn names_keep_to_the_contract() {
    let bind = Bind::start("example.org.", RECORDS);
    let listed =
        || serde_json::json!(["api.example.org.", "_zoneward.api.example.org."].map(|name| bind.dig(name, "ANY")));
    contract::holds(&step(&bind), Mark::OnWhatIsChanged, ("b", "c"), listed).await;
}
