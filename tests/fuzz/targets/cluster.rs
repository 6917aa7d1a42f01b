//! The cluster's objects, to what guardrails look at, and what these say.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::view::{Objects, view};
use super::{Settings, capacity};
use crate::domain::cluster::{ClusterView, CpuUse};
use crate::domain::isolation::{IsolationSpec, Origin, Share};
use crate::domain::{Calls, Cell, Isolation, Mode, Pause, Request, ServiceId, Silences, Snapshot, Zone};
use crate::guard::{self, Situation};

pub fn run(data: &[u8]) {
    let Ok(input) = serde_json::from_slice::<Value>(data) else { return };
    let seen = look(&input);
    let again: ClusterView =
        serde_json::from_str(&serde_json::to_string(&seen).expect("it can be written")).expect("and read");
    assert_eq!(again, seen);
    drop((seen.ready_endpoints(), seen.places()));
    let zones: Vec<Zone> = seen.nodes.values().filter_map(|node| node.zone.clone()).take(3).collect();
    for zone in zones {
        ask(&zone, &seen, &input);
    }
}

/// What of a list is readable, as the daemon sees it. The API server holds nothing without a name, or with a `/` in it.
fn objects<T: DeserializeOwned>(input: &Value, kind: &str) -> Vec<T> {
    let listed = input[kind].as_array().into_iter().flatten().take(100);
    let legal = |name: &Value| name.as_str().is_some_and(|name| !name.is_empty() && !name.contains('/'));
    let named = listed.filter(|object| {
        let metadata = &object["metadata"];
        legal(&metadata["name"]) && (metadata["namespace"].is_null() || legal(&metadata["namespace"]))
    });
    named.filter_map(|object| T::deserialize(object).ok()).collect()
}

pub fn look(input: &Value) -> ClusterView {
    let (nodes, pods): (Vec<Node>, Vec<Pod>) = (objects(input, "nodes"), objects(input, "pods"));
    let services: Vec<Service> = objects(input, "services");
    let namespaces: Vec<Namespace> = objects(input, "namespaces");
    let objects_of = Objects { nodes: &nodes, pods: &pods, services: &services, namespaces: &namespaces };
    let mut seen = view(&objects_of, &Settings::default());
    let volumes: Vec<PersistentVolume> = objects(input, "persistentvolumes");
    capacity::add(&mut seen, &pods, &volumes, &objects::<PodDisruptionBudget>(input, "poddisruptionbudgets"));
    seen.cpu_use = CpuUse::deserialize(&input["cpu"]).ok().map(Arc::new);
    seen
}

fn ask(zone: &Zone, seen: &ClusterView, input: &Value) {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a moment");
    let zones = seen.nodes.values().filter_map(|node| node.zone.clone());
    let requests = input["requests"].as_f64().unwrap_or(100.0);
    let cell = Cell { served: Calls { total: requests, failed: 1.0 }, ..Cell::default() };
    let cells: BTreeMap<Zone, Cell> = zones.map(|zone| (zone, cell.clone())).collect();
    let cells = seen.services.keys().map(|service: &ServiceId| (service.clone(), cells.clone())).collect();
    let snapshot =
        Snapshot { time: now, cells, coverage: BTreeMap::new(), gaps: Vec::new(), cluster: Some(seen.clone()) };
    let spec = IsolationSpec {
        zone: zone.clone(),
        origin: Origin::Operator,
        reason: "it is asked for".to_owned(),
        evidence: Vec::new(),
        expires_at: "2026-01-01T14:00:00Z".parse().expect("a moment"),
        share: Share::NONE,
        only: Default::default(),
        overrides: Default::default(),
        approved: true,
    };
    let isolation = Isolation::new("u/1".to_owned(), spec, now);
    let sight = zoneward::isolate::unseen(now);
    let situation = Situation {
        snapshot: &snapshot,
        assessment: &sight.assessment,
        cluster: Some(seen),
        isolations: &[],
        holds: &BTreeMap::new(),
        pause: &Pause::Off,
        silences: &Silences::default(),
        leads: true,
        acts: true,
    };
    let settings = zoneward::settings::Settings { mode: Mode::Enforce, ..Default::default() };
    for outcome in guard::examine(&situation, &Request::of(&isolation, now), &settings.guard, now) {
        drop(format!("{outcome:?}"));
    }
    drop(guard::admit(&situation, &Request::of(&isolation, now), &settings.guard, now).map_err(|why| why.to_string()));
}
