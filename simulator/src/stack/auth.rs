//! Who calls, and what may they do (`TheThingsNetwork/lorawan-stack pkg/auth/auth.go`,
//! `pkg/identityserver/entity_access.go`, `pkg/auth/rights/require.go`).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::Shared;
use super::error::{ApiError, Code};

pub(super) const DEVICES_READ: &str = "RIGHT_APPLICATION_DEVICES_READ";
pub(super) const DEVICES_READ_KEYS: &str = "RIGHT_APPLICATION_DEVICES_READ_KEYS";
pub(super) const DEVICES_WRITE: &str = "RIGHT_APPLICATION_DEVICES_WRITE";
pub(super) const DEVICES_WRITE_KEYS: &str = "RIGHT_APPLICATION_DEVICES_WRITE_KEYS";
pub(super) const TRAFFIC_READ: &str = "RIGHT_APPLICATION_TRAFFIC_READ";
pub(super) const TRAFFIC_DOWN_WRITE: &str = "RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE";
pub(super) const SETTINGS_BASIC: &str = "RIGHT_APPLICATION_SETTINGS_BASIC";
pub(super) const SETTINGS_PACKAGES: &str = "RIGHT_APPLICATION_SETTINGS_PACKAGES";

/// The rights of an application that this program knows.
pub const ALL_RIGHTS: [&str; 8] = [
    DEVICES_READ,
    DEVICES_READ_KEYS,
    DEVICES_WRITE,
    DEVICES_WRITE_KEYS,
    TRAFFIC_READ,
    TRAFFIC_DOWN_WRITE,
    SETTINGS_BASIC,
    SETTINGS_PACKAGES,
];

/// Token types whose form is valid besides an API key's.
const OTHER_TOKENS: &[&str] = &["MFRWG", "OJZGK", "MNXWI", "ONSXG"];
const API_KEY: &str = "NNSXS";

fn identity_server(name: &'static str, text: &'static str) -> ApiError {
    ApiError::new(Code::Unauthenticated, "pkg/identityserver", name, text)
}

/// Checks the header. `false`: there is none, which is no error yet but gives no rights.
fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<bool, ApiError> {
    let Some(header) = headers.get(header::AUTHORIZATION) else {
        return Ok(false);
    };
    let header = header.to_str().map_err(|_| ApiError::unreadable())?;
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(identity_server("unsupported_authorization", "unsupported authorization method"));
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [kind, id, secret] = parts.as_slice() else {
        return Err(malformed());
    };
    let (known_id, known_secret) = shared.key_parts();
    match *kind {
        API_KEY if *id != known_id => Err(api_key_not_found()),
        API_KEY if *secret != known_secret => Err(identity_server("invalid_authorization", "invalid authorization")),
        API_KEY => Ok(true),
        kind if OTHER_TOKENS.contains(&kind) => Err(identity_server("token_not_found", "token not found")),
        _ => Err(malformed()),
    }
}

fn malformed() -> ApiError {
    ApiError::new(Code::InvalidArgument, "pkg/auth", "token", "invalid token")
}

fn api_key_not_found() -> ApiError {
    let store = ApiError::new(Code::NotFound, "pkg/identityserver/store", "api_key_not_found", "API key not found");
    identity_server("api_key_not_found", "API key not found").because(store)
}

/// Requires these rights for an application.
pub(super) fn authorise(
    shared: &Shared,
    headers: &HeaderMap,
    application: &str,
    required: &[&str],
) -> Result<(), ApiError> {
    let is_known = authenticate(shared, headers)?;
    let rights = shared.rights();
    let denied = |name, text| ApiError::new(Code::PermissionDenied, "pkg/auth/rights", name, text);
    if !is_known || application != shared.options.application_id || rights.is_empty() {
        let error = denied("no_application_rights", "no rights for application `{uid}`");
        return Err(error.with("uid", application));
    }
    let missing: Vec<&str> = required.iter().copied().filter(|right| !rights.contains(*right)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let error = denied("insufficient_application_rights", "insufficient rights for application `{uid}`");
    Err(error.with("uid", application).with("missing", missing))
}

/// `GET /auth_info`: whose key this is. Without a key the answer is empty.
pub(super) async fn auth_info(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    if !authenticate(&shared, &headers)? {
        return Ok(Json(json!({})));
    }
    let (id, _) = shared.key_parts();
    Ok(Json(json!({
        "api_key": {
            "api_key": {"id": id, "name": "bridge", "rights": *shared.rights()},
            "entity_ids": {"application_ids": {"application_id": shared.options.application_id}},
        },
    })))
}
