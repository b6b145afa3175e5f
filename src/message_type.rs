//! The types of messages of The Things Stack: what its client reads and what the settings choose from.

/// The eleven message types of an `ApplicationUp`
/// (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/messages.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the key of its message")]
pub enum MessageType {
    UplinkMessage,
    UplinkNormalized,
    JoinAccept,
    DownlinkAck,
    DownlinkNack,
    DownlinkSent,
    DownlinkFailed,
    DownlinkQueued,
    DownlinkQueueInvalidated,
    LocationSolved,
    ServiceData,
}

impl MessageType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::UplinkMessage,
        Self::UplinkNormalized,
        Self::JoinAccept,
        Self::DownlinkAck,
        Self::DownlinkNack,
        Self::DownlinkSent,
        Self::DownlinkFailed,
        Self::DownlinkQueued,
        Self::DownlinkQueueInvalidated,
        Self::LocationSolved,
        Self::ServiceData,
    ];

    /// The key under which the message stands in an `ApplicationUp`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::UplinkMessage => "uplink_message",
            Self::UplinkNormalized => "uplink_normalized",
            Self::JoinAccept => "join_accept",
            Self::DownlinkAck => "downlink_ack",
            Self::DownlinkNack => "downlink_nack",
            Self::DownlinkSent => "downlink_sent",
            Self::DownlinkFailed => "downlink_failed",
            Self::DownlinkQueued => "downlink_queued",
            Self::DownlinkQueueInvalidated => "downlink_queue_invalidated",
            Self::LocationSolved => "location_solved",
            Self::ServiceData => "service_data",
        }
    }

    /// The type whose key this is.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == key)
    }
}
