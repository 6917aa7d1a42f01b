//! Alibaba Cloud as its documentation describes it: signatures are checked from the raw request, load balancers and a mesh
//! change state, and credentials come from STS and the metadata server. It says the worst that a server may say: refusals
//! quote what they were sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::request::Parts;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zoneward::alibaba::Surroundings;

pub const KEY_ID: &str = "LTAI-planted-id";
pub const KEY_SECRET: &str = "planted-secret-of-the-key";
pub const TOKEN: &str = "planted/session+token==";
pub const OIDC: &str = "planted.oidc.token";
pub const METADATA_TOKEN: &str = "planted-metadata-token";
/// What must stand in no error and no log.
pub const PLANTED: &[&str] = &["planted"];

/// What goes wrong with a call whose signature is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Refuse(u16, &'static str),
    /// With `x-acs-retry-after` in seconds.
    Throttle(u16),
    Hang,
    Garbage,
    Huge,
    /// It is done, and the answer is lost.
    DoneButLost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    pub region: &'static str,
    pub status: String,
    pub cross_zone: bool,
    pub mode: &'static str,
    /// Zone, and its state.
    pub zones: BTreeMap<String, String>,
    /// A change that is under way, and the reads until it is done.
    pub pending: Option<(u32, String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    pub version: &'static str,
    pub state: &'static str,
    pub labels: Option<String>,
}

pub struct World {
    pub balancers: BTreeMap<String, Balancer>,
    pub mesh: Mesh,
    /// Access keys, and what a request with them gets instead of an answer.
    pub keys: Vec<(String, String, Option<String>)>,
    pub expired: BTreeSet<String>,
    pub denied: BTreeSet<&'static str>,
    /// For the next calls, in turn.
    pub faults: VecDeque<Option<Fault>>,
    /// For all calls after so many.
    pub fails_after: Option<usize>,
    /// Reads until a change is done.
    pub lag: u32,
    /// `action id zone` of each call that was signed rightly, and how many of them changed something.
    pub calls: Vec<String>,
    pub changes: usize,
    pub issued: usize,
    pub lifetime: SignedDuration,
    pub sts_fails: bool,
    pub oidc: String,
    pub imds_v2: bool,
    pub metadata_calls: Vec<String>,
    nonces: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Cloud {
    pub address: SocketAddr,
    world: Arc<Mutex<World>>,
}

pub fn balancer(zones: &[(&str, &str)]) -> Balancer {
    Balancer {
        region: "cn-hangzhou",
        status: "Active".to_owned(),
        cross_zone: false,
        mode: "Fixed",
        zones: zones.iter().map(|(zone, state)| (format!("cn-hangzhou-{zone}"), (*state).to_owned())).collect(),
        pending: None,
    }
}

impl Cloud {
    pub async fn start() -> Self {
        let three = &[("h", "Active"), ("j", "Active"), ("k", "Active")];
        let world = World {
            balancers: [("nlb-1", balancer(three)), ("alb-1", balancer(three)), ("nlb-2", balancer(&three[1..]))]
                .map(|(id, balancer)| (id.to_owned(), balancer))
                .into(),
            mesh: Mesh { version: "v1.22.6.12-g0f8d2a31-aliyun", state: "running", labels: Some(String::new()) },
            keys: vec![(KEY_ID.to_owned(), KEY_SECRET.to_owned(), None)],
            expired: BTreeSet::new(),
            denied: BTreeSet::new(),
            faults: VecDeque::new(),
            fails_after: None,
            lag: 0,
            calls: Vec::new(),
            changes: 0,
            issued: 0,
            lifetime: SignedDuration::from_hours(1),
            sts_fails: false,
            oidc: OIDC.to_owned(),
            imds_v2: true,
            metadata_calls: Vec::new(),
            nonces: BTreeSet::new(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cloud = Self { address: listener.local_addr().unwrap(), world: Arc::new(Mutex::new(world)) };
        let router = Router::new().fallback(answer).with_state(cloud.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        cloud
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// With the access key that the cloud knows.
    pub fn surroundings(&self) -> Surroundings {
        self.with(&[("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET)])
    }

    pub fn with(&self, variables: &[(&str, &str)]) -> Surroundings {
        Surroundings {
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            sts: Some(zoneward::alibaba::Endpoint::parse(&self.url()).unwrap()),
            metadata: self.url(),
        }
    }

    pub fn next(&self, faults: &[Option<Fault>]) {
        self.world().faults = faults.iter().copied().collect();
    }

    pub fn state(&self, id: &str, zone: &str) -> String {
        self.world().balancers[id].zones[&format!("cn-hangzhou-{zone}")].clone()
    }

    pub fn set(&self, id: &str, zone: &str, state: &str) {
        let zone = format!("cn-hangzhou-{zone}");
        self.world().balancers.get_mut(id).unwrap().zones.insert(zone, state.to_owned());
    }

    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.world().calls)
    }
}

type Refused = (u16, &'static str, String);

fn refuse<T>(status: u16, code: &'static str, message: impl Into<String>) -> Result<T, Refused> {
    Err((status, code, message.into()))
}

async fn answer(Shared(cloud): Shared<Cloud>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
    if parts.uri.path().starts_with("/latest/") {
        return metadata(&cloud, &parts);
    }
    if body.contains("AssumeRoleWithOIDC") {
        return respond(assume_role(&cloud, &parts, &body), None);
    }
    let fault = match check(&cloud, &parts, &body) {
        Ok(()) => next_fault(&mut cloud.world()),
        Err(refused) => return respond(Err(refused), None),
    };
    match fault {
        None => respond(perform(&mut cloud.world(), &parts, &body), None),
        Some(Fault::Refuse(status, code)) => respond(refuse(status, code, "as the test wants"), None),
        Some(Fault::Throttle(seconds)) => {
            respond(refuse(400, "Throttling.User", "Request was denied due to user flow control."), Some(seconds))
        }
        Some(Fault::Garbage) => Response::new(Body::from("<html>")),
        Some(Fault::Huge) => Response::new(Body::from(vec![b' '; 2 << 20])),
        Some(Fault::DoneButLost) => {
            let done = perform(&mut cloud.world(), &parts, &body);
            assert!(done.is_ok(), "{done:?}");
            respond(refuse(503, "ServiceUnavailable", "lost"), None)
        }
        Some(Fault::Hang) => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Response::new(Body::empty())
        }
    }
}

fn next_fault(world: &mut World) -> Option<Fault> {
    let refused = Fault::Refuse(500, "InternalError");
    match world.fails_after {
        Some(0) => Some(refused),
        Some(left) => {
            world.fails_after = Some(left - 1);
            None
        }
        None => world.faults.pop_front().flatten(),
    }
}

fn respond(done: Result<Value, Refused>, retry_after: Option<u16>) -> Response {
    let (status, body) = match done {
        Ok(body) => (200, body),
        Err((status, code, message)) => {
            (status, json!({"Code": code, "Message": message, "RequestId": "REQ-1", "HostId": "test", "Recommend": ""}))
        }
    };
    let mut response = Response::builder().status(status);
    if let Some(seconds) = retry_after {
        response = response.header("x-acs-retry-after", seconds.to_string());
    }
    response.body(Body::from(body.to_string())).unwrap()
}

fn header<'a>(parts: &'a Parts, name: &str) -> &'a str {
    parts.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// ACS3-HMAC-SHA256, from its description and the raw request.
fn check(cloud: &Cloud, parts: &Parts, body: &str) -> Result<(), Refused> {
    let authorization = header(parts, "authorization");
    let fields: BTreeMap<&str, &str> = authorization
        .strip_prefix("ACS3-HMAC-SHA256 ")
        .unwrap_or_default()
        .split(',')
        .filter_map(|field| field.split_once('='))
        .collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let signed: Vec<&str> = field("SignedHeaders").split(';').collect();
    let must = parts.headers.keys().map(axum::http::HeaderName::as_str);
    let must = must.filter(|name| ["host", "content-type"].contains(name) || name.starts_with("x-acs-"));
    let mut expected: Vec<&str> = must.collect();
    expected.sort_unstable();
    if signed != expected || (body.is_empty() == parts.headers.contains_key("content-type")) {
        return refuse(400, "IncompleteSignature", format!("{signed:?} for {expected:?}"));
    }
    let query = parts.uri.query().unwrap_or_default();
    for text in [query, body] {
        if encode_sorted(&decode(text)) != text {
            return refuse(400, "SignatureDoesNotMatch", format!("not canonical: {text}"));
        }
    }
    let lines: String = signed.iter().map(|name| format!("{name}:{}\n", header(parts, name).trim())).collect();
    let hash = sha256(body.as_bytes());
    let (method, path) = (&parts.method, parts.uri.path());
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{}\n{hash}", signed.join(";"));
    if header(parts, "x-acs-content-sha256") != hash || *method != "POST" || path != "/" {
        return refuse(400, "SignatureDoesNotMatch", format!("content: {canonical}"));
    }
    let mut world = cloud.world();
    let id = field("Credential");
    let Some((_, secret, token)) = world.keys.iter().find(|(known, ..)| known == id).cloned() else {
        return refuse(404, "InvalidAccessKeyId.NotFound", format!("Specified access key {id} is not found."));
    };
    if hmac(secret.as_bytes(), format!("ACS3-HMAC-SHA256\n{}", sha256(canonical.as_bytes())).as_bytes())
        != field("Signature")
    {
        return refuse(400, "SignatureDoesNotMatch", format!("server CanonicalRequest is [{canonical}] with {id}"));
    }
    if token.as_deref().unwrap_or_default() != header(parts, "x-acs-security-token") || world.expired.contains(id) {
        let sent = header(parts, "x-acs-security-token");
        return refuse(400, "InvalidSecurityToken.Expired", format!("Specified SecurityToken {sent} is expired."));
    }
    let at: Timestamp = header(parts, "x-acs-date").parse().unwrap();
    if now().duration_since(at).abs() > SignedDuration::from_mins(15) {
        return refuse(400, "InvalidTimeStamp.Expired", "");
    }
    if !world.nonces.insert(header(parts, "x-acs-signature-nonce").to_owned()) {
        return refuse(400, "SignatureNonceUsed", "");
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// RFC 2104, by hand.
fn hmac(key: &[u8], message: &[u8]) -> String {
    assert!(key.len() <= 64);
    let pad = |with: u8| (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    sha256(&[pad(0x5c), inner.to_vec()].concat())
}

fn decode(text: &str) -> BTreeMap<String, String> {
    let word = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.bytes());
        while let Some(byte) = rest.next() {
            let hexed = |rest: &mut std::str::Bytes<'_>| [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(if byte == b'%' { hex::decode(hexed(&mut rest)).unwrap()[0] } else { byte });
        }
        String::from_utf8(bytes).unwrap()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (word(name), word(value))).collect()
}

fn encode_sorted(parameters: &BTreeMap<String, String>) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let word = |text: &str| -> String {
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    parameters.iter().map(|(name, value)| format!("{}={}", word(name), word(value))).collect::<Vec<_>>().join("&")
}

#[allow(clippy::disallowed_methods, reason = "a server has a clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

fn perform(world: &mut World, parts: &Parts, body: &str) -> Result<Value, Refused> {
    let (action, version) = (header(parts, "x-acs-action"), header(parts, "x-acs-version"));
    let (query, form) = (decode(parts.uri.query().unwrap_or_default()), decode(body));
    let denied = world.denied.contains(action);
    if version == "2020-01-11" {
        world.calls.push(action.to_owned());
        return if denied { forbidden() } else { mesh(world, action, &query, &form) };
    }
    let kind = if version == "2022-04-30" { "nlb" } else { "alb" };
    let (given, other) = if kind == "nlb" { (&form, &query) } else { (&query, &form) };
    assert!(other.is_empty() && ["2022-04-30", "2020-06-16"].contains(&version), "{version}: {other:?}");
    let id = &given["LoadBalancerId"];
    let zone = given.get("ZoneMappings.1.ZoneId").cloned();
    let rehearsal = if given.contains_key("DryRun") { " rehearsed" } else { "" };
    world.calls.push(format!("{action} {id} {}{rehearsal}", zone.as_deref().unwrap_or("-")));
    if denied {
        return forbidden();
    }
    let missing = if kind == "nlb" { "ResourceNotFound.loadBalancer" } else { "ResourceNotFound.LoadBalancer" };
    let lag = world.lag;
    let found = world.balancers.get_mut(id).filter(|found| kind == "alb" || given["RegionId"] == found.region);
    let Some(found) = found.filter(|_| id.starts_with(kind)) else {
        return refuse(404, missing, format!("The specified resource {id} is not found."));
    };
    if action == "GetLoadBalancerAttribute" {
        return Ok(attributes(found));
    }
    let zone = zone.unwrap();
    let wanted = if action == "StartShiftLoadBalancerZones" { "Shifted" } else { "Active" };
    let known = ["LoadBalancerId", "RegionId", "DryRun", "ZoneMappings.1.VSwitchId", "ZoneMappings.1.ZoneId"];
    assert!(given.keys().all(|name| known.contains(&name.as_str())), "{given:?}");
    allowed(kind, found, &zone, &given["ZoneMappings.1.VSwitchId"], wanted)?;
    if given.get("DryRun").is_some_and(|dry_run| dry_run == "true") {
        return refuse(400, "DryRunOperation", "Request validation has been passed with DryRun flag set.");
    }
    found.pending = Some((lag, zone, wanted.to_owned()));
    settle(found);
    world.changes += 1;
    Ok(json!({"RequestId": "REQ-1"}))
}

fn forbidden() -> Result<Value, Refused> {
    refuse(403, "Forbidden.NoPermission", "You are not authorized to do this.")
}

fn vswitch(zone: &str) -> String {
    format!("vsw-{zone}")
}

/// What NLB answers to a second shift, and to that of the last zone, is not documented: the codes are made up.
fn allowed(kind: &str, found: &Balancer, zone: &str, switch: &str, wanted: &str) -> Result<(), Refused> {
    if found.status != "Active" {
        let code = if kind == "nlb" { "ResourceInConfiguring.loadbalancer" } else { "IncorrectStatus.LoadBalancer" };
        return refuse(400, code, "The load balancer is being configured.");
    }
    if switch != vswitch(zone) || !found.zones.contains_key(zone) {
        return refuse(400, "Mismatch.ZoneIdAndVSwitchId", "");
    }
    if kind == "alb" && found.mode != "Fixed" {
        return refuse(400, "OperationDenied.OnlyFixedAddressAllocatedModeSupported", "");
    }
    if found.zones[zone] == wanted {
        let code = if kind == "nlb" { "IncorrectStatus.ZoneId" } else { "OperationDenied.ZoneMappingsNotChanged" };
        return refuse(400, code, "");
    }
    if wanted == "Shifted" && found.zones.values().filter(|state| *state == "Active").count() < 2 {
        return refuse(400, "OperationDenied.ConfigLastActiveZoneNotSupport", "");
    }
    Ok(())
}

fn settle(found: &mut Balancer) {
    match found.pending.take() {
        Some((0, zone, state)) => {
            found.zones.insert(zone, state);
            "Active".clone_into(&mut found.status);
        }
        Some((left, zone, state)) => {
            found.pending = Some((left - 1, zone, state));
            "Configuring".clone_into(&mut found.status);
        }
        None => {}
    }
}

fn attributes(found: &mut Balancer) -> Value {
    settle(found);
    let mapping = |(zone, state): (&String, &String)| json!({"ZoneId": zone, "VSwitchId": vswitch(zone), "Status": state, "LoadBalancerAddresses": []});
    json!({
        "RequestId": "REQ-1", "LoadBalancerStatus": found.status, "CrossZoneEnabled": found.cross_zone,
        "DNSName": "lb.example.org", "AddressAllocatedMode": found.mode,
        "ZoneMappings": found.zones.iter().map(mapping).collect::<Vec<_>>(),
    })
}

fn mesh(
    world: &mut World,
    action: &str,
    query: &BTreeMap<String, String>,
    form: &BTreeMap<String, String>,
) -> Result<Value, Refused> {
    if form.get("ServiceMeshId").is_none_or(|id| id != "c08ba3fd") || form.len() != 1 {
        return refuse(404, "ServiceMesh.NotFound", "no such mesh");
    }
    match action {
        "DescribeServiceMeshDetail" => {
            let Mesh { version, state, labels } = &world.mesh;
            let extra = labels.as_ref().map_or(json!({}), |labels| json!({"LabelsForOffloadedWorkloads": labels}));
            Ok(json!({"RequestId": "REQ-1", "ServiceMesh": {
                "ServiceMeshInfo": {"ServiceMeshId": "c08ba3fd", "Version": version, "State": state},
                "Spec": {"MeshConfig": {"ExtraConfiguration": {"IstiodExtraConfiguration": extra}}}}}))
        }
        "UpdateMeshFeature" => {
            assert_eq!(query.keys().collect::<Vec<_>>(), ["LabelsForOffloadedWorkloads"]);
            world.mesh.labels = Some(query["LabelsForOffloadedWorkloads"].clone());
            world.changes += 1;
            Ok(json!({"RequestId": "REQ-1"}))
        }
        _ => refuse(404, "InvalidAction.NotFound", ""),
    }
}

/// New keys, by which calls are signed from then on.
fn issue(world: &mut World) -> Value {
    world.issued += 1;
    let (id, secret) = (format!("STS.planted-{}", world.issued), format!("{KEY_SECRET}-{}", world.issued));
    world.keys.push((id.clone(), secret.clone(), Some(TOKEN.to_owned())));
    let expiration = (now() + world.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"AccessKeyId": id, "AccessKeySecret": secret, "SecurityToken": TOKEN, "Expiration": expiration, "Code": "Success"})
}

fn assume_role(cloud: &Cloud, parts: &Parts, body: &str) -> Result<Value, Refused> {
    let (form, mut world) = (decode(body), cloud.world());
    assert!(!parts.headers.contains_key("authorization") && parts.uri.query().is_none(), "unsigned, and in the body");
    assert_eq!((form["Version"].as_str(), form["Format"].as_str()), ("2015-04-01", "JSON"));
    assert!(form["DurationSeconds"].parse::<u32>().unwrap() >= 900 && form["Timestamp"].parse::<Timestamp>().is_ok());
    if world.sts_fails {
        return refuse(503, "ServiceUnavailable", "later");
    }
    if form["OIDCToken"] != world.oidc {
        return refuse(
            400,
            "AuthenticationFail.OIDCToken.Expired",
            format!("the token {} is expired", form["OIDCToken"]),
        );
    }
    assert_eq!(
        (form["RoleArn"].as_str(), form["OIDCProviderArn"].as_str()),
        ("acs:ram::1:role/z", "acs:ram::1:oidc/c")
    );
    Ok(json!({"RequestId": "REQ-1", "Credentials": issue(&mut world)}))
}

fn metadata(cloud: &Cloud, parts: &Parts) -> Response {
    let mut world = cloud.world();
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    world.metadata_calls.push(format!("{method} {path}"));
    let text = |status, text: String| Response::builder().status(status).body(Body::from(text)).unwrap();
    let v2 = world.imds_v2;
    if method == "PUT" && path == "/latest/api/token" {
        assert!(header(parts, "x-aliyun-ecs-metadata-token-ttl-seconds").parse::<u32>().is_ok());
        return if v2 { text(200, METADATA_TOKEN.to_owned()) } else { text(404, "no".to_owned()) };
    }
    if v2 != (header(parts, "x-aliyun-ecs-metadata-token") == METADATA_TOKEN) {
        return text(403, "no".to_owned());
    }
    match path.strip_prefix("/latest/meta-data/ram/security-credentials/") {
        Some("") => text(200, "zoneward-role\n".to_owned()),
        Some("zoneward-role") => text(200, issue(&mut world).to_string()),
        _ => text(404, "no".to_owned()),
    }
}
