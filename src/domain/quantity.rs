//! Numbers that carry their unit, in the types and in the text they are parsed from.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A length of time, written `15s`, `2m`, `1h 30m`; never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(SignedDuration);

impl Period {
    pub const fn from_secs(seconds: i64) -> Self {
        Self(SignedDuration::from_secs(seconds))
    }

    pub const fn from_mins(minutes: i64) -> Self {
        Self(SignedDuration::from_mins(minutes))
    }

    pub const fn from_hours(hours: i64) -> Self {
        Self(SignedDuration::from_hours(hours))
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    pub const fn signed(self) -> SignedDuration {
        self.0
    }

    pub fn unsigned(self) -> std::time::Duration {
        self.0.unsigned_abs()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#}", self.0))
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || format!("`{text}` is not a length of time: write a number and a unit, such as 15s, 2m or 1h");
        let parsed: SignedDuration = text.parse().map_err(|_| hint())?;
        if parsed.is_negative() { Err(hint()) } else { Ok(Self(parsed)) }
    }
}

/// A share of a whole, written in percent: `0.3 %`, `60%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    pub const fn from_percent(percent: f64) -> Self {
        Self(percent / 100.0)
    }

    pub const fn as_fraction(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", round(self.0 * 100.0)))
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = number_before(text, "%").map(round).filter(|p| (0.0..=100.0).contains(p));
        percent
            .map(Self::from_percent)
            .ok_or_else(|| format!("`{text}` is not a share: write a percentage between 0% and 100%, such as 0.3%"))
    }
}

/// How many times as large, written `1.3x`; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Factor(f64);

impl Factor {
    pub const fn new(times: f64) -> Self {
        Self(times)
    }

    pub const fn times(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x", round(self.0)))
    }
}

impl FromStr for Factor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let times = number_before(text, "x").map(round).filter(|t| *t >= 1.0);
        times.map(Self).ok_or_else(|| format!("`{text}` is not a factor: write 1x or more, such as 1.3x"))
    }
}

/// Statistical evidence: the natural logarithm of the odds against chance, written `10 nats`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Nats(f64);

impl Nats {
    pub const fn new(nats: f64) -> Self {
        Self(nats)
    }

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} nats", round(self.0)))
    }
}

impl FromStr for Nats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let nats = number_before(text, "nats").map(round).filter(|n| *n > 0.0);
        nats.map(Self)
            .ok_or_else(|| format!("`{text}` is not evidence: write a positive number of nats, such as 10 nats"))
    }
}

/// An amount of data, written `512KiB` or `64MiB`; at least one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(usize);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Bytes {
    pub const fn from_mib(mebibytes: usize) -> Self {
        Self(mebibytes * MIB)
    }

    pub const fn get(self) -> usize {
        self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&if self.0.is_multiple_of(MIB) {
            format!("{}MiB", self.0 / MIB)
        } else {
            format!("{}KiB", self.0 as f64 / KIB as f64)
        })
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = number_before(text, "MiB")
            .map(|n| n * MIB as f64)
            .or_else(|| number_before(text, "KiB").map(|n| n * KIB as f64))
            .filter(|bytes| (1.0..=4e9).contains(bytes));
        bytes
            .map(|bytes| Self(bytes as usize))
            .ok_or_else(|| format!("`{text}` is not an amount of data: write KiB or MiB, such as 64MiB"))
    }
}

/// Numbers without a unit are refused with an example, as configuration files are where they come from.
macro_rules! through_text {
    ($($quantity:ident: $example:literal, $pattern:literal;)*) => {$(
        impl schemars::JsonSchema for $quantity {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($quantity).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern, "examples": [$example]})
            }
        }
        impl Serialize for $quantity {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $quantity;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a number with its unit, such as {}", $example)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$quantity, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    )*};
}
through_text! {
    Period: "15s", "[0-9]";
    Ratio: "0.3%", r"^\s*\+?[0-9.]+([eE][+-]?[0-9]+)?\s*%$";
    Factor: "1.3x", r"^\s*\+?[0-9.]+([eE][+-]?[0-9]+)?\s*x$";
    Nats: "10 nats", r"^\s*\+?[0-9.]+([eE][+-]?[0-9]+)?\s*nats$";
    Bytes: "64MiB", r"^\s*\+?[0-9.]+([eE][+-]?[0-9]+)?\s*[KM]iB$";
}

fn number_before(text: &str, unit: &str) -> Option<f64> {
    let number: f64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
    number.is_finite().then_some(number)
}

/// To six decimals, as it is written: no finer than is read, and without floating-point dust.
fn round(value: f64) -> f64 {
    const FINE_ENOUGH: f64 = 1e9;
    if value.abs() < FINE_ENOUGH { (value * 1e6).round() / 1e6 } else { value }
}

/// The time between two looks, in whole seconds; cycles lie on its multiples since the epoch, so that a
/// live run and a backtest of the same stretch look at the same instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CycleLength(i64);

impl CycleLength {
    /// The shortest whole number of seconds, at least one, that is not below `period`.
    pub fn at_least(period: Period) -> Self {
        Self((period.as_secs_f64().ceil() as i64).max(1))
    }

    pub const fn seconds(self) -> i64 {
        self.0
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64
    }

    pub const fn signed(self) -> SignedDuration {
        SignedDuration::from_secs(self.0)
    }

    /// The last cycle at or before `time`.
    pub fn at_or_before(self, time: Timestamp) -> Timestamp {
        let second = time.as_nanosecond().div_euclid(1_000_000_000) as i64;
        Timestamp::from_second(second - second.rem_euclid(self.0)).unwrap_or(Timestamp::MIN)
    }

    /// The first cycle at or after `time`.
    pub fn at_or_after(self, time: Timestamp) -> Timestamp {
        let before = self.at_or_before(time);
        if before == time { before } else { before + self.signed() }
    }
}

impl fmt::Display for CycleLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Period::from_secs(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_so_that_it_reads_back_the_same() {
        fn same<T: FromStr<Err = String> + fmt::Display + PartialEq + fmt::Debug>(texts: &[&str]) {
            for text in texts {
                let read: T = text.parse().unwrap();
                assert_eq!(read.to_string().parse(), Ok(read), "{text}");
            }
        }
        same::<Ratio>(&["0%", "0.3%", "0.00000049%", "33.333333333%", "99.9999999%", "100%"]);
        same::<Factor>(&["1x", "1.0000001x", "1.3x", "123456789.123456x", "1e300x"]);
        same::<Nats>(&["13 nats", "0.00000149 nats", "1e300 nats"]);
        same::<Bytes>(&["1KiB", "1.5KiB", "0.001KiB", "1.3MiB", "64MiB"]);
        assert!("1e-9 nats".parse::<Nats>().is_err(), "it would be written as nothing");
    }
}
