//! What a refusal of The Things Stack means.
//!
//! Permanent encoder errors come as 409 and "not joined" as 400, so the name of an error decides first, and its status only
//! where the name is unknown (`TheThingsNetwork/lorawan-stack pkg/errors/http.go`).

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Class;
use crate::ids::DeviceId;

/// Texts of errors are kept up to this many characters: they end up in twin tags (8 KB in all).
const MAX_TEXT_CHARS: usize = 300;
/// Waits are told in whole seconds, cut off: `0` means less than one.
const MIN_RATE_WAIT: Duration = Duration::from_secs(1);

/// gRPC codes (`google.golang.org/grpc/codes`).
mod code {
    pub(super) const CANCELLED: i64 = 1;
    pub(super) const DEADLINE_EXCEEDED: i64 = 4;
    pub(super) const ABORTED: i64 = 10;
    pub(super) const UNAVAILABLE: i64 = 14;
}

/// Why a call to The Things Stack failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// The API key holds characters that no header can carry.
    #[error("the API key cannot stand in an HTTP header; copy it again into STACK_API_KEY")]
    InvalidApiKey,
    /// The HTTP client could not be set up.
    #[error("setting up the client of The Things Stack failed: {}", chain(.0))]
    Setup(#[source] reqwest::Error),
    /// No answer.
    #[error("{what} failed: no answer from The Things Stack: {}", chain(.source))]
    Unreachable {
        /// The call.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is no JSON.
    #[error("{what} failed: the answer is not JSON; check that STACK_BASE_URL is the address of The Things Stack")]
    Unreadable {
        /// The call.
        what: String,
    },
    /// The answer is larger than any that is expected.
    #[error("{what} failed: the answer is larger than expected")]
    TooLarge {
        /// The call.
        what: String,
    },
    /// The Things Stack answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The id or the EUIs belong to another device. The other one is not named: it can be a stranger's.
    #[error("registering `{device}` failed: {conflict}")]
    Conflict {
        /// The device to register.
        device: DeviceId,
        /// With what.
        conflict: Conflict,
    },
}

/// With what a registration collides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The id exists with other EUIs.
    #[error(
        "a device of this id exists in the application with another DevEUI or JoinEUI; delete it there or correct tags.lorawan"
    )]
    IdTaken,
    /// The EUIs belong to another device.
    #[error(
        "its DevEUI and JoinEUI are already registered for another device of this deployment; correct tags.lorawan or delete the other device"
    )]
    EuisTaken,
    /// A change without root keys of a device that is not there.
    #[error(
        "it is no longer registered in the application and its root keys were taken out of the tags; give appKey (and nwkKey) again"
    )]
    KeysMissing,
}

/// An error answer of The Things Stack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} was refused by The Things Stack: {text}{} (HTTP {status}){}", named(.name), self.advice())]
pub struct Refusal {
    what: String,
    status: u16,
    code: Option<i64>,
    name: Option<String>,
    text: String,
    wait: Option<Duration>,
}

fn named(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" [{name}]")).unwrap_or_default()
}

/// The whole chain in one line, without the address (which an operator may have put a token into).
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { "connection failed".to_owned() };
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.chars().take(MAX_TEXT_CHARS).collect()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    code: Option<i64>,
    message: Option<String>,
    details: Vec<Value>,
}

impl Refusal {
    pub(super) fn read(what: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        let detail = body.details.iter().find(|detail| detail.get("name").is_some());
        let part = |key: &str| detail.and_then(|detail| detail.get(key)).and_then(Value::as_str);
        let name = part("name").map(|name| format!("{}:{name}", part("namespace").unwrap_or_default()));
        let text = match &name {
            // Its attributes and text name a device that can be a stranger's.
            Some(name) if name.ends_with(":end_device_euis_taken") => "the EUIs are taken".to_owned(),
            _ => short(body.message.as_deref().unwrap_or("no reason given")),
        };
        let wait = rate_limit_wait(status, headers);
        Self { what: what.to_owned(), status, code: body.code, name, text, wait }
    }

    fn class(&self) -> Class {
        if let Some(class) = self.name.as_deref().and_then(class_of_name) {
            return class;
        }
        match self.status {
            401 | 403 => Class::Denied,
            // No error details: nothing answers at this path, so it is the address that is wrong.
            404 | 405 | 501 if self.name.is_none() => Class::Denied,
            300..=399 => Class::Denied,
            429 => Class::Throttled,
            408 | 499 | 500.. => Class::Retry,
            409 if self.code == Some(code::ABORTED) => Class::Retry,
            _ => Class::Poison,
        }
    }

    /// A status that a proxy gives for a server that is down, or one of the codes that the server itself gives for it.
    fn is_outage(&self) -> bool {
        let unavailable = [code::CANCELLED, code::DEADLINE_EXCEEDED, code::UNAVAILABLE];
        match self.class() {
            Class::Denied | Class::Throttled => true,
            Class::Poison => false,
            Class::Retry => match self.name.as_deref() {
                None => self.status >= 500 || self.status == 408,
                Some(name) => {
                    class_of_name(name).is_none() && self.code.is_some_and(|code| unavailable.contains(&code))
                }
            },
        }
    }

    fn advice(&self) -> &'static str {
        match (self.class(), self.status) {
            (Class::Denied, 404 | 405 | 501 | 300..=399) => {
                "; nothing answers at this path: check STACK_BASE_URL and STACK_IDENTITY_URL, and whether this edition has the feature"
            }
            (Class::Denied, _) => "; check STACK_API_KEY, that it belongs to STACK_APPLICATION_ID, and its rights",
            _ => "",
        }
    }
}

/// The classes of the names that matter
/// (`TheThingsNetwork/lorawan-stack pkg/applicationserver/applicationserver.go`, `pkg/networkserver/errors.go`,
/// `pkg/messageprocessors/javascript/javascript.go`, `pkg/auth/auth.go`, `pkg/auth/rights/require.go`).
fn class_of_name(full: &str) -> Option<Class> {
    let (namespace, name) = full.rsplit_once(':')?;
    Some(match (namespace, name) {
        ("pkg/auth", "token") | ("pkg/auth/rights", _) | (_, "unsupported_authorization") => Class::Denied,
        ("pkg/identityserver", "api_key_not_found" | "invalid_authorization" | "api_key_expired") => Class::Denied,
        ("pkg/ratelimit", _) => Class::Throttled,
        ("pkg/applicationserver", "rebuild" | "unknown_session") => Class::Retry,
        ("pkg/networkserver", "downlink_queue_capacity") => Class::Retry,
        ("pkg/scripting/javascript", "script_timeout") => Class::Retry,
        ("pkg/scripting/javascript" | "pkg/messageprocessors", _) => Class::Poison,
        (namespace, _) if namespace.starts_with("pkg/messageprocessors/") => Class::Poison,
        ("pkg/util/store", "id_taken") => Class::Poison,
        ("pkg/identityserver", "end_device_euis_taken") | ("pkg/identityserver/blocklist", _) => Class::Poison,
        (_, "no_device_session" | "unknown_mac_state" | "device_not_found" | "validation") => Class::Poison,
        _ => return None,
    })
}

/// The text without the prefix `error:namespace:name (…)`, cut, and without anything that could be a key.
fn short(message: &str) -> String {
    let inner = message.strip_prefix("error:").and_then(|rest| rest.split_once(" (")).map(|(_, inner)| inner);
    let text = inner.map_or(message, |inner| inner.strip_suffix(')').unwrap_or(inner));
    without_keys(text).chars().take(MAX_TEXT_CHARS).collect()
}

/// Replaces every run of 32 and more hex digits: a validation error can repeat what was sent.
fn without_keys(text: &str) -> String {
    const KEY_DIGITS: usize = 32;
    let mut clean = String::with_capacity(text.len());
    for run in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let digits = run.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        if digits.len() >= KEY_DIGITS {
            clean.push_str("removed");
            clean.push_str(&run[digits.len()..]);
        } else {
            clean.push_str(run);
        }
    }
    clean
}

/// `X-Rate-Limit-Retry`, else `-Reset`; there is no `Retry-After` (`TheThingsNetwork/lorawan-stack pkg/ratelimit/result.go`).
fn rate_limit_wait(status: u16, headers: &HeaderMap) -> Option<Duration> {
    const NAMES: [&str; 4] = ["x-rate-limit-retry", "x-ratelimit-retry", "x-rate-limit-reset", "x-ratelimit-reset"];
    let seconds = |name: &&str| headers.get(*name)?.to_str().ok()?.trim().parse().ok();
    let wait = NAMES.iter().find_map(seconds).map(Duration::from_secs)?;
    (status == 429).then(|| wait.max(MIN_RATE_WAIT))
}

/// Whether an error of this `namespace:name` says that the device has no session yet.
#[must_use]
pub fn is_no_session(name: &str) -> bool {
    matches!(name, "pkg/applicationserver:no_device_session" | "pkg/networkserver:unknown_mac_state")
}

impl StackError {
    pub(super) fn unreachable(what: &str, source: reqwest::Error) -> Self {
        Self::Unreachable { what: what.to_owned(), source: source.without_url() }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What the failure means for the event behind the call.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::InvalidApiKey | Self::Setup(_) | Self::Unreadable { .. } => Class::Denied,
            Self::Unreachable { .. } => Class::Retry,
            Self::TooLarge { .. } | Self::Conflict { .. } => Class::Poison,
            Self::Refused(refusal) => refusal.class(),
        }
    }

    /// Whether it tells of the service or of our access to it, and so of every other call too; a refusal of this one device
    /// or message is none.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_outage(),
            other => other.class() != Class::Poison,
        }
    }

    /// `namespace:name` of the error of The Things Stack, if it gave one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.refusal()?.name.as_deref()
    }

    /// HTTP status, if there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        Some(self.refusal()?.status)
    }

    /// How long to wait after a refusal for the rate of calls.
    #[must_use]
    pub fn rate_limit_wait(&self) -> Option<Duration> {
        self.refusal()?.wait
    }

    /// Whether the device has no session yet: the downlink must wait for its join.
    #[must_use]
    pub fn is_no_session(&self) -> bool {
        self.name().is_some_and(is_no_session)
    }

    /// Whether the server that was asked does not know the device.
    #[must_use]
    pub fn is_device_not_found(&self) -> bool {
        // The Identity Server names it `end_device_not_found`, the others `device_not_found`, but Network and Application
        // Server let their store speak where they only read (`TheThingsNetwork/lorawan-stack pkg/redis`, v3.32.1).
        self.name().is_some_and(|name| name.ends_with("device_not_found") || name == "pkg/redis:not_found")
    }

    /// Whether there is no such webhook. The registry lets its store speak, like the others.
    pub(super) fn is_webhook_not_found(&self) -> bool {
        self.name().is_some_and(|name| name.ends_with(":webhook_not_found") || name == "pkg/redis:not_found")
    }

    /// Whether the server does not know a field that was asked for: its version is older
    /// (`TheThingsNetwork/lorawan-stack pkg/rpcmiddleware/validator`).
    pub(super) fn is_unknown_field(&self) -> bool {
        self.status() == Some(400) && self.name().is_some_and(|name| name.contains("field_mask"))
    }

    /// Whether the Identity Server has this id or these EUIs already.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.name(), Some("pkg/util/store:id_taken" | "pkg/identityserver:end_device_euis_taken"))
    }
}

#[cfg(test)]
pub(super) fn refused(status: u16, body: &Value) -> StackError {
    let body = body.to_string();
    StackError::Refused(Box::new(Refusal::read("asking", status, &HeaderMap::new(), body.as_bytes())))
}
