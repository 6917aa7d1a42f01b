//! What steps read of the API server, and what they would do about it: each verb of each step that needs nothing else.

use std::sync::Arc;

use serde_json::Value;
use zoneward::domain::Zone;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::isolate::steps::{self, Look, RealStep, dns_external_dns, mesh_distribute, mesh_istio, taint};
use zoneward::kubernetes::read_pause;

use crate::api_server::ApiServer;
use crate::{kubernetes, wait};

pub fn run(data: &[u8]) {
    let Ok(input) = serde_json::from_slice::<Value>(data) else { return };
    let zone = Zone::new(input["zone"].as_str().unwrap_or("a"));
    let share = Share::percent(input["share"].as_u64().and_then(|share| share.try_into().ok()).unwrap_or_default());
    let seen = kubernetes::target::look(&input);
    let addresses = vec!["192.0.2.1".to_owned(), "lb-a.example.org".to_owned()];
    let object = |name: &str| dns_external_dns::ObjectSettings {
        namespace: "edge".to_owned(),
        name: name.to_owned(),
        addresses: [(zone.clone(), addresses.clone())].into(),
    };
    let settings = steps::Settings {
        mesh_istio: Some(mesh_istio::Settings { pods_per_second: 1_000, ..Default::default() }),
        mesh_distribute: Some(mesh_distribute::Settings::default()),
        dns_external_dns: Some(dns_external_dns::Settings {
            wait_for_external_dns: true,
            objects: vec![object("api"), object("web")],
        }),
        taint: Some(taint::Settings {}),
        ..steps::Settings::default()
    };
    wait(async {
        let client = ApiServer::new(input).client();
        drop(read_pause(&client, "2026-01-01T12:00:00Z".parse().expect("a moment")).await.to_string());
        let look: Arc<Look> = Arc::new(move || Ok(seen.clone()));
        for step in steps::steps(&settings, &client, &look) {
            take(step.as_ref(), &zone, share).await;
        }
    });
}

/// There and back.
async fn take(step: &dyn RealStep, zone: &Zone, share: Share) {
    drop((step.probe().await, step.preview(zone, share).await));
    let Ok(receipt) = step.capture(zone).await else { return };
    let written = serde_json::to_string(&receipt).expect("a receipt can be written");
    let receipt: Receipt = serde_json::from_str(&written).expect("and read");
    for share in [Share::NONE, share, Share::FULL] {
        drop((step.apply(zone, &receipt, share).await, step.confirm(zone, &receipt, share).await));
        drop((step.drift(zone, &receipt, share).await, step.marked().await));
    }
    drop(step.sweep(None).await);
}
