//! From what is watched to a verdict on each zone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use statrs::distribution::{ContinuousCDF, Normal};

use super::corroborate::{self, LeftOut};
use super::history::History;
use super::persist::{self, Watch};
use super::settings::Settings;
use super::track::Track;
use crate::domain::verdict::Suspect;
use crate::domain::{
    Assessment, CloserLook, Evidence, Finding, Gap, Nats, Period, ServiceId, Signal, Vantage, Verdict, Zone,
};

/// Evidence shown with a verdict, strongest first.
const MOST_EVIDENCE: usize = 10;
/// Independent services that make a fault wide whatever they carry.
const WIDE_SERVICES: usize = 3;

/// What a closer look has shown, pod by pod.
pub type Pods = BTreeMap<Suspect, CloserLook>;

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
fn typical_sizes(history: &History) -> [Vec<f64>; 5] {
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
            seen: look.seen,
            expected: look.expected,
            excess_low: look.effect - z95 * look.error,
            excess_high: look.effect + z95 * look.error,
            zone_requests: look.weight,
            peer_requests: look.peers,
            window: Period::from_secs(reading.best_span as i64 * cycle_s),
            severity: self.severity,
        }
    }
}

struct Judge<'a> {
    history: &'a History,
    pods: &'a Pods,
    settings: &'a Settings,
    zone: &'a Zone,
    at: usize,
    typical: &'a [Vec<f64>; 5],
}

impl<'a> Judge<'a> {
    fn finding(&self, unsettled: &mut BTreeSet<Suspect>) -> Finding {
        let mut keys = self.tripping();
        keys.sort_by(|a, b| b.has_lasted().cmp(&a.has_lasted()).then(b.severity.total_cmp(&a.severity)));
        let Some(first) = keys.first() else {
            return Finding::healthy();
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

    fn tripping(&self) -> Vec<Key<'a>> {
        let services = self.history.tracks.iter().map(|(id, track)| (Some((id, track)), &track.watches));
        let all = services.chain([(None, &self.history.pooled)]);
        all.flat_map(|(service, watches)| Signal::ALL.map(|signal| (service, signal, watches.get(signal, self.at))))
            .filter(|(_, _, watch)| watch.reading.tripping)
            .map(|(service, signal, watch)| {
                let typical = self.typical[signal as usize][self.at];
                let size = if service.is_some() { watch.reading.size.min(typical) } else { watch.reading.size };
                let severity = persist::severity(signal, size, self.settings);
                let needed = persist::needed(severity, self.settings);
                Key { service, signal, watch, severity, lasted: watch.lasted(&self.history.scale), needed }
            })
            .collect()
    }

    /// What else explains a key. Pods are asked for only when nothing else stands in the way.
    fn explained_otherwise(&self, key: &Key<'_>, lasting: bool, unsettled: &mut BTreeSet<Suspect>) -> Option<Verdict> {
        if key.signal == Signal::ClientErrors
            && let Some(why) = corroborate::clients_of_bad_servers(self.history, key.service.map(|(_, t)| t), self.at)
        {
            return Some(Verdict::FaultElsewhere { why });
        }
        let watches = key.service.map_or(&self.history.pooled, |(_, track)| &track.watches);
        if watches.has_rival(key.signal, self.at) {
            return Some(Verdict::RegionalFault);
        }
        if lasting {
            let pod = self.one_in_each(key, LeftOut::Pod, unsettled).map(|pod| Verdict::InstanceFault { pod });
            return pod
                .or_else(|| self.one_in_each(key, LeftOut::Node, unsettled).map(|node| Verdict::NodeFault { node }));
        }
        None
    }

    /// The pod or node that explains the key, if in each service concerned one does; a node, if it is the same one.
    fn one_in_each(&self, key: &Key<'_>, left_out: LeftOut, unsettled: &mut BTreeSet<Suspect>) -> Option<String> {
        let cycles = corroborate::pod_cycles(key.watch);
        let mut first: Option<String> = None;
        let cell = (self.at, key.signal);
        for (id, track) in corroborate::suspects(self.history, key.service.map(|(id, _)| id), cell) {
            let suspect = Suspect { service: id.clone(), zone: self.zone.clone(), view: key.signal.pod_view(), cycles };
            let Some(pods) = self.pods.get(&suspect) else {
                unsettled.insert(suspect);
                return None;
            };
            let looked = (pods.pods.as_slice(), left_out);
            let found = corroborate::culprit(track, cell, looked, cycles, self.settings, &self.history.scale)?;
            if left_out == LeftOut::Node && first.as_ref().is_some_and(|known| *known != found) {
                return None;
            }
            first.get_or_insert(found);
        }
        first
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
