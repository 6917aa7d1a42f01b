//! Text from elsewhere, made so that it changes nothing but what it says: labels are what anybody may set.

use std::borrow::Cow;

const MARK: &str = "\u{fffd}";
/// As long as a host's name may be.
const LONGEST_NAME: usize = 253;

/// What moves a cursor or commands a terminal, or turns the direction of writing.
const fn is_harmful(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}') && !matches!(c, '\n' | '\t'))
}

/// What is harmful is shown as a mark; lines stay.
pub fn inert(text: &str) -> Cow<'_, str> {
    if text.contains(is_harmful) { text.replace(is_harmful, MARK).into() } else { text.into() }
}

/// The same on one line, and no longer than a name may be.
pub fn inert_name(text: &str) -> Cow<'_, str> {
    let ends_line = |c: char| is_harmful(c) || matches!(c, '\n' | '\t');
    match text.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", text[..end].replace(ends_line, MARK)).into(),
        None if text.contains(ends_line) => text.replace(ends_line, MARK).into(),
        None => text.into(),
    }
}

/// JSON that means the same: what is harmful can only be within its strings, and is escaped there.
pub fn inert_json(json: String) -> String {
    if !json.contains(is_harmful) {
        return json;
    }
    let escaped = |c: char| if is_harmful(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\r\nb\u{202e}c\u{9b}31m";

    #[test]
    fn what_commands_a_terminal_is_a_mark_and_the_rest_stays() {
        assert_eq!(inert(HOSTILE), "a�[2J�]0;owned��\nb�c�31m");
        assert_eq!(inert_name(HOSTILE), "a�[2J�]0;owned���b�c�31m");
        assert!(matches!(inert("two\nlines\t<b>"), Cow::Borrowed("two\nlines\t<b>")));
        let long = inert_name(&"ü".repeat(10_000)).into_owned();
        assert_eq!(long, format!("{}…", "ü".repeat(253)));
    }

    #[test]
    fn json_says_the_same_without_it() {
        let json = serde_json::to_string(HOSTILE).unwrap();
        let inert = inert_json(json.clone());
        assert!(!inert.contains(is_harmful) && !inert.contains('\n'), "{inert}");
        assert_eq!(serde_json::from_str::<String>(&inert).unwrap(), HOSTILE);
        assert_ne!(inert, json);
    }
}
