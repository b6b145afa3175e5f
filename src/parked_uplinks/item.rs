//! One event of the parking Event Hub, read.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::FUNCTION;
use crate::config::UplinkConfig;
use crate::event_hubs::{DeadLetter, ParkedUplink};
use crate::functions::{Event, Place};
use crate::ids::{ApplicationId, DeviceId};
use crate::stack::{ApplicationUp, parse_time, without_session_keys};
use crate::uplink_delivery::{Decision, Ignored, UplinkPlan, plan};

/// Where the event stands, if it has a place.
pub(super) type Key = Option<Place>;

/// An event, read.
#[derive(Debug)]
pub(super) enum Item {
    /// An uplink to deliver.
    Work(Box<Work>),
    /// The settings leave it out by now.
    Ignored(Key, Ignored),
    /// No uplink of this application can be made of it.
    Unreadable(Key, DeadLetter),
}

/// An uplink to deliver.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) key: Key,
    pub(super) parked: ParkedUplink,
    pub(super) up: ApplicationUp,
    pub(super) plan: UplinkPlan,
}

impl Item {
    /// Plans a parked uplink afresh: its message is what was parked, the settings are those of today.
    pub(super) fn read(key: Key, parked: ParkedUplink, application: &ApplicationId, config: &UplinkConfig) -> Self {
        let up = match read(&parked, application) {
            Ok(up) => up,
            Err(reason) => {
                let mut unreadable = Self::unreadable(key, reason, &parked.body, Map::new());
                if let Self::Unreadable(_, letter) = &mut unreadable {
                    letter.device_id = Some(parked.device.id.to_string());
                }
                return unreadable;
            }
        };
        match plan(&up, config) {
            Decision::Deliver(plan) => Self::Work(Box::new(Work { key, parked, up, plan: *plan })),
            Decision::Ignore(why) => Self::Ignored(key, why),
        }
    }

    /// Reads an event so that a defect of the reading takes no other event of the batch with it.
    pub(super) fn guarded(key: Key, event: &Event, read: impl FnOnce() -> Self) -> Self {
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
            let reason = "reading the event met a defect of this bridge".to_owned();
            Self::unreadable(key, reason, &event.body, event.properties.clone())
        })
    }

    pub(super) fn unreadable(key: Key, reason: String, body: &Bytes, properties: Map<String, Value>) -> Self {
        let body = without_session_keys(body);
        Self::Unreadable(key, DeadLetter { function: FUNCTION, reason, device_id: None, body, properties })
    }

    pub(super) fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Work(work) => Some(&work.up.device.id),
            Self::Ignored(..) | Self::Unreadable(..) => None,
        }
    }
}

impl Work {
    /// When it failed first: it is parked since then.
    pub(super) fn first_failed_at(&self) -> Option<OffsetDateTime> {
        parse_time(&self.parked.first_failed_at)
    }
}

fn read(parked: &ParkedUplink, application: &ApplicationId) -> Result<ApplicationUp, String> {
    let device = parked.device.id.as_str();
    let mut up = ApplicationUp::parse(parked.body.clone(), Some(device)).map_err(|error| error.to_string())?;
    // A message without its own time arrived when it failed first.
    let arrived_at = parse_time(&parked.first_failed_at).unwrap_or_else(OffsetDateTime::now_utc);
    up.complete(application, arrived_at).map_err(|error| error.to_string())?;
    Ok(up)
}
