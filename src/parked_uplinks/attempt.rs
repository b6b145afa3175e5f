//! One try to deliver a parked uplink.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use super::item::{Item, Work};
use super::progress::{NOTHING, both};
use super::weather::Weather;
use super::{FUNCTION, ParkedUplinks};
use crate::event_hubs::Open;
use crate::failure::Class;
use crate::uplink_delivery::{Delivered, DeviceHub, Origin, Refuge, Unfinished, dead_letter};

/// For one item: far longer than any session takes, so that only an outage uses it up.
const ITEM_TIME: Duration = Duration::from_secs(30);

/// What became of an item.
#[derive(Debug)]
pub(super) enum Fate {
    /// It was delivered.
    Delivered,
    /// The settings leave it out by now.
    Ignored,
    /// It was done with in an earlier delivery of the batch.
    DoneBefore,
    /// It is among the dead letters.
    Buried,
    /// It may succeed later.
    Failed(Box<Work>, String),
    /// It was not tried: nothing gets through, or the time is over.
    Untried(Box<Work>),
    /// It belongs in the dead letters and could not be written there.
    Stuck(String),
}

impl<H: DeviceHub, R: Refuge> ParkedUplinks<H, R> {
    /// Does what is left of one item.
    pub(super) async fn attempt(&self, item: Item, weather: &Weather) -> Fate {
        let mut work = match item {
            Item::Work(work) => work,
            Item::Ignored(key, _) | Item::Unreadable(key, _) if self.progress.left(&key, UNREAD) == NOTHING => {
                return Fate::DoneBefore;
            }
            Item::Ignored(key, why) => {
                tracing::info!(%why, "a parked uplink is ignored");
                self.progress.set(&key, NOTHING);
                return Fate::Ignored;
            }
            Item::Unreadable(key, letter) => {
                let buried = self.bury(&letter).await;
                return buried.map_or_else(
                    |failure| Fate::Stuck(failure.reason),
                    |()| {
                        self.progress.set(&key, NOTHING);
                        Fate::Buried
                    },
                );
            }
        };
        work.parked.open = self.progress.left(&work.key, work.parked.open);
        if work.parked.open == NOTHING {
            return Fate::DoneBefore;
        }
        if weather.is_hopeless() {
            return Fate::Untried(work);
        }
        let delivered = self.deliver(&work).await;
        weather.note(delivered.open.is_none());
        self.conclude(work, delivered).await
    }

    async fn deliver(&self, work: &Work) -> Delivered {
        let open = work.parked.open;
        let delivery = self.delivery.deliver(&work.plan, open, Origin::Parked, Instant::now() + ITEM_TIME);
        AssertUnwindSafe(delivery).catch_unwind().await.unwrap_or_else(|_| {
            let reason = "the message met a defect of this bridge".to_owned();
            Delivered { open: None, never: Some(Unfinished { open, class: Class::Poison, reason }) }
        })
    }

    /// Remembers what was delivered, and buries what never can be.
    async fn conclude(&self, mut work: Box<Work>, Delivered { open, never }: Delivered) -> Fate {
        let left = open.as_ref().map_or(NOTHING, |open| open.open);
        if let Some(never) = &never
            && let Err(failure) = self.bury(&dead_letter(FUNCTION, &work.up, never)).await
        {
            // What is refused stays open: the next try is refused again, and buried then.
            self.progress.set(&work.key, both(left, never.open));
            return Fate::Stuck(failure.reason);
        }
        self.progress.set(&work.key, left);
        work.parked.open = left;
        match open {
            Some(unfinished) => Fate::Failed(work, unfinished.reason),
            None if never.is_some() => Fate::Buried,
            None => Fate::Delivered,
        }
    }
}

/// Stands for what is left of an event that is not delivered.
const UNREAD: Open = Open { telemetry: true, twin: true, waiting_downlink: true };
