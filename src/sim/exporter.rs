//! The mesh's metrics as Istio's proxies export them: one `/metrics` a pod, found by HTTP service discovery.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::observer::lock;
use super::pod::{Counters, Durations, EDGES_MS, Reporter, SeriesKey};
use super::world::{NAMESPACE, World};

#[derive(Clone)]
struct Exporter {
    world: Arc<Mutex<World>>,
    address: String,
}

/// Serves `/targets` (for `http_sd_configs`) and `/pods/NAME/metrics` until cancelled. `/targets/labelled` also has the
/// pods' labels, as scrape configurations that map them do: draining a pod renames all of its series.
pub async fn export(listener: TcpListener, world: Arc<Mutex<World>>, stop: CancellationToken) -> std::io::Result<()> {
    let exporter = Exporter { world, address: listener.local_addr()?.to_string() };
    let router = Router::new()
        .route("/targets", get(targets))
        .route("/targets/labelled", get(labelled))
        .route("/pods/{name}/metrics", get(metrics))
        .with_state(exporter);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn targets(State(exporter): State<Exporter>) -> Json<Value> {
    exporter.targets(&[])
}

async fn labelled(State(exporter): State<Exporter>) -> Json<Value> {
    let drained: Vec<(String, String)> = {
        let world = lock(&exporter.world);
        world.pods.iter().filter_map(|pod| Some((pod.name.clone(), pod.draining.clone()?))).collect()
    };
    exporter.targets(&drained)
}

impl Exporter {
    fn targets(&self, draining: &[(String, String)]) -> Json<Value> {
        let target = |target: Target| {
            let path = format!("/pods/{}/metrics", target.pod);
            let mut labels: Map<String, Value> =
                target.labels().map(|(k, v)| (k.to_owned(), v.into())).into_iter().collect();
            labels.insert("__metrics_path__".to_owned(), path.into());
            if let Some((_, value)) = draining.iter().find(|(pod, _)| *pod == target.pod) {
                labels.insert("istio_io_draining".to_owned(), value.clone().into());
            }
            json!({"targets": [self.address], "labels": labels})
        };
        Json(lock(&self.world).targets().into_iter().map(target).collect())
    }
}

async fn metrics(State(exporter): State<Exporter>, Path(name): Path<String>) -> Response {
    match lock(&exporter.world).metrics(&name) {
        None => (StatusCode::SERVICE_UNAVAILABLE, "no such pod, or cut off\n").into_response(),
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
    }
}

/// A proxy to be scraped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub pod: String,
    pub app: String,
}

impl Target {
    /// As a scrape configuration for pods would set them.
    pub fn labels(&self) -> [(&'static str, String); 4] {
        let (pod, app) = (self.pod.clone(), self.app.clone());
        [("instance", pod.clone()), ("namespace", NAMESPACE.to_owned()), ("pod", pod), ("app", app)]
    }
}

impl World {
    pub fn targets(&self) -> Vec<Target> {
        self.pods.iter().map(|pod| Target { pod: pod.name.clone(), app: pod.service.clone() }).collect()
    }

    /// What a scrape of the pod would get now; nothing if it is gone or cut off.
    pub fn metrics(&self, pod: &str) -> Option<String> {
        let pod = self.pods.iter().find(|p| p.name == pod).filter(|p| !self.lost_scrapes(&p.zone))?;
        Some(text(&pod.counters, pod.zone.as_str()))
    }
}

/// The Prometheus text format. A series is there once it is non-zero.
fn text(counters: &Counters, zone: &str) -> String {
    let mut out = String::from("# TYPE istio_requests_total counter\n");
    for (key, durations) in counters {
        let _infallible = writeln!(out, "istio_requests_total{{{}}} {}", labels(key, zone), durations.total());
    }
    out.push_str("# TYPE istio_request_duration_milliseconds histogram\n");
    for (key, durations) in counters {
        histogram(&mut out, &labels(key, zone), durations);
    }
    out
}

fn histogram(out: &mut String, labels: &str, durations: &Durations) {
    const NAME: &str = "istio_request_duration_milliseconds";
    let mut below = 0;
    for (edge, count) in EDGES_MS.iter().zip(durations.counts) {
        below += count;
        let le = if edge.is_finite() { edge.to_string() } else { "+Inf".to_owned() };
        let _infallible = writeln!(out, "{NAME}_bucket{{{labels},le=\"{le}\"}} {below}");
    }
    let _infallible = writeln!(out, "{NAME}_sum{{{labels}}} {:.3}\n{NAME}_count{{{labels}}} {below}", durations.sum_ms);
}

/// Istio's standard labels, and the zone label that a Telemetry tag adds.
fn labels(key: &SeriesKey, zone: &str) -> String {
    let (code, flags) = key.ending.labels();
    let reporter = match key.reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    };
    let (source, destination) = (&key.source, &key.destination);
    format!(
        "reporter=\"{reporter}\",source_workload=\"{source}\",source_workload_namespace=\"{NAMESPACE}\",\
         source_canonical_service=\"{source}\",source_canonical_revision=\"latest\",\
         destination_workload=\"{destination}\",destination_workload_namespace=\"{NAMESPACE}\",\
         destination_service=\"{destination}.{NAMESPACE}.svc.cluster.local\",\
         destination_service_name=\"{destination}\",destination_service_namespace=\"{NAMESPACE}\",\
         destination_canonical_service=\"{destination}\",destination_canonical_revision=\"latest\",\
         request_protocol=\"http\",response_code=\"{code}\",grpc_response_status=\"\",response_flags=\"{flags}\",\
         connection_security_policy=\"mutual_tls\",locality=\"{zone}\""
    )
}
