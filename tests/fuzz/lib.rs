//! What comes from outside, as bytes that anybody may have written: each target reads them by the daemon's own functions, and
//! panics where a promise is broken.
//!
//! `corpus/<target>` has what to begin with, and each input that ever broke one. What is private to a module is compiled once more
//! here, beside its target.

#[path = "targets/answers.rs"]
mod answers;
#[path = "targets/api_server.rs"]
mod api_server;
#[path = "targets/config.rs"]
mod config;
#[path = "targets/decisions.rs"]
mod decisions;
#[path = "targets/isolation.rs"]
mod isolation;
#[path = "targets/journal.rs"]
mod journal;
#[path = "targets/recording.rs"]
mod recording;
#[path = "targets/steps.rs"]
mod steps;

pub use zoneward::{alibaba, detect, domain, guard, ports};

#[allow(dead_code, reason = "a target takes a part")]
#[path = "../../src/observe"]
mod observe {
    mod decode;
    mod probe;
    mod queries;
    mod settings;
    mod shards;
    mod stream;
    #[path = "../../tests/fuzz/targets/prometheus.rs"]
    pub mod target;
}

#[allow(dead_code, reason = "a target takes a part")]
#[path = "../../src/kubernetes"]
mod kubernetes {
    mod capacity;
    #[path = "../../tests/fuzz/targets/cluster.rs"]
    pub mod target;
    mod view;

    pub use zoneward::kubernetes::{Settings, marks};
}

#[allow(dead_code, reason = "a target takes a part")]
#[path = "../../src/isolate/steps/dns_rfc2136"]
mod dns_rfc2136 {
    mod listing;
    #[path = "../../../../tests/fuzz/targets/dns.rs"]
    pub mod target;
}

use std::cell::RefCell;
use std::path::PathBuf;

use peak_alloc::PeakAlloc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

pub type Target = fn(&[u8]);

pub const TARGETS: [(&str, Target); 10] = [
    ("answers", answers::run),
    ("cluster", kubernetes::target::run),
    ("config", config::run),
    ("decisions", decisions::run),
    ("dns", dns_rfc2136::target::run),
    ("isolation", isolation::run),
    ("journal", journal::run),
    ("prometheus", observe::target::run),
    ("recording", recording::run),
    ("steps", steps::run),
];

const MIB: usize = 1 << 20;

/// What it takes of memory at once is bounded, whatever is read.
fn within<T>(most_bytes: usize, what: impl FnOnce() -> T) -> T {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let made = what();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= most_bytes, "it took {taken} bytes at once, and may take {most_bytes}");
    made
}

/// A file of this thread alone, for what is read from files.
fn file(name: &str, content: &[u8]) -> PathBuf {
    thread_local! {
        static FOLDER: TempDir = TempDir::new().expect("a folder for files");
    }
    let path = FOLDER.with(|folder| folder.path().join(name));
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, content).expect("a file");
    path
}

/// Waits for what has no thread of its own.
fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: RefCell<Runtime> =
            RefCell::new(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
    }
    RUNTIME.with(|runtime| runtime.borrow().block_on(future))
}

/// The first byte chooses among several ways; the rest is what is read.
fn choice(data: &[u8], ways: u8) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (first % ways, rest))
}
