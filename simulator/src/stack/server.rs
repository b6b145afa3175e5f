//! The listener: connections, routes and faults.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderMap;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_service::Service as _;

use super::error::{ApiError, Code};
use super::fault::{Fault, device_of, struck_answer};
use super::registry::Server;
use super::versions::FREQUENCY_PLANS;
use crate::faults::{Fate, Faults, Stage, play};

use super::{Shared, auth, devices, downlinks, package, webhook_registry};

/// Pause after a failed accept: the process has no file descriptor left, and asking again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The routes, all below `/api/v3`.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut api = Router::new()
        .route("/auth_info", get(auth::auth_info))
        .route("/applications/{application}/rights", get(auth::list_rights))
        .route("/configuration/frequency-plans", get(frequency_plans))
        .route("/as/configuration", get(configuration))
        .route("/applications/{application}/devices", devices::collection())
        .route("/as/applications/{application}/devices/{device}/down", get(downlinks::list))
        .route("/as/applications/{application}/devices/{device}/down/{operation}", post(downlinks::operate))
        .route(
            "/as/applications/{application}/webhooks/{webhook}/devices/{device}/down/{operation}",
            post(downlinks::operate_by_webhook),
        )
        .route("/as/applications/{application}/packages/azureiothub/events", post(package::submit))
        .route("/as/applications/{application}/link", get(link))
        .route("/as/webhooks/{application}", webhook_registry::collection())
        .route("/as/webhooks/{application}/{webhook}", webhook_registry::webhook());
    for server in Server::ALL {
        let path = format!("{}/applications/{{application}}/devices/{{device}}", server.prefix());
        api = api.route(&path, devices::device(server));
    }
    Router::new()
        .nest("/api/v3", api)
        .fallback(|| async { ApiError::plain(Code::NotFound, "Not Found") })
        .method_not_allowed_fallback(|| async { ApiError::plain(Code::Unimplemented, "Method Not Allowed") })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), inject_fault))
        .with_state(shared)
}

async fn inject_fault(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let fault = *shared.fault.borrow();
    match fault.answer(request.uri().path()) {
        Some(answer) => answer,
        None => next.run(request).await,
    }
}

/// The open-source edition's defaults: webhooks are never suspended. Zero values are left out.
async fn configuration() -> Json<Value> {
    Json(
        json!({"configuration": {"webhooks": {"unhealthy_attempts_threshold": "0", "unhealthy_retry_interval": "0s"}}}),
    )
}

/// The application has no default formatters.
async fn link(
    State(shared): State<Arc<Shared>>,
    Path(application): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    auth::authorise(&shared, &headers, &application, &[auth::SETTINGS_BASIC])?;
    Ok(Json(json!({})))
}

async fn frequency_plans() -> Json<Value> {
    let plans = FREQUENCY_PLANS.iter().map(|(id, band)| json!({"id": id, "band_id": band}));
    Json(json!({"frequency_plans": plans.collect::<Vec<_>>()}))
}

/// Why a connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost on purpose")]
struct Lost;

/// Takes connections until the task is aborted.
pub(super) async fn accept(listener: TcpListener, router: Router, fault: watch::Receiver<Fault>, faults: Faults) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(serve(socket, router.clone(), fault.clone(), faults.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until it ends or the servers refuse connections.
async fn serve(socket: TcpStream, router: Router, fault: watch::Receiver<Fault>, faults: Faults) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "set nodelay");
    }
    let answers = fault.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (router, fault, faults) = (router.clone(), answers.clone(), faults.clone());
        async move {
            let answer = call(router, request, &faults).await?;
            let is_lost = *fault.borrow() == Fault::LoseAnswers;
            if is_lost { Err(Lost) } else { Ok(answer) }
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    let mut fault = fault;
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        },
        _ = fault.wait_for(|fault| *fault == Fault::Refuse) => {}
    }
}

/// Makes one call, and lets the rules strike it.
async fn call(mut router: Router, request: http::Request<Incoming>, faults: &Faults) -> Result<Response, Lost> {
    let path = request.uri().path();
    let strike = faults.at(Stage::StackApi, device_of(path));
    if let Some(answer) = strike.and_then(|strike| struck_answer(strike, path)) {
        return Ok(answer);
    }
    let answer: Result<Response, Infallible> = router.call(request.map(Body::new)).await;
    match play(strike).await {
        Fate::GoesOn => Ok(answer.unwrap_or_else(|never| match never {})),
        Fate::Silence => std::future::pending().await,
        Fate::Closed => Err(Lost),
    }
}
