//! The signature ACS3-HMAC-SHA256, checked from its description and the raw request: shares no code with what signs.

use std::collections::BTreeMap;

use axum::http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::alibaba_cloud::{Cloud, Refused, refuse};

pub fn header<'a>(parts: &'a Parts, name: &str) -> &'a str {
    parts.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// ACS3-HMAC-SHA256, from its description and the raw request.
pub fn check(cloud: &Cloud, parts: &Parts, body: &str) -> Result<(), Refused> {
    let authorization = header(parts, "authorization");
    let fields: BTreeMap<&str, &str> = authorization
        .strip_prefix("ACS3-HMAC-SHA256 ")
        .unwrap_or_default()
        .split(',')
        .filter_map(|field| field.split_once('='))
        .collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let signed: Vec<&str> = field("SignedHeaders").split(';').collect();
    let must = parts.headers.keys().map(axum::http::HeaderName::as_str);
    let must = must.filter(|name| ["host", "content-type"].contains(name) || name.starts_with("x-acs-"));
    let mut expected: Vec<&str> = must.collect();
    expected.sort_unstable();
    if signed != expected || (body.is_empty() == parts.headers.contains_key("content-type")) {
        return refuse(400, "IncompleteSignature", format!("{signed:?} for {expected:?}"));
    }
    assert_eq!(header(parts, "accept"), "application/json", "some services answer in XML else");
    let query = parts.uri.query().unwrap_or_default();
    for text in [query, body] {
        if encode_sorted(&decode(text)) != text {
            return refuse(400, "SignatureDoesNotMatch", format!("not canonical: {text}"));
        }
    }
    let lines: String = signed.iter().map(|name| format!("{name}:{}\n", header(parts, name).trim())).collect();
    let hash = sha256(body.as_bytes());
    let (method, path) = (&parts.method, parts.uri.path());
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{}\n{hash}", signed.join(";"));
    if header(parts, "x-acs-content-sha256") != hash || *method != "POST" || path != "/" {
        return refuse(400, "SignatureDoesNotMatch", format!("content: {canonical}"));
    }
    let mut world = cloud.world();
    let id = field("Credential");
    let Some((_, secret, token)) = world.keys.iter().find(|(known, ..)| known == id).cloned() else {
        return refuse(404, "InvalidAccessKeyId.NotFound", format!("Specified access key {id} is not found."));
    };
    if hmac(secret.as_bytes(), format!("ACS3-HMAC-SHA256\n{}", sha256(canonical.as_bytes())).as_bytes())
        != field("Signature")
    {
        return refuse(400, "SignatureDoesNotMatch", format!("server CanonicalRequest is [{canonical}] with {id}"));
    }
    if token.as_deref().unwrap_or_default() != header(parts, "x-acs-security-token") || world.expired.contains(id) {
        let sent = header(parts, "x-acs-security-token");
        return refuse(400, "InvalidSecurityToken.Expired", format!("Specified SecurityToken {sent} is expired."));
    }
    let at: Timestamp = header(parts, "x-acs-date").parse().unwrap();
    if now().duration_since(at).abs() > SignedDuration::from_mins(15) {
        return refuse(400, "InvalidTimeStamp.Expired", "");
    }
    if !world.nonces.insert(header(parts, "x-acs-signature-nonce").to_owned()) {
        return refuse(400, "SignatureNonceUsed", "");
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// RFC 2104, by hand.
fn hmac(key: &[u8], message: &[u8]) -> String {
    assert!(key.len() <= 64);
    let pad = |with: u8| (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    sha256(&[pad(0x5c), inner.to_vec()].concat())
}

pub fn decode(text: &str) -> BTreeMap<String, String> {
    let word = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.bytes());
        while let Some(byte) = rest.next() {
            let hexed = |rest: &mut std::str::Bytes<'_>| [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(if byte == b'%' { hex::decode(hexed(&mut rest)).unwrap()[0] } else { byte });
        }
        String::from_utf8(bytes).unwrap()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (word(name), word(value))).collect()
}

fn encode_sorted(parameters: &BTreeMap<String, String>) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let word = |text: &str| -> String {
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    parameters.iter().map(|(name, value)| format!("{}={}", word(name), word(value))).collect::<Vec<_>>().join("&")
}

#[allow(clippy::disallowed_methods, reason = "a server has a clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
