//! The `ConfigMap` that zoneward alone writes, and that istiod reads beside the mesh's own.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::weights::Mark;
use crate::kubernetes::{bounded, marks, status_code, step_error};
use crate::ports::StepError;

/// The key that istiod reads.
const KEY: &str = "mesh";

pub(super) struct Map {
    api: Api<ConfigMap>,
    namespace: String,
    name: String,
}

/// What is in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub mark: Mark,
    pub document: Value,
    /// Of the object as it was read; none if there is none yet.
    version: Option<String>,
}

/// Whether a write went through, or somebody else's came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    Overtaken,
}

impl Map {
    pub(super) fn new(client: &Client, namespace: &str, name: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The API server's own. One that is not ours, or holds what we never write, is an error.
    pub(super) async fn read(&self) -> Result<Content, StepError> {
        let found = bounded(self.api.get_opt(&self.name)).await;
        let found = found.map_err(|error| step_error(&format!("the ConfigMap {self} can't be read"), &error))?;
        let Some(map) = found else {
            return Ok(Content { mark: Mark::default(), document: json!({}), version: None });
        };
        let why = |why: String| StepError::Permanent { why: format!("the ConfigMap {self} {why}") };
        let (mark, document) = content(&map, &self.hint()).map_err(why)?;
        Ok(Content { mark, document, version: map.resource_version() })
    }

    /// One write, refused if the object has changed since it was read. `rehearsal` has the API server try it, and keep nothing.
    pub(super) async fn write(&self, before: &Content, mark: &Mark, rehearsal: bool) -> Result<Written, StepError> {
        let why = |why: String| StepError::Permanent { why };
        let document = serde_json::to_string_pretty(&mark.document().map_err(why)?);
        let document = document.map_err(|error| why(error.to_string()))?;
        let note = serde_json::to_string(mark).map_err(|error| why(error.to_string()))?;
        let annotations = json!({marks::ZONES_ANNOTATION: (!mark.out.is_empty()).then_some(note)});
        let written = if let Some(version) = &before.version {
            let patch = json!({
                "metadata": {"resourceVersion": version, "annotations": annotations}, "data": {KEY: document}
            });
            let params = PatchParams { dry_run: rehearsal, ..PatchParams::default() };
            bounded(self.api.patch(&self.name, &params, &Patch::Merge(patch))).await
        } else {
            let mut map = ConfigMap { data: Some([(KEY.to_owned(), document)].into()), ..ConfigMap::default() };
            map.metadata.name = Some(self.name.clone());
            let (label, value) = marks::MANAGED_BY;
            map.labels_mut().insert(label.to_owned(), value.to_owned());
            if let Some(note) = annotations[marks::ZONES_ANNOTATION].as_str() {
                map.annotations_mut().insert(marks::ZONES_ANNOTATION.to_owned(), note.to_owned());
            }
            bounded(self.api.create(&PostParams { dry_run: rehearsal, ..PostParams::default() }, &map)).await
        };
        match written {
            Ok(_) => Ok(Written::Done),
            // It was changed, made or deleted since it was read; but a namespace that is not there stays so.
            Err(error) if status_code(&error) == Some(409) => Ok(Written::Overtaken),
            Err(error) if status_code(&error) == Some(404) && before.version.is_some() => Ok(Written::Overtaken),
            Err(error) => Err(step_error(&format!("the ConfigMap {self} can't be written"), &error)),
        }
    }

    fn hint(&self) -> String {
        let (label, value) = marks::MANAGED_BY;
        format!("kubectl -n {} label configmap {} --overwrite {label}={value}", self.namespace, self.name)
    }
}

impl std::fmt::Display for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a map of ours says, or why it is none.
fn content(map: &ConfigMap, hint: &str) -> Result<(Mark, Value), String> {
    let (label, value) = marks::MANAGED_BY;
    if map.labels().get(label).map(String::as_str) != Some(value) {
        return Err(format!(
            "is not zoneward's: name another one (steps.mesh_distribute.config_map), or give it away once it is empty: {hint}"
        ));
    }
    let mut keys =
        map.data.iter().flat_map(|data| data.keys()).chain(map.binary_data.iter().flat_map(|data| data.keys()));
    if let Some(other) = keys.find(|key| *key != KEY) {
        return Err(format!("also holds `{other}`, which zoneward never writes: take it out"));
    }
    let text = map.data.as_ref().and_then(|data| data.get(KEY)).map_or("", String::as_str);
    let document = if text.trim().is_empty() { json!({}) } else { parse(text)? };
    if let Some(other) = foreign(&document) {
        return Err(format!("also sets {other}, which zoneward never does: move that into the mesh's own ConfigMap"));
    }
    let note = map.annotations().get(marks::ZONES_ANNOTATION);
    let mark = note.map_or_else(|| Ok(Mark::default()), |note| serde_json::from_str(note));
    let mark = mark.map_err(|error| {
        format!(
            "has an annotation {} that can't be read ({error}): remove it, and all it isolates comes back",
            marks::ZONES_ANNOTATION
        )
    })?;
    Ok((mark, document))
}

pub(super) fn parse(text: &str) -> Result<Value, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| format!("holds no YAML: {error}"))?;
    Ok(if value.is_null() { json!({}) } else { value })
}

/// A setting that we never make.
fn foreign(document: &Value) -> Option<String> {
    let Some(settings) = document.as_object() else { return Some(format!("`{document}`")) };
    if let Some(other) = settings.keys().find(|key| *key != "localityLbSetting") {
        return Some(format!("`{other}`"));
    }
    let locality = settings.get("localityLbSetting").and_then(Value::as_object);
    let other = locality.into_iter().flat_map(|it| it.keys()).find(|key| *key != "distribute");
    other.map(|key| format!("`localityLbSetting.{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(map: &Value) -> Result<(Mark, Value), String> {
        content(&serde_json::from_value(map.clone()).unwrap(), "HINT")
    }

    fn ours(data: &Value) -> Result<(Mark, Value), String> {
        read(&json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "zoneward"}}, "data": data}))
    }

    #[test]
    fn ours_is_what_says_so_and_holds_nothing_else() {
        for data in
            [json!(null), json!({}), json!({"mesh": ""}), json!({"mesh": "{}"}), json!({"mesh": "# none yet\n"})]
        {
            assert_eq!(ours(&data).unwrap(), (Mark::default(), json!({})), "{data}");
        }
        let (_, document) = ours(&json!({"mesh": "localityLbSetting:\n  distribute: []\n"})).unwrap();
        assert_eq!(document, json!({"localityLbSetting": {"distribute": []}}));
    }

    #[test]
    fn others_are_refused_with_what_to_do() {
        let helm = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}});
        for map in [json!({"metadata": {}}), helm] {
            assert!(read(&map).unwrap_err().contains("is not zoneward's") && read(&map).unwrap_err().contains("HINT"));
        }
        for (data, what) in [
            (json!({"meshNetworks": "{}"}), "`meshNetworks`"),
            (json!({"mesh": "accessLogFile: /dev/stdout"}), "`accessLogFile`"),
            (json!({"mesh": "localityLbSetting: {enabled: false}"}), "`localityLbSetting.enabled`"),
            (json!({"mesh": "text"}), "text"),
            (json!({"mesh": "a: [b"}), "holds no YAML"),
        ] {
            assert!(ours(&data).unwrap_err().contains(what), "{data}: {}", ours(&data).unwrap_err());
        }
        let unreadable = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "zoneward"},
            "annotations": {"zoneward.io/isolated-zones": "zone-b"}}});
        assert!(read(&unreadable).unwrap_err().contains("can't be read"));
    }
}
