//! Delivers a message, or sees to it that it is parked or dead-lettered.

use bytes::Bytes;
use serde_json::Map;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::answer::{Outcome, Receipt, Refusal};
use super::{FUNCTION, UplinkIngress, budget};
use crate::event_hubs::{DeadLetter, Open, ParkedUplink};
use crate::failure::Class;
use crate::stack::{ApplicationUp, without_session_keys};
use crate::uplink_delivery::{Delivered, DeviceHub, Failure, Origin, Refuge, Unfinished, UplinkPlan, dead_letter};

/// What is told of a message over which this program panicked.
const DEFECT: &str = "the message met a defect of this bridge";

/// What became of a message for good.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) outcome: Outcome,
    /// Whether it, or a part of it, was parked.
    pub(super) parked: bool,
    pub(super) reason: Option<String>,
}

impl<H: DeviceHub, R: Refuge> UplinkIngress<H, R> {
    /// Delivers the message; what stays open is parked, what never can be delivered is dead-lettered.
    pub(super) async fn settle(
        &self,
        up: &ApplicationUp,
        plan: &UplinkPlan,
        arrival: Instant,
    ) -> Result<Settled, Refusal> {
        let deadline = budget::hub_deadline(arrival);
        let Delivered { open, never } = self.delivery.deliver(plan, plan.open(), Origin::Live, deadline).await;
        let deadline = budget::parking_deadline(arrival);
        let (parked, buried) = tokio::join!(
            async { if let Some(open) = &open { self.park(up, open, deadline).await } else { Ok(()) } },
            async { if let Some(never) = &never { self.bury(up, never, deadline).await } else { Ok(()) } },
        );
        parked.and(buried)?;
        let is_parked = open.is_some();
        let (outcome, reason) = match (open, never) {
            (_, Some(never)) => (Outcome::DeadLettered, Some(never.reason)),
            (Some(open), None) => (Outcome::Parked, Some(open.reason)),
            (None, None) => (Outcome::Delivered, None),
        };
        Ok(Settled { outcome, parked: is_parked, reason })
    }

    async fn park(&self, up: &ApplicationUp, open: &Unfinished, deadline: Instant) -> Result<(), Refusal> {
        let now = || OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let parked = ParkedUplink {
            body: up.raw.clone(),
            device: up.device.clone(),
            open: open.open,
            attempts: 1,
            // A message without its own time takes its arrival along: it has the same id and time when it is read back.
            first_failed_at: up.arrival().map_or_else(now, str::to_owned),
            first_failure: open.reason.clone(),
        };
        self.refuge.park(&parked, deadline).await.map_err(|failure| unsettled(&open.reason, &failure))
    }

    async fn bury(&self, up: &ApplicationUp, never: &Unfinished, deadline: Instant) -> Result<(), Refusal> {
        let letter = dead_letter(FUNCTION, up, never);
        self.refuge.dead_letter(&letter, deadline).await.map_err(|failure| unsettled(&never.reason, &failure))
    }

    /// Dead-letters a message over which this program panicked: trying it again would only do it again.
    pub(super) async fn settle_panic(&self, up: &ApplicationUp, arrival: Instant) -> Result<Receipt, Refusal> {
        let open = Open { telemetry: true, twin: true, waiting_downlink: true };
        let unfinished = Unfinished { open, class: Class::Poison, reason: DEFECT.to_owned() };
        self.bury(up, &unfinished, budget::parking_deadline(arrival)).await?;
        Ok(Receipt::of(up).with(Settled {
            outcome: Outcome::DeadLettered,
            parked: false,
            reason: Some(DEFECT.to_owned()),
        }))
    }

    /// Dead-letters a body over which this program panicked before it knew what it is. It is not read again.
    pub(super) async fn settle_unread(&self, raw: &Bytes, arrival: Instant) -> Result<Receipt, Refusal> {
        let body = without_session_keys(raw);
        let reason = DEFECT.to_owned();
        let letter = DeadLetter { function: FUNCTION, reason, device_id: None, body, properties: Map::new() };
        match self.refuge.dead_letter(&letter, budget::parking_deadline(arrival)).await {
            Ok(()) => Ok(Receipt::unread(DEFECT.to_owned())),
            Err(failure) => Err(unsettled(DEFECT, &failure)),
        }
    }
}

fn unsettled(first: &str, then: &Failure) -> Refusal {
    Refusal::Unsettled(format!("{first}; then {}", then.reason))
}
