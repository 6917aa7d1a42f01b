//! Stands between a daemon and all that it writes to, the API server and the name server, and decides what becomes of each
//! write.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::stage::{ACCOUNT, Stage};

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// It never arrives, and the API server's answer is this status. The name server hangs up.
    Refuse(u16),
    /// It never arrives, and nobody answers.
    Swallow,
    /// It arrives, and the daemon is killed before it hears so.
    KillAfter(u32),
    /// It arrives, and the daemon is stopped, to be continued, before it hears so.
    StopAfter(u32),
}

type Rule = Box<dyn FnMut(&str) -> Fate + Send>;

struct Shared {
    rule: Mutex<Rule>,
    /// Every write, such as `PATCH /api/v1/nodes/zone-b-0` or `UPDATE api.example.org.`
    writes: Mutex<Vec<String>>,
    /// Whether nothing gets through to the API server.
    cut: AtomicBool,
    upstream: String,
    client: reqwest::Client,
    name_server: SocketAddr,
}

pub struct Relay {
    pub api_server: SocketAddr,
    pub name_server: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Relay {
    pub fn start(stage: &Stage) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let authority = reqwest::Certificate::from_pem(stage.cluster.authority().as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
        let shared = Arc::new(Shared {
            rule: Mutex::new(Box::new(|_| Fate::Pass)),
            writes: Mutex::default(),
            cut: AtomicBool::new(false),
            upstream: format!("https://{}", stage.cluster.address()),
            client,
            name_server: stage.bind.address(),
        });
        let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (api_server, name_server) = (bind(), bind());
        let addresses = (api_server.local_addr().unwrap(), name_server.local_addr().unwrap());
        let router = Router::new().fallback(forward).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(api_server, router).await.unwrap() });
        runtime.spawn(serve_names(name_server, Arc::clone(&shared)));
        Self { api_server: addresses.0, name_server: addresses.1, shared, _runtime: runtime }
    }

    /// The daemon's account, by way of the relay.
    pub fn kubeconfig(&self, stage: &Stage) -> PathBuf {
        let direct = std::fs::read_to_string(stage.cluster.kubeconfig_of(ACCOUNT)).unwrap();
        let here = direct.replace(&self.shared.upstream, &format!("http://{}", self.api_server));
        stage.write("relayed.kubeconfig", &here)
    }

    /// Whether calls of the API server get lost from now on. Names can still be changed.
    pub fn cut_off(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// From now on; writes are counted anew.
    pub fn rule(&self, rule: impl FnMut(&str) -> Fate + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
        self.shared.writes.lock().unwrap().clear();
    }

    pub fn writes(&self) -> Vec<String> {
        self.shared.writes.lock().unwrap().clone()
    }
}

impl Shared {
    fn fate(&self, write: &str) -> Fate {
        self.writes.lock().unwrap().push(write.to_owned());
        self.rule.lock().unwrap()(write)
    }
}

/// With KILL as in a lost machine: nothing more is sent.
pub fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

fn answer(status: u16) -> Response<Body> {
    let body = format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"relayed trouble","reason":"Trouble","code":{status}}}"#
    );
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body)).unwrap()
}

/// Leases, Events and questions about rights change nothing that is isolated.
fn is_write(method: &Method, uri: &Uri) -> bool {
    let beside = ["/leases", "/events", "/selfsubjectaccessreviews"];
    *method != Method::GET && !beside.iter().any(|beside| uri.path().contains(beside))
}

async fn forward(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if shared.cut.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let fate = if is_write(&method, &uri) { shared.fate(&format!("{method} {}", uri.path())) } else { Fate::Pass };
    match fate {
        Fate::Pass | Fate::KillAfter(_) | Fate::StopAfter(_) => {}
        Fate::Refuse(status) => return answer(status),
        Fate::Swallow => std::future::pending().await,
    }
    let mut request = shared.client.request(method, format!("{}{uri}", shared.upstream)).body(body);
    for (name, value) in headers.iter().filter(|(name, _)| !["host", "content-length"].contains(&name.as_str())) {
        request = request.header(name, value);
    }
    let Ok(answered) = request.send().await else { return answer(502) };
    let mut response = Response::builder().status(StatusCode::as_u16(&answered.status()));
    if let Some(kind) = answered.headers().get("content-type") {
        response = response.header("content-type", kind);
    }
    if let Fate::KillAfter(process) = fate {
        let _done = answered.bytes().await;
        signal("KILL", process);
        return answer(503);
    }
    if let Fate::StopAfter(process) = fate {
        let done = answered.bytes().await.unwrap();
        signal("STOP", process);
        return response.body(Body::from(done)).unwrap();
    }
    response.body(Body::from_stream(answered.bytes_stream())).unwrap()
}

async fn serve_names(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _hung_up = relay_names(stream, &shared).await;
        });
    }
}

async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_u16(message.len() as u16).await?;
    stream.write_all(message).await
}

async fn relay_names(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut server = TcpStream::connect(shared.name_server).await?;
    loop {
        let asked = message(&mut stream).await?;
        // The opcode of RFC 2136 is 5.
        let fate = if (asked[2] >> 3) & 0xf == 5 { shared.fate("UPDATE") } else { Fate::Pass };
        match fate {
            Fate::Pass | Fate::KillAfter(_) | Fate::StopAfter(_) => {}
            Fate::Refuse(_) => return Ok(()),
            Fate::Swallow => std::future::pending().await,
        }
        send(&mut server, &asked).await?;
        let answered = message(&mut server).await?;
        if let Fate::KillAfter(process) = fate {
            signal("KILL", process);
            return Ok(());
        }
        send(&mut stream, &answered).await?;
    }
}
