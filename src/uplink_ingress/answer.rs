//! What a webhook is answered. The Things Stack shows a short text of a failure to its user, and only its status matters.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::body::MAX_WEBHOOK_BYTES;
use super::settle::Settled;
use crate::ids::DeviceId;
use crate::message_type::MessageType;
use crate::stack::{ApplicationUp, ForeignApplication, MalformedMessage};

/// Seconds after which a caller may try again: long enough for a hub or a namespace to fail over.
const RETRY_AFTER_S: &str = "30";

/// What became of a message that is answered 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    Parked,
    Ignored,
    Duplicate,
    DeadLettered,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Parked => "parked",
            Self::Ignored => "ignored",
            Self::Duplicate => "duplicate",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// The 2xx answer.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    /// `None` for a body that could not be read.
    pub(super) device: Option<DeviceId>,
    pub(super) kind: Option<MessageType>,
    pub(super) message_id: Option<String>,
    pub(super) outcome: Outcome,
    /// Whether it, or a part of it, was parked: told to the operator, not to the caller.
    pub(super) parked: bool,
    pub(super) reason: Option<String>,
}

impl Receipt {
    /// The receipt of a message of which nothing has become yet.
    pub(super) fn of(up: &ApplicationUp) -> Self {
        let (device, message_id) = (Some(up.device.id.clone()), Some(up.message_id()));
        Self { device, kind: up.kind, message_id, outcome: Outcome::Ignored, parked: false, reason: None }
    }

    /// The receipt of a body that went to the dead letters unread.
    pub(super) fn unread(reason: String) -> Self {
        let (outcome, reason) = (Outcome::DeadLettered, Some(reason));
        Self { device: None, kind: None, message_id: None, outcome, parked: false, reason }
    }

    pub(super) fn with(self, Settled { outcome, parked, reason }: Settled) -> Self {
        Self { outcome, parked, reason, ..self }
    }
}

impl IntoResponse for Receipt {
    fn into_response(self) -> Response {
        let mut answer = json!({"outcome": self.outcome.name()});
        for (name, value) in [("messageId", self.message_id), ("reason", self.reason)] {
            if let Some(value) = value {
                answer[name] = value.into();
            }
        }
        Json(answer).into_response()
    }
}

/// Why a webhook is not answered 2xx.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "the header X-Webhook-Secret is missing or wrong; give the webhook the value of the setting WEBHOOK_SECRET"
    )]
    Unauthorised,
    #[error("the webhook sends protobuf; set the webhook's format to JSON in the Console")]
    Protobuf,
    #[error("the body is compressed; The Things Stack sends webhooks as they are, and only those are read")]
    Encoded,
    #[error("the body is larger than {MAX_WEBHOOK_BYTES} bytes; narrow the webhook's field mask")]
    TooLarge,
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body ended before its end")]
    Interrupted,
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Foreign(String),
    #[error("neither delivered nor parked: {0}")]
    Unsettled(String),
}

impl From<MalformedMessage> for Refusal {
    fn from(error: MalformedMessage) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<ForeignApplication> for Refusal {
    fn from(error: ForeignApplication) -> Self {
        Self::Foreign(error.to_string())
    }
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::Protobuf | Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Interrupted | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Foreign(_) => StatusCode::FORBIDDEN,
            Self::Unsettled(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, answer) = (self.status(), Json(json!({"error": self.to_string()})));
        match self {
            Self::Unsettled(_) => (status, [(RETRY_AFTER, RETRY_AFTER_S)], answer).into_response(),
            _ => (status, answer).into_response(),
        }
    }
}
