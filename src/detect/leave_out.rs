//! Leave one out: if without one pod, one node, or the pods that are new, nothing is wrong, then it is not the zone.

use std::collections::BTreeMap;

use super::proportion;
use super::settings::Scale;
use super::tail::{self, SLOW_SHARES};
use super::track::Track;
use crate::domain::verdict::PodView;
use crate::domain::{Calls, PodAge, PodCalls, Signal};

/// A pod or a node is told from its zone where the zone has so many pods.
const FEWEST_PODS: usize = 3;
/// Share of the excess in one part that makes it the part's fault.
const PART_SHARE: f64 = 0.5;
/// With this share of it, the others need not be quite calm: they may have a burst of their own.
const MOST: f64 = 0.8;
/// A pod that gets less than this share of what the others get is not reached.
const SILENT: f64 = 0.25;

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    Pod,
    Node,
}

/// The pod, or the node with its pods, that explains what is wrong with a service in a zone: it has most of the excess,
/// and without it the others would raise no suspicion. Durations are looked at through the share of slow requests.
pub(super) fn culprit(
    track: &Track,
    (zone, signal): (usize, Signal),
    (pods, left_out): (&[PodCalls], LeftOut),
    cycles: usize,
    scale: &Scale,
) -> Option<String> {
    if signal == Signal::LostCalls {
        return silent(pods, left_out);
    }
    let question = Question::new(track, zone, signal);
    let pods = question.alive(track, pods);
    if pods.len() < FEWEST_PODS {
        return None;
    }
    let mut parts: BTreeMap<&str, Calls> = BTreeMap::new();
    for (pod, calls) in pods {
        let part = match left_out {
            LeftOut::Pod => pod.pod.as_str(),
            LeftOut::Node => pod.node.as_deref()?,
        };
        *parts.entry(part).or_default() += calls;
    }
    question.explained_by(track, &parts, (cycles, scale)).map(str::to_owned)
}

/// How many of a service's pods in a zone are new, and of how many, where a roll-out explains what is wrong: the new pods
/// have the excess, or most of the zone's pods were replaced.
pub(super) fn rolled_out(
    track: &Track,
    (zone, signal): (usize, Signal),
    pods: &[PodCalls],
    cycles: usize,
    scale: &Scale,
) -> Option<(u32, u32)> {
    let of_age = |age: PodAge| pods.iter().filter(|pod| pod.age == age).count();
    let (new, settled, gone) = (of_age(PodAge::New), of_age(PodAge::Settled), of_age(PodAge::Gone));
    // All of them may be gone for a moment, before the new ones report.
    if new == 0 && (gone == 0 || gone < pods.len()) {
        return None;
    }
    // Where all are there that were, pods were added, not replaced.
    let most = settled == 0 || (new > settled && gone > 0);
    let question = Question::new(track, zone, signal);
    let in_new_pods = || {
        let mut parts: BTreeMap<&str, Calls> = BTreeMap::new();
        for (pod, calls) in question.alive(track, pods) {
            *parts.entry(if pod.age == PodAge::New { "new" } else { "settled" }).or_default() += calls;
        }
        question.explained_by(track, &parts, (cycles, scale)) == Some("new")
    };
    (most || in_new_pods()).then_some((new as u32, (new + settled) as u32))
}

/// The one pod, or node, that calls don't reach while they reach the others.
fn silent(pods: &[PodCalls], left_out: LeftOut) -> Option<String> {
    let mut parts: BTreeMap<&str, f64> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.age != PodAge::Gone) {
        let part = match left_out {
            LeftOut::Pod => pod.pod.as_str(),
            LeftOut::Node => pod.node.as_deref()?,
        };
        *parts.entry(part).or_default() += pod.calls.total;
    }
    if pods.len() < FEWEST_PODS || parts.len() < 2 {
        return None;
    }
    let most = parts.values().copied().fold(0.0, f64::max);
    let mut silent = parts.iter().filter(|(_, calls)| **calls < SILENT * most);
    let first = silent.next()?;
    silent.next().is_none().then(|| (*first.0).to_owned())
}

/// What is asked of each part: a share of requests, and what is usual for it.
struct Question {
    signal: Signal,
    usual: f64,
    /// The smallest excess that counts.
    floor: f64,
    /// The first bucket of slow requests, where it is about durations.
    slow_from: Option<usize>,
    /// Whose noise applies.
    noise: Signal,
}

impl Question {
    fn new(track: &Track, zone: usize, signal: Signal) -> Self {
        let (errors, slow) =
            (track.settings.min_error_excess.as_fraction(), track.settings.min_slow_excess.as_fraction());
        let (usual, floor, slow_from, noise) = match signal.pod_view() {
            PodView::Servers => (track.past.served(errors), errors, None, signal),
            PodView::Clients => (track.past.called(errors), errors, None, signal),
            PodView::Durations => {
                let very = signal == Signal::VerySlowRequests;
                let first = tail::first_slow_bucket(&track.past.latency_of_all(), SLOW_SHARES[usize::from(very)]);
                let noise = if very { signal } else { Signal::SlowRequests };
                (track.past.slow(first, slow), slow, Some(first), noise)
            }
        };
        Self { signal, usual: usual[zone].own, floor, slow_from, noise }
    }

    /// The pods that had requests, and those among them that are bad.
    fn alive<'a>(&self, track: &Track, pods: &'a [PodCalls]) -> Vec<(&'a PodCalls, Calls)> {
        let counted = |pod: &'a PodCalls| {
            let Some(first) = self.slow_from else { return (pod, pod.calls) };
            let counts = track.coarsened(&pod.latency);
            (pod, Calls { total: counts.iter().sum(), failed: tail::slow(&counts, first) })
        };
        pods.iter().map(counted).filter(|(_, calls)| calls.total > 0.0).collect()
    }

    /// The part that has most of the excess, and without which the others are calm.
    fn explained_by<'a>(
        &self,
        track: &Track,
        parts: &BTreeMap<&'a str, Calls>,
        (cycles, scale): (usize, &Scale),
    ) -> Option<&'a str> {
        if parts.len() < 2 || self.signal == Signal::LostCalls {
            return None;
        }
        let excess = |calls: &Calls| (calls.failed - calls.total * self.usual).max(0.0);
        let (worst, its_calls) =
            parts.iter().max_by(|a, b| excess(a.1).total_cmp(&excess(b.1)).then_with(|| b.0.cmp(a.0)))?;
        let total: f64 = parts.values().map(excess).sum();
        let others = parts.iter().filter(|(part, _)| *part != worst);
        let rest = others.fold(Calls::default(), |sum, (_, calls)| sum + *calls);
        let spread = track.noise.variance(self.noise) * scale.smoothing(cycles as f64);
        let expected = rest.total * self.usual;
        let nats = if rest.failed > expected { proportion::deviance(rest.failed, expected, spread) } else { 0.0 };
        let calm = nats < track.settings.suspect.get() || rest.failed / rest.total.max(1.0) - self.usual < self.floor;
        let share = excess(its_calls) / total.max(1e-12);
        let explains = if share >= MOST { calm || nats < track.trip() } else { calm };
        (share >= PART_SHARE && explains).then_some(*worst)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use crate::domain::{CycleLength, Nats, Period, ServiceSettings};

    fn scale() -> Scale {
        Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)))
    }

    /// In health one request in a thousand fails.
    fn track() -> Track {
        let mut track = Track::new(2, ServiceSettings::default());
        for past in [&mut track.past.recent, &mut track.past.lasting] {
            (past.served, past.served_failed) = (vec![1e6; 2], vec![1e3; 2]);
        }
        track
    }

    fn pod(name: &str, age: PodAge, total: f64, failed: f64) -> PodCalls {
        let calls = Calls { total, failed };
        PodCalls { pod: name.to_owned(), node: Some(format!("node-of-{name}")), age, calls, ..PodCalls::default() }
    }

    /// Of pods with a thousand requests each, as many as fail in each.
    fn worst(failed: &[f64]) -> Option<String> {
        let named = |(nth, failed): (usize, &f64)| pod(&format!("pod-{nth}"), PodAge::Settled, 1000.0, *failed);
        let pods: Vec<PodCalls> = failed.iter().enumerate().map(named).collect();
        culprit(&track(), (0, Signal::ServerErrors), (&pods, LeftOut::Pod), 8, &scale())
    }

    #[test]
    fn a_pod_with_most_of_the_excess_explains_it_where_the_others_are_calm() {
        assert_eq!(worst(&[1.0, 1.0, 1.0, 300.0]).as_deref(), Some("pod-3"));
        assert_eq!(worst(&[1.0, 300.0, 1.0]).as_deref(), Some("pod-1"));
        assert_eq!(worst(&[1.0, 300.0]), None, "of two pods none is told from the zone");
        assert_eq!(worst(&[150.0; 4]), None);
        assert_eq!(worst(&[300.0, 100.0, 100.0]), None, "the others are not calm");
        assert_eq!(worst(&[4.0, 4.0, 4.0, 8.0]), None, "it has less than half of the excess");
    }

    #[test]
    fn with_nearly_all_of_the_excess_the_others_may_have_a_burst_that_is_no_fault() {
        // Twenty of three thousand are about eight nats: more than a suspicion, and less than a fault. Forty are a fault.
        assert_eq!(worst(&[6.0, 7.0, 7.0, 100.0]).as_deref(), Some("pod-3"));
        assert_eq!(worst(&[6.0, 7.0, 7.0, 50.0]), None);
        assert_eq!(worst(&[13.0, 13.0, 14.0, 500.0]), None);
    }

    #[test]
    fn a_pod_that_gets_less_than_a_quarter_of_what_the_others_get_is_not_reached() {
        let silent = |calls: &[f64], left_out| {
            let named = |(nth, calls): (usize, &f64)| PodCalls {
                node: Some(format!("node-{}", nth / 2)),
                ..pod(&format!("pod-{nth}"), PodAge::Settled, *calls, 0.0)
            };
            let pods: Vec<PodCalls> = calls.iter().enumerate().map(named).collect();
            culprit(&track(), (0, Signal::LostCalls), (&pods, left_out), 8, &scale())
        };
        assert_eq!(silent(&[100.0, 100.0, 24.0], LeftOut::Pod).as_deref(), Some("pod-2"));
        assert_eq!(silent(&[100.0, 100.0, 25.0], LeftOut::Pod), None);
        assert_eq!(silent(&[100.0, 24.0], LeftOut::Pod), None, "too few pods");
        assert_eq!(silent(&[100.0, 24.0, 24.0], LeftOut::Pod), None, "more than one");
        assert_eq!(silent(&[60.0, 60.0, 29.0], LeftOut::Node).as_deref(), Some("node-1"));
        assert_eq!(silent(&[60.0, 60.0, 15.0, 15.0], LeftOut::Node), None);
        assert_eq!(silent(&[60.0, 60.0], LeftOut::Node), None, "one node");
    }

    /// With so many new, settled and gone pods, of which so many requests in a thousand fail.
    fn rolled(new: (usize, f64), settled: (usize, f64), gone: usize) -> Option<(u32, u32)> {
        let of = |age, (count, failed)| (0..count).map(move |nth| pod(&format!("{age:?}-{nth}"), age, 1000.0, failed));
        let pods = of(PodAge::New, new).chain(of(PodAge::Settled, settled)).chain(of(PodAge::Gone, (gone, settled.1)));
        rolled_out(&track(), (0, Signal::ServerErrors), &pods.collect::<Vec<_>>(), 8, &scale())
    }

    #[test]
    fn a_roll_out_explains_it_that_replaced_most_pods_or_whose_pods_alone_are_bad() {
        assert_eq!(rolled((2, 150.0), (1, 150.0), 2), Some((2, 3)), "most are replaced");
        assert_eq!(rolled((3, 150.0), (0, 0.0), 0), Some((3, 3)), "all are new");
        assert_eq!(rolled((0, 0.0), (0, 150.0), 3), Some((0, 0)), "the new ones don't report yet");
        assert_eq!(rolled((1, 300.0), (2, 1.0), 1), Some((1, 3)), "the new one is bad");
    }

    #[test]
    fn a_roll_out_explains_nothing_where_old_pods_are_as_bad() {
        assert_eq!(rolled((0, 0.0), (3, 150.0), 0), None, "there is none");
        assert_eq!(rolled((0, 0.0), (3, 150.0), 1), None, "pods went, and none came");
        assert_eq!(rolled((2, 150.0), (1, 150.0), 0), None, "pods were added");
        assert_eq!(rolled((1, 150.0), (1, 150.0), 1), None, "half are no majority");
        assert_eq!(rolled((1, 1.0), (2, 300.0), 1), None, "the settled ones are bad");
    }

    /// What explains it among pods of which so many requests failed, over so many cycles.
    fn explained(pods: &[(f64, f64)], cycles: usize) -> Option<String> {
        let named =
            |(nth, (total, failed)): (usize, &(f64, f64))| pod(&format!("pod-{nth}"), PodAge::Settled, *total, *failed);
        let pods: Vec<PodCalls> = pods.iter().enumerate().map(named).collect();
        culprit(&track(), (0, Signal::ServerErrors), (&pods, LeftOut::Pod), cycles, &scale())
    }

    #[test]
    fn a_pod_without_requests_is_not_one_of_those_it_is_told_from() {
        assert_eq!(explained(&[(1000.0, 300.0), (1000.0, 1.0), (0.0, 0.0)], 8), None);
    }

    #[test]
    fn what_fails_as_usual_is_no_part_of_the_excess() {
        // The second pod has the larger excess, though the first fails many more times what is usual; without either the
        // others are not calm.
        assert_eq!(explained(&[(1000.0, 25.0), (10_000.0, 36.0), (1000.0, 1.0)], 8), None);
        // So many failures as all others have are usual for as many requests.
        assert_eq!(explained(&[(1000.0, 151.0), (200_000.0, 200.0), (1000.0, 1.0)], 8).as_deref(), Some("pod-0"));
    }

    #[test]
    fn the_others_are_calm_without_evidence_against_them_or_without_an_excess_that_counts() {
        // One failure of thirty requests is far more than usual, but may be chance.
        assert_eq!(explained(&[(10.0, 3.0), (15.0, 1.0), (15.0, 0.0)], 8).as_deref(), Some("pod-0"));
        // 39 of ten thousand are beyond chance, and next to nothing.
        let others = (50_000.0, 195.0);
        assert_eq!(explained(&[(1000.0, 400.0), others, others], 40).as_deref(), Some("pod-0"));
    }

    #[test]
    fn the_one_node_there_is_explains_nothing() {
        let on_one = |nth| PodCalls {
            node: Some("node".to_owned()),
            ..pod(&format!("pod-{nth}"), PodAge::Settled, 1000.0, 300.0)
        };
        let pods = [0, 1, 2].map(on_one);
        assert_eq!(culprit(&track(), (0, Signal::ServerErrors), (&pods, LeftOut::Node), 8, &scale()), None);
    }

    #[test]
    fn a_pod_that_went_is_no_roll_out_of_pods_whose_age_is_not_known() {
        let of = |age, name| pod(name, age, 1000.0, 150.0);
        let pods = [of(PodAge::Unknown, "a"), of(PodAge::Unknown, "b"), of(PodAge::Gone, "c")];
        assert_eq!(rolled_out(&track(), (0, Signal::ServerErrors), &pods, 8, &scale()), None);
    }

    #[test]
    fn evidence_and_an_excess_that_are_just_as_large_as_counts_leave_nobody_calm() {
        let explained = |suspect, floor| {
            let signal = Signal::ServerErrors;
            let question = Question { signal, usual: 0.0, floor, slow_from: None, noise: signal };
            let mut track = track();
            track.settings.suspect = Nats::new(suspect);
            let of = |total, failed| Calls { total, failed };
            let parts = BTreeMap::from([("bad", of(10.0, 10.0)), ("other", of(4.0, 1.0))]);
            question.explained_by(&track, &parts, (8, &scale())).map(str::to_owned)
        };
        let nats = proportion::deviance(1.0, 0.0, 0.5 * scale().smoothing(8.0));
        assert_eq!(explained(nats, 0.25), None);
        assert_eq!(explained(nats + 0.1, 0.25).as_deref(), Some("bad"));
        assert_eq!(explained(nats, 0.26).as_deref(), Some("bad"));
    }
}
