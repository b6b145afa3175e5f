//! Why the platform gave no token.

use std::error::Error as StdError;
use std::time::Duration;

use azure_core::error::ErrorKind;

use crate::failure::Class;

/// Longest text of the platform that is repeated.
const MAX_REASON_CHARS: usize = 300;

/// Set by the platform where an app has an identity.
const ENDPOINT: &str = "IDENTITY_ENDPOINT";

/// Why there is no token of the managed identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The platform knows no such identity, or nothing of identities.
    #[error(
        "the managed identity got no token: {0}; assign the identity to the app, and name a user-assigned one by its client id"
    )]
    Refused(String),
    /// The platform could not be asked, or did not answer.
    #[error("the endpoint for tokens of the managed identity did not answer: {0}")]
    Unavailable(String),
}

impl IdentityError {
    /// What the failure means.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(_) => Class::Denied,
            Self::Unavailable(_) => Class::Retry,
        }
    }

    pub(super) fn setup(error: &azure_core::Error) -> Self {
        Self::Refused(first_line(&error.to_string()))
    }

    pub(super) fn slow(limit: Duration) -> Self {
        Self::unavailable(&format!("nothing within {limit:?}"))
    }

    pub(super) fn ended() -> Self {
        Self::unavailable("nobody asks it any more")
    }

    pub(super) fn defect() -> Self {
        Self::unavailable("asking it met a defect")
    }

    /// Reads an error of the library. An answer that a repetition cannot change is a refusal.
    pub(super) fn from_library(error: &azure_core::Error) -> Self {
        let inner = std::iter::successors(Some(error as &(dyn StdError + 'static)), |&error| error.source())
            .filter_map(|cause| cause.downcast_ref::<azure_core::Error>());
        let status = inner.clone().find_map(|core| match core.kind() {
            ErrorKind::HttpResponse { status, .. } => Some(u16::from(*status)),
            _ => None,
        });
        let text = inner.last().unwrap_or(error).to_string();
        match status {
            Some(408 | 429) | None => Self::unavailable(&text),
            Some(status @ 400..=499) => Self::Refused(format!("{status} {}", first_line(&text))),
            Some(status) => Self::unavailable(&format!("{status} {text}")),
        }
    }

    fn unavailable(text: &str) -> Self {
        let text = first_line(text);
        if std::env::var_os(ENDPOINT).is_some() {
            Self::Unavailable(text)
        } else {
            // The library then asks a virtual machine's endpoint, which a Functions app does not have.
            Self::Unavailable(format!("{text}; {ENDPOINT} is not set: has the app an identity?"))
        }
    }
}

/// The library adds links for those who program with it.
fn first_line(text: &str) -> String {
    text.trim().lines().next().unwrap_or_default().chars().take(MAX_REASON_CHARS).collect()
}
