//! The past that a start reads, in pieces that fit into memory.

use std::collections::VecDeque;

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
        let (coarse_queries, queries) = (Queries::new(&self.settings, coarse), self.queries.clone());
        let until = coarse.at_or_before(last - cycle.signed() * recall.exact_cycles);
        let exact_from = if until < first { cycle.at_or_after(first) } else { until + cycle.signed() };
        let at_once = self.cycles_in_a_row(last).await?;
        let mut pieces: VecDeque<Stretch> = in_pieces(coarse.at_or_after(first), until, coarse, at_once).collect();
        pieces.extend(in_pieces(exact_from, last, cycle, at_once));
        let mut cycles = 0;
        while let Some(stretch) = pieces.pop_front() {
            let alike = (stretch.cycle.seconds() / cycle.seconds()) as u32;
            let of = |stretch: Stretch| if stretch.cycle == coarse { &coarse_queries } else { &queries };
            let next = pieces.front().map(|next| (of(*next), *next));
            let mut take = |snapshot| {
                learn(&share(snapshot, f64::from(alike)), alike);
                cycles += alike as usize;
            };
            self.stretch(of(stretch), stretch, next, &mut take).await?;
        }
        Ok(cycles)
    }
}

/// As few as may be, and about as large.
fn in_pieces(first: Timestamp, last: Timestamp, cycle: CycleLength, most: usize) -> impl Iterator<Item = Stretch> {
    let cycles = ((last.as_second() - first.as_second()).div_euclid(cycle.seconds()) + 1).max(0) as usize;
    let each = cycles.div_ceil(cycles.div_ceil(most).max(1)).max(1);
    (0..cycles).step_by(each).map(move |from| Stretch {
        first: first + cycle.signed() * from as i32,
        cycles: each.min(cycles - from),
        cycle,
    })
}

fn share(mut snapshot: Snapshot, parts: f64) -> Snapshot {
    let of = |calls: Calls| Calls { total: calls.total / parts, failed: calls.failed / parts };
    for cell in snapshot.cells.values_mut().flat_map(|zones| zones.values_mut()) {
        (cell.served, cell.called) = (of(cell.served), of(cell.called));
        cell.latency.counts.iter_mut().for_each(|count| *count /= parts);
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_few_about_as_large_and_leave_nothing_out() {
        let cycle = CycleLength::at_least(Period::from_secs(60));
        let at = |minute: i64| Timestamp::from_second(60 * minute).unwrap();
        let pieces = |last: i64, most: usize| {
            let of = |piece: Stretch| (piece.first.as_second() / 60, piece.cycles);
            in_pieces(at(1), at(last), cycle, most).map(of).collect::<Vec<_>>()
        };
        assert_eq!(pieces(108, 240), [(1, 108)]);
        assert_eq!(pieces(108, 100), [(1, 54), (55, 54)], "and not a hundred and eight more");
        assert_eq!(pieces(7, 3), [(1, 3), (4, 3), (7, 1)]);
        assert_eq!((pieces(1, 3), pieces(0, 3), pieces(-5, 3)), (vec![(1, 1)], vec![], vec![]));
    }
}
