//! The keys of the RAM role of an ECS instance, from its metadata server.

use super::credentials::{Surroundings, Temporary};
use super::http::{Answer, Http};
use super::{Error, Keys};

const ROLES: &str = "/latest/meta-data/ram/security-credentials/";
const TOKEN_LIFETIME_SECONDS: &str = "21600";

pub(super) async fn fetch(http: &Http, surroundings: &Surroundings) -> Result<Keys, Error> {
    let session = session(http, surroundings).await?;
    let get = async |path: &str| -> Result<Answer, Error> {
        let url = format!("{}{path}", surroundings.metadata);
        let with_session = |client: &reqwest::Client| match &session {
            Some(token) => client.get(url).header("x-aliyun-ecs-metadata-token", token.clone()),
            None => client.get(url),
        };
        let answer = http.send(with_session).await.map_err(lost)?;
        match answer.status {
            200 => Ok(answer),
            404 => Err(Error::Misconfigured(
                "this ECS instance has no such RAM role: attach one, or name it (ALIBABA_CLOUD_ECS_METADATA)"
                    .to_owned(),
            )),
            status => Err(lost(format!("answers with HTTP {status}"))),
        }
    };
    let role = match surroundings.get("ECS_METADATA") {
        Some(role) => role.to_owned(),
        None => first_line(&get(ROLES).await?.body).ok_or_else(|| lost("names no role"))?,
    };
    let answer = get(&format!("{ROLES}{role}")).await?;
    let keys: Result<Temporary, _> = serde_json::from_slice(&answer.body);
    keys.map(Keys::from).map_err(|_| lost(format!("has no credentials of the role {role} that can be read")))
}

/// `IMDSv2`. Where it is not served, the older way needs none, unless that is forbidden.
async fn session(http: &Http, surroundings: &Surroundings) -> Result<Option<reqwest::header::HeaderValue>, Error> {
    let url = format!("{}/latest/api/token", surroundings.metadata);
    let ttl = ("x-aliyun-ecs-metadata-token-ttl-seconds", TOKEN_LIFETIME_SECONDS);
    let answer = http.send(|client| client.put(url).header(ttl.0, ttl.1)).await.map_err(lost)?;
    let token = first_line(&answer.body).filter(|_| answer.status == 200);
    let token = token.and_then(|token| reqwest::header::HeaderValue::try_from(token).ok()).map(|mut token| {
        token.set_sensitive(true);
        token
    });
    if token.is_none() && surroundings.says_yes("IMDSV1_DISABLED") {
        return Err(lost(format!(
            "gives no session token (HTTP {}), and ALIBABA_CLOUD_IMDSV1_DISABLED forbids to do without",
            answer.status
        )));
    }
    Ok(token)
}

fn first_line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8(body.to_vec()).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn lost(why: impl std::fmt::Display) -> Error {
    Error::Lost(format!(
        "the ECS metadata server {why} (it is asked as the environment offers neither an access key nor RRSA, or as \
         credentials is ecs_role)"
    ))
}
