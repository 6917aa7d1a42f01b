//! What every step on Kubernetes keeps to, on a real API server: each verb may run twice, undo restores what was, and a pod
//! that is gone, or another by now, is nobody's failure.

use std::path::Path;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::domain::{ClusterView, Zone};
use zoneward::isolate::steps::{Look, MeshIstio, TaintNodes};
use zoneward::kubernetes;
use zoneward::ports::IsolationStep;

use crate::cluster::Cluster;
use crate::stage::Stage;

pub async fn client(cluster: &Cluster) -> Client {
    client_by(&cluster.kubeconfig()).await
}

pub async fn client_by(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

pub async fn view(client: &Client) -> ClusterView {
    kubernetes::read(client, &kubernetes::Settings::default()).await.unwrap()
}

pub fn looking_at(view: ClusterView) -> Arc<Look> {
    Arc::new(move || Ok(view.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_may_run_twice_and_undo_restores_what_was() {
    let stage = Stage::new();
    let client = client(&stage.cluster).await;
    let before = stage.everything();
    let zone = Zone::new("zone-b");
    let mesh =
        |view| -> Arc<dyn IsolationStep> { Arc::new(MeshIstio::new(Default::default(), &client, looking_at(view))) };
    let taint = |view| -> Arc<dyn IsolationStep> { Arc::new(TaintNodes::new(&client, looking_at(view))) };
    for step in [mesh(view(&client).await), taint(view(&client).await)] {
        let name = step.name();
        let receipt = step.capture(&zone).await.unwrap();
        assert_eq!(step.capture(&zone).await.unwrap(), receipt, "{name}");
        for _ in 0..2 {
            step.apply(&zone, &receipt, Share::NONE).await.unwrap();
            step.confirm(&zone, &receipt, Share::NONE).await.unwrap();
        }
        assert_ne!(stage.everything(), before, "{name}");
        assert_eq!(step.marked().await.unwrap(), [zone.clone()].into(), "{name}");
        assert!(step.confirm(&zone, &receipt, Share::FULL).await.is_err(), "{name}: it is not undone yet");
        for receipt in [receipt, Receipt::default()] {
            step.apply(&zone, &receipt, Share::FULL).await.unwrap();
            step.confirm(&zone, &receipt, Share::FULL).await.unwrap();
        }
        assert_eq!(stage.everything(), before, "{name}");
        assert!(step.marked().await.unwrap().is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_goes_up_and_down_and_is_confirmed_both_ways() {
    let stage = Stage::new();
    let client = client(&stage.cluster).await;
    let zone = Zone::new("zone-b");
    for (percent, expected) in [(0, 2), (50, 1), (0, 2), (99, 0)] {
        let step = MeshIstio::new(Default::default(), &client, looking_at(view(&client).await));
        let share = Share::percent(percent);
        assert!(step.confirm(&zone, &Receipt::default(), share).await.is_err(), "{percent} %: not yet");
        step.apply(&zone, &Receipt::default(), share).await.unwrap();
        step.confirm(&zone, &Receipt::default(), share).await.unwrap();
        assert_eq!(stage.drained().len(), expected, "{percent} %");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_gone_or_another_by_now_is_nobodys_failure() {
    let stage = Stage::new();
    let client = client(&stage.cluster).await;
    let old = view(&client).await;
    stage.cluster.kubectl(&["delete", "pod", "web-zone-b-0", "web-zone-b-1", "--force"]);
    stage.pod("web-zone-b-1", "web", "zone-b-1", "{}");
    let step = MeshIstio::new(Default::default(), &client, looking_at(old));
    step.apply(&Zone::new("zone-b"), &Receipt::default(), Share::NONE).await.unwrap();
    assert!(stage.drained().is_empty(), "a new pod of an old name is looked at when it is seen");
    let step = MeshIstio::new(Default::default(), &client, looking_at(view(&client).await));
    step.apply(&Zone::new("zone-b"), &Receipt::default(), Share::NONE).await.unwrap();
    assert_eq!(stage.drained(), ["web-zone-b-1"]);
}
