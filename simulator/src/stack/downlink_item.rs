//! One item of a downlink queue: the schema it must meet, and its encoding
//! (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/messages.proto`, `pkg/applicationserver/payload.go`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{ApiError, Code};

/// Largest payload that the API takes, in bytes (schema).
const MAX_PAYLOAD_BYTES: usize = 255;
/// Largest payload that is queued, in bytes: the largest of any data rate of EU868, less 8
/// (`pkg/networkserver/grpc_asns.go`).
const MAX_QUEUED_BYTES: usize = 242;
/// Longest correlation id (schema).
const MAX_CORRELATION_ID_CHARS: usize = 100;
/// Most attempts of a confirmed downlink in the schema.
const MAX_ATTEMPTS_SCHEMA: u64 = 100;
/// Most attempts that the server allows (`cmd/internal/shared/applicationserver/config.go`).
const MAX_ATTEMPTS: u64 = 32;

const PRIORITIES: [&str; 7] = ["LOWEST", "LOW", "BELOW_NORMAL", "NORMAL", "ABOVE_NORMAL", "HIGH", "HIGHEST"];

const AS: &str = "pkg/applicationserver";
const NS: &str = "pkg/networkserver";
const JS_FORMATTER: &str = "pkg/messageprocessors/javascript";

/// Whether the item has a value other than `null` there.
fn given<'v>(item: &'v Value, field: &str) -> Option<&'v Value> {
    item.get(field).filter(|value| !value.is_null())
}

/// The item as the server keeps it: known fields only, in canonical form, without zero values.
/// `keep_empty`: an empty payload counts as given, as on the endpoint for webhooks.
pub(super) fn clean(item: &Value, keep_empty: bool) -> Result<Value, ApiError> {
    let mut clean = Map::new();
    if !item.is_object() {
        return Err(ApiError::unreadable());
    }
    if let Some(port) = given(item, "f_port") {
        let port = port.as_u64().ok_or_else(ApiError::unreadable)?;
        if port > 255 || port == 224 {
            return Err(ApiError::validation("f_port", "value must be less than or equal to 255 and not 224"));
        }
        clean.extend((port != 0).then(|| ("f_port".to_owned(), json!(port))));
    }
    if let Some(payload) = given(item, "frm_payload") {
        let bytes = payload.as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or_else(ApiError::unreadable)?;
        if bytes.len() > MAX_PAYLOAD_BYTES {
            return Err(ApiError::validation("frm_payload", "value length must be at most 255 bytes"));
        }
        clean.extend((keep_empty || !bytes.is_empty()).then(|| ("frm_payload".to_owned(), payload.clone())));
    }
    if let Some(decoded) = given(item, "decoded_payload") {
        let is_object = decoded.is_object().then_some(decoded).ok_or_else(ApiError::unreadable)?;
        clean.insert("decoded_payload".to_owned(), is_object.clone());
    }
    if let Some(confirmed) = given(item, "confirmed") {
        let confirmed = confirmed.as_bool().ok_or_else(ApiError::unreadable)?;
        clean.extend(confirmed.then(|| ("confirmed".to_owned(), json!(true))));
    }
    if let Some(priority) = given(item, "priority") {
        let index = priority.as_u64().and_then(|index| usize::try_from(index).ok());
        let index = index.or_else(|| PRIORITIES.iter().position(|name| priority == *name));
        let name = index.and_then(|index| PRIORITIES.get(index)).ok_or_else(ApiError::unreadable)?;
        clean.extend((*name != PRIORITIES[0]).then(|| ("priority".to_owned(), json!(name))));
    }
    if let Some(class) = given(item, "class_b_c") {
        clean.insert("class_b_c".to_owned(), class_b_c(class)?);
    }
    clean.insert("correlation_ids".to_owned(), correlation_ids(item)?);
    clean.extend(confirmed_retry(item)?.map(|retry| ("confirmed_retry".to_owned(), retry)));
    Ok(Value::Object(clean))
}

fn correlation_ids(item: &Value) -> Result<Value, ApiError> {
    let Some(ids) = given(item, "correlation_ids") else { return Ok(json!([])) };
    let list = ids.as_array().ok_or_else(ApiError::unreadable)?;
    for id in list {
        let id = id.as_str().ok_or_else(ApiError::unreadable)?;
        if id.chars().count() > MAX_CORRELATION_ID_CHARS {
            return Err(ApiError::validation("correlation_ids", "value length must be at most 100 runes"));
        }
    }
    Ok(ids.clone())
}

fn confirmed_retry(item: &Value) -> Result<Option<Value>, ApiError> {
    let Some(retry) = given(item, "confirmed_retry") else { return Ok(None) };
    if let Some(attempts) = given(retry, "max_attempts") {
        let attempts = attempts.as_u64().ok_or_else(ApiError::unreadable)?;
        if attempts == 0 || attempts > MAX_ATTEMPTS_SCHEMA {
            return Err(ApiError::validation("max_attempts", "value must be inside range (0, 100]"));
        }
    }
    Ok(Some(retry.clone()))
}

fn class_b_c(class: &Value) -> Result<Value, ApiError> {
    let at = given(class, "absolute_time");
    let is_time = at.is_none_or(|at| at.as_str().is_some_and(|at| at.ends_with('Z') && parse_time(at).is_some()));
    if class.is_object() && is_time { Ok(class.clone()) } else { Err(ApiError::unreadable()) }
}

fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Which downlink formatter a device has; `None`: none at all.
fn down_formatter(device: &Value) -> Option<&str> {
    device["formatters"]["down_formatter"].as_str().filter(|formatter| *formatter != "FORMATTER_NONE")
}

/// Encodes the decoded payload, if the payload is not given, by the device's formatter.
///
/// The built-in codec is trivial: the bytes are the JSON text. A member `encoderError` makes it fail.
/// Without a formatter there is nothing to encode with, and an empty frame stays.
pub(super) fn encode(item: &mut Value, device: &Value) -> Result<(), ApiError> {
    if given(item, "frm_payload").is_some() {
        return Ok(());
    }
    let Some(decoded) = given(item, "decoded_payload").cloned() else {
        return Err(ApiError::new(Code::InvalidArgument, AS, "no_payload", "no payload"));
    };
    let Some(formatter) = down_formatter(device) else { return Ok(()) };
    if formatter == "FORMATTER_REPOSITORY" && !device["version_ids"].is_object() {
        let namespace = "pkg/messageprocessors/devicerepository";
        let text = "no version identifiers for device";
        return Err(ApiError::new(Code::InvalidArgument, namespace, "no_version_identifiers", text));
    }
    if let Some(error) = given(&decoded, "encoderError") {
        let error = error.as_str().unwrap_or("encoder error");
        return Err(ApiError::new(Code::Aborted, JS_FORMATTER, "output_errors", "{errors}").with("errors", error));
    }
    item["frm_payload"] = json!(STANDARD.encode(decoded.to_string()));
    if item.get("f_port").is_none() {
        item["f_port"] = json!(1);
    }
    Ok(())
}

/// Fills in the first attempt of a confirmed downlink, and checks the number of attempts.
pub(super) fn prepare_retry(item: &mut Value) -> Result<(), ApiError> {
    if item["confirmed"] != json!(true) {
        return Ok(());
    }
    if given(item, "confirmed_retry").is_none() {
        item["confirmed_retry"] = json!({"attempt": 1});
    }
    if item["confirmed_retry"]["max_attempts"].as_u64().is_some_and(|attempts| attempts > MAX_ATTEMPTS) {
        let text = "downlink maximum retries exceed configured maximum of {max}";
        let error = ApiError::new(Code::InvalidArgument, AS, "downlink_max_retries_invalid", text);
        return Err(error.with("max", MAX_ATTEMPTS));
    }
    Ok(())
}

/// An item that no encoder gave a port.
pub(super) fn check_port(item: &Value) -> Result<(), ApiError> {
    let no_port = || ApiError::new(Code::InvalidArgument, AS, "no_f_port", "no FPort");
    given(item, "f_port").map(|_| ()).ok_or_else(no_port)
}

/// What the Network Server finds when it queues.
pub(super) fn check_queueable(item: &Value, network: &Value) -> Result<(), ApiError> {
    let payload = item["frm_payload"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    if payload.len() > MAX_QUEUED_BYTES {
        let text = "application downlink payload length `{length}` exceeds maximum '{max}'";
        let error = ApiError::new(Code::InvalidArgument, NS, "application_downlink_too_long", text);
        return Err(error.with("length", payload.len()).with("max", MAX_QUEUED_BYTES));
    }
    let at = item["class_b_c"]["absolute_time"].as_str().and_then(parse_time);
    if at.is_some_and(|at| at <= OffsetDateTime::now_utc()) {
        return Err(ApiError::new(Code::FailedPrecondition, NS, "downlink_expired", "queued downlink is expired"));
    }
    if network["multicast"] == json!(true) {
        multicast(item)?;
    }
    Ok(())
}

fn multicast(item: &Value) -> Result<(), ApiError> {
    if item["confirmed"] == json!(true) {
        let text = "confirmed downlink queued for multicast device";
        return Err(ApiError::new(Code::InvalidArgument, NS, "confirmed_multicast_downlink", text));
    }
    if item["class_b_c"]["gateways"].as_array().is_none_or(Vec::is_empty) {
        return Err(ApiError::new(Code::NotFound, NS, "no_downlink_path", "no downlink path available"));
    }
    Ok(())
}

/// The item as later messages and the list show it: the decoded payload only if a formatter can decode.
pub(super) fn as_decoded(item: &Value, device: &Value) -> Value {
    let mut item = item.clone();
    let decodes = down_formatter(device).is_some();
    if let Some(fields) = item.as_object_mut().filter(|_| !decodes) {
        fields.remove("decoded_payload");
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_breaks_the_schema_is_refused() {
        for item in [
            json!([]),
            json!({"f_port": 224, "frm_payload": "AQ=="}),
            json!({"f_port": 256, "frm_payload": "AQ=="}),
            json!({"f_port": "1", "frm_payload": "AQ=="}),
            json!({"f_port": 1, "frm_payload": "not base64"}),
            json!({"f_port": 1, "frm_payload": STANDARD.encode([0; 256])}),
            json!({"f_port": 1, "decoded_payload": [1]}),
            json!({"f_port": 1, "priority": "URGENT"}),
            json!({"f_port": 1, "priority": 7}),
            json!({"f_port": 1, "correlation_ids": ["x".repeat(101)]}),
            json!({"f_port": 1, "confirmed_retry": {"max_attempts": 101}}),
            json!({"f_port": 1, "class_b_c": {"absolute_time": "2026-02-03T04:05:06+01:00"}}),
        ] {
            assert_eq!(clean(&item, false).map_err(|error| error.status().as_u16()), Err(400), "{item}");
        }
    }

    #[test]
    fn zero_values_are_left_out() {
        let item = json!({"f_port": 0, "frm_payload": "", "confirmed": false, "priority": "LOWEST", "unknown": 1});
        assert_eq!(clean(&item, false), Ok(json!({"correlation_ids": []})));
        assert_eq!(clean(&item, true), Ok(json!({"frm_payload": "", "correlation_ids": []})));
    }

    #[test]
    fn raw_bytes_win_over_a_decoded_payload() {
        let device = json!({"formatters": {"down_formatter": "FORMATTER_JAVASCRIPT"}});
        let mut both = json!({"f_port": 2, "frm_payload": "AQ==", "decoded_payload": {"a": 1}});
        assert_eq!(encode(&mut both, &device), Ok(()));
        assert_eq!(both["frm_payload"], "AQ==");
        let mut decoded = json!({"decoded_payload": {"a": 1}});
        assert_eq!(encode(&mut decoded, &device), Ok(()));
        assert_eq!((&decoded["frm_payload"], &decoded["f_port"]), (&json!(STANDARD.encode("{\"a\":1}")), &json!(1)));
    }
}
