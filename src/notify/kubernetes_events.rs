//! Kubernetes Events on the zone, or on its isolation: `kubectl describe zoneisolation ZONE`. Those of a pause are on its
//! `ConfigMap`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::events::{Event as KubernetesEvent, EventType, Recorder, Reporter};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Count, Outcome};
use crate::domain::{Event, Record, StepState, Zone};
use crate::kubernetes::{PAUSE_NAME, bounded, explain, is_object_name};
use crate::ports::Notifier;

const TARGET: &str = "kubernetes_events";
/// Records that wait for a slow API server; more are dropped.
const MOST_WAITING: usize = 256;
/// The API takes notes of up to 1 kB.
const LONGEST_NOTE: usize = 1_000;

/// Publishes records in the background, in order.
pub struct KubernetesEvents {
    queue: mpsc::Sender<Record>,
    count: Arc<Count>,
}

impl KubernetesEvents {
    pub fn start(
        client: &Client,
        instance: String,
        count: Arc<Count>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (queue, mut records) = mpsc::channel::<Record>(MOST_WAITING);
        let reporter = Reporter { controller: "zoneward".to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client.clone(), reporter);
        let publisher = Publisher { client: client.clone(), recorder, count: Arc::clone(&count) };
        let stop = stop.clone();
        tasks.spawn(async move {
            loop {
                let record = tokio::select! {
                    record = records.recv() => record,
                    () = stop.cancelled() => None,
                };
                match record {
                    Some(record) => publisher.publish(&record).await,
                    None => break,
                }
            }
        });
        Self { queue, count }
    }
}

impl Notifier for KubernetesEvents {
    fn notify(&self, record: &Record) {
        let of_a_pause = matches!(record.event, Event::Paused | Event::Resumed);
        if (record.zone.is_some() || of_a_pause) && self.queue.try_send(record.clone()).is_err() {
            (self.count)(TARGET, Outcome::Dropped);
            tracing::warn!("a Kubernetes Event was dropped, as too many wait");
        }
    }
}

struct Publisher {
    client: Client,
    recorder: Recorder,
    count: Arc<Count>,
}

impl Publisher {
    async fn publish(&self, record: &Record) {
        let event = KubernetesEvent {
            type_: severity(record),
            reason: reason(record.event),
            note: Some(note(&record.message)),
            // Events alike in this too are counted instead of shown.
            action: record
                .step
                .as_ref()
                .map_or_else(|| "Guard".to_owned(), |step| format!("{}-{}", step.name, step.state.as_str())),
            secondary: None,
        };
        let reference = match &record.zone {
            Some(zone) => self.reference(zone).await,
            None => self.pause().await,
        };
        let published = bounded(self.recorder.publish(&event, &reference)).await;
        (self.count)(TARGET, if published.is_ok() { Outcome::Sent } else { Outcome::Failed });
        if let Err(error) = published {
            tracing::warn!(error = explain(&error), "a Kubernetes Event can't be published");
        }
    }

    /// What people pause it by; once it is removed, what was.
    async fn pause(&self) -> ObjectReference {
        let api: Api<ConfigMap> = Api::default_namespaced(self.client.clone());
        let there = bounded(api.get_metadata_opt(PAUSE_NAME)).await.ok().flatten();
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(self.client.default_namespace().to_owned()),
            name: Some(PAUSE_NAME.to_owned()),
            uid: there.and_then(|map| map.uid()),
            ..ObjectReference::default()
        }
    }

    /// The zone's isolation if there is one, else the zone.
    async fn reference(&self, zone: &Zone) -> ObjectReference {
        let mut reference = ObjectReference {
            api_version: Some("zoneward.io/v1alpha1".to_owned()),
            kind: Some("Zone".to_owned()),
            name: Some(zone.as_str().to_owned()),
            ..ObjectReference::default()
        };
        if !is_object_name(zone.as_str()) {
            // There is no object of it.
            reference.name = Some("unnamed".to_owned());
            return reference;
        }
        for (kind, plural) in [("ZoneIsolation", "zoneisolations"), ("Zone", "zones")] {
            let gvk = GroupVersionKind::gvk("zoneward.io", "v1alpha1", kind);
            let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            if let Ok(Some(object)) = bounded(api.get_metadata_opt(zone.as_str())).await {
                reference.kind = Some(kind.to_owned());
                reference.uid = object.uid();
                break;
            }
        }
        reference
    }
}

fn severity(record: &Record) -> EventType {
    let stuck = record.step.as_ref().is_some_and(|step| step.state == StepState::Stuck || step.error.is_some());
    match record.event {
        Event::Suspect
        | Event::Blocked
        | Event::Isolate
        | Event::Refused
        | Event::Ineffective
        | Event::ConfigurationRefused
        | Event::Paused
        | Event::Reclassified
        | Event::RolledBack
        | Event::DrillBlocked
        | Event::DrillAborted
        | Event::Relapsed
        | Event::Mended
        | Event::Adopted
        | Event::Gap => EventType::Warning,
        Event::Step if stuck => EventType::Warning,
        Event::Started
        | Event::Stopped
        | Event::Unrecorded
        | Event::Retired
        | Event::HandedOver
        | Event::ConfigurationChanged
        | Event::Resumed
        | Event::Acknowledged
        | Event::Admitted
        | Event::Clear
        | Event::Observed
        | Event::Step
        | Event::Isolated
        | Event::Effective
        | Event::DrillPassed
        | Event::Recovering
        | Event::Restore
        | Event::Restored
        | Event::Fault
        | Event::Repair
        | Event::Summary => EventType::Normal,
    }
}

/// Such as `Isolated`.
fn reason(event: Event) -> String {
    let name = event.as_str();
    name[..1].to_uppercase() + &name[1..]
}

fn note(message: &str) -> String {
    if message.len() <= LONGEST_NOTE {
        return message.to_owned();
    }
    let end = (0..=LONGEST_NOTE - 4).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &message[..end])
}
