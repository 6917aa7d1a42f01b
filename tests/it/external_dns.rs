//! The DNS step of external-dns on a real API server, by an account with the rights of deploy/rbac.yaml and no more. The
//! test plays external-dns: it says what it has seen.

use std::time::Duration;

use serde_json::{Value, json};
use zoneward::domain::Zone;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::isolate::steps::dns_external_dns::{ExternalDns, Settings};
use zoneward::isolate::steps::{Probe, RealStep, StepSettings};
use zoneward::ports::{IsolationStep, StepError};

use crate::contract::{self, Mark};
use crate::dns::permanent;
use crate::stage::{ACCOUNT, Stage};
use crate::steps::client_of;
use crate::support::{eventually, strip};

/// As external-dns has it, without its descriptions.
const CRD: &str = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: \
    dnsendpoints.externaldns.k8s.io, annotations: {api-approved.kubernetes.io: \
    'https://github.com/kubernetes-sigs/external-dns/pull/2007'}}, spec: {group: externaldns.k8s.io, names: {kind: \
    DNSEndpoint, listKind: DNSEndpointList, plural: dnsendpoints, singular: dnsendpoint}, scope: Namespaced, versions: \
    [{name: v1alpha1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, \
    properties: {apiVersion: {type: string}, kind: {type: string}, metadata: {type: object}, spec: {type: object, \
    properties: {endpoints: {type: array, items: {type: object, properties: {dnsName: {type: string}, labels: {type: \
    object, additionalProperties: {type: string}}, providerSpecific: {type: array, items: {type: object, properties: \
    {name: {type: string}, value: {type: string}}}}, recordTTL: {type: integer, format: int64}, recordType: {type: \
    string}, setIdentifier: {type: string}, targets: {type: array, items: {type: string}}}}}}}, status: {type: object, \
    properties: {observedGeneration: {type: integer, format: int64}}}}}}}]}}";

const API: &str = "{apiVersion: externaldns.k8s.io/v1alpha1, kind: DNSEndpoint, metadata: {name: api, annotations: \
    {team: blue}}, spec: {endpoints: [\
    {dnsName: api.example.org, recordType: A, recordTTL: 60, labels: {team: blue}, providerSpecific: [{name: aws/weight, value: '10'}], \
     targets: [192.0.2.1, 192.0.2.2, 192.0.2.10, 192.0.2.3]}, \
    {dnsName: api.example.org, recordType: AAAA, targets: ['2001:DB8::1', '2001:db8::2']}, \
    {dnsName: text.example.org, recordType: TXT, targets: [192.0.2.1]}]}}";
const WEB: &str = "{apiVersion: externaldns.k8s.io/v1alpha1, kind: DNSEndpoint, metadata: {name: web}, spec: {endpoints: \
    [{dnsName: web.example.org, recordType: CNAME, targets: [lb-c.example.org, LB-A.example.org]}]}}";

struct Zonal {
    stage: Stage,
    step: ExternalDns,
}

impl Zonal {
    async fn new(wait: bool) -> Self {
        let stage = Stage::new();
        stage.cluster.apply(CRD);
        for object in [API, WEB] {
            eventually("the custom resource is served", Duration::from_secs(30), || {
                stage.cluster.try_apply(object).ok()
            });
        }
        let settings: Settings = serde_json::from_value(json!({"wait_for_external_dns": wait, "objects": [
            {"namespace": "default", "name": "api", "addresses": {"a": ["192.0.2.1", "192.0.2.10", "2001:db8::1"],
                "b": ["192.0.2.2", "2001:db8::2"], "c": ["192.0.2.3", "192.0.2.99"]}},
            {"namespace": "default", "name": "web", "addresses": {"a": ["lb-a.example.org"], "c": ["lb-c.example.org"]}}]}))
        .unwrap();
        assert_eq!(settings.problems(), []);
        let step = ExternalDns::new(settings, &client_of(&stage.cluster.kubeconfig_of(ACCOUNT)).await);
        Self { stage, step }
    }

    fn objects(&self) -> [Value; 2] {
        ["api", "web"].map(|name| self.objects_of(name))
    }

    /// As it is, but for what every write changes.
    fn objects_of(&self, name: &str) -> Value {
        let mut object = self.stage.get(&["dnsendpoint", name]);
        object.as_object_mut().unwrap().remove("status");
        strip(&mut object);
        object["metadata"].as_object_mut().unwrap().remove("generation");
        object
    }

    fn targets(&self, name: &str, endpoint: usize) -> Vec<String> {
        let object = self.stage.get(&["dnsendpoint", name]);
        serde_json::from_value(object["spec"]["endpoints"][endpoint]["targets"].clone()).unwrap()
    }

    fn patch(&self, name: &str, patch: &Value, more: &[&str]) {
        let arguments = ["patch", "dnsendpoint", name, "--type=merge", "-p", &patch.to_string()];
        self.stage.cluster.kubectl(&[&arguments[..], more].concat());
    }

    /// external-dns has looked.
    fn observe(&self) {
        for name in ["api", "web"] {
            let generation = self.stage.get(&["dnsendpoint", name])["metadata"]["generation"].clone();
            self.patch(name, &json!({"status": {"observedGeneration": generation}}), &["--subresource=status"]);
        }
    }

    async fn withdraw(&self, zone: &str) -> Receipt {
        let zone = Zone::new(zone);
        let receipt = self.step.capture(&zone).await.unwrap();
        self.step.apply(&zone, &receipt, Share::NONE).await.unwrap();
        self.step.confirm(&zone, &receipt, Share::NONE).await.unwrap();
        receipt
    }

    async fn give_back(&self, zone: &str, receipt: &Receipt) {
        self.step.apply(&Zone::new(zone), receipt, Share::FULL).await.unwrap();
        self.step.confirm(&Zone::new(zone), receipt, Share::FULL).await.unwrap();
    }

    async fn withdrawal(&self, zone: &str) -> Result<(), StepError> {
        self.step.apply(&Zone::new(zone), &Receipt::default(), Share::NONE).await
    }
}

fn transient<T: std::fmt::Debug>(result: Result<T, StepError>) -> String {
    match result {
        Err(StepError::Transient { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_may_run_twice_and_what_was_there_comes_back_exactly() {
    let it = Zonal::new(false).await;
    let before = it.objects();
    let receipt = it.withdraw("a").await;
    let generation = it.stage.get(&["dnsendpoint", "api"])["metadata"]["generation"].clone();
    assert_eq!(it.targets("api", 0), ["192.0.2.2", "192.0.2.3"]);
    assert_eq!(it.targets("api", 1), ["2001:db8::2"]);
    assert_eq!(it.targets("api", 2), ["192.0.2.1"], "text is no address");
    assert_eq!(it.targets("web", 0), ["lb-c.example.org"]);
    assert_eq!(it.withdraw("a").await, receipt, "what was withdrawn was there before");
    assert_eq!(it.stage.get(&["dnsendpoint", "api"])["metadata"]["generation"], generation, "nothing was written");
    assert_eq!(it.step.marked().await, Ok([Zone::new("a")].into()));
    let why = transient(it.step.confirm(&Zone::new("a"), &receipt, Share::FULL).await);
    assert!(why.starts_with("default/api still lacks 192.0.2.1"), "{why}");
    for receipt in [&receipt, &receipt, &Receipt::default()] {
        it.give_back("a", receipt).await;
        assert_eq!(it.objects(), before);
    }
    assert_eq!(it.step.marked().await, Ok([].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_target_stays_and_then_nothing_is_withdrawn_anywhere() {
    let it = Zonal::new(false).await;
    let (before, a) = (it.objects(), it.withdraw("a").await);
    let of_a = it.objects();
    let why = permanent(it.withdrawal("b").await);
    assert_eq!(
        why,
        "default/api: api.example.org AAAA would be left with no target: all that it has, 2001:db8::2, is of b. Nothing \
         was changed. Give it a target in another zone, or give back one that is withdrawn"
    );
    let why = permanent(it.withdrawal("c").await);
    assert!(why.starts_with("default/web: web.example.org CNAME would be left with no target"), "{why}");
    assert_eq!(it.objects(), of_a, "not even from the object that could spare it");
    it.give_back("a", &a).await;
    assert_eq!(it.objects(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_alone_give_everything_back_and_zones_do_not_disturb_each_other() {
    let it = Zonal::new(false).await;
    let before = it.objects();
    it.withdraw("b").await;
    let of_b = it.objects();
    // It would take the last address of IPv6 and of the name.
    it.patch(
        "web",
        &json!({"spec": {"endpoints": [{"dnsName": "web.example.org", "recordType": "CNAME", "targets":
        ["lb-c.example.org", "LB-A.example.org", "lb-d.example.org"]}]}}),
        &[],
    );
    let c = it.withdraw("c").await;
    assert_eq!(it.step.marked().await, Ok([Zone::new("b"), Zone::new("c")].into()));
    assert_eq!(it.step.sweep(Some(&Zone::new("b"))).await.unwrap(), ["default/api has the targets of b again"]);
    it.withdraw("b").await;
    it.give_back("c", &c).await;
    assert_eq!(it.objects()[0], of_b[0]);
    assert_eq!(it.step.sweep(None).await.unwrap(), ["default/api has the targets of b again"]);
    assert_eq!(it.step.sweep(None).await, Ok(vec![]));
    assert_eq!(it.objects()[0], before[0]);
    assert_eq!(it.targets("web", 0), ["lb-c.example.org", "LB-A.example.org", "lb-d.example.org"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_puts_back_is_withdrawn_again_and_a_lost_note_loses_nothing() {
    let it = Zonal::new(false).await;
    let before = it.objects();
    let receipt = it.withdraw("a").await;
    let once = it.objects();
    // As GitOps would: the list of the repository, and the annotation of somebody else stays.
    it.patch("api", &json!({"spec": before[0]["spec"]}), &[]);
    let why = transient(it.step.confirm(&Zone::new("a"), &receipt, Share::NONE).await);
    assert_eq!(why, "default/api: api.example.org A still has 192.0.2.1, 192.0.2.10 of a");
    it.withdraw("a").await;
    assert_eq!(it.objects(), once);
    // The note is removed by hand.
    it.patch("api", &json!({"metadata": {"annotations": {"zoneward.io/withdrawn": null}}}), &[]);
    assert_eq!(it.step.marked().await, Ok([Zone::new("a")].into()), "of the other object");
    it.give_back("a", &receipt).await;
    assert_eq!(it.objects(), before);
    // It can't be read.
    it.patch("api", &json!({"metadata": {"annotations": {"zoneward.io/withdrawn": "{a"}}}), &[]);
    let why = permanent(it.withdrawal("a").await);
    assert!(why.contains("default/api: the annotation zoneward.io/withdrawn can't be read"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_writes_at_the_same_time_are_not_lost() {
    let it = Zonal::new(false).await;
    let before = it.objects();
    let kubeconfig = it.stage.cluster.kubeconfig();
    let others = async {
        let client = client_of(&kubeconfig).await;
        let kind = kube::core::GroupVersionKind::gvk("externaldns.k8s.io", "v1alpha1", "DNSEndpoint");
        let resource = kube::api::ApiResource::from_gvk_with_plural(&kind, "dnsendpoints");
        let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(client, "default", &resource);
        for nth in 0..40 {
            let patch = kube::api::Patch::Merge(json!({"metadata": {"annotations": {format!("n{nth}"): "x"}}}));
            api.patch("api", &kube::api::PatchParams::default(), &patch).await.unwrap();
        }
    };
    let ours = async {
        for _ in 0..8 {
            while it.withdrawal("a").await.is_err() {}
            while it.step.apply(&Zone::new("a"), &Receipt::default(), Share::FULL).await.is_err() {}
        }
    };
    tokio::join!(others, ours);
    let after = it.objects();
    assert_eq!(after[0]["spec"], before[0]["spec"]);
    assert_eq!(after[0]["metadata"]["annotations"].as_object().unwrap().len(), 42, "40 of others', and two before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_between_objects_is_resumed_or_undone() {
    let it = Zonal::new(false).await;
    let before = it.objects();
    let only = |names: &Value| {
        let rule = json!([{"op": "add", "path": "/rules/0", "value": {"apiGroups": ["externaldns.k8s.io"], "resources":
            ["dnsendpoints"], "verbs": ["get"]}}, {"op": "add", "path": "/rules/1/resourceNames", "value": names}]);
        let role = ["patch", "clusterrole", "zoneward-external-dns", "--type=json", "-p", &rule.to_string()];
        it.stage.cluster.kubectl(&role);
    };
    only(&json!(["api"]));
    let refused = || async {
        eventually_async(|| async { it.step.probe().await.iter().any(|p| matches!(p, Probe::Broken { .. })) }).await;
        permanent(it.withdrawal("a").await)
    };
    let why = refused().await;
    assert!(why.starts_with("the DNSEndpoint default/web can't be patched: "), "{why}");
    assert!(why.ends_with("does the ClusterRole allow it?"), "{why}");
    assert_eq!((it.targets("api", 0).len(), it.targets("web", 0).len()), (2, 2), "one is out");
    it.give_back("a", &Receipt::default()).await;
    assert_eq!(it.objects(), before);
    // The other way: it goes on once it may.
    permanent(it.withdrawal("a").await);
    let all = json!([{"op": "remove", "path": "/rules/1/resourceNames"}]).to_string();
    it.stage.cluster.kubectl(&["patch", "clusterrole", "zoneward-external-dns", "--type=json", "-p", &all]);
    eventually_async(|| async { it.withdrawal("a").await.is_ok() }).await;
    assert_eq!((it.targets("api", 0).len(), it.targets("web", 0).len()), (2, 1));
    // An object that goes away is nobody's failure.
    it.stage.cluster.kubectl(&["delete", "dnsendpoint", "web"]);
    it.give_back("a", &Receipt::default()).await;
    let why = permanent(it.withdrawal("a").await);
    assert!(why.starts_with("there is no DNSEndpoint default/web"), "{why}");
    assert_eq!(it.objects_of("api"), before[0]);
}

async fn eventually_async<F: Future<Output = bool>>(check: impl Fn() -> F) {
    for _ in 0..150 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("it never came true");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_done_when_external_dns_has_seen_it_and_looking_changes_nothing() {
    let it = Zonal::new(true).await;
    let before = it.objects();
    let zone = Zone::new("a");
    let probes = it.step.probe().await;
    let works = |text: &str| probes.iter().any(|p| matches!(p, Probe::Works(found) if found.contains(text)));
    assert!(works("default/api has api.example.org A 192.0.2.1, 192.0.2.10; api.example.org AAAA 2001:DB8::1 of a"));
    let unsure = |text: &str| probes.iter().any(|p| matches!(p, Probe::Unsure { found, .. } if found.contains(text)));
    assert!(unsure("external-dns has not seen default/api as it is now, generation 1: it has seen none"), "{probes:?}");
    assert!(!probes.iter().any(|p| matches!(p, Probe::Broken { .. })), "{probes:?}");
    let preview = it.step.preview(&zone, Share::NONE).await.unwrap();
    assert!(preview.changes.contains(&"default/web: web.example.org CNAME loses LB-A.example.org".to_owned()));
    assert_eq!(it.objects(), before);

    it.observe();
    assert!(!it.step.probe().await.iter().any(|p| !matches!(p, Probe::Works(_))));
    let receipt = it.step.capture(&zone).await.unwrap();
    it.step.apply(&zone, &receipt, Share::NONE).await.unwrap();
    let why = transient(it.step.confirm(&zone, &receipt, Share::NONE).await);
    assert!(why.contains("has not seen default/api as it is now, generation 2: it saw 1 last. Does it run"), "{why}");
    it.observe();
    it.step.confirm(&zone, &receipt, Share::NONE).await.unwrap();
    it.step.apply(&zone, &receipt, Share::FULL).await.unwrap();
    assert!(it.step.confirm(&zone, &receipt, Share::FULL).await.is_err());
    it.observe();
    it.step.confirm(&zone, &receipt, Share::FULL).await.unwrap();
    assert_eq!(it.objects(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_takes_it_keeps_it_against_gitops_and_gives_it_back() {
    let it = Zonal::new(false).await;
    let before = it.objects();
    let config = it.stage.write(
        "external-dns.yaml",
        "mode: enforce\nprometheus: {url: 'http://127.0.0.1:1', history: 1m}\nkubernetes: {namespace: zoneward}\n\
         steps: {mesh_istio: null, taint: null, dns_external_dns: {wait_for_external_dns: false, objects: [{namespace: \
         default, name: api, addresses: {zone-b: [192.0.2.2]}}]}}\n",
    );
    let _daemon = it.stage.daemon_with("one", &config);
    it.stage.leads("one");
    let soon = Duration::from_secs(30);
    it.stage.apply_isolation("zone-b", Duration::from_mins(10), "");
    let isolated = || it.stage.condition("zone-b", "Isolated").filter(|isolated| isolated.0 == "True");
    eventually("it is isolated", soon, isolated);
    assert_eq!(it.targets("api", 0), ["192.0.2.1", "192.0.2.10", "192.0.2.3"]);
    it.patch("api", &json!({"spec": before[0]["spec"]}), &[]);
    eventually("what GitOps put back is taken out again", soon, || (it.targets("api", 0).len() == 3).then_some(()));
    it.stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--timeout=30s"]);
    assert_eq!(it.objects(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_keep_to_the_contract() {
    let zonal = Zonal::new(false).await;
    contract::holds(&zonal.step, Mark::OnWhatIsChanged, ("a", "b"), || json!(zonal.objects())).await;
}
