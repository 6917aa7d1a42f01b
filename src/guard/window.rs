//! Times of the week in which nothing is isolated automatically.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

/// Such as every Monday and Friday from 10:00 to 12:30 in Shanghai.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
        let today = self.time_zone.zone.to_datetime(now).date();
        let days = [today.yesterday().ok(), Some(today)].into_iter().flatten();
        days.filter(|day| self.days.is_empty() || self.days.iter().any(|it| it.weekday() == day.weekday())).find_map(
            |day| {
                let last = if self.to > self.from { day } else { day.tomorrow().ok()? };
                let (begin, end) = (self.moment(day, self.from)?, self.moment(last, self.to)?);
                (begin <= now && now < end).then_some(end)
            },
        )
    }

    fn moment(&self, day: Date, time: TimeOfDay) -> Option<Timestamp> {
        let day = if time.hour == 24 { day.tomorrow().ok()? } else { day };
        self.time_zone.zone.to_timestamp(day.at(time.hour % 24, time.minute, 0, 0)).ok()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    const fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

/// From `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay {
    hour: i8,
    minute: i8,
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |part: &str| (part.len() == 2).then(|| part.parse::<i8>().ok()).flatten();
        let parts = text.split_once(':').and_then(|(hour, minute)| Some((digits(hour)?, digits(minute)?)));
        match parts {
            Some((hour @ 0..24, minute @ 0..60)) => Ok(Self { hour, minute }),
            Some((24, 0)) => Ok(Self { hour: 24, minute: 0 }),
            Some(_) | None => Err(format!("`{text}` is no time of day: write \"00:00\" to \"24:00\"")),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// By its name in the IANA time zone database, of which an edition is built in: a container may have none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamedTimeZone {
    name: String,
    zone: TimeZone,
}

impl Default for NamedTimeZone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl FromStr for NamedTimeZone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let zone = TimeZoneDatabase::bundled().get(name);
        let zone = zone.map_err(|_| format!("`{name}` is no time zone: write one such as Asia/Shanghai, or UTC"))?;
        Ok(Self { name: name.to_owned(), zone })
    }
}

impl fmt::Display for NamedTimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

macro_rules! through_string {
    ($($type:ident),*) => {$(
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}
through_string!(TimeOfDay, NamedTimeZone);

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
