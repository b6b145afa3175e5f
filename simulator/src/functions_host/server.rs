//! The door for callers: HTTP/1.1 as Kestrel speaks it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::proxy;
use super::proxy_headers::caller_headers;
use super::shared::Shared;

/// Room for a head that is answered 431, and more.
const BUFFER: usize = 128 * 1024;
/// After a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Serves until the host drains; then new connections are refused and those that are open end with their calls.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => drop(connections.spawn(connection(Arc::clone(&shared), socket, peer))),
                Err(problem) => {
                    shared.log.host(format!("cannot accept a connection: {problem}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = shared.draining.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    // A socket that refuses the option is slower, nothing else.
    let _: std::io::Result<()> = socket.set_nodelay(true);
    let of_calls = Arc::clone(&shared);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let shared = Arc::clone(&of_calls);
        async move { Ok::<_, Infallible>(answer(&shared, peer, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).preserve_header_case(true).title_case_headers(true).max_buf_size(BUFFER);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shared.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                // First what the last call left to be written.
                biased;
                ended = &mut connection => ended,
                // A call that is still running loses its connection.
                () = shared.stop.cancelled() => return,
            }
        }
    };
    if let Err(problem) = ended {
        shared.log.host(format!("the connection of a caller broke: {problem}"));
    }
}

async fn answer(shared: &Arc<Shared>, peer: SocketAddr, request: http::Request<Incoming>) -> Response {
    let wants_close = says_close(request.headers());
    let mut response = proxy::answer(shared, peer, request.map(Body::new)).await;
    let is_last = wants_close || says_close_of_host(&response) || shared.draining.is_cancelled();
    frame(&mut response);
    let date = OffsetDateTime::now_utc().format(HTTP_DATE).unwrap_or_default();
    *response.headers_mut() = caller_headers(response.headers(), &date, is_last);
    response
}

/// Kestrel writes the length, if it is known, before everything else.
fn frame(response: &mut Response) {
    let has_body = !matches!(response.status().as_u16(), 100..=199 | 204 | 304);
    let length = response.body().size_hint().exact().filter(|_| has_body);
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    if length == Some(0) {
        // Of a body that has ended already, hyper writes the length last.
        let ended = std::mem::take(response.body_mut());
        *response.body_mut() = Body::from_stream(ended.into_data_stream());
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let value = headers.get(CONNECTION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"))
}

/// The mark of [`proxy::Closing`]: the handler's own `Connection` does not count.
fn says_close_of_host(response: &Response) -> bool {
    response.extensions().get::<proxy::Closing>().is_some()
}
