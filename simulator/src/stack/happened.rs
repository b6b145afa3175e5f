//! What The Things Stack tells of its webhook calls and downlinks.

use serde_json::{Value, json};

use super::Shared;
use super::webhooks::{Body, Delivery, WebhookAnswer};
use crate::happenings::{Kind, bounded, excerpt};

impl Shared {
    pub(super) fn tell_call(&self, delivery: &Delivery<'_>, answer: &WebhookAnswer) {
        let device = delivery.end_device_ids["device_id"].as_str();
        self.options.happenings.note(Kind::Uplink, device, || {
            let outcome = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default()["outcome"].take();
            let verdict = match (answer.status, outcome.as_str()) {
                (Some(status), Some(outcome)) => format!("{status} {outcome}"),
                (Some(status), None) => status.to_string(),
                (None, _) => "no answer".to_owned(),
            };
            let detail = json!({
                "type": delivery.kind,
                "status": answer.status,
                "outcome": outcome,
                "error": answer.error,
                "answer": excerpt(&answer.body),
                "took_ms": u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX),
                "message": content(delivery),
            });
            (format!("{} → {verdict}", delivery.kind), detail)
        });
    }

    pub(super) fn tell_downlink(&self, kind: &str, message: &Value) {
        let Some(state) = downlink_state(kind) else { return };
        let device = message["end_device_ids"]["device_id"].as_str();
        self.options.happenings.note(Kind::Downlink, device, || {
            let content = &message[kind];
            let item = if content["downlink"].is_object() { &content["downlink"] } else { content };
            let error = content["error"].as_object().map(|_| describe(&content["error"]));
            let title = match &error {
                Some(error) => format!("downlink {state}: {error}"),
                None => format!("downlink {state}"),
            };
            let detail = json!({
                "state": state,
                "error": error,
                "correlation_ids": item["correlation_ids"],
                "f_port": item["f_port"],
                "f_cnt": item["f_cnt"],
                "confirmed": item["confirmed"],
                "attempt": item["confirmed_retry"]["attempt"],
                "frm_payload": item["frm_payload"],
                "decoded_payload": bounded(&item["decoded_payload"]),
            });
            (title, detail)
        });
    }
}

fn downlink_state(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "downlink_queued" => "queued",
        "downlink_sent" => "sent",
        "downlink_ack" => "acknowledged",
        "downlink_nack" => "not_acknowledged",
        "downlink_failed" => "failed",
        "downlink_queue_invalidated" => "invalidated",
        _ => return None,
    })
}

/// The telling members of a message: not the radio's, and no session key.
fn content(delivery: &Delivery<'_>) -> Value {
    let parsed;
    let message = match delivery.body {
        Body::Message(message) => message,
        Body::Bytes(bytes) => {
            parsed = serde_json::from_slice(bytes).unwrap_or_default();
            &parsed
        }
    };
    let content = &message[delivery.kind];
    json!({
        "f_port": content["f_port"],
        "f_cnt": content["f_cnt"],
        "decoded_payload": bounded(&content["decoded_payload"]),
        "frm_payload": content["frm_payload"].as_str().map(|text| excerpt(text.as_bytes())),
    })
}

/// The sentence of an error, with its attributes in their places.
fn describe(error: &Value) -> String {
    let mut text = error["message_format"].as_str().unwrap_or("no reason given").to_owned();
    for (name, value) in error["attributes"].as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_a_sentence() {
        let error =
            json!({"message_format": "length `{length}` exceeds '{max}'", "attributes": {"length": 120, "max": "51"}});
        assert_eq!(describe(&error), "length `120` exceeds '51'");
    }
}
