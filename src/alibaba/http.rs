//! One request and its answer, within limits of time and size.

use jiff::SignedDuration;
use reqwest::RequestBuilder;
use reqwest::redirect::Policy;

use crate::domain::Period;

const LARGEST_ANSWER: usize = 1 << 20;

pub(super) struct Http {
    client: Result<reqwest::Client, String>,
    timeout: Period,
}

pub(super) struct Answer {
    pub status: u16,
    pub retry_after: Option<SignedDuration>,
    pub body: Vec<u8>,
}

impl Http {
    pub fn new(timeout: Period) -> Self {
        Self::build(timeout, reqwest::Client::builder())
    }

    /// Past every proxy: what answers is on this machine.
    pub fn direct(timeout: Period) -> Self {
        Self::build(timeout, reqwest::Client::builder().no_proxy())
    }

    fn build(timeout: Period, builder: reqwest::ClientBuilder) -> Self {
        let agent = concat!("zoneward/", env!("CARGO_PKG_VERSION"));
        let builder = builder.user_agent(agent).timeout(timeout.unsigned()).redirect(Policy::none());
        Self { client: builder.build().map_err(|error| explain(&error)), timeout }
    }

    /// What has come of it. No error has a secret in it: a URL is left out, and what was sent is not quoted.
    pub async fn send(
        &self,
        request: impl FnOnce(&reqwest::Client) -> RequestBuilder + Send,
    ) -> Result<Answer, String> {
        let client = self.client.as_ref().map_err(|why| format!("can't be called: {why}"))?;
        let lost = |error: reqwest::Error| {
            if error.is_timeout() {
                format!("gave no answer within {}", self.timeout)
            } else if error.is_connect() {
                format!("can't be reached: {}", explain(&error))
            } else {
                format!("gave no answer: {}", explain(&error))
            }
        };
        let mut response = request(client).send().await.map_err(lost)?;
        let retry_after =
            response.headers().get("x-acs-retry-after").and_then(|value| milliseconds(value.to_str().ok()?));
        let (status, mut body) = (response.status().as_u16(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(format!("gave an answer larger than {} KiB", LARGEST_ANSWER >> 10));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, retry_after, body })
    }
}

/// The unit is that of the cloud's own SDKs; no documentation names it.
fn milliseconds(text: &str) -> Option<SignedDuration> {
    let milliseconds: u32 = text.trim().parse().ok()?;
    (milliseconds > 0).then(|| SignedDuration::from_millis(milliseconds.into()))
}

/// With the causes.
fn explain(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    let mut last = None;
    while let Some(inner) = cause {
        last = Some(inner.to_string());
        cause = inner.source();
    }
    last.unwrap_or_else(|| if error.is_builder() { "it is no request".to_owned() } else { "it broke off".to_owned() })
}
