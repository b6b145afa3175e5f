//! The headers that the handler sees.

use std::net::SocketAddr;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use super::shared::{HOST_VERSION, INVOCATION_HEADER, VERSION_HEADER};

/// What belongs to the caller's connection, or is set by the host.
const DROPPED: [&str; 15] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "upgrade-insecure-requests",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    VERSION_HEADER,
    INVOCATION_HEADER,
    "x-ms-invocation-id",
];

/// A caller's headers as the proxy passes them on: the host's own replace those that the caller made up.
pub(super) fn handler_headers(given: &HeaderMap, port: u16, peer: SocketAddr, invocation_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(given.keys_len() + 8);
    set(&mut headers, HOST, &format!("127.0.0.1:{port}"));
    copy(given, &mut headers, |name| !DROPPED.contains(&name) && !of_content(name));
    set(&mut headers, HeaderName::from_static(VERSION_HEADER), HOST_VERSION);
    set(&mut headers, HeaderName::from_static(INVOCATION_HEADER), invocation_id);
    set(&mut headers, HeaderName::from_static("x-ms-invocation-id"), invocation_id);
    set(&mut headers, HeaderName::from_static("x-forwarded-for"), &peer.ip().to_string());
    if let Some(host) = given.get(HOST) {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host.clone());
    }
    set(&mut headers, HeaderName::from_static("x-forwarded-proto"), "http");
    copy(given, &mut headers, of_content);
    headers
}

/// .NET writes the headers of the content last.
fn of_content(name: &str) -> bool {
    name.starts_with("content-") || name == "transfer-encoding"
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Nothing that is set here can hold a control character.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Several values of one name become one.
fn copy(from: &HeaderMap, to: &mut HeaderMap, wanted: impl Fn(&str) -> bool) {
    for name in from.keys().filter(|name| wanted(name.as_str())) {
        let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
        let values: Vec<&[u8]> = from.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(value) = HeaderValue::from_bytes(&values.join(separator)) {
            to.insert(name.clone(), value);
        }
    }
}
