//! Deserializes with every error at once: what can't be read is noted, taken out, and the rest is tried again.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::Problem;
use super::words::in_words;

/// Bounds the tries; nobody reads more.
const MOST_PROBLEMS: usize = 100;

pub(super) fn deserialize<T: DeserializeOwned + Default>(mut tree: Value) -> (T, Vec<Problem>, Removed) {
    let mut problems: Vec<Problem> = Vec::new();
    let mut removed = Removed::default();
    while problems.len() < MOST_PROBLEMS {
        match serde_path_to_error::deserialize(&tree) {
            Ok(value) => return (value, problems, removed),
            Err(error) => {
                let path = error.path().clone();
                let found =
                    Problem { path: removed.original(&path), problem: in_words(&error.into_inner().to_string()) };
                // A required field that was taken out, as it could not be read, is not missing too.
                let because_of_another =
                    problems.iter().any(|known| known.path.starts_with(&format!("{}.", found.path)));
                if !because_of_another {
                    problems.push(found);
                }
                if !removed.remove(&mut tree, &path) {
                    break;
                }
            }
        }
    }
    (T::default(), problems, removed)
}

/// The items that were taken out of arrays, so that paths are those of the file.
#[derive(Default)]
pub(super) struct Removed(BTreeMap<String, BTreeSet<usize>>);

impl Removed {
    fn original(&self, path: &Path) -> String {
        let mut text = String::new();
        for segment in path {
            match segment {
                Segment::Seq { index } => text += &format!("[{}]", self.original_index(&text, *index)),
                Segment::Map { key } if text.is_empty() => text.push_str(key),
                Segment::Map { key } => text += &format!(".{key}"),
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        text
    }

    /// The path in the file of what stands there in the rest of it.
    pub fn in_file(&self, path: &str) -> String {
        let mut parts = path.split('[');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (index, rest) = part.split_once(']').unwrap_or((part, ""));
            match index.parse() {
                Ok(index) => text += &format!("[{}]{rest}", self.original_index(&text, index)),
                Err(_) => text += &format!("[{part}"),
            }
        }
        text
    }

    fn original_index(&self, array: &str, index: usize) -> usize {
        let taken = self.0.get(array);
        (0..).filter(|i| taken.is_none_or(|taken| !taken.contains(i))).nth(index).unwrap_or(index)
    }

    fn remove(&mut self, tree: &mut Value, path: &Path) -> bool {
        let segments: Vec<&Segment> = path.iter().collect();
        let Some((last, parents)) = segments.split_last() else { return false };
        let mut node = tree;
        for segment in parents {
            let child = match segment {
                Segment::Map { key } => node.get_mut(key),
                Segment::Seq { index } => node.get_mut(*index),
                Segment::Enum { .. } | Segment::Unknown => None,
            };
            match child {
                Some(child) => node = child,
                None => return false,
            }
        }
        match (last, node) {
            (Segment::Map { key }, Value::Object(map)) => map.remove(key).is_some(),
            (Segment::Seq { index }, Value::Array(items)) if *index < items.len() => {
                let whole = self.original(path);
                let array = whole.rsplit_once('[').map_or(whole.as_str(), |(array, _)| array);
                let original = self.original_index(array, *index);
                self.0.entry(array.to_owned()).or_default().insert(original);
                items.remove(*index);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::{Settings, SettingsError};

    #[test]
    fn what_is_wrong_behind_an_entry_that_can_t_be_read_is_named_by_its_place_in_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let yaml = "services:\n- {match: mockb, min_failures: 3}\n- {match: a/*, min_requests: 5}\n\
                    - {match: b/*, longest: 10s, shortest: 2m}\n";
        std::fs::write(file.path(), yaml).unwrap();
        let Err(SettingsError::Invalid(problems)) = Settings::load(Some(file.path()), Default::default()) else {
            panic!("it is valid")
        };
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["services[0].match", "services[2].shortest"]);
    }
}
