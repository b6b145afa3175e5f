//! The control API of the simulator (`/sim/…`) and the local page, on a port of their own.
//!
//! | module | what it does |
//! |---|---|
//! | `guard` | turns away whoever is not on this machine's own page or command line |
//! | `problem` | errors as JSON, also of addresses and queries; strict bodies |
//! | `state` | `GET /sim/world`, `GET /sim/state`, `GET /sim/token` |
//! | `sse` | `GET /sim/events` |
//! | `devices` | `/sim/devices/{id}/…` |
//! | `lorawan` | `/sim/stack/…`: uplinks, and the transmission of downlinks |
//! | `faults` | `/sim/faults`: rules that strike single exchanges |
//! | `switches` | `/sim/switches`: services that are away as a whole; `/sim/clock`; `/sim/handler/…` |
//! | `page` | the page at `/`, which is in the program |
//!
//! It is for the user of this machine only: it listens on 127.0.0.1, and `GET /sim/world` tells all keys.

mod devices;
mod faults;
mod guard;
mod lorawan;
mod page;
mod problem;
mod sse;
mod state;
mod switches;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post, put};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::world::{StartError, World};
use problem::Problem;

/// Largest body of a call.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Streams of events that are open at once.
const MAX_READERS: usize = 16;
/// How long open calls may go on after the end.
const DRAIN: Duration = Duration::from_secs(5);

/// What all calls share.
#[derive(Clone)]
struct App {
    world: Arc<World>,
    /// Tells this run's happenings from those of an earlier one.
    run: Arc<str>,
    readers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The running control API. It ends when dropped, or on [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Control {
    addr: SocketAddr,
    server: JoinHandle<()>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Control {
    /// Serves the world on this port of 127.0.0.1; 0 takes a free one.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn start(port: u16, world: Arc<World>) -> Result<Self, StartError> {
        let taken = |error| format!("listen on 127.0.0.1:{port}: {error}; choose another --control-port, or 0");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(taken)?;
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let run = uuid::Uuid::new_v4().simple().to_string().into();
        let readers = Arc::new(Semaphore::new(MAX_READERS));
        let router = router(App { world, run, readers, stop: stop.clone() });
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the control API stopped");
            }
        });
        Ok(Self { addr, server, stop: stop.clone(), _stop_on_drop: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the page.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://localhost:{}/", self.addr.port())
    }

    /// Ends the streams, lets open calls finish for up to 5 s, and gives the port back.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(DRAIN, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/sim/world", get(state::world))
        .route("/sim/state", get(state::state))
        .route("/sim/token", get(state::token))
        .route("/sim/events", get(sse::events))
        .route("/sim/faults", get(faults::list).post(faults::add).delete(faults::clear))
        .route("/sim/faults/{id}", delete(faults::remove))
        .route("/sim/clock", post(switches::skew_clock))
        .route("/sim/devices/{id}/enable", post(devices::enable))
        .route("/sim/devices/{id}/disable", post(devices::disable))
        .route("/sim/devices/{id}/takeover", post(devices::take_over))
        .route("/sim/devices/{id}/desired", put(devices::patch_desired).patch(devices::patch_desired))
        .route("/sim/stack/uplink", post(lorawan::uplink))
        .route("/sim/stack/transmit", post(lorawan::transmit))
        .route("/sim/switches", put(switches::set).delete(switches::clear))
        .route("/sim/handler/kill", post(switches::kill_handler))
        .route("/sim/handler/lose", post(switches::lose_instance))
        .merge(page::routes())
        .fallback(|| async { Problem::not_found("there is nothing here; the page is at /, the API below /sim/") })
        .method_not_allowed_fallback(|| async { Problem::new(405, "this address knows other methods") })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(guard::guard))
        .with_state(app)
}
