//! HTTP triggers: key, route, and the reverse proxy in front of the handler.
//!
//! Sources: `Azure/azure-functions-host` `DefaultHttpProxyService.cs`, `RetryProxyHandler.cs`,
//! `ScriptInvocationRequestTransformer.cs`, and recordings of a running host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SERVER, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Limited};
use uuid::Uuid;

use super::function::{HttpTrigger, Trigger};
use super::proxy_headers::handler_headers;
use super::route;
use super::shared::{Shared, count};

/// Kestrel's limit in the host; larger bodies are answered 500.
const MAX_BODY: usize = 104_857_600;
/// Deliveries that the proxy tries.
const TRIES: u32 = 10;
/// Between the first two tries; each further pause is longer by the same.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The host ends a call this long after `functionTimeout`.
pub(super) const TIMEOUT_GRACE: Duration = Duration::from_secs(2);

/// Serves one request of a caller.
pub(super) async fn serve(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let mut response = answer(&shared, peer, request).await;
    response.headers_mut().entry(SERVER).or_insert(HeaderValue::from_static("Kestrel"));
    response
}

async fn answer(shared: &Shared, peer: SocketAddr, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = route::decode(head.uri.path());
    let Some((name, trigger)) = function_for(shared, &head, &path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if trigger.needs_key && !has_key(&head, &shared.function_key) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Some(uri) = handler_uri(shared, &path, head.uri.query()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Some(body) = Delivery::of(&head.headers, body).await else {
        return too_large();
    };
    count(&shared.counts.http_calls, 1);
    let _running = shared.run(&shared.http_running);
    let id = Uuid::new_v4().to_string();
    shared.log.host(format!("Executing 'Functions.{name}' (Id={id})"));
    let headers = handler_headers(&head.headers, shared.handler.port, peer, &id);
    let mut life = shared.handler.life();
    let call = async {
        life = shared.handler.ready().await;
        forward(shared, &head, &uri, &headers, body).await
    };
    let call = async {
        match shared.app.function_timeout {
            Some(limit) => tokio::time::timeout(limit + TIMEOUT_GRACE, call).await,
            None => Ok(call.await),
        }
    };
    let answer = tokio::select! {
        answer = call => answer,
        // The front end of the platform answers for a host that is gone.
        () = shared.stop.cancelled() => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    match answer {
        Ok(Some(response)) => response,
        Ok(None) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_elapsed) => {
            shared.log.host(format!("A function timeout has occurred. Restarting worker process executing '{id}'."));
            shared.handler.restart(life);
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
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

fn has_key(head: &Parts, key: &str) -> bool {
    let header = head.headers.get("x-functions-key").is_some_and(|given| given.as_bytes() == key.as_bytes());
    let query = head.uri.query().unwrap_or_default().as_bytes();
    header || url::form_urlencoded::parse(query).any(|(name, value)| name == "code" && value == key)
}

fn handler_uri(shared: &Shared, path: &str, query: Option<&str>) -> Option<Uri> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("http://127.0.0.1:{}{}{query}", shared.handler.port, route::encode(path)).parse().ok()
}

fn too_large() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, [(CONNECTION, "close")]).into_response()
}

/// The body of a call, and whether it can be delivered once more.
enum Delivery {
    /// Delivered again with every try.
    Empty,
    /// Delivered once; a try that got no connection does not count.
    Whole(Option<Bytes>),
    /// A chunked body is passed on as it comes, in the first try.
    Stream(Option<Body>),
}

impl Delivery {
    /// A body with a length is read completely before the handler sees anything. `None`: it is too large.
    async fn of(headers: &HeaderMap, body: Body) -> Option<Self> {
        if headers.contains_key(TRANSFER_ENCODING) {
            return Some(Self::Stream(Some(Body::new(Limited::new(body, MAX_BODY)))));
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > MAX_BODY) {
            return None;
        }
        let whole = Limited::new(body, MAX_BODY).collect().await.ok()?.to_bytes();
        Some(if whole.is_empty() { Self::Empty } else { Self::Whole(Some(whole)) })
    }

    fn next(&mut self) -> Option<Body> {
        match self {
            Self::Empty => Some(Body::empty()),
            Self::Whole(whole) => whole.clone().map(Body::from),
            Self::Stream(body) => body.take(),
        }
    }

    fn was_sent(&mut self) {
        if let Self::Whole(whole) = self {
            *whole = None;
        }
    }
}

/// Tries until the handler answers. A body that was sent is not sent again, but the pauses are kept: the real host
/// opens connections then that carry nothing.
async fn forward(
    shared: &Shared,
    head: &Parts,
    uri: &Uri,
    headers: &HeaderMap,
    mut body: Delivery,
) -> Option<Response> {
    for attempt in 0..TRIES {
        tokio::time::sleep((FIRST_PAUSE * attempt).min(LONGEST_PAUSE)).await;
        let Some(body_now) = body.next() else { continue };
        let mut request = http::Request::new(body_now);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        if matches!(body, Delivery::Empty) && head.method != Method::GET && head.method != Method::HEAD {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        match shared.client.request(request).await {
            Ok(response) => return Some(passed_on(response.map(Body::new))),
            Err(problem) if problem.is_connect() => {}
            Err(_ended) => body.was_sent(),
        }
    }
    None
}

/// Status, reason, headers and body pass; what belongs to the connection does not.
fn passed_on(mut response: Response) -> Response {
    for name in [CONNECTION.as_str(), TRANSFER_ENCODING.as_str(), "keep-alive"] {
        response.headers_mut().remove(name);
    }
    *response.version_mut() = Version::HTTP_11;
    response
}
