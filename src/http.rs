//! One HTTP call as a section of the configuration says: authenticated, bounded, with errors that name the setting.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{Period, Secret, shown_address};

const SHOWN_CHARS: usize = 200;
const LARGEST_FILE: u64 = 1 << 20;
const LONGEST_RETRY_AFTER_S: u64 = 60;
const MOST_HEADERS: usize = 20;

#[derive(Debug, Error)]
pub enum HttpError {
    #[error("{path} can't be read ({setting}): {why}")]
    File { setting: String, path: String, why: String },
    #[error("{setting}: {why}")]
    Invalid { setting: String, why: String },
    #[error("{url} does not answer ({setting}): {why}")]
    Unreachable { setting: String, url: String, why: String },
    #[error("{url} answers {status} ({setting}): {text}")]
    Refused { setting: String, url: String, status: u16, text: String, retry_after: Option<Duration> },
    #[error("{url} does not answer as it should ({setting}): {why}")]
    Unreadable { setting: String, url: String, why: String },
}

impl HttpError {
    /// Whether another try may do: a file may be rotated right now, too.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::File { .. } | Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(*status, 408 | 425 | 429),
            Self::Invalid { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// How long the server wants to be left alone, within reason.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::File { .. } | Self::Unreachable { .. } | Self::Invalid { .. } | Self::Unreadable { .. } => None,
        }
    }
}

/// An extra request header. A secret one is read from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_file: Option<PathBuf>,
}

/// How a server is to be called. Files are read anew each time, as they may be rotated.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// Such as `guard.silences`, and its key that holds the address.
    pub section: &'static str,
    pub address: &'static str,
    pub bearer_token_file: Option<&'a Path>,
    pub ca_file: Option<&'a Path>,
    pub headers: &'a [Header],
    pub timeout: Period,
    /// More of an answer is not read.
    pub most_bytes: usize,
    /// Of chats' hooks the path is what they know a friend by.
    pub path_is_secret: bool,
}

impl Access<'_> {
    pub async fn get(&self, url: &str) -> Result<Vec<u8>, HttpError> {
        self.send(url, self.client().await?.get(url)).await
    }

    pub async fn post(&self, url: &str, content_type: &'static str, body: Vec<u8>) -> Result<Vec<u8>, HttpError> {
        self.send(url, self.client().await?.post(url).header(CONTENT_TYPE, content_type).body(body)).await
    }

    /// The answer is none of what was asked for. Of it nothing is quoted, as it may quote what it was sent.
    pub fn unreadable(&self, url: &str, error: &serde_json::Error) -> HttpError {
        let (what, line, column) = (if error.is_data() { "other" } else { "no" }, error.line(), error.column());
        self.senseless(url, format!("its answer is {what} JSON from line {line}, column {column} on"))
    }

    fn senseless(&self, url: &str, why: String) -> HttpError {
        HttpError::Unreadable { setting: self.setting(self.address), url: self.shown(url), why }
    }

    fn shown(&self, url: &str) -> String {
        let shown = shown_address(url);
        if !self.path_is_secret {
            return shown;
        }
        let path = shown.split_once("://").and_then(|(scheme, rest)| Some(scheme.len() + 3 + rest.find('/')?));
        path.filter(|path| path + 1 < shown.len()).map_or(shown.clone(), |path| format!("{}/…", &shown[..path]))
    }

    /// What an answer may quote.
    fn secrets_in(&self, url: &str) -> Vec<Secret> {
        let mut secrets = Secret::of_query(url);
        let path = url.split(['?', '#']).next().and_then(|url| url.splitn(4, '/').nth(3));
        secrets.extend(path.filter(|_| self.path_is_secret).and_then(Secret::of_value));
        secrets
    }

    async fn send(&self, url: &str, mut request: RequestBuilder) -> Result<Vec<u8>, HttpError> {
        let setting = || self.setting(self.address);
        let unreachable = |error: reqwest::Error| HttpError::Unreachable {
            setting: setting(),
            url: self.shown(url),
            why: self.why(error),
        };
        let mut secrets = self.secrets_in(url);
        request = request.headers(self.headers(&mut secrets).await?);
        if let Some(path) = self.bearer_token_file {
            let token = self.text("bearer_token_file", path).await?;
            request = request.bearer_auth(&token);
            secrets.push(Secret::new(token));
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > self.most_bytes {
                return Err(self.senseless(url, format!("the answer is larger than {} bytes", self.most_bytes)));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        let text = refusal(status, &body, &secrets);
        Err(HttpError::Refused { setting: setting(), url: self.shown(url), status: status.as_u16(), text, retry_after })
    }

    async fn client(&self) -> Result<reqwest::Client, HttpError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("zoneward/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout.unsigned())
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = self.ca_file {
            let pem = self.file("ca_file", path).await?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if authorities.is_empty() {
                return Err(self.invalid("ca_file", format!("{} holds no PEM certificate", path.display())));
            }
            builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        builder.build().map_err(|error| self.invalid(self.address, causes(error)))
    }

    async fn headers(&self, secrets: &mut Vec<Secret>) -> Result<HeaderMap, HttpError> {
        let mut headers = HeaderMap::new();
        for header in self.headers {
            let value = match (&header.value, &header.value_file) {
                (Some(value), _) => value.clone(),
                (None, Some(path)) => self.text("headers", path).await?,
                (None, None) => String::new(),
            };
            secrets.extend(match &header.value_file {
                Some(_) => Some(Secret::new(&value)),
                None => Secret::of_value(&value),
            });
            let illegal = || self.invalid("headers", format!("{} has a name or value that none may have", header.name));
            let name: HeaderName = header.name.parse().map_err(|_| illegal())?;
            let mut value: HeaderValue = value.parse().map_err(|_| illegal())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    async fn text(&self, key: &str, path: &Path) -> Result<String, HttpError> {
        let text = String::from_utf8_lossy(&self.file(key, path).await?).trim().to_owned();
        let sendable = !text.is_empty() && HeaderValue::from_str(&text).is_ok();
        sendable.then_some(text).ok_or_else(|| {
            self.invalid(key, format!("{} is empty, or has characters that a header can't carry", path.display()))
        })
    }

    async fn file(&self, key: &str, path: &Path) -> Result<Vec<u8>, HttpError> {
        let failed =
            |why: String| HttpError::File { setting: self.setting(key), path: path.display().to_string(), why };
        let found = tokio::fs::metadata(path).await.map_err(|error| failed(error.to_string()))?;
        // A pipe would never end.
        if !found.is_file() || found.len() > LARGEST_FILE {
            return Err(failed("it is no file of at most 1 MiB".to_owned()));
        }
        tokio::fs::read(path).await.map_err(|error| failed(error.to_string()))
    }

    fn why(&self, error: reqwest::Error) -> String {
        if error.is_timeout() { format!("no answer within {}", self.timeout) } else { causes(error) }
    }

    fn invalid(&self, key: &str, why: String) -> HttpError {
        HttpError::Invalid { setting: self.setting(key), why }
    }

    fn setting(&self, key: &str) -> String {
        format!("{}.{key}", self.section)
    }
}

/// What is illegal about headers, each with its place.
pub fn problems_of_headers(headers: &[Header]) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    if headers.len() > MOST_HEADERS {
        problems.push(("headers".to_owned(), format!("{} are more than {MOST_HEADERS}", headers.len())));
    }
    for (i, header) in headers.iter().enumerate() {
        match header.name.parse::<HeaderName>() {
            Ok(name) if !matches!(name.as_str(), "content-type" | "content-length") => {}
            Ok(name) => problems.push((format!("headers[{i}].name"), format!("`{name}` is set by zoneward"))),
            Err(_) => problems.push((format!("headers[{i}].name"), format!("`{}` is no header's name", header.name))),
        }
        if header.value.is_some() == header.value_file.is_some() {
            problems.push((format!("headers[{i}]"), "needs either value or value_file".to_owned()));
        }
    }
    problems
}

fn refusal(status: StatusCode, body: &[u8], secrets: &[Secret]) -> String {
    if status.is_redirection() {
        return "redirects are not followed: name the address that it leads to".to_owned();
    }
    let text = Secret::hide_all(secrets, &String::from_utf8_lossy(body));
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN_CHARS).collect()
}

/// In seconds; a date is not understood.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_RETRY_AFTER_S)))
}

/// An error and what caused it, without the address.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
