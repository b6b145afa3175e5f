//! One attempt of an Event Hub invocation.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, TRANSFER_ENCODING, USER_AGENT};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::ext::ReasonPhrase;

use super::exception::Failure;
use super::fleet::Instance;
use super::handler::Handler;
use super::proxy::TIMEOUT_GRACE;
use super::shared::{HOST_VERSION, INVOCATION_HEADER, Shared, VERSION_HEADER};
use super::verdict::{Verdict, judge};

/// The host writes envelopes in chunks of this many UTF-16 units, the buffer of a .NET writer.
const CHUNK: usize = 1024;
/// .NET follows this many redirects.
const MAX_REDIRECTS: usize = 50;

/// Sends an envelope and waits for its end: the lines of the answer's log, or why it failed.
pub(super) async fn attempt(
    shared: &Shared,
    instance: &Instance,
    function: &str,
    id: &str,
    body: &str,
) -> Result<Vec<String>, Failure> {
    let handler = &instance.handler;
    let mut life = None;
    let call = async {
        life = Some(handler.ready().await);
        match send(handler, function, id, body).await {
            Ok(Verdict::Success(lines)) => Ok(lines),
            Ok(Verdict::Failed(failure)) | Err(failure) => Err(failure),
            Ok(Verdict::Hangs) => {
                shared.log.host(format!("the answer to '{id}' is empty or null: it is never noticed"));
                std::future::pending().await
            }
        }
    };
    let Some(limit) = shared.app.function_timeout else { return call.await };
    match tokio::time::timeout(shared.pace.of(limit + TIMEOUT_GRACE), call).await {
        Ok(result) => result,
        Err(_elapsed) => {
            shared.log.host(format!("A function timeout has occurred. Restarting worker process executing '{id}'."));
            // A handler that is not ready is restarted as well.
            handler.restart(life.unwrap_or_else(|| handler.life()));
            Err(Failure::Timeout(limit))
        }
    }
}

async fn send(handler: &Handler, function: &str, id: &str, body: &str) -> Result<Verdict, Failure> {
    let mut method = Method::POST;
    let mut path = format!("/{function}");
    for _ in 0..=MAX_REDIRECTS {
        let content = if method == Method::POST { chunked(body) } else { Body::empty() };
        let mut request = http::Request::new(content);
        *request.method_mut() = method.clone();
        *request.uri_mut() = path.parse().map_err(|_| Failure::NoAnswer)?;
        *request.headers_mut() = headers(handler.port, id, method == Method::POST);
        let response = handler.wire.send(request).await.map_err(|_| Failure::NoAnswer)?;
        let (head, content) = response.into_parts();
        let content = content.collect().await.map_err(|_| Failure::NoAnswer)?.to_bytes();
        match redirect(head.status, &head.headers) {
            Some((keeps_method, target)) => {
                method = if keeps_method { method } else { Method::GET };
                path = target;
            }
            None => return Ok(judge(head.status, &reason(&head), &head.headers, &content)),
        }
    }
    Err(Failure::NoAnswer)
}

fn headers(port: u16, id: &str, with_body: bool) -> HeaderMap {
    let text = |text: &str| HeaderValue::from_str(text).expect("ports and ids are plain ASCII");
    let mut headers = HeaderMap::new();
    headers.insert(HOST, text(&format!("127.0.0.1:{port}")));
    headers.insert(VERSION_HEADER, HeaderValue::from_static(HOST_VERSION));
    headers.insert(INVOCATION_HEADER, text(id));
    headers.insert(USER_AGENT, text(&format!("Azure-Functions-Host/{HOST_VERSION}")));
    if with_body {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    }
    headers
}

fn chunked(body: &str) -> Body {
    let frames: Vec<_> = chunks(body).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))).collect();
    Body::new(StreamBody::new(stream::iter(frames)))
}

/// A character of two UTF-16 units that does not fit into a chunk whole goes into the next.
pub(super) fn chunks(body: &str) -> impl Iterator<Item = Bytes> {
    let whole = Bytes::copy_from_slice(body.as_bytes());
    let mut ends = Vec::new();
    let mut units = 0;
    for (at, character) in body.char_indices() {
        units += character.len_utf16();
        if units >= CHUNK {
            let is_split = units > CHUNK;
            ends.push(if is_split { at } else { at + character.len_utf8() });
            units -= CHUNK;
            if is_split {
                // Its first unit filled the old chunk, its bytes are in the new one.
                units = 1;
            }
        }
    }
    ends.push(body.len());
    let starts = std::iter::once(0).chain(ends.clone());
    let parts: Vec<_> = starts.zip(ends).filter(|(start, end)| start < end).collect();
    parts.into_iter().map(move |(start, end)| whole.slice(start..end))
}

/// Where to go, and whether as a POST again.
fn redirect(status: StatusCode, headers: &HeaderMap) -> Option<(bool, String)> {
    let keeps_method = match status.as_u16() {
        301..=303 => false,
        307 | 308 => true,
        _ => return None,
    };
    let target: Uri = headers.get(LOCATION)?.to_str().ok()?.parse().ok()?;
    let path = target.path_and_query()?.as_str();
    path.starts_with('/').then(|| (keeps_method, path.to_owned()))
}

fn reason(head: &http::response::Parts) -> String {
    match head.extensions.get::<ReasonPhrase>() {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => head.status.canonical_reason().unwrap_or_default().to_owned(),
    }
}
