//! What istiod has taken in, by its own word.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ports::StepError;

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Istiod {
    pub url: String,
    pub token_file: Option<PathBuf>,
}

impl Istiod {
    /// Whether it distributes as the document says, and in no other way.
    pub(super) async fn follows(&self, document: &Value) -> Result<(), StepError> {
        let wanted = distribute(document);
        let found = distribute(&self.mesh_config().await?);
        if found == wanted {
            return Ok(());
        }
        Err(StepError::soon(format!("istiod ({}) distributes by {found}, and not by {wanted}", self.url)))
    }

    pub(super) async fn mesh_config(&self) -> Result<Value, StepError> {
        let url = format!("{}/debug/mesh", self.url.trim_end_matches('/'));
        let failed =
            |error: &reqwest::Error| StepError::soon(format!("istiod can't be asked at {url}: {}", causes(error)));
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| failed(&error))?;
        let mut request = client.get(&url);
        if let Some(path) = &self.token_file {
            // Read anew each time, as it is rotated.
            let token = tokio::fs::read_to_string(path).await.map_err(|error| {
                StepError::soon(format!("steps.mesh_distribute.istiod_token_file: {}: {error}", path.display()))
            })?;
            request = request.bearer_auth(token.trim());
        }
        let response = request.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) {
            return Err(StepError::Permanent {
                why: format!(
                    "istiod refuses {url} ({status}): it takes a token with the audience istio-ca \
                     (steps.mesh_distribute.istiod_token_file) of an account in its own namespace, or in one that its \
                     DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES names"
                ),
            });
        }
        if !status.is_success() {
            return Err(StepError::soon(format!("istiod answers {status} at {url}")));
        }
        let body = response.text().await.map_err(|error| failed(&error))?;
        // Of what it is instead, nothing is quoted: it may quote the token.
        serde_json::from_str(&body)
            .map_err(|_| StepError::soon(format!("istiod's answer at {url} is no mesh configuration")))
    }
}

fn distribute(document: &Value) -> Value {
    let distribute = &document["localityLbSetting"]["distribute"];
    if distribute.is_null() { json!([]) } else { distribute.clone() }
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
