//! Where keys come from, and when they are renewed.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::http::Http;
use super::{Endpoint, Error, Keys, Parameters, Secret, ecs_role, rrsa};
use crate::domain::Period;

/// The metadata server answers from the same machine.
const LONGEST_METADATA_CALL: Period = Period::from_secs(3);

/// Which keys are taken. `auto` is the first of the others that the environment offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    #[default]
    Auto,
    Env,
    Rrsa,
    EcsRole,
}

/// What a process finds around it.
#[derive(Clone)]
pub struct Surroundings {
    pub variables: Parameters,
    /// In place of the one that the variables name.
    pub sts: Option<Endpoint>,
    pub metadata: String,
}

impl Surroundings {
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("ALIBABA_CLOUD_"))?;
            Some((name, value.into_string().ok()?))
        });
        Self { variables: variables.collect(), sts: None, metadata: "http://100.100.100.200".to_owned() }
    }

    /// A variable that is set to something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(&format!("ALIBABA_CLOUD_{name}")).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    pub(super) fn says_yes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// The keys to sign with.
///
/// Guarantees: they are renewed five minutes before they expire, once for all who wait for them; while they can't be, those
/// at hand are used as long as they are valid.
pub struct Credentials {
    source: Source,
    surroundings: Surroundings,
    http: Http,
    metadata: Http,
    kept: Mutex<Option<Arc<Keys>>>,
}

impl Credentials {
    pub fn new(source: Source, surroundings: Surroundings, timeout: Period) -> Self {
        let metadata = Http::direct(timeout.min(LONGEST_METADATA_CALL));
        Self { source, surroundings, http: Http::new(timeout), metadata, kept: Mutex::default() }
    }

    /// Which source they come from, without a secret.
    pub fn describe(&self) -> Result<String, Error> {
        Ok(match self.chosen()? {
            Source::Rrsa => {
                format!("the role {} (RRSA)", self.surroundings.get("ROLE_ARN").unwrap_or_default())
            }
            Source::EcsRole => "the RAM role of this ECS instance".to_owned(),
            Source::Env | Source::Auto => "the access key of the environment".to_owned(),
        })
    }

    pub async fn get(&self, now: Timestamp) -> Result<Arc<Keys>, Error> {
        let mut kept = self.kept.lock().await;
        if let Some(keys) = kept.as_ref().filter(|keys| keys.fresh(now)) {
            return Ok(Arc::clone(keys));
        }
        match (self.fetch(now).await, kept.as_ref().filter(|keys| keys.valid(now))) {
            (Ok(keys), _) => {
                let keys = Arc::new(keys);
                *kept = Some(Arc::clone(&keys));
                Ok(keys)
            }
            (Err(error), Some(keys)) => {
                tracing::warn!(%error, "the credentials of Alibaba Cloud can't be renewed; they are still valid");
                Ok(Arc::clone(keys))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Others, as these were refused; none if the source has no others.
    pub async fn other_than(&self, refused: &Keys, now: Timestamp) -> Result<Option<Arc<Keys>>, Error> {
        {
            let mut kept = self.kept.lock().await;
            if kept.as_ref().is_some_and(|keys| **keys == *refused) {
                *kept = None;
            }
        }
        Ok(Some(self.get(now).await?).filter(|keys| **keys != *refused))
    }

    fn chosen(&self) -> Result<Source, Error> {
        let has = |names: &[&str]| names.iter().all(|name| self.surroundings.get(name).is_some());
        match self.source {
            Source::Auto if has(&["ACCESS_KEY_ID", "ACCESS_KEY_SECRET"]) => Ok(Source::Env),
            Source::Auto if has(&["ROLE_ARN", "OIDC_PROVIDER_ARN", "OIDC_TOKEN_FILE"]) => Ok(Source::Rrsa),
            Source::Auto | Source::EcsRole if !self.surroundings.says_yes("ECS_METADATA_DISABLED") => {
                Ok(Source::EcsRole)
            }
            Source::Auto | Source::EcsRole => Err(Error::Misconfigured(
                "there are no credentials: the environment has neither ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET, nor \
                 RRSA's variables (is the namespace enabled for it?), and ALIBABA_CLOUD_ECS_METADATA_DISABLED forbids \
                 the ECS instance's role"
                    .to_owned(),
            )),
            Source::Env | Source::Rrsa => Ok(self.source),
        }
    }

    async fn fetch(&self, now: Timestamp) -> Result<Keys, Error> {
        match self.chosen()? {
            Source::Env | Source::Auto => of_environment(&self.surroundings),
            Source::Rrsa => rrsa::fetch(&self.http, &self.surroundings, now).await,
            Source::EcsRole => ecs_role::fetch(&self.metadata, &self.surroundings).await,
        }
    }
}

fn of_environment(surroundings: &Surroundings) -> Result<Keys, Error> {
    Ok(Keys {
        id: Secret::new(variable(surroundings, "ACCESS_KEY_ID")?),
        secret: Secret::new(variable(surroundings, "ACCESS_KEY_SECRET")?),
        token: surroundings.get("SECURITY_TOKEN").map(Secret::new),
        expires: None,
    })
}

pub(super) fn variable<'a>(surroundings: &'a Surroundings, name: &str) -> Result<&'a str, Error> {
    let missing = || {
        let hint = "set it, or choose another source of credentials (credentials: auto, env, rrsa, ecs_role)";
        Error::Misconfigured(format!("the environment has no ALIBABA_CLOUD_{name}: {hint}"))
    };
    surroundings.get(name).ok_or_else(missing)
}

/// Temporary keys, as STS and the metadata server write them. Says nothing of what it could not read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Temporary {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
    expiration: Timestamp,
}

impl From<Temporary> for Keys {
    fn from(temporary: Temporary) -> Self {
        Self {
            id: Secret::new(temporary.access_key_id),
            secret: Secret::new(temporary.access_key_secret),
            token: Some(Secret::new(temporary.security_token)),
            expires: Some(temporary.expiration),
        }
    }
}
