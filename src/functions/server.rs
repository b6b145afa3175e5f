//! The server that the Functions host talks to.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use super::{EventHubFunction, Outcome, body, envelope};

/// Largest envelope of a batch: 64 events (`maxEventBatchSize` in host.json) of at most 1 MiB, as base64, and their metadata.
const MAX_ENVELOPE_BYTES: usize = 128 * 1024 * 1024;

/// How long calls that are under way may go on after the signal to stop: the host itself waits 30 s for HTTP calls.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

const INVOCATION_ID: &str = "X-Azure-Functions-InvocationId";

/// The functions of this handler.
#[derive(Debug)]
pub struct Functions {
    routes: Router,
}

impl Default for Functions {
    fn default() -> Self {
        Self::new()
    }
}

impl Functions {
    /// Only the answer to the host's readiness poll, `GET /`.
    #[must_use]
    pub fn new() -> Self {
        let ready = || async { Json(json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")})) };
        Self { routes: Router::new().route("/", get(ready)) }
    }

    /// Adds an HTTP function: the host proxies its requests with path, headers and body as the caller sent them.
    #[must_use]
    pub fn http(self, routes: Router) -> Self {
        Self { routes: self.routes.merge(routes) }
    }

    /// Adds a function that an Event Hub triggers: the host posts its envelopes to `/{name}`.
    #[must_use]
    pub fn event_hub(self, name: &'static str, function: impl EventHubFunction) -> Self {
        let function = Arc::new(function);
        let call = move |headers: HeaderMap, request: Request| {
            let function = Arc::clone(&function);
            async move { invoke(name, function, &headers, request.into_body()).await }
        };
        Self { routes: self.routes.route(&format!("/{name}"), post(call)) }
    }

    /// Serves until `shutdown` ends, then lets the calls that are under way finish.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let signal = async move {
            shutdown.await;
            // The receiver is gone only if the server ended by itself.
            let _ = stopping.send(());
        };
        let listener = listener.tap_io(|socket| {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "set TCP_NODELAY");
            }
        });
        let server = axum::serve(listener, self.routes.fallback(unknown)).with_graceful_shutdown(signal);
        let grace_is_over = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            served = server => served,
            () = grace_is_over => {
                tracing::warn!(seconds = SHUTDOWN_GRACE.as_secs(), "calls still under way after the grace period are given up");
                Ok(())
            }
        }
    }
}

/// Never an empty 2xx: it would make the host wait until its timeout and then kill the process.
async fn invoke(name: &str, function: Arc<impl EventHubFunction>, headers: &HeaderMap, body: Body) -> Response {
    let id = headers.get(INVOCATION_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let body = match body::read_body(body, MAX_ENVELOPE_BYTES).await {
        Ok(body) => body,
        Err(error) => return failed(name, id, &error.to_string()),
    };
    let invocation = match envelope::decode(id, &body) {
        Ok(invocation) => invocation,
        Err(error) => return failed(name, id, &error.to_string()),
    };
    drop(body);
    // In a task of its own: a panic ends the task, and the host delivers the batch again.
    match tokio::spawn(async move { function.run(invocation).await }).await {
        Ok(Outcome::Done(logs)) => Json(json!({"Outputs": {}, "Logs": logs, "ReturnValue": null})).into_response(),
        Ok(Outcome::Retry(reason)) => failed(name, id, &reason),
        Err(error) => failed(name, id, &format!("the batch was given up: {error}")),
    }
}

/// The host delivers the batch again. It throws the body of a failure away, so its reason is logged here.
fn failed(function: &str, invocation: &str, reason: &str) -> Response {
    tracing::error!(function, invocation, reason, "batch failed");
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": reason}))).into_response()
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    let error = format!("there is no function at {path}; this handler and the function.json files beside it disagree");
    tracing::error!(path, "the host called a function that this handler does not have");
    (StatusCode::NOT_FOUND, Json(json!({"error": error}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::Invocation;

    struct Scripted;

    impl EventHubFunction for Scripted {
        async fn run(&self, invocation: Invocation) -> Outcome {
            match &invocation.events[0].body[..] {
                b"done" => Outcome::Done(vec!["1 event".to_owned()]),
                b"again" => Outcome::Retry("the stack is away".to_owned()),
                _ => panic!("a poison event"),
            }
        }
    }

    async fn post(client: &reqwest::Client, url: &str, body: String) -> (u16, String) {
        let answer = client.post(url).body(body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    fn batch(body: &str) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(body);
        json!({"Data": {"events": format!("[\"{body}\"]")}, "Metadata": {}}).to_string()
    }

    #[tokio::test]
    async fn every_invocation_gets_the_answer_that_its_outcome_asks_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let server = tokio::spawn(Functions::new().event_hub("Scripted", Scripted).serve(listener, shutdown));
        let client = reqwest::Client::new();

        assert_eq!(client.get(&base).send().await.expect("an answer").status().as_u16(), 200);
        let url = format!("{base}/Scripted");
        let done = post(&client, &url, batch("done")).await;
        assert_eq!(done, (200, r#"{"Logs":["1 event"],"Outputs":{},"ReturnValue":null}"#.to_owned()));
        assert_eq!(post(&client, &url, batch("again")).await.0, 500);
        assert_eq!(post(&client, &url, batch("panic")).await.0, 500);
        assert_eq!(post(&client, &url, "no envelope".to_owned()).await.0, 500);
        assert_eq!(post(&client, &format!("{base}/Other"), batch("done")).await.0, 404);
        assert_eq!(post(&client, &url, batch("done")).await.0, 200, "no input ends the process");

        stop.send(()).expect("the server runs");
        server.await.expect("no panic").expect("a clean end");
    }
}
