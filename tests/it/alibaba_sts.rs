//! Where keys come from: STS, and the metadata server of an ECS instance, as documented.

use axum::body::Body;
use axum::http::request::Parts;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::alibaba_cloud::{Cloud, KEY_SECRET, METADATA_TOKEN, Refused, TOKEN, World, refuse};
use crate::alibaba_signature::{decode, header, now};

/// New keys, by which calls are signed from then on.
fn issue(world: &mut World) -> Value {
    world.issued += 1;
    let (id, secret) = (format!("STS.planted-{}", world.issued), format!("{KEY_SECRET}-{}", world.issued));
    world.keys.push((id.clone(), secret.clone(), Some(TOKEN.to_owned())));
    let expiration = (now() + world.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"AccessKeyId": id, "AccessKeySecret": secret, "SecurityToken": TOKEN, "Expiration": expiration, "Code": "Success"})
}

pub fn assume_role(cloud: &Cloud, parts: &Parts, body: &str) -> Result<Value, Refused> {
    let (form, mut world) = (decode(body), cloud.world());
    assert!(!parts.headers.contains_key("authorization") && parts.uri.query().is_none(), "unsigned, and in the body");
    assert_eq!((form["Version"].as_str(), form["Format"].as_str()), ("2015-04-01", "JSON"));
    assert!(form["DurationSeconds"].parse::<u32>().unwrap() >= 900 && form["Timestamp"].parse::<Timestamp>().is_ok());
    if world.sts_fails {
        return refuse(503, "ServiceUnavailable", "later");
    }
    if form["OIDCToken"] != world.oidc {
        return refuse(
            400,
            "AuthenticationFail.OIDCToken.Expired",
            format!("the token {} is expired", form["OIDCToken"]),
        );
    }
    assert_eq!(
        (form["RoleArn"].as_str(), form["OIDCProviderArn"].as_str()),
        ("acs:ram::1:role/z", "acs:ram::1:oidc/c")
    );
    Ok(json!({"RequestId": "REQ-1", "Credentials": issue(&mut world)}))
}

pub fn metadata(cloud: &Cloud, parts: &Parts) -> Response {
    let mut world = cloud.world();
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    world.metadata_calls.push(format!("{method} {path}"));
    let text = |status, text: String| Response::builder().status(status).body(Body::from(text)).unwrap();
    let v2 = world.imds_v2;
    if method == "PUT" && path == "/latest/api/token" {
        assert!(header(parts, "x-aliyun-ecs-metadata-token-ttl-seconds").parse::<u32>().is_ok());
        return if v2 { text(200, METADATA_TOKEN.to_owned()) } else { text(404, "no".to_owned()) };
    }
    if v2 != (header(parts, "x-aliyun-ecs-metadata-token") == METADATA_TOKEN) {
        return text(403, "no".to_owned());
    }
    match path.strip_prefix("/latest/meta-data/ram/security-credentials/") {
        Some("") => text(200, "zoneward-role\n".to_owned()),
        Some("zoneward-role") => text(200, issue(&mut world).to_string()),
        _ => text(404, "no".to_owned()),
    }
}
