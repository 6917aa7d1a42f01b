//! The families that `make evaluate` measures on.

#[allow(dead_code, reason = "shared with the benchmark")]
#[path = "../../benches/evaluate/family.rs"]
mod family;

use family::Family;

use crate::support::root;

#[test]
fn every_family_of_the_evaluation_can_be_read() {
    let families = Family::read_all(&root().join("config/scenarios/evaluation")).unwrap();
    assert!(families.len() >= 40, "only {} families", families.len());
    assert!(families.iter().any(|family| family.name == "healthy-day"));
    assert!(families.iter().all(|family| !family.title.is_empty()));
}

#[test]
fn what_a_family_may_not_say_is_refused() {
    let good = std::fs::read_to_string(root().join("config/scenarios/evaluation/severe-errors.yaml")).unwrap();
    let cases = [
        ("errors: 20%", "error: 20%"),
        ("errors: 20%", "errors: 20"),
        ("zones: [a]", "zones: [d]"),
        ("services: [mockb, mockc]", "services: [mockx]"),
        ("until: 25m", "until: 5m"),
        ("expect: isolate a", "expect: isolate"),
        ("60/s", "60"),
    ];
    for (right, wrong) in cases {
        assert!(Family::parse("it", &good.replace(right, wrong)).is_err(), "{wrong}");
    }
}
