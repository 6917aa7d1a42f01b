//! Prometheus' answers, whole and in pieces; and what is made of them, to the verdict.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::decode::{Builder, Places, Reading, Stretch};
use super::settings::{Settings, ZoneFrom};
use super::stream::{Row, Scanner};
use crate::detect::{History, Pods, detect};
use crate::domain::cluster::{Place, PodId};
use crate::domain::{CycleLength, Histogram, Period, Snapshot, Zone};
use crate::{MIB, within};

const CYCLES: usize = 4;

/// What is taken for so many bytes of an answer: a short row may begin a cell in each cycle.
const MOST_BYTES_A_BYTE: usize = 200;

/// All that is read of an answer.
#[derive(Default)]
struct Told {
    rows: Vec<String>,
    snapshots: Vec<Snapshot>,
    /// Its kind and its warnings, or how it fails.
    end: String,
    /// What is shown of it, if it fails: as much as has come.
    beginning: String,
}

pub fn run(data: &[u8]) {
    let Some(([size, flags], answer)) = data.split_first_chunk::<2>() else { return };
    let zone_from = if flags & 1 == 0 { ZoneFrom::Label } else { ZoneFrom::Node };
    let settings = Settings { zone_from, ..Settings::default() };
    let most = MIB + MOST_BYTES_A_BYTE * answer.len();
    let whole = within(most, || read(answer, answer.len().max(1), &settings));
    let pieces = read(answer, usize::from(*size).max(1), &settings);
    assert_eq!((&whole.rows, &whole.end), (&pieces.rows, &pieces.end), "in pieces of {size} bytes");
    assert_eq!(format!("{:?}", whole.snapshots), format!("{:?}", pieces.snapshots), "in pieces of {size} bytes");
    // The last character may have come in part.
    let shown = pieces.beginning.trim_end_matches(char::REPLACEMENT_CHARACTER);
    assert!(whole.beginning.starts_with(shown), "{shown:?} begins no {:?}", whole.beginning);
    judge(&whole.snapshots);
}

fn stretch() -> Stretch {
    let cycle = CycleLength::at_least(Period::from_secs(15));
    Stretch { first: Timestamp::from_second(1_795_716_210).unwrap_or_default(), cycles: CYCLES, cycle }
}

fn read(answer: &[u8], size: usize, settings: &Settings) -> Told {
    let place = |name: &str| {
        let id = PodId { namespace: "default".to_owned(), name: name.to_owned() };
        (id, Place { zone: Zone::new(name), node: "node".to_owned() })
    };
    let (places, stretch): (Places, _) = (BTreeMap::from(["a", "b", "c"].map(place)), stretch());
    let reading = Reading { settings, places: &places };
    let mut builder = Builder::new(stretch, reading);
    let (mut told, mut scanner) = (Told::default(), Scanner::default());
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    let mut take = |row: &Row<'_>| {
        // Each answer is of one kind; what a row lacks makes it none of another.
        match (row.get("le"), row.get("zoneward_up")) {
            (Some(edge), _) => {
                builder.buckets(row);
                let total: f64 = stretch.values(row).map(|(_, count)| count).sum();
                buckets.extend(edge.parse().ok().map(|edge: f64| (edge, total)));
            }
            (None, Some(_)) => builder.proxies(row),
            (None, None) if row.get("reporter").is_some() => builder.rates(row),
            (None, None) => builder.counts(row),
        }
        told.rows.push(format!("{row:?} {:?} {:?}", row.value(), reading.place(row)));
    };
    let fed = answer.chunks(size).try_for_each(|piece| scanner.feed(piece, &mut take));
    drop(Histogram::from_cumulative(&buckets));
    let envelope = fed.and_then(|()| scanner.envelope());
    let warnings = match envelope {
        Ok(envelope) => {
            told.end =
                format!("{:?} {:?} {:?}", envelope.status, envelope.data.as_ref().map(|it| &it.kind), envelope.error);
            envelope.warnings()
        }
        // Where it was in the text is said of rows by their own.
        Err(error) => vec![format!("{:?}", error.classify())],
    };
    told.end = format!("{} {warnings:?}", told.end);
    told.beginning = scanner.beginning(80);
    told.snapshots = builder.finish(&warnings).collect();
    told
}

/// Whatever was counted: a verdict, and no panic.
fn judge(seen: &[Snapshot]) {
    let settings = crate::detect::Settings::default();
    let mut history = History::new(&settings, stretch().cycle);
    let cycle = stretch().cycle.signed();
    let mut now = stretch().first;
    for snapshot in seen.iter().cycle().take(24) {
        // As if there were nothing to say against it.
        history.push(&Snapshot { time: now, gaps: Vec::new(), ..snapshot.clone() }, &settings);
        let assessment = detect(&history, &Pods::default(), &settings, now);
        drop(format!("{assessment:?}"));
        now += cycle;
    }
}
