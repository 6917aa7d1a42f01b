//! From what is watched to a verdict on each zone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use statrs::distribution::{ContinuousCDF, Normal};

use super::compare::SIGNALS;
use super::corroborate;
use super::history::History;
use super::leave_out::{self, LeftOut};
use super::persist::{self, Watch};
use super::regional;
use super::settings::{self, Settings, WINDOWS};
use super::track::Track;
use crate::domain::verdict::Suspect;
use crate::domain::{
    Assessment, Evidence, Finding, Gap, Nats, Period, PodCalls, ServiceId, Signal, Vantage, Verdict, Zone,
};

/// Evidence shown with a verdict, strongest first.
const MOST_EVIDENCE: usize = 10;
/// Independent services that make a fault wide whatever they carry.
const WIDE_SERVICES: usize = 3;

/// What a closer look has shown, pod by pod.
pub type Pods = BTreeMap<Suspect, Vec<PodCalls>>;

/// Judges the newest cycle.
///
/// Pure: equal histories, pods and settings give equal verdicts. Where `unsettled` is not empty, the verdicts hold
/// only if the pods of those suspects, which `pods` lacks, do not explain them.
pub fn detect(history: &History, pods: &Pods, settings: &Settings, now: Timestamp) -> Assessment {
    let global: Vec<Gap> = history.gaps.iter().filter(|gap| gap.zone().is_none()).cloned().collect();
    let typical = typical_sizes(history);
    let mut unsettled = BTreeSet::new();
    let judge = |(at, zone): (usize, &Zone)| {
        let seen = history.gaps.iter().filter(|gap| gap.zone() == Some(zone)).cloned();
        let own: Vec<Gap> = seen.chain(nothing_to_compare(history, at)).collect();
        let finding = if !global.is_empty() {
            Finding::inconclusive(global.clone())
        } else if !own.is_empty() {
            Finding::inconclusive(own)
        } else {
            Judge { history, pods, settings, zone, at, typical: &typical }.finding(&mut unsettled)
        };
        (zone.clone(), finding)
    };
    let zones = history.zones.iter().enumerate().map(judge).collect();
    Assessment { time: history.time.unwrap_or(now), zones, unsettled }
}

/// Silence is not health.
fn nothing_to_compare(history: &History, at: usize) -> Option<Gap> {
    let zone = || history.zones[at].clone();
    if !history.has_traffic(at) {
        return Some(Gap::NoTraffic { zone: zone() });
    }
    let peers = (0..history.zones.len()).filter(|other| *other != at && history.has_traffic(*other)).count();
    if peers == 0 {
        return Some(Gap::NoPeer { zone: zone() });
    }
    let compared = history.tracks.values().any(|track| track.watches.compared(at));
    (!compared).then(|| Gap::TooLittleData { zone: zone() })
}

/// Per signal and zone the mean effect over the tripping services: one may look worse by chance.
fn typical_sizes(history: &History) -> [Vec<f64>; SIGNALS] {
    Signal::ALL.map(|signal| {
        (0..history.zones.len())
            .map(|zone| {
                let tripping = history
                    .tracks
                    .values()
                    .map(|track| track.watches.get(signal, zone).reading)
                    .filter(|reading| reading.tripping);
                let (sum, weight) = tripping.fold((0.0, 0.0), |(sum, weight), reading| {
                    let w = reading.latest.weight.sqrt();
                    (sum + w * reading.size, weight + w)
                });
                sum / weight.max(1e-12)
            })
            .collect()
    })
}

/// One signal of one service, or of all pooled, that trips in the zone.
struct Key<'a> {
    service: Option<(&'a ServiceId, &'a Track)>,
    signal: Signal,
    watch: &'a Watch,
    severity: f64,
    lasted: Period,
    needed: Period,
}

impl Key<'_> {
    fn has_lasted(&self) -> bool {
        self.watch.reading.present && self.lasted >= self.needed
    }

    fn evidence(&self, cycle_s: i64) -> Evidence {
        let (reading, look) = (&self.watch.reading, &self.watch.reading.best);
        let z95 = Normal::standard().inverse_cdf(0.975);
        Evidence {
            service: self.service.map(|(id, _)| id.clone()),
            signal: self.signal,
            vantage: self.signal.vantage(),
            nats: Nats::new(reading.nats),
            peers_alike: false,
            seen: look.seen,
            expected: look.expected,
            excess_low: look.effect - z95 * look.error,
            excess_high: look.effect + z95 * look.error,
            zone_requests: look.weight,
            peers_seen: look.peers_seen,
            peer_requests: look.peers,
            window: Period::from_secs(reading.best_span as i64 * cycle_s),
            bad_cycles: self.watch.bad_cycles(),
            window_cycles: reading.best_span as u32,
            severity: self.severity,
        }
    }
}

/// What explains every service seen so far.
#[derive(Default)]
struct Explained {
    services: u32,
    pods: Vec<String>,
    nodes: BTreeSet<String>,
    by_node: u32,
    rolled_out: Vec<(u32, u32)>,
}

impl Explained {
    fn add(&mut self, pod: Option<String>, node: Option<String>, rolled_out: Option<(u32, u32)>) {
        self.services += 1;
        self.pods.extend(pod);
        self.by_node += u32::from(node.is_some());
        self.nodes.extend(node);
        self.rolled_out.extend(rolled_out);
    }

    fn in_all(&self, services: usize) -> bool {
        services as u32 == self.services && services > 0
    }

    fn one_node(&self) -> Option<&String> {
        self.nodes.first().filter(|_| self.nodes.len() == 1 && self.by_node == self.services)
    }

    fn by_nothing(&self) -> bool {
        !self.in_all(self.pods.len()) && self.one_node().is_none() && !self.in_all(self.rolled_out.len())
    }

    fn verdict(self) -> Option<Verdict> {
        if self.in_all(self.rolled_out.len()) {
            let sum = |(new, all), (more, of)| (new + more, all + of);
            let (new_pods, pods) = self.rolled_out.into_iter().fold((0, 0), sum);
            return Some(Verdict::RolloutInProgress { new_pods, pods });
        }
        let node = self.one_node().cloned();
        let pod = if self.in_all(self.pods.len()) { self.pods.into_iter().next() } else { None };
        pod.map(|pod| Verdict::InstanceFault { pod }).or_else(|| node.map(|node| Verdict::NodeFault { node }))
    }
}

struct Judge<'a> {
    history: &'a History,
    pods: &'a Pods,
    settings: &'a Settings,
    zone: &'a Zone,
    at: usize,
    typical: &'a [Vec<f64>; SIGNALS],
}

impl<'a> Judge<'a> {
    fn finding(&self, unsettled: &mut BTreeSet<Suspect>) -> Finding {
        let mut keys = self.tripping();
        keys.sort_by(|a, b| b.has_lasted().cmp(&a.has_lasted()).then(b.severity.total_cmp(&a.severity)));
        let Some(first) = keys.first() else {
            let unlike_its_peers = self.partition().map(|gap| Finding::inconclusive(vec![gap]));
            return unlike_its_peers.or_else(|| self.worse_together()).unwrap_or_else(Finding::healthy);
        };
        let lasting = first.has_lasted();
        let mut verdict = None;
        let mut lead = first;
        for key in keys.iter().take_while(|key| key.has_lasted() == lasting) {
            if let Some(other) = self.explained_otherwise(key, lasting, unsettled) {
                verdict.get_or_insert(other);
            } else {
                verdict = Some(self.by_breadth(&keys, key.signal.vantage(), lasting));
                lead = key;
                break;
            }
        }
        let cycle_s = self.history.scale.cycle.seconds();
        let mut evidence: Vec<Evidence> = keys.iter().map(|key| key.evidence(cycle_s)).collect();
        evidence.sort_by(|a, b| b.severity.total_cmp(&a.severity));
        evidence.truncate(MOST_EVIDENCE);
        Finding {
            verdict: verdict.unwrap_or(Verdict::Healthy),
            lasted: lead.lasted,
            needed: lead.needed,
            persistent: lasting,
            evidence,
        }
    }

    /// Where every zone has got worse at once, none trips against its peers.
    fn worse_together(&self) -> Option<Finding> {
        let (id, track, signal, look) = regional::worse_together(self.history, self.at)?;
        let cycle_s = self.history.scale.cycle.seconds();
        let severity = persist::severity(signal, look.own, self.settings);
        let needed = persist::needed(severity, (look.own_nats, track.trip()), self.settings.knee, &track.settings);
        let cycles = track.suspected_for(self.at);
        let lasted = Period::from_secs(i64::from(cycles) * cycle_s);
        let z95 = Normal::standard().inverse_cdf(0.975);
        let evidence = Evidence {
            service: Some(id.clone()),
            signal,
            vantage: signal.vantage(),
            nats: Nats::new(look.own_nats),
            peers_alike: true,
            seen: if signal == Signal::Latency { look.own + 1.0 } else { look.seen },
            expected: if signal == Signal::Latency { 1.0 } else { look.seen - look.own },
            excess_low: look.own - z95 * look.error,
            excess_high: look.own + z95 * look.error,
            zone_requests: look.weight,
            peers_seen: look.peers_seen,
            peer_requests: look.peers,
            window: Period::from_secs(WINDOWS[0] as i64 * cycle_s),
            bad_cycles: cycles.min(WINDOWS[0] as u32),
            window_cycles: WINDOWS[0] as u32,
            severity,
        };
        let (verdict, persistent) = (Verdict::RegionalFault, lasted >= needed);
        Some(Finding { verdict, lasted, needed, persistent, evidence: vec![evidence] })
    }

    fn tripping(&self) -> Vec<Key<'a>> {
        let services = self.history.tracks.iter().map(|(id, track)| (Some((id, track)), &track.watches));
        let all = services.chain([(None, &self.history.pooled)]);
        all.flat_map(|(service, watches)| Signal::ALL.map(|signal| (service, signal, watches.get(signal, self.at))))
            .filter(|(_, _, watch)| watch.reading.tripping)
            .map(|(service, signal, watch)| {
                let typical = self.typical[signal as usize][self.at];
                let size = if service.is_some() { watch.reading.size.min(typical) } else { watch.reading.size };
                let severity = persist::severity(signal, size, self.settings);
                let usual = &self.settings.services.usual;
                let (own, trip) =
                    service.map_or((usual, settings::trip(usual, 1.0)), |(_, track)| (&track.settings, track.trip()));
                let needed = persist::needed(severity, (watch.reading.nats, trip), self.settings.knee, own);
                Key { service, signal, watch, severity, lasted: watch.lasted(&self.history.scale), needed }
            })
            .collect()
    }

    /// What else explains a key. Pods are asked for only when nothing else stands in the way.
    fn explained_otherwise(&self, key: &Key<'a>, lasting: bool, unsettled: &mut BTreeSet<Suspect>) -> Option<Verdict> {
        if key.signal == Signal::ClientErrors
            && let Some(why) = corroborate::clients_of_bad_servers(self.history, key.service.map(|(_, t)| t), self.at)
        {
            return Some(Verdict::FaultElsewhere { why });
        }
        let watches = key.service.map_or(&self.history.pooled, |(_, track)| &track.watches);
        if watches.has_rival(key.signal, self.at) {
            return Some(self.link(key).unwrap_or(Verdict::RegionalFault));
        }
        if !lasting {
            return None;
        }
        self.explained_by_pods(key, unsettled)
    }

    /// Whether in each service concerned the same explains it: one pod, one node, or what is new. One service after the
    /// other is looked at, as long as that may be.
    fn explained_by_pods(&self, key: &Key<'a>, unsettled: &mut BTreeSet<Suspect>) -> Option<Verdict> {
        let scale = &self.history.scale;
        let cell = (self.at, key.signal);
        let mut explained = Explained::default();
        for (track, suspect) in self.concerned(key) {
            let Some(look) = self.pods.get(&suspect) else {
                unsettled.insert(suspect);
                return None;
            };
            let culprit = |left_out| leave_out::culprit(track, cell, (look, left_out), suspect.cycles, scale);
            let rolled_out = leave_out::rolled_out(track, cell, look, suspect.cycles, scale);
            explained.add(culprit(LeftOut::Pod), culprit(LeftOut::Node), rolled_out);
            if explained.by_nothing() {
                return None;
            }
        }
        explained.verdict()
    }

    /// Clients fail in two zones alike, and no server says why.
    fn link(&self, key: &Key<'a>) -> Option<Verdict> {
        let (_, track) = key.service.filter(|_| key.signal == Signal::ClientErrors)?;
        let other = self.history.zones[corroborate::other_end(self.history, track, self.at)?].clone();
        let gaps = vec![Gap::Partition { zone: self.zone.clone(), other }];
        Some(Verdict::Inconclusive { gaps })
    }

    /// The same where the two zones are so much alike that neither stands out from its peers.
    fn partition(&self) -> Option<Gap> {
        let cut_off = |track: &&Track| {
            let look = track.watches.get(Signal::ClientErrors, self.at).reading.latest;
            look.live
                && look.own_nats >= track.trip()
                && look.own >= settings::least_excess(Signal::ClientErrors, &track.settings)
                && !corroborate::servers_say_why(self.history, track)
        };
        let mut tracks = self.history.tracks.values().filter(cut_off);
        let other = tracks.find_map(|track| corroborate::other_end(self.history, track, self.at))?;
        Some(Gap::Partition { zone: self.zone.clone(), other: self.history.zones[other].clone() })
    }

    /// The services that a key is about, each with how its pods are to be seen.
    fn concerned(&self, key: &Key<'a>) -> Vec<(&'a Track, Suspect)> {
        let cycles = corroborate::pod_cycles(key.watch);
        let (zone, view) = (self.zone, key.signal.pod_view());
        let suspects = corroborate::suspects(self.history, key.service.map(|(id, _)| id), (self.at, key.signal));
        let seen = |(id, track): (&'a ServiceId, &'a Track)| {
            (track, Suspect { service: id.clone(), zone: zone.clone(), view, cycles })
        };
        suspects.into_iter().map(seen).collect()
    }

    /// A zone is worth isolating only if the sick services carry enough, are several, or one is critical.
    fn by_breadth(&self, keys: &[Key<'_>], vantage: Vantage, lasting: bool) -> Verdict {
        let counts = |key: &&Key<'_>| key.signal.vantage() == vantage && (!lasting || key.has_lasted());
        let sick: BTreeMap<&ServiceId, &Track> = keys.iter().filter(counts).filter_map(|key| key.service).collect();
        let pooled = keys.iter().filter(counts).any(|key| key.service.is_none());
        let critical = sick.values().any(|track| track.settings.critical);
        let sum = |tracks: &mut dyn Iterator<Item = &Track>| {
            tracks.fold((0.0, 0.0), |(served, called), track| {
                let (s, c) = track.traffic(self.at);
                (served + s, called + c)
            })
        };
        let all = sum(&mut self.history.tracks.values());
        let affected = sum(&mut sick.values().copied());
        let share = match vantage {
            Vantage::Server => affected.0 / all.0.max(1.0),
            Vantage::Client => affected.1 / all.1.max(1.0),
        };
        let wide = pooled || critical || sick.len() >= WIDE_SERVICES;
        let needed_share = self.settings.min_affected_share.as_fraction();
        if wide || share >= needed_share {
            Verdict::ZoneFault
        } else {
            Verdict::ServiceFault { affected_share: share, needed_share }
        }
    }
}

#[cfg(test)]
mod tests;
