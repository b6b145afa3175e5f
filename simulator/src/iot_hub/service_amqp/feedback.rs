//! Feedback on its way back: several receivers compete, and what nobody settles comes again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fe2o3_amqp::Sender;
use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp_types::messaging::{Data, Message, Outcome, Properties};
use fe2o3_amqp_types::primitives::{Binary, Symbol};
use serde_json::json;
use tokio::sync::Notify;

use super::super::Feedback;
use super::super::twin::timestamp;
use super::Devicebound;
use crate::amqp::LinkRight;

/// What libraries look for (`Azure/azure-iot-sdk-csharp iothub/service/src/Common/CommonConstants.cs`).
const CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.feedback.json";
/// How long a receiver may take before its feedback goes to another one (lock duration of feedback, default).
const LOCK: Duration = Duration::from_secs(60);
/// How long a receiver without credit may hold feedback before others get their turn.
const TURN: Duration = Duration::from_secs(1);
/// Batches that wait for a second try. The oldest goes when there are more.
const MAX_WAITING: usize = 1000;

/// Feedback that was taken from the hub and that no receiver has settled yet.
#[derive(Debug)]
pub(super) struct Outbox<H> {
    hub: Arc<H>,
    waiting: Mutex<VecDeque<Vec<Feedback>>>,
    returned: Notify,
}

/// A batch in the hands of one receiver; it goes back unless it is settled.
struct Lease<'a, H> {
    outbox: &'a Outbox<H>,
    batch: Vec<Feedback>,
}

impl<H> Lease<'_, H> {
    fn settle(mut self) {
        self.batch.clear();
    }
}

impl<H> Drop for Lease<'_, H> {
    fn drop(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut waiting = self.outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_front(std::mem::take(&mut self.batch));
        if waiting.len() > MAX_WAITING {
            waiting.pop_back();
            tracing::warn!("feedback is lost: nobody has settled {MAX_WAITING} batches");
        }
        drop(waiting);
        self.outbox.returned.notify_one();
    }
}

impl<H: Devicebound> Outbox<H> {
    pub(super) fn new(hub: Arc<H>) -> Self {
        Self { hub, waiting: Mutex::default(), returned: Notify::new() }
    }

    async fn next(&self) -> Lease<'_, H> {
        loop {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(batch) = waiting {
                return Lease { outbox: self, batch };
            }
            tokio::select! {
                batch = self.hub.feedback() => if !batch.is_empty() {
                    return Lease { outbox: self, batch };
                },
                () = self.returned.notified() => {}
            }
        }
    }

    /// Gives feedback to a receiver until its link or its token ends.
    pub(super) async fn serve(self: Arc<Self>, mut link: Sender, right: LinkRight) {
        let why = tokio::select! {
            reason = self.give(&mut link) => return tracing::debug!(reason, "a receiver of feedback ended"),
            why = right.end() => why,
        };
        if let Err(error) = link.close_with_error(why).await {
            tracing::debug!(%error, "a receiver of feedback was gone before it was sent away");
        }
    }

    /// Returns why the link ended.
    async fn give(&self, link: &mut Sender) -> String {
        loop {
            let lease = tokio::select! {
                lease = self.next() => lease,
                ended = link.on_detach() => return ended.to_string(),
            };
            let sendable = Sendable { message: message(&lease.batch), message_format: 0, settled: Some(false) };
            // Waits for credit.
            let sent = match tokio::time::timeout(TURN, link.send_batchable(sendable)).await {
                Ok(Ok(sent)) => sent,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => {
                    drop(lease);
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            tokio::select! {
                settled = tokio::time::timeout(LOCK, sent) => match settled {
                    Ok(Ok(Outcome::Accepted(_) | Outcome::Rejected(_))) => lease.settle(),
                    Ok(Ok(_)) | Err(_) => drop(lease),
                    Ok(Err(error)) => return error.to_string(),
                },
                ended = link.on_detach() => return ended.to_string(),
            }
        }
    }
}

fn message(batch: &[Feedback]) -> Message<Data> {
    let records: Vec<_> = batch
        .iter()
        .map(|feedback| {
            json!({
                "originalMessageId": feedback.original_message_id,
                "enqueuedTimeUtc": timestamp(feedback.enqueued_at),
                "statusCode": feedback.status,
                "description": feedback.status,
                "deviceId": feedback.device_id,
                "deviceGenerationId": feedback.device_generation_id,
            })
        })
        .collect();
    let properties = Properties {
        message_id: Some(uuid::Uuid::new_v4().to_string().into()),
        content_type: Some(Symbol::from(CONTENT_TYPE)),
        content_encoding: Some(Symbol::from("utf-8")),
        ..Properties::default()
    };
    let body = serde_json::Value::from(records).to_string();
    Message::builder().properties(properties).body(Data(Binary::from(body.into_bytes()))).build()
}
