//! How long each step may take. The Things Stack gives up after 5 s
//! (`TheThingsNetwork/lorawan-stack cmd/internal/shared/applicationserver/config.go`), and its open-source edition never tries again.

use std::time::Duration;

use tokio::time::Instant;

/// From the request's arrival to the answer, body included: 4 s are promised, the rest is for the way back.
pub(super) const ANSWER: Duration = Duration::from_millis(3900);

/// For the body. The host reads a body with a declared length completely before it calls, so only a chunked one is slow.
pub(super) const BODY: Duration = Duration::from_secs(2);

/// For IoT Hub.
const HUB: Duration = Duration::from_millis(2500);

/// For Event Hubs, where the message is parked or dead-lettered if IoT Hub does not take it.
const PARKING: Duration = Duration::from_millis(1200);

/// When the hub's time is over. A slow body takes from the hub's time, never from the time for parking.
pub(super) fn hub_deadline(arrival: Instant) -> Instant {
    (Instant::now() + HUB).min(arrival + (ANSWER - PARKING))
}

/// When the time for parking is over.
pub(super) fn parking_deadline(arrival: Instant) -> Instant {
    (Instant::now() + PARKING).min(arrival + ANSWER)
}
