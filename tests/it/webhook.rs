//! The webhook step against a server that keeps the contract of deploy/webhook.md, and checks every signature itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zoneward::domain::Zone;
use zoneward::domain::isolation::{Granularity, Receipt, Share};
use zoneward::isolate::steps::webhook::{Settings, Webhook};
use zoneward::isolate::steps::{Probe, RealStep, StepSettings};
use zoneward::ports::{IsolationStep, StepError};

use crate::contract::{self, Mark};
use crate::dns::permanent;
use crate::support::root;

const SECRET: &str = "a secret of the tests, 32 chars!";

/// What it answers instead, once each.
type Trouble = Vec<(&'static str, Response)>;

#[derive(Default)]
struct World {
    /// By zone.
    weights: BTreeMap<String, u64>,
    /// Of zones that are out: what they had.
    had: BTreeMap<String, u64>,
    requests: Vec<(String, String)>,
    trouble: Trouble,
    minimal: bool,
    hangs: bool,
}

struct Server {
    world: Arc<Mutex<World>>,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let weights = [("a".to_owned(), 34), ("b".to_owned(), 33)].into();
        let world = Arc::new(Mutex::new(World { weights, ..World::default() }));
        let router = Router::new().fallback(serve).with_state(Arc::clone(&world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
        Self { world, address, folder }
    }

    fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn settings(&self) -> Settings {
        let settings: Settings =
            serde_json::from_value(json!({"url": format!("http://{}/zones?token=of-the-tests", self.address),
            "secret_file": self.secret_file(), "timeout": "1s",
            "headers": [{"name": "X-Key", "value_file": self.secret_file()}]}))
            .unwrap();
        assert_eq!(settings.problems(), []);
        settings
    }

    fn step(&self) -> Webhook {
        Webhook::new(self.settings())
    }

    fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    fn answers(&self, verb: &'static str, response: impl IntoResponse) {
        self.world(|world| world.trouble.push((verb, response.into_response())));
    }
}

/// Independent of how it is signed: from the contract's words.
fn is_signed(headers: &HeaderMap, body: &str) -> bool {
    let text = headers["zoneward-signature"].to_str().unwrap();
    let (t, v1) = text.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    #[allow(clippy::disallowed_methods, reason = "a server of the real world")]
    let now = jiff::Timestamp::now().as_second();
    (now - t.parse::<i64>().unwrap()).abs() < 300 && v1 == hmac_hex(SECRET, &format!("{t}.{body}"))
}

fn hmac_hex(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

async fn serve(State(world): State<Arc<Mutex<World>>>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    if !is_signed(&headers, &body) || headers["x-key"] != *SECRET {
        return (StatusCode::UNAUTHORIZED, r#"{"why": "a wrong signature"}"#).into_response();
    }
    let asked: Value = serde_json::from_str(&body).unwrap();
    assert!(
        asked["version"] == 1
            && asked["step"] == "webhook"
            && asked["idempotency_key"] == *headers["idempotency-key"].to_str().unwrap()
    );
    let verb = asked["verb"].as_str().unwrap();
    let hangs = {
        let mut world = world.lock().unwrap();
        world.requests.push((verb.to_owned(), asked["idempotency_key"].as_str().unwrap().to_owned()));
        if let Some(at) = world.trouble.iter().position(|(of, _)| *of == verb) {
            return world.trouble.remove(at).1;
        }
        world.hangs
    };
    if hangs {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let mut world = world.lock().unwrap();
    answer(&mut world, verb, &asked)
}

fn answer(world: &mut World, verb: &str, asked: &Value) -> Response {
    let zone = asked["zone"].as_str().unwrap_or_default().to_owned();
    if world.minimal && ["marked", "preview", "probe"].contains(&verb) {
        return StatusCode::NOT_IMPLEMENTED.into_response();
    }
    let weight = world.weights.get(&zone).copied();
    let out =
        |world: &World| world.weights.iter().filter(|(_, w)| **w == 0).map(|(z, _)| z.clone()).collect::<Vec<_>>();
    let said = match verb {
        "capture" => {
            let had = world.had.get(&zone).copied().or(weight);
            json!({"receipt": {"weight": had.map_or_else(String::new, |weight| weight.to_string())}})
        }
        "apply" => {
            if asked["share_percent"] == 0 {
                let had = world.weights.insert(zone.clone(), 0).filter(|weight| *weight > 0);
                had.map(|had| world.had.insert(zone, had));
            } else if let Some(had) = world.had.remove(&zone) {
                world.weights.insert(zone, had);
            }
            json!({"done": true})
        }
        "confirm" => {
            let done = (asked["share_percent"] == 0) == (weight == Some(0));
            json!({"done": done, "why": format!("{zone} has {weight:?}")})
        }
        "marked" => json!({"zones": out(world)}),
        "preview" => json!({"changes": [format!("{zone} goes to {}", asked["share_percent"])]}),
        "probe" => json!({"found": "2 zones"}),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    said.to_string().into_response()
}

fn zone() -> Zone {
    Zone::new("a")
}

fn transient<T: std::fmt::Debug>(result: Result<T, StepError>) -> (String, i64) {
    match result {
        Err(StepError::Transient { why, retry_after }) => (why, retry_after.as_secs()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_verb_may_run_twice_with_the_same_key_and_undo_restores_what_was() {
    let (server, zone) = (Server::start().await, zone());
    let step = server.step();
    let before = server.world(|world| world.weights.clone());
    let receipt = step.capture(&zone).await.unwrap();
    assert_eq!(step.capture(&zone).await.unwrap(), receipt);
    for share in [Share::NONE, Share::FULL] {
        for _ in 0..2 {
            step.apply(&zone, &receipt, share).await.unwrap();
            step.confirm(&zone, &receipt, share).await.unwrap();
        }
        let other = if share == Share::NONE { Share::FULL } else { Share::NONE };
        let (why, _) = transient(step.confirm(&zone, &receipt, other).await);
        assert!(why.starts_with("the webhook has not done `confirm` of a yet: a has Some("), "{why}");
        let marked = step.marked().await.unwrap();
        assert_eq!(marked.len(), usize::from(share == Share::NONE));
    }
    assert_eq!(server.world(|world| world.weights.clone()), before);
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (verb, key) in server.world(|world| world.requests.clone()) {
        keys.entry(key).or_default().push(verb);
    }
    let verbs: Vec<&Vec<String>> = keys.values().filter(|verbs| verbs[0] == "apply").collect();
    assert_eq!(verbs, [&["apply", "apply"], &["apply", "apply"]], "one key a wish, whatever the try");
    assert_eq!(keys.len(), 6, "capture, two of apply, two of confirm, marked");
}

#[tokio::test]
async fn what_it_marked_is_given_back_without_a_ledger() {
    let server = Server::start().await;
    let step = server.step();
    for name in ["a", "b"] {
        step.apply(&Zone::new(name), &Receipt::default(), Share::NONE).await.unwrap();
    }
    assert_eq!(step.sweep(Some(&zone())).await.unwrap(), ["a, as the webhook says"]);
    assert_eq!(step.sweep(None).await.unwrap(), ["b, as the webhook says"]);
    assert_eq!(step.sweep(None).await, Ok(vec![]));
    assert_eq!(step.preview(&zone(), Share::NONE).await.unwrap().changes, ["a goes to 0"]);
    let url = format!("http://{}/zones", server.address);
    assert_eq!(step.probe().await, [Probe::Works(format!("{url}: 2 zones"))]);
    // Three verbs may be missing.
    server.world(|world| world.minimal = true);
    assert_eq!((step.marked().await, step.sweep(None).await), (Ok([].into()), Ok(vec![])));
    let preview = step.preview(&zone(), Share::NONE).await.unwrap().changes;
    assert_eq!(preview, [format!("{url} is asked to give a 0 % of its traffic")]);
    assert!(matches!(&step.probe().await[..], [Probe::Unsure { .. }]));
}

#[tokio::test]
async fn what_is_worth_another_try_is_tried_and_what_is_not_is_told() {
    let (server, zone) = (Server::start().await, zone());
    let step = server.step();
    let nothing = Receipt::default();
    let apply = || step.apply(&zone, &nothing, Share::NONE);
    for (code, header, expected) in [
        (429, "7", 7),
        (503, "9999", 300),
        (409, "0", 1),
        (408, "Tue, 24 Nov 2026 18:00:00 GMT", 2),
        (425, "x", 2),
        (500, "-1", 1),
    ] {
        let status = StatusCode::from_u16(code).unwrap();
        server.answers("apply", (status, [("Retry-After", header)], r#"{"why": "busy  now"}"#));
        let (why, seconds) = transient(apply().await);
        assert_eq!(
            (why, seconds),
            (format!("the webhook http://{}/zones said HTTP {code}: busy now", server.address), expected)
        );
    }
    server.answers("apply", ([("Retry-After", "20")], r#"{"done": false, "why": "3 of 4"}"#));
    assert_eq!(transient(apply().await), ("the webhook has not done `apply` of a yet: 3 of 4".into(), 20));
    let told: [(Response, &str); 8] = [
        (
            (StatusCode::UNPROCESSABLE_ENTITY, r#"{"why": "no such pool"}"#).into_response(),
            "said HTTP 422: no such pool",
        ),
        (
            (StatusCode::FORBIDDEN, "").into_response(),
            "no reason given; has it the same secret, and is its clock right?",
        ),
        ((StatusCode::FOUND, [("Location", "/zones")], "").into_response(), "redirects are not followed"),
        (StatusCode::NOT_FOUND.into_response(), "has no `apply` (HTTP 404 or 501): is it the right address?"),
        ("<html>".into_response(), "gave an answer that is no JSON object (HTTP 200): <html>"),
        ("{}".into_response(), "answered `apply` without a right `done`"),
        (" ".repeat(65_537).into_response(), "gave an answer of more than 65536 bytes"),
        ((StatusCode::BAD_REQUEST, format!("you sent {SECRET}")).into_response(), "said HTTP 400: you sent <hidden>"),
    ];
    for (response, expected) in told {
        server.answers("apply", response);
        let why = permanent(apply().await);
        assert!(why.contains(expected) && !why.contains(SECRET) && !why.contains("of-the-tests"), "{expected}: {why}");
    }
    let large = json!({"receipt": {"x": "y".repeat(16 * 1024)}}).to_string();
    server.answers("capture", large);
    assert!(permanent(step.capture(&zone).await).contains("the webhook's receipt has 16385 bytes"));
    assert_eq!(server.world(|world| world.weights["a"]), 34, "nothing of it was done");
    // After each of them it goes on, and back.
    apply().await.unwrap();
    step.apply(&zone, &Receipt::default(), Share::FULL).await.unwrap();
    step.confirm(&zone, &Receipt::default(), Share::FULL).await.unwrap();
}

#[tokio::test]
async fn silence_and_absence_are_worth_another_try() {
    let server = Server::start().await;
    server.world(|world| world.hangs = true);
    let (why, _) = transient(server.step().apply(&zone(), &Receipt::default(), Share::NONE).await);
    assert_eq!(why, format!("the webhook http://{}/zones gave no answer within 1s", server.address));
    let nobody = crate::support::free_address();
    let absent = Settings { url: format!("http://{nobody}/?token=of-the-tests"), ..server.settings() };
    let (why, _) = transient(Webhook::new(absent).capture(&zone()).await);
    assert!(
        why.starts_with(&format!("the webhook http://{nobody}/ can't be reached: ")) && !why.contains("of-the-tests"),
        "{why}"
    );
    assert!(why.contains("Connection refused"), "{why}");
}

#[tokio::test]
async fn secrets_are_read_anew_and_never_shown() {
    let server = Server::start().await;
    let step = server.step();
    let write = |text: &str| std::fs::write(server.secret_file(), text).unwrap();
    write("another secret of the tests");
    let why = permanent(step.capture(&zone()).await);
    assert!(why.contains("said HTTP 401: a wrong signature; has it the same secret"), "{why}");
    assert!(matches!(&step.probe().await[..], [Probe::Broken { .. }]));
    write("short");
    let why = permanent(step.capture(&zone()).await);
    assert!(why.ends_with("has fewer than 16 characters") && !why.contains("short"), "{why}");
    write(&"x".repeat(5000));
    assert!(permanent(step.capture(&zone()).await).ends_with("is no file of at most 4096 bytes"));
    std::fs::remove_file(server.secret_file()).unwrap();
    assert!(permanent(step.capture(&zone()).await).contains("can't be read"));
    write(SECRET);
    step.capture(&zone()).await.unwrap();
    assert_eq!(step.granularity(), Granularity::AllOrNothing);
    let in_part = Webhook::new(Settings { partial_shares: true, ..server.settings() });
    assert_eq!(in_part.granularity(), Granularity::Pods);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tls = crate::secured::secured(folder.path());
    let server = Server::start().await;
    let settings = Settings { url: format!("https://{}/", tls.address), ..server.settings() };
    let (why, _) = transient(Webhook::new(settings.clone()).capture(&zone()).await);
    assert!(why.contains("certificate"), "{why}");
    let known = Settings { ca_file: Some(folder.path().join("ca.pem")), ..settings.clone() };
    let why = permanent(Webhook::new(known).capture(&zone()).await);
    assert!(why.contains("said HTTP 401"), "it is spoken to: {why}");
    let none = Settings { ca_file: Some(server.secret_file()), ..settings };
    let why = permanent(Webhook::new(none).capture(&zone()).await);
    assert!(why.contains("(ca_file)") && !why.contains(SECRET), "{why}");
}

#[test]
fn the_request_of_the_documentation_is_signed_rightly() {
    let text = std::fs::read_to_string(root().join("deploy/webhook.md")).unwrap();
    let request = text.split("```http\n").nth(1).unwrap().split("\n```").next().unwrap();
    let (head, body) = request.split_once("\n\n").unwrap();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (t, v1) =
        header("Zoneward-Signature: t=").split_once(",v1=").map(|(t, v)| (t.to_owned(), v.to_owned())).unwrap();
    assert!(text.contains(SECRET));
    assert_eq!(v1, hmac_hex(SECRET, &format!("{t}.{body}")));
    let mut wish: Value = serde_json::from_str(body).unwrap();
    let key = wish.as_object_mut().unwrap().remove("idempotency_key").unwrap();
    assert_eq!(key, hex::encode(Sha256::digest(wish.to_string())));
    assert_eq!(key, header("Idempotency-Key: "));
}

#[tokio::test]
async fn a_system_that_keeps_to_the_documentation_keeps_to_the_contract() {
    let server = Server::start().await;
    let sight = || json!(server.world(|world| world.weights.clone()));
    contract::holds(&server.step(), Mark::OnWhatIsChanged, ("a", "b"), sight).await;
}
