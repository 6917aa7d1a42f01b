//! deploy/admission.yaml on a real API server: what it refuses, and that the daemon does all its work under it.

use std::time::Duration;

use zoneward::guard;

use crate::stage::{ACCOUNT, Stage};
use crate::support::{eventually, root};

const SOON: Duration = Duration::from_secs(30);

fn policies() -> String {
    let text = std::fs::read_to_string(root().join("deploy/admission.yaml")).unwrap();
    let account = "'system:serviceaccount:zoneward:zoneward'";
    assert_eq!(text.matches(account).count(), 2);
    text.replace(account, &format!("'{ACCOUNT}'"))
}

/// A write of the daemon's account, with all its rights; what the API server answers.
fn as_daemon(stage: &Stage, arguments: &[&str]) -> Result<String, String> {
    let kubeconfig = format!("--kubeconfig={}", stage.cluster.kubeconfig_of(ACCOUNT).display());
    stage.cluster.try_kubectl(&[arguments, &[&kubeconfig]].concat())
}

fn patch(stage: &Stage, object: &[&str], patch: &str) -> Result<String, String> {
    as_daemon(stage, &[&["patch"][..], object, &["--type=merge", "-p", patch]].concat())
}

fn isolation(zone: &str, hours: u64, more: &str) -> String {
    let expires = Stage::in_future(Duration::from_hours(hours));
    format!(
        "{{apiVersion: zoneward.io/v1alpha1, kind: ZoneIsolation, metadata: {{name: {zone}}}, \
         spec: {{reason: 'a test', expiresAt: '{expires}'{more}}}}}"
    )
}

/// With the roles of deploy/rbac.yaml and nothing else: what somebody who has taken its account over can't do either.
fn rights_end_where_its_work_does(stage: &Stage) {
    let deployment = stage.write(
        "deployment.yaml",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {selector: {matchLabels: {a: x}}, template: \
         {metadata: {labels: {a: x}}, spec: {containers: [{name: x, image: x}]}}}}",
    );
    let elsewhere = stage.write(
        "elsewhere.yaml",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: zoneward-pause, namespace: default}}",
    );
    let (deployment, elsewhere) = (deployment.display().to_string(), elsewhere.display().to_string());
    let lease = r#"{"spec": {"holderIdentity": "x"}}"#;
    for arguments in [
        &["get", "secrets", "-A"][..],
        &["get", "secrets", "-n", "zoneward"],
        &["create", "token", "zoneward", "-n", "zoneward"],
        &["create", "-f", &deployment],
        &["create", "-f", &elsewhere],
        &["run", "x", "--image=x"],
        &["create", "--raw", "/api/v1/namespaces/default/pods/web-zone-b-0/exec?command=true", "-f", &elsewhere],
        &["create", "--raw", "/api/v1/namespaces/default/pods/web-zone-b-0/eviction", "-f", &elsewhere],
        &["delete", "pod", "web-zone-b-0"],
        &["delete", "node", "zone-b-0"],
        &["delete", "service", "web"],
        &["delete", "namespace", "default"],
        &["patch", "service", "web", "-p", r#"{"spec": {"selector": {"app": "x"}}}"#],
        &["patch", "namespace", "default", "-p", r#"{"metadata": {"labels": {"x": "y"}}}"#],
        &["patch", "lease", "x", "-n", "kube-system", "-p", lease],
        &["patch", "node", "zone-b-0", "--subresource=status", "-p", r#"{"status": {"phase": "x"}}"#],
        &["patch", "pod", "web-zone-b-0", "--subresource=status", "-p", r#"{"status": {"phase": "Failed"}}"#],
        &["create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=zoneward"],
        &["patch", "clusterrole", "zoneward-act", "-p", r#"{"metadata": {"labels": {"x": "y"}}}"#],
        &["delete", "crd", "zoneisolations.zoneward.io"],
        &["delete", "validatingadmissionpolicy", "--all"],
        &["get", "nodes", "--as=admin"],
        &["get", "--raw", "/metrics"],
    ] {
        match as_daemon(stage, arguments) {
            Err(said) => assert!(said.to_lowercase().contains("forbidden"), "{arguments:?}: {said}"),
            Ok(said) => panic!("the daemon's account may {arguments:?}: {said}"),
        }
    }
    // What it does need, so that the refusals above are not for want of an account.
    for arguments in [&["get", "nodes"][..], &["get", "pods", "-A"], &["get", "zones.zoneward.io"]] {
        as_daemon(stage, arguments).unwrap();
    }
}

#[test]
fn the_names_in_the_policy_are_those_of_the_guardrails() {
    let text = std::fs::read_to_string(root().join("deploy/admission.yaml")).unwrap();
    let list = text.split_once("in\n      [").unwrap().1.split_once(']').unwrap().0;
    let named: Vec<&str> = list.split(',').map(|name| name.trim().trim_matches('\'')).collect();
    assert_eq!(named, guard::overridable().collect::<Vec<_>>());
}

#[test]
fn the_api_server_refuses_what_the_daemon_need_not_do_and_the_daemon_does_its_work() {
    let stage = Stage::new();
    stage.cluster.apply(&policies());
    let denied = |answer: Result<String, String>, why: &str| match answer {
        Err(said) => assert!(said.contains(why), "{why}: {said}"),
        Ok(said) => panic!("{why}: {said}"),
    };
    let (node, pod) = (["node", "zone-b-0"], ["pod", "web-zone-b-0"]);
    eventually("the policies are in effect", SOON, || {
        let labels = [
            patch(&stage, &node, r#"{"metadata": {"labels": {"x": "y"}}}"#),
            patch(&stage, &pod, r#"{"metadata": {"labels": {"x": "y"}}}"#),
        ];
        let isolation = stage.cluster.try_apply(&isolation("zone-c", 100, ""));
        let all_denied = labels.iter().all(Result::is_err) && isolation.is_err();
        if !all_denied {
            for kind in ["node/zone-b-0", "pod/web-zone-b-0"] {
                stage.cluster.kubectl(&["label", kind, "x-"]);
            }
            stage.cluster.kubectl(&["delete", "zoneisolation", "zone-c", "--ignore-not-found"]);
        }
        all_denied.then_some(())
    });

    rights_end_where_its_work_does(&stage);

    // Of nodes: its own taint.
    denied(patch(&stage, &node, r#"{"metadata": {"labels": {"x": "y"}}}"#), "may not change a node's metadata");
    denied(patch(&stage, &node, r#"{"spec": {"unschedulable": true}}"#), "nothing of a node's spec but its taints");
    let taints = |taints: &str| patch(&stage, &node, &format!(r#"{{"spec": {{"taints": [{taints}]}}}}"#));
    let (team, own) = (
        r#"{"key": "team", "effect": "NoSchedule"}"#,
        r#"{"key": "zoneward.io/isolated", "value": "zone-b", "effect": "#,
    );
    stage.cluster.kubectl(&["taint", "node", "zone-b-0", "team:NoSchedule"]);
    denied(taints(""), "may not change others' taints");
    denied(taints(&format!(r#"{team}, {{"key": "other", "effect": "NoExecute"}}"#)), "may not change others' taints");
    denied(taints(&format!(r#"{team}, {own}"NoExecute"}}"#)), "zoneward's taint is NoSchedule");
    taints(&format!(r#"{team}, {own}"NoSchedule"}}"#)).unwrap();
    taints(team).unwrap();

    // Of pods: its own label and annotation.
    denied(patch(&stage, &pod, r#"{"metadata": {"labels": {"app": "other"}}}"#), "may change no label of a pod but");
    denied(patch(&stage, &pod, r#"{"metadata": {"labels": {"app": null}}}"#), "may change no label of a pod but");
    denied(
        patch(&stage, &pod, r#"{"metadata": {"annotations": {"x": "y"}}}"#),
        "may change no annotation of a pod but",
    );
    denied(patch(&stage, &pod, r#"{"metadata": {"finalizers": ["x.y/z"]}}"#), "may change nothing of a pod but");
    denied(patch(&stage, &pod, r#"{"spec": {"activeDeadlineSeconds": 1}}"#), "may change nothing of a pod but");
    denied(patch(&stage, &pod, r#"{"metadata": {"labels": {"istio.io/draining": "mine"}}}"#), "zoneward's value of");
    stage.cluster.kubectl(&["label", "pod", "web-zone-b-0", "istio.io/draining=by-somebody"]);
    denied(patch(&stage, &pod, r#"{"metadata": {"labels": {"istio.io/draining": null}}}"#), "another's stays");
    stage.cluster.kubectl(&["label", "pod", "web-zone-b-0", "istio.io/draining-"]);

    // Of isolations, whoever asks: an end that is near, and names that are known.
    denied(stage.cluster.try_apply(&isolation("zone-c", 100, "")), "within 72 hours from now");
    denied(
        stage.cluster.try_apply(&isolation("zone-c", 1, ", overrides: [no_fault]")),
        "names no guardrail that can be",
    );
    stage.cluster.apply(&isolation("zone-c", 1, ", overrides: [Stale-Data], approved: false"));
    denied(
        stage.cluster.try_apply(&isolation("zone-c", 100, ", overrides: [Stale-Data], approved: false")),
        "within 72 hours",
    );
    stage.cluster.apply(&isolation("zone-c", 71, ", overrides: [Stale-Data], approved: false"));
    stage.cluster.kubectl(&["delete", "zoneisolation", "zone-c"]);

    // The daemon needs no more.
    let _daemon = stage.daemon("one");
    stage.leads("one");
    stage.said(&["isolate", "zone-b", "--reason", "x", "--for", "1h", "--override", "stale-data"]);
    assert!(stage.is_out("zone-b"));
    assert!(stage.said(&["restore", "zone-b"]).contains("is back in rotation"));
    assert!(stage.is_clean());
}
