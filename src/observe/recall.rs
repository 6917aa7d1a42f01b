//! The past that a start reads, in pieces that fit into memory.

use jiff::Timestamp;

use super::PrometheusObserver;
use super::decode::Stretch;
use super::queries::Queries;
use crate::domain::{Calls, CycleLength, Period, Snapshot};
use crate::ports::ObserveError;

/// How finely the past is read.
#[derive(Debug, Clone, Copy)]
pub struct Recall {
    /// The newest cycles, which may still become evidence, are read one by one.
    pub exact_cycles: i32,
    /// So many of those before are read as one, and spread evenly: what is usual needs no more, and it costs Prometheus as
    /// many times less.
    pub merged_cycles: i32,
}

impl PrometheusObserver {
    /// Hands over in order, each with how many cycles it stands for, all of them alike, of which it is the last. Returns how
    /// many cycles.
    pub async fn recall(
        &mut self,
        (first, last): (Timestamp, Timestamp),
        recall: Recall,
        mut learn: impl FnMut(&Snapshot, u32) + Send,
    ) -> Result<usize, ObserveError> {
        let (cycle, merged) = (self.cycle, recall.merged_cycles);
        let coarse = CycleLength::at_least(Period::from_secs(cycle.seconds() * i64::from(merged)));
        let queries = Queries::new(&self.settings, coarse);
        let (mut cycles, mut next) = (0, coarse.at_or_after(first));
        let until = coarse.at_or_before(last - cycle.signed() * recall.exact_cycles);
        while next <= until {
            let left = (until.as_second() - next.as_second()) / coarse.seconds() + 1;
            let stretch = Stretch { first: next, cycles: self.cycles_at_once().min(left as usize), cycle: coarse };
            for snapshot in self.stretch(&queries, stretch).await? {
                learn(&share(snapshot, f64::from(merged)), merged as u32);
                cycles += merged as usize;
            }
            next += coarse.signed() * stretch.cycles as i32;
        }
        let mut next = if until < first { cycle.at_or_after(first) } else { until + cycle.signed() };
        while next <= last {
            let left = (last.as_second() - next.as_second()) / cycle.seconds() + 1;
            let stretch = Stretch { first: next, cycles: self.cycles_at_once().min(left as usize), cycle };
            let queries = self.queries.clone();
            for snapshot in self.stretch(&queries, stretch).await? {
                learn(&snapshot, 1);
                cycles += 1;
            }
            next += cycle.signed() * stretch.cycles as i32;
        }
        Ok(cycles)
    }
}

fn share(mut snapshot: Snapshot, parts: f64) -> Snapshot {
    let of = |calls: Calls| Calls { total: calls.total / parts, failed: calls.failed / parts };
    for cell in snapshot.cells.values_mut().flat_map(|zones| zones.values_mut()) {
        (cell.served, cell.called) = (of(cell.served), of(cell.called));
        cell.latency.counts.iter_mut().for_each(|count| *count /= parts);
    }
    snapshot
}
