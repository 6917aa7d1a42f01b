//! An API server of Kubernetes that holds what the input says: lists by their plural name, such as `{"nodes": [...]}`. The daemon's
//! own client reads it, as it would read any.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};

#[derive(Clone)]
pub struct ApiServer(Arc<Mutex<Value>>);

impl ApiServer {
    pub fn new(objects: Value) -> Self {
        Self(Arc::new(Mutex::new(objects)))
    }

    /// Within a runtime.
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let (status, answer) = server.answer(&head.method, &head.uri, &body);
                let response = Response::builder().status(status).header("content-type", "application/json");
                Ok::<_, Infallible>(response.body(Body::from(answer.to_string().into_bytes())).expect("an answer"))
            }
        });
        Client::new(service, "zoneward")
    }

    fn lock(&self) -> MutexGuard<'_, Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, method: &Method, uri: &Uri, body: &[u8]) -> (u16, Value) {
        let mut held = self.lock();
        let parts: Vec<&str> = uri.path().split('/').collect();
        let Some(at) = parts.iter().rposition(|part| held.get(*part).is_some_and(Value::is_array)) else {
            return missing();
        };
        // The namespace of what is not there at all.
        if parts.len() > at + 3 || (parts[at] == "namespaces" && parts.len() > at + 2) {
            return missing();
        }
        let Some(objects) = held[parts[at]].as_array_mut() else { return missing() };
        let Some(name) = parts.get(at + 1) else {
            if method == Method::POST {
                let object: Value = serde_json::from_slice(body).unwrap_or_default();
                objects.push(object.clone());
                return (201, object);
            }
            return (200, json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects}));
        };
        let named = |object: &Value| object["metadata"]["name"].as_str() == Some(name);
        let Some(place) = objects.iter().position(named) else { return missing() };
        if method == Method::DELETE {
            return (200, objects.remove(place));
        }
        if method == Method::PATCH {
            let patch: Value = serde_json::from_slice(body).unwrap_or_default();
            match manager(uri) {
                Some(manager) => apply(&mut objects[place], &patch, manager),
                None => merge(&mut objects[place], &patch),
            }
        }
        (200, objects[place].clone())
    }
}

fn missing() -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "it is not there",
        "reason": "NotFound", "code": 404});
    (404, status)
}

/// Who applies, if that is how it is written.
fn manager(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("fieldManager="))
}

/// A server-side apply of a status: what its manager leaves out goes, and what is the other's stays.
fn apply(object: &mut Value, patch: &Value, manager: &str) {
    let (Some(before), Some(applied)) = (object["status"].as_object().cloned(), patch["status"].as_object()) else {
        return merge(object, patch);
    };
    let of_course = |key: &str| ["effect", "recovery"].contains(&key);
    let ours = |key: &str| of_course(key) == manager.ends_with("detector");
    let conditions = before.get("conditions").cloned().unwrap_or_default();
    let mut status: Map<String, Value> = before.into_iter().filter(|(key, _)| !ours(key)).collect();
    status.extend(applied.clone().into_iter().filter(|(key, _)| ours(key)));
    let mut all = applied.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    for other in conditions.as_array().into_iter().flatten() {
        if all.iter().all(|known| known["type"] != other["type"]) {
            all.push(other.clone());
        }
    }
    status.insert("conditions".to_owned(), all.into());
    object["status"] = status.into();
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else { return *object = patch.clone() };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            object.as_object_mut().map(|object| object.remove(key));
        } else {
            merge(&mut object[key.as_str()], change);
        }
    }
}
