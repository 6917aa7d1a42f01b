//! One call: signed, bounded, and what its answer means.

use std::path::Path;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::settings::Settings;
use crate::domain::{Secret, hide_in_json};
use crate::ports::StepError;

const LARGEST_ANSWER: usize = 64 * 1024;
const LARGEST_FILE: u64 = 4096;
const SHORTEST_SECRET: usize = 16;
/// Shown of what a webhook says of itself.
const SHOWN_CHARS: usize = 200;
const RETRY_AFTER_DEFAULT: SignedDuration = SignedDuration::from_secs(2);
const LONGEST_RETRY_AFTER: i64 = 300;

/// What a webhook answered: something, and when to ask again if that is not the end; or that it has no such verb.
pub(super) enum Answer {
    Said(Value, SignedDuration),
    NoSuchVerb,
}

pub(super) fn permanent(why: impl Into<String>) -> StepError {
    StepError::Permanent { why: why.into() }
}

fn transient(why: impl Into<String>) -> StepError {
    StepError::Transient { why: why.into(), retry_after: RETRY_AFTER_DEFAULT }
}

/// The same for the same wish, in every try.
pub(super) fn idempotency_key(wish: &Value) -> String {
    hex::encode(Sha256::digest(wish.to_string()))
}

/// As in `t=1764000000,v1=<hex>`: the time is signed with the body, so that nobody can replay it later.
pub(super) fn signature(secret: &[u8], seconds: i64, body: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(format!("{seconds}.{body}").as_bytes());
    Some(format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes())))
}

/// Reads secrets anew, as they may be rotated. No error may quote them.
pub(super) async fn post(settings: &Settings, body: &Value, key: &str) -> Result<Answer, StepError> {
    let secret = read_text("the webhook's secret", &settings.secret_file).await?;
    if secret.len() < SHORTEST_SECRET {
        let path = settings.secret_file.display();
        return Err(permanent(format!("the webhook's secret in {path} has fewer than {SHORTEST_SECRET} characters")));
    }
    let body = body.to_string();
    let signed = signature(secret.as_bytes(), seconds_since_epoch(), &body);
    let signed = signed.ok_or_else(|| permanent("the webhook's secret can't be used"))?;
    let (headers, of_headers) = headers(settings).await?;
    let mut secrets = Secret::of_query(&settings.url);
    secrets.extend(of_headers);
    secrets.push(Secret::new(secret));
    let request = client(settings).await?.post(&settings.url).headers(headers);
    let request = request.header("Content-Type", "application/json").header("Zoneward-Signature", signed);
    let address = settings.address();
    let unreachable = |error: &reqwest::Error| {
        let why = if error.is_timeout() {
            format!("gave no answer within {}", settings.timeout)
        } else {
            format!("can't be reached: {}", causes(error))
        };
        transient(format!("the webhook {address} {why}"))
    };
    let response = request.header("Idempotency-Key", key).body(body).send().await.map_err(|e| unreachable(&e))?;
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    let text = read_body(response).await.map_err(|error| match error {
        Body::TooLarge => {
            permanent(format!("the webhook {address} gave an answer of more than {LARGEST_ANSWER} bytes"))
        }
        Body::Broken(error) => unreachable(&error),
    })?;
    judge(&address, (status, retry_after), &text, &secrets)
}

fn judge(
    address: &str,
    (status, retry_after): (StatusCode, SignedDuration),
    text: &str,
    secrets: &[Secret],
) -> Result<Answer, StepError> {
    let (code, shown) = (status.as_u16(), shown(text, secrets));
    if status.is_success() {
        let said = serde_json::from_str(text).ok().filter(Value::is_object);
        // A webhook that echoes what it got must not bring a secret into logs, nor into the ledger.
        return said.map(|said| Answer::Said(hide_in_json(secrets, said), retry_after)).ok_or_else(|| {
            permanent(format!("the webhook {address} gave an answer that is no JSON object (HTTP {code}): {shown}"))
        });
    }
    if matches!(code, 404 | 501) {
        return Ok(Answer::NoSuchVerb);
    }
    let why = format!("the webhook {address} said HTTP {code}: {shown}");
    if status.is_redirection() {
        return Err(permanent(format!("{why}; redirects are not followed: name the address that it leads to")));
    }
    if status.is_server_error() || matches!(code, 408 | 409 | 425 | 429) {
        return Err(StepError::Transient { why, retry_after });
    }
    let hint = if matches!(code, 401 | 403) { "; has it the same secret, and is its clock right?" } else { "" };
    Err(permanent(format!("{why}{hint}")))
}

async fn client(settings: &Settings) -> Result<reqwest::Client, StepError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("zoneward/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.timeout.unsigned())
        .connect_timeout(settings.timeout.unsigned().min(Duration::from_secs(5)))
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &settings.ca_file {
        let failed = |why: String| permanent(format!("{} (ca_file) {why}", path.display()));
        let pem = tokio::fs::read(path).await.map_err(|error| failed(format!("can't be read: {error}")))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if authorities.is_empty() {
            return Err(failed("holds no PEM certificate".to_owned()));
        }
        builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
    }
    builder.build().map_err(|error| permanent(format!("no client can be made for the webhook: {}", causes(&error))))
}

async fn headers(settings: &Settings) -> Result<(HeaderMap, Vec<Secret>), StepError> {
    let (mut headers, mut secrets) = (HeaderMap::new(), Vec::new());
    for header in &settings.headers {
        let value = match (&header.value, &header.value_file) {
            (Some(value), _) => value.clone(),
            (None, Some(path)) => read_text(&format!("the value of the header {}", header.name), path).await?,
            (None, None) => String::new(),
        };
        secrets.extend(if header.value_file.is_some() { Some(Secret::new(&value)) } else { Secret::of_value(&value) });
        let illegal = || permanent(format!("the header {} has a name or value that no header may have", header.name));
        let name: HeaderName = header.name.parse().map_err(|_| illegal())?;
        let mut value: HeaderValue = value.parse().map_err(|_| illegal())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok((headers, secrets))
}

enum Body {
    TooLarge,
    Broken(reqwest::Error),
}

async fn read_body(mut response: Response) -> Result<String, Body> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Body::Broken)? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Body::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// In seconds, as far as it is sensible; a date is not understood.
fn retry_after(headers: &HeaderMap) -> SignedDuration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<i64>().ok());
    let seconds = seconds.map(|seconds| SignedDuration::from_secs(seconds.clamp(1, LONGEST_RETRY_AFTER)));
    seconds.unwrap_or(RETRY_AFTER_DEFAULT)
}

/// What it says of itself: `why`, or the beginning of the text, on one line.
fn shown(text: &str, secrets: &[Secret]) -> String {
    let object: Option<Value> = serde_json::from_str(text).ok();
    let why = object.as_ref().and_then(|object| object["why"].as_str());
    let text = Secret::hide_all(secrets, why.unwrap_or(text));
    let words: Vec<&str> = text.split_whitespace().collect();
    let shown: String = words.join(" ").chars().take(SHOWN_CHARS).collect();
    if shown.is_empty() { "no reason given".to_owned() } else { shown }
}

/// The causes, without the address, which may hold a secret.
fn causes(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut texts: Vec<String> = Vec::new();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    if texts.is_empty() { "no reason is known".to_owned() } else { texts.join(": ") }
}

#[allow(clippy::disallowed_methods, reason = "an edge: the webhook compares it with its own clock")]
fn seconds_since_epoch() -> i64 {
    Timestamp::now().as_second()
}

async fn read_text(what: &str, path: &Path) -> Result<String, StepError> {
    let failed = |why: String| permanent(format!("{what} in {} {why}", path.display()));
    let found = tokio::fs::metadata(path).await.map_err(|error| failed(format!("can't be read: {error}")))?;
    if !found.is_file() || found.len() > LARGEST_FILE {
        return Err(failed(format!("is no file of at most {LARGEST_FILE} bytes")));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|error| failed(format!("can't be read: {error}")))?;
    Ok(text.trim().to_owned())
}
