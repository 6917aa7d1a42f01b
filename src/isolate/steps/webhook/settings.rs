//! Where the webhook is, and what of that is illegal.

use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};

use super::Webhook;
use crate::domain::{Period, problem_of_address, shown_address};
use crate::isolate::steps::{Look, RealStep, StepSettings};

const LONGEST_TIMEOUT: Period = Period::from_mins(2);
const MOST_HEADERS: usize = 20;

/// What the contract itself sets.
const OURS: [&str; 4] = ["zoneward-signature", "idempotency-key", "content-type", "content-length"];

/// The section `steps.webhook`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub url: String,
    pub secret_file: PathBuf,
    #[serde(default = "default_timeout")]
    pub timeout: Period,
    #[serde(default)]
    pub partial_shares: bool,
    #[serde(default)]
    pub headers: Vec<Header>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
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

const fn default_timeout() -> Period {
    Period::from_secs(10)
}

impl Settings {
    pub(super) fn address(&self) -> String {
        shown_address(&self.url)
    }
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: String| problems.push((key.to_owned(), problem));
        if let Some(problem) = problem_of_address(&self.url) {
            add("url", problem);
        }
        if self.secret_file.as_os_str().is_empty() {
            add("secret_file", "must name the file that holds the secret that requests are signed with".into());
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            add("timeout", format!("{} is not above 0s and at most {LONGEST_TIMEOUT}", self.timeout));
        }
        if self.headers.len() > MOST_HEADERS {
            add("headers", format!("has {} headers, and may have {MOST_HEADERS}", self.headers.len()));
        }
        for (i, header) in self.headers.iter().enumerate() {
            let name: Option<HeaderName> = header.name.parse().ok();
            match name {
                None => add(&format!("headers[{i}].name"), format!("`{}` is no header's name", header.name)),
                Some(name) if OURS.contains(&name.as_str()) => {
                    add(&format!("headers[{i}].name"), format!("`{name}` is set by the contract itself"));
                }
                Some(_) => {}
            }
            if header.value.is_some() == header.value_file.is_some() {
                add(&format!("headers[{i}]"), "needs either value or value_file".into());
            }
        }
        problems
    }

    fn step(&self, _: &Client, _: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(Webhook::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_at_once() {
        let good: Settings =
            serde_json::from_str(r#"{"url": "https://lb.example.org/zone?team=a", "secret_file": "/s"}"#).unwrap();
        assert_eq!((good.problems(), good.timeout, good.partial_shares), (vec![], Period::from_secs(10), false));
        assert_eq!(good.address(), "https://lb.example.org/zone");
        let bad: Settings = serde_json::from_str(
            r#"{"url": "https://me:pw@lb", "secret_file": "", "timeout": "3m",
                "headers": [{"name": "a b", "value": "x"}, {"name": "Idempotency-Key", "value": "x"}, {"name": "x"}]}"#,
        )
        .unwrap();
        let keys: Vec<String> = bad.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.join(" "), "url secret_file timeout headers[0].name headers[1].name headers[2]");
        let bad = Settings { url: "ftp://lb".into(), ..good };
        assert_eq!(bad.problems().len(), 1);
    }
}
