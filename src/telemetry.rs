//! Logs, and the daemon's own metrics.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

use crate::domain::{Assessment, Event, Isolation, Record, inert};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Standard error, for what may have text from elsewhere in it. The formatter escapes what begins a command of a terminal, so
/// that those that come are its own colours.
#[derive(Debug, Default)]
struct Inert;

impl Write for Inert {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let parts: Vec<_> = text.split('\u{1b}').map(inert).collect();
        std::io::stderr().write_all(parts.join("\u{1b}").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Libraries that tell of what is secret at finer levels: requests before they are signed, and lines of a kubeconfig.
const QUIET: [&str; 2] = ["aws_=info", "kube_client::config=info"];

/// Logs go to standard error; `RUST_LOG` sets what is logged.
pub fn init_logs(format: LogFormat, default_level: &str) {
    // The client's own words on lost connections come without address or end; ours say what they mean.
    let default = format!("{default_level},kube_client=off,kube_runtime=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let filter = QUIET.iter().filter_map(|quiet| quiet.parse().ok()).fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Inert::default).with_target(false);
    // What can't be logged, as on a full disk, must not end the process.
    let builder = builder.with_ansi(std::io::stderr().is_terminal()).log_internal_errors(false);
    let _already_set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotificationLabels {
    target: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    zone: String,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ZoneLabels {
    zone: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabels {
    zone: String,
    signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HoldLabels {
    zone: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepNameLabels {
    zone: String,
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    zone: String,
    step: String,
    state: &'static str,
}

/// `zoneward_…`, as `/metrics` shows them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    cycles: Counter,
    failed_cycles: Counter,
    cycle_duration: Histogram,
    last_cycle: Gauge<f64, AtomicU64>,
    queries: Counter,
    failed_queries: Counter,
    response_bytes: Counter,
    records: Family<EventLabels, Counter>,
    unrecorded: Counter,
    notifications: Family<NotificationLabels, Counter>,
    judges: Gauge,
    verdicts: Family<VerdictLabels, Gauge<i64, AtomicI64>>,
    evidence: Family<SignalLabels, Gauge<f64, AtomicU64>>,
    severity: Family<ZoneLabels, Gauge<f64, AtomicU64>>,
    holds: Family<HoldLabels, Gauge<i64, AtomicI64>>,
    held: Mutex<BTreeMap<String, String>>,
    unrecorded_for: Gauge,
    isolated: Family<ZoneLabels, Gauge<i64, AtomicI64>>,
    steps: Family<StepLabels, Gauge<i64, AtomicI64>>,
    step_failures: Family<StepNameLabels, Gauge<i64, AtomicI64>>,
    services: Gauge,
    leader: Gauge,
    paused: Gauge,
    seen_usage: Mutex<(u64, u64, u64)>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("zoneward");
        let metrics = Self {
            cycles: Counter::default(),
            failed_cycles: Counter::default(),
            cycle_duration: Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]),
            last_cycle: Gauge::default(),
            queries: Counter::default(),
            failed_queries: Counter::default(),
            response_bytes: Counter::default(),
            records: Family::default(),
            unrecorded: Counter::default(),
            notifications: Family::default(),
            judges: Gauge::default(),
            verdicts: Family::default(),
            evidence: Family::default(),
            severity: Family::default(),
            holds: Family::default(),
            held: Mutex::default(),
            unrecorded_for: Gauge::default(),
            isolated: Family::default(),
            steps: Family::default(),
            step_failures: Family::default(),
            services: Gauge::default(),
            leader: Gauge::default(),
            paused: Gauge::default(),
            seen_usage: Mutex::default(),
            registry: Registry::default(),
        };
        let m = &metrics;
        registry.register("cycles", "Cycles taken in, those without judgement included", m.cycles.clone());
        registry.register("failed_cycles", "Cycles in which Prometheus could not be read", m.failed_cycles.clone());
        registry.register_with_unit(
            "cycle_duration",
            "From asking Prometheus to the decision",
            Unit::Seconds,
            m.cycle_duration.clone(),
        );
        registry.register("last_cycle_timestamp_seconds", "When the newest cycle was", m.last_cycle.clone());
        registry.register("judges", "1 if the newest cycle could be judged", m.judges.clone());
        registry.register("prometheus_queries", "Queries sent", m.queries.clone());
        registry.register("prometheus_failed_queries", "Queries that failed", m.failed_queries.clone());
        registry.register_with_unit("prometheus_response", "Bytes read", Unit::Bytes, m.response_bytes.clone());
        registry.register("audit_records", "Records written, by event", m.records.clone());
        registry.register("audit_failures", "Records that could not be written", m.unrecorded.clone());
        let help = "Messages to people, by target: sent, failed in the last try, dropped as too many wait";
        registry.register("notifications", help, m.notifications.clone());
        registry.register("zone_verdict", "1 for the newest verdict on the zone", m.verdicts.clone());
        registry.register("zone_evidence_nats", "The strongest against chance, by signal", m.evidence.clone());
        let help = "The size of the strongest effect, as a share of failed requests that is as bad";
        registry.register("zone_severity_ratio", help, m.severity.clone());
        registry.register("zone_hold", "1 for what keeps a lasting fault from being isolated", m.holds.clone());
        let help = "Since when nothing could be put on record; 0 when it can be";
        registry.register_with_unit("audit_unrecorded", help, Unit::Seconds, m.unrecorded_for.clone());
        registry.register("zone_isolated", "1 while the zone is, or may be, out of rotation", m.isolated.clone());
        registry.register("isolation_step", "1 for the state that a step of an isolation is in", m.steps.clone());
        registry.register("isolation_step_failures", "Failures of a step in a row", m.step_failures.clone());
        registry.register("services", "Services followed", m.services.clone());
        registry.register("leader", "1 on the replica that acts", m.leader.clone());
        registry.register("paused", "1 while a person has paused it, or that can't be told", m.paused.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }

    pub fn cycle(&self, assessment: &Assessment, services: usize, took_s: f64) {
        self.cycles.inc();
        self.cycle_duration.observe(took_s);
        self.last_cycle.set(assessment.time.as_second() as f64);
        self.services.set(services as i64);
        self.verdicts.clear();
        self.evidence.clear();
        self.severity.clear();
        for (zone, finding) in &assessment.zones {
            for evidence in &finding.evidence {
                let labels = SignalLabels { zone: zone.to_string(), signal: evidence.signal.as_str() };
                let nats = self.evidence.get_or_create_owned(&labels);
                nats.set(nats.get().max(evidence.nats.get()));
                let severity = self.severity.get_or_create_owned(&ZoneLabels { zone: zone.to_string() });
                severity.set(severity.get().max(evidence.severity));
            }
            let labels = VerdictLabels { zone: zone.to_string(), verdict: finding.verdict.as_str() };
            self.verdicts.get_or_create(&labels).set(1);
        }
    }

    /// Those that have not ended, on the replica that acts.
    pub fn isolations(&self, active: &[Isolation]) {
        self.isolated.clear();
        self.steps.clear();
        self.step_failures.clear();
        for isolation in active {
            let zone = isolation.zone().to_string();
            let out = i64::from(isolation.holds_zone_out());
            self.isolated.get_or_create(&ZoneLabels { zone: zone.clone() }).set(out);
            for (step, entry) in &isolation.steps {
                let labels = StepLabels { zone: zone.clone(), step: step.to_string(), state: entry.state.as_str() };
                self.steps.get_or_create(&labels).set(1);
                let labels = StepNameLabels { zone: zone.clone(), step: step.to_string() };
                self.step_failures.get_or_create(&labels).set(i64::from(entry.failures));
            }
        }
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub fn paused(&self, paused: bool) {
        self.paused.set(i64::from(paused));
    }

    pub fn failed_cycle(&self) {
        self.failed_cycles.inc();
    }

    /// From running totals.
    pub fn usage(&self, queries: u64, failed_queries: u64, response_bytes: u64) {
        let mut seen = self.seen_usage.lock().unwrap_or_else(PoisonError::into_inner);
        self.queries.inc_by(queries - seen.0);
        self.failed_queries.inc_by(failed_queries - seen.1);
        self.response_bytes.inc_by(response_bytes - seen.2);
        *seen = (queries, failed_queries, response_bytes);
    }

    /// Whether the newest cycle could be judged.
    pub fn judges(&self, judges: bool) {
        self.judges.set(i64::from(judges));
    }

    pub fn unrecorded(&self) {
        self.unrecorded.inc();
    }

    /// For how long nothing could be put on record.
    pub fn unrecorded_for(&self, seconds: i64) {
        self.unrecorded_for.set(seconds);
    }

    pub fn notified(&self, target: &'static str, outcome: &'static str) {
        self.notifications.get_or_create(&NotificationLabels { target, outcome }).inc();
    }

    pub fn record(&self, record: &Record) {
        self.records.get_or_create(&EventLabels { event: record.event.as_str() }).inc();
        let Some(zone) = record.zone.as_ref().map(ToString::to_string) else { return };
        let labels = |reason: String| HoldLabels { zone: zone.clone(), reason };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match (record.event, &record.reason) {
            (Event::Blocked, Some(reason)) => {
                let reason = reason.as_str().to_owned();
                if let Some(before) = held.insert(zone.clone(), reason.clone()) {
                    self.holds.remove(&labels(before));
                }
                self.holds.get_or_create(&labels(reason)).set(1);
            }
            (Event::Isolate | Event::Clear, _) => {
                if let Some(before) = held.remove(&zone) {
                    self.holds.remove(&labels(before));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::{Finding, HoldReason, Nats, Zone};

    #[test]
    fn a_hold_shows_its_newest_reason_until_the_zone_is_isolated_or_clear() {
        let metrics = Metrics::default();
        let record = |event, reason| {
            let mut record = Record::new(Timestamp::UNIX_EPOCH, event, "").zone(&Zone::new("zone-b"));
            record.reason = reason;
            metrics.record(&record);
            metrics
                .encode()
                .lines()
                .filter(|line| line.starts_with("zoneward_zone_hold{"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(record(Event::Suspect, None), "");
        let held = |reason: &str| format!("zoneward_zone_hold{{zone=\"zone-b\",reason=\"{reason}\"}} 1");
        assert_eq!(record(Event::Blocked, Some(HoldReason::RegionalFault)), held("regional_fault"));
        assert_eq!(record(Event::Blocked, Some(HoldReason::NotLeader)), held("not_leader"));
        assert_eq!(record(Event::Clear, None), "");
    }

    #[test]
    fn evidence_is_the_strongest_of_a_signal_and_goes_with_the_finding() {
        let metrics = Metrics::default();
        let evidence = |nats: f64, severity: f64| {
            let text = r#"{"signal": "server_errors", "vantage": "server", "nats": "1 nats", "seen": 0.1, "expected": 0.0,
                "excess_low": 0.0, "excess_high": 0.1, "zone_requests": 100.0, "peer_requests": 100.0, "window": "30s",
                "severity": 0.0}"#;
            let mut evidence: crate::domain::Evidence = serde_json::from_str(text).unwrap();
            (evidence.nats, evidence.severity) = (Nats::new(nats), severity);
            evidence
        };
        let mut finding = Finding::healthy();
        let zones = |finding: &Finding| [(Zone::new("zone-b"), finding.clone())].into();
        let shown = |finding: &Finding| {
            let time = Timestamp::UNIX_EPOCH;
            metrics.cycle(&Assessment { time, zones: zones(finding), unsettled: Default::default() }, 1, 0.1);
            metrics.encode()
        };
        finding.evidence = vec![evidence(21.5, 0.2), evidence(14.0, 0.4)];
        let text = shown(&finding);
        assert!(text.contains("zoneward_zone_evidence_nats{zone=\"zone-b\",signal=\"server_errors\"} 21.5"), "{text}");
        assert!(text.contains("zoneward_zone_severity_ratio{zone=\"zone-b\"} 0.4"), "{text}");
        assert!(!shown(&Finding::healthy()).contains("zone_evidence_nats{"));
    }
}
