//! A new edition of the configuration while the process runs: what of it takes effect at once.

use serde_json::Value;

use super::Settings;

/// What changed, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// In effect from the next cycle on.
    pub adopted: Vec<String>,
    /// What a process reads only once: its connections, its place, and how far it may go.
    pub at_next_start: Vec<String>,
}

impl Settings {
    /// Takes over from a newer edition what judgement and guardrails rest on, and leaves the rest as it is.
    pub fn adopt(&mut self, newer: Self) -> Changes {
        let (before, wanted) = (self.tree(), newer.tree());
        self.service = newer.service;
        self.services = newer.services;
        self.detect = crate::detect::Settings { cycle: self.detect.cycle, ..newer.detect };
        self.guard = crate::guard::Settings { silences: self.guard.silences.take(), ..newer.guard };
        self.isolate = newer.isolate;
        self.rollback = newer.rollback;
        self.recovery = newer.recovery;
        self.drills = newer.drills;
        self.hand_over();
        let after = self.tree();
        Changes { adopted: differences(&before, &after), at_next_start: differences(&after, &wanted) }
    }

    fn tree(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Paths of the values that differ; a list is one value.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return Vec::new() };
    let mut paths = Vec::new();
    for (key, value) in new {
        match old.get(key) {
            Some(known) if known == value => {}
            Some(known) if known.is_object() && value.is_object() => {
                paths.extend(differences(known, value).into_iter().map(|rest| format!("{key}.{rest}")));
            }
            _ => paths.push(key.clone()),
        }
    }
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    paths.extend(gone.cloned());
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Nats, Period};

    #[test]
    fn what_judgement_rests_on_is_adopted_and_the_rest_waits_for_a_start() {
        let mut settings = Settings::default();
        let mut newer = Settings::default();
        newer.service.trip = Nats::new(20.0);
        newer.guard.cool_down = Period::from_mins(20);
        newer.detect.cycle = Period::from_secs(30);
        newer.prometheus.url = "http://elsewhere:9090".to_owned();
        let changes = settings.adopt(newer);
        assert_eq!(changes.adopted, ["guard.cool_down", "service.trip"]);
        assert_eq!(changes.at_next_start, ["detect.cycle", "prometheus.url"]);
        assert_eq!(settings.service.trip, Nats::new(20.0));
        assert_eq!(settings.detect.services.usual.trip, Nats::new(20.0), "each stage has it");
        assert_eq!(settings.prometheus.url, Settings::default().prometheus.url);
    }
}
