//! The hub's addresses, kept for a short while: looking them up costs a blocking call per session otherwise.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::lock::lock;

/// How long addresses are kept. The hub's name has a time to live of minutes; a failed connection looks it up at once.
const KEPT: Duration = Duration::from_secs(60);

/// Time for one address to take the connection, so that a second one is still tried within a webhook's budget.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Time for a look-up while older addresses are known: they seldom change, and a resolver that hangs does so for seconds.
const LOOK_UP_PATIENCE: Duration = Duration::from_millis(200);

/// A host and where it was found.
pub(super) struct Address {
    host: String,
    port: u16,
    known: Arc<Mutex<Known>>,
}

/// What look-ups have found.
#[derive(Default)]
struct Known {
    /// The last that were found; a fallback when they are old.
    addresses: Vec<SocketAddr>,
    /// When they were found, unless they have failed since.
    at: Option<Instant>,
    running: Option<LookUp>,
}

/// A look-up that all who need it wait for. It runs in a task: `getaddrinfo` goes on in its thread anyway when a caller gives
/// up, and the next caller would begin another.
type LookUp = Shared<BoxFuture<'static, Result<Vec<SocketAddr>, Arc<io::Error>>>>;

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, known: Arc::default() }
    }

    /// Connects to the first address that answers.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = no_address();
        for address in self.addresses().await? {
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
        lock(&self.known).at = None;
        Err(failure)
    }

    /// The addresses found last if they are fresh, or else by a look-up; old ones if that fails or takes long.
    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let (old, look_up) = {
            let mut known = lock(&self.known);
            if known.at.is_some_and(|at| at.elapsed() < KEPT) {
                return Ok(known.addresses.clone());
            }
            (known.addresses.clone(), self.look_up(&mut known))
        };
        if old.is_empty() {
            return look_up.await.map_err(|error| io::Error::new(error.kind(), error));
        }
        match timeout(LOOK_UP_PATIENCE, look_up).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => debug!(host = self.host, %error, "look-up failed; the last known addresses stay in use"),
            Err(_) => debug!(host = self.host, "look-up takes long; the last known addresses stay in use"),
        }
        Ok(old)
    }

    /// The look-up that runs, or a new one.
    fn look_up(&self, known: &mut Known) -> LookUp {
        // One with an outcome is still here only if its task was ended early.
        if let Some(running) = known.running.as_ref().filter(|running| running.peek().is_none()) {
            return running.clone();
        }
        let (host, port, known_later) = (self.host.clone(), self.port, Arc::clone(&self.known));
        let task = tokio::spawn(async move {
            let found = lookup_host((host, port)).await.map(Vec::from_iter);
            lock(&known_later).settle(found)
        });
        let outcome = async { task.await.unwrap_or_else(|error| Err(Arc::new(io::Error::other(error)))) };
        known.running.insert(outcome.boxed().shared()).clone()
    }
}

impl Known {
    /// Ends the look-up. One that found nothing leaves the addresses as they are.
    fn settle(&mut self, found: io::Result<Vec<SocketAddr>>) -> Result<Vec<SocketAddr>, Arc<io::Error>> {
        self.running = None;
        let found = found.and_then(|found| if found.is_empty() { Err(no_address()) } else { Ok(found) })?;
        self.at = Some(Instant::now());
        self.addresses.clone_from(&found);
        Ok(found)
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the host name has no address")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A name that no resolver needs to be asked for: a label must not be empty.
    const NO_HOST: &str = "no..host";

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let bound = listener.local_addr().expect("bound");
        (listener, bound)
    }

    #[tokio::test]
    async fn an_address_is_kept_until_it_fails() {
        let (listener, bound) = listener().await;
        let address = Address::new("localhost", bound.port());
        address.connect().await.expect("someone listens");
        assert!(lock(&address.known).at.is_some());
        drop(listener);
        address.connect().await.expect_err("nobody listens");
        assert!(lock(&address.known).at.is_none());
    }

    #[tokio::test]
    async fn a_look_up_outlives_its_caller_and_serves_the_next() {
        let (_listener, bound) = listener().await;
        let address = Address::new("localhost", bound.port());
        assert!(address.connect().now_or_never().is_none(), "the caller gives up at its first look");
        let running = lock(&address.known).running.clone().expect("it runs on");
        let second = address.look_up(&mut lock(&address.known));
        assert!(running.ptr_eq(&second), "one look-up at a time");
        drop(second);
        running.await.expect("localhost has an address");
        let known = lock(&address.known);
        assert!(known.at.is_some() && known.running.is_none());
    }

    #[tokio::test]
    async fn old_addresses_serve_when_the_look_up_fails() {
        let (_listener, bound) = listener().await;
        let address = Address::new(NO_HOST, bound.port());
        address.connect().await.expect_err("nothing is known");
        lock(&address.known).addresses = vec![bound];
        for _ in 0..2 {
            address.connect().await.expect("the last known address is tried");
            assert!(lock(&address.known).at.is_none(), "the next caller looks again");
        }
    }
}
