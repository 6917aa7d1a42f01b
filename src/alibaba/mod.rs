//! Alibaba Cloud's API: signed calls, and the credentials for them. Written from the public documentation and SDKs; not
//! verified on a live account.

mod client;
mod credentials;
mod ecs_role;
mod endpoint;
mod error;
mod http;
mod keys;
mod rrsa;
pub mod sign;

pub use client::{Call, Client};
pub use credentials::{Credentials, Source, Surroundings};
pub use endpoint::Endpoint;
pub use error::{Error, Refusal};
pub use keys::Keys;

pub use crate::domain::Secret;

/// By name. Lists are `Name.1`, `Name.2`.
pub type Parameters = std::collections::BTreeMap<String, String>;

pub fn parameters<const N: usize>(pairs: [(&str, &str); N]) -> Parameters {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
