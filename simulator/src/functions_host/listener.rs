//! Whether the listener of an Event Hub trigger may start.
//!
//! The extension asks `$management` for the partitions first and then receives, as the identity that the connection's settings name
//! (`MicrosoftDocs/azure-docs articles/azure-functions/functions-reference.md`, identity-based connections). A listener that cannot
//! start leaves the other functions alone (log of a real one: `Azure/azure-sdk-for-net#26292`). This host does not try again: restart it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use super::app::{App, StartError};
use super::function::{EventHubTrigger, Function, Trigger};
use super::shared::{Cursor, Shared};
use super::trigger::Consumer;
use crate::entra::ManagedIdentity;
use crate::event_hubs::{Barred, Claim, Namespace};

/// How the triggers of an app reach their namespace.
pub(super) struct Connections {
    pub(super) namespace: Namespace,
    /// The host name of the namespace.
    pub(super) host: String,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) identities: Vec<ManagedIdentity>,
}

/// Why a listener does not start, in the words of the client library or the service.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Cause {
    #[error("LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace.")]
    LocalAuthDisabled,
    #[error("No such host is known. ({0}:5671)")]
    OtherHost(String),
    #[error(
        "ManagedIdentityCredential authentication failed: No User Assigned or Delegated Managed Identity found for specified \
         ClientId/ResourceId/PrincipalId."
    )]
    NoIdentity,
    #[error(
        "{connection}__clientId names a managed identity, but {connection}__credential is '{credential}': set it to managedidentity"
    )]
    NotManaged { connection: String, credential: String },
    #[error("The messaging entity 'sb://{host}/{event_hub}/ConsumerGroups/{group}' could not be found.")]
    NoConsumerGroup { host: String, event_hub: String, group: String },
    #[error("Unauthorized access. {0}")]
    Barred(Barred),
    #[error(
        "Unauthorized access. 'Listen' claim(s) are required to perform this operation. Resource: 'sb://{resource}'. The identity of \
         {setting} has no role {role} there."
    )]
    Denied { resource: String, setting: String, role: &'static str },
}

impl Connections {
    /// One consumer for each partition that a function of the app reads.
    pub(super) fn consumers(&self, app: &App) -> Result<Vec<Consumer>, StartError> {
        let mut consumers = Vec::new();
        for function in &app.functions {
            let Some(trigger) = event_hub_trigger(function) else { continue };
            let Some(hub) = self.namespace.hub(&trigger.event_hub) else {
                let problem = format!("the namespace has no Event Hub '{}'", trigger.event_hub);
                return Err(StartError::invalid(&function.name, problem));
            };
            for partition in 0..hub.partition_count() {
                consumers.push(Consumer {
                    hub: Arc::clone(&hub),
                    cursor: Cursor {
                        event_hub: trigger.event_hub.clone(),
                        consumer_group: trigger.consumer_group.clone(),
                        partition,
                    },
                    origin: trigger.origin(&function.name, &self.host, partition),
                    retry: trigger.retry,
                });
            }
        }
        Ok(consumers)
    }

    /// Functions whose listeners cannot start; the log says why.
    pub(super) fn deaf(&self, shared: &Shared) -> BTreeSet<String> {
        let mut deaf = BTreeSet::new();
        for function in &shared.app.functions {
            let Some(Err(cause)) = event_hub_trigger(function).map(|trigger| self.may_listen(trigger)) else {
                continue;
            };
            let name = &function.name;
            shared.log.host(format!("The listener for function 'Functions.{name}' was unable to start. {cause}"));
            shared.log.happened(
                format!("{name}: its listener did not start, {cause}"),
                json!({"what": "listener", "function": name}),
            );
            deaf.insert(name.clone());
        }
        deaf
    }

    fn may_listen(&self, trigger: &EventHubTrigger) -> Result<(), Cause> {
        if !self.namespace.is_guarded() {
            return Ok(());
        }
        let setting = |suffix: &str| self.settings.get(&format!("{}{suffix}", trigger.connection));
        let Some(host) = setting("__fullyQualifiedNamespace") else {
            let of_hub =
                self.namespace.built_in_endpoint().is_some_and(|name| name.eq_ignore_ascii_case(&trigger.event_hub));
            return if of_hub || self.namespace.takes_keys() { Ok(()) } else { Err(Cause::LocalAuthDisabled) };
        };
        if !host.eq_ignore_ascii_case(&self.host) {
            return Err(Cause::OtherHost(host.clone()));
        }
        let client_id = setting("__clientId").map_or("", String::as_str);
        // Only with this credential does the extension look at the client id
        // (`MicrosoftDocs/azure-docs articles/azure-functions/functions-reference.md`, common properties of identity-based connections).
        let credential = setting("__credential").map_or("", String::as_str);
        let is_managed = credential.eq_ignore_ascii_case("managedidentity");
        let is_default = credential.is_empty() && client_id.is_empty();
        if !is_managed && !is_default {
            let connection = trigger.connection.clone();
            return Err(Cause::NotManaged { connection, credential: credential.to_owned() });
        }
        let is_meant = |identity: &&ManagedIdentity| match client_id {
            "" => identity.resource_id.is_empty(),
            id => identity.client_id.eq_ignore_ascii_case(id),
        };
        let identity = self.identities.iter().find(is_meant).ok_or(Cause::NoIdentity)?;
        let (event_hub, group) = (trigger.event_hub.clone(), trigger.consumer_group.clone());
        if !self.namespace.has_consumer_group(&event_hub, &group) {
            return Err(Cause::NoConsumerGroup { host: host.clone(), event_hub, group });
        }
        let principal = &identity.principal_id;
        self.namespace
            .permits_reading_of(principal, &event_hub)
            .and_then(|()| self.namespace.permits(principal, Claim::Listen, &event_hub, Some(&group)))
            .inspect_err(|why| self.namespace.tell(Some(why)))
            .map_err(|why| match why {
                Barred::Role(denied) => Cause::Denied {
                    resource: format!("{host}/{event_hub}/consumergroups/{group}"),
                    setting: format!("{}__clientId", trigger.connection),
                    role: denied.role,
                },
                barred @ Barred::BuiltInEndpoint => Cause::Barred(barred),
            })
    }
}

pub(super) fn event_hub_trigger(function: &Function) -> Option<&EventHubTrigger> {
    match &function.trigger {
        Trigger::EventHub(trigger) => Some(trigger),
        Trigger::Http(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::{Access, Assignment, Role};
    use crate::functions_host::function::Shape;
    use crate::functions_host::retry::RetryPolicy;
    use crate::happenings::Happenings;

    const HOST: &str = "ns.servicebus.windows.net";
    const RECEIVER: &str = "a638d3c7-ab3a-418d-83e6-5f17a39d4fde";
    const SENDER: &str = "2b629674-e913-4c01-ae53-ef4638d8f975";

    fn connections(roles: &[(&str, &str)], settings: &[(&str, &str)]) -> Connections {
        let assignments: Vec<_> = roles
            .iter()
            .map(|(role, scope)| Assignment {
                scope: (*scope).to_owned(),
                role: Role::find(role).expect("it is known"),
                principal: "p-app".to_owned(),
            })
            .collect();
        let access = Access::by_roles("/ns", assignments.into(), Happenings::default());
        let namespace =
            Namespace::new(&[("events", 1)]).with_consumer_group_of("events", "mine").guarded_by(access, false);
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let identity = ManagedIdentity {
            resource_id: "/ids/app".to_owned(),
            client_id: "c-app".to_owned(),
            principal_id: "p-app".to_owned(),
        };
        Connections { namespace, host: HOST.to_owned(), settings, identities: vec![identity] }
    }

    fn trigger(group: &str) -> EventHubTrigger {
        EventHubTrigger {
            binding: "events".to_owned(),
            event_hub: "events".to_owned(),
            consumer_group: group.to_owned(),
            connection: "C".to_owned(),
            shape: Shape::ManyBinary,
            retry: RetryPolicy::None,
        }
    }

    const MANAGED: (&str, &str) = ("C__credential", "managedidentity");
    const BY_IDENTITY: [(&str, &str); 3] = [("C__fullyQualifiedNamespace", HOST), ("C__clientId", "c-app"), MANAGED];

    #[test]
    fn a_listener_with_its_role_and_its_group_starts() {
        for scope in ["/ns", "/ns/eventhubs/events"] {
            assert_eq!(connections(&[(RECEIVER, scope)], &BY_IDENTITY).may_listen(&trigger("mine")), Ok(()), "{scope}");
        }
    }

    #[test]
    fn a_listener_without_its_role_names_the_role() {
        for roles in [
            vec![],
            vec![(SENDER, "/ns")],
            vec![(RECEIVER, "/ns/eventhubs/other")],
            // As on the platform: the partitions are asked for at the Event Hub (`Azure/azure-functions-python-worker#1778`).
            vec![(RECEIVER, "/ns/eventhubs/events/consumergroups/mine")],
        ] {
            let cause = connections(&roles, &BY_IDENTITY).may_listen(&trigger("mine")).expect_err("no role");
            let text = cause.to_string();
            assert!(text.contains("'Listen' claim(s)") && text.contains("Azure Event Hubs Data Receiver"), "{text}");
        }
    }

    #[test]
    fn a_listener_without_group_identity_or_namespace_says_what_is_not_there() {
        let role = [(RECEIVER, "/ns")];
        for (settings, group, text) in [
            (BY_IDENTITY.to_vec(), "other", "ConsumerGroups/other' could not be found"),
            (vec![BY_IDENTITY[0], ("C__clientId", "c-2"), MANAGED], "mine", "No User Assigned"),
            (BY_IDENTITY[..2].to_vec(), "mine", "C__credential is '': set it to managedidentity"),
            (vec![BY_IDENTITY[0], BY_IDENTITY[1], ("C__credential", "other")], "mine", "C__credential is 'other'"),
            (vec![BY_IDENTITY[0], MANAGED], "mine", "No User Assigned"),
            (vec![BY_IDENTITY[0]], "mine", "No User Assigned"),
            (vec![("C__fullyQualifiedNamespace", "x.example")], "mine", "No such host is known. (x.example"),
            (vec![("C", "Endpoint=sb://x")], "mine", "LocalAuthDisabled"),
        ] {
            let cause = connections(&role, &settings).may_listen(&trigger(group)).expect_err(text);
            assert!(cause.to_string().contains(text), "{cause}");
        }
    }
}
