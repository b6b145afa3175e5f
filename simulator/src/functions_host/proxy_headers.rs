//! The headers that the handler sees, in the order in which the recorded host wrote them, and those of the caller.

use std::net::SocketAddr;

use http::header::{CONNECTION, DATE, HOST, HeaderMap, HeaderName, HeaderValue, SERVER};

use super::names::{content_rank, request_rank, response_rank};
use super::shared::{HOST_VERSION, INVOCATION_HEADER, VERSION_HEADER};

/// What belongs to the caller's connection, or is set by the host.
const DROPPED: [&str; 13] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "upgrade-insecure-requests",
    "http2-settings",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
];
/// What belongs to the handler's connection.
const DROPPED_FROM_ANSWERS: [&str; 3] = ["connection", "keep-alive", "transfer-encoding"];

/// A caller's headers as the proxy passes them on: the host's own take the places of those that the caller made up.
pub(super) fn handler_headers(given: &HeaderMap, port: u16, peer: SocketAddr, invocation_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(given.keys_len() + 8);
    set(&mut headers, HOST, &format!("127.0.0.1:{port}"));
    let names = given.keys().filter(|name| !DROPPED.contains(&name.as_str()));
    let (mut content, others): (Vec<_>, Vec<_>) = names.partition(|name| content_rank(name.as_str()).is_some());
    let (mut known, unknown): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|name| request_rank(name.as_str()).is_some());
    known.sort_by_key(|name| request_rank(name.as_str()));
    for name in known.into_iter().chain(unknown) {
        copy(given, &mut headers, name);
    }
    // Setting a header that is there keeps its place.
    set(&mut headers, HeaderName::from_static(VERSION_HEADER), HOST_VERSION);
    set(&mut headers, HeaderName::from_static(INVOCATION_HEADER), invocation_id);
    set(&mut headers, HeaderName::from_static("x-ms-invocation-id"), invocation_id);
    set(&mut headers, HeaderName::from_static("x-forwarded-for"), &peer.ip().to_string());
    if let Some(host) = given.get(HOST) {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host.clone());
    }
    set(&mut headers, HeaderName::from_static("x-forwarded-proto"), "http");
    content.sort_by_key(|name| content_rank(name.as_str()));
    for name in content {
        copy(given, &mut headers, name);
    }
    headers
}

/// An answer's headers as Kestrel orders them; `Date` and `Server` are added if the handler did not set them.
pub(super) fn caller_headers(given: &HeaderMap, date: &str, is_last: bool) -> HeaderMap {
    let mut own = HeaderMap::new();
    if !given.contains_key(DATE) {
        set(&mut own, DATE, date);
    }
    if !given.contains_key(SERVER) {
        own.insert(SERVER, HeaderValue::from_static("Kestrel"));
    }
    if is_last {
        own.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let passed = given.keys().filter(|name| !DROPPED_FROM_ANSWERS.contains(&name.as_str()));
    let mut names: Vec<_> = own.keys().chain(passed).collect();
    names.sort_by_key(|name| response_rank(name.as_str()));
    let mut headers = HeaderMap::with_capacity(names.len());
    for name in names {
        let values = if own.contains_key(name) { own.get_all(name) } else { given.get_all(name) };
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// Whether a value has bytes that .NET does not write into a head.
pub(super) fn has_foreign_bytes(headers: &HeaderMap) -> bool {
    headers.values().any(|value| !value.as_bytes().is_ascii())
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Nothing that is set here can hold a control character.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Several values of one name become one.
fn copy(from: &HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
    let values: Vec<&[u8]> = from.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_bytes(&values.join(separator)) {
        to.insert(name.clone(), value);
    }
}
