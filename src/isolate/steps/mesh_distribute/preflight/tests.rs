use serde_json::json;

use super::*;
use crate::domain::cluster::{Node, Pod, PodId, Service};

fn zone(name: char) -> Zone {
    Zone::new(format!("zone-{name}"))
}

fn service(name: &str) -> ServiceId {
    ServiceId::new("default", name)
}

/// `web` in both zones, `only` in b.
fn view() -> ClusterView {
    let mut view = ClusterView::default();
    for name in ['a', 'b'] {
        let node = Node { zone: Some(zone(name)), region: Some("r".to_owned()), ..Node::default() };
        view.nodes.insert(format!("node-{name}"), node);
    }
    for (app, name) in [("web", 'a'), ("web", 'b'), ("only", 'b')] {
        view.services.insert(service(app), Service::default());
        let id = PodId { namespace: "default".to_owned(), name: format!("{app}-{name}") };
        let services = [service(app)].into();
        view.pods.insert(id, Pod { zone: Some(zone(name)), ready: true, services, ..Pod::default() });
    }
    view
}

fn healthy() -> Facts {
    let istiod = Istiod {
        namespace: "istio-system".to_owned(),
        name: "istiod".to_owned(),
        shared_map: Some("zoneward-mesh".to_owned()),
    };
    Facts { istiods: vec![istiod], own_maps: [("istio".to_owned(), Ok(false))].into(), ..Facts::default() }
}

fn rule(namespace: &str, spec: &Value) -> Rule {
    Rule::new(namespace.to_owned(), "rule".to_owned(), spec)
}

fn off(host: &str) -> Value {
    json!({"host": host, "trafficPolicy": {"loadBalancer": {"localityLbSetting": {"enabled": false}}}})
}

fn said(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{}: {}\n", finding.found, finding.hint)).collect()
}

fn refused(facts: &Facts) -> String {
    said(&facts.refusals(&view(), &Settings::default()))
}

#[test]
fn a_mesh_that_is_prepared_is_not_refused() {
    assert_eq!(refused(&healthy()), "");
}

#[test]
fn nodes_say_their_region_and_zone() {
    let mut view = view();
    view.nodes.insert("lost".to_owned(), Node { zone: Some(zone('a')), ..Node::default() });
    let said = said(&healthy().refusals(&view, &Settings::default()));
    assert!(said.contains("lost") && said.contains("topology.kubernetes.io/region"), "{said}");
}

#[test]
fn every_istiod_reads_the_map_and_none_has_settings_that_come_before() {
    let mut facts = healthy();
    facts.istiods[0].shared_map = None;
    assert!(
        refused(&facts).contains("kubectl -n istio-system set env deployment/istiod SHARED_MESH_CONFIG=zoneward-mesh")
    );
    facts.istiods[0].shared_map = Some("others".to_owned());
    assert!(refused(&facts).contains("SHARED_MESH_CONFIG=others"));
    facts.istiods[0].namespace = "mesh".to_owned();
    assert!(refused(&facts).contains("its own namespace"));
    facts.istiods.clear();
    assert!(refused(&facts).contains("may be managed"));
    let asked = Settings { istiod: Some("http://istiod:15014".to_owned()), ..Settings::default() };
    assert_eq!(said(&facts.refusals(&view(), &asked)), "", "its word will tell");
    facts.own_maps.insert("istio-canary".to_owned(), Ok(true));
    assert!(refused(&facts).contains("istio-system/istio-canary sets localityLbSetting"));
}

#[test]
fn what_is_in_no_zone_would_be_lost_unless_a_rule_says_otherwise() {
    let mut facts = healthy();
    facts.nowhere.insert(service("web"), 3);
    let entry = Entry { namespace: "default".to_owned(), name: "api".to_owned(), host: "api.example.org".to_owned() };
    facts.entries.push(entry);
    let refusals = refused(&facts);
    assert!(refusals.contains("default/web (3)") && refusals.contains("default/api (api.example.org)"), "{refusals}");
    facts.rules = vec![rule("default", &off("web")), rule("istio-system", &off("*.example.org"))];
    assert_eq!(refused(&facts), "");
    // Of the namespaces with a rule only the first counts, and a rule of others' namespace is for others' clients.
    facts.rules.push(rule("default", &json!({"host": "api.example.org"})));
    assert!(refused(&facts).contains("api.example.org"));
    facts.rules = vec![rule("elsewhere", &off("web.default.svc.cluster.local"))];
    assert!(refused(&facts).contains("default/web"));
}

#[test]
fn a_rule_counts_if_it_holds_for_every_client_port_and_subset() {
    let whole = off("web.default.svc.cluster.local");
    assert!(rule("default", &whole).all_own && rule("default", &whole).matches("web.default.svc.cluster.local"));
    assert_eq!(rule("default", &off("web")).host, rule("x", &off("web.default.svc.mesh.example")).host);
    for (key, value) in [
        ("exportTo", json!(["."])),
        ("workloadSelector", json!({"matchLabels": {"app": "a"}})),
        ("subsets", json!([{"name": "v1", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}])),
    ] {
        let mut part = whole.clone();
        part[key] = value;
        let rule = rule("default", &part);
        assert!(rule.has_own && !rule.all_own, "{key}");
    }
    let plain = rule("default", &json!({"host": "web", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}));
    assert!(!plain.has_own, "a rule of another matter hides nothing");
}

#[test]
fn a_service_that_lives_only_there_is_not_lost() {
    let (facts, view, settings) = (healthy(), view(), Settings::default());
    let (a, b) = (zone('a'), zone('b'));
    assert_eq!(said(&facts.refusals_of(&view, &[&a].into(), &settings)), "");
    let only = said(&facts.refusals_of(&view, &[&b].into(), &settings));
    assert!(only.contains("would be lost: default/only:"), "{only}");
    let both = said(&facts.refusals_of(&view, &[&a, &b].into(), &settings));
    assert!(both.contains("default/only, default/web"), "{both}");
    let exempt = Facts { rules: vec![rule("default", &off("only"))], ..facts };
    assert_eq!(said(&exempt.refusals_of(&view, &[&b].into(), &settings)), "");
}

#[test]
fn an_owners_no_is_kept() {
    let mut view = view();
    let web = view.pods.values_mut().find(|pod| pod.services.contains(&service("web")) && pod.zone == Some(zone('b')));
    let web = web.unwrap();
    web.exempt = Some("the app web is exempt (kubernetes.exempt_apps)".to_owned());
    let refused = |view: &ClusterView| said(&healthy().refusals_of(view, &[&zone('b')].into(), &Settings::default()));
    assert!(!refused(&view).contains("never to be isolated"), "the configuration's does not bind weights");
    let id = view.pods.keys().find(|id| id.name == "web-b").unwrap().clone();
    view.pods.get_mut(&id).unwrap().exempt = Some(format!("it says {}: never", marks::OPT_OUT));
    assert!(refused(&view).contains("never to be isolated: default/web"), "{}", refused(&view));
}

#[test]
fn what_weights_do_not_concern_is_said_by_name() {
    let mut facts = healthy();
    facts.preferring.insert(service("near"));
    facts.rules.push(rule("default", &off("web")));
    let warnings = said(&facts.warnings(&Settings::default()));
    assert!(warnings.contains("default/near") && warnings.contains("default/rule (web."), "{warnings}");
    assert!(warnings.contains("is not read back"), "{warnings}");
}
