//! Why Event Hubs did not take an event, and what that means for the event.

use std::error::Error as StdError;

use azure_core_amqp::error::{AmqpDescribedError, AmqpError, AmqpErrorCondition, AmqpErrorKind};
use azure_messaging_eventhubs::error::ErrorKind;

use crate::failure::Class;
use crate::managed_identity::IdentityError;

/// Why Event Hubs did not take an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventHubsError {
    /// The connection string cannot be used.
    #[error("the connection string of the event hubs namespace cannot be used: {0}")]
    ConnectionString(String),
    /// The managed identity cannot be used for the namespace, or has no token now.
    #[error("get a token for the event hubs namespace: {0}")]
    Identity(#[from] IdentityError),
    /// The namespace did not let us in, or has no such Event Hub.
    #[error(
        "event hub {hub} refused us: {reason}; check that it exists and that the key or identity may send to it (role Azure Event Hubs Data Sender)"
    )]
    Denied {
        /// The Event Hub.
        hub: &'static str,
        /// What the namespace said.
        reason: String,
    },
    /// The namespace is at its limit.
    #[error("event hub {hub} is throttled: {reason}; more throughput units would help")]
    Throttled {
        /// The Event Hub.
        hub: &'static str,
        /// What the namespace said.
        reason: String,
    },
    /// The event is larger than the namespace takes.
    #[error("event hub {hub} takes no event as large as this one: {reason}")]
    TooLarge {
        /// The Event Hub.
        hub: &'static str,
        /// What the namespace said.
        reason: String,
    },
    /// The namespace does not take the event as it is.
    #[error("event hub {hub} rejected the event: {reason}")]
    Rejected {
        /// The Event Hub.
        hub: &'static str,
        /// What the namespace said.
        reason: String,
    },
    /// The namespace could not be reached, or failed.
    #[error("event hub {hub} could not be reached: {reason}")]
    Unreachable {
        /// The Event Hub.
        hub: &'static str,
        /// What happened.
        reason: String,
    },
    /// The deadline passed. Whether the event was taken is unknown.
    #[error("event hub {hub} did not take the event in time{}", Before(.last))]
    Late {
        /// The Event Hub.
        hub: &'static str,
        /// The last failure before the deadline.
        last: Option<Box<EventHubsError>>,
    },
    /// The client has been closed.
    #[error("the client of event hub {hub} is closed")]
    Closed {
        /// The Event Hub.
        hub: &'static str,
    },
}

struct Before<'a>(&'a Option<Box<EventHubsError>>);

impl std::fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |last| write!(f, "; the last failure was: {last}"))
    }
}

/// Longest text of the namespace that is repeated in an error.
const MAX_REASON_CHARS: usize = 300;

impl EventHubsError {
    /// What the failure means.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Identity(error) => error.class(),
            Self::ConnectionString(_) | Self::Denied { .. } => Class::Denied,
            Self::Throttled { .. } => Class::Throttled,
            Self::TooLarge { .. } | Self::Rejected { .. } => Class::Poison,
            Self::Late { last, .. } => last.as_ref().map_or(Class::Retry, |last| last.class()),
            Self::Unreachable { .. } | Self::Closed { .. } => Class::Retry,
        }
    }

    /// Reads an error of the client library. Its texts are taken by `Display` only: `Debug` prints whole backtraces.
    pub(super) fn from_library(hub: &'static str, error: &azure_messaging_eventhubs::EventHubsError) -> Self {
        if let ErrorKind::SendRejected(Some(described)) = &error.kind {
            return Self::from_described(hub, described);
        }
        match amqp(error).map(AmqpError::kind) {
            Some(AmqpErrorKind::AmqpDescribedError(described)) => Self::from_described(hub, described),
            Some(AmqpErrorKind::ManagementStatusCode(code, text)) => {
                let reason = cut(&format!("{code} {}", text.as_deref().unwrap_or_default()));
                match u16::from(*code) {
                    401 | 403 | 404 => Self::Denied { hub, reason },
                    429 => Self::Throttled { hub, reason },
                    _ => Self::Unreachable { hub, reason },
                }
            }
            _ => Self::from_core(hub, error),
        }
    }

    fn from_described(hub: &'static str, described: &AmqpDescribedError) -> Self {
        use AmqpErrorCondition as C;
        let condition: &str = (&described.condition).into();
        let reason = cut(&format!("{condition} {}", described.description.as_deref().unwrap_or_default()));
        match &described.condition {
            C::UnauthorizedAccess | C::NotFound | C::EntityDisabledError | C::PublisherRevokedError => {
                Self::Denied { hub, reason }
            }
            C::ServerBusyError | C::ResourceLimitExceeded => Self::Throttled { hub, reason },
            C::LinkPayloadSizeExceeded => Self::TooLarge { hub, reason },
            C::DecodeError | C::InvalidField | C::NotImplemented | C::ArgumentError | C::ArgumentOutOfRangeError => {
                Self::Rejected { hub, reason }
            }
            _ => Self::Unreachable { hub, reason },
        }
    }

    fn from_core(hub: &'static str, error: &azure_messaging_eventhubs::EventHubsError) -> Self {
        if let Some(identity) = chain(error).find_map(|cause| cause.downcast_ref::<IdentityError>()) {
            return Self::Identity(identity.clone());
        }
        Self::Unreachable { hub, reason: cut(&innermost(error).to_string()) }
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The AMQP error behind an error of the library: `azure_core` wraps it, sometimes more than once.
fn amqp(error: &azure_messaging_eventhubs::EventHubsError) -> Option<&AmqpError> {
    chain(error)
        .filter_map(|cause| cause.downcast_ref::<AmqpError>())
        .find(|amqp| !matches!(amqp.kind(), AmqpErrorKind::AzureCore(_)))
}

/// The cause without the layers around it, which print it with `Debug`.
fn innermost(error: &azure_messaging_eventhubs::EventHubsError) -> &(dyn StdError + 'static) {
    chain(error).last().unwrap_or(error)
}

fn cut(text: &str) -> String {
    text.trim().chars().take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use azure_core_amqp::AmqpOrderedMap;

    use super::*;

    fn described(condition: &str) -> azure_messaging_eventhubs::EventHubsError {
        let Ok(condition) = condition.parse::<AmqpErrorCondition>();
        let error = AmqpDescribedError::new(condition, Some("why".into()), AmqpOrderedMap::new());
        AmqpError::from(AmqpErrorKind::AmqpDescribedError(error)).into()
    }

    #[test]
    fn the_condition_decides_the_class() {
        for (condition, class) in [
            ("amqp:unauthorized-access", Class::Denied),
            ("amqp:not-found", Class::Denied),
            ("com.microsoft:server-busy", Class::Throttled),
            ("amqp:resource-limit-exceeded", Class::Throttled),
            ("amqp:link:message-size-exceeded", Class::Poison),
            ("amqp:decode-error", Class::Poison),
            ("amqp:internal-error", Class::Retry),
            ("amqp:link:detach-forced", Class::Retry),
            ("amqp:connection:forced", Class::Retry),
            ("com.microsoft:timeout", Class::Retry),
            ("x:never-heard-of", Class::Retry),
        ] {
            let error = EventHubsError::from_library("h", &described(condition));
            assert_eq!(error.class(), class, "{error}");
            assert!(error.to_string().contains(condition), "{error}");
        }
    }

    #[test]
    fn a_condition_is_found_behind_the_wrapping_of_the_library() {
        let inner: azure_core::Error = described("amqp:unauthorized-access").into();
        let wrapped =
            azure_core::Error::with_error(azure_core::error::ErrorKind::Other, inner, "could not ensure sender");
        let error = AmqpError::from(wrapped).into();
        assert_eq!(EventHubsError::from_library("h", &error).class(), Class::Denied);
    }

    #[test]
    fn a_failure_of_the_managed_identity_is_found_behind_the_wrapping_and_keeps_its_class() {
        for identity in [IdentityError::Refused("r".into()), IdentityError::Unavailable("u".into())] {
            let inner = azure_core::Error::new(azure_core::error::ErrorKind::Credential, identity.clone());
            let wrapped = azure_core::Error::with_error(azure_core::error::ErrorKind::Other, inner, "ensure sender");
            let error = EventHubsError::from_library("h", &AmqpError::from(wrapped).into());
            assert_eq!((error.class(), error), (identity.class(), EventHubsError::Identity(identity)));
        }
    }

    #[test]
    fn a_late_answer_has_the_class_of_the_last_failure() {
        let late = |last: Option<EventHubsError>| EventHubsError::Late { hub: "h", last: last.map(Box::new) };
        assert_eq!(late(None).class(), Class::Retry);
        let throttled = EventHubsError::Throttled { hub: "h", reason: "r".into() };
        assert_eq!(late(Some(throttled)).class(), Class::Throttled);
    }
}
