//! On real files.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::*;
use crate::domain::{Event, Record, Zone};
use crate::ports::AuditSink as _;

fn settings(directory: &Path) -> Settings {
    Settings { directory: directory.to_owned(), ..Settings::default() }
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    source::segments(directory).unwrap()
}

fn record(second: i64, event: Event, message: &str) -> Record {
    Record::new(Timestamp::from_second(second).unwrap(), event, message)
}

async fn write(directory: &Path, second: i64, messages: &[&str]) -> PathBuf {
    let journal = Journal::start(&settings(directory)).unwrap();
    for message in messages {
        journal.append(record(second, Event::Suspect, message)).await.unwrap();
    }
    segments(directory).pop().unwrap()
}

fn of(directory: &Path) -> Source {
    Source::of(directory)
}

fn messages(directory: &Path) -> Vec<String> {
    read(&of(directory)).unwrap().0.into_iter().map(|entry| entry.record.message).collect()
}

#[tokio::test]
async fn a_journal_over_several_processes_is_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 1, &["a", "b"]).await;
    write(directory.path(), 2, &["c"]).await;
    write(directory.path(), 3, &["d", "e"]).await;
    let verified = verify(&of(directory.path())).unwrap();
    assert_eq!((verified.segments, verified.entries), (3, 5));
    assert_eq!(messages(directory.path()), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn changed_removed_and_repeated_entries_are_found() {
    type Meddle<'a> = &'a dyn Fn(&str) -> String;
    let without = |word: &'static str| {
        move |text: &str| text.lines().filter(|l| !l.contains(word)).map(|l| format!("{l}\n")).collect::<String>()
    };
    let (without_second, without_third) = (without("second"), without("third"));
    let cases: [(Meddle<'_>, &str); 4] = [
        (&|text| text.replace("second", "seconds"), "was changed"),
        (&without_second, "does not follow"),
        (&|text| text.lines().map(|l| format!("{l}\n{l}\n")).collect(), "does not follow"),
        (&without_third, "not there"),
    ];
    for (meddle, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), 1, &["first", "second", "third"]).await;
        write(directory.path(), 2, &["next"]).await;
        std::fs::write(&path, meddle(&std::fs::read_to_string(&path).unwrap())).unwrap();
        let error = verify(&of(directory.path())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_clock_that_goes_back_does_not_break_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 2_000, &["a"]).await;
    write(directory.path(), 1_000, &["b"]).await;
    write(directory.path(), 3_000, &["c"]).await;
    assert_eq!(verify(&of(directory.path())).unwrap().entries, 3);
}

#[tokio::test]
async fn a_line_torn_by_a_crash_is_reported_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), 1, &["a", "zone \u{2014} b"]).await;
    let text = std::fs::read(&path).unwrap();
    let within_a_character = text.iter().rposition(|byte| *byte == 0xe2).unwrap() + 2;
    std::fs::write(&path, &text[..within_a_character]).unwrap();
    write(directory.path(), 2, &["c"]).await;
    let verified = verify(&of(directory.path())).unwrap();
    assert_eq!((verified.entries, verified.torn.len()), (2, 1));
    assert_eq!(messages(directory.path()).len(), 2);
}

#[tokio::test]
async fn an_entry_is_named_by_the_beginning_of_its_hash() {
    let directory = tempfile::tempdir().unwrap();
    let many: Vec<String> = (0..600).map(|i| i.to_string()).collect();
    write(directory.path(), 1, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (entries, _) = read(&of(directory.path())).unwrap();
    assert_eq!(find(&entries, entries[7].id()).unwrap(), 7);
    assert_eq!(find(&entries, &entries[7].hash.to_uppercase()).unwrap(), 7);
    let alike = entries.iter().filter(|entry| entry.hash[..2] == entries[7].hash[..2]).count();
    assert!(alike > 1, "600 of 256");
    for (id, why) in [("ab", "is no ID"), ("zone", "is no ID"), ("0123456789abcdef", "no entry has an ID")] {
        let error = find(&entries, id).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let mut twins = entries[..2].to_vec();
    twins[1].hash = format!("{}{}", &twins[0].hash[..8], &twins[1].hash[8..]);
    let error = find(&twins, &twins[0].hash[..6]).unwrap_err().to_string();
    for twin in &twins {
        assert!(error.contains(twin.id()) && error.contains("which one?"), "{error}");
    }
}

/// Segments of one entry each, an hour apart, then what is to be kept.
async fn hourly(directory: &Path, limits: &Settings, events: &[(i64, Event)]) {
    let journal = Journal::start(&Settings { directory: directory.to_owned(), ..limits.clone() }).unwrap();
    for (hour, event) in events {
        let mut record = record(hour * 3600, *event, &"x".repeat(1000));
        record.zone = Some(Zone::new("zone-a"));
        journal.append(record).await.unwrap();
    }
    // What comes after an entry is done once the next is written.
    let last = events.last().unwrap().0 * 3600 + 1;
    journal.append(record(last, Event::Observed, "last")).await.unwrap();
}

fn an_hour_each() -> Settings {
    let hour = Period::from_hours(1);
    Settings { segment_age: hour, keep_for: Period::from_hours(5), ..Settings::default() }
}

#[tokio::test]
async fn segments_are_rotated_by_age_and_by_size_in_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    hourly(directory.path(), &an_hour_each(), &[0, 1, 2].map(|hour| (hour, Event::Suspect))).await;
    assert_eq!(segments(directory.path()).len(), 3);
    let by_size = Settings { segment_size: "2KiB".parse().unwrap(), ..Settings::default() };
    hourly(directory.path(), &by_size, &[3; 6].map(|hour| (hour, Event::Suspect))).await;
    assert!(segments(directory.path()).len() >= 6, "{:?}", segments(directory.path()));
    assert_eq!(verify(&of(directory.path())).unwrap().entries, 11);
}

#[tokio::test]
async fn what_is_too_old_is_retired_on_record_and_what_is_left_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let hours: Vec<(i64, Event)> = (0..12).map(|hour| (hour, Event::Suspect)).collect();
    hourly(directory.path(), &an_hour_each(), &hours).await;
    let left = segments(directory.path());
    assert_eq!(left.len(), 6, "{left:?}");
    let verified = verify(&of(directory.path())).unwrap();
    assert_eq!(verified.retired, 1);
    let (entries, _) = read(&of(directory.path())).unwrap();
    let retired = entries.iter().rfind(|entry| entry.record.event == Event::Retired).unwrap();
    assert!(retired.record.message.contains("older than audit.keep_for (5h)"), "{}", retired.record.message);
    // What nobody put on record was not retired.
    std::fs::remove_file(&left[0]).unwrap();
    let error = verify(&of(directory.path())).unwrap_err().to_string();
    assert!(error.contains("and not by retention"), "{error}");
}

#[tokio::test]
async fn the_story_of_an_isolation_that_lasts_is_kept_however_old() {
    let story = |end: Option<i64>| {
        (0..12).map(move |hour| match hour {
            2 => (hour, Event::Isolate),
            _ if Some(hour) == end => (hour, Event::Restored),
            _ => (hour, Event::Suspect),
        })
    };
    for (end, oldest) in [(None, 2), (Some(4), 6)] {
        let directory = tempfile::tempdir().unwrap();
        hourly(directory.path(), &an_hour_each(), &story(end).collect::<Vec<_>>()).await;
        let (entries, _) = read(&of(directory.path())).unwrap();
        assert_eq!(entries[0].record.time.as_second(), oldest * 3600, "{end:?}");
        verify(&of(directory.path())).unwrap();
    }
}

#[tokio::test]
async fn all_that_is_kept_is_bounded_even_if_an_isolation_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let (segment_size, keep_size) = ("8KiB".parse().unwrap(), "32KiB".parse().unwrap());
    let limits = Settings { segment_size, keep_size, ..Settings::default() };
    let mut events = vec![(0, Event::Isolate)];
    events.extend([(1, Event::Suspect); 200]);
    hourly(directory.path(), &limits, &events).await;
    let size: u64 = segments(directory.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(size <= 34 * 1024, "{size}");
    let verified = verify(&of(directory.path())).unwrap();
    assert!(verified.retired == 1 && verified.entries > 10, "{verified:?}");
}

#[tokio::test]
async fn a_folder_has_one_writer_at_a_time_and_the_next_goes_on_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = Journal::start(&settings(directory.path())).unwrap();
    first.append(record(1, Event::Started, "first")).await.unwrap();
    let error = Journal::start(&settings(directory.path())).unwrap_err().to_string();
    assert!(
        error.contains("another process writes its journal there") && error.contains("(audit.directory"),
        "{error}"
    );
    first.append(record(2, Event::Suspect, "goes on")).await.unwrap();
    drop(first);
    write(directory.path(), 3, &["second"]).await;
    assert_eq!(messages(directory.path()), ["first", "goes on", "second"]);
    verify(&of(directory.path())).unwrap();
}

#[tokio::test]
async fn a_volume_that_can_t_be_written_is_tried_again_with_each_record() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("audit");
    std::fs::write(&blocked, "a file where the folder should be").unwrap();
    let journal = Journal::start(&settings(&blocked)).unwrap();
    let error = journal.append(record(1, Event::Started, "started")).await.unwrap_err().to_string();
    assert!(error.contains("can't be written") && error.contains("(audit.directory"), "{error}");
    std::fs::remove_file(&blocked).unwrap();
    journal.append(record(2, Event::Unrecorded, "it can again")).await.unwrap();
    assert_eq!(messages(&blocked), ["it can again"]);
    // The volume is replaced while it runs.
    std::fs::remove_dir_all(&blocked).unwrap();
    journal.append(record(3, Event::Suspect, "on the new one")).await.unwrap();
    assert_eq!(messages(&blocked), ["on the new one"]);
    verify(&of(&blocked)).unwrap();
}

#[tokio::test]
async fn a_part_of_a_journal_is_checked_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 1, &["a", "b"]).await;
    let newer = write(directory.path(), 2, &["c", "d"]).await;
    let verified = verify(&Source::of(&newer)).unwrap();
    assert_eq!((verified.entries, verified.loose.len()), (2, 1));
    let text = std::fs::read_to_string(&newer).unwrap();
    std::fs::write(&newer, text.replacen("\"d\"", "\"e\"", 1)).unwrap();
    let error = verify(&Source::of(&newer)).unwrap_err().to_string();
    assert!(error.contains("line 2: was changed"), "{error}");
}

#[tokio::test]
async fn what_decisions_rest_on_is_named_by_its_hash_and_goes_first_when_room_is_short() {
    let directory = tempfile::tempdir().unwrap();
    let (segment_size, keep_size) = ("8KiB".parse().unwrap(), "64KiB".parse().unwrap());
    let journal = Journal::start(&Settings { segment_size, keep_size, ..settings(directory.path()) }).unwrap();
    let mut cited = Vec::new();
    for second in 0..20 {
        let file = vec![second as u8; 6000];
        let hash = journal.keep_inputs(Timestamp::from_second(second).unwrap(), file).await.unwrap();
        let mut record = record(second, Event::Isolate, "decided");
        record.inputs = Some(hash.clone());
        journal.append(record).await.unwrap();
        cited.push(hash);
    }
    let source = of(directory.path());
    assert_eq!(inputs(&source, &cited[19]).unwrap(), [19; 6000]);
    assert!(matches!(inputs(&source, &cited[0]), Err(InputsError::Gone { .. })));
    let (entries, _) = read(&source).unwrap();
    let decided = entries.iter().filter(|entry| entry.record.event == Event::Isolate).count();
    assert_eq!(decided, 20, "and the decisions stay");
    let size: u64 = std::fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 64 * 1024, "{size}");
    verify(&source).unwrap();

    let path = inputs::all(directory.path()).unwrap().pop().unwrap();
    std::fs::write(&path, [20; 6000]).unwrap();
    let error = inputs(&source, &cited[19]).unwrap_err().to_string();
    assert!(error.contains("was changed after it was written"), "{error}");
}
