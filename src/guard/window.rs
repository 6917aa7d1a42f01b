//! Times of the week in which nothing is isolated automatically.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{Day, NamedTimeZone, TimeOfDay};

/// Such as every Monday and Friday from 10:00 to 12:30 in Shanghai.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockedWindow {
    /// The days on which it begins; none named is every day.
    #[serde(default)]
    pub days: Vec<Day>,
    pub from: TimeOfDay,
    /// On the next day, if that is not after `from`.
    pub to: TimeOfDay,
    #[serde(default)]
    pub time_zone: NamedTimeZone,
    pub why: String,
}

impl BlockedWindow {
    /// When it ends, if it is that time.
    pub fn ends(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.time_zone.date(now);
        let days = [today.yesterday().ok(), Some(today)].into_iter().flatten();
        days.filter(|day| self.days.is_empty() || self.days.iter().any(|it| it.weekday() == day.weekday())).find_map(
            |day| {
                let last = if self.to > self.from { day } else { day.tomorrow().ok()? };
                let (begin, end) = (self.from.on(day, &self.time_zone)?, self.to.on(last, &self.time_zone)?);
                (begin <= now && now < end).then_some(end)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn window(value: serde_json::Value) -> Result<BlockedWindow, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn end(window: &BlockedWindow, now: &str) -> Option<String> {
        window.ends(now.parse().unwrap()).map(|end| end.to_string())
    }

    #[test]
    fn it_begins_on_its_days_by_the_clocks_of_its_time_zone() {
        let release = window(json!({"days": ["mon", "fri"], "from": "10:00", "to": "12:30", "time_zone": "Asia/Shanghai", "why": "release"})).unwrap();
        // 2026-11-27 is a Friday; Shanghai is eight hours ahead.
        assert_eq!(end(&release, "2026-11-27T01:59:59Z"), None);
        assert_eq!(end(&release, "2026-11-27T02:00:00Z").as_deref(), Some("2026-11-27T04:30:00Z"));
        assert_eq!(end(&release, "2026-11-27T04:30:00Z"), None);
        assert_eq!(end(&release, "2026-11-26T03:00:00Z"), None, "on a Thursday");
    }

    #[test]
    fn it_may_cross_midnight_and_belongs_to_the_day_on_which_it_begins() {
        let night = window(json!({"days": ["sat"], "from": "22:00", "to": "06:00", "why": "batches"})).unwrap();
        assert_eq!(end(&night, "2026-11-28T23:00:00Z").as_deref(), Some("2026-11-29T06:00:00Z"));
        assert_eq!(end(&night, "2026-11-29T05:59:00Z").as_deref(), Some("2026-11-29T06:00:00Z"));
        assert_eq!(end(&night, "2026-11-28T05:00:00Z"), None, "the night to Saturday is Friday's");
        let all_day = window(json!({"from": "00:00", "to": "24:00", "why": "peak season"})).unwrap();
        assert_eq!(end(&all_day, "2026-11-28T00:00:00Z").as_deref(), Some("2026-11-29T00:00:00Z"));
        let from_noon_on = window(json!({"from": "12:00", "to": "12:00", "why": "peak season"})).unwrap();
        assert_eq!(end(&from_noon_on, "2026-11-28T13:00:00Z").as_deref(), Some("2026-11-29T12:00:00Z"));
    }

    #[test]
    fn clocks_that_are_changed_change_its_length() {
        let night = json!({"from": "01:00", "to": "04:00", "time_zone": "Europe/Berlin", "why": "backup"});
        let night = window(night).unwrap();
        // In the night to 2026-03-29 the hour from 02:00 on is left out.
        assert_eq!(end(&night, "2026-03-29T00:30:00Z").as_deref(), Some("2026-03-29T02:00:00Z"));
    }

    #[test]
    fn what_can_not_be_read_says_what_to_write() {
        let bad = |key: &str, value: &str| {
            let mut text = json!({"from": "01:00", "to": "04:00", "time_zone": "UTC", "why": "x"});
            text[key] = json!(value);
            window(text).unwrap_err()
        };
        assert!(bad("from", "1:00").contains("write \"00:00\" to \"24:00\""));
        assert!(bad("to", "24:01").contains("no time of day"));
        assert!(bad("time_zone", "Shanghai").contains("write one such as Asia/Shanghai"));
    }
}
