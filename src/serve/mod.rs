//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
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
}

/// Serves until cancelled.
pub async fn serve(listener: TcpListener, status: Arc<dyn Status>, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|State(status): State<Arc<dyn Status>>| async move { answer(status.alive()) }))
        .route("/readyz", get(|State(status): State<Arc<dyn Status>>| async move { answer(status.ready()) }))
        .route("/metrics", get(metrics))
        .with_state(status);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn answer(result: Result<(), String>) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(status): State<Arc<dyn Status>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], status.metrics())
}
