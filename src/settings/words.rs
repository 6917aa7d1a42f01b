//! What a parser says of a value, in the words of who wrote it. Pure.
//!
//! Where a section or a list belongs, a text may be a secret that somebody tried to give at once: it is not repeated.

/// Such as `invalid type: string "three", expected u32`.
pub(super) fn in_words(said: &str) -> String {
    let said = said.split(" at line ").next().unwrap_or(said);
    if said.starts_with("data did not match any variant") {
        return "must be as config/default.yaml shows it".to_owned();
    }
    let parsed = ["invalid type: ", "invalid value: "].iter().find_map(|kind| said.strip_prefix(kind));
    let Some((found, expected)) = parsed.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return said.to_owned();
    };
    let (wanted, is_plain) = wanted(expected);
    match found_as(found, is_plain) {
        Some(found) => format!("{found} is not {wanted}"),
        None => format!("must be {wanted}"),
    }
}

/// What should stand there, and whether that is a plain value.
fn wanted(expected: &str) -> (String, bool) {
    let known = match expected {
        "u8" => "a whole number from 0 to 255, such as 3",
        "u16" => "a whole number from 0 to 65535, such as 3",
        "u32" | "u64" | "usize" => "a whole number, 0 or more, such as 3",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number, such as 3",
        "f32" | "f64" => "a number, such as 2.5",
        "a boolean" => "true or false",
        "a string" | "string" | "path string" => return ("a text".to_owned(), false),
        "a map" | "map" => return ("a section: keys, and their values".to_owned(), false),
        "a sequence" | "sequence" => return ("a list, such as [a, b]".to_owned(), false),
        "string or map" | "enum" => return ("one of the words that config/default.yaml names".to_owned(), false),
        other if other.starts_with("struct ") || other.starts_with("internally tagged") => {
            return ("a section: keys, and their values, as config/default.yaml shows them".to_owned(), false);
        }
        other => return (other.to_owned(), false),
    };
    (known.to_owned(), true)
}

/// As it was written; nothing of what may be a secret.
fn found_as(found: &str, is_plain: bool) -> Option<String> {
    if let Some(text) = found.strip_prefix("string ") {
        return is_plain.then(|| format!("`{}`", text.trim_matches('"')));
    }
    let number = ["integer ", "floating point ", "boolean "].iter().find_map(|kind| found.strip_prefix(kind));
    number.map(str::to_owned).or_else(|| match found {
        "null" | "unit value" => Some("null".to_owned()),
        "map" => Some("a section".to_owned()),
        "sequence" => Some("a list".to_owned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parser_says_is_told_as_what_to_write() {
        for (said, told) in [
            ("invalid type: string \"three\", expected u32", "`three` is not a whole number, 0 or more, such as 3"),
            ("invalid value: integer `-1`, expected u32", "`-1` is not a whole number, 0 or more, such as 3"),
            ("invalid value: integer `300`, expected u8", "`300` is not a whole number from 0 to 255, such as 3"),
            ("invalid type: floating point `2.5`, expected u32", "`2.5` is not a whole number, 0 or more, such as 3"),
            ("invalid type: string \"yes\", expected a boolean", "`yes` is not true or false"),
            ("invalid type: null, expected f64", "null is not a number, such as 2.5"),
            ("invalid type: string \"a, expected b\", expected a sequence", "must be a list, such as [a, b]"),
            (
                "invalid type: string \"me:planted\", expected struct BasicAuth",
                "must be a section: keys, and their values, as config/default.yaml shows them",
            ),
            ("invalid type: sequence, expected path string", "a list is not a text"),
            ("unknown field `x`, expected `y` or `z`", "unknown field `x`, expected `y` or `z`"),
            ("`6s6` is not a time: write one such as 15s", "`6s6` is not a time: write one such as 15s"),
        ] {
            assert_eq!(in_words(said), told);
        }
    }
}
