//! The calls to AWS, and what their refusals mean.

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_arczonalshift::Client;
use aws_sdk_arczonalshift::config::{Region, SharedCredentialsProvider};
use aws_sdk_arczonalshift::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_arczonalshift::operation::cancel_zonal_shift::CancelZonalShiftError;
use aws_sdk_arczonalshift::operation::get_managed_resource::GetManagedResourceOutput;
use aws_sdk_arczonalshift::operation::start_zonal_shift::StartZonalShiftError;
use aws_sdk_arczonalshift::operation::update_zonal_shift::UpdateZonalShiftError;
use aws_sdk_arczonalshift::types::{ShiftType, ZonalShiftStatus};
use jiff::SignedDuration;
use tokio::sync::Mutex;

use super::settings::Settings;
use crate::domain::{Secret, Zone};
use crate::ports::StepError;

/// Of 100 shifts each.
const MOST_PAGES: usize = 20;
const COMMENT: &str = "zoneward: ";
/// Of what AWS says, and of a word of it: an ARN may be long.
const SHOWN_CHARS: usize = 600;
const LONGEST_WORD: usize = 200;
const SOON: SignedDuration = SignedDuration::from_secs(2);
const THROTTLED: SignedDuration = SignedDuration::from_secs(10);
/// AWS shifts by itself, and ends that by itself.
const AUTOSHIFT: SignedDuration = SignedDuration::from_mins(1);

pub(super) fn permanent(why: impl Into<String>) -> StepError {
    StepError::Permanent { why: why.into() }
}

/// An active shift of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shift {
    pub id: String,
    pub resource: String,
    pub away_from: String,
    pub expires_at: i64,
    pub comment: String,
    /// Whether somebody wants it, and not AWS for practice or by itself.
    pub wanted: bool,
}

impl Shift {
    /// The zone that we shifted away from, by the comment.
    pub fn zone(&self) -> Option<Zone> {
        self.comment.strip_prefix(COMMENT)?.split_whitespace().next().map(Zone::new)
    }

    pub fn is_of(&self, zone: &Zone) -> bool {
        self.zone().as_ref() == Some(zone)
    }
}

pub(super) fn comment(zone: &Zone) -> String {
    format!("{COMMENT}{zone} is isolated")
}

/// What came of a request that others may have been faster with.
pub(super) enum Outcome {
    Done,
    /// The resource has a shift already; or it has none any more.
    Otherwise,
}

/// Credentials come from where AWS' libraries look for them: the environment, a role of the service account (IRSA), of the
/// pod (EKS Pod Identity), or of the machine. They are renewed by the library, and never shown.
pub(super) struct Calls {
    settings: Settings,
    credentials: Option<SharedCredentialsProvider>,
    client: Mutex<Option<Client>>,
}

impl Calls {
    pub fn new(settings: Settings, credentials: Option<SharedCredentialsProvider>) -> Self {
        Self { settings, credentials, client: Mutex::new(None) }
    }

    async fn client(&self) -> Client {
        let mut known = self.client.lock().await;
        if let Some(client) = &*known {
            return client.clone();
        }
        let timeout = self.settings.timeout.unsigned();
        // Whoever runs a step tries again, and says so.
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.settings.region()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build());
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        if let Some(endpoint) = &self.settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let client = Client::new(&loader.load().await);
        *known = Some(client.clone());
        client
    }

    /// Every active shift of the account in the region: one call for all resources.
    pub async fn active(&self) -> Result<Vec<Shift>, StepError> {
        let request = self.client().await.list_zonal_shifts().status(ZonalShiftStatus::Active);
        let mut pages = request.into_paginator().page_size(100).send();
        let mut shifts = Vec::new();
        for _ in 0..MOST_PAGES {
            let page = match pages.next().await {
                None => return Ok(shifts),
                Some(Err(error)) => return Err(self.failed("zonal shifts can't be listed", &error).await),
                Some(Ok(page)) => page,
            };
            shifts.extend(page.items().iter().map(|it| Shift {
                id: it.zonal_shift_id().to_owned(),
                resource: it.resource_identifier().to_owned(),
                away_from: it.away_from().to_owned(),
                expires_at: it.expiry_time().secs(),
                comment: it.comment().to_owned(),
                wanted: it.shift_type().is_none_or(|kind| *kind == ShiftType::ZonalShift),
            }));
        }
        Err(permanent(format!("there are more than {} active zonal shifts", MOST_PAGES * 100)))
    }

    pub async fn start(&self, arn: &str, zone: &Zone, zone_id: &str) -> Result<Outcome, StepError> {
        let request = self.client().await.start_zonal_shift().resource_identifier(arn).away_from(zone_id);
        let request = request.comment(comment(zone)).expires_in(self.settings.expires_in());
        let Err(error) = request.send().await else { return Ok(Outcome::Done) };
        let what = format!("{arn} can't be shifted away from {zone_id}");
        if let Some(StartZonalShiftError::ConflictException(conflict)) = error.as_service_error() {
            return match conflict.reason().as_str() {
                "ZonalShiftAlreadyExists" => Ok(Outcome::Otherwise),
                reason => Err(conflicting(&what, reason, &without_keys(&conflict.message))),
            };
        }
        if let Some(StartZonalShiftError::ValidationException(invalid)) = error.as_service_error() {
            let (reason, said) = (invalid.reason().as_str(), without_keys(&invalid.message));
            let hint = if matches!(reason, "InvalidAz" | "UnsupportedAz") { WRONG_ZONE } else { "" };
            return Err(permanent(format!("{what}: {said} ({reason}){hint}")));
        }
        Err(self.failed(&what, &error).await)
    }

    pub async fn extend(&self, shift: &Shift) -> Result<Outcome, StepError> {
        let request = self.client().await.update_zonal_shift().zonal_shift_id(&shift.id);
        let Err(error) = request.expires_in(self.settings.expires_in()).send().await else { return Ok(Outcome::Done) };
        let what = format!("the shift of {} away from {} can't be extended", shift.resource, shift.away_from);
        match error.as_service_error() {
            Some(UpdateZonalShiftError::ConflictException(conflict)) => match conflict.reason().as_str() {
                "ZonalShiftStatusNotActive" => Ok(Outcome::Otherwise),
                reason => Err(conflicting(&what, reason, &without_keys(&conflict.message))),
            },
            Some(UpdateZonalShiftError::ResourceNotFoundException(_)) => Ok(Outcome::Otherwise),
            _ => Err(self.failed(&what, &error).await),
        }
    }

    /// One that is cancelled, or has expired, is as good.
    pub async fn cancel(&self, shift: &Shift) -> Result<(), StepError> {
        let request = self.client().await.cancel_zonal_shift().zonal_shift_id(&shift.id);
        let Err(error) = request.send().await else { return Ok(()) };
        let what = format!("the shift of {} away from {} can't be cancelled", shift.resource, shift.away_from);
        match error.as_service_error() {
            Some(CancelZonalShiftError::ConflictException(conflict)) => match conflict.reason().as_str() {
                "ZonalShiftStatusNotActive" => Ok(()),
                reason => Err(conflicting(&what, reason, &without_keys(&conflict.message))),
            },
            Some(CancelZonalShiftError::ResourceNotFoundException(_)) => Ok(()),
            _ => Err(self.failed(&what, &error).await),
        }
    }

    pub async fn managed(&self, arn: &str) -> Result<GetManagedResourceOutput, StepError> {
        match self.client().await.get_managed_resource().resource_identifier(arn).send().await {
            Ok(resource) => Ok(resource),
            Err(error) => Err(self.failed(&format!("{arn} can't be looked at"), &error).await),
        }
    }

    /// What is refused for good, and what is worth another try.
    async fn failed<E>(&self, what: &str, error: &SdkError<E>) -> StepError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let later = |why: String, retry_after| StepError::Transient { why, retry_after };
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let Some(code) = error.as_service_error().and_then(|error| error.meta().code()) else {
            let why = format!("{what}: {}", without_keys(&causes(error)));
            return if status == 403 { permanent(why) } else { later(why, SOON) };
        };
        let said = error.as_service_error().and_then(|error| error.meta().message()).unwrap_or("no reason given");
        let said = without_keys(said);
        let why = format!("{what}: {said} ({code})");
        match code {
            "ThrottlingException" | "Throttling" | "TooManyRequestsException" => later(why, THROTTLED),
            "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
                // The next try looks for credentials anew.
                *self.client.lock().await = None;
                later(format!("{why}; they are looked for anew"), SOON)
            }
            "AccessDeniedException" => {
                permanent(format!("{why}; does deploy/aws/iam-policy.json apply to this account?"))
            }
            "ResourceNotFoundException" => permanent(format!("{why}; is zonal shift enabled on the resource?")),
            // What AWS says of these may quote the request, with the session token.
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "UnrecognizedClientException" => {
                permanent(format!("{what}: {code}; are the credentials those of this account, and is the clock right?"))
            }
            _ if status == 429 => later(why, THROTTLED),
            _ if status >= 500 => later(why, SOON),
            _ => permanent(why),
        }
    }
}

/// What AWS says may quote what it was sent. Tokens are hundreds of letters long, and nothing else that it says is.
fn without_keys(said: &str) -> String {
    let variables = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let keys: Vec<Secret> = variables.iter().filter_map(|name| std::env::var(name).ok()).map(Secret::new).collect();
    let said = Secret::hide_all(&keys, said);
    let shown = |word: &'_ str| if word.len() > LONGEST_WORD { "…".to_owned() } else { word.to_owned() };
    let words: Vec<String> = said.split_whitespace().map(shown).collect();
    words.join(" ").chars().take(SHOWN_CHARS).collect()
}

const WRONG_ZONE: &str = "; is the resource in that zone, and is its id right? (steps.dns_aws_arc.zone_ids)";

fn conflicting(what: &str, reason: &str, said: &str) -> StepError {
    let why = format!("{what}: {said} ({reason})");
    match reason {
        "SimultaneousZonalShiftsConflict" => StepError::Transient { why, retry_after: SOON },
        "ZonalAutoshiftActive" => StepError::Transient { why, retry_after: AUTOSHIFT },
        _ => permanent(why),
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    texts.join(": ")
}
