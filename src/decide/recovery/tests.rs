use super::*;
use crate::domain::cluster::{Pod, PodId, Service};
use crate::domain::{Admission, IsolationSpec, ServiceId};

fn cycle() -> CycleLength {
    CycleLength::at_least(Period::from_secs(15))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Out since second 0, for an hour.
fn isolation() -> Isolation {
    let spec = IsolationSpec {
        zone: Zone::new("zone-b"),
        origin: Origin::Detector,
        reason: "test".into(),
        evidence: Vec::new(),
        expires_at: at(3600),
        share: Share::NONE,
        only: Default::default(),
        overrides: Default::default(),
        approved: true,
    };
    let mut isolation = Isolation::new("1".into(), spec, at(0));
    (isolation.admission, isolation.isolated_at) = (Admission::Admitted(at(0)), Some(at(1)));
    isolation
}

fn in_stage(stage: Stage, since: i64) -> Isolation {
    let recovery = Recovery { stage, since: at(since), why: String::new(), relapses: 0, not_before: None };
    Isolation { recovery: Some(recovery), ..isolation() }
}

fn trial(percent: u8) -> Stage {
    Stage::Trial { share: Share::percent(percent) }
}

fn next(isolation: &Isolation, signs: &Signs, settings: &Settings, second: i64) -> Option<Recovery> {
    let basis = Basis { signs, cluster: None, severity: Some(0.2), cycle: cycle() };
    recover(isolation, basis, settings, at(second))
}

fn stage(isolation: &Isolation, signs: &Signs, second: i64) -> Option<Stage> {
    next(isolation, signs, &Settings::default(), second).map(|recovery| recovery.stage)
}

fn asked(cycles: u32, failing: impl Fn(u32) -> u32) -> Signs {
    let silent = Finding::inconclusive(vec![Gap::NoTraffic { zone: Zone::new("zone-b") }]);
    let mut signs = Signs::default();
    for cycle in 0..cycles {
        let probes = Probes { asked: 6, failed: failing(cycle), why: None };
        signs.add(&silent, (0.0, 0.0), Some(&probes));
    }
    signs
}

fn seen(newest: Newest, served: f64) -> Signs {
    Signs { served, newest, ..Signs::default() }
}

#[test]
fn a_zone_is_watched_from_the_moment_it_is_out() {
    assert_eq!(stage(&isolation(), &Signs::default(), 2), Some(Stage::Out));
}

#[test]
fn silence_proves_nothing() {
    let silent = Finding::inconclusive(vec![Gap::NoTraffic { zone: Zone::new("zone-b") }]);
    let mut signs = Signs::default();
    (0..200).for_each(|_| signs.add(&silent, (0.0, 0.0), None));
    assert_eq!(stage(&in_stage(Stage::Out, 0), &signs, 3000), None);
    let nobody = Probes::default();
    (0..200).for_each(|_| signs.add(&silent, (0.0, 0.0), Some(&nobody)));
    assert_eq!(stage(&in_stage(Stage::Out, 0), &signs, 3000), None, "a zone without pods answers nobody");
}

#[test]
fn pods_that_answer_for_five_minutes_bring_it_on_its_way() {
    assert_eq!(stage(&in_stage(Stage::Out, 0), &asked(19, |_| 0), 300), None);
    assert_eq!(stage(&in_stage(Stage::Out, 0), &asked(20, |_| 0), 300), Some(Stage::Refilling));
    let one = asked(20, |cycle| u32::from(cycle == 7));
    assert_eq!(stage(&in_stage(Stage::Out, 0), &one, 300), Some(Stage::Refilling), "one in a hundred may fail");
    let sick = asked(40, |cycle| u32::from(cycle % 3 == 0));
    assert_eq!(stage(&in_stage(Stage::Out, 0), &sick, 600), None, "a twentieth may not");
}

#[test]
fn calls_of_its_own_pods_show_it_too() {
    let mut signs = Signs::default();
    (0..20).for_each(|_| signs.add(&Finding::healthy(), (0.0, 50.0), None));
    assert_eq!(stage(&in_stage(Stage::Out, 0), &signs, 300), Some(Stage::Refilling));
    let mut few = Signs::default();
    (0..20).for_each(|_| few.add(&Finding::healthy(), (0.0, 5.0), None));
    assert_eq!(stage(&in_stage(Stage::Out, 0), &few, 300), None);
}

#[test]
fn the_mode_says_what_begins_the_way_back() {
    let (good, expired) = (asked(20, |_| 0), 3600);
    let with = |mode| Settings { mode, ..Settings::default() };
    let out = in_stage(Stage::Out, 0);
    let begins = |mode, signs: &Signs, second| next(&out, signs, &with(mode), second).is_some();
    assert!(!begins(ReturnMode::Manual, &good, 300) && begins(ReturnMode::Manual, &Signs::default(), expired));
    assert!(!begins(ReturnMode::Timer, &good, 300) && !begins(ReturnMode::Timer, &good, expired));
    assert!(begins(ReturnMode::Evidence, &Signs::default(), expired), "what has expired comes back by shares");
}

#[test]
fn traffic_comes_back_by_shares_each_on_enough_requests() {
    let enough = seen(Newest::Well, 100.0);
    assert_eq!(stage(&in_stage(Stage::Refilling, 0), &Signs::default(), 1), Some(trial(5)));
    assert_eq!(stage(&in_stage(trial(5), 0), &enough, 119), None, "each share at least two minutes");
    assert_eq!(stage(&in_stage(trial(5), 0), &enough, 120), Some(trial(25)));
    assert_eq!(stage(&in_stage(trial(50), 0), &enough, 120), Some(trial(100)));
    assert_eq!(stage(&in_stage(trial(100), 0), &enough, 120), Some(Stage::Ended));
    let few = seen(Newest::Well, 99.0);
    assert_eq!(stage(&in_stage(trial(5), 0), &few, 899), None);
    assert_eq!(stage(&in_stage(trial(5), 0), &few, 900), Some(trial(25)), "a quiet zone is not kept out for ever");
}

#[test]
fn a_mild_fault_takes_more_requests_to_rule_out() {
    let mild = Basis { signs: &seen(Newest::Well, 1900.0), cluster: None, severity: Some(0.01), cycle: cycle() };
    assert_eq!(recover(&in_stage(trial(5), 0), mild, &Settings::default(), at(300)), None);
    let enough = Basis { signs: &seen(Newest::Well, 2000.0), ..mild };
    assert!(recover(&in_stage(trial(5), 0), enough, &Settings::default(), at(300)).is_some());
}

#[test]
fn what_is_not_seen_in_a_trial_is_no_pass() {
    for newest in [Newest::Nothing, Newest::Unseen, Newest::Unclear] {
        assert_eq!(stage(&in_stage(trial(5), 0), &seen(newest, 1e6), 3000), None);
    }
}

#[test]
fn where_nothing_can_be_seen_what_a_person_asked_for_ends_when_it_expires() {
    let blind = seen(Newest::Unseen, 0.0);
    let mut isolation = in_stage(Stage::Out, 0);
    assert_eq!(stage(&isolation, &blind, 3600), None, "zoneward's own is held a while longer");
    isolation.spec.origin = Origin::Operator;
    assert_eq!(stage(&isolation, &blind, 3599), None);
    assert_eq!(stage(&isolation, &blind, 3600), Some(Stage::Ended));
}

#[test]
fn a_relapse_takes_it_out_again_for_longer_each_time() {
    let worse = seen(Newest::Worse("it fails".into()), 500.0);
    let mut isolation = in_stage(trial(25), 0);
    let mut now = 10;
    for pause_s in [600, 1200, 2400] {
        let relapse = next(&isolation, &worse, &Settings::default(), now).unwrap();
        assert_eq!((relapse.stage, relapse.not_before), (Stage::Out, Some(at(now + pause_s))));
        isolation.recovery = Some(relapse);
        assert!(!isolation.returning(at(now + pause_s)), "its expiry waits for the next try");
        assert_eq!(stage(&isolation, &asked(40, |_| 0), now + pause_s - 1), None);
        assert_eq!(stage(&isolation, &asked(40, |_| 0), now + pause_s), Some(Stage::Refilling));
        now += pause_s;
        isolation.recovery.as_mut().unwrap().stage = trial(5);
    }
}

#[test]
fn without_a_step_that_shares_traffic_all_comes_back_at_once() {
    let settings = Settings { gradual: false, ..Settings::default() };
    let next = next(&in_stage(Stage::Refilling, 0), &Signs::default(), &settings, 1).unwrap();
    assert_eq!(next.stage, Stage::Ended);
}

#[test]
fn shares_that_go_down_or_are_no_whole_percentages_are_refused() {
    let of = |percents: &[f64]| {
        let shares = percents.iter().map(|percent| Ratio::from_percent(*percent)).collect();
        Settings { shares, ..Settings::default() }.problems().len()
    };
    assert_eq!((of(&[1.0, 25.0, 100.0]), of(&[])), (0, 0));
    assert_eq!((of(&[25.0, 5.0]), of(&[0.5]), of(&[50.0, 50.0])), (1, 1, 1));
    assert_eq!((of(&[0.0, 50.0]), of(&[2.5])), (1, 1));
    let many = |last: u8| (1..=last).map(f64::from).collect::<Vec<_>>();
    assert_eq!((of(&many(20)), of(&many(21))), (0, 1));
}

#[test]
fn no_stage_may_be_set_to_more_than_an_hour_and_the_longest_trial_to_less_than_one() {
    let wrong = |change: &dyn Fn(&mut Settings)| -> Vec<&'static str> {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.problems().into_iter().map(|(key, _)| key).collect()
    };
    let (hour, more) = (Period::from_hours(1), Period::from_secs(3_601));
    let all = |period| {
        move |it: &mut Settings| {
            (it.healthy_for, it.refill, it.trial, it.longest_trial, it.back_off) =
                (period, period, period, period, period);
        }
    };
    assert!(wrong(&all(hour)).is_empty());
    assert_eq!(wrong(&all(more)), ["healthy_for", "refill", "trial", "longest_trial", "back_off"]);
    assert_eq!(wrong(&|it| it.trial = Period::from_secs(901)), ["longest_trial"]);
}

#[test]
fn a_verdict_says_what_a_trial_has_shown() {
    let zone = || Zone::new("zone-b");
    let of = |finding: &Finding| {
        let mut signs = Signs::default();
        signs.add(finding, (7.0, 0.0), None);
        assert!((signs.served - 7.0).abs() < 1e-9);
        signs.newest
    };
    let verdict = |verdict| Finding { verdict, ..Finding::healthy() };
    assert_eq!(of(&Finding::healthy()), Newest::Well);
    assert_eq!(of(&verdict(Verdict::ZoneFault)), Newest::Worse("no evidence".into()));
    assert_eq!(of(&verdict(Verdict::RegionalFault)), Newest::Unclear);
    let quiet = vec![Gap::NoTraffic { zone: zone() }, Gap::TooLittleData { zone: zone() }];
    assert_eq!(of(&Finding::inconclusive(quiet)), Newest::Quiet);
    let unseen = vec![Gap::NoTraffic { zone: zone() }, Gap::NoPeer { zone: zone() }];
    assert_eq!(of(&Finding::inconclusive(unseen)), Newest::Unseen);
}

#[test]
fn a_fault_that_lasts_or_more_failures_than_happen_in_health_begin_it_anew() {
    let answers = Probes { asked: 6, failed: 0, why: None };
    let after = |verdict, persistent| {
        let mut signs = asked(10, |_| 0);
        signs.add(&Finding { verdict, persistent, ..Finding::healthy() }, (0.0, 0.0), Some(&answers));
        (signs.good_cycles, signs.asked)
    };
    assert_eq!(after(Verdict::ZoneFault, true), (0, 0));
    assert_eq!(after(Verdict::ZoneFault, false), (11, 66), "a moment is no fault");
    assert_eq!(after(Verdict::Healthy, true), (11, 66));
    assert_eq!(asked(50, |cycle| u32::from(cycle == 17 || cycle == 40)).good_cycles, 50, "two of 246 times");
}

#[test]
fn where_pods_are_asked_only_their_answers_count() {
    let mut signs = Signs::default();
    (0..20).for_each(|_| signs.add(&Finding::healthy(), (0.0, 50.0), Some(&Probes::default())));
    assert_eq!(signs.good_cycles, 0);
    let mut signs = Signs::default();
    let unclear = Finding { verdict: Verdict::RegionalFault, ..Finding::healthy() };
    (0..20).for_each(|_| signs.add(&unclear, (0.0, 50.0), None));
    assert_eq!(signs.good_cycles, 0, "others got worse, too: that its calls succeed is not said");
}

#[test]
fn what_it_rests_on_is_said() {
    let out = in_stage(Stage::Out, 0);
    let why = |signs: &Signs| next(&out, signs, &Settings::default(), 300).unwrap().why;
    let one_failed = asked(20, |cycle| u32::from(cycle == 7));
    assert_eq!(why(&one_failed), "for 5m its pods answer when asked (1 of 120 times not)");
    let mut calls = Signs::default();
    (0..20).for_each(|_| calls.add(&Finding::healthy(), (0.0, 50.0), None));
    assert_eq!(why(&calls), "for 5m its pods' own calls succeed (1000 of them)");
}

#[test]
fn without_any_sign_a_zone_stays_out_however_soon_it_might_come_back() {
    let at_once = Settings { healthy_for: Period::from_secs(0), ..Settings::default() };
    let out = in_stage(Stage::Out, 0);
    assert_eq!(next(&out, &Signs::default(), &at_once, 300), None);
    assert!(next(&out, &asked(1, |_| 0), &at_once, 300).is_some());
}

#[test]
fn a_fault_of_no_known_size_is_taken_for_a_usual_one() {
    let with = |severity| {
        let basis = Basis { signs: &seen(Newest::Well, 700.0), cluster: None, severity, cycle: cycle() };
        recover(&in_stage(trial(5), 0), basis, &Settings::default(), at(120)).is_some()
    };
    assert!(with(None) && with(Some(0.0)) && !with(Some(0.02)));
}

/// Ready pods of services, in `zone-a`, `zone-b` and `zone-c`.
fn cluster(services: &[(&str, [usize; 3])]) -> ClusterView {
    let mut view = ClusterView::default();
    for (name, pods) in services {
        let service = ServiceId::new("default", *name);
        view.services.insert(service.clone(), Service::default());
        for (letter, count) in ['a', 'b', 'c'].into_iter().zip(pods) {
            for nth in 0..*count {
                let id = PodId { namespace: "default".into(), name: format!("{name}-{letter}-{nth}") };
                let (zone, services) = (Some(Zone::new(format!("zone-{letter}"))), [service.clone()].into());
                view.pods.insert(id, Pod { zone, ready: true, services, ..Pod::default() });
            }
        }
    }
    view
}

/// How a zone that may get pods again goes on.
fn refilled(services: &[(&str, [usize; 3])], second: i64) -> Option<String> {
    let cluster = cluster(services);
    let basis = Basis { signs: &Signs::default(), cluster: Some(&cluster), severity: None, cycle: cycle() };
    recover(&in_stage(Stage::Refilling, 0), basis, &Settings::default(), at(second)).map(|recovery| recovery.why)
}

#[test]
fn a_zone_gets_traffic_once_half_of_its_usual_pods_are_ready_or_it_has_waited_long_enough() {
    let ready = Some("its pods are ready".to_owned());
    assert_eq!(refilled(&[("web", [4, 2, 4])], 1), ready);
    assert_eq!(refilled(&[("web", [4, 1, 2])], 299), None);
    let short = "default/web has 1 ready pods in zone-b, and 3 in each other zone: a descheduler would move some back";
    assert_eq!(refilled(&[("web", [4, 1, 2])], 300).as_deref(), Some(short));
    assert_eq!(refilled(&[("search", [4, 0, 4]), ("web", [4, 4, 4])], 1), ready, "what never ran there is not missed");
}

#[test]
fn of_services_that_lack_pods_the_one_that_lacks_the_most_is_named() {
    let named = |api: [usize; 3], web: [usize; 3]| {
        let why = refilled(&[("api", api), ("web", web)], 300).unwrap();
        why.split_once(' ').unwrap().0.to_owned()
    };
    assert_eq!(named([4, 1, 4], [10, 1, 10]), "default/web");
    assert_eq!(named([10, 1, 10], [4, 1, 4]), "default/api");
    assert_eq!(named([4, 1, 4], [4, 1, 4]), "default/api");
}
