//! `zoneward audit show`: one decision as a story.

use super::Listed;
use crate::audit::{self, Entry};
use crate::cli::{Outcome, Output, render};
use crate::domain::{Event, GuardrailSaid, Record, Verdict};

pub(super) fn show(entries: &[Entry], id: &str, output: Output) -> anyhow::Result<Outcome> {
    let at = audit::find(entries, id)?;
    let (entry, story) = (&entries[at], audit::story(entries, at));
    match output {
        Output::Json => render::json(&serde_json::json!({
            "entry": Listed::of(entry),
            "hash": entry.hash,
            "story": story.iter().map(|entry| Listed::of(entry)).collect::<Vec<_>>(),
        }))?,
        Output::Table => {
            in_words(entry, &story).iter().for_each(|line| render::line(line));
            guardrails(&entry.record);
            told(entry, &story);
        }
    }
    Ok(Outcome::Done)
}

fn in_words(entry: &Entry, story: &[&Entry]) -> Vec<String> {
    let record = &entry.record;
    let zone = record.zone.as_ref().map(|zone| format!(" of {zone}")).unwrap_or_default();
    let mut lines = vec![
        format!("{}  {}{zone}, {:.0}", entry.id(), record.event, record.time),
        format!("  {}", record.message),
        format!("  entry {} of {}, hash {}", entry.number, entry.segment, entry.hash),
    ];
    if record.rehearsal {
        lines.push("  A rehearsal: decided in earnest, and nothing was done.".to_owned());
    }
    if !record.evidence.is_empty() {
        lines.extend([String::new(), "What was seen, the severest first".to_owned()]);
        lines.extend(record.evidence.iter().map(|item| format!("  {item}")));
    }
    let suspect = story.iter().find(|other| other.record.event == Event::Suspect && other.hash != entry.hash);
    if let Some(since) = suspect.map(|other| other.record.time).filter(|since| *since <= record.time) {
        let lasted = record.time.duration_since(since);
        lines.push(format!("  Suspect since {since:.0}, {lasted:#} before."));
    }
    if let Some(verdict) = &record.verdict {
        lines.extend([String::new(), "The verdict".to_owned(), format!("  {}", why(verdict))]);
    }
    if let Some(reason) = &record.reason {
        lines.extend([String::new(), "Held, as".to_owned(), format!("  {reason} ({})", reason.as_str())]);
    }
    if let Some(effect) = &record.effective {
        let (before, after) = (effect.before_rps, effect.after_rps);
        lines.extend([
            String::new(),
            format!("The zone's servers answered {before:.1} requests/s, and now {after:.1}."),
        ]);
    }
    let figures = record.figures.iter().map(|(name, value)| format!("  {name}: {value}"));
    lines.extend(figures);
    if let Some(inputs) = &record.inputs {
        lines.extend([
            String::new(),
            format!("`zoneward audit replay {}` decides it again, from inputs with the SHA-256 {inputs}", entry.id()),
        ]);
    }
    lines
}

/// What a verdict says, and why it is no other.
fn why(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Healthy => "healthy: like its peers, and like its own past".to_owned(),
        Verdict::ZoneFault => {
            "a fault of this zone alone: it is worse than its peers and than its own past, in services that \
             matter enough; no regional fault, as no other zone was about as bad; and neither one pod, one node nor a \
             roll-out explains it"
                .to_owned()
        }
        Verdict::ServiceFault { affected_share, needed_share } => format!(
            "a fault of services, not of the zone: they carry {:.1} % of its requests, and {:.1} % are needed",
            100.0 * affected_share,
            100.0 * needed_share
        ),
        Verdict::InstanceFault { pod } => format!("a fault of the pod {pod}: without it the zone is like its peers"),
        Verdict::NodeFault { node } => {
            format!("a fault of the node {node}: without its pods the zone is like its peers")
        }
        Verdict::RolloutInProgress { new_pods, pods } => {
            format!("a roll-out: {new_pods} of {pods} pods are new, and may be what is worse")
        }
        Verdict::RegionalFault => {
            "a regional fault: other zones got worse, too, so that leaving one helps nobody".to_owned()
        }
        Verdict::FaultElsewhere { why } => format!("a fault elsewhere: {why}"),
        Verdict::Inconclusive { gaps } => {
            let gaps: Vec<String> = gaps.iter().map(ToString::to_string).collect();
            format!("none, as it can't be told: {}", gaps.join("; "))
        }
    }
}

fn guardrails(record: &Record) {
    if record.guardrails.is_empty() {
        return;
    }
    let passed = record.guardrails.iter().filter(|guardrail| guardrail.1 == GuardrailSaid::Passed).count();
    render::line(&format!("\nGuardrails, of which {passed} of {} passed", record.guardrails.len()));
    let row = |said: &crate::domain::Guardrail| vec![said.0.clone(), said.1.as_str().to_owned(), said.2.clone()];
    render::table(&["guardrail", "outcome", "figures"], record.guardrails.iter().map(row).collect());
}

/// What led to it, and what was done.
fn told(entry: &Entry, story: &[&Entry]) {
    if story.len() < 2 {
        return;
    }
    render::line("\nThe whole story");
    let row = |other: &&Entry| {
        let after = other.record.time.duration_since(entry.record.time).as_secs();
        let mark = if other.hash == entry.hash { format!("{} <", other.id()) } else { other.id().to_owned() };
        let time = other.record.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        vec![mark, time, format!("{after:+} s"), other.record.event.to_string(), other.record.message.clone()]
    };
    render::table(&["id", "time", "after", "event", "what"], story.iter().map(row).collect());
}
