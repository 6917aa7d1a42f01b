//! What can go wrong with a call, as told to people.

use jiff::SignedDuration;
use serde::Deserialize;
use thiserror::Error;

use super::http::Answer;
use crate::ports::StepError;

/// As much as is shown of what a server says.
const SHOWN_CHARS: usize = 300;
/// Until another try, if the server names no time.
const SOON: SignedDuration = SignedDuration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No answer, or none that makes sense; what was asked for may have been done.
    #[error("{0}")]
    Lost(String),
    /// A person has to mend something before anything can be asked.
    #[error("{0}")]
    Misconfigured(String),
}

/// The server's answer that it does not do it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{server} refuses {action}: {message} ({code}, HTTP {status}, request {request_id}){}", hint(self))]
pub struct Refusal {
    pub server: String,
    pub action: String,
    /// What a RAM policy has to allow.
    pub right: String,
    pub status: u16,
    pub code: String,
    pub message: String,
    pub request_id: String,
    pub retry_after: Option<SignedDuration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Body {
    code: String,
    message: String,
    request_id: String,
}

impl Refusal {
    /// From an answer that is no success. `hide` takes out what must not be shown: servers quote what they were sent.
    pub(super) fn new(
        (server, action, right): (&str, &str, &str),
        answer: &Answer,
        hide: impl Fn(&str) -> String,
    ) -> Self {
        let body: Body = serde_json::from_slice(&answer.body).unwrap_or_default();
        let shown = |text: &str, instead: &str| {
            let text: String = hide(text).chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
            if text.is_empty() { instead.to_owned() } else { text }
        };
        Self {
            server: server.to_owned(),
            action: action.to_owned(),
            right: right.to_owned(),
            status: answer.status,
            code: shown(&body.code, "no code"),
            message: shown(&body.message, "it does not say why"),
            request_id: shown(&body.request_id, "unnamed"),
            retry_after: answer.retry_after,
        }
    }

    fn is(&self, families: &[&str]) -> bool {
        families
            .iter()
            .any(|family| self.code.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    /// Whether other keys may help.
    pub fn is_of_keys(&self) -> bool {
        self.is(&["InvalidSecurityToken", "InvalidAccessKeyId"])
    }

    /// Whether the right is missing.
    pub fn is_forbidden(&self) -> bool {
        self.is(&["Forbidden", "NoPermission", "Forbidden.RAM"])
    }

    /// Whether the resource is not there; a key or an action that is not there is something else.
    pub fn is_not_found(&self) -> bool {
        self.is(&["ResourceNotFound"])
    }

    /// Whether the same may work later, with nobody doing anything.
    pub fn is_passing(&self) -> bool {
        const PASSING: &[&str] = &[
            "Throttling",
            "ServiceUnavailable",
            "SystemBusy",
            "InternalError",
            "ResourceInConfiguring",
            "IncorrectStatus",
            "OperationFailed",
            "SignatureNonceUsed",
            "LastTokenProcessing",
        ];
        self.status == 429 || self.status >= 500 || self.is(PASSING)
    }
}

fn hint(refusal: &Refusal) -> String {
    if refusal.is_forbidden() && !refusal.right.is_empty() {
        format!(": let the account's RAM policy allow {}", refusal.right)
    } else if refusal.is(&["InvalidAccessKeyId"]) {
        ": the access key is none of the cloud's, or is disabled: give another".to_owned()
    } else if refusal.is(&["InvalidSecurityToken"]) {
        ": the security token has expired, or does not belong to the access key: give another".to_owned()
    } else if refusal.is(&["SignatureDoesNotMatch", "IncompleteSignature"]) {
        ": the access key's secret is another: compare it".to_owned()
    } else if refusal.is(&["InvalidTimeStamp"]) {
        ": its clock and ours differ by more than a quarter of an hour: set ours".to_owned()
    } else {
        String::new()
    }
}

impl Error {
    pub fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused(refusal) = self { Some(refusal) } else { None }
    }

    /// For the executor, with what a person has to do about it, where there is more to say.
    pub fn for_step(&self, advice: Option<&str>) -> StepError {
        let why = advice.map_or_else(|| self.to_string(), |advice| format!("{self}: {advice}"));
        match self {
            Self::Refused(refusal) if refusal.is_passing() => {
                StepError::Transient { why, retry_after: refusal.retry_after.unwrap_or(SOON) }
            }
            Self::Lost(_) => StepError::Transient { why, retry_after: SOON },
            Self::Refused(_) | Self::Misconfigured(_) => StepError::Permanent { why },
        }
    }
}
