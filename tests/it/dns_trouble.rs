//! The DNS step when somebody interferes, or the server refuses or is silent: nothing breaks, and it tells what to do.

use std::net::TcpListener;
use std::sync::Arc;

use zoneward::domain::Period;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::isolate::steps::dns_rfc2136::{Rfc2136, Settings};
use zoneward::isolate::steps::{Probe, RealStep};
use zoneward::ports::IsolationStep;

use crate::bind::{Bind, SECRET};
use crate::dns::{
    RECORDS, between, give_back, is_update_request, listed, marks, permanent, settings, step, transient, withdraw, zone,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_somebody_else_in_between_is_not_overwritten() {
    let bind = Bind::start("example.org.", RECORDS);
    let (before, direct) = (listed(&bind), Arc::new(step(&bind)));
    let b = withdraw(&direct, "b").await;
    // Just before the first update arrives, somebody adds the addresses of b.
    let (somebody, runtime, once) = (Arc::clone(&direct), tokio::runtime::Handle::current(), std::sync::Once::new());
    let address = between(bind.address(), move |message| {
        if is_update_request(message) {
            once.call_once(|| runtime.block_on(give_back(&somebody, "b", &b)));
        }
    });
    let step = Rfc2136::new(settings(address, &bind));
    let receipt = step.capture(&zone("a")).await.unwrap();
    let why = transient(step.apply(&zone("a"), &receipt, Share::NONE).await);
    assert_eq!(why, "the records of api.example.org. were changed by somebody else just now; they are read anew");
    assert_eq!((listed(&bind), marks(&bind)), (before.clone(), vec![]));
    withdraw(&step, "a").await;
    assert_eq!(listed(&bind).len(), 3);
    give_back(&step, "a", &receipt).await;
    assert_eq!(listed(&bind), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_answer_is_not_believed() {
    let bind = Bind::start("example.org.", RECORDS);
    let address = between(bind.address(), |message| {
        let at = message.windows(4).position(|bytes| bytes == [192, 0, 2, 1]);
        if let Some(at) = at {
            message[at + 3] = 99;
        }
    });
    let why = transient(Rfc2136::new(settings(address, &bind)).capture(&zone("a")).await);
    assert!(why.ends_with("gave an answer without the signature of `zoneward-key`"), "{why}");
}

#[tokio::test]
async fn a_wrong_key_is_told_and_never_shown() {
    let bind = Bind::start("example.org.", RECORDS);
    let right = settings(bind.address(), &bind);
    let file = |name: &str, text: &str| {
        let path = bind.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let other = "YW5vdGhlciBzZWNyZXQ=";
    let wrong_secret = Settings { key_file: file("other", other), ..right.clone() };
    let unknown_key = Settings { key_name: "no-such-key".to_owned(), ..right.clone() };
    let no_base64 = Settings { key_file: file("bind", &format!("secret \"{SECRET}\";")), ..right.clone() };
    let no_file = Settings { key_file: "/no/such/file".into(), ..right.clone() };
    let wrong_algorithm: Settings = {
        let mut json = serde_json::to_value(&right).unwrap();
        json["algorithm"] = "hmac-sha512".into();
        serde_json::from_value(json).unwrap()
    };
    let hint = "compare key_name and algorithm with the server's, and what the key may change there";
    let expected = [
        (wrong_secret, "is not that of its key `zoneward-key`: compare it with the server's"),
        (unknown_key, &format!("it has no key `no-such-key` of hmac-sha256, or not for this: {hint}")),
        (wrong_algorithm, &format!("it has no key `zoneward-key` of hmac-sha512, or not for this: {hint}")),
        (no_base64, "must hold nothing but the DNS key's secret in base64, as between the quotes after `secret`"),
        (no_file, "the DNS key in /no/such/file can't be read: No such file or directory (os error 2)"),
    ];
    let before = listed(&bind);
    for (settings, end) in expected {
        let step = Rfc2136::new(settings);
        let why = permanent(step.apply(&zone("a"), &Receipt::default(), Share::NONE).await);
        assert!(why.ends_with(end), "{why}");
        assert!(!why.contains(other) && !why.contains(SECRET), "{why}");
        assert_eq!(step.probe().await, [Probe::broken(why)]);
    }
    assert_eq!(listed(&bind), before);
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let mut records = RECORDS.to_vec();
    records.extend(["web 60 IN A 192.0.2.1", "web 60 IN A 192.0.2.2", "www 60 IN CNAME web"]);
    let bind = Bind::start("example.org.", &records);
    let named = |name: &str| {
        let mut settings = settings(bind.address(), &bind);
        settings.records[0].name = name.to_owned();
        Rfc2136::new(settings)
    };
    let why = permanent(named("web.example.org.").apply(&zone("a"), &Receipt::default(), Share::NONE).await);
    let policy = "the key `zoneward-key` may not change web.example.org.: its update-policy must grant A and AAAA at \
                  web.example.org., and TXT at _zoneward.web.example.org.";
    assert_eq!(why, format!("the DNS server {} refuses: {policy}", bind.address()));
    assert_eq!(named("web.example.org.").probe().await, [Probe::broken(why)]);
    let why = permanent(named("www.example.org.").capture(&zone("a")).await);
    assert!(why.starts_with("www.example.org. is an alias (CNAME)"), "{why}");
    let mut elsewhere = settings(bind.address(), &bind);
    elsewhere.zone = "example.com.".to_owned();
    elsewhere.records[0].name = "api.example.com.".to_owned();
    let why = permanent(Rfc2136::new(elsewhere).capture(&zone("a")).await);
    assert!(why.contains("api.example.com."), "{why}");
}

#[tokio::test]
async fn a_server_that_is_down_or_silent_is_worth_another_try() {
    let bind = Bind::start("example.org.", RECORDS);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = transient(Rfc2136::new(settings(nobody, &bind)).capture(&zone("a")).await);
    assert_eq!(why, format!("the DNS server {nobody} can't be reached over TCP: Connection refused (os error 111)"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = settings(silent.local_addr().unwrap(), &bind);
    settings.timeout = Period::from_secs(1);
    let why = transient(Rfc2136::new(settings).apply(&zone("a"), &Receipt::default(), Share::FULL).await);
    assert!(why.ends_with("gave no answer within 1s"), "{why}");
}
