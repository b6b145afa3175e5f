//! Field masks: checking them, and reading and writing by path
//! (`TheThingsNetwork/lorawan-stack pkg/rpcmiddleware/validator/validator.go`).

use serde_json::{Map, Value};

use super::error::{ApiError, Code};
use super::field_paths::allowed;
use super::registry::Server;

/// What a mask is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(root) => path == root || is_below(path, root),
        None => pattern == path,
    }
}

/// Whether a path lies below another.
fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'))
}

/// Refuses a mask with a path that the server does not take.
pub(super) fn check(server: Server, access: Access, paths: &[String]) -> Result<(), ApiError> {
    let lists = allowed(server, access);
    let takes = |path: &String| lists.iter().any(|list| list.iter().any(|pattern| matches(pattern, path)));
    let forbidden: Vec<String> = paths.iter().filter(|path| !takes(path)).cloned().collect();
    if forbidden.is_empty() {
        return Ok(());
    }
    let error = ApiError::new(
        Code::InvalidArgument,
        "pkg/rpcmiddleware/validator",
        "field_mask_paths",
        "forbidden path(s) in field mask",
    );
    Err(error.with("forbidden_paths", forbidden))
}

/// The top-level fields of a device that a server keeps when it is made without a mask.
pub(super) fn kept(server: Server, device: &Value) -> Value {
    let keeps = |key: &str| {
        let [write, _] = allowed(server, Access::Write);
        key == "ids" || write.iter().any(|pattern| pattern.split('.').next() == Some(key))
    };
    let fields = device.as_object().into_iter().flatten();
    Value::Object(fields.filter(|(key, _)| keeps(key)).map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Whether the mask takes in this path: itself, something above it or something below it.
pub(super) fn touches(paths: &[String], field: &str) -> bool {
    paths.iter().any(|path| path == field || is_below(path, field) || is_below(field, path))
}

/// The value at a path.
pub(super) fn get<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

/// Puts a value at a path; `None` removes what is there.
pub(super) fn set(target: &mut Value, path: &str, new: Option<Value>) {
    let (parents, leaf) = path.rsplit_once('.').map_or((None, path), |(parents, leaf)| (Some(parents), leaf));
    let mut object = object_of(target);
    for key in parents.into_iter().flat_map(|parents| parents.split('.')) {
        if new.is_none() && !object.contains_key(key) {
            return;
        }
        object = object_of(object.entry(key).or_insert_with(|| Value::Object(Map::new())));
    }
    match new {
        Some(new) => drop(object.insert(leaf.to_owned(), new)),
        None => drop(object.remove(leaf)),
    }
}

/// The value as an object; anything else becomes an empty one.
fn object_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("a value that is no object was just replaced by one")
}

/// Carries the masked paths over from one document to another.
pub(super) fn copy(from: &Value, to: &mut Value, paths: &[String]) {
    for path in paths {
        set(to, path, get(from, path).cloned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(list: &[&str]) -> Vec<String> {
        list.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn each_server_takes_its_own_paths_only() {
        for (server, access, path, taken) in [
            (Server::Identity, Access::Write, "name", true),
            (Server::Identity, Access::Write, "version_ids.band_id", true),
            (Server::Identity, Access::Write, "ids.dev_eui", false),
            (Server::Identity, Access::Read, "ids.dev_eui", true),
            (Server::Identity, Access::Read, "root_keys.app_key.key", false),
            (Server::Join, Access::Write, "root_keys.app_key.key", true),
            (Server::Join, Access::Write, "frequency_plan_id", false),
            (Server::Network, Access::Write, "mac_settings.rx1_delay", true),
            (Server::Network, Access::Write, "formatters.up_formatter", false),
            (Server::Application, Access::Write, "session", false),
            (Server::Application, Access::Read, "session", true),
        ] {
            assert_eq!(check(server, access, &paths(&[path])).is_ok(), taken, "{server:?} {access:?} {path}");
        }
    }

    #[test]
    fn copying_by_mask_leaves_everything_else_alone() {
        let mut stored = json!({"a": {"b": 1, "c": 2}, "d": 3});
        copy(&json!({"a": {"b": 9}, "e": 5}), &mut stored, &paths(&["a.b", "a.c", "x.y"]));
        assert_eq!(stored, json!({"a": {"b": 9}, "d": 3}));
        copy(&json!({"x": {"y": {"z": true}}}), &mut stored, &paths(&["x.y.z"]));
        assert_eq!(stored["x"]["y"]["z"], json!(true));
    }
}
