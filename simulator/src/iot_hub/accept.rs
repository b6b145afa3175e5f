//! Sockets: TCP accepted, TLS spoken.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fault::{Fault, FaultSwitch};
use super::hub::Hub;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);
/// Pause after a failed accept: the process is out of file handles, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
                stream = greet(tcp, &tls, &hub.fault) => stream,
            };
            if let Some(stream) = stream {
                serve(Socket { stream, closed }).await;
            }
        });
    }
}

/// Makes the TLS handshake, unless a fault says otherwise.
async fn greet(tcp: TcpStream, tls: &TlsAcceptor, fault: &FaultSwitch) -> Option<TlsStream<TcpStream>> {
    match fault.now() {
        Fault::Refuse => return None,
        Fault::Silent => {
            fault.silence_lifted().await;
            return None;
        }
        _ => {}
    }
    // An answer must not wait for the acknowledgement of the one before it.
    tcp.set_nodelay(true).inspect_err(|error| tracing::debug!(%error, "no TCP_NODELAY")).ok()?;
    match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(tcp)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}
