//! Flow ParkedUplinks: the same plan and delivery, from the parking Event Hub.
//!
//! An outage fails the batch: the host delivers it again, ever later. An item that fails while others pass goes to the
//! end of the Event Hub with its count, and to the dead letters in the end. Nothing that was delivered is repeated when
//! a batch comes again.

mod attempt;
mod finish;
mod item;
mod progress;
#[cfg(test)]
mod tests;
mod weather;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::config::UplinkConfig;
use crate::event_hubs::{DeadLetter, EventHubs, ParkedUplink};
use crate::functions::{Event, EventHubFunction, Invocation, Outcome};
use crate::ids::{ApplicationId, DeviceId};
use crate::iot_hub::IotHub;
use crate::uplink_delivery::{DeviceHub, Failure, Refuge, UplinkDelivery};
use attempt::Fate;
use item::{Item, Key};
use progress::Progress;
use weather::Weather;

/// The function's name, in dead letters too.
pub const FUNCTION: &str = "ParkedUplinks";

/// Devices that are served at the same time. The pacer holds them to this function's share of the hub.
const PARALLEL_DEVICES: usize = 16;

/// For one event written to Event Hubs.
const REFUGE_TIME: Duration = Duration::from_secs(10);

/// The function ParkedUplinks.
pub struct ParkedUplinks<H = IotHub, R = EventHubs> {
    delivery: Arc<UplinkDelivery<H>>,
    refuge: Arc<R>,
    application: ApplicationId,
    config: UplinkConfig,
    max_attempts: u32,
    progress: Progress,
}

impl<H: DeviceHub, R: Refuge> ParkedUplinks<H, R> {
    /// The function, over what delivers and what keeps the undelivered.
    #[must_use]
    pub fn new(
        delivery: Arc<UplinkDelivery<H>>,
        refuge: Arc<R>,
        application: ApplicationId,
        config: UplinkConfig,
        max_attempts: u32,
    ) -> Self {
        Self { delivery, refuge, application, config, max_attempts, progress: Progress::default() }
    }

    /// Does what can be done now, in order per device, and decides about the rest.
    async fn handle(&self, batch: Batch, items: Vec<Item>) -> Outcome {
        let weather = Weather::new(Instant::now());
        let lanes = futures::stream::iter(by_device(items)).map(|lane| self.serve(lane, &weather));
        let fates: Vec<_> = lanes.buffer_unordered(PARALLEL_DEVICES).concat().await;
        let now = OffsetDateTime::now_utc();
        let tally = self.finish(fates, weather.is_outage(), batch.retry_count, now).await;
        tally.record(&batch, now);
        tally.outcome()
    }

    fn read(&self, key: Key, event: &Event) -> Item {
        match ParkedUplink::from_event(event.body.clone(), &event.properties) {
            Ok(parked) => Item::read(key, parked, &self.application, &self.config),
            Err(reason) => Item::unreadable(key, reason, &event.body, event.properties.clone()),
        }
    }

    async fn serve(&self, lane: Vec<Item>, weather: &Weather) -> Vec<Fate> {
        let mut fates = Vec::with_capacity(lane.len());
        for item in lane {
            fates.push(self.attempt(item, weather).await);
        }
        fates
    }

    async fn bury(&self, letter: &DeadLetter) -> Result<(), Failure> {
        self.refuge.dead_letter(letter, Instant::now() + REFUGE_TIME).await
    }
}

impl<H: DeviceHub, R: Refuge> EventHubFunction for ParkedUplinks<H, R> {
    async fn run(&self, invocation: Invocation) -> Outcome {
        let items = invocation.events.into_iter().map(|event| {
            let key = event.place(&invocation.partition_id);
            Item::guarded(key.clone(), &event, || self.read(key, &event))
        });
        let items: Vec<_> = items.collect();
        self.handle(Batch { partition: invocation.partition_id, retry_count: invocation.retry_count }, items).await
    }
}

/// One delivery of a batch.
#[derive(Debug)]
struct Batch {
    partition: String,
    retry_count: u32,
}

/// One lane per device, each in the order of the batch. What names no device has a lane of its own.
fn by_device(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut lanes: Vec<Vec<Item>> = Vec::new();
    let mut lane_of: HashMap<DeviceId, usize> = HashMap::new();
    for item in items {
        let new = lanes.len();
        let lane = item.device().map_or(new, |device| *lane_of.entry(device.clone()).or_insert(new));
        match lanes.get_mut(lane) {
            Some(lane) => lane.push(item),
            None => lanes.push(vec![item]),
        }
    }
    lanes
}
