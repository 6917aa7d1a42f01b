//! What is shown of guardrails is what they do.

use super::capacity::busy;
use super::*;
use crate::domain::overview::{Answer, GuardrailState, Ruling};

/// Whatever a request is met with, the page says beforehand.
pub(super) fn agrees(
    situation: &Situation<'_>,
    request: &Request,
    settings: &Settings,
    now: Timestamp,
    admitted: &Result<Passed, HoldReason>,
) {
    let answer = match request.origin {
        Origin::Detector => 0,
        Origin::Operator => 1,
        Origin::Drill => return,
    };
    if !request.overrides.is_empty() || request.expires_after != Period::from_hours(1) || !situation.leads {
        return;
    }
    let (_, answers) = super::super::standing(situation, &request.zone, settings, now);
    let why = admitted.as_ref().err().map(ToString::to_string);
    assert_eq!((answers[answer].admitted, &answers[answer].why), (why.is_none(), &why));
}

/// As a replica says it that does not lead.
fn stands(world: &World) -> (Vec<GuardrailState>, [Answer; 2]) {
    let situation = Situation {
        snapshot: &world.snapshot,
        assessment: &world.assessment,
        cluster: world.snapshot.cluster.as_ref(),
        isolations: &world.isolations,
        holds: &world.holds,
        pause: &world.pause,
        silences: &world.silences,
        leads: false,
        acts: world.acts,
    };
    super::super::standing(&situation, &zone('b'), &world.settings, at(3))
}

fn states(world: &World) -> BTreeMap<String, (Ruling, String)> {
    stands(world).0.into_iter().map(|state| (state.name, (state.ruling, state.says))).collect()
}

#[test]
fn what_passes_tells_its_value_and_what_it_needs() {
    let mut world = World::new();
    let cells = |requests: f64| {
        let cell = Cell { served: Calls { total: requests, failed: 0.0 }, ..Cell::default() };
        ['a', 'b', 'c'].map(|letter| (zone(letter), cell.clone())).into()
    };
    world.snapshot.cells.insert(ServiceId::new("default", "web"), cells(3_000.0));
    let states = states(&world);
    for (name, says) in [
        ("paused", "it is not paused"),
        ("unseen_cluster", "it is seen"),
        ("unknown_zone", "3 nodes are in it"),
        ("stale_data", "3 s old, and up to 1m will do"),
        ("no_fault", "it alone is worse"),
        ("operator_hold", "no person holds it"),
        ("blocked_window", "none is open, of 0"),
        ("planned_maintenance", "no Alertmanager is asked (guard.silences)"),
        ("regional_fault", "no other zone got worse with it"),
        ("zones_out_by_others", "out: none; allowed: 1"),
        ("unreachable_service", "each has at least 1 ready endpoints elsewhere"),
        ("capacity_trap", "none is known"),
        ("cooling_down", "not within 15m of an isolation"),
        ("another_zone_isolated", "out: none; allowed: 1"),
        ("too_few_healthy_zones", "2 healthy would be left, and 1 must"),
        (
            "insufficient_headroom",
            "at most 1.5 times the requests, for endpoints of default/web; up to 2.5 times will do",
        ),
        ("insufficient_cpu", "it is not asked about (guard.max_cpu)"),
        ("budget_spent", "0 of 3 of this zone in 24 h; 0 of 6 of all zones in 24 h"),
    ] {
        assert_eq!(states[name], (Ruling::Passes, says.to_owned()), "{name}");
    }
    assert!(!states.contains_key("not_leader"), "it is of the replica, and not of the zone");
}

#[test]
fn what_is_only_rehearsed_is_not_called_out() {
    let mut world = World::new();
    world.past_isolation('a', 0, None);
    let name = "another_zone_isolated";
    assert!(states(&world)[name].1.contains("a is out already, and at most 1 may be"));
    world.acts = false;
    assert!(states(&world)[name].1.contains("a would be out already, and at most 1 may be"));
    world.settings.max_isolated_zones = 2;
    assert_eq!(states(&world)[name].1, "would be out: zone-a; allowed: 2");
    world.acts = true;
    assert_eq!(states(&world)[name].1, "out: zone-a; allowed: 2");
}

#[test]
fn what_holds_and_what_is_not_known_say_so() {
    let mut world = World::new();
    world.pause = Pause::On { since: at(0), until: None, why: "release".to_owned() };
    world.settings.min_healthy_zones = 3;
    let held = states(&world);
    assert_eq!(held["paused"].0, Ruling::Holds);
    assert!(held["paused"].1.contains("release"));
    let too_few = "2 healthy zones would be left, and 3 must (guard.min_healthy_zones)";
    assert_eq!(held["too_few_healthy_zones"], (Ruling::Holds, too_few.to_owned()));
    world.snapshot.cluster = None;
    let unseen = states(&world);
    assert_eq!(unseen["insufficient_headroom"].0, Ruling::NotEvaluated);
    assert_eq!(unseen["unseen_cluster"].0, Ruling::Holds);
}

#[test]
fn what_is_only_counted_at_times_is_told_when_it_is() {
    let says = |world: &World, name: &str| states(world)[name].clone();
    let mut world = World::new();
    busy(&mut world, 580, [3000.0; 3]);
    let cpu = "the endpoints of default/web that are left would use 87 % of their CPU, 58 % now; up to 90 % will do";
    assert_eq!(says(&world, "insufficient_cpu"), (Ruling::Passes, cpu.to_owned()));
    let quiet = "no service is busy enough to overload another zone";
    busy(&mut world, 590, [199.0; 3]);
    assert_eq!(says(&world, "insufficient_headroom"), (Ruling::Passes, quiet.to_owned()));
    busy(&mut world, 590, [200.0; 3]);
    let busiest = "at most 1.0 times the requests, for endpoints of default/web; up to 2.5 times will do";
    assert_eq!(says(&world, "insufficient_headroom"), (Ruling::Passes, busiest.to_owned()));

    world.settings.silences = Some(serde_json::from_str(r#"{"alertmanager": "http://alertmanager:9093"}"#).unwrap());
    world.silences.seen_at = Some(at(0));
    assert_eq!(says(&world, "planned_maintenance"), (Ruling::Passes, "no silence names it".to_owned()));
    (world.snapshot.cluster, world.acts) = (None, false);
    assert_eq!(says(&world, "unseen_cluster"), (Ruling::Passes, "not needed to rehearse".to_owned()));
}

#[test]
fn whoever_is_asked_answers_for_the_replica_that_acts_and_says_what_a_person_may_do() {
    let mut world = World::new();
    let (_, [own, by_hand]) = stands(&world);
    assert!(own.admitted && by_hand.admitted);
    world.assessment.zones.insert(zone('b'), Finding::healthy());
    world.settings.min_healthy_zones = 3;
    let (states, [own, by_hand]) = stands(&world);
    assert_eq!((own.held_by.as_deref(), by_hand.held_by.as_deref()), (Some("no_fault"), Some("too_few_healthy_zones")));
    let passes = |name: &str| states.iter().find(|state| state.name == name).unwrap().person_passes;
    assert!(passes("no_fault") && !passes("too_few_healthy_zones"));
}
