//! An answer read as it comes: each row is taken out of the JSON as soon as it is whole, so that no answer is ever held.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Around the rows there are only a status, an error and warnings.
const LARGEST_ENVELOPE: usize = 1 << 20;
/// As much of what is no answer of the API may be shown.
const SHOWN_BYTES: usize = 512;
/// What the API nests is much flatter.
const DEEPEST: usize = 32;
/// Where rows are: in the list `result`, in `data`, in the answer.
const AROUND_ROWS: [u8; 3] = *b"{{[";

/// A series of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct Row<'a> {
    #[serde(borrow)]
    metric: Labels<'a>,
    #[serde(borrow, default)]
    values: Vec<Sample<'a>>,
    #[serde(borrow)]
    value: Option<Sample<'a>>,
}

impl<'a> Row<'a> {
    pub fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.metric.0.iter().find(|(label, _)| label.0 == name).map(|(_, value)| &*value.0)
    }

    /// Empty if there is none.
    pub fn label(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Times in seconds, and values; those of a vector are one.
    pub fn samples(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        // What is no number counts for nothing.
        let sample = |Sample(time, text): &Sample<'_>| (*time, text.0.parse().unwrap_or(f64::NAN));
        self.values.iter().chain(&self.value).map(sample)
    }

    pub fn value(&self) -> Option<f64> {
        self.samples().next().map(|(_, value)| value)
    }
}

#[derive(Debug, Deserialize)]
struct Sample<'a>(f64, #[serde(borrow)] Text<'a>);

/// A string, borrowed unless it holds escapes.
#[derive(Debug)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}

/// No row has many: looking through them is quicker than a map.
#[derive(Debug)]
struct Labels<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyLabels;
        impl<'de> Visitor<'de> for AnyLabels {
            type Value = Labels<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut labels = Vec::with_capacity(8);
                while let Some(label) = map.next_entry()? {
                    labels.push(label);
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_map(AnyLabels)
    }
}

/// What is around the rows, with the warnings that the client library drops.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    pub status: String,
    pub data: Option<Around>,
    pub error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Around {
    #[serde(rename = "resultType")]
    pub kind: String,
}

impl Envelope {
    pub fn warnings(self) -> Vec<String> {
        let partial = self.is_partial.then(|| "the answer is marked as partial".to_owned());
        self.warnings.into_iter().chain(partial).collect()
    }
}

/// Takes rows out of an answer, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The first of all bytes, but blanks, for whoever is told that they make no sense.
    start: Vec<u8>,
    /// The brackets that are open.
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    in_row: bool,
    /// The beginning of a row whose end is in a later piece.
    begun: Vec<u8>,
    envelope: Vec<u8>,
}

impl Scanner {
    /// Takes in a piece, and hands over the rows that end in it.
    pub fn feed(&mut self, piece: &[u8], mut take: impl FnMut(&Row<'_>)) -> Result<(), serde_json::Error> {
        self.keep_start(piece);
        let mut from = 0;
        for (at, byte) in piece.iter().copied().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    if byte == b'{' && !self.in_row && self.open == AROUND_ROWS {
                        self.envelope.extend_from_slice(&piece[from..at]);
                        (from, self.in_row) = (at, true);
                    }
                    if self.open.len() == DEEPEST {
                        return Err(serde_json::Error::custom("it is nested too deeply"));
                    }
                    self.open.push(byte);
                }
                b'}' | b']' => {
                    self.open.pop();
                    if self.in_row && self.open == AROUND_ROWS {
                        let end = &piece[from..=at];
                        if self.begun.is_empty() {
                            take(&Row::parse(end)?);
                        } else {
                            self.begun.extend_from_slice(end);
                            take(&Row::parse(&self.begun)?);
                            self.begun.clear();
                        }
                        (from, self.in_row) = (at + 1, false);
                    }
                }
                b',' if !self.in_row && self.open == AROUND_ROWS => {
                    self.envelope.extend_from_slice(&piece[from..at]);
                    from = at + 1;
                }
                b' ' | b'\n' | b'\r' | b'\t' if !self.in_row && (self.is_json() || self.is_blank(at - from)) => {
                    self.envelope.extend_from_slice(&piece[from..at]);
                    from = at + 1;
                }
                _ => {}
            }
        }
        let rest = &piece[from..];
        let to = if self.in_row { &mut self.begun } else { &mut self.envelope };
        to.extend_from_slice(rest);
        if self.envelope.len() > LARGEST_ENVELOPE {
            return Err(serde_json::Error::custom("it is not the API's"));
        }
        Ok(())
    }

    fn keep_start(&mut self, piece: &[u8]) {
        let said = if self.start.is_empty() { piece.trim_ascii_start() } else { piece };
        let room = SHOWN_BYTES - self.start.len();
        self.start.extend_from_slice(&said[..said.len().min(room)]);
    }

    const fn is_json(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether nothing has come yet that says anything.
    const fn is_blank(&self, unread: usize) -> bool {
        self.envelope.is_empty() && unread == 0
    }

    /// What was around the rows, once all is there.
    pub fn envelope(&self) -> serde_json::Result<Envelope> {
        serde_json::from_slice(&self.envelope)
    }

    /// The beginning of what is no answer of the API.
    pub fn beginning(&self, chars: usize) -> String {
        let start: String = String::from_utf8_lossy(&self.start).chars().take(chars).collect();
        start.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[
        {"metric":{"le":"+Inf","name":"a \"}]{[ quote"},"values":[[1795716210,"3"],[1795716225.5,"4.5"]]},
        {"metric":{},"value":[1795716210,"NaN"]}, {"metric":{"zone":"b\u00e9"},"values":[]}
        ]},"warnings":["a store {is} [away]"],"isPartial":true}"#;

    /// What is read of an answer that comes in pieces of a size: labels and samples; and its warnings.
    fn read(answer: &[u8], size: usize) -> Result<(Vec<String>, Vec<String>), serde_json::Error> {
        let (mut scanner, mut rows) = (Scanner::default(), Vec::new());
        for piece in answer.chunks(size) {
            scanner.feed(piece, |row| {
                let samples: Vec<_> = row.samples().collect();
                rows.push(format!("{}{}{} {samples:?}", row.label("le"), row.label("name"), row.label("zone")));
            })?;
        }
        let envelope = scanner.envelope()?;
        let kind = envelope.data.as_ref().map(|data| data.kind.as_str());
        if (envelope.status.as_str(), kind) != ("success", Some("matrix")) {
            return Err(serde_json::Error::custom("another kind of answer"));
        }
        Ok((rows, envelope.warnings()))
    }

    #[test]
    fn an_answer_reads_the_same_in_pieces_of_any_size() {
        let whole = read(ANSWER.as_bytes(), ANSWER.len()).unwrap();
        let rows = ["+Infa \"}]{[ quote [(1795716210.0, 3.0), (1795716225.5, 4.5)]", " [(1795716210.0, NaN)]", "bé []"];
        assert_eq!(whole.0, rows);
        assert_eq!(whole.1, ["a store {is} [away]", "the answer is marked as partial"]);
        for size in 1..ANSWER.len() {
            assert_eq!(read(ANSWER.as_bytes(), size).unwrap(), whole, "in pieces of {size} bytes");
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error_wherever_it_is_cut() {
        for end in 0..ANSWER.len() {
            assert!(read(&ANSWER.as_bytes()[..end], 7).is_err(), "after {end} bytes");
        }
    }

    #[test]
    fn garbage_is_an_error_and_nothing_else() {
        let mut answer = ANSWER.as_bytes().to_vec();
        for at in 0..answer.len() {
            for byte in [b'"', b'{', b'}', b'[', b']', b'\\', b',', 0, 0xff] {
                let before = std::mem::replace(&mut answer[at], byte);
                let _either = read(&answer, 5);
                answer[at] = before;
            }
        }
        let deep = vec![b'['; 100_000];
        for garbage in [&b"<html>not here</html>"[..], b"}}}}", b"{\"status\":", &deep, &[0xff; 64]] {
            assert!(read(garbage, 16).is_err());
        }
        let mut blank = Scanner::default();
        (0..100).for_each(|_| blank.feed(&vec![b' '; LARGEST_ENVELOPE], |_| ()).unwrap());
        blank.feed(b"out of  memory", |_| ()).unwrap();
        assert_eq!(blank.beginning(20), "out of memory", "blanks don't fill memory, and words stay words");
        let rows = br#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":5}]}}"#;
        assert!(read(rows, 16).is_err(), "a row that is none");
        let mut whole = Scanner::default();
        assert!(whole.feed(rows, |_| ()).is_err());
        assert_eq!(whole.beginning(18), r#"{"status":"success"#, "it is shown though it came at once");
    }
}
