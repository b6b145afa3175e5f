//! The downlink queue of a device
//! (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/applicationserver.proto`, `pkg/applicationserver/payload.go`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Server, Stack};
use super::error::StackError;
use crate::ids::DeviceId;

/// How a downlink joins the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOperation {
    /// Behind what waits.
    Push,
    /// In place of what waits.
    Replace,
}

/// One application downlink.
#[derive(Clone, Debug, PartialEq)]
pub struct Downlink {
    /// FPort, 1 to 223 or 225 to 255; an encoder may supply it.
    pub f_port: Option<u8>,
    /// Raw bytes.
    pub frm_payload: Option<Vec<u8>>,
    /// What the payload formatter encodes.
    pub decoded_payload: Option<Map<String, Value>>,
    /// Whether the device shall confirm it.
    pub confirmed: bool,
    /// Comes back in every message about this downlink; at most 100 characters.
    pub correlation_id: String,
}

impl Downlink {
    fn to_json(&self) -> Value {
        let mut downlink = json!({"priority": "NORMAL", "correlation_ids": [self.correlation_id]});
        if let Some(f_port) = self.f_port {
            downlink["f_port"] = json!(f_port);
        }
        if let Some(bytes) = &self.frm_payload {
            downlink["frm_payload"] = json!(STANDARD.encode(bytes));
        }
        if let Some(decoded) = &self.decoded_payload {
            downlink["decoded_payload"] = json!(decoded);
        }
        if self.confirmed {
            downlink["confirmed"] = json!(true);
        }
        downlink
    }
}

impl Stack {
    /// Queues a downlink.
    ///
    /// # Errors
    /// If the device has no session, the downlink is refused, or the server does not answer.
    pub async fn queue_downlink(
        &self,
        device: &DeviceId,
        op: QueueOperation,
        downlink: &Downlink,
    ) -> Result<(), StackError> {
        let verb = match op {
            QueueOperation::Push => "push",
            QueueOperation::Replace => "replace",
        };
        let what = format!("queueing a downlink of `{device}`");
        let body = json!({"downlinks": [downlink.to_json()]});
        let path = format!("devices/{device}/down/{verb}");
        self.call(Method::POST, (Server::Application, &path), Some(&body), &what).await.map(drop)
    }

    /// Whether the queue of the device holds a downlink with this correlation id. A device without session or registration has
    /// no queue.
    ///
    /// # Errors
    /// If the server refuses to tell or does not answer.
    pub async fn is_queued(&self, device: &DeviceId, correlation_id: &str) -> Result<bool, StackError> {
        let what = format!("reading the downlink queue of `{device}`");
        let path = format!("devices/{device}/down");
        let queue = match self.call(Method::GET, (Server::Application, &path), None, &what).await {
            Ok(queue) => queue,
            Err(error) if error.is_no_session() || error.is_device_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        let downlinks = queue["downlinks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids = |downlink: &Value| downlink["correlation_ids"].as_array().cloned().unwrap_or_default();
        Ok(downlinks.iter().any(|downlink| ids(downlink).iter().any(|id| id == correlation_id)))
    }
}
