//! Simulated end devices: joins, uplinks, and the transmission of what waits for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::error::{ApiError, Code};
use super::webhooks::WebhookAnswer;
use super::{Stack, downlink_item, ids, messages, timestamp};

/// Attempts of a confirmed downlink that asks for no number (`cmd/internal/shared/applicationserver/config.go`).
const DEFAULT_ATTEMPTS: u64 = 8;
/// Bytes of an uplink's payload.
const PAYLOAD_BYTES: usize = 6;

/// What happens to a downlink on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transmission {
    /// The device gets it, and acknowledges it if it is confirmed.
    #[default]
    Acknowledged,
    /// It is sent, but a confirmed one is not acknowledged and goes back into the queue, until its attempts are used up.
    NotAcknowledged,
    /// The Network Server cannot send it.
    Failed,
}

impl Stack {
    /// The device joins: it gets a session, and the webhook a `join_accept`.
    pub async fn join(&self, device: &str) -> WebhookAnswer {
        let message = {
            let mut world = self.shared.world();
            let network = world.registries.network.get(device);
            let may_join = network.is_some_and(|network| network["supports_join"] == json!(true));
            if !(may_join && world.registries.can_join(device) && world.registries.application.contains_key(device)) {
                return WebhookAnswer::not_sent(format!("`{device}` cannot join: it is not registered for it"));
            }
            world.activate_over_the_air(device);
            let end_device_ids = world.end_device_ids(&self.shared.options.application_id, device);
            let session_key_id = world.sessions.get(device).map(|session| session.key_id.clone());
            let content = json!({"session_key_id": session_key_id, "received_at": timestamp::now()});
            messages::message(&end_device_ids, &messages::uplink_correlation_ids(), "join_accept", content)
        };
        self.shared.publish(&message).await
    }

    /// The device sends an uplink.
    pub async fn uplink(&self, device: &str, f_port: u8, decoded_payload: Option<Value>) -> WebhookAnswer {
        match self.compose_uplink(device, f_port, decoded_payload) {
            Some(message) => self.shared.publish(&message).await,
            None => WebhookAnswer::not_sent(format!("`{device}` has no session")),
        }
    }

    /// The next `uplink_message` of a device, unsent; the frame counter goes on. `None`: it has no session.
    #[must_use]
    pub fn compose_uplink(&self, device: &str, f_port: u8, decoded_payload: Option<Value>) -> Option<Value> {
        let mut world = self.shared.world();
        let session = world.sessions.get_mut(device)?;
        let f_cnt = session.f_cnt_up;
        session.f_cnt_up += 1;
        let mut uplink = radio();
        uplink["session_key_id"] = json!(session.key_id);
        uplink["network_ids"] = json!({"net_id": "000013", "tenant_id": "simulator", "cluster_id": "local"});
        // Zero values are left out.
        for (field, value) in [("f_cnt", f_cnt), ("f_port", u32::from(f_port))] {
            if value != 0 {
                uplink[field] = json!(value);
            }
        }
        if let Some(decoded_payload) = decoded_payload {
            uplink["decoded_payload"] = decoded_payload;
        }
        if let Some(versions) = world.registries.application.get(device).map(|known| &known["version_ids"]) {
            uplink["version_ids"] = versions.clone();
        }
        let ids = world.end_device_ids(&self.shared.options.application_id, device);
        drop(world);
        remove_nulls(&mut uplink);
        Some(messages::message(&ids, &messages::uplink_correlation_ids(), "uplink_message", uplink))
    }

    /// Transmits the next downlink of the queue; the device acknowledges it if it is confirmed.
    /// One answer per webhook message; none if the queue is empty.
    pub async fn transmit(&self, device: &str) -> Vec<WebhookAnswer> {
        self.transmit_with(device, Transmission::Acknowledged).await
    }

    /// Transmits the next downlink of the queue, with this outcome.
    pub async fn transmit_with(&self, device: &str, transmission: Transmission) -> Vec<WebhookAnswer> {
        let messages = self.take_downlink(device, transmission).unwrap_or_default();
        let mut answers = Vec::new();
        for message in messages {
            answers.push(self.shared.publish(&message).await);
        }
        answers
    }

    /// What waits for the device.
    #[must_use]
    pub fn queue(&self, device: &str) -> Vec<Value> {
        let world = self.shared.world();
        world.sessions.get(device).map(|session| session.queue.iter().cloned().collect()).unwrap_or_default()
    }

    /// Whether the device has a session.
    #[must_use]
    pub fn has_session(&self, device: &str) -> bool {
        self.shared.world().sessions.contains_key(device)
    }

    fn take_downlink(&self, device: &str, transmission: Transmission) -> Option<Vec<Value>> {
        let mut world = self.shared.world();
        let item = world.sessions.get_mut(device)?.queue.pop_front()?;
        let known = world.registries.application.get(device).cloned().unwrap_or_default();
        let ids = world.end_device_ids(&self.shared.options.application_id, device);
        let shown = downlink_item::as_decoded(&item, &known);
        if transmission == Transmission::Failed {
            return Some(vec![messages::downlink_failed(&ids, shown, &too_long())]);
        }
        let mut all = vec![messages::about_downlink(&ids, "downlink_sent", shown.clone())];
        if item["confirmed"] != json!(true) {
            return Some(all);
        }
        if transmission == Transmission::Acknowledged {
            all.push(answered(&ids, "downlink_ack", shown));
            return Some(all);
        }
        let retry = &item["confirmed_retry"];
        let next = retry["attempt"].as_u64().unwrap_or(1) + 1;
        let limit = retry["max_attempts"].as_u64().unwrap_or(DEFAULT_ATTEMPTS);
        let with_attempt = |mut item: Value| {
            item["confirmed_retry"]["attempt"] = json!(next);
            item
        };
        all.push(answered(&ids, "downlink_nack", with_attempt(shown.clone())));
        if next > limit {
            all.push(messages::downlink_failed(&ids, shown, &max_retries_reached(limit)));
        } else {
            world.sessions.get_mut(device)?.enqueue(with_attempt(item));
        }
        Some(all)
    }
}

/// `downlink_ack` and `downlink_nack` also name the uplink that brought the answer.
fn answered(ids: &Value, kind: &str, item: Value) -> Value {
    let mut message = messages::about_downlink(ids, kind, item);
    let uplink = json!(format!("gs:uplink:{}", ids::ulid()));
    message["correlation_ids"].as_array_mut().into_iter().for_each(|ids| ids.push(uplink.clone()));
    message
}

fn max_retries_reached(limit: u64) -> ApiError {
    let text = "maximum number of retries ({max_retries}) reached";
    ApiError::new(Code::Aborted, "pkg/applicationserver", "max_retries_reached", text).with("max_retries", limit)
}

fn too_long() -> ApiError {
    let text = "application downlink payload length `{length}` exceeds maximum '{max}'";
    ApiError::new(Code::InvalidArgument, "pkg/networkserver", "application_downlink_too_long", text)
        .with("length", 120)
        .with("max", 51)
}

/// The part of an uplink that comes from the radio: payload, gateways, settings.
fn radio() -> Value {
    let now = OffsetDateTime::now_utc();
    let at_gateway = timestamp::format(now - time::Duration::milliseconds(120));
    let ticks: u32 = rand::random();
    let spreading_factor = rand::random_range(7..=10);
    let gateways = (0..rand::random_range(1..=3)).map(|index| gateway(index, ticks, &at_gateway));
    json!({
        "frm_payload": STANDARD.encode(rand::random::<[u8; PAYLOAD_BYTES]>()),
        "rx_metadata": gateways.collect::<Vec<_>>(),
        "settings": {
            "data_rate": {
                "lora": {"bandwidth": 125_000, "spreading_factor": spreading_factor, "coding_rate": "4/5"},
            },
            "frequency": "868300000",
            "timestamp": ticks,
            "time": at_gateway,
        },
        "received_at": timestamp::format(now - time::Duration::milliseconds(90)),
        "consumed_airtime": "0.051456s",
    })
}

fn gateway(index: u8, ticks: u32, at: &str) -> Value {
    let rssi = rand::random_range(-119..=-60);
    json!({
        "gateway_ids": {"gateway_id": format!("roof-{index}"), "eui": format!("58A0CBFFFE80000{index}")},
        "time": at,
        "timestamp": ticks,
        "rssi": rssi,
        "channel_rssi": rssi,
        // Odd quarters: a zero would have to be left out.
        "snr": f64::from(rand::random_range(-20..20_i8) * 2 + 1) / 4.0,
        "location": {"latitude": 52.37, "longitude": 4.89, "altitude": 12, "source": "SOURCE_REGISTRY"},
        "uplink_token": STANDARD.encode(rand::random::<[u8; 24]>()),
        "received_at": at,
    })
}

/// What is not set is left out on the wire. Decoded payloads keep their nulls.
fn remove_nulls(uplink: &mut Value) {
    if let Some(fields) = uplink.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}
