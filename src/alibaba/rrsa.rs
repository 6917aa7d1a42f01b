//! RRSA: the pod's service account token (OIDC) for the keys of a RAM role.

use jiff::Timestamp;
use serde::Deserialize;

use super::credentials::{Surroundings, Temporary, variable};
use super::http::Http;
use super::sign::{FORM, encoded};
use super::{Endpoint, Error, Keys, Refusal, Secret, parameters};

const LARGEST_TOKEN_FILE: usize = 1 << 16;
const LIFETIME_SECONDS: &str = "3600";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    credentials: Temporary,
}

/// The call is not signed: the token is what proves it. It goes in the body, as URLs end up in logs.
pub(super) async fn fetch(http: &Http, surroundings: &Surroundings, now: Timestamp) -> Result<Keys, Error> {
    let (role, provider) = (variable(surroundings, "ROLE_ARN")?, variable(surroundings, "OIDC_PROVIDER_ARN")?);
    let token = read_token(variable(surroundings, "OIDC_TOKEN_FILE")?).await?;
    let (endpoint, action) = (sts(surroundings), "AssumeRoleWithOIDC");
    let form = encoded(&parameters([
        ("Action", action),
        ("Version", "2015-04-01"),
        ("Format", "JSON"),
        ("RoleArn", role),
        ("OIDCProviderArn", provider),
        ("OIDCToken", token.reveal()),
        ("RoleSessionName", surroundings.get("ROLE_SESSION_NAME").unwrap_or("zoneward")),
        ("DurationSeconds", LIFETIME_SECONDS),
        ("Timestamp", &now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    ]));
    let url = format!("{}/", endpoint.url);
    let answer = http.send(|client| client.post(url).header("content-type", FORM).body(form)).await;
    let lost = |why: String| Error::Lost(format!("{} {why} ({action})", endpoint.host));
    let answer = answer.map_err(lost)?;
    if !(200..300).contains(&answer.status) {
        let refusal = Refusal::new((&endpoint.host, action, ""), &answer, |text| token.hide_in(text));
        if refusal.is_passing() {
            return Err(Error::Refused(Box::new(refusal)));
        }
        let hint = "compare the role's trust policy with the cluster's OIDC provider, the namespace and the service \
                    account";
        return Err(Error::Misconfigured(format!("{refusal}: the role {role} can't be assumed: {hint}")));
    }
    let response: Response = serde_json::from_slice(&answer.body)
        .map_err(|_| lost("gave an answer without credentials that can be read".to_owned()))?;
    Ok(response.credentials.into())
}

/// Anew each time, as it is rotated.
async fn read_token(path: &str) -> Result<Secret, Error> {
    let wrong = |why: String| Error::Misconfigured(format!("the OIDC token in {path} {why}"));
    let bytes = tokio::fs::read(path).await.map_err(|error| wrong(format!("can't be read: {error}")))?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= LARGEST_TOKEN_FILE);
    let token = text.map(|text| text.trim().to_owned()).filter(|token| !token.is_empty());
    token.map(Secret::new).ok_or_else(|| wrong("is none: let the file be that of a projected token".to_owned()))
}

fn sts(surroundings: &Surroundings) -> Endpoint {
    let inside = if surroundings.says_yes("VPC_ENDPOINT_ENABLED") { "-vpc" } else { "" };
    surroundings.sts.clone().unwrap_or_else(|| match surroundings.get("STS_REGION") {
        Some(region) => Endpoint::of_host(format!("sts{inside}.{region}.aliyuncs.com")),
        None => Endpoint::of_host("sts.aliyuncs.com"),
    })
}
