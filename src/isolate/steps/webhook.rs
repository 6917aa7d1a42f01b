//! Any system: it is asked by signed HTTP requests, and answers in JSON. deploy/webhook.md is the contract for whoever
//! writes such a server.
//!
//! Each request is a POST with `{"version": 1, "verb", "step", "zone", "share_percent", "receipt", "idempotency_key"}`.
//! Verbs: `capture`, `apply` (its undo is 100 %), `confirm`, and three that may be missing (404 or 501): `marked`,
//! `preview`, `probe`. `Zoneward-Signature: t=<unix seconds>,v1=<hex>` is the HMAC-SHA256 of `t.body`.
//!
//! The idempotency key names a wish and not a call: it is the same in each retry, in each look while an isolation lasts,
//! and in the next isolation. It is for joining calls that overlap, and never for answering from memory.

mod call;
mod settings;

pub use settings::{Header, Settings};

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::call::{Answer, idempotency_key, permanent, post};
use super::{Preview, Probe, RealStep};
use crate::domain::Zone;
use crate::domain::isolation::{Granularity, Receipt, Share, StepName};
use crate::ports::{IsolationStep, StepError};

/// A receipt is kept in the ledger, which is one object of the API server.
const LARGEST_RECEIPT: usize = 16 * 1024;
const MOST_ZONES: usize = 100;
const MOST_LINES: usize = 100;

/// Asks a webhook.
///
/// Assumptions: the webhook keeps the guarantees of a step, and remembers what it did.
pub struct Webhook {
    settings: Settings,
}

impl Webhook {
    pub const fn new(settings: Settings) -> Self {
        Self { settings }
    }

    async fn ask(
        &self,
        verb: &str,
        zone: Option<&Zone>,
        share: Option<Share>,
        receipt: &Receipt,
    ) -> Result<Answer, StepError> {
        let mut wish = json!({
            "version": 1,
            "verb": verb,
            "step": self.name(),
            "zone": zone,
            "share_percent": share,
            "receipt": receipt,
        });
        let key = idempotency_key(&wish);
        wish["idempotency_key"] = key.clone().into();
        post(&self.settings, &wish, &key).await
    }

    async fn must_answer(
        &self,
        verb: &str,
        zone: &Zone,
        share: Option<Share>,
        receipt: &Receipt,
    ) -> Result<(Value, SignedDuration), StepError> {
        match self.ask(verb, Some(zone), share, receipt).await? {
            Answer::Said(said, retry_after) => Ok((said, retry_after)),
            Answer::NoSuchVerb => {
                let address = self.settings.address();
                Err(permanent(format!(
                    "the webhook {address} has no `{verb}` (HTTP 404 or 501): is it the right address?"
                )))
            }
        }
    }

    /// `{"done": true}`, or not yet and why.
    async fn must_be_done(&self, verb: &str, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        let (said, retry_after) = self.must_answer(verb, zone, Some(share), receipt).await?;
        if self.field::<bool>(&said, verb, "done")? {
            return Ok(());
        }
        let why: String = said["why"].as_str().unwrap_or("no reason given").chars().take(200).collect();
        let why = format!("the webhook has not done `{verb}` of {zone} yet: {why}");
        Err(StepError::Transient { why, retry_after })
    }

    fn field<T: DeserializeOwned>(&self, said: &Value, verb: &str, key: &str) -> Result<T, StepError> {
        serde_json::from_value(said[key].clone()).map_err(|error| {
            let address = self.settings.address();
            permanent(format!("the webhook {address} answered `{verb}` without a right `{key}` ({error})"))
        })
    }

    /// What would change, if the webhook can say.
    async fn changes(&self, zone: &Zone, share: Share) -> Result<Option<Vec<String>>, StepError> {
        match self.ask("preview", Some(zone), Some(share), &Receipt::default()).await? {
            Answer::Said(said, _) => {
                let lines: Vec<String> = self.field(&said, "preview", "changes")?;
                Ok(Some(lines.into_iter().take(MOST_LINES).collect()))
            }
            Answer::NoSuchVerb => Ok(None),
        }
    }
}

#[async_trait]
impl IsolationStep for Webhook {
    fn name(&self) -> StepName {
        StepName::new("webhook")
    }

    fn granularity(&self) -> Granularity {
        if self.settings.partial_shares { Granularity::Pods } else { Granularity::AllOrNothing }
    }

    async fn capture(&self, zone: &Zone) -> Result<Receipt, StepError> {
        let (said, _) = self.must_answer("capture", zone, None, &Receipt::default()).await?;
        let receipt: BTreeMap<String, String> = self.field(&said, "capture", "receipt")?;
        let size: usize = receipt.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > LARGEST_RECEIPT {
            return Err(permanent(format!(
                "the webhook's receipt has {size} bytes, and may have {LARGEST_RECEIPT}: keep the rest on its side"
            )));
        }
        Ok(Receipt(receipt))
    }

    async fn apply(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.must_be_done("apply", zone, receipt, share).await
    }

    async fn confirm(&self, zone: &Zone, receipt: &Receipt, share: Share) -> Result<(), StepError> {
        self.must_be_done("confirm", zone, receipt, share).await
    }

    async fn marked(&self) -> Result<BTreeSet<Zone>, StepError> {
        match self.ask("marked", None, None, &Receipt::default()).await? {
            Answer::NoSuchVerb => Ok(BTreeSet::new()),
            Answer::Said(said, _) => {
                let zones: BTreeSet<Zone> = self.field(&said, "marked", "zones")?;
                if zones.len() > MOST_ZONES {
                    return Err(permanent(format!(
                        "the webhook names {} marked zones; {MOST_ZONES} is the most",
                        zones.len()
                    )));
                }
                Ok(zones)
            }
        }
    }
}

#[async_trait]
impl RealStep for Webhook {
    async fn preview(&self, zone: &Zone, share: Share) -> Result<Preview, StepError> {
        let unknown = || vec![format!("{} is asked to give {zone} {share} of its traffic", self.settings.address())];
        let changes = self.changes(zone, share).await?.unwrap_or_else(unknown);
        Ok(Preview { changes, ..Preview::default() })
    }

    async fn probe(&self) -> Vec<Probe> {
        let address = self.settings.address();
        vec![match self.ask("probe", None, None, &Receipt::default()).await {
            Ok(Answer::Said(said, _)) => {
                let found: String = said["found"].as_str().unwrap_or("it answers").chars().take(200).collect();
                Probe::Works(format!("{address}: {found}"))
            }
            Ok(Answer::NoSuchVerb) => Probe::unsure(
                format!("{address} answers, but can't be probed (HTTP 404 or 501)"),
                "let it answer the verb `probe`, which changes nothing (deploy/webhook.md)",
            ),
            Err(error) => Probe::broken(error.to_string()),
        }]
    }

    /// By what it says is marked. What it does not know of, a receipt in the ledger does.
    async fn sweep(&self, zone: Option<&Zone>) -> Result<Vec<String>, StepError> {
        let marked = self.marked().await?;
        let mut lines = Vec::new();
        for marked in marked.iter().filter(|marked| zone.is_none_or(|zone| zone == *marked)) {
            self.apply(marked, &Receipt::default(), Share::FULL).await?;
            lines.push(format!("{marked}, as the webhook says"));
        }
        Ok(lines)
    }
}
