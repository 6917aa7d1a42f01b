//! AWS' zonal shift API as its public service model documents it: a state machine that checks every signature (Signature
//! Version 4) from the specification's own words, with a chain of HMACs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const KEY_ID: &str = "AKIDOFTHETESTS";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const TOKEN: &str = "a session token of the tests";
pub const REGION: &str = "us-east-1";

/// An active shift, as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    pub id: String,
    pub arn: String,
    pub away_from: String,
    pub expires_at: i64,
    pub comment: String,
    pub kind: &'static str,
}

/// How the next request of an operation goes.
pub enum Trouble {
    Refused(u16, &'static str, Value),
    /// Done, but nobody hears of it.
    LostAnswer,
    /// Somebody else begins this first.
    Before(Shift),
    /// Somebody else, or time, ends them all first.
    EndedBefore,
    /// Nothing is listed yet.
    Unlisted,
    Silence,
}

#[derive(Default)]
pub struct World {
    pub shifts: Vec<Shift>,
    pub resources: Vec<String>,
    pub not_applied_yet: bool,
    pub trouble: Vec<(&'static str, Trouble)>,
    pub requests: Vec<String>,
    started: u32,
}

pub struct Server {
    world: Arc<Mutex<World>>,
    pub url: String,
}

impl Server {
    pub async fn start(resources: &[&str]) -> Self {
        let resources = resources.iter().map(|arn| (*arn).to_owned()).collect();
        let world = Arc::new(Mutex::new(World { resources, ..World::default() }));
        let router = Router::new().fallback(serve).with_state(Arc::clone(&world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { world, url }
    }

    pub fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    pub fn trouble(&self, operation: &'static str, trouble: Trouble) {
        self.world(|world| world.trouble.push((operation, trouble)));
    }

    pub fn shifts(&self) -> Vec<Shift> {
        self.world(|world| world.shifts.clone())
    }

    /// How often an operation was asked for.
    pub fn count(&self, operation: &str) -> usize {
        self.world(|world| world.requests.iter().filter(|it| *it == operation).count())
    }
}

#[allow(clippy::disallowed_methods, reason = "a server of the real world")]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn refuse(status: u16, kind: &str, body: &Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("x-amzn-errortype", kind.to_owned())], body.to_string()).into_response()
}

async fn serve(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    if let Err(why) = check_signature(head.method.as_str(), &path, &query, &head.headers, &body) {
        return refuse(403, "InvalidSignatureException", &json!({"message": why}));
    }
    let operation = match (head.method.as_str(), path.split('/').nth(1).unwrap()) {
        ("POST", "zonalshifts") => "start",
        ("PATCH", "zonalshifts") => "update",
        ("DELETE", "zonalshifts") => "cancel",
        ("GET", "zonalshifts") => "list",
        ("GET", "managedresources") => "get",
        other => panic!("{other:?}"),
    };
    let of = percent_decoded(path.split('/').nth(2).unwrap_or_default());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let trouble = {
        let mut world = world.lock().unwrap();
        world.requests.push(operation.to_owned());
        let at = world.trouble.iter().position(|(it, _)| *it == operation);
        at.map(|at| world.trouble.remove(at).1)
    };
    match trouble {
        None => world.lock().unwrap().answer(operation, &of, &query, &body),
        Some(Trouble::Refused(status, kind, said)) => refuse(status, kind, &said),
        Some(Trouble::LostAnswer) => {
            world.lock().unwrap().answer(operation, &of, &query, &body);
            StatusCode::BAD_GATEWAY.into_response()
        }
        Some(Trouble::Before(shift)) => {
            let mut world = world.lock().unwrap();
            world.shifts.push(shift);
            world.answer(operation, &of, &query, &body)
        }
        Some(Trouble::EndedBefore) => {
            let mut world = world.lock().unwrap();
            world.shifts.clear();
            world.answer(operation, &of, &query, &body)
        }
        Some(Trouble::Unlisted) => axum::Json(json!({"items": []})).into_response(),
        Some(Trouble::Silence) => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            StatusCode::OK.into_response()
        }
    }
}

impl World {
    fn answer(&mut self, operation: &str, of: &str, query: &str, body: &Value) -> Response {
        self.shifts.retain(|shift| shift.expires_at > now());
        match operation {
            "start" => self.begin(body),
            "list" => {
                assert!(query.contains("status=ACTIVE"), "{query}");
                // One a page, to see that all pages are read.
                let at: usize =
                    query.split("nextToken=").nth(1).map_or(0, |t| t.split('&').next().unwrap().parse().unwrap());
                let items: Vec<Value> = self.shifts.iter().skip(at).take(1).map(described).collect();
                let next = (at + 1 < self.shifts.len()).then(|| (at + 1).to_string());
                axum::Json(json!({"items": items, "nextToken": next})).into_response()
            }
            "get" => self.managed(of),
            _ => {
                let Some(at) = self.shifts.iter().position(|shift| shift.id == of) else {
                    let said = json!({"message": "not active", "reason": "ZonalShiftStatusNotActive"});
                    return refuse(409, "ConflictException", &said);
                };
                if operation == "cancel" {
                    return axum::Json(described(&self.shifts.remove(at))).into_response();
                }
                self.shifts[at].expires_at = now() + seconds(body["expiresIn"].as_str().unwrap());
                axum::Json(described(&self.shifts[at])).into_response()
            }
        }
    }

    fn begin(&mut self, body: &Value) -> Response {
        let text = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("{key}: {body}")).to_owned();
        let (arn, away_from, comment) = (text("resourceIdentifier"), text("awayFrom"), text("comment"));
        assert!(comment.len() <= 128 && away_from.len() <= 20, "{body}");
        if !self.resources.contains(&arn) {
            return refuse(404, "ResourceNotFoundException", &json!({"message": "no such resource"}));
        }
        if !["use1-az1", "use1-az2"].contains(&away_from.as_str()) {
            let said = json!({"message": "the resource is not there", "reason": "UnsupportedAz"});
            return refuse(400, "ValidationException", &said);
        }
        if let Some(there) = self.shifts.iter().find(|shift| shift.arn == arn && shift.kind == "ZONAL_SHIFT") {
            let said = json!({"message": "exists", "reason": "ZonalShiftAlreadyExists", "zonalShiftId": there.id});
            return refuse(409, "ConflictException", &said);
        }
        self.started += 1;
        let id = format!("shift-{}", self.started);
        let expires_at = now() + seconds(&text("expiresIn"));
        self.shifts.push(Shift { id, arn, away_from, expires_at, comment, kind: "ZONAL_SHIFT" });
        (StatusCode::CREATED, axum::Json(described(self.shifts.last().unwrap()))).into_response()
    }

    fn managed(&self, arn: &str) -> Response {
        if !self.resources.iter().any(|it| it == arn) {
            return refuse(404, "ResourceNotFoundException", &json!({"message": "no such resource"}));
        }
        let here: Vec<&Shift> = self.shifts.iter().filter(|shift| shift.arn == arn).collect();
        let applied = if self.not_applied_yet { "NOT_APPLIED" } else { "APPLIED" };
        let shifts: Vec<Value> = here
            .iter()
            .map(|shift| {
                let mut it = described(shift);
                it["appliedStatus"] = applied.into();
                it
            })
            .collect();
        let weight = |id: &str| {
            let away = !self.not_applied_yet && here.iter().any(|shift| shift.away_from == id);
            if away { 0.0 } else { 1.0 }
        };
        let weights = json!({"use1-az1": weight("use1-az1"), "use1-az2": weight("use1-az2")});
        axum::Json(
            json!({"arn": arn, "name": "web", "appliedWeights": weights, "zonalShifts": shifts, "autoshifts": [],
            "zonalAutoshiftStatus": "DISABLED"}),
        )
        .into_response()
    }
}

fn described(shift: &Shift) -> Value {
    json!({"zonalShiftId": shift.id, "resourceIdentifier": shift.arn, "awayFrom": shift.away_from,
        "expiryTime": shift.expires_at, "startTime": now(), "status": "ACTIVE", "comment": shift.comment,
        "shiftType": shift.kind})
}

fn seconds(expires_in: &str) -> i64 {
    let (count, unit) = expires_in.split_at(expires_in.len() - 1);
    assert!((2..=5).contains(&expires_in.len()), "{expires_in}");
    count.parse::<i64>().unwrap() * if unit == "h" { 3600 } else { 60 }
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| {
        let code = u8::from_str_radix(&part[..2], 16).unwrap();
        text + &char::from(code).to_string() + &part[2..]
    })
}

/// As the specification of Signature Version 4 has it.
fn check_signature(method: &str, path: &str, query: &str, headers: &HeaderMap, body: &Bytes) -> Result<(), String> {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim().to_owned();
    let (authorization, date) = (header("authorization"), header("x-amz-date"));
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let part = |name: &str| {
        let found = rest.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned).ok_or_else(|| format!("no {name}"))
    };
    let (signed, signature, credential) = (part("SignedHeaders")?, part("Signature")?, part("Credential")?);
    let day = date.get(..8).ok_or("no date")?;
    let scope = format!("{day}/{REGION}/arc-zonal-shift/aws4_request");
    if credential != format!("{KEY_ID}/{scope}") {
        return Err(format!("a credential of another scope: {credential}"));
    }
    let names: Vec<&str> = signed.split(';').collect();
    if !["host", "x-amz-date", "x-amz-security-token"].iter().all(|name| names.contains(name))
        || header("x-amz-security-token") != TOKEN
    {
        return Err(format!("not all that matters is signed: {signed}"));
    }
    let then = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", &date).ok().and_then(|it| it.to_datetime().ok());
    let then = then.and_then(|it| jiff::tz::TimeZone::UTC.to_timestamp(it).ok()).ok_or("an unreadable date")?;
    if (then.as_second() - now()).abs() > 300 {
        return Err("an old signature".to_owned());
    }
    // What is encoded in the path is encoded once more.
    let encode = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.~/".contains(c) { c.to_string() } else { format!("%{:02X}", c as u32) }
    };
    let path: String = path.chars().map(encode).collect();
    let mut query: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    query.sort_unstable();
    let lines: String = names.iter().map(|name| format!("{name}:{}\n", header(name))).collect();
    let hash = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let request = format!("{method}\n{path}\n{}\n{lines}\n{signed}\n{}", query.join("&"), hash(body));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(request.as_bytes()));
    let chain = [day, REGION, "arc-zonal-shift", "aws4_request", &to_sign];
    let expected = chain.iter().fold(format!("AWS4{SECRET}").into_bytes(), |key, text| hmac(&key, text));
    if hex::encode(expected) == signature { Ok(()) } else { Err(format!("a wrong signature of {request:?}")) }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
