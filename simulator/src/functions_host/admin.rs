//! The part of `/admin` that touches the handler: a function by hand, drain, status.
//!
//! Sources: `Azure/azure-functions-host` `FunctionsController.cs` and `HostController.cs`, and recordings of a running
//! host.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::function::{EventHubTrigger, Trigger};
use super::proxy::has_key;
use super::shared::{HOST_VERSION, Shared};
use super::trigger::invoke_by_hand;

/// An input may be as large as an Event Hubs message.
const MAX_INPUT: usize = 1024 * 1024;

/// What is asked of the administration.
pub(super) enum Request<'a> {
    Invoke(&'a str),
    Drain,
    DrainStatus,
    Status,
    Ping,
}

impl<'a> Request<'a> {
    pub(super) fn of(head: &Parts, path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/admin/")?;
        match (&head.method, path) {
            (&Method::POST, "host/drain") => Some(Self::Drain),
            (&Method::GET, "host/drain/status") => Some(Self::DrainStatus),
            (&Method::GET, "host/status") => Some(Self::Status),
            (_, "host/ping") => Some(Self::Ping),
            (&Method::POST, path) => {
                path.strip_prefix("functions/").filter(|name| !name.contains('/')).map(Self::Invoke)
            }
            _ => None,
        }
    }
}

pub(super) async fn answer(shared: &Arc<Shared>, what: Request<'_>, head: &Parts, body: Body) -> Response {
    if !has_key(head, &[&shared.master_key]) {
        let is_known = has_key(head, &[&shared.function_key]);
        return if is_known { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED }.into_response();
    }
    match what {
        Request::Invoke(name) => invoke(shared, name, body).await,
        Request::Drain => {
            shared.log.host("DrainMode mode enabled");
            shared.drained.cancel();
            StatusCode::ACCEPTED.into_response()
        }
        Request::DrainStatus => {
            let outstanding = shared.running();
            let is_busy = shared.drained.is_cancelled() && outstanding > 0;
            let state = match (shared.drained.is_cancelled(), is_busy) {
                (false, _) => "Disabled",
                (true, true) => "InProgress",
                (true, false) => "Completed",
            };
            let retries = shared.waiting_retries.load(Ordering::Acquire);
            text(&json!({"state": state, "outstandingInvocations": outstanding, "outstandingRetries": retries}))
        }
        Request::Status => text(&json!({"id": "simulator", "state": "Running", "version": HOST_VERSION})),
        Request::Ping => [(CACHE_CONTROL, "no-store,no-cache"), (PRAGMA, "no-cache")].into_response(),
    }
}

fn text(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], value.to_string()).into_response()
}

/// Answers before the function is called; a call that fails is only in the log.
async fn invoke(shared: &Arc<Shared>, name: &str, body: Body) -> Response {
    let Some(function) = shared.app.functions.iter().find(|function| function.name.eq_ignore_ascii_case(name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(body) = Limited::new(body, MAX_INPUT).collect().await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let input = match serde_json::from_slice(&body.to_bytes()) {
        Ok(Value::Object(mut members)) => members.remove("input"),
        _ => return StatusCode::BAD_REQUEST.into_response(),
    };
    let Trigger::EventHub(trigger) = &function.trigger else {
        return (StatusCode::NOT_IMPLEMENTED, "only functions of Event Hubs can be called by hand").into_response();
    };
    match input {
        Some(Value::String(input)) => start(shared, &function.name, trigger, input),
        None | Some(Value::Null) => shared.log.host(format!("Executed 'Functions.{name}' (Failed): no input")),
        Some(_) => return StatusCode::BAD_REQUEST.into_response(),
    }
    StatusCode::ACCEPTED.into_response()
}

fn start(shared: &Arc<Shared>, function: &str, trigger: &EventHubTrigger, input: String) {
    tokio::spawn(invoke_by_hand(Arc::clone(shared), function.to_owned(), trigger.clone(), input));
}
