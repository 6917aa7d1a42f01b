//! What belongs together: the entries of one zone from a suspicion to its end.

use super::Entry;
use crate::domain::{Event, Zone};

/// The entries of the story that one of them belongs to, in order. One that concerns no zone stands alone.
pub fn story(entries: &[Entry], at: usize) -> Vec<&Entry> {
    let Some(zone) = &entries[at].record.zone else { return vec![&entries[at]] };
    let mut stories = stories(entries, zone).into_iter();
    stories.find(|story| story.iter().any(|entry| std::ptr::eq(*entry, &raw const entries[at]))).unwrap_or_default()
}

/// All stories of a zone.
pub fn stories<'a>(entries: &'a [Entry], zone: &Zone) -> Vec<Vec<&'a Entry>> {
    let mut stories = vec![Vec::new()];
    // Whether the zone is out, or about to be, and whether in earnest.
    let mut out: Option<bool> = None;
    for entry in entries {
        let event = entry.record.event;
        // What is rehearsed lives as long as the process.
        let forgotten = event == Event::Started && out == Some(false);
        let of_zone = entry.record.zone.as_ref() == Some(zone);
        if let (Some(story), true) = (stories.last_mut(), of_zone) {
            story.push(entry);
        }
        if of_zone && matches!(event, Event::Isolate | Event::Admitted) {
            out = Some(!entry.record.rehearsal);
        }
        let ends = of_zone && (event == Event::Restored || event == Event::Clear && out.is_none());
        if (ends || forgotten) && stories.last().is_some_and(|story| !story.is_empty()) {
            out = None;
            stories.push(Vec::new());
        }
    }
    stories.retain(|story| !story.is_empty());
    stories
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::Record;

    fn entries(events: &[(Event, Option<&str>)]) -> Vec<Entry> {
        let entry = |(at, (event, zone)): (usize, &(Event, Option<&str>))| {
            let mut record = Record::new(Timestamp::from_second(at as i64).unwrap(), *event, "");
            record.zone = zone.map(Zone::new);
            record.rehearsal = *event == Event::Isolate;
            Entry { segment: String::new(), number: at as u64, hash: at.to_string(), record, text: String::new() }
        };
        events.iter().enumerate().map(entry).collect()
    }

    fn told(entries: &[Entry], at: usize) -> Vec<u64> {
        story(entries, at).iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn a_story_goes_from_the_suspicion_to_the_zone_s_return_and_is_of_one_zone() {
        let (a, b) = (Some("a"), Some("b"));
        let entries = entries(&[
            (Event::Started, None),
            (Event::Suspect, a),
            (Event::Clear, a),
            (Event::Suspect, a),
            (Event::Suspect, b),
            (Event::Isolate, a),
            (Event::Clear, a), // on its way back
            (Event::Restored, a),
            (Event::Suspect, a),
        ]);
        assert_eq!(told(&entries, 1), [1, 2]);
        for at in [3, 5, 6, 7] {
            assert_eq!(told(&entries, at), [3, 5, 6, 7]);
        }
        assert_eq!(told(&entries, 4), [4]);
        assert_eq!(told(&entries, 8), [8]);
        assert_eq!(told(&entries, 0), [0]);
    }

    #[test]
    fn what_was_rehearsed_is_forgotten_by_the_next_process() {
        let a = Some("a");
        let entries = entries(&[(Event::Isolate, a), (Event::Started, None), (Event::Suspect, a), (Event::Clear, a)]);
        assert_eq!(told(&entries, 0), [0]);
        assert_eq!(told(&entries, 3), [2, 3]);
    }
}
