//! The body of a webhook: which ones are read, and how much of them.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::answer::Refusal;
use crate::functions::{BodyError, read_body};

/// Largest body: one Event Hubs event of 1 MiB must be able to park it, with its properties.
pub(super) const MAX_WEBHOOK_BYTES: usize = 960 * 1024;

/// What a webhook in protobuf format sends.
const PROTOBUF: [&str; 3] = ["application/octet-stream", "application/x-protobuf", "application/protobuf"];

/// Refuses what is certainly no JSON text.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let media_type = text(headers, &CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if PROTOBUF.iter().any(|protobuf| media_type.eq_ignore_ascii_case(protobuf)) {
        return Err(Refusal::Protobuf);
    }
    let encoding = text(headers, &CONTENT_ENCODING).trim();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") { Ok(()) } else { Err(Refusal::Encoded) }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads a whole body.
pub(super) async fn read(body: Body, deadline: Instant) -> Result<Bytes, Refusal> {
    match timeout_at(deadline, read_body(body, MAX_WEBHOOK_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BodyError::TooLong { .. })) => Err(Refusal::TooLarge),
        Ok(Err(BodyError::BrokenOff(_))) => Err(Refusal::Interrupted),
        Err(_elapsed) => Err(Refusal::Slow),
    }
}
