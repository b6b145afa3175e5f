//! Sockets: TCP accepted, TLS spoken.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fault::Fault;
use super::hub::Hub;
use crate::faults::{Fate, Stage, Strike, play};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);
/// Pause after a failed accept: the process is out of file handles, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A fatal alert `handshake_failure` (RFC 5246, sections 6.2.1 and 7.2).
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// A socket after its TLS handshake.
pub(super) struct Socket {
    pub(super) stream: TlsStream<TcpStream>,
    /// Cancelled when it must close.
    pub(super) closed: CancellationToken,
}

/// Accepts sockets until `stop`, and hands each to `serve` in a task of its own.
pub(super) async fn accept<F, S>(
    listener: TcpListener,
    tls: TlsAcceptor,
    hub: Arc<Hub>,
    tasks: TaskTracker,
    stop: CancellationToken,
    serve: F,
) where
    F: Fn(Socket) -> S + Clone + Send + 'static,
    S: Future<Output = ()> + Send,
{
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "a socket could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let closed = hub.fault.socket_token();
        let (tls, hub, serve) = (tls.clone(), hub.clone(), serve.clone());
        tasks.spawn(async move {
            let stream = tokio::select! {
                () = closed.cancelled() => return,
                stream = greet(tcp, &tls, &hub) => stream,
            };
            if let Some(stream) = stream {
                serve(Socket { stream, closed }).await;
            }
        });
    }
}

/// Makes the TLS handshake, unless a fault says otherwise.
async fn greet(tcp: TcpStream, tls: &TlsAcceptor, hub: &Hub) -> Option<TlsStream<TcpStream>> {
    match hub.fault.now() {
        Fault::Refuse => return None,
        Fault::Silent => {
            hub.fault.silence_lifted().await;
            return None;
        }
        Fault::None => {}
    }
    match play(hub.faults.at(Stage::Tcp, None)).await {
        Fate::GoesOn => {}
        Fate::Silence => return ignore(tcp).await,
        Fate::Closed => return None,
    }
    // An answer must not wait for the acknowledgement of the one before it.
    tcp.set_nodelay(true).inspect_err(|error| tracing::debug!(%error, "no TCP_NODELAY")).ok()?;
    let strike = hub.faults.at(Stage::Tls, None);
    if strike == Some(Strike::Refuse) {
        return abort(tcp).await;
    }
    if play(strike).await != Fate::GoesOn {
        return ignore(tcp).await;
    }
    match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(tcp)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Says nothing until the client goes away.
pub(super) async fn ignore<N>(mut socket: impl AsyncRead + Unpin) -> Option<N> {
    // However it ends, it has ended.
    let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    None
}

/// Answers the ClientHello with a fatal alert.
async fn abort<N>(tcp: TcpStream) -> Option<N> {
    let aborted = async {
        let mut hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp).await?;
        hello.io.write_all(&HANDSHAKE_FAILURE).await?;
        hello.io.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(HANDSHAKE_TIME, aborted).await {
        tracing::debug!(%error, "a TLS handshake ended before it could be aborted");
    }
    None
}
