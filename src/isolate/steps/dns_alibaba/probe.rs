//! What people are told before anything is changed.

use super::balancer::{Balancer, Mapping, Seen, State, Verb, only_fixed};
use super::settings::Kind;
use super::{DnsAlibaba, Probe, plan};
use crate::alibaba::{Error, Refusal};
use crate::domain::isolation::Share;

/// What giving a zone this share would do to a load balancer.
pub(super) fn prospect(balancer: &Balancer, seen: &Seen, zone: &str, share: Share) -> String {
    let left = seen.active_beside(zone);
    match seen.mapping(zone).map(|mapping| &mapping.status) {
        None => format!("{balancer} has no address in {zone}: nothing to do"),
        Some(State::Active) if share > Share::NONE => format!("{balancer} keeps {zone} in its DNS name"),
        Some(State::Active) if left.is_empty() => {
            format!("would be refused: {}", plan::last(balancer, zone))
        }
        Some(State::Active) => {
            let warning = if seen.cross_zone_enabled { format!(". {}", crossing(zone)) } else { String::new() };
            format!(
                "{balancer} loses {zone} from its DNS name {}, and keeps {}{warning}",
                seen.dns_name,
                left.join(", ")
            )
        }
        Some(state) => {
            format!(
                "{balancer} has {zone} as {state} already: it is left so, and not given back by an isolation from now on"
            )
        }
    }
}

fn crossing(zone: &str) -> String {
    format!(
        "Cross-zone forwarding is on: its other zones still send to backends in {zone}, until other steps take those out"
    )
}

impl DnsAlibaba {
    /// Reads everything, and rehearses both changes where the cloud lets it.
    pub(super) async fn check(&self) -> Vec<Probe> {
        let mut probes = vec![match self.client.acts_by() {
            Ok(whose) => Probe::Works(format!("calls have the rights of {whose}")),
            Err(error) => return vec![Probe::broken(error.to_string())],
        }];
        let looked = match self.read_all().await {
            Ok(looked) => looked,
            Err(error) => return vec![Probe::broken(error.to_string())],
        };
        for (balancer, seen) in &looked {
            match seen {
                Ok(seen) => probes.extend(self.of_balancer(balancer, seen).await),
                Err(error) => probes.push(Probe::broken(balancer.failure(error).to_string())),
            }
        }
        let seen: Vec<&Seen> = looked.iter().filter_map(|(_, seen)| seen.as_ref().ok()).collect();
        probes.extend(self.of_zones(&seen));
        probes
    }

    async fn of_balancer(&self, balancer: &Balancer, seen: &Seen) -> Vec<Probe> {
        let zones: Vec<String> =
            seen.zone_mappings.iter().map(|mapping| format!("{} {}", mapping.zone_id, mapping.status)).collect();
        let mut probes = vec![Probe::Works(format!("{balancer}, {}: {}", seen.dns_name, zones.join(", ")))];
        if balancer.kind == Kind::Alb && seen.address_allocated_mode.as_deref().is_some_and(|mode| mode != "Fixed") {
            probes.push(Probe::broken(only_fixed(&balancer.id)));
            return probes;
        }
        if seen.cross_zone_enabled {
            let hint = "let a mesh step drain the zone's gateways, or turn cross-zone forwarding off";
            probes.push(Probe::unsure(format!("{balancer}: {}", crossing("a shifted zone")), hint));
        }
        let active = |mapping: &&Mapping| mapping.status == State::Active;
        let movable = |mapping: &&Mapping| !seen.active_beside(&mapping.zone_id).is_empty();
        match seen.zone_mappings.iter().filter(active).find(movable) {
            Some(mapping) => {
                probes.extend(self.rehearse_start(balancer, mapping).await);
                probes.extend(self.rehearse_cancel(balancer, mapping).await);
            }
            None => probes.push(Probe::unsure(
                format!("{balancer} has fewer than two active zones: none can be shifted"),
                "give it another zone, or give back one that is shifted",
            )),
        }
        probes
    }

    async fn rehearse_start(&self, balancer: &Balancer, mapping: &Mapping) -> Option<Probe> {
        let zone = &mapping.zone_id;
        match balancer.rehearse(&self.client, Verb::Start, mapping).await {
            Err(error) if error.refusal().is_some_and(says_it_would) => None,
            Err(error) => Some(failed(balancer, &error)),
            Ok(()) => Some(match balancer.read(&self.client).await {
                Ok(seen) if seen.mapping(zone).is_some_and(|mapping| mapping.status == State::Active) => Probe::unsure(
                    format!("{balancer} answered a rehearsal (DryRun) as if it had been done; it was not"),
                    "nothing to mend; whether a shift would be let through is not known",
                ),
                Ok(_) | Err(_) => Probe::broken_but(
                    format!("{balancer} took a rehearsal (DryRun) in earnest, or does not say: is {zone} shifted?"),
                    "look in the console, and give the zone back there",
                ),
            }),
        }
    }

    /// Of a zone that is active the cloud would refuse it; but a missing right is told first.
    async fn rehearse_cancel(&self, balancer: &Balancer, mapping: &Mapping) -> Option<Probe> {
        let error = balancer.rehearse(&self.client, Verb::Cancel, mapping).await.err()?;
        let matters = error.refusal().is_none_or(Refusal::is_forbidden);
        matters.then(|| failed(balancer, &error))
    }

    /// Zones of the cluster that are no zones of any load balancer here.
    fn of_zones(&self, seen: &[&Seen]) -> Vec<Probe> {
        let Ok(view) = (self.look)() else { return Vec::new() };
        let mut probes = Vec::new();
        for zone in view.zones().into_keys() {
            match self.settings.cloud_zone(zone) {
                Err(why) => probes.push(Probe::broken(why)),
                Ok(id) if !seen.is_empty() && seen.iter().all(|seen| seen.mapping(&id).is_none()) => {
                    let hint = "right if it serves no traffic from outside; else compare the names of the zones";
                    let found = format!("no load balancer here has an address in {id}: isolating it changes none");
                    probes.push(Probe::unsure(found, hint));
                }
                Ok(_) => {}
            }
        }
        probes
    }
}

fn says_it_would(refusal: &Refusal) -> bool {
    refusal.code == "DryRunOperation"
}

fn failed(balancer: &Balancer, error: &Error) -> Probe {
    let passing = error.refusal().is_none_or(Refusal::is_passing);
    let why = balancer.failure(error).to_string();
    if passing { Probe::unsure(why, "the rehearsal (DryRun) can't be judged: try again") } else { Probe::broken(why) }
}
