//! The body of a webhook: which ones are read, and how much of them.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Refusal;

/// Largest body: one Event Hubs event of 1 MiB must be able to park it, with its properties.
pub(super) const MAX_WEBHOOK_BYTES: usize = 960 * 1024;

/// How much of a refused body is read and thrown away. The host answers 500 in our place if we answer and close
/// before it has sent everything; it takes no body larger than this itself.
const MAX_DRAINED_BYTES: usize = 100 * 1024 * 1024;

/// How long a refused body is read and thrown away. The host sends from its memory.
const DRAIN_TIME: Duration = Duration::from_secs(1);

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
    timeout_at(deadline, read_all(body)).await.unwrap_or(Err(Refusal::Slow))
}

async fn read_all(mut body: Body) -> Result<Bytes, Refusal> {
    let mut taken = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Interrupted)?;
        let Ok(data) = frame.into_data() else { continue };
        if taken.len() + data.len() > MAX_WEBHOOK_BYTES {
            drop(taken);
            drain(body).await;
            return Err(Refusal::TooLarge);
        }
        taken.extend_from_slice(&data);
    }
    Ok(taken.freeze())
}

/// Reads and throws away, so that the answer reaches the caller.
pub(super) async fn drain(mut body: Body) {
    let rest = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    if timeout(DRAIN_TIME, rest).await.is_err() {
        tracing::debug!("a refused body was not drained in time; the caller may see status 500");
    }
}
