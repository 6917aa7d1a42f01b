//! The Prometheus HTTP API: the only file that knows the client.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use jiff::Timestamp;
use prometheus_http_query::Client;
use prometheus_http_query::response::{Data, RangeVector};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use thiserror::Error;

use super::decode::{self, Rows, Stretch};
use super::queries::{Queries, Reporter};
use super::settings::Settings;
use crate::domain::verdict::Suspect;
use crate::domain::{Calls, CycleLength, Gap, Period, PodCalls, Snapshot};
use crate::ports::{ObserveError, Observer};

/// Cycles asked for at once. An answer that would be too large is asked for in halves.
const CHUNK_CYCLES: usize = 240;
/// Shown of an answer that is none.
const SHOWN_CHARS: usize = 120;

/// Reads snapshots from Prometheus, or from what speaks its API.
pub struct PrometheusObserver {
    api: Api,
    queries: Queries,
    settings: Settings,
    cycle: CycleLength,
    /// Set where samples come too rarely for the look-back.
    unfit: Option<Gap>,
}

/// Why there can be no client at all.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("{path} can't be read ({setting}): {source}")]
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

/// What `check --connect` wants to know.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    pub scrape_interval: Option<Period>,
    /// Requests per second by zone label; empty where the label is.
    pub zones: Vec<(String, f64)>,
    pub services: u64,
    pub duration_series: u64,
    pub copies: u32,
    pub warnings: Vec<String>,
}

impl PrometheusObserver {
    /// Reads the files that settings name; sends nothing.
    pub fn new(settings: Settings, cycle: CycleLength) -> Result<Self, ConnectError> {
        let queries = Queries::new(&settings, cycle);
        Ok(Self { api: Api::new(&settings)?, queries, settings, cycle, unfit: None })
    }

    pub const fn usage(&self) -> Usage {
        self.api.usage
    }

    pub const fn cycle(&self) -> CycleLength {
        self.cycle
    }

    /// Measures the scrape interval from the samples before `at`, and never looks more often than that: a scrape counts
    /// once. Returns the interval, if there were samples.
    pub async fn fit_to_scrapes(&mut self, at: Timestamp) -> Result<Option<Period>, ObserveError> {
        let Some(interval) = self.scrape_interval(at).await? else { return Ok(None) };
        if interval > Period::from_secs(self.cycle.seconds()) {
            self.cycle = CycleLength::at_least(interval);
            self.queries = Queries::new(&self.settings, self.cycle);
        }
        // Two missed scrapes in a row must not make a series look new.
        let (scrape_interval_s, lookback_s) = (interval.signed().as_secs(), self.settings.lookback.signed().as_secs());
        self.unfit = (4 * scrape_interval_s > lookback_s)
            .then_some(Gap::ScrapeIntervalTooLong { scrape_interval_s, lookback_s });
        Ok(Some(interval))
    }

    /// The median time between samples of a few proxies, in whole seconds.
    async fn scrape_interval(&mut self, at: Timestamp) -> Result<Option<Period>, ObserveError> {
        let some = self.api.instant(&self.queries.some_targets(), at).await?;
        let Data::Vector(targets) = some.data else { return Err(ObserveError("`topk` gave no vector".to_owned())) };
        let mut gaps_s = Vec::new();
        for target in targets {
            let labels: Vec<(String, String)> = self
                .settings
                .labels
                .target
                .iter()
                .filter_map(|name| target.metric().get(name).map(|value| (name.clone(), value.clone())))
                .collect();
            let answer = self.api.instant(&self.queries.samples_of(&labels), at).await?;
            if let Data::Matrix(rows) = answer.data {
                for row in rows {
                    gaps_s.extend(row.samples().windows(2).map(|pair| pair[1].timestamp() - pair[0].timestamp()));
                }
            }
        }
        gaps_s.sort_by(f64::total_cmp);
        Ok(gaps_s.get(gaps_s.len() / 2).map(|gap| Period::from_secs((gap.round() as i64).max(1))))
    }

    /// What there is to see at `at`.
    pub async fn inspect(&mut self, at: Timestamp) -> Result<Inspection, ObserveError> {
        let scrape_interval = self.scrape_interval(at).await?;
        let by_zone = self.api.instant(&self.queries.rate_by_zone(), at).await?;
        let warnings = by_zone.warnings;
        let Data::Vector(rows) = by_zone.data else { return Err(ObserveError("`sum` gave no vector".to_owned())) };
        let mut zones: Vec<(String, f64)> = rows
            .iter()
            .map(|row| {
                let zone = row.metric().get(&self.settings.labels.zone).cloned().unwrap_or_default();
                (zone, row.sample().value())
            })
            .collect();
        zones.sort_by(|a, b| a.0.cmp(&b.0));
        let services = self.api.number(&self.queries.services(), at).await?;
        let duration_series = self.api.number(&self.queries.duration_series(), at).await?;
        let copies = self.api.number(&self.queries.copies(), at).await? as u32;
        Ok(Inspection { scrape_interval, zones, services, duration_series, copies, warnings })
    }

    /// One stretch, in halves if need be.
    async fn stretch(&mut self, first: Timestamp, cycles: usize) -> Result<Vec<Snapshot>, ObserveError> {
        let mut snapshots = Vec::with_capacity(cycles);
        let mut pieces = vec![(first, cycles)];
        while let Some((first, cycles)) = pieces.pop() {
            let stretch = Stretch { first, cycles, cycle: self.cycle, offset_s: self.settings.offset.as_secs_f64() };
            match self.rows(stretch).await {
                Ok(rows) => snapshots.extend(decode::snapshots(&rows, stretch, &self.settings)),
                Err(ApiError::TooLarge { .. }) if cycles > 1 => {
                    let half = cycles / 2;
                    pieces.push((first + self.cycle.signed() * half as i32, cycles - half));
                    pieces.push((first, half));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(gap) = &self.unfit {
            snapshots.iter_mut().for_each(|snapshot| snapshot.gaps.push(gap.clone()));
        }
        Ok(snapshots)
    }

    async fn rows(&mut self, stretch: Stretch) -> Result<Rows, ApiError> {
        let mut warnings = Vec::new();
        let mut answers = Vec::new();
        let queries = [
            self.queries.requests(Reporter::Server),
            self.queries.requests(Reporter::Client),
            self.queries.durations(),
            self.queries.coverage(),
            self.queries.copies(),
        ];
        for query in queries {
            let answer = self.api.range(&query, stretch).await?;
            warnings.extend(answer.warnings);
            answers.push(answer.rows);
        }
        warnings.sort();
        warnings.dedup();
        let mut next = answers.into_iter();
        let mut take = || next.next().unwrap_or_default();
        Ok(Rows { served: take(), called: take(), durations: take(), coverage: take(), copies: take(), warnings })
    }
}

#[async_trait]
impl Observer for PrometheusObserver {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        let mut snapshots = Vec::new();
        let mut next = self.cycle.at_or_after(first);
        while next <= last {
            let left = (last.as_second() - next.as_second()) / self.cycle.seconds() + 1;
            let cycles = (left as usize).min(CHUNK_CYCLES);
            snapshots.extend(self.stretch(next, cycles).await?);
            next += self.cycle.signed() * cycles as i32;
        }
        Ok(snapshots)
    }

    async fn observe_pods(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Vec<PodCalls>, ObserveError> {
        let first = at - self.cycle.signed() * (suspect.cycles as i32 - 1);
        let offset_s = self.settings.offset.as_secs_f64();
        let stretch = Stretch { first, cycles: suspect.cycles, cycle: self.cycle, offset_s };
        let query = self.queries.pods(&suspect.service, suspect.zone.as_str());
        let answer = self.api.range(&query, stretch).await?;
        if let Some(warning) = answer.warnings.first() {
            return Err(ObserveError(format!("incomplete answer by pod: {warning}")));
        }
        let mut pods: Vec<PodCalls> = Vec::new();
        for row in &answer.rows {
            let pod = decode::label(row, &self.settings.labels.pod);
            let failed = decode::is_failure(row, &suspect.service, &self.settings);
            let total: f64 = stretch.values(row).map(|(_, count)| count).sum();
            let calls = Calls { total, failed: if failed { total } else { 0.0 } };
            match pods.iter_mut().find(|p| p.pod == pod) {
                Some(known) => known.calls += calls,
                None => pods.push(PodCalls { pod: pod.to_owned(), calls }),
            }
        }
        pods.sort_by(|a, b| a.pod.cmp(&b.pod));
        Ok(pods)
    }
}

/// Sends queries, with authentication, within limits.
struct Api {
    client: Client,
    url: String,
    headers: HeaderMap,
    bearer_token_file: Option<PathBuf>,
    timeout: Duration,
    max_bytes: usize,
    usage: Usage,
}

#[derive(Debug, Error)]
enum ApiError {
    #[error("{0} (prometheus.url)")]
    Unreachable(String),
    #[error(
        "the answer is larger than {limit_mib:.0} MiB (prometheus.max_response): raise it, or narrow prometheus.matchers"
    )]
    TooLarge { limit_mib: f64 },
    #[error("{0}")]
    Failed(String),
}

impl From<ApiError> for ObserveError {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}

struct Answer {
    data: Data,
    warnings: Vec<String>,
}

struct RangeAnswer {
    rows: Vec<RangeVector>,
    warnings: Vec<String>,
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
    fn new(settings: &Settings) -> Result<Self, ConnectError> {
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
            let token = read_text("prometheus.bearer_token_file", path).map_err(|e| ApiError::Failed(e.to_string()))?;
            let value = secret(&format!("Bearer {token}"), "prometheus.bearer_token_file")
                .map_err(|e| ApiError::Failed(e.to_string()))?;
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    async fn range(&mut self, query: &str, stretch: Stretch) -> Result<RangeAnswer, ApiError> {
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
            Data::Vector(_) | Data::Scalar(_) => {
                Err(ApiError::Failed(format!("{} answered a range query with something else than a matrix", self.url)))
            }
        }
    }

    async fn instant(&mut self, query: &str, at: Timestamp) -> Result<Answer, ApiError> {
        let mut request = self.client.query(query).at(at.as_second()).timeout(self.timeout.as_millis() as i64);
        for (name, value) in self.all_headers()? {
            if let Some(name) = name {
                request = request.header(name, value);
            }
        }
        self.send(request.post_raw(), query).await
    }

    /// The first value of an instant query, or 0.
    async fn number(&mut self, query: &str, at: Timestamp) -> Result<u64, ApiError> {
        match self.instant(query, at).await?.data {
            Data::Vector(rows) => Ok(rows.first().map_or(0, |row| row.sample().value() as u64)),
            Data::Matrix(_) | Data::Scalar(_) => Err(ApiError::Failed(format!("{} gave no vector", self.url))),
        }
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
                _ => Err(ApiError::Failed(format!(
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
        let why =
            if why.contains("timed out") { format!("no answer within {} s", self.timeout.as_secs_f64()) } else { why };
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
