//! What is left, and has to bear it.

use std::sync::Arc;

use super::settings::PolicyOf;
use super::*;
use crate::domain::cluster::CpuUse;
use crate::domain::{Factor, Ratio};

/// Each endpoint of `default/web` may use a core; those elsewhere use so much of it, and get so many of all requests.
pub(super) fn busy(world: &mut World, used: u64, requests: [f64; 3]) {
    for pod in world.cluster().pods.values_mut() {
        (pod.cpu_limit, pod.node) = (Some(1_000), pod.zone.as_ref().map(|zone| format!("{zone}-0")));
    }
    let cpu = CpuUse { seen_at: at(0), pods: world.cluster().pods.keys().map(|id| (id.clone(), used)).collect() };
    world.cluster().cpu_use = Some(Arc::new(cpu));
    let cell = |total: f64| Cell { served: Calls { total, failed: 0.0 }, ..Cell::default() };
    let zones = ['a', 'b', 'c'].map(zone).into_iter().zip(requests.map(cell)).collect();
    world.snapshot.cells.insert(ServiceId::new("default", "web"), zones);
    world.settings.max_cpu = Some(Ratio::from_percent(90.0));
}

#[test]
fn endpoints_that_are_left_must_have_the_cpu_for_what_moves_there() {
    let mut world = World::new();
    busy(&mut world, 590, [3000.0; 3]);
    assert_eq!(world.admit(0), Ok(vec![]), "half as much again is 89 % of their limits");
    busy(&mut world, 610, [3000.0; 3]);
    let held = world.admit(0).unwrap_err();
    assert_eq!(
        held.to_string(),
        "the endpoints of default/web that are left would use 92 % of their CPU, 61 % now, and 90 % are allowed \
         (guard.max_cpu)"
    );
    busy(&mut world, 610, [4000.0, 1000.0, 4000.0]);
    assert_eq!(world.admit(0), Ok(vec![]), "a zone that gets few requests gives few away");
    busy(&mut world, 610, [3000.0; 3]);
    world.request.overrides.insert("insufficient_cpu".to_owned());
    assert_eq!(world.admit(0), Ok(vec![]));
}

/// What the endpoints of a zone use, each.
fn uses(world: &mut World, letter: char, used: u64) {
    let view = world.cluster();
    let mut cpu = view.cpu_use.as_deref().unwrap().clone();
    let of_zone = view.pods.iter().filter(|(_, pod)| pod.zone == Some(zone(letter)));
    of_zone.for_each(|(id, _)| *cpu.pods.get_mut(id).unwrap() = used);
    view.cpu_use = Some(Arc::new(cpu));
}

#[test]
fn the_cpu_of_endpoints_that_are_out_says_nothing_of_those_that_are_left() {
    let mut world = World::new();
    busy(&mut world, 600, [3000.0; 3]);
    assert_eq!(world.admit(0), Ok(vec![]), "just as much as is allowed");
    busy(&mut world, 610, [3000.0; 3]);
    uses(&mut world, 'b', 10);
    assert_eq!(world.held(), "insufficient_cpu", "an idle zone's endpoints go with it");

    let mut world = World::new();
    busy(&mut world, 590, [3000.0; 3]);
    (world.settings.max_isolated_zones, world.settings.max_load_growth) = (2, Factor::new(10.0));
    world.past_isolation('a', -100, None);
    uses(&mut world, 'a', 10);
    assert_eq!(world.held(), "insufficient_cpu", "those of a zone that is out already bear nothing");
}

#[test]
fn cpu_is_not_judged_by_a_handful_of_requests_nor_where_nobody_is_left() {
    let mut world = World::new();
    busy(&mut world, 990, [30.0; 3]);
    assert_eq!(world.admit(0), Ok(vec!["insufficient_cpu"]));
    busy(&mut world, 990, [0.0, 3000.0, 0.0]);
    assert_eq!(world.admit(0), Ok(vec!["insufficient_cpu"]));
    busy(&mut world, 990, [3000.0; 3]);
    world.request.overrides.insert("unreachable_service".to_owned());
    world.cluster().pods.values_mut().filter(|pod| pod.zone != Some(zone('b'))).for_each(|pod| pod.ready = false);
    assert_eq!(world.admit(0), Ok(vec!["insufficient_cpu"]));
}

#[test]
fn only_pods_that_move_burden_the_nodes_that_are_left() {
    let with_nodes = |cpu: u64, change: &dyn Fn(&mut ClusterView)| {
        let mut world = World::new();
        busy(&mut world, 610, [3000.0; 3]);
        world.cluster().pods.values_mut().for_each(|pod| pod.cpu_limit = None);
        world.cluster().nodes.values_mut().for_each(|node| node.cpu = Some(cpu));
        change(world.cluster());
        world.admit(0).map_err(|reason| reason.as_str().to_owned())
    };
    let in_zone = |view: &mut ClusterView, change: &dyn Fn(&mut Pod)| {
        view.pods.values_mut().filter(|pod| pod.zone == Some(zone('b'))).for_each(change);
    };
    assert_eq!(with_nodes(650, &|_| {}), Err("insufficient_cpu".to_owned()));
    let exempt = |view: &mut ClusterView| in_zone(view, &|pod| pod.exempt = Some("it says so".to_owned()));
    assert_eq!(with_nodes(650, &exempt), Ok(vec![]), "it stays where it is");
    let headless = |view: &mut ClusterView| view.services.values_mut().for_each(|service| service.headless = true);
    assert_eq!(with_nodes(650, &headless), Ok(vec![]), "the mesh moves none of its calls");

    // Of five of six it is enough to know, of four it is not.
    let unknown = |view: &mut ClusterView, many: usize| {
        let mut cpu = view.cpu_use.as_deref().unwrap().clone();
        (0..many).for_each(|_| drop(cpu.pods.pop_first()));
        view.cpu_use = Some(Arc::new(cpu));
    };
    assert_eq!(with_nodes(650, &|view| unknown(view, 1)), Ok(vec![]));
    for many in [2, 6] {
        assert_eq!(with_nodes(650, &|view| unknown(view, many)), Ok(vec!["insufficient_cpu"]));
    }
    assert_eq!(with_nodes(650, &|view| view.pods.clear()), Ok(vec!["insufficient_cpu"]));
    assert_eq!(with_nodes(0, &|_| {}), Ok(vec!["insufficient_cpu"]), "nodes that tell of no CPU");
}

/// Services with so many endpoints in the zone, which serve a thousand requests each, and two in `zone-c`, which do so too:
/// all of them move there.
fn crowded(services: &[(&str, usize)]) -> World {
    let mut world = World::new();
    world.cluster().pods.clear();
    for (name, here) in services {
        world.cluster().services.insert(ServiceId::new("default", *name), Service::default());
        (0..*here).for_each(|nth| add_pod(world.cluster(), name, &zone('b'), nth));
        (0..2).for_each(|nth| add_pod(world.cluster(), name, &zone('c'), nth));
        let cell = |total: f64| Cell { served: Calls { total, failed: 0.0 }, ..Cell::default() };
        let cells = [(zone('b'), cell(1000.0 * *here as f64)), (zone('c'), cell(2000.0))].into();
        world.snapshot.cells.insert(ServiceId::new("default", *name), cells);
    }
    world
}

#[test]
fn of_services_that_would_be_overloaded_the_one_that_would_be_most_is_named() {
    let named = |services: &[(&str, usize)]| match crowded(services).admit(0) {
        Err(HoldReason::InsufficientHeadroom { service, growth, .. }) => Some((service.name, growth)),
        _ => None,
    };
    assert_eq!(named(&[("web", 3)]), None, "just as many times as are allowed");
    assert_eq!(named(&[("web", 4)]), Some(("web".to_owned(), 3.0)));
    assert_eq!(named(&[("api", 4), ("web", 6)]), Some(("web".to_owned(), 4.0)));
    assert_eq!(named(&[("api", 6), ("web", 4)]), Some(("api".to_owned(), 4.0)));
    assert_eq!(named(&[("api", 4), ("web", 4)]), Some(("api".to_owned(), 3.0)));
}

#[test]
fn what_does_not_move_or_has_nowhere_to_go_overloads_nobody() {
    let mut world = crowded(&[("web", 6)]);
    assert_eq!(world.held(), "insufficient_headroom");
    world.cluster().pods.values_mut().filter(|pod| pod.zone == Some(zone('b'))).for_each(|pod| {
        pod.exempt = Some("it says so".to_owned());
    });
    assert_eq!(world.held(), "admitted", "its pods are left alone");

    let mut world = crowded(&[("web", 6)]);
    world.snapshot.cells.values_mut().for_each(|cells| {
        let served = cells.remove(&zone('b')).unwrap();
        cells.insert(zone('a'), served);
    });
    assert_eq!(world.held(), "admitted", "its pods in the zone serve nobody");

    let mut world = crowded(&[("web", 6)]);
    world.request.overrides.insert("unreachable_service".to_owned());
    world.cluster().pods.retain(|_, pod| pod.zone == Some(zone('b')));
    assert_eq!(world.held(), "admitted", "nobody is left to be overloaded");

    let mut world = crowded(&[("web", 6)]);
    world.settings.max_isolated_zones = 2;
    world.past_isolation('a', -100, None);
    (0..6).for_each(|nth| add_pod(world.cluster(), "web", &zone('a'), nth));
    assert_eq!(world.held(), "insufficient_headroom", "a zone that is out already bears nothing");
}

#[test]
fn nodes_that_are_left_must_have_the_cpu_for_pods_without_limits() {
    let mut world = World::new();
    let with_nodes = |world: &mut World, cpu: Option<u64>| {
        busy(world, 610, [3000.0; 3]);
        world.cluster().pods.values_mut().for_each(|pod| pod.cpu_limit = None);
        world.cluster().nodes.values_mut().for_each(|node| node.cpu = cpu);
    };
    with_nodes(&mut world, Some(700));
    assert_eq!(world.admit(0), Ok(vec![]), "3.7 of 4.2 cores");
    with_nodes(&mut world, Some(650));
    assert!(
        world
            .admit(0)
            .unwrap_err()
            .to_string()
            .starts_with("the nodes that are left would use 94 % of their CPU, 63 %")
    );
    world.cluster().nodes.get_mut("zone-a-1").unwrap().available = false;
    assert!(world.admit(0).unwrap_err().to_string().starts_with("the nodes that are left would use 113 %"));
    with_nodes(&mut world, None);
    assert_eq!(world.admit(0), Ok(vec!["insufficient_cpu"]), "nobody knows what there is");
}

#[test]
fn cpu_that_is_not_known_or_was_measured_long_ago_is_not_judged_and_that_is_said() {
    let mut world = World::new();
    busy(&mut world, 990, [3000.0; 3]);
    world.cluster().cpu_use = None;
    assert_eq!(world.admit(0), Ok(vec!["insufficient_cpu"]));
    busy(&mut world, 990, [3000.0; 3]);
    let old = CpuUse { seen_at: at(-301), pods: world.cluster().cpu_use.as_ref().unwrap().pods.clone() };
    world.cluster().cpu_use = Some(Arc::new(old));
    assert_eq!(world.admit(0), Ok(vec!["insufficient_cpu"]));
    busy(&mut world, 990, [3000.0; 3]);
    world.cluster().pods.values_mut().next().unwrap().cpu_limit = None;
    assert_eq!(world.admit(0), Ok(vec!["insufficient_cpu"]), "one without a limit may use any");
    world.settings.max_cpu = None;
    assert_eq!(world.admit(0), Ok(vec![]), "it was not asked for");
}

#[test]
fn each_workload_may_have_its_own_policy_and_the_last_one_that_names_it_counts() {
    let mut world = World::new();
    for name in ["web", "batch"] {
        let id = WorkloadId { namespace: "default".into(), kind: "Deployment".into(), name: name.into() };
        let pinned = [(zone('b'), (1, "its nodeSelector".to_owned()))].into();
        world.cluster().workloads.insert(id, Workload { pinned, ..Workload::default() });
    }
    let mut said = |policies: &[(&str, Policy)]| {
        let of = |(matches, policy): &(&str, Policy)| PolicyOf { matches: matches.parse().unwrap(), policy: *policy };
        world.settings.capacity_traps_of = policies.iter().map(of).collect();
        world.pass(0).map(|passed| passed.warnings.iter().map(ToString::to_string).collect::<String>())
    };
    let both = said(&[]).unwrap();
    assert!(both.contains("default/web") && both.contains("default/batch"), "{both}");
    let ignored = said(&[("default/batch", Policy::Ignore)]).unwrap();
    assert!(ignored.contains("default/web") && !ignored.contains("batch"), "{ignored}");
    let held = said(&[("*/*", Policy::Ignore), ("*/web", Policy::Hold)]).unwrap_err();
    assert!(held.to_string().starts_with("Deployment default/web: 1 of its pods"), "{held}");
    let held = said(&[("*/web", Policy::Hold)]).unwrap_err();
    assert!(held.to_string().starts_with("Deployment default/web: 1 of its pods"), "what holds comes first: {held}");
}

#[test]
fn node_pools_that_go_on_buying_in_the_zone_are_named() {
    let mut world = World::new();
    world.cluster().nodes.get_mut("zone-c-0").unwrap().karpenter_pool = Some("spot".to_owned());
    assert!(world.pass(0).unwrap().warnings.is_empty());
    world.cluster().nodes.get_mut("zone-b-0").unwrap().karpenter_pool = Some("general".to_owned());
    let said = world.pass(0).unwrap().warnings[0].to_string();
    assert!(
        said.starts_with("node pools of Karpenter that go on buying in zone-b,") && said.contains(": general ("),
        "{said}"
    );
    world.settings.taints_nodes = false;
    assert!(world.pass(0).unwrap().warnings.is_empty(), "an isolation that does not mind new pods does not mind nodes");
}
