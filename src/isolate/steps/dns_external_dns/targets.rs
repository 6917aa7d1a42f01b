//! A `DNSEndpoint` as its API server just said, and what withdrawing and giving back make of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::Zone;
use crate::kubernetes::marks;

/// An object's annotations may have 256 KiB together, and a receipt keeps as much for each object.
const LARGEST_NOTE: usize = 16 * 1024;

/// What was withdrawn from one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Withdrawn {
    #[serde(flatten)]
    pub of: Identity,
    pub targets: Vec<String>,
    /// The whole list, so that everything comes back to its place: `GitOps` compares lists by their order.
    pub order: Vec<String>,
}

/// What tells the endpoints of an object apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    pub dns_name: String,
    pub record_type: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set_identifier: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.dns_name, self.record_type)?;
        if self.set_identifier.is_empty() { Ok(()) } else { write!(f, " ({})", self.set_identifier) }
    }
}

pub(super) struct Object {
    /// `namespace/name`.
    pub id: String,
    version: Option<String>,
    pub generation: i64,
    /// The generation that external-dns says it has seen.
    pub observed: Option<i64>,
    endpoints: Vec<Value>,
    withdrawn: BTreeMap<Zone, Vec<Withdrawn>>,
}

impl Object {
    pub fn read(id: String, object: &DynamicObject) -> Result<Self, String> {
        let note = object.annotations().get(marks::WITHDRAWN_ANNOTATION);
        let withdrawn = note.map(|note| serde_json::from_str(note)).transpose().map_err(|error| {
            let key = marks::WITHDRAWN_ANNOTATION;
            format!("{id}: the annotation {key} can't be read ({error}): it says what is to be put back, so mend it")
        })?;
        let endpoints = object.data["spec"]["endpoints"].as_array().cloned().unwrap_or_default();
        let identities: Vec<Identity> = endpoints.iter().filter_map(identity).collect();
        let mut seen = BTreeSet::new();
        if let Some(twice) = identities.iter().find(|identity| !seen.insert(*identity)) {
            return Err(format!("{id} has {twice} twice: give it all targets in one endpoint"));
        }
        Ok(Self {
            version: object.resource_version(),
            generation: object.metadata.generation.unwrap_or_default(),
            observed: object.data["status"]["observedGeneration"].as_i64(),
            withdrawn: withdrawn.unwrap_or_default(),
            endpoints,
            id,
        })
    }

    pub fn zones(&self) -> BTreeSet<Zone> {
        self.withdrawn.keys().cloned().collect()
    }

    /// Which of these addresses are there, by endpoint.
    pub fn there(&self, addresses: &[String]) -> BTreeMap<Identity, Vec<String>> {
        let of = |endpoint: &Value| {
            let found: Vec<String> =
                targets(endpoint).into_iter().filter(|target| contains(addresses, target)).collect();
            Some((identity(endpoint)?, found)).filter(|(_, found)| !found.is_empty())
        };
        self.endpoints.iter().filter_map(of).collect()
    }

    /// What is withdrawn of a zone, and what would be if these addresses left now.
    pub fn would_be_withdrawn(&self, zone: &Zone, addresses: &[String]) -> Vec<Withdrawn> {
        let leaving = self.there(addresses).into_iter().map(|(of, targets)| {
            let order = self.full(&of);
            Withdrawn { of, targets, order }
        });
        united(self.withdrawn.get(zone).into_iter().flatten().cloned().chain(leaving))
    }

    /// Takes these addresses of a zone out. Whether that changed anything; or why they must stay.
    pub fn withdraw(&mut self, zone: &Zone, addresses: &[String]) -> Result<bool, String> {
        if self.there(addresses).is_empty() {
            return Ok(false);
        }
        let withdrawn = self.would_be_withdrawn(zone, addresses);
        for endpoint in &mut self.endpoints {
            let Some(of) = identity(endpoint) else { continue };
            let (leaving, staying): (Vec<_>, Vec<_>) =
                targets(endpoint).into_iter().partition(|target| contains(addresses, target));
            if leaving.is_empty() {
                continue;
            }
            if staying.is_empty() {
                return Err(format!(
                    "{}: {of} would be left with no target: all that it has, {}, is of {zone}. Nothing was changed. Give \
                     it a target in another zone, or give back one that is withdrawn",
                    self.id,
                    leaving.join(", ")
                ));
            }
            endpoint["targets"] = json!(staying);
        }
        self.withdrawn.insert(zone.clone(), withdrawn);
        let size = self.note().map_or(0, |note| note.len());
        if size > LARGEST_NOTE {
            let key = marks::WITHDRAWN_ANNOTATION;
            return Err(format!("{}: {key} would have {size} bytes, and may have {LARGEST_NOTE}", self.id));
        }
        Ok(true)
    }

    /// Puts back what is due, and forgets the zone. What whoever owns the object has taken away as a whole stays away.
    pub fn give_back(&mut self, zone: &Zone, were_there: &[Withdrawn]) -> bool {
        let due = self.due(zone, were_there);
        let mut changed = self.withdrawn.remove(zone).is_some();
        for endpoint in &mut self.endpoints {
            let Some(of) = identity(endpoint) else { continue };
            let before = targets(endpoint);
            let after = due.iter().filter(|it| it.of == of).fold(before.clone(), put_back);
            if after != before {
                endpoint["targets"] = json!(after);
                changed = true;
            }
        }
        changed
    }

    /// What of it is due and missing, at endpoints that are there.
    pub fn lacks(&self, zone: &Zone, were_there: &[Withdrawn]) -> Vec<String> {
        let due = self.due(zone, were_there);
        let missing = |endpoint: &Value| {
            let (of, there) = (identity(endpoint), targets(endpoint));
            let due = due.iter().filter(move |it| Some(&it.of) == of.as_ref());
            due.flat_map(|it| &it.targets).filter(move |target| !contains(&there, target)).collect::<Vec<_>>()
        };
        self.endpoints.iter().flat_map(missing).cloned().collect()
    }

    pub fn due(&self, zone: &Zone, were_there: &[Withdrawn]) -> Vec<Withdrawn> {
        united(self.withdrawn.get(zone).into_iter().flatten().chain(were_there).cloned())
    }

    /// The write that makes the object so, refused if anybody else has written it since it was read.
    pub fn patch(&self) -> Value {
        json!({
            "metadata": {
                "resourceVersion": self.version,
                "annotations": {marks::WITHDRAWN_ANNOTATION: self.note()},
            },
            "spec": {"endpoints": self.endpoints},
        })
    }

    /// One that asks for the right to write, and would change nothing.
    pub fn rehearsal(&self) -> Value {
        json!({"metadata": {"resourceVersion": self.version}})
    }

    fn note(&self) -> Option<String> {
        (!self.withdrawn.is_empty()).then(|| json!(self.withdrawn).to_string())
    }

    /// An endpoint's list with everything that is withdrawn from it, of whichever zone.
    fn full(&self, of: &Identity) -> Vec<String> {
        let endpoint = self.endpoints.iter().find(|endpoint| identity(endpoint).as_ref() == Some(of));
        let there = endpoint.map(targets).unwrap_or_default();
        self.withdrawn.values().flatten().filter(|it| it.of == *of).fold(there, put_back)
    }
}

/// One entry for each endpoint; the later ones know of more.
fn united(all: impl Iterator<Item = Withdrawn>) -> Vec<Withdrawn> {
    let mut by_endpoint: BTreeMap<Identity, Withdrawn> = BTreeMap::new();
    for it in all {
        let Some(known) = by_endpoint.get_mut(&it.of) else {
            by_endpoint.insert(it.of.clone(), it);
            continue;
        };
        let more: Vec<String> = it.targets.into_iter().filter(|target| !contains(&known.targets, target)).collect();
        known.targets.extend(more);
        if it.order.len() > known.order.len() {
            known.order = it.order;
        }
    }
    by_endpoint.into_values().collect()
}

/// The list with what was withdrawn, each before the first of those that it stood before.
fn put_back(mut list: Vec<String>, withdrawn: &Withdrawn) -> Vec<String> {
    for target in &withdrawn.targets {
        if contains(&list, target) {
            continue;
        }
        let later = withdrawn.order.iter().skip_while(|it| !same(it, target)).skip(1);
        let later: Vec<String> = later.cloned().collect();
        let at = list.iter().position(|it| contains(&later, it)).unwrap_or(list.len());
        list.insert(at, target.clone());
    }
    list
}

/// Of records that hold addresses or names of load balancers; others are nobody's to withdraw.
fn identity(endpoint: &Value) -> Option<Identity> {
    let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
    let record_type = text("recordType");
    matches!(record_type.as_str(), "A" | "AAAA" | "CNAME").then(|| Identity {
        dns_name: text("dnsName"),
        record_type,
        set_identifier: text("setIdentifier"),
    })
}

fn targets(endpoint: &Value) -> Vec<String> {
    let listed = endpoint["targets"].as_array().into_iter().flatten();
    listed.filter_map(|target| target.as_str().map(str::to_owned)).collect()
}

fn contains(list: &[String], target: &str) -> bool {
    list.iter().any(|it| same(it, target))
}

/// Whether two texts are one address, or one name.
pub(super) fn same(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), Err(_)) => one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.')),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn object(targets: &[&str]) -> Object {
        let object = json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint", "metadata": {"name": "api"},
            "spec": {"endpoints": [{"dnsName": "api.example.org", "recordType": "A", "targets": targets},
                {"dnsName": "api.example.org", "recordType": "TXT", "targets": targets}]}});
        Object::read("edge/api".into(), &serde_json::from_value(object).unwrap()).unwrap()
    }

    fn listed(object: &Object) -> Vec<String> {
        targets(&object.endpoints[0])
    }

    #[test]
    fn whatever_the_order_of_zones_each_target_comes_back_to_its_place() {
        let all = ["a1", "b1", "a2", "c1", "b2"];
        let (a, b) = (Zone::new("a"), Zone::new("b"));
        let (of_a, of_b) = (texts(&["a1", "a2"]), texts(&["b1", "b2"]));
        for (first, second) in [(&a, &b), (&b, &a)] {
            let mut object = object(&all);
            object.withdraw(&a, &of_a).unwrap();
            object.withdraw(&b, &of_b).unwrap();
            assert_eq!(listed(&object), ["c1"]);
            assert!(object.give_back(first, &[]) && object.give_back(second, &[]));
            assert_eq!((listed(&object), object.note()), (texts(&all), None));
            assert!(!object.give_back(first, &[]));
            assert_eq!(targets(&object.endpoints[1]), all, "text is no address");
        }
    }

    #[test]
    fn what_others_put_in_and_take_out_meanwhile_is_theirs() {
        let zone = Zone::new("a");
        let mut it = object(&["a1", "b1", "c1"]);
        it.withdraw(&zone, &texts(&["A1."])).unwrap();
        it.endpoints[0]["targets"] = json!(["new", "c1"]);
        let due = it.due(&zone, &[]);
        it.give_back(&zone, &[]);
        assert_eq!(listed(&it), ["new", "a1", "c1"]);
        // The note is lost, and the receipt is not.
        let mut lost = object(&["b1", "c1"]);
        assert_eq!(lost.lacks(&zone, &due), ["a1"]);
        assert!(lost.give_back(&zone, &due));
        assert_eq!(listed(&lost), ["a1", "b1", "c1"]);
        // The endpoint is gone.
        it.endpoints.remove(0);
        assert!(it.lacks(&zone, &due).is_empty() && !it.give_back(&zone, &due));
    }

    #[test]
    fn addresses_are_compared_by_value() {
        for (one, other) in [("2001:db8::1", "2001:DB8:0::1"), ("LB.example.org", "lb.example.org.")] {
            assert!(same(one, other), "{one} {other}");
        }
        assert!(!same("192.0.2.1", "192.0.2.10") && !same("192.0.2.1", "a"));
    }
}
