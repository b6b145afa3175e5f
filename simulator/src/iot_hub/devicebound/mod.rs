//! Cloud-to-device messages
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-messages-c2d.md`).
//!
//! | module | idea |
//! |---|---|
//! | `check` | which messages the hub takes |
//! | `mailbox` | the queue of one device: locks, expiry, outcomes |
//! | `address` | the topic of a delivery, with the message's properties |
//! | `alarms` | which mailbox needs a look when |
//! | `feedback` | the outcomes that senders asked for |
//!
//! A message waits from the moment it is accepted, also for a device that has never connected.
//! (`Azure/azure-sdk-for-c sdk/docs/iot/mqtt_state_machine.md` says that nothing is queued before the first MQTT session,
//! the guide knows no such rule, and a message that is accepted and then lost without an outcome helps nobody.)
//! A CONNECT with clean session 1 discards what waits (the same source); its senders hear `Purged`.

mod address;
mod alarms;
mod check;
mod feedback;
mod mailbox;

use bytes::Bytes;
use time::OffsetDateTime;

pub(super) use address::topic;
pub(super) use alarms::Alarms;
#[cfg(test)]
pub(super) use check::MAX_TOPIC_BYTES;
pub(super) use check::accept;
pub(super) use feedback::Outbox;
pub(super) use mailbox::{Mailbox, Outcome, Token};

/// Which outcomes of a message its sender wants to hear of: the property `iothub-ack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// None.
    #[default]
    None,
    /// That it was completed.
    Positive,
    /// That it expired, was rejected or was delivered too often.
    Negative,
    /// Both.
    Full,
}

impl Ack {
    /// As the property `iothub-ack` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    /// Whether the sender wants to hear of this outcome.
    pub(super) fn asks_for(self, outcome: Outcome) -> bool {
        match self {
            Self::None => false,
            Self::Positive => outcome == Outcome::Completed,
            Self::Negative => outcome != Outcome::Completed,
            Self::Full => true,
        }
    }
}

/// A cloud-to-device message, as a service sends it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudMessage {
    /// Message id; made up by the hub if absent.
    pub message_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// User id.
    pub user_id: Option<String>,
    /// Content type.
    pub content_type: Option<String>,
    /// Content encoding.
    pub content_encoding: Option<String>,
    /// When it expires; the hub's default time to live if absent.
    pub expires_at: Option<OffsetDateTime>,
    /// Which outcomes the sender wants to hear of.
    pub ack: Ack,
    /// Application properties, in order; `None` is null.
    pub properties: Vec<(String, Option<String>)>,
    /// The body.
    pub body: Bytes,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// Id of the message that it is about.
    pub original_message_id: String,
    /// The device it was for.
    pub device_id: String,
    /// The life of the device it was for.
    pub device_generation_id: String,
    /// When it happened.
    pub enqueued_at: OffsetDateTime,
    /// `Success`, `Expired`, `DeliveryCountExceeded`, `Rejected` or `Purged`.
    pub status: &'static str,
}
