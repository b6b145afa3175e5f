//! HTTP triggers: key, route, and the reverse proxy in front of the handler.
//!
//! Sources: `Azure/azure-functions-host` `DefaultHttpProxyService.cs`, `RetryProxyHandler.cs`,
//! `ScriptInvocationRequestTransformer.cs`, and recordings of a running host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;
use uuid::Uuid;

use super::admin;
use super::answer_body::{AnswerBody, HttpCall};
use super::function::{HttpTrigger, Trigger};
use super::handler::Handler;
use super::proxy_headers::{handler_headers, has_foreign_bytes};
use super::route;
use super::shared::{Shared, count};
use super::wire::Broken;

/// Kestrel's limit in the host; larger bodies are answered 500.
const MAX_BODY: usize = 104_857_600;
/// Kestrel's limit of a request's headers.
const MAX_HEADERS: usize = 32 * 1024;
/// Deliveries that the proxy tries.
pub(super) const TRIES: u32 = 10;
/// Between the first two tries; each further pause is longer by the same.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The host ends a call this long after `functionTimeout`.
pub(super) const TIMEOUT_GRACE: Duration = Duration::from_secs(2);

/// Answers one request of a caller.
pub(super) async fn answer(shared: &Arc<Shared>, peer: SocketAddr, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if header_bytes(&head.headers) > MAX_HEADERS {
        return closing(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let path = route::decode(head.uri.path());
    if let Some(what) = admin::Request::of(&head, &path) {
        return admin::answer(shared, what, &head, body).await;
    }
    let Some((name, trigger)) = function_for(shared, &head, &path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if trigger.needs_key && !has_key(&head, &[&shared.function_key, &shared.master_key]) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !head.headers.contains_key(HOST) {
        return closing(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let Some(uri) = handler_uri(&path, head.uri.query()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Some(body) = Delivery::of(&head, body).await else {
        return closing(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let instance = shared.fleet.for_call();
    count(&shared.counts.http_calls, 1);
    let running = HttpCall::begin(Uuid::new_v4().to_string(), Arc::clone(shared), instance);
    call(running, peer, name, &head, &uri, body).await
}

/// Passes a call to the handler.
async fn call(running: HttpCall, peer: SocketAddr, name: &str, head: &Parts, uri: &Uri, body: Delivery) -> Response {
    let HttpCall { id, shared, instance } = &running;
    shared.log.host(format!("Executing 'Functions.{name}' (Id={id})"));
    let handler = &instance.handler;
    let mut life = None;
    let forwarded = Forwarded { head, uri, headers: handler_headers(&head.headers, handler.port, peer, id) };
    let call = async {
        life = Some(handler.ready().await);
        forward(shared, handler, &forwarded, body).await
    };
    let limit = shared.app.function_timeout;
    let deadline = limit.map(|limit| Instant::now() + shared.pace.of(limit + TIMEOUT_GRACE));
    let answer = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, call).await,
        None => Ok(call.await),
    };
    let life = life.unwrap_or_else(|| handler.life());
    let response = match answer {
        // .NET refuses to write such a value into a head.
        Ok(Some(response)) if !has_foreign_bytes(response.headers()) => response,
        Ok(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_elapsed) => {
            running.timed_out(life);
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    };
    response.map(|body| Body::new(AnswerBody::new(body, running, life, deadline)))
}

/// The size of the lines of a head.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

fn function_for<'a>(shared: &'a Shared, head: &Parts, path: &str) -> Option<(&'a str, &'a HttpTrigger)> {
    shared.app.functions.iter().find_map(|function| match &function.trigger {
        Trigger::Http(trigger) => {
            let methods = &trigger.methods;
            let fits = methods.is_empty() || methods.iter().any(|method| head.method == method.as_str());
            (fits && trigger.route.matches(path)).then_some((function.name.as_str(), trigger))
        }
        Trigger::EventHub(_) => None,
    })
}

pub(super) fn has_key(head: &Parts, keys: &[&str]) -> bool {
    let header = head.headers.get("x-functions-key");
    let header = header.is_some_and(|given| keys.iter().any(|key| given.as_bytes() == key.as_bytes()));
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let in_query = |(name, value): (_, std::borrow::Cow<'_, str>)| name == "code" && keys.contains(&&*value);
    header || url::form_urlencoded::parse(query).any(|(name, value)| in_query((name, value)))
}

fn handler_uri(path: &str, query: Option<&str>) -> Option<Uri> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", route::encode(path)).parse().ok()
}

/// Marks an answer after which the host ends the connection.
#[derive(Clone, Copy)]
pub(super) struct Closing;

fn closing(status: StatusCode) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Closing);
    response
}

/// The body of a call, and whether it can be delivered once more.
enum Delivery {
    /// No content at all: delivered again with every try, and by .NET itself.
    Bare,
    /// Content of no bytes: delivered again with every try.
    Empty,
    /// Delivered once; a try that got no connection does not count.
    Whole(Bytes),
    /// A chunked body is passed on as it comes, in the first try.
    Stream(Body),
    /// It was delivered.
    Gone,
}

impl Delivery {
    /// A body with a length is read completely before the handler sees anything. `None`: it is too large.
    async fn of(head: &Parts, body: Body) -> Option<Self> {
        let headers = &head.headers;
        if headers.contains_key(TRANSFER_ENCODING) {
            return Some(Self::Stream(Body::new(Limited::new(body, MAX_BODY))));
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > MAX_BODY) {
            return None;
        }
        let whole = Limited::new(body, MAX_BODY).collect().await.ok()?.to_bytes();
        let is_bare = head.method == Method::GET || head.method == Method::HEAD;
        Some(match whole.is_empty() {
            true if is_bare => Self::Bare,
            true => Self::Empty,
            false => Self::Whole(whole),
        })
    }
}

/// What every try sends alike.
struct Forwarded<'a> {
    head: &'a Parts,
    uri: &'a Uri,
    headers: HeaderMap,
}

impl Forwarded<'_> {
    fn request(&self, body: Body, length: Option<usize>) -> Request {
        let mut request = http::Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(length) = length {
            // Keeps its place if it is there, and comes last if not.
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        // With the case that the caller gave to the names.
        *request.extensions_mut() = self.head.extensions.clone();
        request
    }

    /// Without content there are no headers of it.
    fn bare(&self) -> Request {
        let mut request = self.request(Body::empty(), None);
        for name in [CONTENT_TYPE, CONTENT_LENGTH] {
            request.headers_mut().remove(name);
        }
        request
    }
}

/// Tries until the handler answers. A body that was sent is not sent again: the tries that are left open connections
/// that carry nothing.
async fn forward(shared: &Shared, handler: &Handler, call: &Forwarded<'_>, mut body: Delivery) -> Option<Response> {
    if has_foreign_bytes(&call.headers) {
        // .NET finds out when it has a connection.
        body = Delivery::Gone;
    }
    for attempt in 0..TRIES {
        tokio::time::sleep(shared.pace.of((FIRST_PAUSE * attempt).min(LONGEST_PAUSE))).await;
        let wire = &handler.wire;
        let result = match &mut body {
            Delivery::Bare => wire.send_bare(|| call.bare()).await,
            Delivery::Empty => wire.send(call.request(Body::empty(), Some(0))).await,
            Delivery::Whole(whole) => wire.send(call.request(Body::from(whole.clone()), Some(whole.len()))).await,
            Delivery::Stream(stream) => wire.send(call.request(std::mem::take(stream), None)).await,
            Delivery::Gone => wire.knock().await.and(Err(Broken::Failed)),
        };
        let was_streamed = matches!(body, Delivery::Stream(_));
        match result {
            Ok(response) => return Some(passed_on(response.map(Body::new))),
            Err(Broken::Refused) if !was_streamed => {}
            Err(_) if matches!(body, Delivery::Whole(_) | Delivery::Stream(_)) => body = Delivery::Gone,
            Err(_) => {}
        }
    }
    None
}

/// Status, reason and body pass; the headers see to it when they are ordered.
fn passed_on(mut response: Response) -> Response {
    *response.version_mut() = Version::HTTP_11;
    response
}
