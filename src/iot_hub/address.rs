//! The hub's address, kept for a short while: looking it up costs a blocking call per session otherwise.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long an address is kept. The hub's name has a time to live of minutes; a failed connection looks it up at once.
const KEPT: Duration = Duration::from_secs(60);

/// Time for one address to take the connection, so that a second one is still tried within a webhook's budget.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A host and where it was found.
#[derive(Debug)]
pub(super) struct Address {
    host: String,
    port: u16,
    found: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, found: Mutex::new(None) }
    }

    /// Connects to the first address that answers.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for address in self.look_up().await? {
            match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Packets are small and answered one by one: waiting for more costs 40 ms each.
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => failure = error,
                Err(elapsed) => failure = io::Error::new(io::ErrorKind::TimedOut, elapsed),
            }
        }
        *self.found.lock().await = None;
        Err(failure)
    }

    /// Whoever asks during a look-up waits for that one.
    async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found = self.found.lock().await;
        if let Some((at, addresses)) = found.as_ref()
            && at.elapsed() < KEPT
        {
            return Ok(addresses.clone());
        }
        let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        *found = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_kept_until_it_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let address = Address::new("localhost", port);
        address.connect().await.expect("someone listens");
        assert!(address.found.lock().await.is_some());
        drop(listener);
        address.connect().await.expect_err("nobody listens");
        assert!(address.found.lock().await.is_none());
    }
}
