//! What the daemon shows of itself: the newest cycle's scene, with what is known beside it, as a page and as JSON.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::domain::overview::{DaemonState, Entry, Overview, bounded, paused};
use crate::domain::{Isolation, Mode, Pause, Record};
use crate::leadership::Leadership;
use crate::pipeline::{self, Scene, Surroundings};
use crate::report::status;
use crate::settings::Settings;

/// Records that are kept to be shown.
const MOST_RECORDS: usize = 200;

/// Nothing from elsewhere; of what runs, the page's own few lines alone.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let (style, script) = (hash(&status::style()), hash(status::script()));
    format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'"
    )
});

#[derive(Default)]
pub(super) struct Shown {
    mode: Mode,
    url: String,
    /// This replica, where several may act.
    pub replica: OnceLock<(String, Leadership)>,
    newest: Mutex<Newest>,
    records: Mutex<VecDeque<Entry>>,
}

#[derive(Default)]
struct Newest {
    scene: Option<Arc<Scene>>,
    cycle_s: i64,
    /// Isolations that nobody but this process knows of.
    rehearsed: Vec<Isolation>,
    /// Why the newest cycle decided nothing, if so.
    trouble: Option<String>,
}

impl Shown {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { mode: settings.mode, url: settings.prometheus.url.clone(), ..Self::default() }
    }

    pub(super) fn cycle(&self, scene: Option<Scene>, cycle_s: i64) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.cycle_s = cycle_s;
        newest.scene = scene.map(Arc::new);
    }

    pub(super) fn rehearsed(&self, isolations: Vec<Isolation>) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).rehearsed = isolations;
    }

    pub(super) fn trouble(&self, trouble: Option<String>) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
    }

    pub(super) fn record(&self, record: &Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push_front(Entry::of(record));
        records.truncate(MOST_RECORDS);
    }

    /// All that is known now, given what the executor has in hand and what keeps the process from its work.
    pub(super) fn overview(
        &self,
        isolations: Option<&watch::Receiver<Vec<Isolation>>>,
        pause: Option<&watch::Receiver<Pause>>,
        (unrecorded, hung): (Option<String>, Option<String>),
    ) -> Overview {
        let (scene, cycle_s, rehearsed, trouble) = {
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            (newest.scene.clone(), newest.cycle_s, newest.rehearsed.clone(), newest.trouble.clone())
        };
        let pause = pause.map(|pause| pause.borrow().clone());
        let daemon = DaemonState {
            zoneward: env!("CARGO_PKG_VERSION").to_owned(),
            mode: self.mode,
            replica: self.replica.get().map(|(identity, _)| identity.clone()),
            leads: self.replica.get().is_some_and(|(_, leadership)| leadership.leads()),
            leader: self.replica.get().and_then(|(_, leadership)| leadership.leader()),
            paused: pause.as_ref().and_then(paused),
            unrecorded: unrecorded.map(|why| bounded(&why)),
            trouble: hung.or(trouble).map(|why| bounded(&why)),
        };
        let around = Surroundings {
            daemon,
            url: self.url.clone(),
            cycle_s,
            isolations: isolations.map_or(rehearsed, |isolations| isolations.borrow().clone()),
            pause,
            records: self.records.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect(),
        };
        pipeline::overview(scene.as_deref(), around, super::now())
    }
}

/// The policy under which the page is served.
pub(super) fn policy() -> String {
    POLICY.clone()
}
