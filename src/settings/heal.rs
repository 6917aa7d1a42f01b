//! Deserializes with every error at once: what can't be read is noted, taken out, and the rest is tried again.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::Problem;

/// Bounds the tries; nobody reads more.
const MOST_PROBLEMS: usize = 100;

pub(super) fn deserialize<T: DeserializeOwned + Default>(mut tree: Value) -> (T, Vec<Problem>) {
    let mut problems = Vec::new();
    while problems.len() < MOST_PROBLEMS {
        match serde_path_to_error::deserialize(&tree) {
            Ok(value) => return (value, problems),
            Err(error) => {
                let path = error.path().clone();
                problems.push(Problem { path: path.to_string(), problem: error.into_inner().to_string() });
                if !remove(&mut tree, &path) {
                    break;
                }
            }
        }
    }
    (T::default(), problems)
}

fn remove(tree: &mut Value, path: &Path) -> bool {
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
            items.remove(*index);
            true
        }
        _ => false,
    }
}
