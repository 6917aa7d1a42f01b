//! Which objects, and which of their targets are in which zone; and what of that is illegal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Client;
use serde::{Deserialize, Serialize};

use super::ExternalDns;
use super::targets::same;
use crate::domain::Zone;
use crate::isolate::steps::{Look, RealStep, StepSettings};

/// Bounds receipts, and the time that a step takes.
const MOST_OBJECTS: usize = 20;
const MOST_ADDRESSES: usize = 50;
const LONGEST_NAME: usize = 253;

/// The section `steps.dns_external_dns`; config/default.yaml describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default = "yes")]
    pub wait_for_external_dns: bool,
    pub objects: Vec<ObjectSettings>,
}

/// One `DNSEndpoint`, and which of its targets are in which availability zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectSettings {
    pub namespace: String,
    pub name: String,
    pub addresses: BTreeMap<Zone, Vec<String>>,
}

const fn yes() -> bool {
    true
}

impl ObjectSettings {
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub fn addresses_of(&self, zone: &Zone) -> &[String] {
        self.addresses.get(zone).map_or(&[], Vec::as_slice)
    }
}

impl StepSettings for Settings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        if self.objects.is_empty() {
            problems.push(("objects".to_owned(), "must name at least one DNSEndpoint".to_owned()));
        }
        if self.objects.len() > MOST_OBJECTS {
            let why = format!("has {} DNSEndpoints, and may have {MOST_OBJECTS}", self.objects.len());
            problems.push(("objects".to_owned(), why));
        }
        for (i, object) in self.objects.iter().enumerate() {
            for (key, name) in [("namespace", &object.namespace), ("name", &object.name)] {
                if !is_name(name) {
                    problems.push((format!("objects[{i}].{key}"), format!("`{name}` is not an object's name")));
                }
            }
            if !seen.insert(object.id()) {
                problems.push((format!("objects[{i}].name"), format!("`{}` is named twice", object.id())));
            }
        }
        problems.extend(self.problems_of_addresses());
        problems
    }

    fn step(&self, client: &Client, _: &Arc<Look>) -> Arc<dyn RealStep> {
        Arc::new(ExternalDns::new(self.clone(), client))
    }
}

impl Settings {
    fn problems_of_addresses(&self) -> Vec<(String, String)> {
        let mut known: Vec<(&String, &Zone)> = Vec::new();
        let mut problems = Vec::new();
        for (i, object) in self.objects.iter().enumerate() {
            let mut add = |key: String, why: String| problems.push((format!("objects[{i}].addresses{key}"), why));
            if object.addresses.is_empty() {
                add(String::new(), "must name at least one zone and its addresses".into());
            }
            for (zone, addresses) in &object.addresses {
                let key = || format!(".{zone}");
                if zone.as_str().is_empty() || zone.as_str().contains(char::is_whitespace) {
                    add(key(), format!("`{zone}` is not a zone's name: it has no space"));
                }
                if addresses.is_empty() || addresses.len() > MOST_ADDRESSES {
                    add(key(), format!("has {} addresses; 1 to {MOST_ADDRESSES}", addresses.len()));
                }
                for address in addresses {
                    if address.is_empty() || address.len() > LONGEST_NAME || address.contains(char::is_whitespace) {
                        add(key(), format!("`{address}` is neither an address nor a name"));
                    }
                    match known.iter().find(|(it, _)| same(it, address)) {
                        Some((_, first)) if *first != zone => {
                            add(key(), format!("{address} is an address of {first} already"));
                        }
                        Some(_) => {}
                        None => known.push((address, zone)),
                    }
                }
            }
        }
        problems
    }
}

/// As Kubernetes names namespaces and objects.
fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= LONGEST_NAME && name.chars().all(legal) && ends(name.chars().next()) && ends(name.chars().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_at_once() {
        let good = r#"{"objects": [{"namespace": "edge", "name": "api", "addresses": {"a": ["192.0.2.1"], "b": ["lb.example.org"]}}]}"#;
        let good: Settings = serde_json::from_str(good).unwrap();
        assert_eq!((good.problems(), good.wait_for_external_dns), (vec![], true));
        let bad = r#"{"objects": [
            {"namespace": "Edge", "name": "api", "addresses": {"a": ["192.0.2.1", ""], "b c": ["192.0.2.2"], "d": []}},
            {"namespace": "edge", "name": "-", "addresses": {}},
            {"namespace": "Edge", "name": "api", "addresses": {"b": ["192.0.2.1", "LB."], "c": ["lb"]}}]}"#;
        let bad: Settings = serde_json::from_str(bad).unwrap();
        let keys: Vec<String> = bad.problems().into_iter().map(|(key, _)| key).collect();
        let expected = "objects[0].namespace objects[1].name objects[2].namespace objects[2].name objects[0].addresses.a \
                        objects[0].addresses.b c objects[0].addresses.d objects[1].addresses objects[2].addresses.b \
                        objects[2].addresses.c";
        assert_eq!(keys.join(" "), expected);
        let none = Settings { objects: vec![], ..good };
        assert_eq!(none.problems().len(), 1);
    }
}
