//! The signature ACS3-HMAC-SHA256 (<https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature>).
//! Pure.

use aws_lc_rs::hmac;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Keys, Parameters};
use crate::domain::percent_encoded;

pub const FORM: &str = "application/x-www-form-urlencoded";
const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// A POST to `/`.
#[derive(Debug, Clone, Copy)]
pub struct ToSign<'a> {
    pub host: &'a str,
    pub action: &'a str,
    pub version: &'a str,
    pub at: Timestamp,
    /// Another one for each request.
    pub nonce: &'a str,
    /// Both as they are sent: encoded by [`encoded`].
    pub query: &'a str,
    pub form: &'a str,
}

/// Every header to send but `host`, with the signature. Unless JSON is asked for, some services answer in XML.
pub fn headers(request: &ToSign<'_>, keys: &Keys) -> Vec<(&'static str, String)> {
    let mut headers = signed_headers(request, keys);
    let to_sign = format!("{ALGORITHM}\n{}", sha256(&canonical(request, &headers)));
    let key = hmac::Key::new(hmac::HMAC_SHA256, keys.secret.reveal().as_bytes());
    let signature = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
    let (id, names) = (keys.id.reveal(), names(&headers));
    let authorization = format!("{ALGORITHM} Credential={id},SignedHeaders={names},Signature={signature}");
    headers.retain(|(name, _)| *name != "host");
    headers.extend([("accept", "application/json".to_owned()), ("authorization", authorization)]);
    headers
}

/// In the order of their names.
fn signed_headers(request: &ToSign<'_>, keys: &Keys) -> Vec<(&'static str, String)> {
    let content_type = (!request.form.is_empty()).then(|| ("content-type", FORM.to_owned()));
    let token = keys.token.as_ref().map(|token| ("x-acs-security-token", token.reveal().to_owned()));
    let mut headers = vec![
        ("host", request.host.to_owned()),
        ("x-acs-action", request.action.to_owned()),
        ("x-acs-content-sha256", sha256(request.form)),
        ("x-acs-date", request.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("x-acs-signature-nonce", request.nonce.to_owned()),
        ("x-acs-version", request.version.to_owned()),
    ];
    headers.extend(content_type);
    headers.extend(token);
    headers.sort_unstable_by_key(|(name, _)| *name);
    headers
}

fn names(headers: &[(&'static str, String)]) -> String {
    headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";")
}

fn canonical(request: &ToSign<'_>, headers: &[(&'static str, String)]) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    format!("POST\n/\n{}\n{lines}\n{}\n{}", request.query, names(headers), sha256(request.form))
}

fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// As RFC 3986 has it, and in the order of the names.
pub fn encoded(parameters: &Parameters) -> String {
    let pair = |(name, value): (&String, &String)| format!("{}={}", percent_encoded(name), percent_encoded(value));
    parameters.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::{Secret, parameters};

    fn keys(token: Option<&str>) -> Keys {
        let (id, secret) = (Secret::new("YourAccessKeyId"), Secret::new("YourAccessKeySecret"));
        Keys { id, secret, token: token.map(Secret::new), expires: None }
    }

    fn request<'a>(host: &'a str, action: &'a str, version: &'a str, query: &'a str, form: &'a str) -> ToSign<'a> {
        let (at, nonce) = ("2023-10-26T10:22:32Z".parse().unwrap(), "3156853299f313e23d1673dc12e1703d");
        ToSign { host, action, version, at, nonce, query, form }
    }

    fn hash_and_authorization(request: &ToSign<'_>, keys: &Keys) -> (String, String) {
        let hash = sha256(&canonical(request, &signed_headers(request, keys)));
        (hash, headers(request, keys).pop().unwrap().1)
    }

    /// That of the documentation.
    #[test]
    fn the_public_example_is_signed_as_documented() {
        let image = "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd";
        let query = encoded(&parameters([("ImageId", image), ("RegionId", "cn-shanghai")]));
        let request = request("ecs.cn-shanghai.aliyuncs.com", "RunInstances", "2014-05-26", &query, "");
        let (hash, authorization) = hash_and_authorization(&request, &keys(None));
        assert_eq!(hash, "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259");
        let expected = "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;\
                        x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=\
                        06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0";
        assert_eq!(authorization, expected);
    }

    /// Computed by another implementation of the same description.
    #[test]
    fn a_form_and_a_token_are_signed_too() {
        let form = encoded(&parameters([
            ("LoadBalancerId", "nlb-83ckzc8d4xlp8o****"),
            ("RegionId", "cn-hangzhou"),
            ("ZoneMappings.1.VSwitchId", "vsw-sersdf****"),
            ("ZoneMappings.1.ZoneId", "cn-hangzhou-a"),
        ]));
        let (host, action) = ("nlb.cn-hangzhou.aliyuncs.com", "StartShiftLoadBalancerZones");
        let request = request(host, action, "2022-04-30", "", &form);
        assert_eq!(sha256(&form), "ae7209cccf78955f1ad9af5e33ff941bbba9ec1d98df48536f8764a7d0034768");
        let (hash, authorization) = hash_and_authorization(&request, &keys(Some("YourSecurityToken")));
        assert_eq!(hash, "2812635f3365ecc5bcfd154ce214b1b6a20f092b4f7ca2a1b1e1b4d827aecb0f");
        let signature = "Signature=02020f0e14478e7171335157cd45252833171e8ce6f36100848f7e05104d0141";
        assert!(authorization.ends_with(signature), "{authorization}");
    }

    #[test]
    fn what_is_reserved_is_encoded() {
        let odd = parameters([("b*", "a b+c/d~é"), ("a", "")]);
        assert_eq!(encoded(&odd), "a=&b%2A=a%20b%2Bc%2Fd~%C3%A9");
    }
}
