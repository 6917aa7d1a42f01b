//! The Prometheus HTTP API: the only file that knows the client.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use jiff::Timestamp;
use prometheus_http_query::Client;
use prometheus_http_query::response::{Data, InstantVector, RangeVector};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use thiserror::Error;

use super::decode::Stretch;
use super::settings::Settings;
use crate::ports::ObserveError;

/// Shown of an answer that is none.
const SHOWN_CHARS: usize = 120;

/// Why there can be no client at all.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("{path} can't be read ({setting})")]
    File { setting: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{setting}: {why}")]
    Invalid { setting: &'static str, why: String },
}

/// What was asked of Prometheus so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub queries: u64,
    pub failed_queries: u64,
    pub response_bytes: u64,
}

/// Sends queries, with authentication, within limits.
pub(super) struct Api {
    client: Client,
    url: String,
    headers: HeaderMap,
    bearer_token_file: Option<PathBuf>,
    timeout: Duration,
    max_bytes: usize,
    pub usage: Usage,
}

#[derive(Debug, Error)]
pub(super) enum ApiError {
    #[error("{0} (prometheus.url)")]
    Unreachable(String),
    #[error(
        "the answer is larger than {limit_mib:.0} MiB (prometheus.max_response): raise it, or narrow prometheus.matchers"
    )]
    TooLarge { limit_mib: f64 },
    /// It could not or would not answer this question; a smaller one may do.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
}

impl From<ApiError> for ObserveError {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}

pub(super) struct Answer {
    pub data: Data,
    pub warnings: Vec<String>,
}

pub(super) struct RangeAnswer {
    pub rows: Vec<RangeVector>,
    pub warnings: Vec<String>,
}

/// The API's envelope, with the warnings that the client library drops.
#[derive(Deserialize)]
struct Envelope {
    status: String,
    data: Option<Data>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

impl Api {
    pub fn new(settings: &Settings) -> Result<Self, ConnectError> {
        let invalid = |setting, why: String| ConnectError::Invalid { setting, why };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("zoneward/", env!("CARGO_PKG_VERSION")))
            .timeout(settings.timeout.unsigned())
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &settings.ca_file {
            let pem = read("prometheus.ca_file", path)?;
            let certificate = reqwest::Certificate::from_pem(&pem).map_err(|error| {
                invalid("prometheus.ca_file", format!("{} is no PEM certificate: {error}", path.display()))
            })?;
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().map_err(|error| invalid("prometheus", error.to_string()))?;
        let client =
            Client::from(client, &settings.url).map_err(|error| invalid("prometheus.url", error.to_string()))?;
        let mut headers = HeaderMap::new();
        for header in &settings.headers {
            let name: HeaderName = header
                .name
                .parse()
                .map_err(|_| invalid("prometheus.headers", format!("`{}` is no header name", header.name)))?;
            let value = match (&header.value, &header.value_file) {
                (Some(value), _) => value.clone(),
                (None, Some(path)) => read_text("prometheus.headers", path)?,
                (None, None) => String::new(),
            };
            headers.insert(name, secret(&value, "prometheus.headers")?);
        }
        if let Some(auth) = &settings.basic_auth {
            let password = read_text("prometheus.basic_auth.password_file", &auth.password_file)?;
            let value = format!("Basic {}", BASE64.encode(format!("{}:{password}", auth.username)));
            headers.insert(AUTHORIZATION, secret(&value, "prometheus.basic_auth")?);
        }
        if let Some(path) = &settings.bearer_token_file {
            read_text("prometheus.bearer_token_file", path)?;
        }
        Ok(Self {
            client,
            url: settings.url.clone(),
            headers,
            bearer_token_file: settings.bearer_token_file.clone(),
            timeout: settings.timeout.unsigned(),
            max_bytes: settings.max_response.get(),
            usage: Usage::default(),
        })
    }

    /// The token is read anew each time, as it may be rotated.
    fn all_headers(&self) -> Result<HeaderMap, ApiError> {
        let mut headers = self.headers.clone();
        if let Some(path) = &self.bearer_token_file {
            let token = read_text("prometheus.bearer_token_file", path)
                .map_err(|e| ApiError::Failed(format!("{e}: {}", causes(&e))))?;
            let value = secret(&format!("Bearer {token}"), "prometheus.bearer_token_file")
                .map_err(|e| ApiError::Failed(format!("{e}: {}", causes(&e))))?;
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    pub async fn range(&mut self, query: &str, stretch: Stretch) -> Result<RangeAnswer, ApiError> {
        let start = stretch.first.as_second() as f64 - stretch.offset_s;
        let step = stretch.cycle.as_secs_f64();
        let end = start + step * (stretch.cycles - 1) as f64;
        let mut request =
            self.client.query_range(query, start as i64, end as i64, step).timeout(self.timeout.as_millis() as i64);
        for (name, value) in self.all_headers()? {
            if let Some(name) = name {
                request = request.header(name, value);
            }
        }
        let answer = self.send(request.post_raw(), query).await?;
        match answer.data {
            Data::Matrix(rows) => Ok(RangeAnswer { rows, warnings: answer.warnings }),
            Data::Vector(_) | Data::Scalar(_) => Err(self.wrong_type("a range query", "a matrix")),
        }
    }

    pub async fn instant(&mut self, query: &str, at: Timestamp) -> Result<Answer, ApiError> {
        let mut request = self.client.query(query).at(at.as_second()).timeout(self.timeout.as_millis() as i64);
        for (name, value) in self.all_headers()? {
            if let Some(name) = name {
                request = request.header(name, value);
            }
        }
        self.send(request.post_raw(), query).await
    }

    /// The rows of an instant query, and warnings.
    pub async fn vector(&mut self, query: &str, at: Timestamp) -> Result<(Vec<InstantVector>, Vec<String>), ApiError> {
        let answer = self.instant(query, at).await?;
        match answer.data {
            Data::Vector(rows) => Ok((rows, answer.warnings)),
            Data::Matrix(_) | Data::Scalar(_) => Err(self.wrong_type("an instant query", "a vector")),
        }
    }

    /// The first value of an instant query, or 0.
    pub async fn number(&mut self, query: &str, at: Timestamp) -> Result<u64, ApiError> {
        let (rows, _) = self.vector(query, at).await?;
        Ok(rows.first().map_or(0, |row| row.sample().value() as u64))
    }

    fn wrong_type(&self, asked: &str, wanted: &str) -> ApiError {
        ApiError::Failed(format!(
            "{} answered {asked} with something else than {wanted}; is prometheus.url the base address of the API?",
            self.url
        ))
    }

    async fn send(
        &mut self,
        request: impl Future<Output = Result<reqwest::Response, prometheus_http_query::Error>>,
        query: &str,
    ) -> Result<Answer, ApiError> {
        self.usage.queries += 1;
        let answer = self.try_send(request).await;
        if let Err(error) = &answer {
            self.usage.failed_queries += 1;
            tracing::debug!(%error, query, "query failed");
        }
        answer
    }

    async fn try_send(
        &mut self,
        request: impl Future<Output = Result<reqwest::Response, prometheus_http_query::Error>>,
    ) -> Result<Answer, ApiError> {
        let response = request.await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(&body) {
            return match (envelope.status.as_str(), envelope.data) {
                ("success", Some(data)) => {
                    let mut warnings = envelope.warnings;
                    if envelope.is_partial {
                        warnings.push("the answer is marked as partial".to_owned());
                    }
                    Ok(Answer { data, warnings })
                }
                _ => Err(ApiError::Refused(format!(
                    "{} refused the query (HTTP {status}): {}",
                    self.url,
                    envelope.error.unwrap_or_else(|| "no reason given".to_owned())
                ))),
            };
        }
        let start: String = String::from_utf8_lossy(&body).chars().take(SHOWN_CHARS).collect();
        let start = start.split_whitespace().collect::<Vec<_>>().join(" ");
        let what = if status.is_success() { "an answer that is not Prometheus' JSON" } else { "an error" };
        Err(ApiError::Failed(format!(
            "{} gave {what} (HTTP {status}, {} bytes), which begins: {start:?}; is prometheus.url the base address of \
             the API?",
            self.url,
            body.len()
        )))
    }

    /// Read as it comes, and given up as soon as it is too large.
    async fn body(&mut self, response: reqwest::Response) -> Result<Vec<u8>, ApiError> {
        let too_large = || ApiError::TooLarge { limit_mib: self.max_bytes as f64 / f64::from(1 << 20) };
        if response.content_length().is_some_and(|length| length > self.max_bytes as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                ApiError::Failed(format!(
                    "{} broke off its answer after {} bytes: {}",
                    self.url,
                    body.len(),
                    causes(&error)
                ))
            })?;
            if body.len() + chunk.len() > self.max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        self.usage.response_bytes += body.len() as u64;
        Ok(body)
    }

    fn unreachable(&self, error: &prometheus_http_query::Error) -> ApiError {
        let why = causes(error);
        let why = if why.contains("timed out") {
            return ApiError::Refused(format!("{} gave no answer within {} s", self.url, self.timeout.as_secs_f64()));
        } else if why.contains("InvalidContentType") {
            "it does not speak TLS: is it http:// instead of https://?".to_owned()
        } else {
            why
        };
        ApiError::Unreachable(format!("{} can't be reached: {why}", self.url))
    }
}

/// An error and what caused it, in one line; the address is said once, elsewhere.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source().or(Some(error));
    while let Some(cause) = next {
        let this = cause.to_string();
        if !this.starts_with("error sending request") && !text.contains(&this) {
            let _ = write!(text, "{}{this}", if text.is_empty() { "" } else { ": " });
        }
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File { setting, path: path.to_owned(), source })
}

fn read_text(setting: &'static str, path: &Path) -> Result<String, ConnectError> {
    Ok(String::from_utf8_lossy(&read(setting, path)?).trim().to_owned())
}

/// A header value that is never printed.
fn secret(value: &str, setting: &'static str) -> Result<HeaderValue, ConnectError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| ConnectError::Invalid { setting, why: "has characters that a header can't carry".to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}
