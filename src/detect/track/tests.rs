use super::super::compare::Look;
use super::super::settings::Settings;
use super::super::staged::{alike, bad, calls, cell, zone};
use super::*;
use crate::domain::{CycleLength, Period, Signal};

fn scale() -> Scale {
    Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(15)))
}

fn track(zones: usize) -> Track {
    Track::new(zones, ServiceSettings::default())
}

/// In each of two zones so many requests are served, of which one fails, and twice as many calls are made.
fn frame(n: f64) -> Frame {
    Frame { served: vec![n; 2], served_failed: vec![1.0; 2], called: vec![2.0 * n; 2], ..Frame::empty(2, 2) }
}

fn advance(track: &mut Track, frame: &Frame, cycles: u32) {
    track.advance(frame, cycles, &scale(), &mut Pool::new(frame.served.len()));
}

#[test]
fn a_zone_with_a_gap_and_one_that_is_not_known_are_not_in_the_frame() {
    let of = |total: f64| cell(calls(total, 1.0), calls(2.0 * total, 3.0));
    let cells = BTreeMap::from([(zone(0), of(10.0)), (zone(1), of(20.0)), (zone(9), of(40.0))]);
    let frame = track(2).frame(Some(&cells), &[zone(0), zone(1)], |lost| *lost == zone(1));
    assert_eq!((frame.served, frame.served_failed), (vec![10.0, 0.0], vec![1.0, 0.0]));
    assert_eq!((frame.called, frame.called_failed), (vec![20.0, 0.0], vec![3.0, 0.0]));
    assert_eq!(frame.latency, [[10.0, 0.0, 0.0], [0.0; 3]]);
    assert_eq!(track(1).frame(None, &[zone(0)], |_| false).served, [0.0]);
}

/// On buckets to 1, 5, 10 ms and above, with durations in the recent cycles, in the past, in both or in neither; then with a
/// histogram on other edges: the edges, and what is known of the recent and of the past durations.
fn agreed(recent: bool, past: bool, edges_ms: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let mut track = track(1);
    track.edges_ms = vec![1.0, 5.0, 10.0, f64::INFINITY];
    let counts = |known| if known { vec![1.0, 2.0, 4.0, 8.0] } else { vec![0.0; 4] };
    track.recent.push(&Frame { latency: vec![counts(recent)], ..Frame::empty(1, 4) });
    for frame in [&mut track.past.recent, &mut track.past.lasting] {
        frame.latency[0] = counts(past);
    }
    track.agree_on_edges(&Histogram { edges_ms: edges_ms.into(), counts: vec![0.0; edges_ms.len()] });
    assert_eq!(track.past.recent.latency, track.past.lasting.latency);
    (track.edges_ms.clone(), track.recent.frame(0).latency[0].clone(), track.past.recent.latency[0].clone())
}

#[test]
fn of_buckets_that_differ_those_edges_stay_that_both_have() {
    let inf = f64::INFINITY;
    let (edges_ms, recent, past) = agreed(true, true, &[5.0, 50.0, inf]);
    assert_eq!((edges_ms, recent, past), (vec![5.0, inf], vec![3.0, 12.0], vec![3.0, 12.0]));
    assert_eq!(agreed(true, false, &[5.0, inf]).1, [3.0, 12.0], "what is known lately counts");
    assert_eq!(agreed(false, true, &[5.0, inf]).2, [3.0, 12.0], "and so does what was learned");
    let (edges_ms, recent, past) = agreed(true, true, &[2.0, 7.0, inf]);
    assert_eq!(edges_ms, [2.0, 7.0, inf], "with no edge in common durations are learned anew");
    assert_eq!((recent, past), (vec![0.0; 3], vec![0.0; 3]));
}

#[test]
fn where_no_durations_are_known_new_buckets_are_taken_as_they_are() {
    let inf = f64::INFINITY;
    assert_eq!(agreed(false, false, &[2.0, 7.0, inf]).0, [2.0, 7.0, inf]);
    assert_eq!(agreed(false, false, &[2.0, inf]).0, [2.0, inf]);
    for other in [[2.0, 7.0, inf].as_slice(), &[inf]] {
        assert_eq!(agreed(false, false, other).0.len(), if other.len() < 2 { 4 } else { 3 }, "one bucket says nothing");
    }
    for (recent, past) in [(true, false), (false, true)] {
        assert_eq!(agreed(recent, past, &[1.0, 2.0, 10.0, inf]).0, [1.0, 10.0, inf], "where some are, they are not");
    }
}

#[test]
fn cycles_are_remembered_as_they_were_seen() {
    let mut track = track(2);
    for n in [10.0, 20.0] {
        track.recent.push(&Frame { latency: vec![vec![n, 0.0]; 2], called_failed: vec![3.0; 2], ..frame(n) });
    }
    for (back, n) in [(0, 20.0), (1, 10.0)] {
        let latency = Histogram { edges_ms: [1.0, f64::INFINITY].into(), counts: vec![n, 0.0] };
        let seen = Cell { served: calls(n, 1.0), called: calls(2.0 * n, 3.0), latency };
        assert_eq!(track.cells(back), Some(vec![seen; 2]));
    }
    assert_eq!(track.cells(2), None);
}

#[test]
fn a_zone_is_forgotten_alone() {
    let mut track = track(2);
    track.recent.push(&frame(10.0));
    track.frozen = vec![Frozen { cycles: 5, apart: true }; 2];
    let looks: Looks = [(); SIGNALS].map(|()| vec![bad(); 2]);
    track.watches.take(2, &looks, (&scale(), 13.0), &ServiceSettings::default());
    track.forget(0);
    assert_eq!([0, 1].map(|zone| track.recent.traffic(zone, 0)), [(0.0, 0.0), (10.0, 20.0)]);
    assert_eq!([0, 1].map(|zone| track.watches.suspicious(zone)), [false, true]);
    assert_eq!([0, 1].map(|zone| track.suspected_for(zone)), [0, 5]);
    assert_eq!(track.calm, [0, u32::MAX], "and not learned from for as long as a fault may hide");
}

#[test]
fn after_as_much_silence_as_the_longest_window_holds_nothing_before_it_is_evidence() {
    let remembered = |missed| {
        let mut track = track(2);
        track.recent.push(&frame(10.0));
        track.watches.note_newest(&[(); SIGNALS].map(|()| vec![Look { effect: 0.5, ..alike() }; 2]));
        track.pass_over(missed);
        let effect = |back: u32| track.watches.get(Signal::Latency, 0).effect(back as usize);
        (track.recent.len(), effect(0), effect(missed))
    };
    assert_eq!(remembered(39), (1, Some(0.0), Some(0.5)));
    assert_eq!(remembered(40), (0, Some(0.0), None));
}

#[test]
fn cycles_without_a_request_are_counted_until_there_is_one() {
    let mut track = track(2);
    advance(&mut track, &Frame::empty(2, 2), 3);
    advance(&mut track, &Frame::empty(2, 2), 4);
    assert_eq!((track.idle, track.cycles), (7, 7));
    advance(&mut track, &frame(10.0), 1);
    assert_eq!((track.idle, track.cycles), (0, 8));
}

#[test]
fn nothing_is_compared_until_nine_cycles_had_requests() {
    let mut track = track(2);
    advance(&mut track, &Frame::empty(2, 2), 1);
    let compared = (0..11).map(|_| {
        advance(&mut track, &frame(100.0), 1);
        track.watches.compared(0)
    });
    assert_eq!(compared.collect::<Vec<_>>(), [[false; 8].as_slice(), &[true; 3]].concat());
}

/// Of so many cycles, each with one more failure than the one before it; then it learns.
fn learned(cycles: u64, seen: usize, calm: [u32; 2], table: bool) -> Track {
    let mut track = track(2);
    (0..seen).for_each(|nth| track.recent.push(&Frame { served_failed: vec![nth as f64; 2], ..frame(1000.0) }));
    (track.cycles, track.calm) = (cycles, calm.to_vec());
    track.table = table.then(|| ShiftTable::new(&[1.0, 1.0], &[1.0, f64::INFINITY]));
    track.learn(&scale());
    track
}

#[test]
fn a_cycle_is_learned_from_when_eight_have_followed_and_the_zone_was_calm_in_them() {
    assert!(learned(8, 8, [9, 9], false).past.traffic() <= 0.0);
    let track = learned(9, 9, [9, 8], false);
    assert_eq!((track.past.recent.served, track.past.recent.served_failed), (vec![1000.0, 0.0], vec![0.0, 0.0]));
    assert!(track.table.is_some(), "then durations can be compared");
    assert_eq!(learned(60, 60, [9, 9], false).recent.len(), 48, "and then forty more are evidence");
}

#[test]
fn noise_is_learned_every_fourth_cycle_from_the_four_before_a_fault_could_hide() {
    let noise = |cycles, seen| format!("{:?}", learned(cycles, seen, [9, 9], true).noise);
    let mut expected = Noise::default();
    let mut past = learned(11, 8, [9, 9], true).past;
    // Of twenty cycles the newest eight are not yet learned from; the four before them had 8 to 11 failures each.
    let block = Frame { served_failed: vec![8.0 + 9.0 + 10.0 + 11.0; 2], ..frame(4000.0) };
    let table = ShiftTable::new(&[1.0, 1.0], &[1.0, f64::INFINITY]);
    let block = Frame { called: vec![8000.0; 2], ..block };
    expected.learn(&block, &mut past, &[true; 2], &table, &scale());
    assert_eq!(noise(20, 20), format!("{expected:?}"));
    assert_ne!(noise(12, 12), format!("{:?}", Noise::default()), "as soon as four are old enough");
    for (cycles, seen) in [(12, 11), (21, 20)] {
        assert_eq!(noise(cycles, seen), format!("{:?}", Noise::default()), "{cycles} cycles, {seen} remembered");
    }
}

/// Of three zones the first has left its past, the second is worse than its peers, and the third is neither.
fn freeze(track: &mut Track, passed: u32) {
    let mut looks: Looks = [(); SIGNALS].map(|()| vec![alike(); 3]);
    looks[Signal::Latency as usize][1] = Look { own_nats: 0.0, ..bad() };
    track.watches.begin();
    track.watches.take(2, &looks, (&scale(), 13.0), &ServiceSettings::default());
    looks[Signal::Latency as usize][0] = Look { own_nats: 6.0, ..alike() };
    looks[Signal::Latency as usize][1] = alike();
    looks[Signal::Latency as usize][2] = Look { own_nats: 5.9, ..alike() };
    track.freeze(&looks, passed, &scale());
}

fn frozen(first: (u32, bool), second: (u32, bool)) -> Track {
    let mut track = track(3);
    track.frozen = [first, second, (7, true)].map(|(cycles, apart)| Frozen { cycles, apart }).to_vec();
    track.calm = vec![3; 3];
    track
}

#[test]
fn a_zone_is_not_calm_while_it_has_left_its_past_or_is_worse_than_its_peers() {
    let mut track = frozen((0, false), (0, false));
    freeze(&mut track, 2);
    assert_eq!([0, 1, 2].map(|zone| track.suspected_for(zone)), [2, 2, 0]);
    assert_eq!(track.calm, [0, 0, 5]);
    freeze(&mut track, 3);
    assert_eq!([0, 1, 2].map(|zone| track.suspected_for(zone)), [5, 5, 0]);
    assert!(track.adopted.is_empty());
}

#[test]
fn what_all_zones_moved_to_is_normal_after_an_hour_and_what_one_stands_out_by_after_a_day() {
    let (hour, day) = (240, 5760);
    let mut track = frozen((hour - 2, false), (day - 2, true));
    freeze(&mut track, 1);
    assert_eq!((track.calm.clone(), track.adopted.clone()), (vec![0, 0, 4], Vec::new()));
    freeze(&mut track, 1);
    assert_eq!((track.calm.clone(), track.adopted.clone()), (vec![1, 1, 5], vec![1]), "the second stood apart");
    freeze(&mut track, 1);
    assert_eq!((track.calm.clone(), track.adopted.clone()), (vec![2, 2, 6], Vec::new()), "it is said once");
    let mut passed = frozen((hour, true), (day - 1, true));
    freeze(&mut passed, 4);
    assert_eq!((passed.calm, passed.adopted), (vec![0, 7, 7], vec![1]), "what once stood apart did so all along");
}

#[test]
fn a_burst_that_all_zones_had_is_over_when_two_cycles_are_without_it() {
    let mut track = track(2);
    let failing = |failed: f64| Frame { served_failed: vec![failed; 2], ..frame(1000.0) };
    (0..40).for_each(|_| advance(&mut track, &failing(1.0), 1));
    let suspected = [300.0, 300.0, 300.0, 1.0, 1.0].map(|failed| {
        advance(&mut track, &failing(failed), 1);
        track.suspected_for(0)
    });
    assert_eq!(suspected, [1, 2, 3, 4, 0]);
}

#[test]
fn the_durations_of_a_pod_are_put_on_the_buckets_of_its_service() {
    let mut track = track(1);
    track.edges_ms = vec![5.0, f64::INFINITY];
    let on = |edges_ms: [f64; 3]| Histogram { edges_ms: edges_ms.into(), counts: vec![1.0, 2.0, 4.0] };
    assert_eq!(track.coarsened(&on([1.0, 5.0, f64::INFINITY])), [3.0, 4.0]);
    assert!(track.coarsened(&on([1.0, 2.0, f64::INFINITY])).is_empty());
}

#[test]
fn traffic_is_what_a_zone_served_and_called_in_the_longest_window() {
    let mut track = track(2);
    (0..41).for_each(|_| track.recent.push(&frame(1.0)));
    assert_eq!((track.traffic(1), track.newest_has_requests(1)), ((40.0, 80.0), true));
    track.recent.push(&Frame { called: vec![0.0, 1.0], ..Frame::empty(2, 2) });
    assert_eq!([0, 1].map(|zone| track.newest_has_requests(zone)), [false, true]);
}

#[test]
fn how_far_a_zone_left_its_past_counts_beyond_one_nat_where_there_is_enough_to_compare() {
    let of = |live, own_nats| {
        let mut looks: Looks = [(); SIGNALS].map(|()| vec![alike(); 1]);
        looks[1][0] = Look { live, own: 0.2, own_nats, ..alike() };
        let rival = rivals(&looks)[1][0];
        (rival.excess, rival.nats)
    };
    assert_eq!([of(true, 1.1), of(true, 1.0), of(false, 1.1)], [(0.2, 1.1), (0.0, 1.0), (0.0, 1.1)]);
}

#[test]
fn a_window_that_reaches_to_when_a_zone_was_alone_is_no_comparison_with_its_peers() {
    let compared = |span| {
        let mut looks: Looks = [(); SIGNALS].map(|()| vec![bad(); 2]);
        // Of its servers the first zone was alone three cycles ago, and of its clients the second was five ago.
        dismiss(&mut looks, span, &[vec![3, 40], vec![40, 5]]);
        [Signal::ServerErrors, Signal::ClientErrors].map(|signal| {
            [0, 1].map(|zone| {
                let look = looks[signal as usize][zone];
                assert_eq!((look.live, look.large, look.z > 0.0), (look.live, look.live, look.live));
                assert!(look.own_nats > 0.0, "its own past it had all along");
                look.live
            })
        })
    };
    assert_eq!(compared(3), [[true, true], [true, true]]);
    assert_eq!(compared(5), [[false, true], [true, true]]);
    assert_eq!(compared(6), [[false, true], [true, false]]);
}
