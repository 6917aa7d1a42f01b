//! The Prometheus HTTP API: the only file that knows the client.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use jiff::Timestamp;
use prometheus_http_query::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use super::decode::Stretch;
use super::settings::Settings;
use super::stream::{Row, Scanner};
use crate::domain::{Secret, inert};
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
    /// What an answer may quote.
    secrets: Vec<Secret>,
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

/// What a server says, without a secret that it quotes, and without what would command a terminal.
fn harmless(said: &str, secrets: &[Secret]) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    inert(&Secret::hide_all(secrets, &words.join(" "))).into_owned()
}

impl ApiError {
    fn without(self, secrets: &[Secret]) -> Self {
        match self {
            Self::Unreachable(why) => Self::Unreachable(harmless(&why, secrets)),
            Self::Refused(why) => Self::Refused(harmless(&why, secrets)),
            Self::Failed(why) => Self::Failed(harmless(&why, secrets)),
            Self::TooLarge { .. } => self,
        }
    }
}

impl From<ApiError> for ObserveError {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}

/// What Prometheus may answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Vector,
    Matrix,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }
}

/// A query that was sent. Dropped, it is given up.
pub(super) struct Asked {
    query: String,
    sent: AbortOnDropHandle<Result<reqwest::Response, prometheus_http_query::Error>>,
    secrets: Vec<Secret>,
}

/// Takes the rows of an answer, one by one.
pub(super) type Take<'a> = &'a mut (dyn FnMut(&Row<'_>) + Send);

impl Api {
    pub fn new(settings: &Settings) -> Result<Self, ConnectError> {
        let invalid = |setting, why: String| ConnectError::Invalid { setting, why };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("zoneward/", env!("CARGO_PKG_VERSION")))
            .timeout(settings.timeout.unsigned())
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &settings.ca_file {
            let pem = read("prometheus.ca_file", path)?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if authorities.is_empty() {
                return Err(invalid("prometheus.ca_file", format!("{} holds no PEM certificate", path.display())));
            }
            builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let client = builder.build().map_err(|error| invalid("prometheus", error.to_string()))?;
        let client =
            Client::from(client, &settings.url).map_err(|error| invalid("prometheus.url", error.to_string()))?;
        let (mut headers, mut secrets) = (HeaderMap::new(), Vec::new());
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
            secrets.extend(match &header.value_file {
                Some(_) => Some(Secret::new(&value)),
                None => Secret::of_value(&value),
            });
            headers.insert(name, secret(&value, "prometheus.headers")?);
        }
        if let Some(auth) = &settings.basic_auth {
            let password = read_text("prometheus.basic_auth.password_file", &auth.password_file)?;
            let pair = BASE64.encode(format!("{}:{password}", auth.username));
            headers.insert(AUTHORIZATION, secret(&format!("Basic {pair}"), "prometheus.basic_auth")?);
            secrets.extend([pair, password].map(Secret::new));
        }
        if let Some(path) = &settings.bearer_token_file {
            read_text("prometheus.bearer_token_file", path)?;
        }
        Ok(Self {
            client,
            url: settings.url.clone(),
            headers,
            secrets,
            bearer_token_file: settings.bearer_token_file.clone(),
            timeout: settings.timeout.unsigned(),
            max_bytes: settings.max_response.get(),
            usage: Usage::default(),
        })
    }

    /// The token is read anew each time, as it may be rotated.
    fn all_headers(&self) -> Result<(HeaderMap, Vec<Secret>), ApiError> {
        let (mut headers, mut secrets) = (self.headers.clone(), self.secrets.clone());
        if let Some(path) = &self.bearer_token_file {
            let token = read_text("prometheus.bearer_token_file", path)
                .map_err(|e| ApiError::Failed(format!("{e}: {}", causes(&e))))?;
            let value = secret(&format!("Bearer {token}"), "prometheus.bearer_token_file")
                .map_err(|e| ApiError::Failed(format!("{e}: {}", causes(&e))))?;
            headers.insert(AUTHORIZATION, value);
            secrets.push(Secret::new(token));
        }
        Ok((headers, secrets))
    }

    /// Sends a query, whose answer is asked for later: until then Prometheus works on it.
    pub fn ask(&self, query: String, stretch: Stretch) -> Result<Asked, ApiError> {
        let (start, step) = (stretch.first.as_second(), stretch.cycle.seconds());
        let end = start + step * (stretch.cycles as i64 - 1);
        let mut request =
            self.client.query_range(&query, start, end, step as f64).timeout(self.timeout.as_millis() as i64);
        let (headers, secrets) = self.all_headers()?;
        for (name, value) in headers {
            if let Some(name) = name {
                request = request.header(name, value);
            }
        }
        let sent = AbortOnDropHandle::new(tokio::spawn(request.post_raw()));
        Ok(Asked { query, sent, secrets })
    }

    /// Hands over row by row. After an error, those that came before it are worth nothing. Returns warnings.
    pub async fn answer(&mut self, asked: Asked, take: Take<'_>) -> Result<Vec<String>, ApiError> {
        let Asked { query, sent, secrets } = asked;
        let sent = async {
            match sent.await {
                Ok(answer) => answer,
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            }
        };
        self.send(sent, &query, (Kind::Matrix, take), &secrets).await
    }

    pub async fn range(&mut self, query: String, stretch: Stretch, take: Take<'_>) -> Result<Vec<String>, ApiError> {
        let asked = self.ask(query, stretch)?;
        self.answer(asked, take).await
    }

    pub async fn instant(
        &mut self,
        query: &str,
        at: Timestamp,
        kind: Kind,
        take: Take<'_>,
    ) -> Result<Vec<String>, ApiError> {
        let mut request = self.client.query(query).at(at.as_second()).timeout(self.timeout.as_millis() as i64);
        let (headers, secrets) = self.all_headers()?;
        for (name, value) in headers {
            if let Some(name) = name {
                request = request.header(name, value);
            }
        }
        self.send(request.post_raw(), query, (kind, take), &secrets).await
    }

    /// The first value of an instant query, or 0.
    pub async fn number(&mut self, query: &str, at: Timestamp) -> Result<u64, ApiError> {
        let mut number = None;
        self.instant(query, at, Kind::Vector, &mut |row| number = number.or(row.value())).await?;
        Ok(number.unwrap_or(0.0) as u64)
    }

    async fn send(
        &mut self,
        request: impl Future<Output = Result<reqwest::Response, prometheus_http_query::Error>>,
        query: &str,
        (kind, take): (Kind, Take<'_>),
        secrets: &[Secret],
    ) -> Result<Vec<String>, ApiError> {
        self.usage.queries += 1;
        let answer = self.try_send(request, (kind, take), secrets).await;
        match answer {
            Ok(warnings) => Ok(warnings.iter().map(|warning| harmless(warning, secrets)).collect()),
            Err(error) => {
                self.usage.failed_queries += 1;
                let error = error.without(secrets);
                tracing::debug!(%error, query, "query failed");
                Err(error)
            }
        }
    }

    async fn try_send(
        &mut self,
        request: impl Future<Output = Result<reqwest::Response, prometheus_http_query::Error>>,
        (kind, take): (Kind, Take<'_>),
        secrets: &[Secret],
    ) -> Result<Vec<String>, ApiError> {
        let response = request.await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let mut scanner = Scanner::default();
        let (bytes, read) = self.read(response, &mut scanner, take).await?;
        let envelope = match read.and_then(|()| scanner.envelope()) {
            Ok(envelope) => envelope,
            Err(error) => {
                let what = if status.is_success() { "an answer that is not Prometheus' JSON" } else { "an error" };
                return Err(ApiError::Failed(format!(
                    "{} gave {what} (HTTP {status}, {bytes} bytes: {error}), which begins: {:?}; is prometheus.url the base \
                     address of the API?",
                    self.url,
                    Secret::hide_all(secrets, &scanner.beginning(SHOWN_CHARS))
                )));
            }
        };
        match &envelope.data {
            Some(data) if envelope.status == "success" && data.kind == kind.as_str() => Ok(envelope.warnings()),
            Some(data) if envelope.status == "success" => Err(ApiError::Failed(format!(
                "{} answered with something else than a {}, a {}; is prometheus.url the base address of the API?",
                self.url,
                kind.as_str(),
                data.kind
            ))),
            _ => Err(ApiError::Refused(format!(
                "{} refused the query (HTTP {status}): {}",
                self.url,
                envelope.error.unwrap_or_else(|| "no reason given".to_owned())
            ))),
        }
    }

    /// Read as it comes, and given up as soon as it is too large, or not what it should be. Returns how many bytes came.
    async fn read(
        &mut self,
        response: reqwest::Response,
        scanner: &mut Scanner,
        take: Take<'_>,
    ) -> Result<(usize, serde_json::Result<()>), ApiError> {
        let too_large = || ApiError::TooLarge { limit_mib: self.max_bytes as f64 / f64::from(1 << 20) };
        if response.content_length().is_some_and(|length| length > self.max_bytes as u64) {
            return Err(too_large());
        }
        let mut bytes = 0;
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| {
                if error.is_timeout() {
                    return self.too_slow();
                }
                let why = causes(&error);
                ApiError::Failed(format!("{} broke off its answer after {bytes} bytes: {why}", self.url))
            })?;
            bytes += piece.len();
            if bytes > self.max_bytes {
                return Err(too_large());
            }
            if let Err(error) = scanner.feed(&piece, &mut *take) {
                return Ok((bytes, Err(error)));
            }
        }
        self.usage.response_bytes += bytes as u64;
        Ok((bytes, Ok(())))
    }

    fn too_slow(&self) -> ApiError {
        ApiError::Refused(format!(
            "{} gave no answer within {} s (prometheus.timeout)",
            self.url,
            self.timeout.as_secs_f64()
        ))
    }

    fn unreachable(&self, error: &prometheus_http_query::Error) -> ApiError {
        let why = causes(error);
        let why = if why.contains("timed out") {
            return self.too_slow();
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
