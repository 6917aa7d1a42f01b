//! Where the metrics are, what they are called, and how much of them may be asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::probe::ProbeSettings;
use crate::domain::{Bytes, Period, Ratio, Services, problem_of_base_address};

/// The section `prometheus`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub url: String,
    pub matchers: Vec<String>,
    pub labels: Labels,
    pub zone_from: ZoneFrom,
    pub bearer_token_file: Option<PathBuf>,
    pub basic_auth: Option<BasicAuth>,
    pub headers: Vec<Header>,
    pub ca_file: Option<PathBuf>,
    pub timeout: Period,
    pub max_response: Bytes,
    pub offset: Period,
    pub lookback: Period,
    pub history: Period,
    pub min_coverage: Ratio,
    #[serde(skip)]
    pub services: Services,
    #[serde(skip)]
    pub probes: Vec<ProbeSettings>,
}

/// What tells a proxy's zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ZoneFrom {
    /// A label of its metrics.
    #[default]
    Label,
    /// The node that its pod runs on, as the cluster says now.
    Node,
}

/// Which labels say what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    pub zone: String,
    pub service: String,
    pub service_namespace: String,
    pub pod: String,
    /// Where the metrics have one.
    pub node: String,
    /// Together they name one scraped proxy, on `up` as on the request metrics.
    pub target: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    pub username: String,
    pub password_file: PathBuf,
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

impl Default for Labels {
    fn default() -> Self {
        Self {
            zone: "locality".to_owned(),
            service: "destination_service_name".to_owned(),
            service_namespace: "destination_service_namespace".to_owned(),
            pod: "pod".to_owned(),
            node: "node".to_owned(),
            target: vec!["namespace".to_owned(), "pod".to_owned()],
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "http://prometheus.istio-system:9090".to_owned(),
            matchers: Vec::new(),
            labels: Labels::default(),
            zone_from: ZoneFrom::default(),
            bearer_token_file: None,
            basic_auth: None,
            headers: Vec::new(),
            ca_file: None,
            timeout: Period::from_secs(10),
            max_response: Bytes::from_mib(128),
            offset: Period::from_secs(2),
            lookback: Period::from_mins(5),
            history: Period::from_hours(2),
            min_coverage: Ratio::from_percent(50.0),
            services: Services::default(),
            probes: Vec::new(),
        }
    }
}

impl Settings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: String| problems.push((key.to_owned(), problem));
        if let Some(problem) = problem_of_base_address(&self.url) {
            add("url", problem);
        }
        for (i, matcher) in self.matchers.iter().enumerate() {
            if !is_matcher(matcher) {
                let path = format!("matchers[{i}]");
                add(&path, format!("`{matcher}` is not a label matcher: write one such as cluster=\"prod\""));
            }
        }
        let labels = [
            ("labels.zone", &self.labels.zone),
            ("labels.service", &self.labels.service),
            ("labels.service_namespace", &self.labels.service_namespace),
            ("labels.pod", &self.labels.pod),
            ("labels.node", &self.labels.node),
        ];
        for (key, label) in labels.into_iter().chain(self.labels.target.iter().map(|l| ("labels.target", l))) {
            if !is_label(label) {
                add(key, format!("`{label}` is not a label name"));
            }
        }
        if self.zone_from == ZoneFrom::Node && self.labels.target.len() != 2 {
            add(
                "labels.target",
                "with zone_from: node it must be two labels: the pod's namespace, and its name".into(),
            );
        }
        if self.labels.target.is_empty() {
            add("labels.target", "must name at least one label".into());
        }
        if self.bearer_token_file.is_some() && self.basic_auth.is_some() {
            add("basic_auth", "can't be used together with prometheus.bearer_token_file".into());
        }
        for (i, header) in self.headers.iter().enumerate() {
            if header.value.is_some() == header.value_file.is_some() {
                add(&format!("headers[{i}]"), "needs either value or value_file".into());
            }
        }
        if self.timeout.is_zero() {
            add("timeout", "must be above 0s".into());
        }
        if self.lookback < Period::from_secs(2) {
            add("lookback", format!("{} is below 2s", self.lookback));
        }
        for (key, period) in [("offset", self.offset), ("lookback", self.lookback)] {
            if period.signed().subsec_nanos() != 0 {
                add(key, format!("{period} is not a whole number of seconds"));
            }
        }
        if self.timeout > Period::from_mins(5) {
            add("timeout", format!("{} is above 5m", self.timeout));
        }
        if self.history > Period::from_hours(24) {
            add("history", format!("{} is above 24h", self.history));
        }
        if self.lookback > Period::from_hours(1) {
            add("lookback", format!("{} is above 1h", self.lookback));
        }
        if self.offset > Period::from_mins(10) {
            add("offset", format!("{} is above 10m", self.offset));
        }
        problems
    }
}

fn is_label(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `name="value"`, with any of `PromQL`'s four operators, and no quote that would end it early.
fn is_matcher(text: &str) -> bool {
    let Some(at) = text.find(['=', '!']) else { return false };
    let (name, rest) = text.split_at(at);
    let value = ["=~", "!~", "!=", "="].iter().find_map(|operator| rest.strip_prefix(operator));
    let Some(quoted) = value.and_then(|v| v.trim().strip_prefix('"')).and_then(|v| v.strip_suffix('"')) else {
        return false;
    };
    let mut escaped = false;
    let closed_early = quoted.chars().any(|c| {
        let quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        quote
    });
    is_label(name.trim()) && !closed_early && !escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_one_label_comparison_each() {
        for good in [r#"cluster="prod""#, r#"env!~"dev|test""#, r#"a="say \"hi\"""#] {
            assert!(is_matcher(good), "{good}");
        }
        for bad in ["", "cluster", "cluster=prod", r#"a="b",c="d""#, r#"a="b"}"#, r#"1a="b""#, r#"a="b\""#] {
            assert!(!is_matcher(bad), "{bad}");
        }
    }
}
