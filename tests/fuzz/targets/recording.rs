//! Recordings: as they are, under gzip, and such as swell when they are unpacked.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use zoneward::observe::RecordedObserver;
use zoneward::ports::Observer;

use crate::{MIB, choice, file, wait, within};

/// Two lines of the longest kind, and what is made of one of them.
const MOST_BYTES: usize = 1024 * MIB;
/// Stretches that are read.
const MOST_STRETCHES: i32 = 16;

pub fn run(data: &[u8]) {
    let (way, rest) = choice(data, 4);
    let content = match way {
        0 => rest.to_vec(),
        1 => packed(&[rest]),
        // Two that were put one behind the other.
        2 => [packed(&[rest]), packed(&[rest])].concat(),
        // The last line again and again.
        _ => {
            let last = rest.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let again = [last, b"\n"].concat().repeat(50);
            packed(&[rest, &again])
        }
    };
    let path = file("recording.gz", &content);
    within(MOST_BYTES, || {
        let Ok(mut observer) = RecordedObserver::open(&path) else { return };
        let head = observer.head();
        let cycle = head.cycle().signed();
        let mut at = head.first;
        for _ in 0..MOST_STRETCHES {
            let Some(end) = cycle.checked_mul(8).and_then(|stretch| at.checked_add(stretch).ok()) else { return };
            match wait(observer.observe(at, end)) {
                Ok(seen) => assert!(seen.iter().all(|it| it.time >= at && it.time <= end), "cycles of another time"),
                Err(error) => return drop(error.to_string()),
            }
            at = end;
        }
    });
}

fn packed(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    parts.iter().for_each(|part| out.write_all(part).expect("memory"));
    out.finish().expect("memory")
}
