//! The JSON Schema of the configuration: shapes and defaults from the types, words from `config/default.yaml`.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Settings;

const DOCUMENTED: &str = include_str!("../../config/default.yaml");

/// In draft 7, which editors understand best.
pub fn schema() -> Value {
    let inline = |settings: &mut SchemaSettings| settings.inline_subschemas = true;
    let generator = SchemaSettings::draft07().with(inline).into_generator();
    let mut schema = generator.into_root_schema_for::<Settings>().to_value();
    for (path, text) in comments(DOCUMENTED) {
        describe(&mut schema, &path, &text);
        if let [section, key @ ..] = path.as_slice()
            && section == "service"
        {
            describe(&mut schema, &[&["services".to_owned()], key].concat(), &text);
        }
    }
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), "The configuration of zoneward".into());
        root.remove("description");
    }
    schema
}

/// What stands beside each key, by the keys that lead to it. Sections that are commented out count as well.
fn comments(text: &str) -> BTreeMap<Vec<String>, String> {
    let mut found: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    // What the next line, of nothing but a comment, goes on with.
    let mut open: Option<Vec<String>> = None;
    for line in text.lines() {
        let line = line.strip_prefix('#').filter(|rest| rest.starts_with("  ")).unwrap_or(line);
        let (content, comment) = match line.split_once(" #") {
            Some((content, comment)) => (content, Some(comment.trim())),
            None => (line, None),
        };
        if content.trim().is_empty() {
            if let (Some(path), Some(more)) = (&open, comment) {
                found.entry(path.clone()).and_modify(|text| *text = format!("{text} {more}"));
            } else {
                open = None;
            }
            continue;
        }
        let item = content.trim_start();
        let key = item.strip_prefix("- ").unwrap_or(item);
        let indent = content.len() - key.len();
        let name = key.split(':').next().unwrap_or_default();
        let is_key = key.contains(':') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        open = None;
        if !is_key {
            continue;
        }
        while above.last().is_some_and(|(of, _)| *of >= indent) {
            above.pop();
        }
        above.push((indent, name.to_owned()));
        if let Some(comment) = comment {
            let path: Vec<String> = above.iter().map(|(_, name)| name.clone()).collect();
            if !found.contains_key(&path) {
                found.insert(path.clone(), comment.to_owned());
                open = Some(path);
            }
        }
    }
    found
}

/// Wherever a value may take that path: in a list, or as an alternative to nothing.
fn describe(schema: &mut Value, path: &[String], text: &str) {
    let Some((first, rest)) = path.split_first() else {
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), text.into());
        }
        return;
    };
    if let Some(property) = schema.get_mut("properties").and_then(|all| all.get_mut(first)) {
        describe(property, rest, text);
    }
    if let Some(items) = schema.get_mut("items") {
        describe(items, path, text);
    }
    if let Some(Value::Array(alternatives)) = schema.get_mut("anyOf") {
        alternatives.iter_mut().for_each(|alternative| describe(alternative, path, text));
    }
}
