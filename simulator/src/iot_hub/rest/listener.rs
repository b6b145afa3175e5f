//! TLS sockets for axum.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::iot_hub::accept::Socket;

/// Gives axum the sockets whose handshake is done elsewhere, so that a slow client delays nobody.
pub(crate) struct SocketListener {
    pub(crate) sockets: mpsc::Receiver<Socket>,
    pub(crate) address: SocketAddr,
}

impl Listener for SocketListener {
    type Io = ClosableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ClosableStream, SocketAddr) {
        match self.sockets.recv().await {
            Some(Socket { stream, closed }) => {
                let door = Door(closed.child_token());
                let closed = Box::pin(door.0.clone().cancelled_owned());
                (ClosableStream { stream, closed, door }, self.address)
            }
            // The hub has stopped; so will the server that waits here.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Closes the connection that a call came by, and knows when it must close.
#[derive(Clone, Debug)]
pub(crate) struct Door(CancellationToken);

impl Door {
    pub(crate) fn close(&self) {
        self.0.cancel();
    }

    /// Returns once the connection must close.
    pub(crate) async fn closed(&self) {
        self.0.cancelled().await;
    }
}

impl Connected<IncomingStream<'_, SocketListener>> for Door {
    fn connect_info(stream: IncomingStream<'_, SocketListener>) -> Self {
        stream.io().door.clone()
    }
}

/// A stream that fails once the hub wants it closed.
pub(crate) struct ClosableStream {
    stream: TlsStream<TcpStream>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    door: Door,
}

impl ClosableStream {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.closed.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for ClosableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_open(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClosableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_open(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_open(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
