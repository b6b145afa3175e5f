//! Connections to the handler: kept alive, with heads as .NET writes them.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::names::{NamingStream, NextIsHead};

/// Connections that are kept for later; more are closed after use.
const KEPT: usize = 256;
/// .NET sends a request without content again on another connection, if one ends before any answer.
/// Source: `dotnet/runtime` `HttpConnectionSettings.cs`, and recordings of a running host.
const BARE_TRIES: u32 = 4;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Nobody listens: nothing was sent.
    Refused,
    /// The handler closed the connection without a word.
    Closed,
    /// The connection broke otherwise, or what came is no HTTP.
    Failed,
}

struct Connection {
    sender: SendRequest<Body>,
    next_is_head: NextIsHead,
}

/// The host's HTTP client.
pub(super) struct Wire {
    port: u16,
    kept: Mutex<Vec<Connection>>,
}

impl Wire {
    pub(super) fn new(port: u16) -> Self {
        Self { port, kept: Mutex::default() }
    }

    /// Sends a request with its headers in their order; `Host` and what frames the body must be among them.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        loop {
            let (kept, mut connection) = match self.kept() {
                Some(connection) => (true, connection),
                None => (false, self.connect().await?),
            };
            connection.next_is_head.announce();
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(connection);
                    return Ok(response);
                }
                Err(mut problem) => match problem.take_message() {
                    // A kept connection that ended in the meantime.
                    Some(unsent) if kept => request = unsent,
                    _ if problem.error().is_incomplete_message() => return Err(Broken::Closed),
                    _ => return Err(Broken::Failed),
                },
            }
        }
    }

    /// Sends a request without content, which .NET repeats if the connection is closed before an answer.
    pub(super) async fn send_bare(&self, request: impl Fn() -> Request<Body>) -> Result<Response<Incoming>, Broken> {
        let mut result = self.send(request()).await;
        for _ in 1..BARE_TRIES {
            if !matches!(result, Err(Broken::Closed)) {
                break;
            }
            result = self.send(request()).await;
        }
        result
    }

    /// Takes a connection, kept or new, and closes it without a request.
    pub(super) async fn knock(&self) -> Result<(), Broken> {
        if self.kept().is_some() {
            return Ok(());
        }
        self.socket().await.map(drop)
    }

    fn kept(&self) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|connection| !connection.sender.is_closed());
        let free = kept.iter().rposition(|connection| connection.sender.is_ready())?;
        Some(kept.remove(free))
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(connection);
        }
    }

    async fn socket(&self) -> Result<TcpStream, Broken> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.map_err(|_| Broken::Refused)
    }

    async fn connect(&self) -> Result<Connection, Broken> {
        let socket = self.socket().await?;
        // A socket that refuses the option is slower, nothing else.
        let _: std::io::Result<()> = socket.set_nodelay(true);
        let (stream, next_is_head) = NamingStream::new(socket);
        let mut builder = Builder::new();
        builder.preserve_header_case(true).title_case_headers(true);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Broken::Failed)?;
        tokio::spawn(async move {
            // The call that is on it sees the same error.
            let _: hyper::Result<()> = connection.await;
        });
        Ok(Connection { sender, next_is_head })
    }
}
