use super::*;
use crate::domain::{CycleLength, Nats};

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-6, "{value}, and not {expected}");
}

fn scale(cycle_s: i64) -> Scale {
    Scale::new(&Settings::default(), CycleLength::at_least(Period::from_secs(cycle_s)))
}

/// The evidence is half the square of `z`.
const fn look(z: f64, effect: f64) -> Look {
    Look {
        z,
        effect,
        large: true,
        live: true,
        weight: 50.0,
        own: 0.0,
        own_nats: 0.0,
        seen: 0.0,
        expected: 0.0,
        error: 0.0,
        peers: 0.0,
        peers_seen: 0.0,
    }
}

/// The same in every signal.
fn looks(of_zone: Look) -> Looks {
    [(); SIGNALS].map(|()| vec![of_zone])
}

fn watches(zones: usize) -> Watches {
    let mut watches = Watches::default();
    (0..zones).for_each(|at| watches.insert_zone(at));
    watches
}

#[test]
fn what_was_there_before_a_pause_of_two_cycles_counts_half() {
    let noticed = |presence| Watch { presence, ..Watch::default() }.noticed();
    assert_eq!(noticed(0), 0);
    assert_eq!(noticed(0b111), 3);
    assert_eq!(noticed(0b1_1011), 4, "one cycle is no pause");
    assert_eq!(noticed(0b1_1111_0011), 2 + 5 / 2);
    assert_eq!(noticed(0b1_1100_0111), 3 + 3 / 2);
}

#[test]
fn a_window_that_shows_the_effect_in_two_thirds_of_its_cycles_had_it_as_often() {
    let watch = |best_span, cycles: &[f32]| {
        let reading = Reading { best: look(5.0, 0.5), best_span, ..Reading::default() };
        let mut watch = Watch { reading, ..Watch::default() };
        watch.effects.0[..cycles.len()].copy_from_slice(cycles);
        watch
    };
    // There is what has three fifths of the effect.
    let lasts = watch(4, &[0.5, 0.31, 0.29, 0.5, 0.5]);
    assert_eq!((lasts.bad_cycles(), lasts.lasted(&scale(15))), (3, Period::from_secs(45)));
    let at_the_limit = watch(3, &[0.5, 0.31, 0.29, 0.5]);
    assert_eq!((at_the_limit.bad_cycles(), at_the_limit.lasted(&scale(15))), (2, Period::from_secs(30)));
    let rules_the_mean = watch(4, &[0.5, 0.31, 0.29, 0.29]);
    assert_eq!((rules_the_mean.bad_cycles(), rules_the_mean.lasted(&scale(15))), (2, Period::from_secs(0)));
    let noticed = Watch { presence: 0b1111, ..lasts };
    assert_eq!(noticed.lasted(&scale(15)), Period::from_secs(60), "the longer of both");
}

#[test]
fn a_window_is_suspicious_by_its_evidence_and_the_first_that_suffices_trips() {
    let settings = ServiceSettings::default();
    let read = |windows: &[(usize, Look)]| {
        let mut reading = Reading::default();
        windows.iter().for_each(|(span, look)| reading.take(*span, look, (true, 8.0), &settings));
        reading
    };
    let little = read(&[(2, look(3.0, 0.1))]);
    assert!(little.compared && !little.suspicious && !little.tripping && little.span == 0);
    near(little.most_nats, 4.5);
    near(little.latest.effect, 0.1);
    assert!(read(&[(2, look(3.0, 0.1)), (3, Look { live: false, ..look(0.0, 0.0) })]).compared);
    let enough = read(&[(2, look(3.5, 0.1))]);
    assert!(enough.suspicious && !enough.tripping);
    let trips = read(&[(2, look(3.5, 0.1)), (3, look(4.0, 0.2)), (4, look(6.0, 0.1)), (6, look(6.0, 0.3))]);
    assert!(trips.tripping && trips.span == 3);
    assert_eq!(trips.best_span, 4, "of two that say as much the shorter");
    for (value, expected) in [(trips.nats, 18.0), (trips.best.effect, 0.1), (trips.size, 0.2), (trips.largest, 0.3)] {
        near(value, expected);
    }
}

#[test]
fn a_window_that_does_not_count_raises_no_suspicion() {
    let mut reading = Reading::default();
    reading.take(3, &look(6.0, 0.2), (false, 8.0), &ServiceSettings::default());
    assert!(reading.compared && !reading.suspicious);
    near(reading.most_nats, 18.0);
}

#[test]
fn as_much_evidence_as_is_asked_for_is_enough() {
    let suspicious = |suspect| {
        let mut reading = Reading::default();
        let settings = ServiceSettings { suspect: Nats::new(suspect), ..ServiceSettings::default() };
        reading.take(2, &look(3.0, 0.2), (true, 4.5), &settings);
        (reading.suspicious, reading.tripping)
    };
    assert_eq!([4.5, 4.6].map(suspicious), [(true, true), (false, false)]);
}

#[test]
fn readings_are_of_one_cycle_and_a_zone_is_forgotten_alone() {
    let mut watches = watches(2);
    assert_eq!((watches.zones(), watches.compared(0)), (2, false));
    let both = [(); SIGNALS].map(|()| vec![look(6.0, 0.2); 2]);
    watches.take(2, &both, (&scale(15), 13.0), &ServiceSettings::default());
    watches.settle(&scale(15));
    let seen = |watches: &Watches| [0, 1].map(|zone| (watches.compared(zone), watches.suspicious(zone)));
    let presence = |watches: &Watches| [0, 1].map(|zone| watches.get(Signal::Latency, zone).presence);
    assert_eq!((seen(&watches), presence(&watches)), ([(true, true); 2], [1, 1]));
    watches.forget(0);
    assert_eq!((seen(&watches), presence(&watches)), ([(false, false), (true, true)], [0, 1]));
    watches.begin();
    assert_eq!((seen(&watches), presence(&watches)), ([(false, false); 2], [0, 1]), "what was noticed is remembered");
}

#[test]
fn slow_requests_and_slowdowns_weigh_less_than_failures() {
    let settings = Settings {
        slowdown_weight: Ratio::from_percent(10.0),
        slow_requests_weight: Ratio::from_percent(25.0),
        ..Settings::default()
    };
    let weighed = Signal::ALL.map(|signal| severity(signal, 0.5, &settings));
    weighed.into_iter().zip([0.5, 0.5, 0.5, 0.125, 0.125, 0.05]).for_each(|(value, expected)| near(value, expected));
}

#[test]
fn long_windows_measure_the_size_only_of_what_no_short_one_shows() {
    let size = |windows: &[(usize, f64, f64)]| {
        let mut reading = Reading::default();
        let settings = ServiceSettings::default();
        windows.iter().for_each(|(span, z, effect)| reading.take(*span, &look(*z, *effect), (true, 8.0), &settings));
        reading.size
    };
    near(size(&[(4, 3.5, 0.2), (6, 5.0, 0.3)]), 0.2);
    near(size(&[(6, 5.0, 0.3), (8, 6.0, 0.5)]), 0.3);
    near(size(&[(6, 3.5, 0.3), (8, 3.6, 0.5)]), 0.0);
}

#[test]
fn what_is_suspicious_is_present_while_the_newest_cycles_show_three_fifths_of_it() {
    let present = |suspicious, latest| {
        let mut watches = watches(1);
        watches.0[0][0].reading = Reading { suspicious, largest: 0.5, latest, ..Reading::default() };
        watches.settle(&scale(15));
        (watches.0[0][0].reading.present, watches.0[0][0].presence)
    };
    assert_eq!(present(true, look(1.5, 0.3)), (true, 1));
    assert_eq!(present(true, look(1.5, 0.299)), (false, 0));
    assert_eq!(present(true, look(1.49, 0.3)), (false, 0));
    assert_eq!(present(false, look(1.5, 0.3)), (false, 0));
}

#[test]
fn presence_is_remembered_cycle_by_cycle_for_as_long_as_that_may_be() {
    let after = |cycle_s, cycles: &[bool]| {
        let mut watches = watches(1);
        for there in cycles {
            let latest = look(5.0, 0.5);
            watches.0[0][0].reading = Reading { suspicious: *there, largest: 0.5, latest, ..Reading::default() };
            watches.settle(&scale(cycle_s));
        }
        watches.0[0][0].presence
    };
    assert_eq!(after(15, &[true, true, false, true]), 0b1101);
    assert_eq!(after(15, &[true; 25]), (1 << 20) - 1);
    assert_eq!(after(1, &[true; 130]), u128::MAX);
}

#[test]
fn after_a_gap_the_newest_cycle_alone_must_show_it() {
    let mut watches = watches(1);
    let mut settled = |newest: f64| {
        watches.note_newest(&looks(look(5.0, newest)));
        watches.0[0][0].reading =
            Reading { suspicious: true, largest: 0.5, latest: look(5.0, 0.5), ..Reading::default() };
        watches.pass_over(0);
        watches.settle(&scale(15));
        let first = watches.0[0][0].reading.present;
        watches.settle(&scale(15));
        (first, watches.0[0][0].reading.present)
    };
    assert_eq!(settled(0.29), (false, true), "from the next one on all of them count");
    assert_eq!(settled(0.31), (true, true));
}

#[test]
fn the_newest_cycles_are_known_one_by_one() {
    let mut watches = watches(1);
    [0.5, 0.25].into_iter().for_each(|effect| watches.note_newest(&looks(look(5.0, effect))));
    let watch = *watches.get(Signal::ServerErrors, 0);
    assert_eq!([0, 1, LONGEST_WINDOW].map(|back| watch.effect(back)), [Some(0.25), Some(0.5), None]);
    let kept = serde_json::to_value(watch).unwrap();
    let read: Watch = serde_json::from_value(kept.clone()).unwrap();
    assert_eq!([0, 1].map(|back| read.effect(back)), [Some(0.25), Some(0.5)], "and as they are kept");
    let mut short = kept;
    short["effects"] = serde_json::json!([0.5]);
    assert!(serde_json::from_value::<Watch>(short).is_err());
}

#[test]
fn where_the_newest_cycle_is_conclusive_the_effect_is_as_large_as_that_shows_beyond_its_error() {
    let size = |tripping, size, trip| {
        let mut watches = watches(1);
        watches.each(|watch| watch.reading = Reading { tripping, size, ..Reading::default() });
        watches.refine_by_newest(&looks(look(6.0, 0.5)), trip);
        [Signal::ServerErrors, Signal::VerySlowRequests, Signal::Latency]
            .map(|signal| watches.get(signal, 0).reading.size)
    };
    let check = |sizes: [f64; 3], expected: [f64; 3]| sizes.into_iter().zip(expected).for_each(|(a, b)| near(a, b));
    check(size(true, 0.1, 18.0), [0.4, 0.4, 0.5 * 5.0 / 6.0]);
    check(size(true, 0.1, 18.1), [0.1; 3]);
    check(size(false, 0.1, 18.0), [0.1; 3]);
    check(size(true, 0.9, 18.0), [0.9; 3]);
}

#[test]
fn a_rival_is_remembered_of_a_zone_that_is_under_suspicion_or_has_left_its_past() {
    let settings = ServiceSettings::default();
    let rivals = |suspicious, nats| {
        let mut watches = watches(2);
        assert!(!watches.suspicious(0) && !watches.has_rival(Signal::ServerErrors, 0));
        watches.0[0][0].reading.suspicious = suspicious;
        assert_eq!(watches.suspicious(0), suspicious);
        let mut newest = [(); SIGNALS].map(|()| vec![Rival { excess: 0.0, nats: 0.0 }; 2]);
        newest[0] = vec![Rival { excess: 0.1, nats }, Rival { excess: 0.1, nats: 20.0 }];
        watches.note_rivals(&[newest.clone(), newest.clone()], &settings);
        let noticed = watches.0[0][0].rivals;
        newest[0][1] = Rival { excess: 0.0, nats: 0.0 };
        watches.note_rivals(&[newest.clone(), newest], &settings);
        (noticed, watches.0[0][0].rivals)
    };
    assert_eq!(rivals(false, 6.0), (20, 19));
    assert_eq!(rivals(true, 0.0), (20, 19));
    assert_eq!(rivals(false, 5.9), (0, 0));
}

#[test]
fn a_rival_in_one_measure_of_durations_is_one_in_all_of_them_and_in_nothing_else() {
    let mut watches = watches(2);
    watches.0[Signal::Latency as usize][1].rivals = 1;
    let has_rival = Signal::ALL.map(|signal| watches.has_rival(signal, 1));
    assert_eq!(has_rival, [false, false, false, true, true, true]);
    assert!(!watches.has_rival(Signal::Latency, 0));
}

#[test]
fn an_effect_must_last_by_the_square_of_how_far_it_is_below_the_knee() {
    let settings = ServiceSettings {
        longest: Period::from_secs(100),
        shortest: Period::from_secs(10),
        ..ServiceSettings::default()
    };
    let seconds = |severity, nats| needed(severity, (nats, 10.0), Ratio::from_percent(10.0), &settings).as_secs_f64();
    near(seconds(0.2, 20.0), 25.0);
    near(seconds(0.2, 19.9), 30.0);
    near(seconds(0.3, 20.0), 12.0);
    near(seconds(0.05, 20.0), 100.0);
    near(seconds(10.0, 20.0), 10.0);
}
