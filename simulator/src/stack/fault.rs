//! What can be wrong with the servers, and what single calls meet (see [`crate::faults`]).

use axum::response::{IntoResponse, Response};
use http::HeaderValue;

use super::error::{ApiError, Code};
use super::registry::Server;
use crate::faults::Strike;

/// What the API does instead of its work. The simulated devices and the webhooks go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is wrong.
    #[default]
    None,
    /// 503 with gRPC code 14 and no details.
    Unavailable,
    /// 429 with `X-Rate-Limit-*` headers.
    RateLimited,
    /// 401 `api_key_expired`.
    Unauthorised,
    /// Connections are closed, open ones at once.
    Refuse,
    /// The work is done, then the connection is closed instead of an answer.
    LoseAnswers,
    /// 503 of this one server.
    FailServer(Server),
}

impl Fault {
    /// The answer that the fault gives to a call of this path, if it has one.
    pub(super) fn answer(self, path: &str) -> Option<Response> {
        match self {
            Self::None | Self::Refuse | Self::LoseAnswers => None,
            Self::Unavailable => Some(ApiError::plain(Code::Unavailable, "the server is unavailable").into_response()),
            Self::RateLimited => Some(rate_limited()),
            Self::Unauthorised => Some(
                ApiError::new(Code::Unauthenticated, "pkg/identityserver", "api_key_expired", "api key expired")
                    .into_response(),
            ),
            Self::FailServer(server) => (Server::of_path(path) == Some(server)).then(|| {
                ApiError::new(
                    Code::Unavailable,
                    "pkg/cluster",
                    "peer_unavailable",
                    "{cluster_role} cluster peer unavailable",
                )
                .with("cluster_role", server.cluster_role())
                .into_response()
            }),
        }
    }
}

/// The answer that a strike gives in place of the work, if it does: that of the fault of the same kind.
pub(super) fn struck_answer(strike: Strike, path: &str) -> Option<Response> {
    match strike {
        Strike::Throttle => Fault::RateLimited.answer(path),
        Strike::Refuse => Fault::Unavailable.answer(path),
        Strike::Delay(_) | Strike::Drop | Strike::Close => None,
    }
}

/// The end device that a path of the API names.
pub(super) fn device_of(path: &str) -> Option<&str> {
    let mut parts = path.split('/').skip_while(|part| *part != "devices");
    parts.nth(1).filter(|id| !id.is_empty())
}

/// `TheThingsNetwork/lorawan-stack pkg/ratelimit/`: whole seconds, cut off, so `Retry` can be 0.
fn rate_limited() -> Response {
    let error = ApiError::new(
        Code::ResourceExhausted,
        "pkg/ratelimit",
        "rate_limit_exceeded",
        "rate limit of `{rate}` accesses per minute exceeded for resource `{key}`",
    )
    .with("key", "application")
    .with("rate", 60);
    let mut response = error.into_response();
    for (name, value) in [
        ("x-rate-limit-limit", "60"),
        ("x-rate-limit-available", "0"),
        ("x-rate-limit-reset", "59"),
        ("x-rate-limit-retry", "0"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
