//! What a call of the service API counts as.

use axum::body::HttpBody as _;
use axum::response::Response;
use http::Method;

use crate::iot_hub::hub::Hub;
use crate::iot_hub::limits::{Billable, Operation};

/// The rate that a call falls under. A bulk call has none here: each of its operations counts, and only its handler knows how
/// many there are.
pub(super) fn operation(method: &Method, path: &str) -> Option<Operation> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    Some(match (method, parts.as_slice()) {
        (&Method::POST, ["devices"]) => return None,
        (&Method::POST, ["devices", "query"]) => Operation::Query,
        (&Method::POST, ["twins", _, "methods"]) => Operation::Method,
        (&Method::GET, ["twins", ..]) => Operation::TwinRead,
        (_, ["twins", ..]) => Operation::TwinUpdate,
        _ => Operation::Identity,
    })
}

/// Bills a call that has been done: writes and methods by what was sent, reads and queries by what is answered.
pub(super) fn bill(hub: &Hub, operation: Operation, sent: u64, answer: &Response) {
    if !answer.status().is_success() {
        return;
    }
    let answered = answer.body().size_hint().exact().unwrap_or_default();
    let (kind, bytes) = match operation {
        Operation::TwinRead => (Billable::TwinRead, answered),
        Operation::Query => (Billable::Query, answered),
        Operation::TwinUpdate => (Billable::TwinUpdate, sent),
        Operation::Method => (Billable::Method, sent),
        Operation::Connect | Operation::D2cSend | Operation::C2dSend | Operation::Identity => return,
    };
    hub.bill(kind, usize::try_from(bytes).unwrap_or(usize::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_falls_under_its_rate() {
        for (method, path, expected) in [
            (Method::GET, "/devices", Some(Operation::Identity)),
            (Method::GET, "/devices/d1", Some(Operation::Identity)),
            (Method::PUT, "/devices/query", Some(Operation::Identity)),
            (Method::DELETE, "/devices/d1", Some(Operation::Identity)),
            (Method::POST, "/devices", None),
            (Method::POST, "/devices/", None),
            (Method::POST, "/devices/query", Some(Operation::Query)),
            (Method::GET, "/twins/d1", Some(Operation::TwinRead)),
            (Method::PATCH, "/twins/d1", Some(Operation::TwinUpdate)),
            (Method::PUT, "/twins/d1", Some(Operation::TwinUpdate)),
            (Method::POST, "/twins/d1/methods", Some(Operation::Method)),
        ] {
            assert_eq!(operation(&method, path), expected, "{method} {path}");
        }
    }
}
