//! What is legal, and yet likely to be regretted.

use super::Settings;
use crate::domain::{Mode, Nats, Period, Ratio, ReturnMode, ServiceSettings};

/// Where, what it is, and what would be better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    pub path: String,
    pub found: String,
    pub better: &'static str,
}

fn advice(path: impl Into<String>, found: impl Into<String>, better: &'static str) -> Advice {
    Advice { path: path.into(), found: found.into(), better }
}

impl Settings {
    /// Pure. In the order of the file; what only matters to acting is not said of who observes.
    pub fn unwise(&self) -> Vec<Advice> {
        let mut found = self.of_prometheus();
        found.extend(self.of_services());
        if self.mode != Mode::Observe {
            found.extend(self.of_acting());
        }
        if self.mode == Mode::Enforce {
            found.extend(self.of_acting_alone());
        }
        found
    }

    fn of_prometheus(&self) -> Vec<Advice> {
        let (prometheus, cycle) = (&self.prometheus, self.detect.cycle);
        let mut found = Vec::new();
        if prometheus.timeout > cycle {
            let is = format!("{}, longer than detect.cycle ({cycle})", prometheus.timeout);
            found.push(advice("prometheus.timeout", is, "a slow query delays the next look: keep it within a cycle"));
        }
        if prometheus.history < Period::from_mins(30) {
            let is = format!("{}: nothing is known of what is normal when it starts", prometheus.history);
            found.push(advice(
                "prometheus.history",
                is,
                "at least 30m: between two zones only the past tells which moved",
            ));
        }
        if prometheus.min_coverage < Ratio::from_percent(20.0) {
            let is = format!("{}: a zone is judged by a handful of its proxies", prometheus.min_coverage);
            found.push(advice("prometheus.min_coverage", is, "half of them, so that lost scrapes are no sick zone"));
        }
        found
    }

    fn of_services(&self) -> Vec<Advice> {
        let cycle = self.detect.cycle;
        let mut found = of_service(&self.service, cycle, "service.");
        let known: Vec<String> = found.iter().map(|it| it.path.replace("service.", "")).collect();
        for (i, change) in self.services.iter().enumerate() {
            let at = format!("services[{i}].");
            let changed = of_service(&change.over(&self.service), cycle, &at);
            found.extend(changed.into_iter().filter(|it| !known.iter().any(|key| it.path == format!("{at}{key}"))));
        }
        found
    }

    fn of_acting(&self) -> Vec<Advice> {
        let guard = &self.guard;
        let mut found = Vec::new();
        if guard.max_isolated_zones > 1 {
            let is = format!("{}: so many zones may be out at once", guard.max_isolated_zones);
            found.push(advice("guard.max_isolated_zones", is, "1: what makes two zones sick is seldom either zone's"));
        }
        if guard.stale_after.signed() < 2 * self.detect.cycle.signed() {
            let is = format!("{}, less than two cycles of {}", guard.stale_after, self.detect.cycle);
            found.push(advice("guard.stale_after", is, "a single slow look would hold everything"));
        } else if guard.stale_after > Period::from_mins(5) {
            let is = format!("{}: isolations rest on what was so long ago", guard.stale_after);
            found.push(advice("guard.stale_after", is, "about four cycles"));
        }
        if guard.max_load_growth.times() > 5.0 {
            let is = format!("{}: endpoints that are left may get so much more", guard.max_load_growth);
            found.push(advice("guard.max_load_growth", is, "what a load test or a drill has shown them to bear"));
        }
        found
    }

    fn of_acting_alone(&self) -> Vec<Advice> {
        let guard = &self.guard;
        let mut found = Vec::new();
        if guard.cool_down < Period::from_mins(5) {
            let is = format!("{}: a zone may go out and come back again and again", guard.cool_down);
            found.push(advice("guard.cool_down", is, "15m"));
        }
        if guard.max_isolations_per_day > 12 {
            let is = format!("{}: nobody looks until it was isolated so often", guard.max_isolations_per_day);
            found.push(advice("guard.max_isolations_per_day", is, "a few, and then a person"));
        }
        if !self.rollback.enabled {
            let better = "on: an isolation that does harm, or no good, is given up";
            found.push(advice("rollback.enabled", "false: what an isolation does to the others ends none", better));
        }
        if self.recovery.mode == ReturnMode::Timer {
            let better = "evidence: by shares, each judged";
            found.push(advice("recovery.mode", "timer: a zone comes back at once, well or not", better));
        }
        if self.notify.alertmanager.is_none() && self.notify.webhook.is_none() {
            let better = "an Alertmanager, or a webhook";
            found.push(advice("notify", "nobody: what is done shows in Events and the journal only", better));
        }
        found
    }
}

fn of_service(it: &ServiceSettings, cycle: Period, at: &str) -> Vec<Advice> {
    let mut found = Vec::new();
    let mut say = |key: &str, is: String, better| found.push(advice(format!("{at}{key}"), is, better));
    if it.ignore && it.critical {
        say("critical", "true, of what is not looked at (ignore: true)".to_owned(), "one of the two");
    }
    for class in it.failures.response_codes.iter().filter(|class| !class.may_be_a_failure()) {
        let is = format!("{class} is no response of a server that failed");
        say("failures.response_codes", is, "5xx, single codes from 400 to 599, and \"0\" for no answer at all");
    }
    if it.trip < Nats::new(8.0) {
        say("trip", format!("{}: chance alone would do so every few days", it.trip), "13 nats");
    }
    if it.longest_window.signed() < 2 * cycle.signed() {
        let is = format!("{}, less than two cycles of {cycle}: mild faults are never found", it.longest_window);
        say("longest_window", is, "20m: the best window counts, so long ones cost no time");
    }
    if it.longest.signed() < 2 * cycle.signed() {
        let is = format!("{}, less than two cycles of {cycle}: a blip makes a fault", it.longest);
        say("longest", is, "75s: large faults need less anyway (shortest)");
    }
    if it.min_failures < 2 {
        say("min_failures", format!("{}: a single failed request can matter", it.min_failures), "5");
    }
    let felt = "the smallest difference that users would feel";
    if it.min_error_excess.as_fraction() == 0.0 {
        say("min_error_excess", "0%: the smallest difference counts".to_owned(), felt);
    }
    if it.min_slow_excess.as_fraction() == 0.0 {
        say("min_slow_excess", "0%: the smallest difference counts".to_owned(), felt);
    }
    if it.min_slowdown.times() <= 1.01 {
        say("min_slowdown", format!("{}: any slowdown counts", it.min_slowdown), felt);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(yaml: &str) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, yaml.as_bytes()).unwrap();
        let settings = Settings::load(Some(file.path()), Default::default()).unwrap();
        settings.unwise().into_iter().map(|advice| advice.path).collect()
    }

    #[test]
    fn nothing_is_said_of_the_defaults_but_that_who_acts_alone_should_tell_somebody() {
        assert_eq!(of("mode: observe"), [""; 0]);
        assert_eq!(of("mode: recommend"), [""; 0]);
        assert_eq!(of("mode: enforce"), ["notify"]);
        assert_eq!(of("{mode: enforce, notify: {webhook: {url: 'https://hooks.example.org/z'}}}"), [""; 0]);
    }

    #[test]
    fn each_is_found_alone_and_said_of_its_place() {
        let cases = [
            ("prometheus: {timeout: 20s}", "prometheus.timeout"),
            ("prometheus: {history: 10m}", "prometheus.history"),
            ("prometheus: {min_coverage: 5%}", "prometheus.min_coverage"),
            ("service: {trip: 7 nats}", "service.trip"),
            ("service: {failures: {response_codes: [6xx, 503]}}", "service.failures.response_codes"),
            ("services: [{match: a/*, failures: {response_codes: [200]}}]", "services[0].failures.response_codes"),
            ("services: [{match: a/*, ignore: true, critical: true}]", "services[0].critical"),
            ("service: {longest_window: 20s}", "service.longest_window"),
            ("service: {longest: 20s, shortest: 15s}", "service.longest"),
            ("service: {min_failures: 1}", "service.min_failures"),
            ("service: {min_error_excess: 0%}", "service.min_error_excess"),
            ("service: {min_slow_excess: 0%}", "service.min_slow_excess"),
            ("service: {min_slowdown: 1x}", "service.min_slowdown"),
            ("services: [{match: a/*, ignore: true}, {match: b/*, trip: 7 nats}]", "services[1].trip"),
            ("{mode: recommend, guard: {max_isolated_zones: 2}}", "guard.max_isolated_zones"),
            ("{mode: recommend, guard: {stale_after: 20s}}", "guard.stale_after"),
            ("{mode: recommend, guard: {stale_after: 10m}}", "guard.stale_after"),
            ("{mode: recommend, guard: {max_load_growth: 8x}}", "guard.max_load_growth"),
        ];
        for (yaml, path) in cases {
            assert_eq!(of(yaml), [path], "{yaml}");
        }
        for (yaml, path) in [
            ("guard: {cool_down: 1m}", "guard.cool_down"),
            ("guard: {max_isolations_per_day: 50, max_isolations_per_day_of_all: 100}", "guard.max_isolations_per_day"),
            ("rollback: {enabled: false}", "rollback.enabled"),
            ("recovery: {mode: timer}", "recovery.mode"),
        ] {
            assert_eq!(of(&format!("{{mode: enforce, {yaml}}}")), [path, "notify"], "{yaml}");
        }
    }

    #[test]
    fn what_is_unwise_for_all_services_is_said_once() {
        assert_eq!(of("{service: {trip: 7 nats}, services: [{match: a/*, critical: true}]}"), ["service.trip"]);
    }
}
