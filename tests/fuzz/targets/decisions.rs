//! What decisions rest on, as it is kept beside the journal, and what is decided on it again.

use std::io::Read;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use zoneward::pipeline::Inputs;

use crate::{MIB, choice, wait, within};

/// What was kept of a real one.
const GOOD: &[u8] = include_bytes!("../corpus/decisions/whole");

/// Times as much as it has when it is unpacked.
const MOST_TIMES: usize = 200;

pub fn run(data: &[u8]) {
    let (way, rest) = choice(data, 2);
    if way == 0 {
        drop(Inputs::read(rest).map_err(|error| error.to_string()));
        return;
    }
    let Some(content) = with_memory(rest) else { return };
    within(4 * MIB + MOST_TIMES * rest.len(), || {
        let Ok(inputs) = Inputs::read(&content) else { return };
        drop((inputs.cycle(), inputs.seen()));
        let Ok(records) = wait(inputs.replay()) else { return };
        for record in records {
            serde_json::to_string(&record).expect("a record can be written");
        }
    });
}

/// All but the detector's memory is the input's. That one is the detector's own: what was changed in it is told by its hash.
fn with_memory(rest: &[u8]) -> Option<Vec<u8>> {
    static MEMORY: LazyLock<Value> = LazyLock::new(|| {
        let mut text = Vec::new();
        GzDecoder::new(&GOOD[1..]).read_to_end(&mut text).expect("it is good");
        serde_json::from_slice::<Value>(&text).expect("it is good")["history"].take()
    });
    let mut input: Value = serde_json::from_slice(rest).ok()?;
    input.as_object_mut()?.insert("history".to_owned(), MEMORY.clone());
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut out, &input).ok()?;
    out.finish().ok()
}
