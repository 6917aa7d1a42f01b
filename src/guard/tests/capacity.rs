//! What is left, and has to bear it.

use std::sync::Arc;

use super::settings::PolicyOf;
use super::*;
use crate::domain::Ratio;
use crate::domain::cluster::CpuUse;

/// Each endpoint of `default/web` may use a core; those elsewhere use so much of it, and get so many of all requests.
fn busy(world: &mut World, used: u64, requests: [f64; 3]) {
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
