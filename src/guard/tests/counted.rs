//! Who and what counts, where more than one may.

use super::*;

#[test]
fn all_that_was_said_is_kept_and_of_zonewards_own_wishes_what_was_counted() {
    let mut world = World::new();
    let mut said = |origin| {
        world.request.origin = origin;
        let said = world.pass(0).unwrap().said;
        assert_eq!(said.len(), GUARDRAILS.len());
        said.into_iter().find(|Said(name, _, _)| name == "budget_spent").unwrap()
    };
    let own = "0 of 3 of this zone in 24 h; 0 of 6 of all zones in 24 h".to_owned();
    assert_eq!(said(Origin::Detector), Said("budget_spent".to_owned(), GuardrailSaid::Passed, own));
    assert_eq!(said(Origin::Operator), Said("budget_spent".to_owned(), GuardrailSaid::Passed, String::new()));
}

#[test]
fn nobody_may_ask_for_more_than_three_days() {
    let mut world = World::new();
    world.request.expires_after = Period::from_hours(72);
    assert_eq!(world.held(), "admitted");
    world.request.expires_after = Period::from_secs(72 * 3600 + 1);
    assert_eq!(world.held(), "invalid");
}

#[test]
fn data_from_the_future_is_no_newer() {
    let world = World::new();
    assert!(world.admit(-60).is_ok(), "clocks differ a little");
    let held = world.admit(-61).unwrap_err().to_string();
    assert!(held.contains("it is of 61 s from now: the clock was set back"), "{held}");
}

#[test]
fn a_drill_waits_until_every_zone_is_healthy() {
    let mut world = World::new();
    world.request.origin = Origin::Drill;
    assert_eq!(world.admit(0), Err(HoldReason::UnhealthyZones { zones: vec![zone('b')] }));
    world.assessment.zones.insert(zone('b'), Finding::healthy());
    assert_eq!(world.held(), "admitted");
}

#[test]
fn only_a_regional_fault_that_lasts_in_another_zone_holds() {
    let mut world = World::new();
    let mut with = |letter, verdict: Verdict, persistent| {
        let zones = &mut world.assessment.zones;
        let before = zones.insert(zone(letter), Finding { verdict, persistent, ..Finding::healthy() }).unwrap();
        let held = world.held();
        world.assessment.zones.insert(zone(letter), before);
        held
    };
    assert_eq!(with('c', Verdict::RegionalFault, true), "regional_fault");
    assert_eq!(with('c', Verdict::RegionalFault, false), "admitted");
    assert_eq!(with('c', Verdict::Healthy, true), "admitted");
    assert_eq!(with('b', Verdict::RegionalFault, true), "no_fault");
}

#[test]
fn what_no_person_approved_or_what_has_ended_is_not_about_to_begin() {
    let mut world = World::new();
    world.past_isolation('a', -10, None);
    world.isolations[0].admission = Admission::Pending;
    assert_eq!(world.held(), "another_zone_isolated");
    world.isolations[0].spec.approved = false;
    assert_eq!(world.held(), "admitted");
    (world.isolations[0].spec.approved, world.isolations[0].restored_at) = (true, Some(at(-5)));
    assert_eq!(world.held(), "admitted");
}

#[test]
fn of_four_zones_the_two_that_are_neither_out_nor_unseen_are_left() {
    let four = || {
        let mut world = World::new();
        world.assessment.zones.insert(zone('d'), Finding::healthy());
        (world.settings.max_isolated_zones, world.settings.min_healthy_zones) = (3, 2);
        world
    };
    let mut out = four();
    out.past_isolation('a', -100, None);
    assert_eq!(out.held(), "admitted");
    out.settings.min_healthy_zones = 3;
    assert_eq!(out.admit(0), Err(HoldReason::TooFewHealthyZones { healthy: 2, needed: 3 }));
    let mut unseen = four();
    unseen.snapshot.gaps.push(Gap::ScrapesLost { zone: zone('a'), coverage: Default::default() });
    assert_eq!(unseen.held(), "admitted");
    unseen.settings.min_healthy_zones = 3;
    assert_eq!(unseen.held(), "too_few_healthy_zones");
}

#[test]
fn drills_are_in_the_way_of_drills_alone_and_what_was_refused_of_nothing() {
    let mut world = World::new();
    world.past_isolation('b', -4000, Some(-60));
    world.isolations[0].spec.origin = Origin::Drill;
    assert_eq!(world.held(), "admitted");
    world.assessment.zones.insert(zone('b'), Finding::healthy());
    world.request.origin = Origin::Drill;
    assert_eq!(world.held(), "cooling_down");
    world.isolations[0].admission = Admission::Refused(HoldReason::NotApproved);
    assert_eq!(world.held(), "admitted");

    let mut world = World::new();
    world.past_isolation('b', -4000, Some(-60));
    world.isolations[0].admission = Admission::Refused(HoldReason::NotApproved);
    assert_eq!(world.held(), "admitted", "it took nothing out");
}
