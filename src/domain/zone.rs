//! Names of places and services.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::inert::inert_name;

/// An availability zone as the metrics' zone label names it, such as `cn-hangzhou-h`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Zone(String);

impl Zone {
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&inert_name(&self.0))
    }
}

/// A destination service, written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId {
    pub namespace: String,
    pub name: String,
}

impl ServiceId {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// As the metrics have it, whatever that is.
    pub fn full(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&inert_name(&self.full()))
    }
}

impl FromStr for ServiceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !name.is_empty() => Ok(Self::new(namespace, name)),
            _ => Err(format!("`{text}` is not a service: write namespace/name")),
        }
    }
}

impl TryFrom<String> for ServiceId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ServiceId> for String {
    fn from(service: ServiceId) -> Self {
        service.full()
    }
}

/// Names services by a glob over `namespace/name`, such as `payments/*` or `*/checkout`.
#[derive(Debug, Clone)]
pub struct ServicePattern {
    text: String,
    matcher: globset::GlobMatcher,
}

impl ServicePattern {
    pub fn matches(&self, service: &ServiceId) -> bool {
        self.matcher.is_match(service.full())
    }
}

impl fmt::Display for ServicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for ServicePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl FromStr for ServicePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || format!("`{text}` does not name services: write a glob over namespace/name, such as payments/*");
        if text.matches('/').count() != 1 {
            return Err(hint());
        }
        let glob = globset::GlobBuilder::new(text).literal_separator(true).build().map_err(|_| hint())?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }
}

impl TryFrom<String> for ServicePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ServicePattern> for String {
    fn from(pattern: ServicePattern) -> Self {
        pattern.text
    }
}

impl schemars::JsonSchema for ServicePattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ServicePattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[^/]*/[^/]*$", "examples": ["payments/*"]})
    }
}

impl Serialize for ServicePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ServicePattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
