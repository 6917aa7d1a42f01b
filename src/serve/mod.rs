//! `/healthz`, `/readyz`, `/metrics`, and what people look at: the status page at `/`, and `/status.json`.
//!
//! All of it only tells: nothing can be changed from here. Whoever asks gets a bounded part of the process: so many
//! connections, so much of a request, so much time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub listen: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: "0.0.0.0:9900".to_owned() }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        match self.listen.parse::<SocketAddr>() {
            Ok(_) => Vec::new(),
            Err(_) => vec![("listen", format!("`{}` is not an address and port, such as 0.0.0.0:9900", self.listen))],
        }
    }
}

/// What the daemon says of itself.
pub trait Status: Send + Sync + 'static {
    /// Whether the loop turns; if not, since when.
    fn alive(&self) -> Result<(), String>;
    /// Whether it sees enough to judge; if not, why.
    fn ready(&self) -> Result<(), String>;
    /// In the Prometheus text format.
    fn metrics(&self) -> String;
    /// How things stand, as a page with those services alone whose name holds the filter.
    fn page(&self, filter: &str) -> String;
    /// What the page may load and run, as a Content-Security-Policy.
    fn policy(&self) -> String;
    /// The same facts for programs.
    fn overview(&self) -> String;
}

/// At once. The oldest makes room for the newest, so that who holds many keeps nobody out.
const MOST_CONNECTIONS: usize = 256;
/// Of one, idle or not; who asks again connects again.
const LONGEST_CONNECTION: Duration = Duration::from_mins(2);
/// For the head of a request, from the end of the one before.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
const LARGEST_HEAD: usize = 16 << 10;
/// For what is under way when the process ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// Before another try, when there are no more files to be had.
const REST: Duration = Duration::from_millis(100);

/// However often it is asked for, the same view is not made more often than this.
const MADE_EVERY: Duration = Duration::from_secs(1);
/// Of a filter, in bytes.
const LONGEST_FILTER: usize = 200;

/// A view that was made lately. One is made at a time.
#[derive(Default)]
struct Made(Mutex<Option<(Instant, View, Arc<str>)>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum View {
    Page { filter: String },
    Json,
}

#[derive(Clone)]
struct Shared {
    status: Arc<dyn Status>,
    made: Arc<Made>,
}

impl Shared {
    /// Made beside the tasks of the runtime, as a large mesh takes a while.
    async fn view(&self, view: View) -> Result<Arc<str>, StatusCode> {
        let mut made = self.made.0.lock().await;
        if let Some((at, known, text)) = &*made
            && *known == view
            && at.elapsed() < MADE_EVERY
        {
            return Ok(Arc::clone(text));
        }
        let (status, wanted) = (Arc::clone(&self.status), view.clone());
        let making = tokio::task::spawn_blocking(move || match wanted {
            View::Page { filter } => status.page(&filter),
            View::Json => status.overview(),
        });
        let text: Arc<str> = making.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.into();
        *made = Some((Instant::now(), view, Arc::clone(&text)));
        Ok(text)
    }
}

/// Serves until cancelled.
pub async fn serve(listener: TcpListener, status: Arc<dyn Status>, stop: CancellationToken) -> std::io::Result<()> {
    let shared = Shared { status, made: Arc::default() };
    let router = Router::new()
        .route("/", get(page))
        .route("/status.json", get(overview))
        .route("/healthz", get(|State(shared): State<Shared>| async move { answer(shared.status.alive()) }))
        .route("/readyz", get(|State(shared): State<Shared>| async move { answer(shared.status.ready()) }))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(REST).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MOST_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(converse(stream, router.clone(), stop.clone())).abort_handle());
    }
}

async fn converse(stream: TcpStream, router: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(LARGEST_HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    // What breaks off is the other side's matter.
    tokio::select! {
        _ended = tokio::time::timeout(LONGEST_CONNECTION, connection.as_mut()) => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _late = tokio::time::timeout(FAREWELL, connection).await;
        }
    }
}

fn answer(result: Result<(), String>) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], shared.status.metrics())
}

#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    service: String,
}

async fn page(State(shared): State<Shared>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let mut filter = asked.map_or_else(|_| String::new(), |Query(asked)| asked.service);
    filter.truncate(filter.floor_char_boundary(LONGEST_FILTER));
    let policy = shared.status.policy();
    match shared.view(View::Page { filter }).await {
        Ok(page) => (told("text/html; charset=utf-8", policy), page.to_string()).into_response(),
        Err(status) => status.into_response(),
    }
}

async fn overview(State(shared): State<Shared>) -> Response {
    match shared.view(View::Json).await {
        Ok(text) => (told("application/json", "default-src 'none'".to_owned()), text.to_string()).into_response(),
        Err(status) => status.into_response(),
    }
}

/// A view is kept by nobody, shown in nobody's frame, and taken for nothing else than it is.
fn told(kind: &'static str, policy: String) -> [(HeaderName, String); 7] {
    [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::X_FRAME_OPTIONS, "DENY".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin".to_owned()),
    ]
}
