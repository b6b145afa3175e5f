//! What each server demands of an end device before it stores it.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Code};
use super::field_mask::{get, set, touches};
use super::registry::Server;
use super::{ids, versions};

/// Longest name of a device (`api/ttn/lorawan/v3/end_device.proto`).
const MAX_NAME_CHARS: usize = 50;
/// Most attributes of a device (same).
const MAX_ATTRIBUTES: usize = 10;
/// Longest value of an attribute (same).
const MAX_ATTRIBUTE_CHARS: usize = 200;
/// Longest inline formatter, in bytes (`pkg/applicationserver/grpc_deviceregistry.go`, default of the configuration).
const MAX_FORMATTER_BYTES: usize = 40_960;

const FORMATTERS: &[&str] = &[
    "FORMATTER_NONE",
    "FORMATTER_REPOSITORY",
    "FORMATTER_GRPC_SERVICE",
    "FORMATTER_JAVASCRIPT",
    "FORMATTER_CAYENNELPP",
];

fn field_value(namespace: &'static str, field: &str) -> ApiError {
    ApiError::new(Code::InvalidArgument, namespace, "field_value", "invalid value of field `{field}`")
        .with("field", field)
}

/// The identifiers of a device: from the body, with those of the path in place of what it says.
pub(super) fn identifiers(device: &Value, application: &str, id: &str) -> Result<Value, ApiError> {
    if !ids::is_stack_id(id) {
        let reason = "value does not match regex pattern \"^[a-z0-9](?:[-]?[a-z0-9]){2,}$\"";
        return Err(ApiError::validation("device_id", reason));
    }
    let mut identifiers = json!({"device_id": id, "application_ids": {"application_id": application}});
    for (name, digits) in [("dev_eui", 16), ("join_eui", 16), ("dev_addr", 8)] {
        match &device["ids"][name] {
            Value::Null => {}
            Value::String(text) if ids::is_hex(text, digits) => identifiers[name] = json!(text.to_ascii_uppercase()),
            _ => return Err(ApiError::unreadable()),
        }
    }
    Ok(identifiers)
}

/// The values that every server checks alike, in their canonical form.
pub(super) fn canonical(mut device: Value) -> Result<Value, ApiError> {
    if !device.is_object() {
        return Err(ApiError::unreadable());
    }
    for path in [
        "root_keys.app_key.key",
        "root_keys.nwk_key.key",
        "session.keys.app_s_key.key",
        "session.keys.f_nwk_s_int_key.key",
        "session.keys.s_nwk_s_int_key.key",
        "session.keys.nwk_s_enc_key.key",
    ] {
        upper_hex(&mut device, path, 32)?;
    }
    upper_hex(&mut device, "session.dev_addr", 8)?;
    // The Join Server takes an all-zero NwkKey for none.
    let nwk_key = "root_keys.nwk_key.key";
    if get(&device, nwk_key).and_then(Value::as_str).is_some_and(ids::is_zero_hex) {
        set(&mut device, nwk_key, None);
    }
    rename(&mut device, "lorawan_version", versions::mac)?;
    rename(&mut device, "lorawan_phy_version", versions::phy)?;
    rename(&mut device, "formatters.up_formatter", formatter)?;
    rename(&mut device, "formatters.down_formatter", formatter)?;
    Ok(device)
}

fn formatter(text: &str) -> Option<&'static str> {
    FORMATTERS.iter().copied().find(|name| *name == text || name.strip_prefix("FORMATTER_") == Some(text))
}

fn upper_hex(device: &mut Value, path: &str, digits: usize) -> Result<(), ApiError> {
    let Some(value) = get(device, path).filter(|value| !value.is_null()) else { return Ok(()) };
    let text = value.as_str().filter(|text| ids::is_hex(text, digits)).ok_or_else(ApiError::unreadable)?;
    let upper = json!(text.to_ascii_uppercase());
    set(device, path, Some(upper));
    Ok(())
}

fn rename(device: &mut Value, path: &str, canonical: fn(&str) -> Option<&'static str>) -> Result<(), ApiError> {
    let Some(value) = get(device, path).filter(|value| !value.is_null()) else { return Ok(()) };
    let name = value.as_str().and_then(canonical).ok_or_else(ApiError::unreadable)?;
    set(device, path, Some(json!(name)));
    Ok(())
}

/// The rules of one server, for a device as it comes (`new`), as it will be stored (`merged`) and as it was (`old`).
pub(super) fn check(
    server: Server,
    new: &Value,
    merged: &Value,
    old: Option<&Value>,
    paths: &[String],
) -> Result<(), ApiError> {
    match server {
        Server::Identity => identity(merged),
        Server::Join => join(new, paths),
        Server::Network => network(merged, old, paths),
        Server::Application => application(new, paths),
    }
}

fn identity(device: &Value) -> Result<(), ApiError> {
    let too_long =
        |field: &str, limit: usize| ApiError::validation(field, &format!("value length must be at most {limit} runes"));
    if device["name"].as_str().is_some_and(|name| name.chars().count() > MAX_NAME_CHARS) {
        return Err(too_long("name", MAX_NAME_CHARS));
    }
    for field in ["join_server_address", "network_server_address", "application_server_address"] {
        if device[field].as_str().is_some_and(|address| address.contains(['/', ' ', '@'])) {
            return Err(ApiError::validation(field, "value does not match the pattern of a host name"));
        }
    }
    let empty = Map::new();
    let attributes = device["attributes"].as_object().unwrap_or(&empty);
    if attributes.len() > MAX_ATTRIBUTES {
        let reason = format!("value must contain no more than {MAX_ATTRIBUTES} pair(s)");
        return Err(ApiError::validation("attributes", &reason));
    }
    for (key, value) in attributes {
        if !ids::is_stack_id(key) {
            return Err(ApiError::validation("attributes", "a key does not match the pattern of an id"));
        }
        if value.as_str().is_none_or(|value| value.chars().count() > MAX_ATTRIBUTE_CHARS) {
            return Err(too_long("attributes", MAX_ATTRIBUTE_CHARS));
        }
    }
    let versions = &device["version_ids"];
    for field in ["brand_id", "model_id"] {
        if versions[field].as_str().is_some_and(|id| !id.is_empty() && !ids::is_stack_id(id)) {
            return Err(ApiError::validation(field, "value does not match the pattern of an id"));
        }
    }
    Ok(())
}

/// `pkg/joinserver/grpc_deviceregistry.go`: both EUIs, and no all-zero AppKey.
fn join(new: &Value, paths: &[String]) -> Result<(), ApiError> {
    let missing = |name, text| Err(ApiError::new(Code::InvalidArgument, "pkg/joinserver", name, text));
    if !new["ids"]["join_eui"].is_string() {
        return missing("no_join_eui", "no JoinEUI specified");
    }
    if new["ids"]["dev_eui"].as_str().is_none_or(ids::is_zero_hex) {
        return missing("no_dev_eui", "no DevEUI specified");
    }
    let app_key = "root_keys.app_key.key";
    let is_zero = get(new, app_key).and_then(Value::as_str).is_none_or(ids::is_zero_hex);
    if paths.iter().any(|path| path == app_key) && is_zero {
        return Err(field_value("pkg/joinserver", app_key));
    }
    Ok(())
}

/// `pkg/networkserver/grpc_deviceregistry.go`.
fn network(merged: &Value, old: Option<&Value>, paths: &[String]) -> Result<(), ApiError> {
    const NAMESPACE: &str = "pkg/networkserver";
    if paths.is_empty() {
        return Ok(());
    }
    for field in ["frequency_plan_id", "lorawan_phy_version", "lorawan_version"] {
        let is_set = merged[field].as_str().is_some_and(|value| !value.is_empty());
        if !is_set && (old.is_none() || touches(paths, field)) {
            return Err(field_value(NAMESPACE, field));
        }
    }
    let plan = merged["frequency_plan_id"].as_str().unwrap_or_default();
    let Some(band) = versions::band(plan) else {
        let text = "frequency plan `{id}` not found";
        return Err(ApiError::new(Code::NotFound, "pkg/frequencyplans", "not_found", text).with("id", plan));
    };
    if let Some(own_band) = merged["version_ids"]["band_id"].as_str().filter(|own_band| *own_band != band) {
        let text = "device band ID `{dev_band_id}` and frequency plan band ID `{fp_band_id}` do not match";
        let cause = ApiError::new(Code::InvalidArgument, NAMESPACE, "device_and_frequency_plan_band_mismatch", text)
            .with("dev_band_id", own_band)
            .with("fp_band_id", band);
        return Err(field_value(NAMESPACE, "version_ids.band_id").because(cause));
    }
    let joins = merged["supports_join"] == json!(true);
    for eui in ["dev_eui", "join_eui"] {
        if joins && !merged["ids"][eui].is_string() {
            return Err(field_value(NAMESPACE, &format!("ids.{eui}")));
        }
    }
    let fixed = ["supports_join", "multicast"];
    let is = |device: &Value, field: &str| device[field] == json!(true);
    // A device that was made by a call without a mask has no plan yet and is still open in all of its fields.
    let old = old.filter(|old| old["frequency_plan_id"].is_string());
    match fixed.iter().find(|field| old.is_some_and(|old| is(old, field) != is(merged, field))) {
        Some(field) => Err(field_value(NAMESPACE, field)),
        None => Ok(()),
    }
}

/// `pkg/applicationserver/grpc_deviceregistry.go`.
fn application(new: &Value, paths: &[String]) -> Result<(), ApiError> {
    const NAMESPACE: &str = "pkg/applicationserver";
    for path in ["session.dev_addr", "session.keys.app_s_key.key"] {
        let is_zero = get(new, path).and_then(Value::as_str).is_none_or(ids::is_zero_hex);
        if paths.iter().any(|masked| masked == path) && is_zero {
            return Err(field_value(NAMESPACE, path));
        }
    }
    for path in ["formatters.up_formatter_parameter", "formatters.down_formatter_parameter"] {
        let size = get(new, path).and_then(Value::as_str).map_or(0, str::len);
        if touches(paths, path) && size > MAX_FORMATTER_BYTES {
            let text = "formatter script size exceeds maximum allowed size";
            let cause = ApiError::new(Code::InvalidArgument, NAMESPACE, "formatter_script_too_large", text)
                .with("size", size)
                .with("max_size", MAX_FORMATTER_BYTES);
            return Err(field_value(NAMESPACE, path).because(cause));
        }
    }
    Ok(())
}
