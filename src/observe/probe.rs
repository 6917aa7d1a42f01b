//! Asks pods of an isolated zone directly: metrics say nothing of a zone without traffic.
//!
//! gRPC is the standard health check (`grpc.health.v1.Health/Check`, <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>),
//! spoken as HTTP/2 without TLS: its answer is one small message, of which one byte says SERVING.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

use crate::domain::{ClusterView, Probes, ServiceId, Zone};

const TIMEOUT: Duration = Duration::from_secs(3);
/// Of each service, and at once.
const MOST_PODS: usize = 10;
const AT_ONCE: usize = 32;
/// An answer to a health check is a few bytes.
const MOST_BYTES: usize = 64 * 1024;

/// One of the list `probes`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeSettings {
    pub service: ServiceId,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
}

impl ProbeSettings {
    /// What is illegal, each as the place in the list and what is allowed.
    pub fn problems(probes: &[Self]) -> Vec<(String, String)> {
        let problem = |(at, probe): (usize, &Self)| {
            let why = match (&probe.path, &probe.grpc) {
                _ if probe.port == 0 => "port: 0 is none".to_owned(),
                (Some(path), None) if !path.starts_with('/') => format!("path: `{path}` does not begin with /"),
                (Some(_), None) => return None,
                (None, Some(name)) if name.len() > 255 => "grpc: at most 255 characters".to_owned(),
                (None, Some(_)) => return None,
                (Some(_), Some(_)) | (None, None) => "give either path or grpc".to_owned(),
            };
            Some((format!("[{at}]"), why))
        };
        probes.iter().enumerate().filter_map(problem).collect()
    }
}

/// What is to be asked of whom.
pub(super) struct Prober {
    probes: Vec<ProbeSettings>,
    http: Client,
    http2: Client,
    /// By probe, and where it is to be asked.
    pods: Vec<(usize, Zone, SocketAddr)>,
}

impl Prober {
    pub fn new(probes: Vec<ProbeSettings>) -> Result<Self, reqwest::Error> {
        let builder = || {
            Client::builder()
                .timeout(TIMEOUT)
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .user_agent("zoneward")
        };
        Ok(Self {
            probes,
            http: builder().build()?,
            http2: builder().http2_prior_knowledge().build()?,
            pods: Vec::new(),
        })
    }

    /// Learns where the pods are.
    pub fn learn(&mut self, view: &ClusterView) {
        self.pods.clear();
        for (at, probe) in self.probes.iter().enumerate() {
            let concerned = view.pods.values().filter(|pod| pod.ready && pod.services.contains(&probe.service));
            self.pods.extend(
                concerned.filter_map(|pod| Some((at, pod.zone.clone()?, SocketAddr::new(pod.address?, probe.port)))),
            );
        }
    }

    /// Some pods of each service in the zone. None where there is nothing to ask.
    pub async fn probe(&self, zone: &Zone) -> Option<Probes> {
        if self.probes.is_empty() {
            return None;
        }
        let mut asked = Vec::new();
        for at in 0..self.probes.len() {
            let of_service = self.pods.iter().filter(|(probe, its_zone, _)| *probe == at && its_zone == zone);
            asked.extend(of_service.take(MOST_PODS).map(|(_, _, address)| (at, *address)));
        }
        let answers = futures::stream::iter(asked).map(|(at, address)| async move {
            let probe = &self.probes[at];
            let answer = self.ask(probe, address).await;
            answer.map_err(|why| format!("{} at {address}: {why}", probe.service))
        });
        let mut probes = Probes::default();
        let mut answers = answers.buffered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            probes.asked += 1;
            if let Err(why) = answer {
                probes.failed += 1;
                probes.why.get_or_insert(why);
            }
        }
        Some(probes)
    }

    async fn ask(&self, probe: &ProbeSettings, address: SocketAddr) -> Result<(), String> {
        if let Some(name) = &probe.grpc {
            return self.ask_grpc(name, address).await;
        }
        let path = probe.path.as_deref().unwrap_or("/");
        let answer = self.http.get(format!("http://{address}{path}")).send().await.map_err(|error| in_words(&error))?;
        let status = answer.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(format!("GET {path} was answered {status}"));
        }
        Ok(())
    }

    async fn ask_grpc(&self, name: &str, address: SocketAddr) -> Result<(), String> {
        let url = format!("http://{address}/grpc.health.v1.Health/Check");
        let call = self.http2.post(url).header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
        let answer = call.body(request(name)).send().await.map_err(|error| in_words(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the health check was answered {}", answer.status()));
        }
        if let Some(status) = answer.headers().get("grpc-status").filter(|status| status.as_bytes() != b"0") {
            return Err(format!("the health check ended with gRPC status {}", status.to_str().unwrap_or("?")));
        }
        let mut body = Vec::new();
        let mut stream = answer.bytes_stream();
        while let Some(bytes) = stream.next().await {
            body.extend_from_slice(&bytes.map_err(|error| in_words(&error))?);
            if body.len() > MOST_BYTES {
                return Err("the health check's answer is too long".to_owned());
            }
        }
        if is_serving(&body) { Ok(()) } else { Err("the health check does not say SERVING".to_owned()) }
    }
}

/// A `HealthCheckRequest` in gRPC's frame: no compression, its length, the field `service`.
fn request(name: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !name.is_empty() {
        message.extend([0x0a, name.len() as u8]);
        if name.len() > 127 {
            message = vec![0x0a, (name.len() as u8 & 0x7f) | 0x80, (name.len() >> 7) as u8];
        }
        message.extend(name.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// Whether a `HealthCheckResponse` has the status 1.
fn is_serving(frame: &[u8]) -> bool {
    frame.strip_prefix(&[0, 0, 0, 0, 2]).is_some_and(|message| message == [0x08, 0x01])
}

fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer in {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_framed_as_grpc_wants_it() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(200);
        assert_eq!(request(&long)[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
    }

    #[test]
    fn only_serving_passes() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        assert!(!is_serving(&[0, 0, 0, 0, 2, 8, 2]), "NOT_SERVING");
        assert!(!is_serving(&[0, 0, 0, 0, 0]), "UNKNOWN is left out of the message");
        assert!(!is_serving(b""));
    }

    #[test]
    fn a_probe_is_either_http_or_grpc() {
        let probe = |path: Option<&str>, grpc: Option<&str>| ProbeSettings {
            service: ServiceId::new("default", "mockb"),
            port: 8080,
            path: path.map(str::to_owned),
            grpc: grpc.map(str::to_owned),
        };
        let problems = |probe: ProbeSettings| ProbeSettings::problems(&[probe]);
        assert!(problems(probe(Some("/healthz"), None)).is_empty() && problems(probe(None, Some(""))).is_empty());
        for wrong in [probe(None, None), probe(Some("/"), Some("")), probe(Some("healthz"), None)] {
            assert_eq!(problems(wrong).len(), 1);
        }
    }
}
