//! One target under libFuzzer: `make fuzz`.
#![no_main]

use std::sync::LazyLock;

use fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("ZONEWARD_FUZZ").unwrap_or_default();
    let known = TARGETS.into_iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("`{name}` is no target")).1
});

fuzz_target!(|data: &[u8]| TARGET(data));
