//! Settings of the way up.

use std::collections::BTreeSet;
use std::time::Duration;

use secrecy::SecretString;

use super::Reader;
use super::reader::shown;
use crate::message_type::MessageType;

/// What the body of a telemetry message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TelemetryBody {
    /// The message as The Things Stack sent it, byte for byte.
    Full,
    /// Without the metadata of all gateways but the best.
    Compact,
}

/// What becomes of an uplink.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// What a telemetry body holds.
    pub telemetry_body: TelemetryBody,
    /// Types that become telemetry.
    pub telemetry_messages: BTreeSet<MessageType>,
    /// Types that update the reported twin.
    pub twin_messages: BTreeSet<MessageType>,
    /// A twin write for `lastSeenAt` alone happens at most this often.
    pub last_seen_interval: Duration,
    /// How long a webhook is remembered.
    pub dedupe_window: Duration,
    /// Accepted values of the header `X-Webhook-Secret`; none: the header is not asked for.
    pub webhook_secrets: Vec<SecretString>,
}

impl UplinkConfig {
    pub(super) fn read(read: &mut Reader) -> Option<Self> {
        let bodies = [("full", TelemetryBody::Full), ("compact", TelemetryBody::Compact)];
        let telemetry_body = read.choice("TELEMETRY_BODY", &bodies, TelemetryBody::Full);
        let telemetry_messages = message_types(read, "TELEMETRY_MESSAGES");
        let twin_messages = message_types(read, "TWIN_MESSAGES");
        let last_seen_s = read.number("TWIN_LAST_SEEN_INTERVAL_S", 0..=86_400, 3600);
        let dedupe_s = read.number("DEDUPE_WINDOW_S", 0..=86_400, 900);
        let webhook_secrets = webhook_secrets(read);
        Some(Self {
            telemetry_body: telemetry_body?,
            telemetry_messages: telemetry_messages?,
            twin_messages: twin_messages?,
            last_seen_interval: Duration::from_secs(last_seen_s?),
            dedupe_window: Duration::from_secs(dedupe_s?),
            webhook_secrets: webhook_secrets?,
        })
    }
}

/// `all`, `none` or a comma-separated list.
fn message_types(read: &mut Reader, setting: &str) -> Option<BTreeSet<MessageType>> {
    let value = read.optional(setting).unwrap_or_else(|| "all".to_owned());
    match value.to_ascii_lowercase().as_str() {
        "all" => return Some(MessageType::ALL.into_iter().collect()),
        "none" => return Some(BTreeSet::new()),
        _ => {}
    }
    let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
    let (known, unknown): (Vec<_>, Vec<_>) =
        words.map(|word| MessageType::from_key(word).ok_or(word)).partition(Result::is_ok);
    if !unknown.is_empty() {
        let unknown: Vec<_> = unknown.into_iter().filter_map(Result::err).map(shown).collect();
        let names: Vec<_> = MessageType::ALL.iter().map(|kind| kind.key()).collect();
        let what = format!(
            "{} is no message type; known are {}; or `all` or `none` alone",
            unknown.join(", "),
            names.join(", ")
        );
        read.problem(setting, what);
        return None;
    }
    if known.is_empty() {
        read.problem(setting, "names no message type; to have none, write `none`");
        return None;
    }
    Some(known.into_iter().filter_map(Result::ok).collect())
}

fn webhook_secrets(read: &mut Reader) -> Option<Vec<SecretString>> {
    let current = read.secret("WEBHOOK_SECRET");
    let previous = read.secret("WEBHOOK_SECRET_PREVIOUS");
    // An unresolved reference must not open the door.
    if read.is_given("WEBHOOK_SECRET") && current.is_none() {
        return None;
    }
    if current.is_none() && previous.is_some() {
        read.problem("WEBHOOK_SECRET_PREVIOUS", "is given without WEBHOOK_SECRET; give the current value too");
        return None;
    }
    Some(current.into_iter().chain(previous).collect())
}
