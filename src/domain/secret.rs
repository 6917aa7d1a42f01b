//! What must never be shown. Servers quote what they were sent, and what they say is shown to people.

use std::fmt;

use serde_json::Value;

use super::address::percent_encoded;

const HIDDEN: &str = "<hidden>";
/// What is shown of an answer is cut off somewhere: the beginning of a secret, if so long, is one as well.
const SHORTEST_PART: usize = 8;
/// What is given as a plain value, and not by a file, may be a word that everything is full of.
const SHORTEST_VALUE: usize = 8;

/// Has no `Display`, and a `Debug` that shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Of what need not be one: a value that stands in the configuration itself.
    pub fn of_value(text: &str) -> Option<Self> {
        (text.len() >= SHORTEST_VALUE).then(|| Self::new(text))
    }

    /// What an address has after its path: the whole, and each value.
    pub fn of_query(address: &str) -> Vec<Self> {
        let Some((_, query)) = address.split_once('?') else { return Vec::new() };
        let values = query.split(['&', '#']).filter_map(|pair| pair.split_once('=').map(|(_, value)| value));
        values.chain([query]).filter_map(Self::of_value).collect()
    }

    /// For what it is to be sent or signed with.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The text without this in it, as it is and as an address or a form has it.
    pub fn hide_in(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        let encoded = percent_encoded(&self.0);
        let hidden = text.replace(&self.0, HIDDEN).replace(&encoded, HIDDEN);
        [&self.0, &encoded].into_iter().fold(hidden, |text, secret| without_beginning_at_end(&text, secret))
    }

    /// The text without any of them in it.
    pub fn hide_all<'a>(secrets: impl IntoIterator<Item = &'a Self>, text: &str) -> String {
        secrets.into_iter().fold(text.to_owned(), |text, secret| secret.hide_in(&text))
    }
}

/// JSON without any of them in its texts.
pub fn hide_in_json(secrets: &[Secret], json: Value) -> Value {
    match json {
        Value::String(text) => Secret::hide_all(secrets, &text).into(),
        Value::Array(items) => items.into_iter().map(|item| hide_in_json(secrets, item)).collect(),
        Value::Object(map) => {
            let hidden = map.into_iter().map(|(key, it)| (Secret::hide_all(secrets, &key), hide_in_json(secrets, it)));
            Value::Object(hidden.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => json,
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

fn without_beginning_at_end(text: &str, secret: &str) -> String {
    let ends = (SHORTEST_PART..secret.len()).rev().filter(|end| secret.is_char_boundary(*end));
    let cut = ends.map(|end| &secret[..end]).find_map(|part| text.strip_suffix(part));
    cut.map_or_else(|| text.to_owned(), |rest| format!("{rest}{HIDDEN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_in_no_text_whole_encoded_or_cut_off() {
        let secret = Secret::new("open sesame/now");
        for (text, hidden) in [
            ("you sent: open sesame/now.", "you sent: <hidden>."),
            ("you sent: token=open%20sesame%2Fnow", "you sent: token=<hidden>"),
            ("you sent: open sesa", "you sent: <hidden>"),
            ("it is open", "it is open"),
        ] {
            assert_eq!(secret.hide_in(text), hidden);
        }
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "<hidden> Some(<hidden>)");
        assert_eq!(Secret::new("").hide_in("nothing"), "nothing");
    }

    #[test]
    fn a_panic_that_quotes_what_holds_a_secret_shows_none() {
        let caught = std::panic::catch_unwind(|| panic!("{:?}", Err::<(), _>(Secret::new("open sesame"))));
        let said = caught.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(*said, "Err(<hidden>)");
    }

    #[test]
    fn what_an_address_has_after_its_path_is_secret_but_for_short_words() {
        let secrets = Secret::of_query("https://hooks.example.org/a?access_token=0123456789abcdef&v=1");
        let said =
            Secret::hide_all(&secrets, "no such hook: /a?access_token=0123456789abcdef&v=1, nor 0123456789abcdef");
        assert_eq!(said, "no such hook: /a?access_token=<hidden>&v=1, nor <hidden>");
        assert!(Secret::of_query("https://hooks.example.org/a").is_empty());
    }
}
