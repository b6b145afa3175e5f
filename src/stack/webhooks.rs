//! The webhooks of the application, and what the API key may do
//! (`TheThingsNetwork/lorawan-stack pkg/applicationserver/io/web/grpc_webhooks.go`, `api/ttn/lorawan/v3/identityserver.proto`).

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::client::{Endpoint, Server, Stack};
use super::error::StackError;
use crate::ids::WebhookId;
use crate::message_type::MessageType;

/// The fields of a webhook that are read in any case, besides message types.
const FIELDS: [&str; 3] = ["base_url", "format", "headers"];
/// The fields that are read where the server knows them: they only make notes.
const NEW_FIELDS: [&str; 3] = ["field_mask", "paused", "health_status"];
/// The message types of the first webhooks; the others came with later versions.
const OLD_TYPES: [MessageType; 8] = [
    MessageType::UplinkMessage,
    MessageType::JoinAccept,
    MessageType::DownlinkAck,
    MessageType::DownlinkNack,
    MessageType::DownlinkSent,
    MessageType::DownlinkFailed,
    MessageType::DownlinkQueued,
    MessageType::LocationSolved,
];
/// What is asked for, until the server knows all of it: it refuses a mask with a path that is new to it.
const READS: [(&[&str], &[MessageType]); 3] =
    [(&NEW_FIELDS, &MessageType::ALL), (&[], &MessageType::ALL), (&[], &OLD_TYPES)];

/// Whose the API key is, and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyInfo {
    /// The application that it belongs to; `None` for a key of something else, such as a user.
    pub application: Option<String>,
    /// Its rights for the application that this bridge serves, such as `RIGHT_APPLICATION_TRAFFIC_READ`.
    pub rights: BTreeSet<String>,
}

/// What the server has under the id of a webhook, as far as its version can say.
#[derive(Clone)]
pub struct FoundWebhook {
    /// The webhook; `None` if there is none.
    pub webhook: Option<Webhook>,
    /// The message types that the server knows.
    pub types: &'static [MessageType],
    /// Fields that it does not know, and which were not looked at.
    pub unread: Vec<&'static str>,
}

impl KeyInfo {
    /// Whether the key has a right for the application, by name or with all others.
    #[must_use]
    pub fn has(&self, right: &str) -> bool {
        [right, "RIGHT_APPLICATION_ALL", "RIGHT_ALL"].iter().any(|right| self.rights.contains(*right))
    }

    fn read(answer: &Value) -> Self {
        let key = &answer["api_key"];
        let application = key["entity_ids"]["application_ids"]["application_id"].as_str().map(str::to_owned);
        Self { application, rights: texts(&key["api_key"]["rights"]).collect() }
    }
}

/// A webhook as The Things Stack has it. Its headers hold secrets, and its URL may: there is no `Debug`.
#[derive(Clone, Default)]
pub struct Webhook {
    /// RFC 6570 template of its address.
    pub base_url: String,
    /// `json` or `protobuf`.
    pub format: String,
    /// Its own headers.
    pub headers: BTreeMap<String, SecretString>,
    /// The message types that it sends, each with its path below the address.
    pub paths: BTreeMap<MessageType, String>,
    /// The parts of a message that it sends; empty: all.
    pub field_mask: Vec<String>,
    /// Whether it sends nothing until someone resumes it.
    pub paused: bool,
    /// When its last request failed, if The Things Stack counts it as unhealthy; empty if it does not say.
    pub unhealthy_since: Option<String>,
}

/// What is to be written of a webhook; what is absent stays as it is.
#[derive(Clone, Default)]
pub struct WebhookUpdate {
    /// RFC 6570 template of its address.
    pub base_url: Option<String>,
    /// `json` or `protobuf`.
    pub format: Option<String>,
    /// All of its headers: The Things Stack writes them as one field.
    pub headers: Option<BTreeMap<String, SecretString>>,
    /// Message types that it shall send, each with this path.
    pub paths: BTreeMap<MessageType, String>,
}

impl Stack {
    /// Whose the API key is, and what it may do with the application: the Identity Server knows. A key of someone else, such as a
    /// user or an organisation, can have the rights as well as a key of the application
    /// (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/application_services.proto`, `ApplicationAccess.ListRights`).
    ///
    /// # Errors
    /// If the key is refused or the server does not answer.
    pub async fn key_info(&self) -> Result<KeyInfo, StackError> {
        let what =
            format!("asking the Identity Server {} (STACK_IDENTITY_URL) about the API key", self.identity_server());
        let answer = self.call(Method::GET, Endpoint::AuthInfo, None, &what).await?;
        let mut key = KeyInfo::read(&answer);
        if key.application.as_deref() != Some(self.application.as_str()) {
            let rights = self.call(Method::GET, (Server::Identity, "rights"), None, &what).await?;
            key.rights = texts(&rights["rights"]).collect();
        }
        Ok(key)
    }

    /// Reads a webhook, as far as the version of the server lets it be read.
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub async fn webhook(&self, id: &WebhookId) -> Result<FoundWebhook, StackError> {
        let what = format!("reading the webhook `{id}`");
        let mut narrower = READS[1..].iter();
        let (mut more, mut types) = READS[0];
        loop {
            let error = match self
                .call(Method::GET, Endpoint::Webhook { id, read: &mask_of(more, types) }, None, &what)
                .await
            {
                Ok(answer) => return Ok(FoundWebhook::new(Some(Webhook::read(&answer)), more, types)),
                Err(error) if error.is_webhook_not_found() => return Ok(FoundWebhook::new(None, more, types)),
                Err(error) => error,
            };
            (more, types) = match narrower.next() {
                Some(next) if error.is_unknown_field() => *next,
                _ => return Err(error),
            };
        }
    }

    /// Creates a webhook, or changes what the update names and nothing else.
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub async fn set_webhook(&self, id: &WebhookId, update: &WebhookUpdate) -> Result<(), StackError> {
        let what = format!("writing the webhook `{id}`");
        let (mut webhook, paths) = update.to_json();
        webhook["ids"] = json!({
            "application_ids": {"application_id": self.application.as_str()},
            "webhook_id": id.as_str(),
        });
        let body = json!({"webhook": webhook, "field_mask": {"paths": paths}});
        self.call(Method::PUT, Endpoint::Webhook { id, read: "" }, Some(&body), &what).await.map(drop)
    }
}

/// The mask of a read: commas between, as the gateway wants it in a URL.
fn mask_of(more: &[&str], types: &[MessageType]) -> String {
    let kinds = types.iter().map(|kind| kind.key());
    FIELDS.iter().chain(more).copied().chain(kinds).collect::<Vec<_>>().join(",")
}

impl FoundWebhook {
    fn new(webhook: Option<Webhook>, read: &[&str], types: &'static [MessageType]) -> Self {
        let fields = NEW_FIELDS.into_iter().filter(|field| !read.contains(field));
        let kinds = MessageType::ALL.into_iter().filter(|kind| !types.contains(kind)).map(MessageType::key);
        Self { webhook, types, unread: fields.chain(kinds).collect() }
    }
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned))
}

impl Webhook {
    /// What is zero is left out of an answer. A message type that is there, even as `{}`, is sent.
    fn read(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let headers = answer["headers"].as_object().into_iter().flatten();
        let headers = headers.map(|(name, value)| (name.clone(), SecretString::from(text(value))));
        let sent = MessageType::ALL.into_iter().filter(|kind| answer[kind.key()].is_object());
        let paths = sent.map(|kind| (kind, text(&answer[kind.key()]["path"])));
        let unhealthy = &answer["health_status"]["unhealthy"];
        Self {
            base_url: text(&answer["base_url"]),
            format: text(&answer["format"]),
            headers: headers.collect(),
            paths: paths.collect(),
            field_mask: mask(&answer["field_mask"]),
            paused: answer["paused"] == true,
            unhealthy_since: unhealthy.is_object().then(|| text(&unhealthy["last_failed_attempt_at"])),
        }
    }
}

/// A field mask comes as an object with its paths, or as one text with commas between them (the standard form of JSON).
fn mask(value: &Value) -> Vec<String> {
    match value.as_str() {
        Some(text) => text.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect(),
        None => texts(&value["paths"]).collect(),
    }
}

impl WebhookUpdate {
    fn to_json(&self) -> (Value, Vec<&'static str>) {
        let mut webhook = Map::new();
        let mut paths = Vec::new();
        let mut put = |name: &'static str, value: Value| {
            webhook.insert(name.to_owned(), value);
            paths.push(name);
        };
        for (name, value) in [("base_url", &self.base_url), ("format", &self.format)] {
            if let Some(value) = value {
                put(name, json!(value));
            }
        }
        if let Some(headers) = &self.headers {
            let headers = headers.iter().map(|(name, value)| (name.clone(), json!(value.expose_secret())));
            put("headers", Value::Object(headers.collect()));
        }
        for (kind, path) in &self.paths {
            put(kind.key(), json!({"path": path}));
        }
        (Value::Object(webhook), paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_read_with_what_the_answer_leaves_out() {
        let webhook = Webhook::read(&json!({
            "ids": {"webhook_id": "tts-iot-hub"}, "base_url": "https://h/api/uplink", "format": "json",
            "headers": {"x-functions-key": "k"}, "uplink_message": {}, "join_accept": {"path": "/join"},
            "field_mask": {"paths": ["received_at"]},
            "health_status": {"unhealthy": {"failed_attempts": "3", "last_failed_attempt_at": "2026-04-11T09:40:13Z"}},
        }));
        let paths = [(MessageType::UplinkMessage, ""), (MessageType::JoinAccept, "/join")];
        assert_eq!(webhook.paths, paths.map(|(kind, path)| (kind, path.to_owned())).into());
        assert_eq!((webhook.base_url.as_str(), webhook.format.as_str()), ("https://h/api/uplink", "json"));
        assert_eq!(webhook.headers["x-functions-key"].expose_secret(), "k");
        assert_eq!((webhook.paused, webhook.field_mask), (false, vec!["received_at".to_owned()]));
        assert_eq!(webhook.unhealthy_since.as_deref(), Some("2026-04-11T09:40:13Z"));
        let healthy = Webhook::read(&json!({"health_status": {"healthy": {}}, "paused": true, "field_mask": "a,b.c"}));
        assert_eq!((healthy.unhealthy_since, healthy.paused), (None, true));
        assert_eq!(healthy.field_mask, ["a", "b.c"]);
    }

    #[test]
    fn an_update_masks_what_it_holds_and_nothing_else() {
        let (body, paths) = WebhookUpdate::default().to_json();
        assert_eq!((body, paths.len()), (json!({}), 0));
        let update = WebhookUpdate {
            base_url: Some("https://h".to_owned()),
            headers: Some([("a".to_owned(), SecretString::from("1"))].into()),
            paths: [(MessageType::ServiceData, String::new())].into(),
            ..WebhookUpdate::default()
        };
        let (body, paths) = update.to_json();
        assert_eq!(paths, ["base_url", "headers", "service_data"]);
        assert_eq!(body, json!({"base_url": "https://h", "headers": {"a": "1"}, "service_data": {"path": ""}}));
    }

    #[test]
    fn a_key_may_what_is_named_or_everything() {
        let info = |answer: Value| KeyInfo::read(&answer);
        let of = |rights: Value| {
            json!({"api_key": {"api_key": {"id": "X", "rights": rights},
                "entity_ids": {"application_ids": {"application_id": "barn"}}}})
        };
        let some = info(of(json!(["RIGHT_APPLICATION_TRAFFIC_READ"])));
        assert_eq!(some.application.as_deref(), Some("barn"));
        assert!(some.has("RIGHT_APPLICATION_TRAFFIC_READ") && !some.has("RIGHT_APPLICATION_SETTINGS_BASIC"));
        assert!(info(of(json!(["RIGHT_APPLICATION_ALL"]))).has("RIGHT_APPLICATION_SETTINGS_BASIC"));
        let user =
            json!({"api_key": {"entity_ids": {"user_ids": {"user_id": "jo"}}, "api_key": {"rights": ["RIGHT_ALL"]}}});
        assert_eq!(info(user).application, None);
        assert_eq!(info(json!({})), KeyInfo::default());
    }
}
