//! What things are called.

use jiff::{SignedDuration, Timestamp};

use super::draw::{Unit, seconds};
use super::figure::{Figure, Measure};
use super::plot::unit;
use super::timeline::{Bin, Sign};
use crate::domain::{Calls, Evidence, ServiceId, Signal, Vantage, Verdict};

/// `2026-01-01 12:30:15`, always in UTC.
pub(super) fn clock(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2 h 5 min`: the two largest units.
pub(super) fn lasting(span: SignedDuration) -> String {
    let all = span.as_secs().max(0);
    let parts = [(all / 86_400, "d"), (all / 3600 % 24, "h"), (all / 60 % 60, "min"), (all % 60, "s")];
    let from = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let said = parts[from..].iter().take(2).enumerate().filter(|(at, (count, _))| *at == 0 || *count > 0);
    said.map(|(_, (count, unit))| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// `1 time`, `2 times`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// As much of a share as says something.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let decimals = if percent.abs() >= 10.0 { 1 } else { 2 };
    format!("{percent:.decimals$} %")
}

pub(super) fn service(service: Option<&ServiceId>) -> String {
    service.map_or_else(|| "all services".to_owned(), ToString::to_string)
}

pub(super) const fn sign(sign: Sign) -> &'static str {
    match sign {
        Sign::Isolate => "isolate",
        Sign::Restore => "give back",
        Sign::Held => "held back",
        Sign::Suspect => "suspect",
        Sign::Clear => "like its peers again",
        Sign::Gap => "can't be judged",
    }
}

/// What a signal is about, as evidence names it.
pub(super) const fn signal(signal: Signal) -> &'static str {
    match signal {
        Signal::ServerErrors => "requests failed, as servers saw it",
        Signal::ClientErrors => "calls failed, as the zone's clients saw it",
        Signal::LostCalls => "calls that never reached the zone's servers",
        Signal::SlowRequests => "requests were slow",
        Signal::VerySlowRequests => "requests were very slow",
        Signal::Latency => "latency, times the usual",
    }
}

/// What was seen, what was expected, and the difference between which bounds: as shares, or as factors.
pub(super) fn effect(item: &Evidence) -> [String; 3] {
    let Evidence { seen, expected, excess_low: low, excess_high: high, .. } = item;
    match item.signal {
        Signal::Latency => [format!("{seen:.2}×"), format!("{expected:.2}×"), format!("{low:+.2}× to {high:+.2}×")],
        Signal::ServerErrors
        | Signal::ClientErrors
        | Signal::LostCalls
        | Signal::SlowRequests
        | Signal::VerySlowRequests => {
            [percent(*seen), percent(*expected), format!("{:+.2} to {:+.2} points", 100.0 * low, 100.0 * high)]
        }
    }
}

pub(super) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Healthy => "healthy".to_owned(),
        Verdict::ZoneFault => "this zone alone is worse".to_owned(),
        Verdict::ServiceFault { affected_share, needed_share } => format!(
            "a fault of services that carry {} of the zone's requests, where {} are needed",
            percent(*affected_share),
            percent(*needed_share)
        ),
        Verdict::InstanceFault { pod } => format!("one pod explains it: {pod}"),
        Verdict::NodeFault { node } => format!("one node explains it: {node}"),
        Verdict::RolloutInProgress { new_pods, pods } => {
            format!("a roll-out may explain it: {new_pods} of {pods} pods are new")
        }
        Verdict::RegionalFault => "other zones got worse, too".to_owned(),
        Verdict::FaultElsewhere { why } => format!("the fault is elsewhere: {why}"),
        Verdict::Inconclusive { gaps } => gaps.first().map_or_else(|| "inconclusive".to_owned(), ToString::to_string),
    }
}

/// A kind's name as words: `too_narrow` is `too narrow`.
pub(super) fn plain(kind: &str) -> String {
    kind.replace('_', " ")
}

/// What a figure shows.
pub(super) fn caption(figure: &Figure) -> String {
    let what = match &figure.measure {
        Measure::Failed(Vantage::Server) => "share of requests that failed, as servers saw it".to_owned(),
        Measure::Failed(Vantage::Client) => "share of calls that failed, as the zone's clients saw it".to_owned(),
        Measure::Slower(_) => match figure.over_ms {
            Some(ms) => format!("share of requests slower than {}", Unit::Milliseconds.tick(ms, 1.0)),
            None => "share of requests slower than usual, by each service's own measure".to_owned(),
        },
        Measure::Quantile(share) if (*share - 0.5).abs() < 1e-9 => "median duration, estimated".to_owned(),
        Measure::Quantile(share) => format!("p{:.0} of durations, estimated", 100.0 * share),
        Measure::Traffic(_) => "requests answered per second".to_owned(),
        Measure::Excess(Signal::Latency) => "latency: how many times the usual more than expected".to_owned(),
        Measure::Excess(of) => format!("{}: percentage points more than expected", signal(*of)),
        Measure::Scraped => return "share of proxies that were scraped".to_owned(),
    };
    format!("{}: {what}", service(figure.service.as_ref()))
}

/// The same for those who don't see it.
pub(super) fn described(figure: &Figure, caption: &str) -> String {
    let unit = unit(&figure.measure);
    let span = |zone| {
        let known: Vec<f64> = figure.points.iter().filter_map(|(_, values)| values.get(zone)).copied().collect();
        let (low, high) = known.iter().fold((f64::MAX, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
        let fine = if high > 0.0 { 10_f64.powf(high.log10().floor() - 1.0) } else { 1.0 };
        format!("{zone} between {} and {}", unit.tick(low, fine), unit.tick(high, fine))
    };
    let zones: Vec<String> = figure.zones().into_iter().map(span).collect();
    format!("{caption}, around {} UTC. {}", clock(figure.moment), zones.join("; "))
}

/// A zone's whole stretch in numbers.
pub(super) fn lane(bins: &[Bin], part: SignedDuration) -> String {
    let served = bins.iter().fold(Calls::default(), |sum, bin| sum + bin.served);
    let called = bins.iter().fold(Calls::default(), |sum, bin| sum + bin.called);
    let busy = bins.iter().filter(|bin| bin.served.total > 0.0).count() as f64 * part.as_secs_f64();
    let failed = |calls: Calls| if calls.total > 0.0 { percent(calls.failed / calls.total) } else { "–".to_owned() };
    format!(
        "{:.1} requests/s; failed: {} as served, {} as clients saw it",
        served.total / busy.max(1.0),
        failed(served),
        failed(called)
    )
}

/// How far two moments are apart.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    lasting(SignedDuration::from_secs((seconds(to) - seconds(from)).round() as i64))
}
