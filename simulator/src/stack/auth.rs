//! Who calls, and what may they do (`TheThingsNetwork/lorawan-stack pkg/auth/auth.go`,
//! `pkg/identityserver/entity_access.go`, `pkg/auth/rights/require.go`).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
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

/// An API key of a user, who has rights for the application.
#[derive(Clone, Debug)]
pub(super) struct UserKey {
    pub(super) user: String,
    pub(super) secret: String,
    pub(super) rights: BTreeSet<String>,
}

/// Whose key a call carries.
enum Caller {
    Application,
    User { key_id: String, key: UserKey },
}

impl Caller {
    /// What it may do with the application; with any other, nothing.
    fn rights(&self, shared: &Shared, application: &str) -> BTreeSet<String> {
        match self {
            _ if application != shared.options.application_id => BTreeSet::new(),
            Self::Application => shared.rights().clone(),
            Self::User { key, .. } => key.rights.clone(),
        }
    }
}

/// Checks the header. `None`: there is none, which is no error yet but gives no rights.
fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
    let Some(header) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
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
    match *kind {
        API_KEY => {
            let (own_id, own_secret) = shared.key_parts();
            let (caller, known_secret) = if *id == own_id {
                (Caller::Application, own_secret.to_owned())
            } else {
                let key = shared.user_keys().get(*id).cloned().ok_or_else(api_key_not_found)?;
                let secret = key.secret.clone();
                (Caller::User { key_id: (*id).to_owned(), key }, secret)
            };
            let is_right = *secret == known_secret;
            is_right
                .then_some(Some(caller))
                .ok_or_else(|| identity_server("invalid_authorization", "invalid authorization"))
        }
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
    let caller = authenticate(shared, headers)?;
    let rights = caller.map(|caller| caller.rights(shared, application)).unwrap_or_default();
    let denied = |name, text| ApiError::new(Code::PermissionDenied, "pkg/auth/rights", name, text);
    if rights.is_empty() {
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
    let (id, name, rights, entity) = match authenticate(&shared, &headers)? {
        None => return Ok(Json(json!({}))),
        Some(Caller::Application) => {
            let entity = json!({"application_ids": {"application_id": shared.options.application_id}});
            (shared.key_parts().0.to_owned(), "bridge", shared.rights().clone(), entity)
        }
        // Its own rights are those of a user; what these mean for an application, `list_rights` tells.
        Some(Caller::User { key_id, key }) => {
            let rights = BTreeSet::from(["RIGHT_USER_ALL".to_owned()]);
            (key_id, "by hand", rights, json!({"user_ids": {"user_id": key.user}}))
        }
    };
    let key = json!({"id": id, "name": name, "rights": rights});
    Ok(Json(json!({"api_key": {"api_key": key, "entity_ids": entity}})))
}

/// `GET /applications/{application}/rights`: what the caller may do with it (`ApplicationAccess.ListRights` of
/// `api/ttn/lorawan/v3/application_services.proto`). Nothing is no error.
pub(super) async fn list_rights(
    State(shared): State<Arc<Shared>>,
    Path(application): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let caller = authenticate(&shared, &headers)?;
    let rights = caller.map(|caller| caller.rights(&shared, &application)).unwrap_or_default();
    Ok(Json(if rights.is_empty() { json!({}) } else { json!({"rights": rights}) }))
}
