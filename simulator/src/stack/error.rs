//! Errors as the API words them (`TheThingsNetwork/lorawan-stack pkg/errors/`, `api/ttn/lorawan/v3/error.proto`).

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::ids;

/// The gRPC codes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    /// `pkg/errors/http.go`: two pairs of codes share a status.
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Aborted => StatusCode::CONFLICT,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiError {
    code: Code,
    message: &'static str,
    definition: Option<(&'static str, &'static str)>,
    attributes: Map<String, Value>,
    cause: Option<Box<ApiError>>,
}

impl ApiError {
    /// A defined error: its namespace, its name and its text with `{attribute}`s.
    pub(super) fn new(code: Code, namespace: &'static str, name: &'static str, format: &'static str) -> Self {
        Self { code, message: format, definition: Some((namespace, name)), attributes: Map::new(), cause: None }
    }

    /// An error of the gateway in front of the servers: it has no details.
    pub(super) fn plain(code: Code, message: &'static str) -> Self {
        Self { code, message, definition: None, attributes: Map::new(), cause: None }
    }

    /// A body or a value that cannot be parsed.
    pub(super) fn unreadable() -> Self {
        Self::plain(Code::InvalidArgument, "the request cannot be parsed")
    }

    /// A field that breaks the schema (`pkg/errors/validation.go`).
    pub(super) fn validation(field: &str, reason: &str) -> Self {
        Self::new(Code::InvalidArgument, "pkg/errors", "validation", "invalid `{field}`: {reason}")
            .with("field", field)
            .with("reason", reason)
            .with("name", "ValidationError")
    }

    /// With one more attribute.
    pub(super) fn with(mut self, attribute: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(attribute.to_owned(), value.into());
        self
    }

    /// With what caused it.
    pub(super) fn because(mut self, cause: Self) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// The HTTP status of the answer.
    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The text with its attributes filled in.
    fn text(&self) -> String {
        self.attributes.iter().fold(self.message.to_owned(), |text, (name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.replace(&format!("{{{name}}}"), &value)
        })
    }

    /// `ErrorDetails` without `@type`, as in a `downlink_failed`.
    pub(super) fn details(&self) -> Value {
        let (namespace, name) = self.definition.unwrap_or_default();
        let mut details = json!({
            "namespace": namespace,
            "name": name,
            "message_format": self.message,
            "correlation_id": ids::error_correlation_id(),
            "code": self.code as u8,
        });
        if !self.attributes.is_empty() {
            details["attributes"] = Value::Object(self.attributes.clone());
        }
        if let Some(cause) = &self.cause {
            details["cause"] = cause.details();
        }
        details
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        let Some((namespace, name)) = self.definition else {
            return json!({"code": self.code as u8, "message": self.message, "details": []});
        };
        let mut details = self.details();
        details["@type"] = json!("type.googleapis.com/ttn.lorawan.v3.ErrorDetails");
        json!({
            "code": self.code as u8,
            "message": format!("error:{namespace}:{name} ({})", self.text()),
            "details": [details],
        })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self.body())).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_body_that_the_api_gives() {
        let error = ApiError::new(
            Code::NotFound,
            "pkg/applicationserver",
            "device_not_found",
            "device `{device_uid}` not found",
        )
        .with("device_uid", "greenhouse.valve-1");
        let mut body = error.body();
        let correlation_id = body["details"][0]["correlation_id"].take();
        assert_eq!(correlation_id.as_str().map(str::len), Some(32));
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            body,
            json!({
                "code": 5,
                "message": "error:pkg/applicationserver:device_not_found (device `greenhouse.valve-1` not found)",
                "details": [{
                    "@type": "type.googleapis.com/ttn.lorawan.v3.ErrorDetails",
                    "namespace": "pkg/applicationserver",
                    "name": "device_not_found",
                    "message_format": "device `{device_uid}` not found",
                    "attributes": {"device_uid": "greenhouse.valve-1"},
                    "correlation_id": null,
                    "code": 5,
                }],
            })
        );
    }

    #[test]
    fn an_error_of_the_gateway_has_no_details() {
        let body = ApiError::plain(Code::NotFound, "Not Found").body();
        assert_eq!(body, json!({"code": 5, "message": "Not Found", "details": []}));
    }

    #[test]
    fn codes_become_the_statuses_of_the_api() {
        for (code, status) in [
            (Code::InvalidArgument, 400),
            (Code::FailedPrecondition, 400),
            (Code::Unauthenticated, 401),
            (Code::PermissionDenied, 403),
            (Code::NotFound, 404),
            (Code::AlreadyExists, 409),
            (Code::Aborted, 409),
            (Code::ResourceExhausted, 429),
            (Code::Unimplemented, 501),
            (Code::Unavailable, 503),
        ] {
            assert_eq!(code.status().as_u16(), status, "{code:?}");
        }
    }
}
