//! What other servers answer over HTTP: a webhook, Alibaba Cloud, an Alertmanager, Prometheus, pods that are probed. The daemon's own
//! clients ask; each answer is a status and a body, or bytes that need be no HTTP at all.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use zoneward::alertmanager;
use zoneward::alibaba::{Call, Client, Endpoint, Parameters, Source, Surroundings, parameters};
use zoneward::domain::cluster::{ClusterView, Pod, PodId};
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::domain::verdict::{PodView, Suspect};
use zoneward::domain::{CycleLength, Period, ServiceId, Zone};
use zoneward::guard::SilencesSettings;
use zoneward::isolate::steps::{Look, RealStep, dns_alibaba, mesh_asm, webhook};
use zoneward::observe::{self, ProbeSettings, PrometheusObserver};
use zoneward::ports::Observer;

use crate::{MIB, file, wait, within};

const STATUSES: [&str; 8] = [
    "200 OK",
    "404 Not Found",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "403 Forbidden",
    "302 Found",
    "501 Not Implemented",
    "401 Unauthorized",
];
/// Between answers: each request gets the next one, and the last one again and again.
const NEXT: &[u8] = b"\n--\n";
const MOST_BYTES: usize = 64 * MIB;
const WAYS: u8 = 8;

/// One server for all that a thread asks.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
}

pub fn run(data: &[u8]) {
    thread_local! {
        static SERVER: Server = wait(Server::start());
    }
    let Some(([way, kind], rest)) = data.split_first_chunk::<2>() else { return };
    SERVER.with(|server| {
        server.answer(*kind, rest);
        within(MOST_BYTES, || wait(ask(server, way % WAYS)));
    });
}

impl Server {
    async fn start() -> Self {
        // A client that hangs up must not end the process: where the engine has the main function, the signal is not ignored.
        let _handled = signal(SignalKind::pipe()).expect("a handler");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self { address: listener.local_addr().expect("a port"), answers: Arc::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        server
    }

    /// What is to be said. By its kind an answer is well formed, or all that is sent.
    fn answer(&self, kind: u8, rest: &[u8]) {
        let mut answers = Vec::new();
        let mut left = rest;
        loop {
            let at = left.windows(NEXT.len()).position(|window| window == NEXT);
            let (body, more) = at.map_or((left, None), |at| (&left[..at], Some(&left[at + NEXT.len()..])));
            answers.push(if kind & 0x80 == 0 { well_formed(kind, body) } else { body.to_vec() });
            match more {
                Some(more) => left = more,
                None => break,
            }
        }
        answers.reverse();
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            while !is_whole(&seen) {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(bytes) => seen.extend_from_slice(&buffer[..bytes]),
                }
            }
            seen.clear();
            let answer = {
                let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                if answers.len() > 1 { answers.pop() } else { answers.last().cloned() }
            };
            let answer = answer.unwrap_or_default();
            let keeps = answer.starts_with(b"HTTP/1.1 ") && answer.windows(4).any(|window| window == b"\r\n\r\n");
            if stream.write_all(&answer).await.is_err() || !keeps {
                return;
            }
        }
    }
}

fn well_formed(kind: u8, body: &[u8]) -> Vec<u8> {
    let status = STATUSES[usize::from(kind) % STATUSES.len()];
    let retry = ["", "retry-after: 5\r\n", "x-acs-retry-after: 1500\r\n", "retry-after: 99999999999999999999\r\n"];
    let retry = retry[usize::from(kind >> 3) % retry.len()];
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Whether a request has come, with its body.
fn is_whole(seen: &[u8]) -> bool {
    let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else { return seen.starts_with(b"PRI ") };
    let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    seen.len() >= end + 4 + length.unwrap_or_default()
}

async fn ask(server: &Server, way: u8) {
    let url = format!("http://{}", server.address);
    let zone = Zone::new("a");
    match way {
        0 => silences(url, &zone).await,
        1 => take(&webhook(url), &zone).await,
        2 => take(&load_balancers(server, dns_alibaba::Kind::Nlb), &zone).await,
        3 => take(&load_balancers(server, dns_alibaba::Kind::Alb), &zone).await,
        4 => take(&mesh(server), &zone).await,
        5 => credentials(server).await,
        6 => metrics(url, &zone).await,
        _ => probes(server, &zone).await,
    }
}

fn clock() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a moment")
}

async fn silences(alertmanager: String, zone: &Zone) {
    let (zone_label, timeout) = ("zone".to_owned(), Period::from_secs(1));
    let settings = SilencesSettings { alertmanager, zone_label, bearer_token_file: None, ca_file: None, timeout };
    match alertmanager::read(&settings, clock).await {
        Ok(silences) => drop(silences.of(zone, clock())),
        Err(error) => drop(error.to_string()),
    }
}

fn webhook(url: String) -> webhook::Webhook {
    webhook::Webhook::new(webhook::Settings {
        url,
        secret_file: file("secret", b"0123456789abcdef"),
        timeout: Period::from_secs(1),
        partial_shares: true,
        headers: Vec::new(),
        ca_file: None,
    })
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::parse(&format!("http://{}", server.address)).expect("it is on this machine")
}

fn surroundings(server: &Server, variables: Parameters) -> Surroundings {
    Surroundings { variables, sts: Some(endpoint(server)), metadata: format!("http://{}", server.address) }
}

fn keys() -> Parameters {
    parameters([("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI5t"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")])
}

fn load_balancers(server: &Server, kind: dns_alibaba::Kind) -> dns_alibaba::DnsAlibaba {
    let balancer = |id: &str| dns_alibaba::LoadBalancer {
        kind,
        id: id.to_owned(),
        region: "cn-hangzhou".to_owned(),
        endpoint: Some(format!("http://{}", server.address)),
    };
    let settings = dns_alibaba::Settings {
        load_balancers: vec![balancer("lb-1"), balancer("lb-2")],
        zones: Default::default(),
        credentials: Source::Env,
        timeout: Period::from_secs(1),
    };
    let look: Arc<Look> = Arc::new(|| Ok(ClusterView::default()));
    dns_alibaba::DnsAlibaba::new(settings, surroundings(server, keys()), &look)
}

fn mesh(server: &Server) -> mesh_asm::MeshAsm {
    let settings = mesh_asm::Settings {
        mesh_id: "c0".to_owned(),
        endpoint: Some(format!("http://{}", server.address)),
        unverified_api: mesh_asm::Consent::Accept,
        labels: "topology.kubernetes.io/zone={zone}".to_owned(),
        credentials: Source::Env,
        timeout: Period::from_secs(1),
    };
    mesh_asm::MeshAsm::new(settings, surroundings(server, keys()))
}

/// There and back.
async fn take(step: &dyn RealStep, zone: &Zone) {
    drop((step.probe().await, step.preview(zone, Share::NONE).await, step.marked().await));
    let Ok(receipt) = step.capture(zone).await else { return };
    let written = serde_json::to_string(&receipt).expect("a receipt can be written");
    assert!(written.len() <= 64 * 1024, "a receipt of {} bytes is none for a ledger", written.len());
    let receipt: Receipt = serde_json::from_str(&written).expect("and read");
    for share in [Share::NONE, Share::FULL] {
        drop((step.apply(zone, &receipt, share).await, step.confirm(zone, &receipt, share).await));
    }
    drop(step.sweep(None).await);
}

async fn credentials(server: &Server) {
    let token = file("token", b"token").display().to_string();
    let rrsa = parameters([
        ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/a"),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc-provider/a"),
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", &token),
    ]);
    for (source, variables) in [(Source::Rrsa, rrsa), (Source::EcsRole, Parameters::new())] {
        let client = Client::new(source, surroundings(server, variables), Period::from_secs(1));
        let endpoint = endpoint(server);
        let (query, form, right) = (Parameters::new(), Parameters::new(), "a right".to_owned());
        let call = Call { endpoint: &endpoint, action: "Describe", version: "2020-01-11", query, form, right };
        if let Err(error) = client.call(&call).await {
            drop((error.to_string(), error.for_step(None).to_string()));
        }
    }
}

async fn metrics(url: String, zone: &Zone) {
    let settings = observe::Settings { url, timeout: Period::from_secs(1), ..observe::Settings::default() };
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let Ok(mut observer) = PrometheusObserver::new(settings, cycle) else { return };
    let service = ServiceId::new("default", "web");
    let suspect = Suspect { service, zone: zone.clone(), view: PodView::Durations, cycles: 4 };
    drop(observer.inspect(clock()).await.map(|seen| format!("{seen:?}")));
    drop((observer.cpu_use(clock()).await, observer.fit_to_scrapes(clock()).await));
    drop((observer.observe(clock(), clock()).await, observer.observe_pods(&suspect, clock()).await));
}

async fn probes(server: &Server, zone: &Zone) {
    let service = ServiceId::new("default", "web");
    let probe = |grpc: Option<String>| ProbeSettings {
        service: service.clone(),
        port: server.address.port(),
        path: grpc.is_none().then(|| "/".to_owned()),
        grpc,
    };
    let probes = vec![probe(None), probe(Some(String::new()))];
    let settings = observe::Settings { probes, ..observe::Settings::default() };
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let Ok(mut observer) = PrometheusObserver::new(settings, cycle) else { return };
    let (address, services) = (Some(server.address.ip()), [service].into());
    let pod = Pod { ready: true, address, zone: Some(zone.clone()), services, ..Pod::default() };
    let id = PodId { namespace: "default".to_owned(), name: "web-1".to_owned() };
    observer.learn_places(&ClusterView { pods: [(id, pod)].into(), ..ClusterView::default() });
    drop(observer.probe(zone).await);
}
