//! `zoneward audit replay`: decides again, from what was kept of it, and compares.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::audit::{self, Entry, Source};
use crate::cli::{Outcome, Output, render};
use crate::domain::Record;
use crate::pipeline::Inputs;

pub(super) async fn replay(source: &Source, entries: &[Entry], id: &str, output: Output) -> anyhow::Result<Outcome> {
    let entry = &entries[audit::find(entries, id)?];
    let record = &entry.record;
    let Some(cited) = &record.inputs else {
        bail!(
            "{} ({}) cites no inputs: they are kept of what zoneward itself suspects, holds back and isolates (with a mesh of up \
             to 6,000 services times zones, and as long as the disk takes them), not of what people ask for",
            entry.id(),
            record.event
        );
    };
    let file = audit::inputs(source, cited)?;
    let inputs = Inputs::read(&file).with_context(|| format!("the inputs {cited}"))?;
    let version = inputs.version.clone();
    let again: Vec<Record> = inputs.replay().await?;
    let same = |other: &&Record| other.event == record.event && other.zone == record.zone;
    let decided = again.iter().find(same).map(|other| Record { inputs: Some(cited.clone()), ..other.clone() });
    let text = decided.as_ref().map(audit::text_of).transpose()?;
    let identical = text.as_deref() == Some(entry.text.as_str());
    let difference = match &text {
        Some(_) if identical => None,
        Some(text) => {
            first_difference(&serde_json::from_str(&entry.text)?, &serde_json::from_str(text)?, String::new())
        }
        None => {
            Some(Difference { at: "event".to_owned(), recorded: json!(record.event), replayed: json!(events(&again)) })
        }
    };
    let difference = difference.or_else(|| {
        let formatting =
            || Difference { at: "the text".to_owned(), recorded: json!(entry.text), replayed: json!(text) };
        (!identical).then(formatting)
    });
    let other_version = Some(&version).filter(|version| *version != env!("CARGO_PKG_VERSION"));
    match output {
        Output::Json => render::json(&json!({
            "id": entry.id(), "identical": identical, "inputs": cited, "decided_by": version,
            "difference": difference.map(|it| json!({"at": it.at, "recorded": it.recorded, "replayed": it.replayed})),
        }))?,
        Output::Table => {
            match difference {
                None => render::line(&format!(
                    "byte-identical: {} decided again from its inputs gives the same {} bytes, hash {}",
                    entry.id(),
                    entry.text.len(),
                    entry.hash
                )),
                Some(Difference { at, recorded, replayed }) => {
                    render::line(&format!(
                        "different: {} decided again from its inputs differs, first in {at}",
                        entry.id()
                    ));
                    render::line(&format!("  on record: {recorded}\n  replayed:  {replayed}"));
                }
            }
            if let Some(version) = other_version {
                let this = env!("CARGO_PKG_VERSION");
                render::note(&format!("zoneward {version} decided it, and this is {this}: others may judge otherwise"));
            }
        }
    }
    Ok(if identical { Outcome::Done } else { Outcome::Found })
}

fn events(records: &[Record]) -> Vec<String> {
    let zone = |record: &Record| record.zone.as_ref().map(|zone| format!(" of {zone}")).unwrap_or_default();
    records.iter().map(|record| format!("{}{}", record.event, zone(record))).collect()
}

struct Difference {
    at: String,
    recorded: Value,
    replayed: Value,
}

/// Where two records part.
fn first_difference(recorded: &Value, replayed: &Value, at: String) -> Option<Difference> {
    if recorded == replayed {
        return None;
    }
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    let null = Value::Null;
    let parts: Vec<(String, &Value, &Value)> = match (recorded, replayed) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
            keys.map(|key| (below(key), one.get(key).unwrap_or(&null), other.get(key).unwrap_or(&null))).collect()
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).enumerate().map(|(i, (a, b))| (below(&i.to_string()), a, b)).collect()
        }
        _ => Vec::new(),
    };
    let found = parts.into_iter().find_map(|(at, one, other)| first_difference(one, other, at));
    Some(found.unwrap_or_else(|| Difference { at, recorded: recorded.clone(), replayed: replayed.clone() }))
}
