//! How far a downlink has come, as its device reports it: the reported property `downlink`.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::downlink_trace;
use crate::message_type::MessageType;
use crate::stack::{self, ApplicationUp, number, parse_time};

/// The reported property.
pub(super) const DOWNLINK: &str = "downlink";

/// A stage of a downlink. It never goes back: a stage that ranks lower is older news, whenever it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownlinkStage {
    /// Refused for want of a session: the same downlink is queued once the device has joined.
    Waiting,
    /// In the queue of the Network Server.
    Queued,
    /// A gateway sent it.
    Sent,
    /// Sent, but the device did not confirm this attempt; the Application Server tries again.
    NotAcknowledged,
    /// The device confirmed it.
    Acknowledged,
    /// It was given up.
    Failed,
}

impl DownlinkStage {
    const ALL: [Self; 6] =
        [Self::Waiting, Self::Queued, Self::Sent, Self::NotAcknowledged, Self::Acknowledged, Self::Failed];

    fn of(up: &ApplicationUp, kind: MessageType) -> Option<Self> {
        match kind {
            MessageType::DownlinkQueued => Some(Self::Queued),
            MessageType::DownlinkSent => Some(Self::Sent),
            MessageType::DownlinkNack => Some(Self::NotAcknowledged),
            MessageType::DownlinkAck => Some(Self::Acknowledged),
            MessageType::DownlinkFailed if is_without_session(up) => Some(Self::Waiting),
            MessageType::DownlinkFailed => Some(Self::Failed),
            _ => None,
        }
    }

    /// As it is reported.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::NotAcknowledged => "not_acknowledged",
            Self::Acknowledged => "acknowledged",
            Self::Failed => "failed",
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Queued => 1,
            Self::Sent => 2,
            Self::NotAcknowledged => 3,
            Self::Acknowledged | Self::Failed => 4,
        }
    }
}

/// Where a downlink is: of two, the one of the newer desired version, the later stage, the later time tells the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownlinkProgress {
    /// `$version` of the desired properties that the downlink came from.
    pub version: u64,
    /// How far it has come.
    pub stage: DownlinkStage,
    /// When.
    pub at: OffsetDateTime,
}

impl DownlinkProgress {
    /// What a message tells about one of our downlinks.
    pub(super) fn told_by(up: &ApplicationUp, kind: MessageType, at: OffsetDateTime) -> Option<Self> {
        let stage = DownlinkStage::of(up, kind)?;
        let version = up.correlation_ids().find_map(|id| downlink_trace::desired_version(&up.device.id, id))?;
        Some(Self { version, stage, at })
    }

    /// What the twin tells; `None` if nothing readable.
    pub(super) fn reported_in(reported: &Map<String, Value>) -> Option<Self> {
        let downlink = reported.get(DOWNLINK)?.as_object()?;
        let name = downlink.get("state")?.as_str()?;
        let stage = DownlinkStage::ALL.into_iter().find(|stage| stage.name() == name)?;
        let at = parse_time(downlink.get("at")?.as_str()?)?;
        Some(Self { version: number(downlink, "version")?, stage, at })
    }

    /// Whether this is news to one who knows `known`.
    #[must_use]
    pub fn is_news_to(&self, known: &Self) -> bool {
        let rank = |progress: &Self| (progress.version, progress.stage.rank(), progress.at);
        rank(self) > rank(known)
    }
}

/// The value of the reported property. What this message does not tell is deleted: it belongs to an older stage.
pub(super) fn value(up: &ApplicationUp, progress: DownlinkProgress) -> Value {
    json!({
        "version": progress.version,
        "state": progress.stage.name(),
        "at": up.received_at,
        "fPort": up.f_port(),
        "fCnt": up.f_cnt(),
        "attempt": attempt(up, progress.stage),
        "error": error(up),
    })
}

/// The attempt that the message is about. A nack already counts the one to come.
fn attempt(up: &ApplicationUp, stage: DownlinkStage) -> Option<u64> {
    let retry = up.downlink()?.get("confirmed_retry")?.as_object()?;
    let attempt = number(retry, "attempt")?;
    Some(if stage == DownlinkStage::NotAcknowledged { attempt.saturating_sub(1) } else { attempt })
}

/// The error of a `downlink_failed`, and its `namespace:name`.
fn named_error(up: &ApplicationUp) -> Option<(&Map<String, Value>, String)> {
    let error = up.content()?.get("error")?.as_object()?;
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    Some((error, format!("{}:{}", text("namespace"), text("name"))))
}

/// Whether the downlink was refused because the device has not joined yet.
fn is_without_session(up: &ApplicationUp) -> bool {
    named_error(up).is_some_and(|(_, name)| stack::is_no_session(&name))
}

fn error(up: &ApplicationUp) -> Option<Value> {
    let (error, name) = named_error(up)?;
    let format = error.get("message_format").and_then(Value::as_str).unwrap_or_default();
    let attributes = error.get("attributes").and_then(Value::as_object);
    Some(json!({"name": name, "message": filled_in(format, attributes)}))
}

/// Puts the attributes of an error of The Things Stack in their places: `length {length}` → `length 120`.
fn filled_in(format: &str, attributes: Option<&Map<String, Value>>) -> String {
    attributes.into_iter().flatten().fold(format.to_owned(), |text, (name, value)| match value {
        Value::String(value) => text.replace(&format!("{{{name}}}"), value),
        Value::Number(value) => text.replace(&format!("{{{name}}}"), &value.to_string()),
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::DownlinkStage::{Acknowledged, Failed, NotAcknowledged, Queued, Sent, Waiting};
    use super::*;

    const EARLY: OffsetDateTime = datetime!(2026-02-03 05:00 UTC);
    const LATE: OffsetDateTime = datetime!(2026-02-03 05:10 UTC);

    #[test]
    fn an_older_version_or_an_earlier_stage_is_no_news() {
        for (known, told, is_news) in [
            ((12, Waiting, LATE), (12, Queued, EARLY), true),
            ((12, Queued, EARLY), (12, Waiting, LATE), false),
            ((12, Queued, EARLY), (12, Sent, LATE), true),
            ((12, Sent, LATE), (12, Queued, EARLY), false),
            ((12, Sent, EARLY), (12, Queued, LATE), false),
            ((12, Sent, EARLY), (12, NotAcknowledged, LATE), true),
            ((12, NotAcknowledged, EARLY), (12, Sent, LATE), false),
            ((12, NotAcknowledged, EARLY), (12, NotAcknowledged, LATE), true),
            ((12, NotAcknowledged, LATE), (12, Acknowledged, EARLY), true),
            ((12, NotAcknowledged, LATE), (12, Failed, EARLY), true),
            ((12, Acknowledged, EARLY), (12, Failed, LATE), true),
            ((12, Acknowledged, LATE), (12, Failed, EARLY), false),
            ((12, Acknowledged, LATE), (12, Acknowledged, LATE), false),
            ((12, Failed, LATE), (13, Queued, EARLY), true),
            ((13, Queued, EARLY), (12, Acknowledged, LATE), false),
        ] {
            let progress = |(version, stage, at)| DownlinkProgress { version, stage, at };
            assert_eq!(progress(told).is_news_to(&progress(known)), is_news, "{known:?} → {told:?}");
        }
    }

    #[test]
    fn the_attributes_of_an_error_are_put_in_their_places() {
        let attributes = json!({"length": 120, "max": 51, "more": {"length": 1}, "name": "x"});
        let filled = filled_in("length `{length}` exceeds '{max}' {gone}", attributes.as_object());
        assert_eq!(filled, "length `120` exceeds '51' {gone}");
    }
}
