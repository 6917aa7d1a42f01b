//! What was there, and what to do about what is there now. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::balancer::{Balancer, Mapping, Seen, State};
use super::settings::{Kind, LoadBalancer};
use crate::domain::isolation::Receipt;
use crate::ports::StepError;

/// How a load balancer had a zone before: whether the shift is ours to make, and so to take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Was {
    /// In its DNS name.
    Active,
    /// Out of it: by somebody else, who is to give it back.
    Out,
    /// It had no address in the zone.
    Absent,
}

/// One line of a receipt: `nlb cn-hangzhou nlb-1` is `active cn-hangzhou-k vsw-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub balancer: Balancer,
    pub zone: String,
    pub was: Was,
    /// Whether the settings still name it.
    pub configured: bool,
}

impl fmt::Display for Was {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Out => "out",
            Self::Absent => "absent",
        })
    }
}

impl FromStr for Was {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Active, Self::Out, Self::Absent].into_iter().find(|was| was.to_string() == text).ok_or(())
    }
}

pub(super) fn permanent(why: impl Into<String>) -> StepError {
    StepError::Permanent { why: why.into() }
}

pub(super) fn soon(why: impl Into<String>) -> StepError {
    StepError::Transient { why: why.into(), retry_after: jiff::SignedDuration::from_secs(2) }
}

pub(super) fn key(balancer: &Balancer) -> String {
    format!("{} {} {}", balancer.kind.as_str(), balancer.region, balancer.id)
}

/// What to note of a load balancer before anything is changed.
pub(super) fn note(balancer: &Balancer, seen: &Seen, zone: &str) -> Result<String, StepError> {
    let Some(mapping) = seen.mapping(zone) else { return Ok(format!("{} {zone}", Was::Absent)) };
    let was = match &mapping.status {
        State::Active => Was::Active,
        State::Shifted => Was::Out,
        State::Other(state) if ["Stopped", "Stopping"].contains(&state.as_str()) => Was::Out,
        State::Other(_) => return Err(unsettled(balancer, mapping)),
    };
    Ok(format!("{was} {zone} {}", mapping.v_switch_id))
}

/// Reads a receipt. Where a load balancer is called is as the settings say now, be it of another of its kind and region.
pub(super) fn lines(receipt: &Receipt, configured: &BTreeMap<String, Balancer>) -> Result<Vec<Line>, StepError> {
    let line = |(key, value): (&String, &String)| {
        let (was, rest) = value.split_once(' ')?;
        let zone = rest.split(' ').next()?.to_owned();
        let now = configured.get(key).cloned();
        let still = now.is_some();
        let balancer = now.or_else(|| balancer_of(key, configured))?;
        Some(Line { balancer, zone, was: was.parse().ok()?, configured: still })
    };
    let read = |(key, value)| {
        let unreadable =
            || permanent(format!("the receipt has `{key}`: `{value}`, which is no load balancer and state"));
        line((key, value)).ok_or_else(unreadable)
    };
    receipt.0.iter().map(read).collect()
}

fn balancer_of(key: &str, configured: &BTreeMap<String, Balancer>) -> Option<Balancer> {
    let mut words = key.splitn(3, ' ');
    let word = words.next()?;
    let kind = [Kind::Nlb, Kind::Alb].into_iter().find(|kind| kind.as_str() == word)?;
    let (region, id) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut balancer = Balancer::of(&LoadBalancer { kind, id, region, endpoint: None }).ok()?;
    let sibling = configured.values().find(|other| (other.kind, &other.region) == (kind, &balancer.region));
    if let Some(sibling) = sibling {
        balancer.endpoint = sibling.endpoint.clone();
    }
    Some(balancer)
}

impl Line {
    /// The mapping to shift, if it is not so already.
    pub fn to_shift<'a>(&self, seen: &'a Seen) -> Result<Option<&'a Mapping>, StepError> {
        let (balancer, zone) = (&self.balancer, &self.zone);
        let Some(mapping) = seen.mapping(zone) else { return Ok(None) };
        match (self.was, &mapping.status) {
            (_, State::Shifted) | (Was::Out, State::Other(_)) => Ok(None),
            (Was::Out, State::Active) => Err(permanent(format!(
                "{balancer} takes traffic in {zone} again: somebody else had shifted it before the isolation began, and \
                 has given it back since. It is left as it is: shift it by hand, or give the zone back and isolate it anew"
            ))),
            (Was::Absent, State::Active) => Err(permanent(format!(
                "{balancer} has addresses in {zone} since the isolation began: shift it by hand, or give the zone back \
                 and isolate it anew"
            ))),
            (Was::Active, State::Active) => {
                self.settled(seen)?;
                Ok(Some(mapping))
            }
            (Was::Active | Was::Absent, State::Other(_)) => Err(unsettled(balancer, mapping)),
        }
    }

    /// Why the zone can't go: nothing else is left in the DNS name.
    pub fn last(&self, seen: &Seen) -> Option<StepError> {
        let here = seen.mapping(&self.zone).is_some_and(|mapping| mapping.status == State::Active);
        let due = here && self.was == Was::Active && seen.active_beside(&self.zone).is_empty();
        due.then(|| permanent(last(&self.balancer, &self.zone)))
    }

    /// The mapping to give back, if it is not so already.
    pub fn to_give_back<'a>(&self, seen: &'a Seen) -> Result<Option<&'a Mapping>, StepError> {
        let Some(mapping) = seen.mapping(&self.zone).filter(|_| self.was == Was::Active) else { return Ok(None) };
        match &mapping.status {
            State::Active => Ok(None),
            State::Shifted => {
                self.settled(seen)?;
                Ok(Some(mapping))
            }
            State::Other(_) => Err(unsettled(&self.balancer, mapping)),
        }
    }

    /// It takes no change while it makes one.
    fn settled(&self, seen: &Seen) -> Result<(), StepError> {
        let status = &seen.load_balancer_status;
        let waits = || soon(format!("{} is {status}: it takes a change once it is Active", self.balancer));
        if status == "Active" { Ok(()) } else { Err(waits()) }
    }

    /// Whether it has come so far, as read back.
    pub fn confirm(&self, seen: &Seen, wanted: &State) -> Result<(), StepError> {
        match seen.mapping(&self.zone).filter(|_| self.was == Was::Active) {
            Some(mapping) if mapping.status != *wanted => {
                let (zone, status) = (&self.zone, &mapping.status);
                Err(soon(format!("{} has {zone} as {status}, and not {wanted} yet", self.balancer)))
            }
            Some(_) | None => Ok(()),
        }
    }
}

pub(super) fn last(balancer: &Balancer, zone: &str) -> String {
    format!(
        "{balancer} would be left with no active zone: {zone} is the last one in its DNS name. It is left as it \
         is. Give it another zone, or give back one that is shifted"
    )
}

fn unsettled(balancer: &Balancer, mapping: &Mapping) -> StepError {
    soon(format!("{balancer} has {} as {}: that must end first", mapping.zone_id, mapping.status))
}

/// All of them in one. Tried again soon if any is worth it.
pub(super) fn all_of(errors: &[StepError]) -> Result<(), StepError> {
    let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let waits = errors.iter().filter_map(|error| match error {
        StepError::Transient { retry_after, .. } => Some(*retry_after),
        StepError::Permanent { .. } => None,
    });
    match waits.max() {
        _ if errors.is_empty() => Ok(()),
        Some(retry_after) => Err(StepError::Transient { why: text, retry_after }),
        None => Err(StepError::Permanent { why: text }),
    }
}
