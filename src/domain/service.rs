//! What may differ from service to service: one default, and an ordered list of what differs.

use serde::{Deserialize, Serialize};

use super::zone::ServicePattern;
use super::{Factor, FailureClasses, Nats, Period, Ratio, ServiceId};

/// Declares each setting once: as a value with its default, and as something that an override may change.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr,)*) => {
        /// The section `service`; config/default.yaml describes each field.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct ServiceSettings {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl Default for ServiceSettings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// What differs for the services that a pattern names.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct ServiceOverride {
            #[serde(rename = "match")]
            pub pattern: ServicePattern,
            $(#[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<$kind>,)*
        }

        impl ServiceOverride {
            /// Changes nothing yet.
            pub fn of(pattern: ServicePattern) -> Self {
                Self { pattern, $($name: None,)* }
            }

            /// The usual settings with what differs.
            pub fn over(&self, usual: &ServiceSettings) -> ServiceSettings {
                let mut settings = usual.clone();
                self.apply(&mut settings);
                settings
            }

            fn apply(&self, to: &mut ServiceSettings) {
                $(if let Some(value) = &self.$name { to.$name.clone_from(value); })*
            }
        }
    };
}

settings! {
    ignore: bool = false,
    /// A fault of it alone is worth a zone.
    critical: bool = false,
    /// How much its requests count when a fault's breadth is measured.
    weight: Ratio = Ratio::from_percent(100.0),
    failures: FailureClasses = FailureClasses::default(),
    trip: Nats = Nats::new(13.0),
    suspect: Nats = Nats::new(6.0),
    clear: Period = Period::from_mins(5),
    shortest: Period = Period::from_secs(30),
    longest: Period = Period::from_secs(75),
    shortest_window: Period = Period::from_secs(0),
    longest_window: Period = Period::from_mins(20),
    min_requests: u32 = 10,
    min_failures: u32 = 5,
    min_error_excess: Ratio = Ratio::from_percent(0.3),
    min_error_ratio: Factor = Factor::new(2.0),
    min_slow_excess: Ratio = Ratio::from_percent(1.0),
    min_slow_ratio: Factor = Factor::new(1.5),
    min_slowdown: Factor = Factor::new(1.15),
}

impl ServiceSettings {
    /// What is illegal, each as the key and what is allowed.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.suspect > self.trip {
            problems.push(("suspect", format!("{} is above trip ({})", self.suspect, self.trip)));
        }
        if self.shortest > self.longest {
            problems.push(("shortest", format!("{} is above longest ({})", self.shortest, self.longest)));
        }
        if self.shortest_window > self.longest_window {
            let problem = format!("{} is above longest_window ({})", self.shortest_window, self.longest_window);
            problems.push(("shortest_window", problem));
        }
        for (key, period) in [("longest", self.longest), ("shortest_window", self.shortest_window)] {
            if period > Period::from_mins(5) {
                problems.push((key, format!("{period} is above 5m, the longest time that is remembered")));
            }
        }
        if self.clear < Period::from_mins(1) || self.clear > Period::from_hours(1) {
            problems.push(("clear", format!("{} is outside 1m to 1h", self.clear)));
        }
        problems
    }
}

/// The settings of every service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Services {
    pub usual: ServiceSettings,
    /// Later ones win.
    pub overrides: Vec<ServiceOverride>,
}

impl Services {
    pub fn of(&self, service: &ServiceId) -> ServiceSettings {
        let mut settings = self.usual.clone();
        self.overrides.iter().filter(|o| o.pattern.matches(service)).for_each(|o| o.apply(&mut settings));
        settings
    }

    /// What counts as a failure of a service.
    pub fn failures_of(&self, service: &ServiceId) -> &FailureClasses {
        let changed = |o: &'_ &ServiceOverride| o.failures.is_some() && o.pattern.matches(service);
        let last = self.overrides.iter().rev().find(changed);
        last.and_then(|o| o.failures.as_ref()).unwrap_or(&self.usual.failures)
    }

    /// What is illegal: where, and what is allowed. An override is judged together with the usual settings.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems: Vec<(String, String)> =
            self.usual.problems().into_iter().map(|(key, problem)| (format!("service.{key}"), problem)).collect();
        for (i, change) in self.overrides.iter().enumerate() {
            for (key, problem) in change.over(&self.usual).problems() {
                if !problems.iter().any(|(known, _)| known.strip_prefix("service.") == Some(key)) {
                    problems.push((format!("services[{i}].{key}"), problem));
                }
            }
        }
        problems
    }
}
