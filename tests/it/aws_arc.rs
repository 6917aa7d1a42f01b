//! AWS zonal shifts against a server of the tests' own, that keeps to the service model and checks every signature. Not
//! verified on a live account.

use std::sync::Arc;

use aws_sdk_arczonalshift::config::{Credentials, SharedCredentialsProvider};
use serde_json::{Value, json};
use zoneward::domain::cluster::Node;
use zoneward::domain::isolation::{Receipt, Share};
use zoneward::domain::{ClusterView, Zone};
use zoneward::isolate::steps::dns_aws_arc::{AwsArc, Settings};
use zoneward::isolate::steps::{Look, Probe, RealStep, StepSettings};
use zoneward::ports::{IsolationStep, StepError};

use crate::aws_server::{KEY_ID, SECRET, Server, Shift, TOKEN, Trouble, now};
use crate::contract::{self, Mark};
use crate::dns::permanent;
use crate::stage::Stage;
use crate::support::{stderr, stdout, zoneward};

const WEB: &str = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/web/50dc6c495c0c9188";
const EKS: &str = "arn:aws:eks:us-east-1:111122223333:cluster/prod";
/// Of somebody else.
const OTHER: &str = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/net/other/1";

fn settings(server: &Server, more: &Value) -> Settings {
    let mut json = json!({"resources": [WEB, EKS], "timeout": "1s", "endpoint": server.url});
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let settings: Settings = serde_json::from_value(json).unwrap();
    assert_eq!(settings.problems(), []);
    settings
}

fn looking() -> Arc<Look> {
    let node = |zone: &str, id: Option<&str>| Node {
        zone: Some(Zone::new(zone)),
        zone_id: id.map(str::to_owned),
        available: true,
        ..Node::default()
    };
    let nodes = [
        ("1", node("us-east-1a", Some("use1-az1"))),
        ("2", node("us-east-1b", None)),
        ("3", node("us-east-1c", Some("use1-az3"))),
    ];
    let nodes = nodes.map(|(name, node)| (name.to_owned(), node)).into();
    let view = ClusterView { nodes, ..ClusterView::default() };
    Arc::new(move || Ok(view.clone()))
}

fn step_with(settings: Settings, secret: &str) -> AwsArc {
    let credentials = Credentials::new(KEY_ID, secret, Some(TOKEN.to_owned()), None, "tests");
    AwsArc::with_credentials(settings, looking(), SharedCredentialsProvider::new(credentials))
}

fn step(server: &Server) -> AwsArc {
    step_with(settings(server, &json!({})), SECRET)
}

fn a() -> Zone {
    Zone::new("us-east-1a")
}

fn others(arn: &str) -> Shift {
    Shift {
        id: "theirs".into(),
        arn: arn.into(),
        away_from: "use1-az2".into(),
        expires_at: now() + 3600,
        comment: "by hand".into(),
        kind: "ZONAL_SHIFT",
    }
}

async fn isolate(step: &AwsArc) -> Result<(), StepError> {
    step.apply(&a(), &Receipt::default(), Share::NONE).await
}

async fn give_back(step: &AwsArc) {
    step.apply(&a(), &Receipt::default(), Share::FULL).await.unwrap();
    step.confirm(&a(), &Receipt::default(), Share::FULL).await.unwrap();
}

fn transient<T: std::fmt::Debug>(result: Result<T, StepError>) -> (String, i64) {
    match result {
        Err(StepError::Transient { why, retry_after }) => (why, retry_after.as_secs()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_verb_may_run_twice_and_undo_restores_what_was() {
    let server = Server::start(&[WEB, EKS, OTHER]).await;
    server.world(|world| world.shifts.push(others(OTHER)));
    let (step, before) = (step(&server), server.shifts());
    let receipt = step.capture(&a()).await.unwrap();
    assert_eq!(step.capture(&a()).await.unwrap(), receipt);
    assert_eq!(receipt.0.keys().collect::<Vec<_>>(), [EKS, WEB]);
    for _ in 0..2 {
        step.apply(&a(), &receipt, Share::NONE).await.unwrap();
        step.confirm(&a(), &receipt, Share::NONE).await.unwrap();
    }
    let shifts = server.shifts();
    assert_eq!((server.count("start"), server.count("update"), shifts.len()), (2, 0, 3));
    let ours = |shift: &Shift| (shift.away_from.clone(), shift.comment.clone());
    let expected = ("use1-az1".to_owned(), "zoneward: us-east-1a is isolated".to_owned());
    assert!(shifts[1..].iter().all(|shift| ours(shift) == expected && (shift.expires_at - now() - 7200).abs() < 5));
    assert_eq!(step.marked().await, Ok([a()].into()));
    assert!(
        transient(step.confirm(&a(), &receipt, Share::FULL).await).0.ends_with("is still shifted away from use1-az1")
    );
    for receipt in [&receipt, &Receipt::default()] {
        step.apply(&a(), receipt, Share::FULL).await.unwrap();
        step.confirm(&a(), receipt, Share::FULL).await.unwrap();
        assert_eq!(server.shifts(), before);
    }
    assert_eq!((step.marked().await, server.count("cancel")), (Ok([].into()), 2));
    assert!(transient(step.confirm(&a(), &receipt, Share::NONE).await).0.contains("has no zonal shift of ours"));
    isolate(&step).await.unwrap();
    server.world(|world| world.not_applied_yet = true);
    assert!(transient(step.confirm(&a(), &receipt, Share::NONE).await).0.ends_with("use1-az1 is not applied yet"));
    assert_eq!(step.sweep(Some(&Zone::new("us-east-1b"))).await, Ok(vec![]));
    let lines = step.sweep(None).await.unwrap();
    assert_eq!(lines[0], format!("{WEB} is not shifted away from us-east-1a any more"));
    assert_eq!((lines.len(), server.shifts()), (2, before));
}

#[tokio::test]
async fn a_shift_is_extended_while_it_is_wanted_and_only_when_half_is_gone() {
    let server = Server::start(&[WEB, EKS]).await;
    let step = step(&server);
    isolate(&step).await.unwrap();
    server.world(|world| world.shifts[0].expires_at = now() + 3700);
    isolate(&step).await.unwrap();
    assert_eq!(server.count("update"), 0);
    server.world(|world| world.shifts[0].expires_at = now() + 3500);
    isolate(&step).await.unwrap();
    isolate(&step).await.unwrap();
    assert_eq!((server.count("update"), server.count("start")), (1, 2));
    assert!((server.shifts()[0].expires_at - now() - 7200).abs() < 5);
    // It ends just before it is extended, or has expired: another begins.
    server.world(|world| world.shifts[1].expires_at = now() + 60);
    server.trouble("update", Trouble::EndedBefore);
    isolate(&step).await.unwrap();
    isolate(&step).await.unwrap();
    assert_eq!((server.shifts().len(), server.count("start")), (2, 4));
    give_back(&step).await;
    assert_eq!(server.shifts(), []);
}

#[tokio::test]
async fn what_is_ours_is_gone_on_with_and_what_is_somebody_elses_is_left_alone() {
    let server = Server::start(&[WEB, EKS]).await;
    let step = step(&server);
    // An answer is lost; and what was begun is not listed at first.
    server.trouble("start", Trouble::LostAnswer);
    let (why, _) = transient(isolate(&step).await);
    assert!(why.starts_with(&format!("{WEB} can't be shifted away from use1-az1")), "{why}");
    assert_eq!(server.shifts().len(), 2, "the other one was begun all the same");
    server.trouble("list", Trouble::Unlisted);
    isolate(&step).await.unwrap();
    assert_eq!((server.count("start"), server.shifts().len()), (4, 2));
    server.trouble("list", Trouble::Unlisted);
    server.trouble("list", Trouble::Unlisted);
    assert!(transient(isolate(&step).await).0.ends_with("has a zonal shift that is not listed yet"));
    give_back(&step).await;

    // Somebody else is faster, or was there before: nothing is begun.
    server.trouble("start", Trouble::Before(others(WEB)));
    let expected = format!(
        "{WEB} has somebody else's zonal shift, away from use1-az2 (\"by hand\", theirs): cancel it, or wait until it ends"
    );
    assert_eq!(permanent(isolate(&step).await), expected);
    step.apply(&a(), &Receipt::default(), Share::FULL).await.unwrap();
    assert_eq!(server.shifts(), [others(WEB)], "ours on the other is gone, theirs is not");
    let count = server.count("start");
    assert_eq!(permanent(isolate(&step).await), expected);
    assert_eq!(server.count("start"), count);
    assert_eq!(step.capture(&a()).await.unwrap().0[WEB], "away from use1-az2 (theirs)");
    let preview = step.preview(&a(), Share::NONE).await.unwrap();
    assert_eq!(preview.changes, [format!("{EKS} is shifted away from use1-az1, for 2h at a time")]);
    assert_eq!(preview.left_alone.keys().collect::<Vec<_>>(), [&expected]);

    // Ours, for another zone; and AWS' own practice, which is in nobody's way.
    let of_b = Shift { comment: "zoneward: us-east-1b is isolated".into(), ..others(WEB) };
    server.world(|world| world.shifts = vec![of_b]);
    assert!(permanent(isolate(&step).await).contains("a zonal shift of ours for another zone"));
    server.world(|world| world.shifts = vec![Shift { kind: "PRACTICE_RUN", ..others(WEB) }]);
    isolate(&step).await.unwrap();
    step.confirm(&a(), &Receipt::default(), Share::NONE).await.unwrap();
}

#[tokio::test]
async fn what_ended_by_itself_is_given_back_and_a_failure_at_any_call_is_resumed_or_undone() {
    let server = Server::start(&[WEB, EKS]).await;
    let step = step(&server);
    isolate(&step).await.unwrap();
    server.trouble("cancel", Trouble::EndedBefore);
    give_back(&step).await;
    isolate(&step).await.unwrap();
    let gone = json!({"message": "no such shift"});
    server.trouble("cancel", Trouble::Refused(404, "ResourceNotFoundException", gone));
    step.apply(&a(), &Receipt::default(), Share::FULL).await.unwrap();
    assert_eq!(server.shifts().len(), 1, "the server said so");
    give_back(&step).await;

    let internal = || Trouble::Refused(500, "InternalServerException", json!({"message": "sorry"}));
    for operation in ["list", "start", "update", "cancel"] {
        for resumed in [true, false] {
            if operation == "update" {
                isolate(&step).await.unwrap();
                server.world(|world| world.shifts.iter_mut().for_each(|shift| shift.expires_at = now() + 60));
            }
            server.trouble(operation, internal());
            if operation == "cancel" {
                isolate(&step).await.unwrap();
                assert!(step.apply(&a(), &Receipt::default(), Share::FULL).await.is_err());
                assert_eq!(server.shifts().len(), 1, "the other is cancelled all the same");
            } else {
                assert!(transient(isolate(&step).await).0.ends_with("sorry (InternalServerException)"));
            }
            if resumed {
                isolate(&step).await.unwrap();
                step.confirm(&a(), &Receipt::default(), Share::NONE).await.unwrap();
            }
            give_back(&step).await;
            assert_eq!(server.shifts(), [], "{operation}");
        }
    }
    // The settings do not name it any more, but the receipt does.
    isolate(&step).await.unwrap();
    let receipt = step.capture(&a()).await.unwrap();
    let fewer = step_with(settings(&server, &json!({"resources": [EKS]})), SECRET);
    fewer.apply(&a(), &receipt, Share::FULL).await.unwrap();
    assert_eq!(server.shifts(), []);
}

#[tokio::test]
async fn refusals_tell_what_to_do_and_secrets_are_not_shown() {
    let server = Server::start(&[WEB, EKS]).await;
    let step = step(&server);
    let mut told = Vec::new();
    let said = || json!({"message": "said"});
    for (code, kind, expected, seconds) in [
        (429, "ThrottlingException", "said (ThrottlingException)", 10),
        (503, "ServiceUnavailable", "said (ServiceUnavailable)", 2),
        (403, "ExpiredTokenException", "said (ExpiredTokenException); they are looked for anew", 2),
    ] {
        server.trouble("list", Trouble::Refused(code, kind, said()));
        let (why, after) = transient(isolate(&step).await);
        assert_eq!((why.as_str(), after), (format!("zonal shifts can't be listed: {expected}").as_str(), seconds));
        told.push(why);
    }
    server.trouble("list", Trouble::Silence);
    told.push(transient(isolate(&step).await).0);
    assert!(told[3].contains("timeout") || told[3].contains("timed out"), "{}", told[3]);
    for (reason, seconds) in [("SimultaneousZonalShiftsConflict", 2), ("ZonalAutoshiftActive", 60)] {
        let said = json!({"message": "said", "reason": reason});
        server.trouble("start", Trouble::Refused(409, "ConflictException", said));
        let (why, after) = transient(isolate(&step).await);
        assert!(why.ends_with(&format!("said ({reason})")) && after == seconds, "{why} {after}");
        give_back(&step).await;
    }
    server.trouble("list", Trouble::Refused(403, "AccessDeniedException", said()));
    told.push(permanent(isolate(&step).await));
    assert!(told[4].ends_with("does deploy/aws/iam-policy.json apply to this account?"), "{}", told[4]);
    let missing = step_with(settings(&server, &json!({"resources": [OTHER]})), SECRET);
    let why = permanent(isolate(&missing).await);
    assert!(why.ends_with("is zonal shift enabled on the resource?"), "{why}");
    let why = permanent(missing.apply(&Zone::new("us-east-1c"), &Receipt::default(), Share::NONE).await);
    assert!(why.contains("ResourceNotFound"), "{why}");
    let why = permanent(step.apply(&Zone::new("us-east-1c"), &Receipt::default(), Share::NONE).await);
    assert!(why.contains("(UnsupportedAz); is the resource in that zone"), "{why}");
    let wrong = step_with(settings(&server, &json!({})), "another secret");
    told.push(permanent(isolate(&wrong).await));
    assert!(told[5].ends_with("and is the clock right?"), "{}", told[5]);
    let nobody = json!({"endpoint": format!("http://{}", crate::support::free_address())});
    told.push(transient(isolate(&step_with(settings(&server, &nobody), SECRET)).await).0);
    assert!(
        told.iter().all(|why| ![SECRET, TOKEN, "another secret"].iter().any(|secret| why.contains(secret))),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_zone_is_known_by_its_nodes_or_by_the_settings() {
    let server = Server::start(&[WEB, EKS]).await;
    let b = Zone::new("us-east-1b");
    let why = permanent(step(&server).apply(&b, &Receipt::default(), Share::NONE).await);
    assert_eq!(
        why,
        "the id by which AWS knows the zone us-east-1b is not known: none of its nodes has the label \
         topology.k8s.aws/zone-id. Name it: steps.dns_aws_arc.zone_ids"
    );
    let named = step_with(settings(&server, &json!({"zone_ids": {"us-east-1b": "use1-az2"}})), SECRET);
    named.apply(&b, &Receipt::default(), Share::NONE).await.unwrap();
    assert!(server.shifts().iter().all(|shift| shift.away_from == "use1-az2"));
    // Undo needs no id.
    step(&server).apply(&b, &Receipt::default(), Share::FULL).await.unwrap();
    assert_eq!(server.shifts(), []);
    let probes = step(&server).probe().await;
    assert!(matches!(&probes[0], Probe::Broken { found, .. } if found.starts_with("us-east-1b: none of its nodes")));
    let weights = Probe::Works(format!("{WEB}: zone weights use1-az1 1, use1-az2 1; autoshift DISABLED"));
    assert_eq!(probes[1], weights);
    let probes = named.probe().await;
    assert_eq!(
        probes[0],
        Probe::Works("us-east-1a is use1-az1, us-east-1b is use1-az2, us-east-1c is use1-az3".into())
    );
}

/// The environment stands for all the places where AWS' libraries look.
#[tokio::test(flavor = "multi_thread")]
async fn the_binary_finds_credentials_where_aws_libraries_look() {
    let (stage, server) = (Stage::new(), Server::start(&[WEB]).await);
    let ids = "zone_ids: {zone-a: use1-az1, zone-b: use1-az2, zone-c: use1-az3}";
    let config = stage.write(
        "aws.yaml",
        &format!(
            "mode: enforce\nprometheus: {{url: 'http://127.0.0.1:1'}}\nsteps: {{mesh_istio: null, taint: null, \
                  dns_aws_arc: {{resources: ['{WEB}'], endpoint: '{}', {ids}}}}}\n",
            server.url
        ),
    );
    let check = |secret: &str| {
        let mut command = zoneward();
        command.args(["check", "--connect", "--output", "json", "--config"]).arg(&config);
        command.env("KUBECONFIG", stage.cluster.kubeconfig()).env("AWS_ACCESS_KEY_ID", KEY_ID);
        command.env("AWS_SECRET_ACCESS_KEY", secret).env("AWS_SESSION_TOKEN", TOKEN);
        let output = command.output().unwrap();
        stdout(&output) + &stderr(&output)
    };
    let told = check(SECRET);
    assert!(told.contains("zone weights use1-az1 1, use1-az2 1; autoshift DISABLED"), "{told}");
    assert!(told.contains("zone-a is use1-az1, zone-b is use1-az2"), "{told}");
    let told = check("another secret");
    assert!(told.contains("are the credentials those of this account") && !told.contains("another secret"), "{told}");
}

#[tokio::test]
async fn shifts_keep_to_the_contract() {
    let server = Server::start(&[WEB, EKS, OTHER]).await;
    server.world(|world| world.shifts.push(others(OTHER)));
    let sight = || json!(format!("{:?}", server.shifts()));
    contract::holds(&step(&server), Mark::OnWhatIsChanged, ("us-east-1a", "us-east-1c"), sight).await;
}
