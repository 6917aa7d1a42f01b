//! Which names, on which server, with which key; and what of that is illegal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use kube::Client;
use serde::{Deserialize, Serialize};

use super::Rfc2136;
use crate::domain::{Period, Zone};
use crate::isolate::steps::{Look, RealStep, StepSettings};

/// Bounds receipts, messages, and the time that a step takes.
const MOST_NAMES: usize = 50;
const MOST_ADDRESSES: usize = 50;

/// As long as a zone's name may be, so that a marker's line fits into one TXT string.
const LONGEST_ZONE: usize = 63;

const LONGEST_TIMEOUT: Period = Period::from_mins(1);

/// The names whose addresses are withdrawn, and how the server takes changes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The primary server's address and port.
    pub server: String,
    /// The DNS zone that the names are in.
    pub zone: String,
    pub key_name: String,
    /// Holds the key's secret in base64.
    pub key_file: PathBuf,
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How long one answer may take.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
    pub records: Vec<RecordSettings>,
}

/// One name, and which of its addresses are in which availability zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordSettings {
    pub name: String,
    pub addresses: BTreeMap<Zone, Vec<IpAddr>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Algorithm {
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

impl From<Algorithm> for TsigAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HmacSha256 => Self::HmacSha256,
            Algorithm::HmacSha384 => Self::HmacSha384,
            Algorithm::HmacSha512 => Self::HmacSha512,
        }
    }
}

const fn default_timeout() -> Period {
    Period::from_secs(5)
}

impl RecordSettings {
    pub fn addresses_of(&self, zone: &Zone) -> BTreeSet<IpAddr> {
        self.addresses.get(zone).into_iter().flatten().copied().collect()
    }
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut add = |key: &str, problem: String| problems.push((key.to_owned(), problem));
        if !self.server.parse::<SocketAddr>().is_ok_and(|server| server.port() != 0) {
            add("server", format!("`{}` is not an address and a port: write one such as 10.0.0.53:53", self.server));
        }
        for (key, name) in [("zone", &self.zone), ("key_name", &self.key_name)] {
            if let Err(problem) = parse_name(name) {
                add(key, problem);
            }
        }
        if self.key_file.as_os_str().is_empty() {
            add("key_file", "must name the file that holds the key's secret in base64".into());
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            add("timeout", format!("{} is not above 0s and at most {LONGEST_TIMEOUT}", self.timeout));
        }
        if self.records.is_empty() {
            add("records", "must name at least one record".into());
        }
        if self.records.len() > MOST_NAMES {
            add("records", format!("has {} names, and may have {MOST_NAMES}", self.records.len()));
        }
        problems.extend(self.problems_of_names());
        problems.extend(self.problems_of_addresses());
        problems
    }

    fn step(&self, _: &Client, _: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(Rfc2136::new(self.clone()))
    }
}

impl Settings {
    fn problems_of_names(&self) -> Vec<(String, String)> {
        let zone = parse_name(&self.zone).ok();
        let mut seen = BTreeSet::new();
        let mut problems = Vec::new();
        for (i, record) in self.records.iter().enumerate() {
            let problem = match parse_name(&record.name).and_then(|name| marker_name(&name).map(|_| name)) {
                Err(problem) => Some(problem),
                Ok(name) if name.is_wildcard() => Some(format!("`{name}` is a wildcard: name what it stands for")),
                Ok(name) if zone.as_ref().is_some_and(|zone| !zone.zone_of(&name)) => {
                    Some(format!("`{name}` is not in the zone `{}`", self.zone))
                }
                Ok(name) => (!seen.insert(name.clone())).then(|| format!("`{name}` is named twice")),
            };
            problems.extend(problem.map(|problem| (format!("records[{i}].name"), problem)));
        }
        problems
    }

    fn problems_of_addresses(&self) -> Vec<(String, String)> {
        let mut zones: BTreeMap<IpAddr, &Zone> = BTreeMap::new();
        let mut problems = Vec::new();
        for (i, record) in self.records.iter().enumerate() {
            let mut add =
                |key: String, problem: String| problems.push((format!("records[{i}].addresses{key}"), problem));
            if record.addresses.is_empty() {
                add(String::new(), "must name at least one zone and its addresses".into());
            }
            for (zone, addresses) in &record.addresses {
                let key = || format!(".{zone}");
                if !fits_marker(zone) {
                    let limit = format!("1 to {LONGEST_ZONE} characters without a space");
                    add(key(), format!("`{zone}` is not a zone's name: it has {limit}"));
                }
                if addresses.is_empty() {
                    add(key(), "must have at least one address".into());
                }
                if addresses.len() > MOST_ADDRESSES {
                    add(key(), format!("has {} addresses, and may have {MOST_ADDRESSES}", addresses.len()));
                }
                for address in addresses {
                    let first = *zones.entry(*address).or_insert(zone);
                    if first != zone {
                        add(key(), format!("{address} is an address of {first} already"));
                    }
                }
            }
        }
        problems
    }
}

fn fits_marker(zone: &Zone) -> bool {
    let name = zone.as_str();
    (1..=LONGEST_ZONE).contains(&name.len()) && !name.contains(char::is_whitespace)
}

/// A full name, with or without the dot at its end.
pub(super) fn parse_name(text: &str) -> Result<Name, String> {
    let parsed = Name::from_ascii(text).map(|mut name| {
        name.set_fqdn(true);
        name.to_lowercase()
    });
    let named = parsed.ok().filter(|name| !name.is_root());
    named.ok_or_else(|| format!("`{text}` is not a DNS name: write one such as api.example.org."))
}

/// Beside a name: what is withdrawn from it.
pub(super) fn marker_name(name: &Name) -> Result<Name, String> {
    name.prepend_label("_zoneward").map_err(|_| format!("`{name}` is too long: _zoneward.{name} is no DNS name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> Settings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let settings = settings(
            r#"{"server": "10.0.0.53:53", "zone": "example.org.", "key_name": "zoneward", "key_file": "/key",
                "records": [{"name": "API.example.org", "addresses": {"a": ["192.0.2.1"], "b": ["2001:db8::1"]}}]}"#,
        );
        assert_eq!((settings.algorithm, settings.timeout), (Algorithm::HmacSha256, Period::from_secs(5)));
        assert_eq!(settings.problems(), []);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let settings = settings(
            r#"{"server": "ns.example.org:53", "zone": "example.org.", "key_name": "", "key_file": "", "timeout": "2m",
                "records": [
                  {"name": "api.example.com.", "addresses": {"a": ["192.0.2.1"], "b c": ["192.0.2.2"], "d": []}},
                  {"name": "api.example.org.", "addresses": {}},
                  {"name": "API.example.org", "addresses": {"b": ["192.0.2.1"]}},
                  {"name": "a..b", "addresses": {"b": ["192.0.2.3"]}},
                  {"name": "*.example.org.", "addresses": {"b": ["192.0.2.3"]}}]}"#,
        );
        let keys: Vec<String> = settings.problems().into_iter().map(|(key, _)| key).collect();
        let expected = "server key_name key_file timeout records[0].name records[2].name records[3].name \
                        records[4].name records[0].addresses.b c records[0].addresses.d records[1].addresses \
                        records[2].addresses.b";
        assert_eq!(keys.join(" "), expected);
    }

    #[test]
    fn a_marker_must_have_a_name_too() {
        let long = format!("{0}.{0}.{0}.{1}.", "a".repeat(63), "b".repeat(55));
        assert!(parse_name(&long).is_ok_and(|name| marker_name(&name).is_err()));
        let marker = parse_name("api.example.org").and_then(|name| marker_name(&name)).map(|name| name.to_ascii());
        assert_eq!(marker, Ok("_zoneward.api.example.org.".to_owned()));
    }
}
