//! A stretch of what was seen, in one file that replays without Prometheus: JSON lines under gzip.
//!
//! First a head; then a line for each cycle, and after it one for each closer look of that cycle. Bucket edges stand in
//! lines of their own, and are named by their number from then on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::verdict::{PodView, Suspect};
use crate::domain::{
    Calls, Cell, Coverage, CycleLength, Gap, Histogram, Period, PodAge, PodCalls, ServiceId, Snapshot, Zone,
};
use crate::ports::{ObserveError, Observer};

const FORMAT: u32 = 1;
/// One cycle of 10,000 services in four zones fits easily.
const LONGEST_LINE: u64 = 32 << 20;
/// Istio has twenty, and all services the same.
const MOST_EDGES: usize = 200;
const MOST_SETS_OF_EDGES: usize = 100;

#[derive(Debug, Error)]
pub enum RecordingError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("{path}, line {line}: {problem}")]
    Damaged { path: PathBuf, line: u64, problem: String },
}

/// What stands at the top of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    zoneward_recording: u32,
    cycle_s: i64,
    pub first: Timestamp,
    pub last: Timestamp,
}

impl Head {
    pub fn new(cycle: CycleLength, first: Timestamp, last: Timestamp) -> Self {
        Self { zoneward_recording: FORMAT, cycle_s: cycle.seconds(), first, last }
    }

    pub fn cycle(&self) -> CycleLength {
        CycleLength::at_least(Period::from_secs(self.cycle_s))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Upper edges in milliseconds; the infinite one is null.
    Edges(Vec<Option<f64>>),
    Cycle {
        at: Timestamp,
        cells: BTreeMap<ServiceId, BTreeMap<Zone, Row>>,
        coverage: BTreeMap<Zone, Coverage>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gaps: Vec<Gap>,
    },
    Pods {
        service: ServiceId,
        zone: Zone,
        view: PodView,
        cycles: usize,
        pods: Vec<PodRow>,
    },
}

/// Requests and failures as served, as called; and durations.
#[derive(Debug, Serialize, Deserialize)]
struct Row(Calls, Calls, Durations);

#[derive(Debug, Serialize, Deserialize)]
struct PodRow(String, Option<String>, PodAge, Calls, Durations);

/// Which edges, and the counts between them, those after the last request left out.
#[derive(Debug, Serialize, Deserialize)]
struct Durations(usize, Vec<f64>);

/// Writes a recording; it is there once it is finished.
pub struct Recorder {
    path: PathBuf,
    unfinished: PathBuf,
    out: GzEncoder<BufWriter<File>>,
    edges: Vec<Arc<[f64]>>,
}

impl Recorder {
    pub fn create(path: &Path, head: Head) -> Result<Self, RecordingError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let file = File::create(&unfinished).map_err(|error| of_file(path, error))?;
        let out = GzEncoder::new(BufWriter::new(file), Compression::default());
        let mut recorder = Self { path: path.to_owned(), unfinished, out, edges: Vec::new() };
        recorder.write(&head)?;
        Ok(recorder)
    }

    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), RecordingError> {
        let mut cells = BTreeMap::new();
        for (service, zones) in &snapshot.cells {
            let mut rows = BTreeMap::new();
            for (zone, cell) in zones {
                rows.insert(zone.clone(), Row(cell.served, cell.called, self.durations(&cell.latency)?));
            }
            cells.insert(service.clone(), rows);
        }
        let (coverage, gaps) = (snapshot.coverage.clone(), snapshot.gaps.clone());
        self.write(&Line::Cycle { at: snapshot.time, cells, coverage, gaps })
    }

    /// A closer look in the cycle that was written last.
    pub fn closer_look(&mut self, suspect: &Suspect, pods: &[PodCalls]) -> Result<(), RecordingError> {
        let mut rows = Vec::new();
        for pod in pods {
            let durations = self.durations(&pod.latency)?;
            rows.push(PodRow(pod.pod.clone(), pod.node.clone(), pod.age, pod.calls, durations));
        }
        let Suspect { service, zone, view, cycles } = suspect.clone();
        self.write(&Line::Pods { service, zone, view, cycles, pods: rows })
    }

    pub fn finish(self) -> Result<(), RecordingError> {
        let Self { path, unfinished, out, .. } = self;
        let written = out.finish().and_then(|mut file| file.flush());
        written.and_then(|()| std::fs::rename(unfinished, &path)).map_err(|error| of_file(&path, error))
    }

    fn durations(&mut self, histogram: &Histogram) -> Result<Durations, RecordingError> {
        let known = self.edges.iter().position(|edges| *edges == histogram.edges_ms);
        let number = if let Some(number) = known {
            number
        } else {
            self.edges.push(Arc::clone(&histogram.edges_ms));
            let edges = histogram.edges_ms.iter().map(|edge| edge.is_finite().then_some(*edge)).collect();
            self.write(&Line::Edges(edges))?;
            self.edges.len() - 1
        };
        let used = histogram.counts.iter().rposition(|count| *count != 0.0).map_or(0, |last| last + 1);
        Ok(Durations(number, histogram.counts[..used].to_vec()))
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), RecordingError> {
        let written = serde_json::to_writer(&mut self.out, line).map_err(std::io::Error::from);
        written.and_then(|()| self.out.write_all(b"\n")).map_err(|error| of_file(&self.path, error))
    }
}

fn of_file(path: &Path, error: std::io::Error) -> RecordingError {
    RecordingError::File { path: path.to_owned(), error }
}

fn no_recording() -> String {
    format!("it is no recording of format {FORMAT}")
}

/// Over how many cycles, and what was seen.
type Look = (usize, Vec<PodCalls>);

/// Replays a recording, cycle by cycle.
pub struct RecordedObserver {
    path: PathBuf,
    input: BufReader<MultiGzDecoder<File>>,
    head: Head,
    line: u64,
    edges: Vec<Arc<[f64]>>,
    /// The cycle that was read last, and the bytes of the closer looks at it.
    newest: Option<Timestamp>,
    looked: usize,
    /// Read too far: the first cycle of the next stretch.
    ahead: Option<Snapshot>,
    /// Closer looks at the stretch that was read last.
    looks: BTreeMap<(Timestamp, ServiceId, Zone, PodView), Vec<Look>>,
}

impl RecordedObserver {
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(|error| of_file(path, error))?;
        let head = Head { zoneward_recording: 0, cycle_s: 1, first: Timestamp::MIN, last: Timestamp::MAX };
        let mut observer = Self {
            path: path.to_owned(),
            input: BufReader::new(MultiGzDecoder::new(file)),
            head,
            line: 0,
            edges: Vec::new(),
            newest: None,
            looked: 0,
            ahead: None,
            looks: BTreeMap::new(),
        };
        let head: Option<(Head, _)> = observer.next()?;
        observer.head = head.ok_or_else(|| observer.damaged("it is empty"))?.0;
        if observer.head.zoneward_recording != FORMAT || observer.head.cycle_s < 1 {
            return Err(observer.damaged(&no_recording()));
        }
        Ok(observer)
    }

    pub const fn head(&self) -> Head {
        self.head
    }

    /// A line, and how many bytes it has.
    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<(T, usize)>, RecordingError> {
        let mut line = Vec::new();
        self.line += 1;
        let read = self.input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(None),
            Ok(_) if line.last() == Some(&b'\n') => {}
            Ok(_) => return Err(self.damaged("it is cut off, or a line is too long")),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.damaged("it is cut off")),
            Err(error) if self.line == 1 => return Err(self.damaged(&format!("{}: {error}", no_recording()))),
            Err(error) => return Err(self.damaged(&error.to_string())),
        }
        serde_json::from_slice(&line)
            .map(|read| Some((read, line.len())))
            .map_err(|error| self.damaged(&if self.line == 1 { no_recording() } else { error.to_string() }))
    }

    fn damaged(&self, problem: &str) -> RecordingError {
        RecordingError::Damaged { path: self.path.clone(), line: self.line, problem: problem.to_owned() }
    }

    fn histogram(&self, durations: Durations) -> Result<Histogram, RecordingError> {
        let Durations(number, mut counts) = durations;
        let edges = self.edges.get(number).ok_or_else(|| self.damaged("it names edges that it does not hold"))?;
        if counts.len() > edges.len() {
            return Err(self.damaged("it has more counts than edges"));
        }
        counts.resize(edges.len(), 0.0);
        Ok(Histogram { edges_ms: Arc::clone(edges), counts })
    }

    /// The next cycle up to a moment, with the closer looks at the one before.
    fn cycle(&mut self, last: Timestamp, before: Option<Timestamp>) -> Result<Option<Snapshot>, RecordingError> {
        if let Some(ahead) = self.ahead.take_if(|ahead| ahead.time <= last) {
            return Ok(Some(ahead));
        }
        if self.ahead.is_some() {
            return Ok(None);
        }
        while let Some((line, bytes)) = self.next()? {
            match line {
                Line::Edges(edges) => {
                    if edges.len() > MOST_EDGES || self.edges.len() == MOST_SETS_OF_EDGES {
                        return Err(self.damaged("it has more edges than a mesh has"));
                    }
                    self.edges.push(edges.into_iter().map(|edge| edge.unwrap_or(f64::INFINITY)).collect());
                }
                Line::Pods { service, zone, view, cycles, pods } => {
                    self.looked += bytes;
                    if self.looked as u64 > LONGEST_LINE {
                        return Err(self.damaged("the closer looks at one cycle are too long"));
                    }
                    let pods = pods.into_iter().map(|PodRow(pod, node, age, calls, durations)| {
                        Ok(PodCalls { pod, node, age, calls, latency: self.histogram(durations)? })
                    });
                    let pods = pods.collect::<Result<_, RecordingError>>()?;
                    let at = before.ok_or_else(|| self.damaged("a closer look stands before the first cycle"))?;
                    self.looks.entry((at, service, zone, view)).or_default().push((cycles, pods));
                }
                Line::Cycle { at, cells, coverage, gaps } => {
                    let after = self.newest.map(|newest| at.duration_since(newest));
                    if after.is_some_and(|after| after < self.head.cycle().signed()) {
                        return Err(self.damaged("its cycles are not in order"));
                    }
                    (self.newest, self.looked) = (Some(at), 0);
                    let mut seen = Snapshot { time: at, cells: BTreeMap::new(), coverage, gaps, cluster: None };
                    for (service, rows) in cells {
                        let cells = rows.into_iter().map(|(zone, Row(served, called, durations))| {
                            Ok((zone, Cell { served, called, latency: self.histogram(durations)? }))
                        });
                        seen.cells.insert(service, cells.collect::<Result<_, RecordingError>>()?);
                    }
                    if at > last {
                        self.ahead = Some(seen);
                        return Ok(None);
                    }
                    return Ok(Some(seen));
                }
            }
        }
        Ok(None)
    }
}

impl From<RecordingError> for ObserveError {
    fn from(error: RecordingError) -> Self {
        Self(error.to_string())
    }
}

#[async_trait]
impl Observer for RecordedObserver {
    async fn observe(&mut self, first: Timestamp, last: Timestamp) -> Result<Vec<Snapshot>, ObserveError> {
        self.looks.clear();
        let mut snapshots: Vec<Snapshot> = Vec::new();
        let mut before = None;
        while let Some(snapshot) = self.cycle(last, before)? {
            before = Some(snapshot.time);
            if snapshot.time >= first {
                snapshots.push(snapshot);
            }
        }
        Ok(snapshots)
    }

    async fn observe_pods(&mut self, suspect: &Suspect, at: Timestamp) -> Result<Vec<PodCalls>, ObserveError> {
        let key = (at, suspect.service.clone(), suspect.zone.clone(), suspect.view);
        let nearest = self.looks.get(&key).and_then(|looks| looks.iter().min_by_key(|l| l.0.abs_diff(suspect.cycles)));
        nearest.map(|(_, pods)| pods.clone()).ok_or_else(|| {
            ObserveError(format!(
                "{} has no closer look at {} in {} at {at}: record anew, with this configuration",
                self.path.display(),
                suspect.service,
                suspect.zone
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn snapshot(second: i64) -> Snapshot {
        let latency = Histogram { edges_ms: [5.0, 10.0, f64::INFINITY].into(), counts: vec![second as f64, 1.0, 0.0] };
        let served = Calls { total: 10.0, failed: 1.0 };
        let cells: BTreeMap<Zone, Cell> =
            [(Zone::new("a"), Cell { served, latency, ..Cell::default() }), (Zone::new("b"), Cell::default())].into();
        Snapshot {
            time: at(second),
            cells: [(ServiceId::new("default", "web"), cells)].into(),
            coverage: [(Zone::new("a"), Coverage { up: 2, known: 3 })].into(),
            gaps: vec![Gap::NoTraffic { zone: Zone::new("b") }],
            cluster: None,
        }
    }

    fn suspect(cycles: usize) -> Suspect {
        let (service, zone) = (ServiceId::new("default", "web"), Zone::new("a"));
        Suspect { service, zone, view: PodView::Servers, cycles }
    }

    fn look(total: f64) -> Vec<PodCalls> {
        let calls = Calls { total, failed: 1.0 };
        vec![PodCalls { pod: "web-1".into(), age: PodAge::New, calls, ..PodCalls::default() }]
    }

    #[tokio::test]
    async fn what_is_recorded_replays_alike_whatever_the_stretches() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stretch.gz");
        let cycle = CycleLength::at_least(Period::from_secs(15));
        let mut recorder = Recorder::create(&path, Head::new(cycle, at(0), at(45))).unwrap();
        for second in [0, 15, 30, 45] {
            recorder.snapshot(&snapshot(second)).unwrap();
            recorder.closer_look(&suspect(8), &look(second as f64)).unwrap();
            recorder.closer_look(&suspect(20), &look(1000.0)).unwrap();
        }
        assert!(!path.exists(), "nothing is there before it is whole");
        recorder.finish().unwrap();

        let mut observer = RecordedObserver::open(&path).unwrap();
        assert_eq!(observer.head().cycle(), cycle);
        assert_eq!(observer.observe(at(0), at(20)).await.unwrap(), [snapshot(0), snapshot(15)]);
        assert_eq!(observer.observe_pods(&suspect(9), at(0)).await.unwrap(), look(0.0), "the nearest look");
        assert_eq!(observer.observe_pods(&suspect(8), at(15)).await.unwrap(), look(15.0));
        assert_eq!(observer.observe(at(30), at(60)).await.unwrap(), [snapshot(30), snapshot(45)]);
        assert_eq!(observer.observe_pods(&suspect(8), at(45)).await.unwrap(), look(45.0));
        let missing = observer.observe_pods(&suspect(8), at(60)).await.unwrap_err();
        assert!(missing.to_string().contains("record anew"), "{missing}");
    }

    #[tokio::test]
    async fn a_damaged_recording_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stretch.gz");
        let cycle = CycleLength::at_least(Period::from_secs(15));
        let mut recorder = Recorder::create(&path, Head::new(cycle, at(0), at(15))).unwrap();
        recorder.snapshot(&snapshot(0)).unwrap();
        recorder.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 12]).unwrap();
        let mut observer = RecordedObserver::open(&path).unwrap();
        let error = observer.observe(at(0), at(15)).await.unwrap_err();
        assert!(error.to_string().contains("stretch.gz, line"), "{error}");
        std::fs::write(&path, b"not gzip").unwrap();
        assert!(RecordedObserver::open(&path).is_err());
    }

    #[tokio::test]
    async fn what_no_recorder_sees_is_not_taken_for_a_recording_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stretch.gz");
        let cycle = CycleLength::at_least(Period::from_secs(15));
        let mut many = snapshot(15);
        let edges_ms: Arc<[f64]> = (0..=MOST_EDGES).map(|edge| edge as f64).collect();
        many.cells.values_mut().flat_map(|zones| zones.values_mut()).for_each(|cell| {
            cell.latency = Histogram { edges_ms: Arc::clone(&edges_ms), counts: vec![0.0; edges_ms.len()] };
        });
        for (second, why) in [(snapshot(0), "not in order"), (many, "more edges")] {
            let mut recorder = Recorder::create(&path, Head::new(cycle, at(0), at(15))).unwrap();
            recorder.snapshot(&snapshot(0)).unwrap();
            recorder.snapshot(&second).unwrap();
            recorder.finish().unwrap();
            let mut observer = RecordedObserver::open(&path).unwrap();
            let error = observer.observe(at(0), at(15)).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
