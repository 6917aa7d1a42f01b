//! Where a past stretch is read from: Prometheus, or a recording of it.

use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::render;
use crate::domain::{CycleLength, Snapshot};
use crate::observe::{PrometheusObserver, RecordedObserver, Usage, ZoneFrom};
use crate::ports::Observer;
use crate::settings::Settings;

/// Cycles of a recording read at once.
const CHUNK_CYCLES: usize = 240;

/// A stretch, and who saw it.
pub(super) struct Past {
    observer: Source,
    pub cycle: CycleLength,
    pub next: Timestamp,
    pub last: Timestamp,
}

enum Source {
    Prometheus(Box<PrometheusObserver>),
    Recording(Box<RecordedObserver>),
}

impl Past {
    /// From Prometheus. Nothing before `first` is known.
    pub(super) async fn of_prometheus(
        settings: &Settings,
        first: Option<Timestamp>,
        last: Option<Timestamp>,
    ) -> anyhow::Result<Self> {
        let (Some(first), Some(last)) = (first, last) else {
            bail!("--start and --end are needed: the first and the last moment, such as 2026-11-01T00:00:00Z");
        };
        ordered(first, last)?;
        if last > super::now() {
            bail!("--end ({last}) is in the future");
        }
        if settings.prometheus.zone_from == ZoneFrom::Node {
            bail!(
                "the past takes the zone from a label (prometheus.zone_from: label): on which nodes its pods ran is not known"
            );
        }
        let wanted = CycleLength::at_least(settings.detect.cycle);
        let mut observer = PrometheusObserver::new(settings.prometheus.clone(), wanted)?;
        let interval = observer.fit_to_scrapes(last).await.context("measuring the scrape interval")?;
        let cycle = observer.cycle();
        if let Some(interval) = interval
            && cycle != wanted
        {
            render::note(&format!(
                "targets are scraped every {interval}: judging every {cycle} instead of every {wanted} (detect.cycle)"
            ));
        }
        let next = cycle.at_or_after(first);
        Ok(Self { observer: Source::Prometheus(Box::new(observer)), cycle, next, last })
    }

    /// From a recording, in whole or in part.
    pub(super) fn of_recording(file: &Path, first: Option<Timestamp>, last: Option<Timestamp>) -> anyhow::Result<Self> {
        let observer = RecordedObserver::open(file).context("reading the recording")?;
        let head = observer.head();
        let (first, last) = (first.unwrap_or(head.first), last.unwrap_or(head.last));
        if first > head.last || last < head.first {
            bail!("{} is about {} to {}, and nothing else", file.display(), head.first, head.last);
        }
        let (first, last) = (first.max(head.first), last.min(head.last));
        ordered(first, last)?;
        let cycle = head.cycle();
        let next = cycle.at_or_after(first);
        Ok(Self { observer: Source::Recording(Box::new(observer)), cycle, next, last })
    }

    pub(super) fn observer(&mut self) -> &mut dyn Observer {
        match &mut self.observer {
            Source::Prometheus(observer) => observer.as_mut(),
            Source::Recording(observer) => observer.as_mut(),
        }
    }

    /// The next cycles; none at the end.
    pub(super) async fn snapshots(&mut self) -> anyhow::Result<Vec<Snapshot>> {
        // A recording may hold nothing of a stretch, and yet go on after it.
        while self.next <= self.last {
            let snapshots = self.stretch().await?;
            if !snapshots.is_empty() {
                return Ok(snapshots);
            }
        }
        Ok(Vec::new())
    }

    async fn stretch(&mut self) -> anyhow::Result<Vec<Snapshot>> {
        let cycles = match &self.observer {
            Source::Prometheus(observer) => observer.cycles_at_once(),
            Source::Recording(_) => CHUNK_CYCLES,
        };
        let (first, last) = (self.next, (self.next + self.cycle.signed() * (cycles as i32 - 1)).min(self.last));
        self.next = self.cycle.at_or_after(last + self.cycle.signed());
        let snapshots = self.observer().observe(first, last).await.context("reading history")?;
        if let Source::Prometheus(observer) = &mut self.observer {
            observer.ask_ahead(self.next, self.last);
        }
        render::progress(&format!("read up to {last}"), self.next > self.last);
        Ok(snapshots)
    }

    /// What was asked of Prometheus.
    pub(super) fn usage(&self) -> Usage {
        match &self.observer {
            Source::Prometheus(observer) => observer.usage(),
            Source::Recording(_) => Usage::default(),
        }
    }
}

fn ordered(first: Timestamp, last: Timestamp) -> anyhow::Result<()> {
    if last <= first {
        bail!("--end ({last}) must be later than --start ({first})");
    }
    Ok(())
}
