//! What the host makes of an answer to an envelope.
//!
//! Source: `Azure/azure-functions-host` `DefaultHttpWorkerService.cs`, and recordings of a running host.

use http::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

use super::exception::Failure;

/// The fate of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Done; these lines go to the invocation's log.
    Success(Vec<String>),
    Failed(Failure),
    /// The host never takes notice of the answer: it waits for `functionTimeout`.
    Hangs,
}

/// Judges an answer that is no redirect.
pub(super) fn judge(status: http::StatusCode, reason: &str, headers: &HeaderMap, body: &[u8]) -> Verdict {
    if !status.is_success() {
        return Verdict::Failed(Failure::Status(status.as_u16(), reason.to_owned()));
    }
    if body.is_empty() {
        return Verdict::Hangs;
    }
    if !has_json_type(headers) {
        return Verdict::Failed(Failure::Invalid);
    }
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    // Only the first value counts: the host's parser does not look behind it.
    match serde_json::Deserializer::from_slice(text).into_iter::<Value>().next() {
        None | Some(Ok(Value::Null)) => Verdict::Hangs,
        Some(Ok(Value::Object(members))) => result(&members),
        Some(Ok(_) | Err(_)) => Verdict::Failed(Failure::Invalid),
    }
}

fn has_json_type(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json") || media_type.eq_ignore_ascii_case("text/json")
}

/// Members count in any case; unknown ones do not count.
fn result(members: &serde_json::Map<String, Value>) -> Verdict {
    let mut lines = Vec::new();
    for (name, value) in members {
        match (name.to_ascii_lowercase().as_str(), value) {
            ("outputs", Value::Null | Value::Object(_)) | ("logs", Value::Null) => {}
            ("outputs", _) => return Verdict::Failed(Failure::Invalid),
            ("logs", Value::Array(entries)) => {
                for entry in entries {
                    match entry {
                        Value::String(line) => lines.push(line.clone()),
                        Value::Null => lines.push(String::new()),
                        // An entry that is no text fails the whole invocation.
                        _ => return Verdict::Failed(Failure::Invalid),
                    }
                }
            }
            ("logs", _) => return Verdict::Failed(Failure::Invalid),
            _ => {}
        }
    }
    Verdict::Success(lines)
}
