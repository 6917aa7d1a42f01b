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
use jiff::SignedDuration;
use serde_json::{Value, json};
use zoneward::alibaba::Surroundings;

use crate::alibaba_signature::{check, decode, header};
use crate::alibaba_sts::{assume_role, metadata};

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
    /// With `x-acs-retry-after` in milliseconds.
    Throttle(u32),
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
    pub nonces: BTreeSet<String>,
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

pub type Refused = (u16, &'static str, String);

pub fn refuse<T>(status: u16, code: &'static str, message: impl Into<String>) -> Result<T, Refused> {
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
        Some(Fault::Throttle(milliseconds)) => {
            respond(refuse(400, "Throttling.User", "Request was denied due to user flow control."), Some(milliseconds))
        }
        Some(Fault::Garbage) => Response::new(Body::from("<html>")),
        Some(Fault::Huge) => Response::new(Body::from(vec![b' '; 2 << 20])),
        Some(Fault::DoneButLost) => {
            let done = perform(&mut cloud.world(), &parts, &body);
            assert!(done.is_ok(), "{done:?}");
            respond(refuse(503, "ServiceUnavailable", "lost"), None)
        }
        Some(Fault::Hang) => {
            tokio::time::sleep(Duration::from_mins(1)).await;
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

fn respond(done: Result<Value, Refused>, retry_after: Option<u32>) -> Response {
    let (status, body) = match done {
        Ok(body) => (200, body),
        Err((status, code, message)) => {
            (status, json!({"Code": code, "Message": message, "RequestId": "REQ-1", "HostId": "test", "Recommend": ""}))
        }
    };
    let mut response = Response::builder().status(status);
    if let Some(milliseconds) = retry_after {
        response = response.header("x-acs-retry-after", milliseconds.to_string());
    }
    response.body(Body::from(body.to_string())).unwrap()
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
