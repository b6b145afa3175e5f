//! Webhooks: one request per message, no second try
//! (`TheThingsNetwork/lorawan-stack pkg/applicationserver/io/web/request.go`, `sink/http.go`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::messages::{self, MESSAGE_TYPES};
use super::url::webhook_url;
use super::{Shared, field_mask};

/// One attempt, from connect to the end of the answer (`cmd/internal/shared/applicationserver/config.go`).
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// As release 3.32.1 names itself.
const AGENT: &str = "TheThingsStack/3.32.1 (linux/amd64)";

/// A webhook as its owner sets it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// RFC 6570 template of its address; with empty paths its query is kept.
    pub base_url: String,
    /// Headers of its own, such as an access key.
    pub headers: Vec<(String, String)>,
    /// The message types that it wants, each with its path.
    pub paths: BTreeMap<String, String>,
    /// The fields that it wants; empty: all.
    pub field_mask: Vec<String>,
    /// Sent as `X-Downlink-Apikey`, and `X-Downlink-Push` and `-Replace` with it.
    pub downlink_api_key: Option<String>,
}

impl Webhook {
    /// A webhook for all message types, with empty paths.
    #[must_use]
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            headers: Vec::new(),
            paths: MESSAGE_TYPES.into_iter().map(|kind| (kind.to_owned(), String::new())).collect(),
            field_mask: Vec::new(),
            downlink_api_key: None,
        }
    }

    /// As the registry stores it.
    pub(super) fn document(&self) -> Value {
        let headers: BTreeMap<_, _> = self.headers.iter().cloned().collect();
        let mut document = json!({
            "base_url": self.base_url,
            "format": "json",
            "headers": headers,
            "field_mask": {"paths": self.field_mask},
            "downlink_api_key": self.downlink_api_key,
        });
        for (kind, path) in &self.paths {
            document[kind] = json!({"path": path});
        }
        document
    }
}

/// What became of one webhook request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// The status; `None`: no answer.
    pub status: Option<u16>,
    /// The body of the answer, as far as it came.
    pub body: Vec<u8>,
    /// From connect to the end of the answer.
    pub took: Duration,
    /// Why there is no answer.
    pub error: Option<String>,
}

impl WebhookAnswer {
    /// Nothing was sent, for this reason.
    pub(super) fn not_sent(reason: impl Into<String>) -> Self {
        Self { error: Some(reason.into()), ..Self::default() }
    }

    /// 200 to 299, as The Things Stack counts success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// The part of a message that a field mask lets through; paths of other message types do not count.
fn masked(message: &Value, kind: &str, paths: &[String]) -> Value {
    if paths.is_empty() {
        return message.clone();
    }
    let mut filtered = json!({});
    for path in paths {
        let own = match path.strip_prefix("up.") {
            Some(own) if own.split('.').next() == Some(kind) => own,
            Some(_) => continue,
            None if path == "up" => kind,
            None => path,
        };
        if let Some(value) = field_mask::get(message, own) {
            field_mask::set(&mut filtered, own, Some(value.clone()));
        }
    }
    filtered
}

fn headers(shared: &Shared, id: &str, webhook: &Value, end_device_ids: &Value) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in webhook["headers"].as_object().into_iter().flatten() {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value.as_str().unwrap_or_default())?);
    }
    if let Some(key) = webhook["downlink_api_key"].as_str().filter(|key| !key.is_empty()) {
        let application = &shared.options.application_id;
        let device = end_device_ids["device_id"].as_str().unwrap_or_default();
        let down = format!("as/applications/{application}/webhooks/{id}/devices/{device}/down");
        let down = format!("{}/api/v3/{down}", shared.base_url());
        headers.insert("x-downlink-apikey", HeaderValue::try_from(key)?);
        headers.insert("x-downlink-push", HeaderValue::try_from(format!("{down}/push"))?);
        headers.insert("x-downlink-replace", HeaderValue::try_from(format!("{down}/replace"))?);
    }
    headers.insert("x-tts-domain", HeaderValue::try_from(shared.address.to_string())?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(headers)
}

/// What is to be sent.
pub(super) struct Delivery<'m> {
    /// The message type.
    pub(super) kind: &'m str,
    /// Whose address and identifiers go into the URL.
    pub(super) end_device_ids: &'m Value,
    /// The message, or bytes that stand for it.
    pub(super) body: Body<'m>,
}

pub(super) enum Body<'m> {
    Message(&'m Value),
    Bytes(&'m [u8]),
}

impl Body<'_> {
    fn bytes(&self, kind: &str, webhook: &Value) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Message(message) => {
                let paths = webhook["field_mask"]["paths"].as_array().into_iter().flatten();
                let paths: Vec<String> = paths.filter_map(Value::as_str).map(str::to_owned).collect();
                masked(message, kind, &paths).to_string().into_bytes()
            }
        }
    }
}

impl Shared {
    /// Sends a message to all webhooks that want it. The answer is the first that is no success, else the first.
    pub(super) async fn deliver(&self, delivery: Delivery<'_>) -> WebhookAnswer {
        let wants = |webhook: &Value| webhook[delivery.kind].is_object() && webhook["paused"] != json!(true);
        let webhooks: Vec<(String, Value)> = {
            let world = self.world();
            let wanted = world.webhooks.iter().filter(|(_, webhook)| wants(webhook));
            wanted.map(|(id, webhook)| (id.clone(), webhook.clone())).collect()
        };
        let calls = webhooks.iter().map(|(id, webhook)| self.call(id, webhook, &delivery));
        let answers = futures::future::join_all(calls).await;
        let failure = answers.iter().position(|answer| !answer.is_success()).unwrap_or(0);
        let nobody = || WebhookAnswer::not_sent(format!("no webhook wants a {}", delivery.kind));
        answers.into_iter().nth(failure).unwrap_or_else(nobody)
    }

    /// Sends a message that is told apart by its key.
    pub(super) async fn publish(&self, message: &Value) -> WebhookAnswer {
        let Some(kind) = messages::kind(message) else {
            return WebhookAnswer::not_sent("the message has no type that a webhook knows");
        };
        self.tell_downlink(kind, message);
        let end_device_ids = &message["end_device_ids"];
        self.deliver(Delivery { kind, end_device_ids, body: Body::Message(message) }).await
    }

    async fn call(&self, id: &str, webhook: &Value, delivery: &Delivery<'_>) -> WebhookAnswer {
        let base_url = webhook["base_url"].as_str().unwrap_or_default();
        let path = webhook[delivery.kind]["path"].as_str().unwrap_or_default();
        let url = match webhook_url(base_url, path, delivery.end_device_ids) {
            Ok(url) => url,
            Err(error) => return WebhookAnswer::not_sent(error.to_string()),
        };
        let headers = match headers(self, id, webhook, delivery.end_device_ids) {
            Ok(headers) => headers,
            Err(error) => return WebhookAnswer::not_sent(format!("set the headers of webhook `{id}`: {error}")),
        };
        let started = Instant::now();
        let request = self.client.post(url).headers(headers).body(delivery.body.bytes(delivery.kind, webhook));
        let mut answer = receive(request).await;
        answer.took = started.elapsed();
        self.world().counters.note_answer(delivery.kind, answer.is_success(), &answer.body);
        self.tell_call(delivery, &answer);
        answer
    }
}

async fn receive(request: reqwest::RequestBuilder) -> WebhookAnswer {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return WebhookAnswer::not_sent(describe(&error)),
    };
    let status = response.status().as_u16();
    match response.bytes().await {
        Ok(body) => WebhookAnswer { status: Some(status), body: body.to_vec(), ..WebhookAnswer::default() },
        // The attempt ends with the whole answer: half an answer is none.
        Err(error) => WebhookAnswer::not_sent(describe(&error)),
    }
}

/// The error with its causes; the HTTP client keeps the telling part there.
fn describe(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_mask_lets_only_its_paths_through() {
        let message = json!({
            "end_device_ids": {"device_id": "valve-3", "dev_eui": "70B3D57ED0000003"},
            "received_at": "2026-02-03T04:05:06Z",
            "uplink_message": {"f_port": 2, "decoded_payload": {"open": true}},
        });
        for (paths, body) in [
            (vec![], message.clone()),
            (vec!["up.uplink_message.decoded_payload"], json!({"uplink_message": {"decoded_payload": {"open": true}}})),
            (vec!["end_device_ids.device_id", "up.join_accept"], json!({"end_device_ids": {"device_id": "valve-3"}})),
            (vec!["up"], json!({"uplink_message": message["uplink_message"]})),
            (vec!["correlation_ids"], json!({})),
        ] {
            let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
            assert_eq!(masked(&message, "uplink_message", &paths), body, "{paths:?}");
        }
    }
}
