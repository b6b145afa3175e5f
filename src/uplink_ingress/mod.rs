//! Flow UplinkIngress: authorise → decode → plan → deliver → answer.
//!
//! A webhook is answered within 4 s, whatever IoT Hub does. 2xx means: delivered, parked, dead-lettered
//! or deliberately ignored. 4xx is for a request that no message can be made of, 503 for one that is neither delivered
//! nor parked; every answer but 2xx counts towards the suspension of the whole webhook.

mod answer;
mod authorise;
mod body;
mod budget;
mod once;
mod settle;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::FutureExt as _;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::config::UplinkConfig;
use crate::event_hubs::EventHubs;
use crate::functions::drain_body;
use crate::ids::{ApplicationId, DeviceId};
use crate::iot_hub::IotHub;
use crate::message_type::MessageType;
use crate::stack::ApplicationUp;
use crate::uplink_delivery::{Decision, DeviceHub, Refuge, UplinkDelivery, plan};
use answer::{Outcome, Receipt, Refusal};
use authorise::Authorise;
use once::Once;
use settle::Settled;

/// The function's name, in dead letters too.
pub const FUNCTION: &str = "UplinkIngress";

/// The function UplinkIngress.
pub struct UplinkIngress<H = IotHub, R = EventHubs> {
    delivery: Arc<UplinkDelivery<H>>,
    refuge: Arc<R>,
    application: ApplicationId,
    config: UplinkConfig,
    authorise: Authorise,
    once: Once,
}

impl<H: DeviceHub, R: Refuge> UplinkIngress<H, R> {
    /// The function, over what delivers and what keeps the undelivered.
    #[must_use]
    pub fn new(
        delivery: Arc<UplinkDelivery<H>>,
        refuge: Arc<R>,
        application: ApplicationId,
        config: UplinkConfig,
    ) -> Self {
        let authorise = Authorise::new(&config.webhook_secrets);
        let once = Once::new(config.dedupe_window);
        Self { delivery, refuge, application, config, authorise, once }
    }

    /// Its routes. The Things Stack appends a slash where the path of a message type is `/`.
    pub fn routes(self) -> Router {
        const PATHS: [&str; 4] = ["/api/uplink", "/api/uplink/", "/api/uplink/{device}", "/api/uplink/{device}/"];
        let routes = PATHS.into_iter().fold(Router::new(), |routes, path| routes.route(path, post(receive)));
        routes.with_state(Arc::new(self))
    }

    /// Takes a body from its bytes to its receipt, and a panic on the way to the dead letters.
    async fn process(&self, raw: Bytes, device: Option<&str>, arrival: Instant) -> Result<Receipt, Refusal> {
        let arrived_at = OffsetDateTime::now_utc();
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(raw.clone(), device, arrived_at)));
        let result = match decoded {
            Ok(Ok(up)) => {
                let settled = AssertUnwindSafe(self.plan_and_settle(&up, arrival)).catch_unwind().await;
                // The message is not read afresh: it keeps the id and the time that it has.
                if let Ok(result) = settled { result } else { self.settle_panic(&up, arrival).await }
            }
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => self.settle_unread(&raw, arrival).await,
        };
        record(&result, arrival);
        result
    }

    fn decode(&self, raw: Bytes, device: Option<&str>, arrived_at: OffsetDateTime) -> Result<ApplicationUp, Refusal> {
        let mut up = ApplicationUp::parse(raw, device)?;
        up.complete(&self.application, arrived_at)?;
        Ok(up)
    }

    async fn plan_and_settle(&self, up: &ApplicationUp, arrival: Instant) -> Result<Receipt, Refusal> {
        let receipt = Receipt::of(up);
        match plan(up, &self.config) {
            Decision::Ignore(why) => {
                let reason = Some(why.to_string());
                Ok(receipt.with(Settled { outcome: Outcome::Ignored, parked: false, reason }))
            }
            Decision::Deliver(plan) => {
                let settled = self.once.run(&plan.message_id, self.settle(up, &plan, arrival)).await?;
                Ok(receipt.with(settled))
            }
        }
    }
}

async fn receive<H: DeviceHub, R: Refuge>(
    State(ingress): State<Arc<UplinkIngress<H, R>>>,
    device: Option<Path<String>>,
    request: Request,
) -> Response {
    let arrival = Instant::now();
    let (head, body) = request.into_parts();
    let raw = match ingress.authorise.admit(&head.headers).and_then(|()| body::check(&head.headers)) {
        Ok(()) => body::read(body, arrival + budget::BODY).await,
        Err(refusal) => {
            drain_body(body).await;
            Err(refusal)
        }
    };
    let raw = match raw {
        Ok(raw) => raw,
        Err(refusal) => {
            record(&Err(refusal.clone()), arrival);
            return refusal.into_response();
        }
    };
    // In a task of its own: the proxy drops the connection of a caller that gives up, the message goes on.
    let task =
        tokio::spawn(async move { ingress.process(raw, device.as_ref().map(|Path(id)| id.as_str()), arrival).await });
    match tokio::time::timeout_at(arrival + budget::ANSWER, task).await {
        Ok(Ok(Ok(receipt))) => receipt.into_response(),
        Ok(Ok(Err(refusal))) => refusal.into_response(),
        Ok(Err(_)) => Refusal::Unsettled("the message met a defect of this bridge".to_owned()).into_response(),
        Err(_) => Refusal::Unsettled("neither IoT Hub nor Event Hubs answered in time".to_owned()).into_response(),
    }
}

/// One line per webhook, without anything of the payload.
fn record(result: &Result<Receipt, Refusal>, arrival: Instant) {
    let ms = u64::try_from(arrival.elapsed().as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(receipt) => {
            let (device, kind) =
                (receipt.device.as_ref().map(DeviceId::as_str), receipt.kind.map_or("unknown", MessageType::key));
            let (outcome, parked, reason) = (receipt.outcome.name(), receipt.parked, receipt.reason.as_deref());
            tracing::info!(device, "type" = kind, outcome, parked, reason, ms, "webhook");
        }
        Err(refusal) => {
            tracing::warn!(outcome = "refused", status = refusal.status().as_u16(), reason = %refusal, ms, "webhook")
        }
    }
}
