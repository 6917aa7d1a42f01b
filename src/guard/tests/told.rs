//! What people say, and want said.

use super::*;

#[test]
fn a_pause_holds_everybody_and_so_does_one_that_cannot_be_read() {
    let mut world = World::new();
    world.pause = Pause::On { since: at(-60), until: Some(at(3600)), why: "release".into() };
    for origin in [Origin::Detector, Origin::Operator] {
        world.request.origin = origin;
        let held = world.admit(0).unwrap_err();
        assert_eq!(held.as_str(), "paused");
        assert!(held.to_string().contains("until 2027-01-15T09:00:00Z: release; `zoneward resume`"), "{held}");
    }
    world.request.overrides = ["paused".to_owned()].into();
    assert_eq!(world.held(), "invalid", "whoever wants to act resumes");
    world.request.overrides.clear();
    world.pause = Pause::Unknown { why: "configmaps can't be watched".into() };
    assert_eq!(world.held(), "paused");
    world.pause = Pause::Off;
    assert_eq!(world.held(), "admitted");
}

#[test]
fn a_blocked_window_holds_the_detector_unless_a_person_says_otherwise() {
    let mut world = World::new();
    // 2027-01-15 at 08:00 UTC is a Friday.
    let windows = r#"[{"days": ["fri"], "from": "15:30", "to": "16:30", "time_zone": "Asia/Shanghai", "why": "release"},
        {"from": "07:00", "to": "09:00", "why": "opening of the market"}]"#;
    world.settings.blocked_windows = serde_json::from_str(windows).unwrap();
    let held = world.admit(0).unwrap_err();
    assert_eq!(held.as_str(), "blocked_window");
    assert!(held.to_string().contains("until 2027-01-15T09:00:00Z: opening of the market"), "{held}");
    assert_eq!(world.admit(3_600).unwrap_err().as_str(), "stale_data", "the window is over");
    world.request.overrides = ["blocked_window".to_owned()].into();
    assert_eq!(world.held(), "admitted");
    world.request.overrides.clear();
    world.request.origin = Origin::Operator;
    assert_eq!(world.held(), "admitted", "a person knows what time it is");
}

#[test]
fn maintenance_that_was_announced_holds_the_detector_in_its_zone_while_it_lasts() {
    let silence = |zones: SilencedZones, ends_s: i64| Silence {
        id: "7f1c".into(),
        by: "ops".into(),
        why: "disks are replaced".into(),
        starts_at: at(-60),
        ends_at: at(ends_s),
        zones,
    };
    let mut world = World::new();
    world.silences.of_zones = vec![silence(SilencedZones::One(zone('b')), 600)];
    assert_eq!(world.held(), "admitted", "nobody is to be asked (guard.silences)");
    world.settings.silences = Some(serde_json::from_str(r#"{"alertmanager": "http://alertmanager:9093"}"#).unwrap());
    let held = world.admit(0).unwrap_err();
    assert_eq!(held.as_str(), "planned_maintenance");
    assert!(held.to_string().contains("by ops: disks are replaced (silence 7f1c of"), "{held}");
    world.request.origin = Origin::Operator;
    assert_eq!(world.held(), "admitted", "who works on a zone may isolate it");
    world.request.origin = Origin::Detector;

    world.silences.of_zones = vec![silence(SilencedZones::One(zone('b')), 0)];
    assert_eq!(world.admit(0), Ok(vec!["planned_maintenance"]), "it is over, and no newer ones are known");
    world.silences.seen_at = Some(at(0));
    assert_eq!(world.admit(0), Ok(vec![]));

    let by = |text: &str| vec![silence(SilencedZones::pattern(text).unwrap(), 600)];
    world.silences.of_zones = by("zone-[ab]");
    assert_eq!(world.held(), "planned_maintenance");
    for others in ["zone-[ac]", "b", "zone"] {
        world.silences.of_zones = by(others);
        assert_eq!(world.held(), "admitted", "{others} is not the whole name");
    }
    assert!(SilencedZones::pattern(".*").is_none(), "it also matches alerts of no zone at all");
}

#[test]
fn what_would_strand_new_pods_is_said_or_holds_as_is_wanted() {
    let id = WorkloadId { namespace: "default".into(), kind: "Deployment".into(), name: "web".into() };
    let spread = |counts_tainted_nodes, min_domains| Workload {
        pods: ['a', 'b', 'c'].map(|letter| (zone(letter), 2)).into(),
        spread: Some(ZoneSpread { max_skew: 1, min_domains, counts_tainted_nodes }),
        ..Workload::default()
    };
    let said = |workload: Workload| {
        let mut world = World::new();
        world.cluster().workloads.insert(id.clone(), workload);
        world.pass(0).unwrap().warnings.iter().map(ToString::to_string).collect::<String>()
    };
    let strict = said(spread(true, 1));
    assert!(
        strict.starts_with("Deployment default/web: spread strictly over zones (maxSkew 1), 2 new pods fit"),
        "{strict}"
    );
    assert_eq!(said(spread(false, 1)), "", "with nodeTaintsPolicy: Honor the zone counts no more");
    assert!(
        said(spread(false, 3)).contains("0 new pods fit elsewhere, and more stay pending (minDomains 3, of which 2")
    );
    assert_eq!(said(Workload { tolerates_taint: true, ..spread(true, 1) }), "", "it goes to the zone all the same");
    let counted = said(spread(true, 3));
    assert!(
        counted.contains("2 new pods fit") && counted.contains("nodeTaintsPolicy"),
        "three zones are enough: {counted}"
    );
    let elsewhere = [(zone('a'), 3), (zone('b'), 0), (zone('c'), 3)].into();
    assert_eq!(said(Workload { pods: elsewhere, ..spread(true, 1) }), "", "it is not in the zone");
    let volume = "the volume of its PersistentVolumeClaim data".to_owned();
    let pinned = Workload { pinned: [(zone('b'), (1, volume))].into(), ..Workload::default() };
    assert!(said(pinned.clone()).contains("1 of its pods can be in zone-b alone, by the volume of its"));

    let mut world = World::new();
    world.cluster().workloads.insert(id, pinned);
    world.settings.capacity_traps = Policy::Hold;
    assert_eq!(world.held(), "capacity_trap");
    world.request.overrides = ["capacity_trap".to_owned()].into();
    assert_eq!(world.held(), "admitted");
    world.request.overrides.clear();
    world.settings.capacity_traps = Policy::Ignore;
    let passed = world.pass(0).unwrap();
    assert_eq!((passed.not_evaluated, passed.warnings), (Vec::new(), Vec::new()));

    // A budget alone never holds.
    world.settings.capacity_traps = Policy::Hold;
    world.cluster().workloads.clear();
    world.cluster().unread = Some("persistentvolumes can't be read".into());
    assert_eq!(world.admit(0), Ok(vec!["capacity_trap"]));
    world.cluster().disruption_budgets.insert(ServiceId::new("default", "web"), [(zone('b'), 2)].into());
    let warned = world.pass(0).unwrap().warnings[0].to_string();
    let named = "count the drained pods, so drain no nodes elsewhere meanwhile: default/web (guard.capacity_traps)";
    assert!(warned.ends_with(named), "{warned}");
    for nth in 0..21 {
        let budget = ServiceId::new("default", format!("web-{nth:02}"));
        world.cluster().disruption_budgets.insert(budget, [(zone('b'), 1)].into());
    }
    let warned = world.pass(0).unwrap().warnings[0].to_string();
    assert!(warned.contains("web-18, and 2 more"), "{warned}");
    world.cluster().disruption_budgets = [(ServiceId::new("default", "web"), [(zone('b'), 0)].into())].into();
    assert_eq!(world.admit(0), Ok(vec!["capacity_trap"]), "it counts no pod of the zone");
}

#[test]
fn all_zones_together_have_a_budget_and_a_person_resets_it() {
    let mut world = World::new();
    world.settings.max_isolations_per_day_of_all = 3;
    for (letter, hours) in [('a', 20), ('c', 10), ('b', 5)] {
        world.past_isolation(letter, -hours * 3600, Some(-hours * 3600 + 600));
    }
    let held = world.admit(0).unwrap_err();
    assert_eq!(held, HoldReason::BudgetSpent { isolations: 3, allowed: 3, of_all: true });
    assert!(held.to_string().contains("`zoneward acknowledge --all`"), "{held}");
    world.request.overrides = ["budget_spent".to_owned()].into();
    assert_eq!(world.held(), "admitted");
    world.request.overrides.clear();
    world.isolations[0].acknowledged_at = Some(at(0));
    assert_eq!(world.held(), "admitted");
}
