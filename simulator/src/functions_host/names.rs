//! Header names: how .NET writes them and in which order, whatever the case of the caller's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The request headers that Kestrel knows, in the order in which it lists them; others follow as they came.
/// Source: `dotnet/aspnetcore` `HttpHeaders.Generated.cs`, checked against the recordings.
const REQUEST: [&str; 38] = [
    "Accept",
    "User-Agent",
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Access-Control-Request-Headers",
    "Access-Control-Request-Method",
    "Alt-Used",
    "Authorization",
    "baggage",
    "Cache-Control",
    "Cookie",
    "Correlation-Context",
    "Date",
    "Expect",
    "From",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Max-Forwards",
    "Origin",
    "Pragma",
    "Proxy-Authorization",
    "Range",
    "Referer",
    "Request-Id",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "traceparent",
    "tracestate",
    "Trailer",
    "Translate",
    "Via",
    "Warning",
];

/// Headers of the content, in the order in which .NET writes them after all others.
const CONTENT: [&str; 11] = [
    "Transfer-Encoding",
    "Content-Type",
    "Content-Length",
    "Allow",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-MD5",
    "Content-Range",
    "Expires",
    "Last-Modified",
];

/// Names that the host makes itself.
const MADE: [&str; 7] = [
    "Host",
    "X-Azure-Functions-HostVersion",
    "X-Azure-Functions-InvocationId",
    "x-ms-invocation-id",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
];

/// The response headers that Kestrel knows, in the order in which it writes them; others follow as they came.
const RESPONSE: [&str; 24] = [
    "Content-Length",
    "Connection",
    "Content-Type",
    "Date",
    "Server",
    "Accept-Ranges",
    "Age",
    "Allow",
    "Cache-Control",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-MD5",
    "Content-Range",
    "ETag",
    "Expires",
    "Keep-Alive",
    "Last-Modified",
    "Location",
    "Pragma",
    "Retry-After",
    "Set-Cookie",
    "Transfer-Encoding",
    "WWW-Authenticate",
];

/// The place of a request header among the known ones.
pub(super) fn request_rank(name: &str) -> Option<usize> {
    rank(&REQUEST, name)
}

/// The place of a header among those of the content.
pub(super) fn content_rank(name: &str) -> Option<usize> {
    rank(&CONTENT, name)
}

/// The place of a response header; unknown ones come last.
pub(super) fn response_rank(name: &str) -> usize {
    rank(&RESPONSE, name).unwrap_or(RESPONSE.len())
}

fn rank(names: &[&str], name: &str) -> Option<usize> {
    names.iter().position(|known| known.eq_ignore_ascii_case(name))
}

/// Tells a [`NamingStream`] that a head comes next.
#[derive(Clone, Debug, Default)]
pub(super) struct NextIsHead(Arc<AtomicBool>);

impl NextIsHead {
    pub(super) fn announce(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A connection to the handler that writes known header names as .NET does; hyper has only lower or title case.
pub(super) struct NamingStream<S> {
    stream: S,
    next_is_head: NextIsHead,
    /// The beginning of a head whose end has not come yet.
    head: Vec<u8>,
    /// A named head that is not written yet.
    out: Vec<u8>,
}

impl<S: Unpin> NamingStream<S> {
    pub(super) fn new(stream: S) -> (Self, NextIsHead) {
        let next_is_head = NextIsHead::default();
        (Self { stream, next_is_head: next_is_head.clone(), head: Vec::new(), out: Vec::new() }, next_is_head)
    }
}

impl<S: AsyncWrite + Unpin> NamingStream<S> {
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NamingStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_out(context))?;
        if !this.next_is_head.0.load(Ordering::Acquire) {
            return Pin::new(&mut this.stream).poll_write(context, bytes);
        }
        let searched = this.head.len().saturating_sub(3);
        this.head.extend_from_slice(bytes);
        if let Some(at) = this.head[searched..].windows(4).position(|window| window == b"\r\n\r\n") {
            let end = searched + at + 4;
            this.out = named(&this.head[..end]);
            this.out.extend_from_slice(&this.head[end..]);
            this.head.clear();
            this.next_is_head.0.store(false, Ordering::Release);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NamingStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// The same head with the names of .NET; an empty value keeps the blank before it.
fn named(head: &[u8]) -> Vec<u8> {
    let mut named = Vec::with_capacity(head.len() + 16);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        // The first line has a blank before any colon.
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let rest = &line[name.len()..];
        match known(name) {
            Some(known) => named.extend_from_slice(known.as_bytes()),
            None => named.extend_from_slice(name),
        }
        named.extend_from_slice(if rest == b":\r\n" { b": \r\n" } else { rest });
    }
    named
}

fn known(name: &[u8]) -> Option<&'static str> {
    let names = REQUEST.iter().chain(&CONTENT).chain(&MADE);
    names.copied().find(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn a_head_that_comes_in_pieces_gets_its_names_and_the_body_stays_as_it_is() {
        let (mut stream, next_is_head) = NamingStream::new(Vec::new());
        next_is_head.announce();
        for part in ["POST /a:b HTTP/1.1\r\nhost: h\r\nX-Empty:\r\nx-ms-Invocation-id: 1\r", "\n\r", "\n{\"host: 1\"}"]
        {
            stream.write_all(part.as_bytes()).await.expect("a vector takes all");
        }
        stream.write_all(b"\r\nhost: 2\r\n\r\n").await.expect("a vector takes all");
        next_is_head.announce();
        stream.write_all(b"GET / HTTP/1.1\r\nuser-agent: x\r\n\r\n").await.expect("a vector takes all");
        stream.flush().await.expect("a vector takes all");
        let expected = "POST /a:b HTTP/1.1\r\nHost: h\r\nX-Empty: \r\nx-ms-invocation-id: 1\r\n\r\n{\"host: 1\"}\
                        \r\nhost: 2\r\n\r\nGET / HTTP/1.1\r\nUser-Agent: x\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&stream.stream), expected);
    }
}
