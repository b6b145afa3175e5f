//! One lane per device, and a bound on all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::ask::{Ask, Order, Reply};
use super::lane::{Inbox, Lane, Shared};

use super::pace::Pace;
use super::{Flight, HubError, Landing};
use crate::ids::{DeviceId, EndDevice};
use crate::lock::lock;

/// Sessions open at once. One costs about 40 KB, most of it TLS; past about a thousand sockets to one address, platforms
/// run out of source ports (`Azure/azure-sdk-for-net#5106`).
pub(super) const MAX_SESSIONS: usize = 1000;

/// Flights in this instance, flying or waiting: what a webhook's budget can deliver at the rate of an S3 unit.
const MAX_FLIGHTS: usize = 4096;

/// Orders of one device that wait while its session opens. A device sends a few uplinks a minute.
const MAX_WAITING_PER_DEVICE: usize = 64;

/// Time for the open sessions to end when the client is closed. The host gives little more before it kills.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The sessions of one hub.
pub(super) struct Pool {
    pub(super) shared: Arc<Shared>,
    lanes: Mutex<HashMap<DeviceId, mpsc::Sender<Box<Order>>>>,
    flights: Semaphore,
    tasks: TaskTracker,
}

impl Pool {
    pub(super) fn new(shared: Shared) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(shared),
            lanes: Mutex::default(),
            flights: Semaphore::new(MAX_FLIGHTS),
            tasks: TaskTracker::new(),
        })
    }

    /// Makes the flight and returns by the deadline.
    pub(super) async fn fly(
        self: &Arc<Self>,
        device: &EndDevice,
        mut flight: Flight,
        deadline: Instant,
        pace: &Arc<Pace>,
    ) -> Landing {
        let id = &device.id;
        let mut landing = Landing::default();
        if let Some(message) = flight.telemetry.take_if(|message| !message.fits(&self.shared.prefix.identity_of(id))) {
            landing.telemetry = Some(Err(HubError::TooLarge { device: id.clone(), size: message.size() }));
        }
        let (telemetry, acknowledged) = flight.telemetry.map(|what| Ask::new(what, deadline, pace)).unzip();
        let (twin, answered) = flight.twin.map(|what| Ask::new(what, deadline, pace)).unzip();
        if telemetry.is_none() && twin.is_none() {
            return landing;
        }
        let place = self.flights.try_acquire().map_err(|_| HubError::Busy { device: id.clone() });
        let sent = place.and_then(|place| self.hand_over(device, Order { telemetry, twin }).map(|()| place));
        if let Err(error) = sent {
            landing.telemetry = landing.telemetry.or(acknowledged.map(|_| Err(error.clone())));
            landing.twin = answered.map(|_| Err(error));
            return landing;
        }
        let (acknowledged, answered) = tokio::join!(
            answer(acknowledged, id, "PUBACK", deadline),
            answer(answered, id, "answer of the twin", deadline)
        );
        landing.telemetry = landing.telemetry.or(acknowledged);
        landing.twin = answered;
        landing
    }

    /// Gives the order to the device's lane, and opens a lane if there is none.
    fn hand_over(self: &Arc<Self>, device: &EndDevice, order: Order) -> Result<(), HubError> {
        if self.shared.closing.is_cancelled() {
            return Err(HubError::Closed);
        }
        let mut order = Box::new(order);
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get(&device.id) {
            order = match lane.try_send(order) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => return Err(HubError::Busy { device: device.id.clone() }),
                // Its task has panicked: it gets a new one.
                Err(mpsc::error::TrySendError::Closed(order)) => order,
            };
        }
        let (sender, inbox) = mpsc::channel(MAX_WAITING_PER_DEVICE);
        // The channel is new and empty, and its other end is in this function.
        let _ = sender.try_send(order);
        lanes.insert(device.id.clone(), sender);
        let lane = Lane::new(Arc::clone(&self.shared), device.clone(), inbox);
        let (pool, id) = (Arc::clone(self), device.id.clone());
        self.tasks.spawn(lane.run(move |inbox| pool.retire(&id, inbox)));
        Ok(())
    }

    /// Takes a lane with an empty inbox out of the pool. Orders are handed over under the same lock: none is lost between.
    fn retire(&self, id: &DeviceId, inbox: &mut Inbox) -> Option<Box<Order>> {
        let mut lanes = lock(&self.lanes);
        let order = inbox.try_recv().ok();
        if order.is_none() {
            lanes.remove(id);
        }
        order
    }

    /// Takes no more flights and ends every session in order.
    pub(super) async fn close(&self) {
        self.shared.closing.cancel();
        self.tasks.close();
        if timeout(CLOSE_LIMIT, self.tasks.wait()).await.is_err() {
            debug!(lanes = self.tasks.len(), "sessions were still open at the end");
        }
    }
}

async fn answer<A>(
    reply: Option<Reply<A>>,
    id: &DeviceId,
    what: &'static str,
    deadline: Instant,
) -> Option<Result<A, HubError>> {
    let late = || HubError::Timeout { device: id.clone(), what };
    // A reply that is dropped was forgotten at its deadline, or its lane has panicked.
    Some(timeout_at(deadline, reply?).await.map_or_else(|_| Err(late()), |reply| reply.unwrap_or_else(|_| Err(late()))))
}
