//! `ApplicationUp`: the one message that a webhook of The Things Stack carries.

mod json;
mod keys;
#[cfg(test)]
mod tests;

pub use keys::without_session_keys;

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ids::{ApplicationId, DeviceId, EndDevice, Eui, InvalidId};
use crate::message_type::MessageType;

/// Keys of an `ApplicationUp` that hold no message
/// (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/messages.proto`).
const ENVELOPE: [&str; 4] = ["end_device_ids", "correlation_ids", "received_at", "simulated"];

/// Longest fraction of a second in a creation time: the hub counts in units of 100 ns.
const CREATION_TIME_DIGITS: usize = 7;

/// Hex digits of a message's hash in its id.
const HASH_DIGITS: usize = 32;

/// A message of The Things Stack, parsed once; keeps the bytes it came in.
///
/// A zero is absent in the JSON of The Things Stack and a 64-bit number is a string; the accessors know both.
#[derive(Clone, Debug)]
pub struct ApplicationUp {
    /// The body of the webhook as it came; only a plain `app_s_key.key` is taken out of it, so that it goes nowhere.
    pub raw: Bytes,
    /// Its application, where the body tells (a field mask can leave it out).
    pub application_id: Option<ApplicationId>,
    /// Its end device.
    pub device: EndDevice,
    /// When the Application Server got it, as it wrote it (RFC 3339, up to nine fraction digits).
    pub received_at: Option<String>,
    /// Its type; `None` for one that this version does not know.
    pub kind: Option<MessageType>,
    /// The whole message.
    pub message: Map<String, Value>,
    /// When it came to this bridge, where it has no time of its own.
    arrived_at: Option<OffsetDateTime>,
}

/// Why a body is no `ApplicationUp`. Never repeats the payload.
#[derive(Debug, thiserror::Error)]
pub enum MalformedMessage {
    /// It is no JSON, too deep, or names a key twice.
    #[error("the body is no readable JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is some other JSON.
    #[error("the body is JSON but no object; a webhook of The Things Stack sends one `ApplicationUp` per request")]
    NoObject,
    /// A field has a JSON type that it cannot have.
    #[error("`{0}` has the wrong JSON type")]
    WrongType(&'static str),
    /// An identifier breaks its rule.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// Nobody says which device it is about.
    #[error(
        "neither the body nor the URL names the device; \
         add `end_device_ids` to the webhook's field mask or `{{/devID}}` to its base URL"
    )]
    NoDevice,
    /// Body and URL name different devices.
    #[error("the body is about device `{body}` and the URL about `{url}`")]
    OtherDevice {
        /// The device of the body.
        body: DeviceId,
        /// The device of the URL.
        url: DeviceId,
    },
    /// More than one message stands in it.
    #[error("the body holds both `{0}` and `{1}`; an `ApplicationUp` holds one message")]
    TwoMessages(&'static str, &'static str),
}

/// A message of an application that this bridge does not serve.
#[derive(Debug, thiserror::Error)]
#[error("the message is of application `{theirs}`; this bridge serves `{ours}` only")]
pub struct ForeignApplication {
    theirs: ApplicationId,
    ours: ApplicationId,
}

impl ApplicationUp {
    /// Parses the body of a webhook. The device comes from the body, else from the URL.
    ///
    /// # Errors
    /// If the body is no `ApplicationUp`, or no device or two different ones are named.
    pub fn parse(raw: Bytes, device_in_url: Option<&str>) -> Result<Self, MalformedMessage> {
        let json::Unambiguous(value) = serde_json::from_slice(&raw)?;
        let Value::Object(mut message) = value else { return Err(MalformedMessage::NoObject) };
        let held_a_key = keys::take_out_of_object(&mut message);
        let raw = if held_a_key { serde_json::to_vec(&message)?.into() } else { raw };
        let ids = object(&message, "end_device_ids")?;
        Ok(Self {
            raw,
            application_id: application_id(ids)?,
            device: device(ids, device_in_url)?,
            received_at: text(&message, "received_at").filter(|at| parse_time(at).is_some()).map(str::to_owned),
            kind: kind(&message)?,
            message,
            arrived_at: None,
        })
    }

    /// Fills in what a field mask can leave out. A message read back must be given its first [arrival](Self::arrival):
    /// it is its time, and can be part of its identity.
    ///
    /// # Errors
    /// If the message is of another application.
    pub fn complete(&mut self, ours: &ApplicationId, arrived_at: OffsetDateTime) -> Result<(), ForeignApplication> {
        match &self.application_id {
            Some(theirs) if theirs != ours => {
                return Err(ForeignApplication { theirs: theirs.clone(), ours: ours.clone() });
            }
            Some(_) => {}
            None => self.application_id = Some(ours.clone()),
        }
        if self.received_at.is_none() {
            // A time that reads and writes as it is: what passes an event's property may lose finer digits.
            let arrived_at = arrived_at.replace_microsecond(arrived_at.microsecond()).unwrap_or(arrived_at);
            self.received_at = arrived_at.format(&Rfc3339).ok();
            self.arrived_at = Some(arrived_at);
        }
        Ok(())
    }

    /// When it came to this bridge, if that is its [`received_at`](Self::received_at) for want of a time of its own.
    #[must_use]
    pub fn arrival(&self) -> Option<&str> {
        self.received_at.as_deref().filter(|_| self.arrived_at.is_some())
    }

    /// `{device}.{type}.{h}`: equal messages have one id whatever the order of their keys and their white space.
    ///
    /// `h` is the beginning of SHA-256 over canonical JSON: sorted keys, no white space. A time alone would be no
    /// identity: several `uplink_normalized` share one `received_at`. Where a field mask leaves nothing that tells two
    /// equal readings apart, the arrival of the [complete](Self::complete) message is hashed too: to deliver a repeated
    /// webhook twice is better than to lose a reading.
    #[must_use]
    pub fn message_id(&self) -> String {
        let mut id = format!("{}.{}.", self.device.id, self.kind.map_or("unknown", MessageType::key));
        let mut hash = Sha256::new_with_prefix(json::canonical(&self.message));
        if let Some(arrived_at) = self.arrived_at.filter(|_| !self.is_unlike_any_other()) {
            hash.update(arrived_at.unix_timestamp_nanos().to_be_bytes());
        }
        for byte in hash.finalize().iter().take(HASH_DIGITS / 2) {
            // Writing to a string cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        id
    }

    /// The message itself: what stands under the key of its type.
    #[must_use]
    pub fn content(&self) -> Option<&Map<String, Value>> {
        self.message.get(self.kind?.key())?.as_object()
    }

    /// The downlink that the message is about, if it is about one.
    #[must_use]
    pub fn downlink(&self) -> Option<&Map<String, Value>> {
        use MessageType::{DownlinkAck, DownlinkFailed, DownlinkNack, DownlinkQueued, DownlinkSent};
        match self.kind? {
            DownlinkQueued | DownlinkSent | DownlinkAck | DownlinkNack => self.content(),
            DownlinkFailed => self.content()?.get("downlink")?.as_object(),
            _ => None,
        }
    }

    /// Whether it is an uplink frame, decoded or normalized.
    #[must_use]
    pub fn is_frame(&self) -> bool {
        matches!(self.kind, Some(MessageType::UplinkMessage | MessageType::UplinkNormalized))
    }

    /// FPort of the frame. An uplink without one came on port 0; a downlink without one has none yet.
    #[must_use]
    pub fn f_port(&self) -> Option<u64> {
        let zero = self.is_frame().then_some(0);
        number(self.frame()?, "f_port").or(zero)
    }

    /// Frame counter. Absent in a frame of a session it is 0; a downlink that is only queued has none yet.
    #[must_use]
    pub fn f_cnt(&self) -> Option<u64> {
        let zero = (self.is_frame() || self.frame()?.contains_key("session_key_id")).then_some(0);
        number(self.frame()?, "f_cnt").or(zero)
    }

    /// The session that the frame belongs to; empty for devices without a join.
    #[must_use]
    pub fn session_key_id(&self) -> &str {
        self.content().and_then(|content| text(content, "session_key_id")).unwrap_or_default()
    }

    /// What the payload formatter made of an `uplink_message`.
    #[must_use]
    pub fn decoded_payload(&self) -> Option<&Map<String, Value>> {
        self.content()?.get("decoded_payload")?.as_object()
    }

    /// Whether somebody simulated it.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.message.get("simulated").and_then(Value::as_bool).unwrap_or_default()
    }

    /// The correlation ids of the message and of its downlink.
    pub fn correlation_ids(&self) -> impl Iterator<Item = &str> {
        let lists = [Some(&self.message), self.downlink()].into_iter().flatten();
        let lists = lists.filter_map(|object| object.get("correlation_ids")?.as_array());
        lists.flatten().filter_map(Value::as_str)
    }

    /// [`received_at`](Self::received_at) as a time.
    #[must_use]
    pub fn received_time(&self) -> Option<OffsetDateTime> {
        parse_time(self.received_at.as_deref()?)
    }

    /// [`received_at`](Self::received_at) as finely as IoT Hub counts time.
    #[must_use]
    pub fn creation_time(&self) -> Option<String> {
        let at = self.received_at.as_deref()?;
        let Some((seconds, fraction)) = at.split_once('.') else { return Some(at.to_owned()) };
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let (fraction, zone) = fraction.split_at(digits);
        Some(format!("{seconds}.{}{zone}", &fraction[..digits.min(CREATION_TIME_DIGITS)]))
    }

    /// Whether it holds no message at all: a field mask left it out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message.keys().all(|key| ENVELOPE.contains(&key.as_str()))
    }

    /// Whether something besides a time tells it from another one with the same values: The Things Stack gives each
    /// message correlation ids of its own, and each frame of a session its counter. A counter that is absent may be a
    /// zero or masked, and tells nothing.
    fn is_unlike_any_other(&self) -> bool {
        let is_correlated =
            self.message.get("correlation_ids").and_then(Value::as_array).is_some_and(|ids| !ids.is_empty());
        let is_counted = self.content().is_some_and(|content| number(content, "f_cnt").is_some());
        is_correlated || (is_counted && !self.session_key_id().is_empty())
    }

    fn frame(&self) -> Option<&Map<String, Value>> {
        if self.is_frame() { self.content() } else { self.downlink() }
    }
}

/// A time as The Things Stack and IoT Hub write it.
#[must_use]
pub fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// A number, or the string that a 64-bit number is written as.
pub(crate) fn number(object: &Map<String, Value>, key: &str) -> Option<u64> {
    match object.get(key)? {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) => digits.parse().ok(),
        _ => None,
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

/// A member that is an object or absent; `null` is absent.
fn object<'a>(
    of: &'a Map<String, Value>,
    key: &'static str,
) -> Result<Option<&'a Map<String, Value>>, MalformedMessage> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(MalformedMessage::WrongType(key)),
    }
}

/// A member that is a text or absent; `null` and the empty text are absent.
fn id<'a>(of: &'a Map<String, Value>, key: &'static str) -> Result<Option<&'a str>, MalformedMessage> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.as_str()).filter(|id| !id.is_empty())),
        Some(_) => Err(MalformedMessage::WrongType(key)),
    }
}

fn application_id(ids: Option<&Map<String, Value>>) -> Result<Option<ApplicationId>, MalformedMessage> {
    let Some(ids) = ids else { return Ok(None) };
    let Some(application) = object(ids, "application_ids")? else { return Ok(None) };
    Ok(id(application, "application_id")?.map(ApplicationId::parse).transpose()?)
}

fn device(ids: Option<&Map<String, Value>>, in_url: Option<&str>) -> Result<EndDevice, MalformedMessage> {
    let field = |key| ids.map(|ids| id(ids, key)).transpose().map(Option::flatten);
    let body = field("device_id")?.map(DeviceId::parse).transpose()?;
    let url = in_url.filter(|id| !id.is_empty()).map(DeviceId::parse).transpose()?;
    let id = match (body, url) {
        (Some(body), Some(url)) if body != url => return Err(MalformedMessage::OtherDevice { body, url }),
        (body, url) => body.or(url).ok_or(MalformedMessage::NoDevice)?,
    };
    let dev_eui = field("dev_eui")?.map(Eui::parse).transpose()?;
    let join_eui = field("join_eui")?.map(Eui::parse).transpose()?;
    Ok(EndDevice { id, dev_eui, join_eui })
}

fn kind(message: &Map<String, Value>) -> Result<Option<MessageType>, MalformedMessage> {
    let mut found = None;
    for kind in MessageType::ALL {
        if object(message, kind.key())?.is_none() {
            continue;
        }
        if let Some(other) = found.replace(kind) {
            return Err(MalformedMessage::TwoMessages(MessageType::key(other), kind.key()));
        }
    }
    Ok(found)
}
