//! What else could explain it: other zones just as bad, servers elsewhere, one pod.

use std::collections::BTreeMap;

use super::history::History;
use super::persist::Watch;
use super::proportion;
use super::settings::{Scale, Settings};
use super::tail::{self, SLOW_SHARES};
use super::track::Track;
use crate::domain::verdict::PodView;
use crate::domain::{Calls, PodCalls, ServiceId, Signal};

/// Another zone with this share of the excess makes a fault regional.
const RIVAL_SHARE: f64 = 0.5;
/// Excesses below this are no measure of a rival.
const RIVAL_FLOOR: f64 = 0.002;
/// Cycles for which a rival in doubt, and one beyond doubt, is remembered: regional faults reach zones one by one.
const DOUBTFUL_RIVAL: u32 = 3;
const SURE_RIVAL: u32 = 20;
/// Pods are compared over at least so many cycles, and where a zone has so many of them.
pub(super) const POD_CYCLES: usize = 8;
const FEWEST_PODS: usize = 3;
/// Share of the excess in one pod that makes it the pod's fault.
const POD_SHARE: f64 = 0.5;

/// How far a zone has left its own past.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    pub excess: f64,
    pub nats: f64,
}

/// For how many cycles to remember that another zone is about as bad as this one.
pub(super) fn rival_memory(zones: &[Rival], zone: usize, settings: &Settings) -> u32 {
    let threshold = RIVAL_SHARE * zones[zone].excess.max(RIVAL_FLOOR);
    let rivals = || zones.iter().enumerate().filter(|(z, rival)| *z != zone && rival.excess >= threshold);
    if rivals().any(|(_, rival)| rival.nats >= settings.suspect.get()) {
        SURE_RIVAL
    } else if rivals().next().is_some() {
        DOUBTFUL_RIVAL
    } else {
        0
    }
}

/// Why a zone's clients alone are no reason to isolate it, if so.
///
/// Bad servers make clients suffer in every zone: only what no server reports counts, and only at several
/// destinations, where there are several.
pub(super) fn clients_of_bad_servers(history: &History, service: Option<&Track>, zone: usize) -> Option<String> {
    let zones = 0..history.zones.len();
    if let Some(track) = service {
        let server = zones.clone().find(|z| track.watches.get(Signal::ServerErrors, *z).reading.suspicious);
        if let Some(at) = server {
            return Some(format!("its clients fail because of servers in {}", history.zones[at]));
        }
    }
    let readings = || history.tracks.values().map(|track| track.watches.get(Signal::ClientErrors, zone).reading);
    let live = readings().filter(|r| r.latest.live).count();
    let suspicious = readings().filter(|r| r.suspicious).count();
    (live >= 2 && suspicious < 2).then(|| "only its clients of one service fail".to_owned())
}

/// What is left out when one is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    Pod,
    Node,
}

/// The pod, or the node with its pods, that explains what is wrong with a service in a zone of three pods or more: it has
/// most of the excess, and without it the others would raise no suspicion. Durations are looked at through the share of
/// slow requests.
pub(super) fn culprit(
    track: &Track,
    (zone, signal): (usize, Signal),
    (pods, left_out): (&[PodCalls], LeftOut),
    cycles: usize,
    settings: &Settings,
    scale: &Scale,
) -> Option<String> {
    let past = &track.past;
    let (usual, floor, noise, counted): (_, _, _, Vec<(&PodCalls, Calls)>) = match signal.pod_view() {
        PodView::Servers | PodView::Clients => {
            let (requests, failures) = match signal.pod_view() {
                PodView::Clients => (&past.called, &past.called_failed),
                PodView::Servers | PodView::Durations => (&past.served, &past.served_failed),
            };
            let calls = pods.iter().map(|pod| (pod, pod.calls)).collect();
            (proportion::usual(requests, failures), track.settings.min_error_excess, signal, calls)
        }
        PodView::Durations => {
            let (share, noise) = match signal {
                Signal::VerySlowRequests => (SLOW_SHARES[1], signal),
                Signal::ServerErrors | Signal::ClientErrors | Signal::SlowRequests | Signal::Latency => {
                    (SLOW_SHARES[0], Signal::SlowRequests)
                }
            };
            let first = tail::first_slow_bucket(&past.latency_of_all(), share);
            let slow = |counts: &[f64]| Calls { total: counts.iter().sum(), failed: tail::slow(counts, first) };
            let known: Vec<Calls> = past.latency.iter().map(|counts| slow(counts)).collect();
            let of = |field: fn(&Calls) -> f64| known.iter().map(field).collect::<Vec<f64>>();
            let usual = proportion::usual(&of(|calls| calls.total), &of(|calls| calls.failed));
            let calls = pods.iter().map(|pod| (pod, slow(&track.coarsened(&pod.latency)))).collect();
            (usual, track.settings.min_slow_excess, noise, calls)
        }
    };
    let alive: Vec<(&PodCalls, Calls)> = counted.into_iter().filter(|(_, calls)| calls.total > 0.0).collect();
    if alive.len() < FEWEST_PODS {
        return None;
    }
    let mut parts: BTreeMap<&str, Calls> = BTreeMap::new();
    for (pod, calls) in alive {
        let part = match left_out {
            LeftOut::Pod => pod.pod.as_str(),
            LeftOut::Node => pod.node.as_deref()?,
        };
        *parts.entry(part).or_default() += calls;
    }
    if parts.len() < 2 {
        return None;
    }
    let usual = usual[zone].own;
    let excess = |calls: &Calls| (calls.failed - calls.total * usual).max(0.0);
    let (worst, its_calls) =
        parts.iter().max_by(|a, b| excess(a.1).total_cmp(&excess(b.1)).then_with(|| b.0.cmp(a.0)))?;
    let total: f64 = parts.values().map(excess).sum();
    let others = parts.iter().filter(|(part, _)| *part != worst);
    let rest = others.fold(Calls::default(), |sum, (_, calls)| sum + *calls);
    let spread = track.noise.variance(noise) * scale.smoothing(cycles as f64);
    let expected = rest.total * usual;
    let calm = rest.failed <= expected || proportion::deviance(rest.failed, expected, spread) < settings.suspect.get();
    let small = rest.failed / rest.total.max(1.0) - usual < floor.as_fraction();
    (excess(its_calls) >= POD_SHARE * total && (calm || small)).then(|| (*worst).to_owned())
}

/// The services that must be seen pod by pod before this key may count: the service, or all suspicious ones.
pub(super) fn suspects<'a>(
    history: &'a History,
    service: Option<&'a ServiceId>,
    (zone, signal): (usize, Signal),
) -> Vec<(&'a ServiceId, &'a Track)> {
    history
        .tracks
        .iter()
        .filter(|(id, _)| service.is_none_or(|wanted| wanted == *id))
        .filter(|(_, track)| track.watches.get(signal, zone).reading.suspicious)
        .collect()
}

/// The cycles over which pods are to be compared.
pub(super) fn pod_cycles(watch: &Watch) -> usize {
    watch.reading.span.max(POD_CYCLES)
}
