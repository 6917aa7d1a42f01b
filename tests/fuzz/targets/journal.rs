//! The journal: read, verified and told; and a good one that somebody changed.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use zoneward::audit::{self, Entry, Source};
use zoneward::domain::{CycleLength, Period, Zone};
use zoneward::report::{Review, Told};

use crate::{MIB, choice, file, within};

/// A journal of some hundred entries.
const GOOD: &[u8] = include_bytes!("../corpus/journal/good");
/// Times as much as the file has.
const MOST_TIMES: usize = 64;

pub fn run(data: &[u8]) {
    match choice(data, 3) {
        (0, rest) => anything(rest),
        (1, rest) => two_segments(rest),
        (_, edits) => changed(edits),
    }
}

fn source(content: &[u8]) -> Source {
    Source::of(&file("journal/audit-00000001-20260101T000000Z-1.jsonl", content))
}

fn anything(content: &[u8]) {
    let source = source(content);
    within(MIB + MOST_TIMES * content.len(), || {
        drop(audit::verify(&source).map_err(|error| error.to_string()));
        let Ok((entries, _)) = audit::read(&source) else { return };
        told(&entries);
    });
}

/// A directory is whole: each segment continues another.
fn two_segments(content: &[u8]) {
    let middle = content.windows(2).position(|pair| pair == b"\n\n").unwrap_or(content.len());
    let (one, two) = content.split_at(middle);
    let first = file("segments/audit-00000001-20260101T000000Z-1.jsonl", one);
    file("segments/audit-00000002-20260102T000000Z-1.jsonl", two.trim_ascii_start());
    let source = Source::of(first.parent().expect("a folder"));
    drop(audit::verify(&source).map_err(|error| error.to_string()));
    drop(audit::read(&source));
}

/// What people are shown of it.
fn told(entries: &[Entry]) {
    for (at, entry) in entries.iter().enumerate() {
        let again = serde_json::to_string(&entry.record).expect("what is read can be written");
        drop((again, audit::find(entries, entry.id()), audit::story(entries, at)));
    }
    let Some((first, last)) = entries.first().zip(entries.last()) else { return };
    let told = |entry: &Entry| Told { id: entry.id().to_owned(), record: entry.record.clone(), seen: Vec::new() };
    let zones: BTreeSet<&Zone> = entries.iter().filter_map(|entry| entry.record.zone.as_ref()).collect();
    let of_zone = |zone: &&Zone| audit::stories(entries, zone);
    let stories = zones.iter().flat_map(of_zone).map(|story| story.into_iter().map(told).collect()).collect();
    let review = Review {
        start: first.record.time,
        end: last.record.time,
        journal: "journal".to_owned(),
        verified: "verified".to_owned(),
        cycle: CycleLength::at_least(Period::from_secs(15)),
        stories,
        others: entries.iter().filter(|entry| entry.record.zone.is_none()).map(told).collect(),
    };
    drop(review.html());
}

/// Edits, each of three bytes: where, and what is put there. What verifies all the same says the same.
fn changed(edits: &[u8]) {
    static BEFORE: LazyLock<Vec<String>> = LazyLock::new(|| {
        let good = source(&GOOD[1..]);
        audit::verify(&good).expect("it is good");
        texts(&good)
    });
    let before = &*BEFORE;
    let mut content = GOOD[1..].to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % content.len();
        content[at] = edit[2];
    }
    let source = source(&content);
    let Ok(verified) = audit::verify(&source) else { return };
    let after = texts(&source);
    let left = if verified.torn.is_empty() { before.as_slice() } else { &before[..before.len() - 1] };
    assert_eq!(after, left, "it was changed, and verifies");
}

fn texts(source: &Source) -> Vec<String> {
    let (entries, _) = audit::read(source).expect("it verifies");
    entries.into_iter().map(|entry| format!("{} {} {}", entry.number, entry.hash, entry.text)).collect()
}
