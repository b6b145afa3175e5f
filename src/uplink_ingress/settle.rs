//! Delivers a message, or sees to it that it is parked or dead-lettered.

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::answer::{Outcome, Receipt, Refusal};
use super::{FUNCTION, UplinkIngress, budget};
use crate::event_hubs::{Open, ParkedUplink};
use crate::failure::Class;
use crate::stack::ApplicationUp;
use crate::uplink_delivery::{Delivered, DeviceHub, Failure, Origin, Refuge, Unfinished, UplinkPlan, dead_letter};

/// What became of a message for good.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) outcome: Outcome,
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
        let (outcome, reason) = match (open, never) {
            (_, Some(never)) => (Outcome::DeadLettered, Some(never.reason)),
            (Some(open), None) => (Outcome::Parked, Some(open.reason)),
            (None, None) => (Outcome::Delivered, None),
        };
        Ok(Settled { outcome, reason })
    }

    async fn park(&self, up: &ApplicationUp, open: &Unfinished, deadline: Instant) -> Result<(), Refusal> {
        let parked = ParkedUplink {
            body: up.raw.clone(),
            device: up.device.clone(),
            open: open.open,
            attempts: 1,
            first_failed_at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            first_failure: open.reason.clone(),
        };
        self.refuge.park(&parked, deadline).await.map_err(|failure| unsettled(&open.reason, &failure))
    }

    async fn bury(&self, up: &ApplicationUp, never: &Unfinished, deadline: Instant) -> Result<(), Refusal> {
        let letter = dead_letter(FUNCTION, up, never);
        self.refuge.dead_letter(&letter, deadline).await.map_err(|failure| unsettled(&never.reason, &failure))
    }

    /// Dead-letters a message over which this program panicked: trying it again would only do it again.
    pub(super) async fn settle_panic(
        &self,
        raw: &Bytes,
        device: Option<&str>,
        arrival: Instant,
    ) -> Result<Receipt, Refusal> {
        const REASON: &str = "the message met a defect of this bridge";
        let Ok(up) = ApplicationUp::parse(raw.clone(), device) else {
            return Err(Refusal::Unsettled(REASON.to_owned()));
        };
        let open = Open { telemetry: true, twin: true, waiting_downlink: true };
        let unfinished = Unfinished { open, class: Class::Poison, reason: REASON.to_owned() };
        self.bury(&up, &unfinished, budget::parking_deadline(arrival)).await?;
        Ok(Receipt::of(&up).with(Outcome::DeadLettered, Some(REASON.to_owned())))
    }
}

fn unsettled(first: &str, then: &Failure) -> Refusal {
    Refusal::Unsettled(format!("{first}; then {}", then.reason))
}
