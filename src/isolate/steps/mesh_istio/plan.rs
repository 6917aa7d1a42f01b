//! Which pods to drain: all of the zone's that may be, less a share, and never below a floor elsewhere. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::cluster::{ClusterView, Draining, Pod, PodId};
use crate::domain::{ServiceId, Share, Zone};

/// What is to become of the zone's pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainPlan {
    /// Those that are to carry the label in the end.
    pub drained: BTreeSet<PodId>,
    /// Of these, those that lack it.
    pub to_drain: BTreeSet<PodId>,
    /// Those that carry it, and are not to.
    pub to_return: BTreeSet<PodId>,
    /// Those that are left alone, and why.
    pub kept: BTreeMap<PodId, String>,
}

/// Every pod of the zone that callers reach by a balanced service, but for
/// - those that are exempt, or that others drain;
/// - those of a service with fewer ready endpoints elsewhere than the floor: all of them, as one of many would not bear it;
/// - a share of each service's pods, the same ones each time.
pub fn drain_plan(view: &ClusterView, zone: &Zone, share: Share, min_ready_elsewhere: u32) -> DrainPlan {
    let short = view.services_short_elsewhere(zone, min_ready_elsewhere);
    let mut plan = DrainPlan::default();
    let mut groups: BTreeMap<Vec<&ServiceId>, Vec<(&PodId, &Pod)>> = BTreeMap::new();
    for (id, pod) in view.pods.iter().filter(|(_, pod)| pod.zone.as_ref() == Some(zone)) {
        let balanced: Vec<&ServiceId> = pod.services.iter().filter(|service| view.balanced(service)).collect();
        match why_kept(pod, &balanced, &short, min_ready_elsewhere) {
            Some(why) => plan.keep(id, pod, why),
            None => groups.entry(balanced).or_default().push((id, pod)),
        }
    }
    for mut pods in groups.into_values() {
        pods.sort_by(|a, b| spread(&a.1.uid).cmp(&spread(&b.1.uid)));
        let keep = (share.as_fraction() * pods.len() as f64).ceil() as usize;
        for (nth, (id, pod)) in pods.into_iter().enumerate() {
            if nth < keep {
                plan.keep(id, pod, format!("it serves the zone's share of {share}"));
                continue;
            }
            plan.drained.insert(id.clone());
            if pod.draining == Draining::No {
                plan.to_drain.insert(id.clone());
            }
        }
    }
    plan
}

fn why_kept(
    pod: &Pod,
    balanced: &[&ServiceId],
    short: &BTreeMap<&ServiceId, u32>,
    min_ready_elsewhere: u32,
) -> Option<String> {
    if pod.draining == Draining::Others {
        return Some("others drain it".to_owned());
    }
    if let Some(why) = &pod.exempt {
        return Some(why.clone());
    }
    if balanced.is_empty() {
        let headless = !pod.services.is_empty();
        return Some(if headless { "only headless services name it" } else { "no service names it" }.to_owned());
    }
    let (service, ready) = balanced.iter().find_map(|service| short.get_key_value(*service))?;
    Some(format!("{ready} endpoints of {service} are ready elsewhere, and {min_ready_elsewhere} must be"))
}

impl DrainPlan {
    fn keep(&mut self, id: &PodId, pod: &Pod, why: String) {
        if matches!(pod.draining, Draining::Ours(_)) {
            self.to_return.insert(id.clone());
        }
        self.kept.insert(id.clone(), why);
    }
}

/// FNV-1a: an order that has nothing to do with names, and is always the same.
fn spread(uid: &str) -> (u64, &str) {
    let hash = uid
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash, uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cluster::Service;

    fn zone(letter: char) -> Zone {
        Zone::new(format!("zone-{letter}"))
    }

    fn service(name: &str) -> ServiceId {
        ServiceId::new("default", name)
    }

    fn id(name: &str) -> PodId {
        PodId { namespace: "default".to_owned(), name: name.to_owned() }
    }

    /// So many ready pods of `web` in each of two zones, and `cron`, which no service names.
    fn view(pods: usize) -> ClusterView {
        let mut view = ClusterView::default();
        view.services.insert(service("web"), Service::default());
        view.services.insert(service("peers"), Service { headless: true });
        for letter in ['a', 'b'] {
            for i in 0..pods {
                let name = format!("web-{letter}-{i}");
                let pod = Pod {
                    uid: name.clone(),
                    zone: Some(zone(letter)),
                    ready: true,
                    services: [service("web"), service("peers")].into(),
                    ..Pod::default()
                };
                view.pods.insert(id(&name), pod);
            }
        }
        view.pods.insert(id("cron"), Pod { zone: Some(zone('b')), ..Pod::default() });
        view
    }

    fn pod<'a>(view: &'a mut ClusterView, name: &str) -> &'a mut Pod {
        view.pods.get_mut(&id(name)).unwrap()
    }

    fn plan(view: &ClusterView, percent: u8) -> DrainPlan {
        drain_plan(view, &zone('b'), Share::percent(percent), 1)
    }

    #[test]
    fn every_served_pod_of_the_zone_is_drained_and_no_other() {
        let plan = plan(&view(3), 0);
        assert_eq!(plan.to_drain, ["web-b-0", "web-b-1", "web-b-2"].map(id).into());
        assert_eq!(plan.kept.keys().cloned().collect::<Vec<_>>(), [id("cron")], "no service names it");
    }

    #[test]
    fn a_share_keeps_the_same_pods_each_time_and_fewer_are_a_part_of_more() {
        let view = view(20);
        let drained = |percent| plan(&view, percent).drained;
        assert_eq!([0, 5, 25, 50, 100].map(|p| drained(p).len()), [20, 19, 15, 10, 0]);
        assert!(drained(50).is_subset(&drained(25)) && drained(25).is_subset(&drained(5)));
        assert_eq!(drained(25), drained(25));
    }

    #[test]
    fn a_service_that_is_not_ready_elsewhere_is_left_whole() {
        let mut view = view(3);
        for i in 0..3 {
            pod(&mut view, &format!("web-a-{i}")).ready = false;
        }
        let plan = plan(&view, 0);
        assert!(plan.drained.is_empty(), "{plan:?}");
        assert!(plan.kept[&id("web-b-0")].contains("0 endpoints of default/web are ready elsewhere"));
    }

    #[test]
    fn pods_that_are_drained_are_given_back_when_too_few_are_left_elsewhere() {
        let mut view = view(2);
        pod(&mut view, "web-b-0").draining = Draining::Ours(zone('b'));
        assert_eq!(plan(&view, 0).to_drain, [id("web-b-1")].into());
        for i in 0..2 {
            pod(&mut view, &format!("web-a-{i}")).ready = false;
        }
        assert_eq!(plan(&view, 0).to_return, [id("web-b-0")].into());
    }

    #[test]
    fn what_is_exempt_or_drained_by_others_is_left_alone() {
        let mut view = view(3);
        pod(&mut view, "web-b-0").exempt = Some("it says so".to_owned());
        pod(&mut view, "web-b-1").draining = Draining::Others;
        let plan = plan(&view, 0);
        assert_eq!(plan.to_drain, [id("web-b-2")].into());
        assert!(plan.to_return.is_empty(), "others' label is not ours to take off");
    }

    #[test]
    fn a_newcomer_is_drained_before_it_is_ready() {
        let mut view = view(1);
        pod(&mut view, "web-b-0").ready = false;
        assert_eq!(plan(&view, 0).to_drain, [id("web-b-0")].into());
    }

    #[test]
    fn pods_that_only_headless_services_name_are_left_alone() {
        let mut view = view(1);
        pod(&mut view, "web-b-0").services = [service("peers")].into();
        assert_eq!(plan(&view, 0).kept[&id("web-b-0")], "only headless services name it");
    }
}
