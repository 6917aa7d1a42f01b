//! What is shown of guardrails is what they do.

use super::*;
use crate::domain::overview::Ruling;

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

fn states(world: &World) -> BTreeMap<String, (Ruling, String)> {
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
    let (states, _) = super::super::standing(&situation, &zone('b'), &world.settings, at(3));
    states.into_iter().map(|state| (state.name, (state.ruling, state.says))).collect()
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
        ("stale_data", "3 s old, and up to 1m will do"),
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
