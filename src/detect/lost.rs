//! Do calls to one zone get lost before its servers see them?
//!
//! Why this statistic: servers can't report what never reached them, and clients in every zone suffer alike, so neither
//! vantage alone names the zone. Together they do: clients fail more than servers account for, and *one* zone's servers
//! answer less than their usual share by about as much. The weaker of the two pieces of evidence counts.

use super::compare::{Look, Prepared};
use super::history::Frame;
use super::proportion;
use crate::domain::{ServiceSettings, Signal};

/// What is missing at the zone and what clients lost are the same within this factor.
const AGREEMENT: f64 = 2.0;
/// No more than this share of the losses may be one zone's clients': then it is about these clients.
const ONE_ZONES_CLIENTS: f64 = 0.8;

/// By zone, what its servers should answer, judged by what the others answer and by their usual shares.
pub(super) fn expected_served(served: &[f64], usual: &[f64]) -> Vec<f64> {
    let (all, all_usual): (f64, f64) = (served.iter().sum(), usual.iter().sum());
    let of_zone = |(now, known): (&f64, &f64)| {
        let others = all_usual - known;
        if others > 0.0 { (all - now) * known / others } else { 0.0 }
    };
    served.iter().zip(usual).map(of_zone).collect()
}

/// Each zone's servers: what is lost on the way to them.
pub(super) fn compare(
    sum: &Frame,
    usual: &Frame,
    prepared: &Prepared,
    smoothing: f64,
    settings: &ServiceSettings,
) -> Vec<Look> {
    let total = |column: &[f64]| column.iter().sum::<f64>();
    let rate = |failed: &[f64], all: &[f64]| (total(failed) + 1.0) / (total(all) + 500.0);
    let (calls, served) = (total(&sum.called), total(&sum.served));
    let known = total(&usual.called_failed) + 1.0;
    let usual_loss = rate(&usual.called_failed, &usual.called);
    // Not every call has a client in the mesh, nor every client's call a server in it.
    let seen_by_servers = total(&usual.served) / total(&usual.called).max(1.0);
    let by_servers = (total(&sum.served_failed) - served * rate(&usual.served_failed, &usual.served)).max(0.0)
        / seen_by_servers.max(1e-3);
    let unexplained = total(&sum.called_failed) - by_servers;
    let lost = unexplained - calls * usual_loss;
    let variance = prepared.noise(Signal::ClientErrors) * smoothing + 1.0 / known;
    let clients_nats =
        if lost > 0.0 { proportion::deviance(unexplained, calls * usual_loss, variance).max(0.0) } else { 0.0 };
    let by_client = |zone: usize| (sum.called_failed[zone] - sum.called[zone] * usual_loss).max(0.0);
    let losses: Vec<f64> = (0..sum.called.len()).map(by_client).collect();
    let everywhere = losses.iter().copied().fold(0.0, f64::max) <= ONE_ZONES_CLIENTS * total(&losses);

    let expected = expected_served(&sum.served, &usual.served);
    let missing: Vec<f64> = expected.iter().zip(&sum.served).map(|(e, s)| e - s).collect();
    let lost_there = lost * seen_by_servers;
    (0..sum.served.len())
        .map(|zone| {
            let (due, gone) = (expected[zone], missing[zone]);
            let alone = (0..missing.len()).all(|other| other == zone || missing[other] * AGREEMENT <= gone);
            let agree = gone <= AGREEMENT * lost_there && lost_there <= AGREEMENT * gone;
            let live = calls >= f64::from(settings.min_requests) && due >= f64::from(settings.min_requests);
            let share_variance = due * (1.0 + due / (served - sum.served[zone]).max(1.0))
                + prepared.noise(Signal::LostCalls) * smoothing * due * due;
            let share_z = gone / share_variance.max(1.0).sqrt();
            let nats = if live && alone && agree && everywhere && gone > 0.0 {
                clients_nats.min(share_z * share_z / 2.0)
            } else {
                0.0
            };
            let effect = (lost_there / due.max(1.0)).clamp(0.0, 1.0);
            let large = nats > 0.0
                && lost >= f64::from(settings.min_failures)
                && lost / calls.max(1.0) >= settings.min_error_excess.as_fraction()
                && unexplained >= settings.min_error_ratio.times() * calls * usual_loss;
            Look {
                z: (2.0 * nats).sqrt(),
                effect,
                large,
                live,
                weight: due,
                own: if large { effect } else { 0.0 },
                own_nats: if large { nats } else { 0.0 },
                seen: effect,
                expected: 0.0,
                error: effect / share_z.max(1.0),
                peers: calls,
                peers_seen: unexplained / calls.max(1.0),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zones_share_is_measured_by_what_the_others_answer() {
        let due = expected_served(&[100.0, 50.0, 100.0], &[1000.0, 1000.0, 1000.0]);
        assert_eq!(due, [75.0, 100.0, 75.0], "the second zone's servers miss half of theirs");
    }
}
