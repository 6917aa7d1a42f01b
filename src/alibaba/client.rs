//! Calls in RPC style: one POST each, signed.

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::http::{Answer, Http};
use super::sign::{ToSign, encoded, headers};
use super::{Credentials, Endpoint, Error, Keys, Parameters, Refusal, Source, Surroundings};
use crate::domain::Period;

/// What is asked of a service.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub endpoint: &'a Endpoint,
    pub action: &'a str,
    pub version: &'a str,
    pub query: Parameters,
    pub form: Parameters,
    /// What a RAM policy has to allow: the action and the resource, in its words.
    pub right: String,
}

/// Guarantees: a call ends within twice the timeout, and that of renewing credentials; it is sent once, and once more only
/// if its keys were refused. What it sent that is secret is in no error.
pub struct Client {
    http: Http,
    credentials: Credentials,
}

impl Client {
    pub fn new(source: Source, surroundings: Surroundings, timeout: Period) -> Self {
        Self { http: Http::new(timeout), credentials: Credentials::new(source, surroundings, timeout) }
    }

    /// Whose rights calls have.
    pub fn acts_by(&self) -> Result<String, Error> {
        self.credentials.describe()
    }

    pub async fn call(&self, call: &Call<'_>) -> Result<Value, Error> {
        let keys = self.credentials.get(now()).await?;
        let error = match self.once(call, &keys).await {
            Err(error) if error.refusal().is_some_and(Refusal::is_of_keys) => error,
            done => return done,
        };
        match self.credentials.other_than(&keys, now()).await? {
            Some(keys) => self.once(call, &keys).await,
            None => Err(error),
        }
    }

    async fn once(&self, call: &Call<'_>, keys: &Keys) -> Result<Value, Error> {
        let (query, form) = (encoded(&call.query), encoded(&call.form));
        let nonce = format!("{:032x}", rand::random::<u128>());
        let host = call.endpoint.host.as_str();
        let to_sign = ToSign {
            host,
            action: call.action,
            version: call.version,
            at: now(),
            nonce: &nonce,
            query: &query,
            form: &form,
        };
        let headers = header_map(headers(&to_sign, keys))?;
        let separator = if query.is_empty() { "" } else { "?" };
        let url = format!("{}/{separator}{query}", call.endpoint.url);
        let answer = self.http.send(|client| client.post(url).headers(headers).body(form)).await;
        let answer = answer.map_err(|why| Error::Lost(format!("{host} {why} ({})", call.action)))?;
        read(call, &answer, keys)
    }
}

fn read(call: &Call<'_>, answer: &Answer, keys: &Keys) -> Result<Value, Error> {
    let host = &call.endpoint.host;
    if !(200..300).contains(&answer.status) {
        let refusal = Refusal::new((host, call.action, &call.right), answer, |text| keys.hide_in(text));
        return Err(Error::Refused(Box::new(refusal)));
    }
    let senseless = || Error::Lost(format!("{host} gave an answer to {} that makes no sense", call.action));
    serde_json::from_slice(&answer.body).map(|said| keys.hide_in_json(said)).map_err(|_| senseless())
}

fn header_map(headers: Vec<(&'static str, String)>) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| Error::Misconfigured(format!("the credentials can't be sent in the header {name}")))?;
        value.set_sensitive(["authorization", "x-acs-security-token"].contains(&name));
        map.insert(HeaderName::from_static(name), value);
    }
    Ok(map)
}

#[allow(clippy::disallowed_methods, reason = "an edge: the cloud compares it with its own clock")]
fn now() -> Timestamp {
    Timestamp::now()
}
