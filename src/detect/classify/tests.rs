use super::*;

/// By service: the pod that explains it, the node that does, and how many new pods of how many.
type By = (Option<&'static str>, Option<&'static str>, Option<(u32, u32)>);

fn explained(services: &[By]) -> Explained {
    let mut explained = Explained::default();
    let owned = |name: &str| name.to_owned();
    services.iter().for_each(|(pod, node, new)| explained.add(pod.map(owned), node.map(owned), *new));
    explained
}

#[test]
fn what_explains_every_service_is_said_and_a_roll_out_first() {
    let verdict = |services: &[By]| explained(services).verdict();
    assert_eq!(verdict(&[(Some("a"), None, None)]), Some(Verdict::InstanceFault { pod: "a".into() }));
    assert_eq!(
        verdict(&[(Some("a"), Some("n"), None), (None, Some("n"), None)]),
        Some(Verdict::NodeFault { node: "n".into() })
    );
    assert_eq!(
        verdict(&[(Some("a"), Some("n"), Some((1, 3))), (None, None, Some((2, 4)))]),
        Some(Verdict::RolloutInProgress { new_pods: 3, pods: 7 })
    );
    assert_eq!(verdict(&[]), None);
}

#[test]
fn what_explains_one_service_alone_explains_nothing() {
    let none: By = (None, None, None);
    for other in [none, (None, Some("m"), None)] {
        for one in [(Some("a"), None, None), (None, Some("n"), None), (None, None, Some((1, 3)))] {
            let both = explained(&[one, other]);
            assert!(both.by_nothing(), "{one:?} and {other:?}");
            assert_eq!(both.verdict(), None);
        }
    }
    assert!(!explained(&[(Some("a"), None, None)]).by_nothing());
    assert!(!explained(&[(None, Some("n"), None); 2]).by_nothing());
    assert!(!explained(&[(None, None, Some((1, 3))); 2]).by_nothing());
}
