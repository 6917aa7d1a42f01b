//! Calls to Alibaba Cloud and the credentials for them, on a server that checks each signature: what goes wrong is told, and
//! nothing that is secret.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use serde_json::Value;
use zoneward::alibaba::{Call, Client, Endpoint, Error, Parameters, Source, Surroundings, parameters};
use zoneward::domain::Period;
use zoneward::ports::StepError;

use crate::alibaba_cloud::{Cloud, Fault, KEY_ID, KEY_SECRET, PLANTED};

fn client(source: Source, surroundings: Surroundings) -> Client {
    Client::new(source, surroundings, Period::from_secs(1))
}

async fn read(client: &Client, cloud: &Cloud) -> Result<Value, Error> {
    let endpoint = Endpoint::parse(&cloud.url()).unwrap();
    let call = Call {
        endpoint: &endpoint,
        action: "GetLoadBalancerAttribute",
        version: "2020-06-16",
        query: parameters([("LoadBalancerId", "alb-1")]),
        form: Parameters::new(),
        right: "alb:GetLoadBalancerAttribute on acs:alb:cn-hangzhou:*:loadbalancer/alb-1".to_owned(),
    };
    client.call(&call).await
}

fn rrsa(cloud: &Cloud, folder: &tempfile::TempDir) -> Surroundings {
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{}\n", cloud.world().oidc)).unwrap();
    cloud.with(&[
        ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/z"),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc/c"),
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", file.to_str().unwrap()),
    ])
}

#[tokio::test]
async fn calls_are_signed_as_the_cloud_checks_it() {
    let cloud = Cloud::start().await;
    let client = client(Source::Auto, cloud.surroundings());
    for _ in 0..3 {
        let answer = read(&client, &cloud).await.unwrap();
        assert_eq!(answer["DNSName"], "lb.example.org");
    }
}

#[tokio::test]
async fn a_failure_says_whether_another_try_is_worth_it() {
    let cloud = Cloud::start().await;
    let client = client(Source::Env, cloud.surroundings());
    let waits = |seconds| Some(SignedDuration::from_secs(seconds));
    let cases = [
        (Fault::Throttle(7000), waits(7), "(Throttling.User, HTTP 400, request REQ-1)"),
        (Fault::Refuse(503, "ServiceUnavailable"), waits(2), "(ServiceUnavailable, HTTP 503, request REQ-1)"),
        (Fault::Refuse(500, "x"), waits(2), "(x, HTTP 500, request REQ-1)"),
        (Fault::Refuse(429, "x"), waits(2), "(x, HTTP 429, request REQ-1)"),
        (Fault::Refuse(400, "SystemBusy"), waits(2), "(SystemBusy, HTTP 400, request REQ-1)"),
        (Fault::Refuse(400, "IncorrectStatus.LoadBalancer"), waits(2), "(IncorrectStatus.LoadBalancer, HTTP 400"),
        (Fault::Hang, waits(2), "gave no answer within 1s (GetLoadBalancerAttribute)"),
        (Fault::Garbage, waits(2), "gave an answer to GetLoadBalancerAttribute that makes no sense"),
        (Fault::Huge, waits(2), "gave an answer larger than 1024 KiB (GetLoadBalancerAttribute)"),
        (Fault::Refuse(400, "IllegalParam"), None, "(IllegalParam, HTTP 400, request REQ-1)"),
        (
            Fault::Refuse(403, "Forbidden.NoPermission"),
            None,
            "let the account's RAM policy allow alb:GetLoadBalancerAttribute on acs:alb:cn-hangzhou:*:loadbalancer/alb-1",
        ),
    ];
    for (fault, expected, text) in cases {
        cloud.next(&[Some(fault)]);
        let error = read(&client, &cloud).await.unwrap_err();
        let retry_after = match error.for_step(None) {
            StepError::Transient { retry_after, .. } => Some(retry_after),
            StepError::Permanent { .. } => None,
        };
        assert_eq!(retry_after, expected, "{fault:?}");
        assert!(error.to_string().contains(text), "{fault:?}: {error}");
    }
    let nobody = Endpoint::parse(&format!("http://{}", crate::support::free_address())).unwrap();
    let call = Call {
        endpoint: &nobody,
        action: "X",
        version: "x",
        query: Parameters::new(),
        form: Parameters::new(),
        right: String::new(),
    };
    let error = client.call(&call).await.unwrap_err();
    assert!(matches!(&error, Error::Lost(why) if why.contains("can't be reached")), "{error}");
}

#[tokio::test]
async fn a_wrong_key_is_told_as_such() {
    let cloud = Cloud::start().await;
    let key = |id, secret| [("ALIBABA_CLOUD_ACCESS_KEY_ID", id), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", secret)];
    let wrong_secret = client(Source::Env, cloud.with(&key(KEY_ID, "planted-other")));
    let error = read(&wrong_secret, &cloud).await.unwrap_err().to_string();
    assert!(error.ends_with(": the access key's secret is another: compare it"), "{error}");
    let unknown = client(Source::Env, cloud.with(&key("planted-nobody", KEY_SECRET)));
    let error = read(&unknown, &cloud).await.unwrap_err().to_string();
    assert!(error.contains("Specified access key <hidden> is not found"), "{error}");
    let none = client(Source::Env, cloud.with(&[]));
    let error = read(&none, &cloud).await.unwrap_err().to_string();
    assert!(error.starts_with("the environment has no ALIBABA_CLOUD_ACCESS_KEY_ID: set it"), "{error}");
    let nothing = client(Source::Auto, cloud.with(&[("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")]));
    let error = read(&nothing, &cloud).await.unwrap_err().to_string();
    assert!(error.starts_with("there are no credentials: "), "{error}");
}

#[tokio::test]
async fn rrsa_assumes_the_role_once_for_all_who_wait() {
    let (cloud, folder) = (Cloud::start().await, tempfile::tempdir().unwrap());
    let client = client(Source::Auto, rrsa(&cloud, &folder));
    assert_eq!(client.acts_by(), Ok("the role acs:ram::1:role/z (RRSA)".to_owned()));
    let reads = futures::future::join_all((0..8).map(|_| read(&client, &cloud))).await;
    assert!(reads.iter().all(Result::is_ok), "{reads:?}");
    assert_eq!(cloud.world().issued, 1);
}

#[tokio::test]
async fn expired_keys_are_renewed_once_and_the_token_is_read_anew() {
    let (cloud, folder) = (Cloud::start().await, tempfile::tempdir().unwrap());
    let client = client(Source::Rrsa, rrsa(&cloud, &folder));
    read(&client, &cloud).await.unwrap();
    // The token file is rotated, and the keys are refused before their time.
    "planted.rotated.token".clone_into(&mut cloud.world().oidc);
    std::fs::write(folder.path().join("token"), "planted.rotated.token").unwrap();
    cloud.world().expired.insert("STS.planted-1".to_owned());
    let reads = futures::future::join_all((0..8).map(|_| read(&client, &cloud))).await;
    assert!(reads.iter().all(Result::is_ok), "{reads:?}");
    assert_eq!(cloud.world().issued, 2);
    // New ones that are refused as well are no reason to go on for ever.
    cloud.world().expired.extend((1..20).map(|i| format!("STS.planted-{i}")));
    let error = read(&client, &cloud).await.unwrap_err().to_string();
    assert!(error.contains("InvalidSecurityToken.Expired"), "{error}");
    assert_eq!(cloud.world().issued, 3);
}

#[tokio::test]
async fn keys_are_renewed_before_they_expire_and_used_while_they_are_valid() {
    let (cloud, folder) = (Cloud::start().await, tempfile::tempdir().unwrap());
    let client = client(Source::Rrsa, rrsa(&cloud, &folder));
    cloud.world().lifetime = SignedDuration::from_mins(4);
    read(&client, &cloud).await.unwrap();
    read(&client, &cloud).await.unwrap();
    assert_eq!(cloud.world().issued, 2, "less than five minutes are left each time");
    cloud.world().sts_fails = true;
    read(&client, &cloud).await.unwrap();
    cloud.world().expired.insert("STS.planted-2".to_owned());
    let error = read(&client, &cloud).await.unwrap_err();
    assert!(matches!(error.for_step(None), StepError::Transient { .. }), "{error}");
}

#[tokio::test]
async fn a_role_that_can_not_be_assumed_is_told_with_what_to_compare() {
    let (cloud, folder) = (Cloud::start().await, tempfile::tempdir().unwrap());
    let surroundings = rrsa(&cloud, &folder);
    "planted.newer".clone_into(&mut cloud.world().oidc);
    let error = read(&client(Source::Rrsa, surroundings), &cloud).await.unwrap_err();
    assert!(matches!(error.for_step(None), StepError::Permanent { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("the token <hidden> is expired") && text.contains("the role's trust policy"), "{text}");
    let mut missing = rrsa(&cloud, &folder);
    missing.variables.insert("ALIBABA_CLOUD_OIDC_TOKEN_FILE".to_owned(), "/no/such/file".to_owned());
    let text = read(&client(Source::Rrsa, missing), &cloud).await.unwrap_err().to_string();
    assert!(text.starts_with("the OIDC token in /no/such/file can't be read: "), "{text}");
}

#[tokio::test]
async fn an_ecs_instance_lends_its_role() {
    let cloud = Cloud::start().await;
    let role = "/latest/meta-data/ram/security-credentials/";
    let calls = |calls: &[&str]| calls.iter().map(|call| format!("GET {role}{call}")).collect::<Vec<_>>();
    let asked = || std::mem::take(&mut cloud.world().metadata_calls);
    read(&client(Source::Auto, cloud.with(&[])), &cloud).await.unwrap();
    assert_eq!(asked()[0], "PUT /latest/api/token");
    cloud.world().imds_v2 = false;
    read(&client(Source::EcsRole, cloud.with(&[])), &cloud).await.unwrap();
    assert_eq!(asked()[1..], calls(&["", "zoneward-role"]), "the older way");
    let named = cloud.with(&[("ALIBABA_CLOUD_ECS_METADATA", "zoneward-role")]);
    read(&client(Source::EcsRole, named), &cloud).await.unwrap();
    assert_eq!(asked()[1..], calls(&["zoneward-role"]));
    let strict = cloud.with(&[("ALIBABA_CLOUD_IMDSV1_DISABLED", "true")]);
    let error = read(&client(Source::EcsRole, strict), &cloud).await.unwrap_err().to_string();
    assert!(error.contains("ALIBABA_CLOUD_IMDSV1_DISABLED forbids to do without"), "{error}");
    let other = cloud.with(&[("ALIBABA_CLOUD_ECS_METADATA", "no-such-role")]);
    let error = read(&client(Source::EcsRole, other), &cloud).await.unwrap_err().to_string();
    assert!(error.starts_with("this ECS instance has no such RAM role: attach one"), "{error}");
    let forbidden = cloud.with(&[("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")]);
    assert!(read(&client(Source::EcsRole, forbidden), &cloud).await.is_err());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Libraries' logs included, at the finest level.
#[tokio::test]
async fn no_error_and_no_log_shows_a_secret() {
    let (cloud, folder, log) = (Cloud::start().await, tempfile::tempdir().unwrap(), Log::default());
    let writer = log.clone();
    let everything =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    // With a single subscriber, whether a line is logged at all would be settled by whichever test's thread meets it first.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _logged = tracing::subscriber::set_default(everything.finish());
    let wrong = [("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "planted-other")];
    let clients = [
        client(Source::Env, cloud.surroundings()),
        client(Source::Env, cloud.with(&wrong)),
        client(Source::Rrsa, rrsa(&cloud, &folder)),
        client(Source::EcsRole, cloud.with(&[])),
    ];
    let mut said = String::new();
    let faults = [Fault::Refuse(400, "x"), Fault::Garbage, Fault::Hang, Fault::Huge];
    for fault in faults {
        for client in &clients {
            cloud.next(&[Some(fault)]);
            let error = read(client, &cloud).await.unwrap_err();
            writeln!(said, "{error} {error:?} {:?} {:?}", error.for_step(None), client.acts_by()).unwrap();
        }
    }
    cloud.next(&[]);
    cloud.world().expired.extend((0..20).map(|i| format!("STS.planted-{i}")));
    "planted.newer".clone_into(&mut cloud.world().oidc);
    for client in &clients {
        let outcome = read(client, &cloud).await;
        writeln!(said, "{:?}", outcome.as_ref().err()).unwrap();
    }
    let secret = zoneward::alibaba::Secret::new("planted");
    write!(said, "{secret:?}").unwrap();
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("hyper") && log.lines().count() > 100, "{log}");
    assert!(said.contains("SignatureDoesNotMatch") && said.contains("InvalidSecurityToken"), "{said}");
    for planted in PLANTED {
        let line = |text: &str| text.lines().find(|line| line.contains(planted)).map(str::to_owned);
        assert_eq!((line(&said), line(&log)), (None, None));
    }
}
