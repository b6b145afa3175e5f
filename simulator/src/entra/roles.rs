//! Roles: what an identity may do at a resource.
//!
//! Ids and data actions: `MicrosoftDocs/azure-docs articles/role-based-access-control/built-in-roles.md`.
//! An assignment holds for its scope and all that lies below it
//! (`MicrosoftDocs/azure-docs articles/role-based-access-control/scope-overview.md`).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::happenings::{Happenings, Kind};

/// Data actions that the simulated services ask for.
pub mod actions {
    #![expect(missing_docs, reason = "each is named like the action")]

    pub const DEVICES_READ: &str = "Microsoft.Devices/IotHubs/devices/read";
    pub const DEVICES_WRITE: &str = "Microsoft.Devices/IotHubs/devices/write";
    pub const DEVICES_DELETE: &str = "Microsoft.Devices/IotHubs/devices/delete";
    pub const TWINS_READ: &str = "Microsoft.Devices/IotHubs/twins/read";
    pub const TWINS_WRITE: &str = "Microsoft.Devices/IotHubs/twins/write";
    pub const METHODS_INVOKE: &str = "Microsoft.Devices/IotHubs/directMethods/invoke/action";
    pub const CLOUD_TO_DEVICE_SEND: &str = "Microsoft.Devices/IotHubs/cloudToDeviceMessages/send/action";
    pub const CLOUD_TO_DEVICE_FEEDBACK: &str = "Microsoft.Devices/IotHubs/cloudToDeviceMessages/feedback/action";
    pub const CLOUD_TO_DEVICE_PURGE: &str = "Microsoft.Devices/IotHubs/cloudToDeviceMessages/queue/purge/action";
    pub const FILE_NOTIFICATIONS: &str = "Microsoft.Devices/IotHubs/fileUpload/notifications/action";
    pub const STATISTICS_READ: &str = "Microsoft.Devices/IotHubs/statistics/read";
    pub const EVENTS_SEND: &str = "Microsoft.EventHub/namespaces/messages/send/action";
    pub const EVENTS_RECEIVE: &str = "Microsoft.EventHub/namespaces/messages/receive/action";
    pub const SECRETS_GET: &str = "Microsoft.KeyVault/vaults/secrets/getSecret/action";
}

/// A built-in role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    /// The name that portals and documents show.
    pub name: &'static str,
    /// The last part of its definition's id.
    pub id: &'static str,
    /// Patterns of data actions; `*` stands for anything. Empty for roles that none of the simulated services asks for.
    data_actions: &'static [&'static str],
}

/// The roles that are known, the narrowest first.
const ROLES: [Role; 13] = [
    role(
        "IoT Hub Registry Contributor",
        "4ea46cd5-c1b2-4a8e-910b-273211f9ce47",
        &["Microsoft.Devices/IotHubs/devices/*"],
    ),
    role("IoT Hub Twin Contributor", "494bdba2-168f-4f31-a0a1-191d2f7c028c", &["Microsoft.Devices/IotHubs/twins/*"]),
    role(
        "IoT Hub Data Reader",
        "b447c946-2db7-41ec-983d-d8bf3b1c77e3",
        &["Microsoft.Devices/IotHubs/*/read", actions::FILE_NOTIFICATIONS],
    ),
    role("IoT Hub Data Contributor", "4fc6c259-987e-4a07-842e-c321cc9d413f", &["Microsoft.Devices/IotHubs/*"]),
    role(
        "Azure Event Hubs Data Receiver",
        "a638d3c7-ab3a-418d-83e6-5f17a39d4fde",
        &["Microsoft.EventHub/*/receive/action"],
    ),
    role("Azure Event Hubs Data Sender", "2b629674-e913-4c01-ae53-ef4638d8f975", &["Microsoft.EventHub/*/send/action"]),
    role("Azure Event Hubs Data Owner", "f526a384-b230-433a-b45c-95f59c4a2dec", &["Microsoft.EventHub/*"]),
    role(
        "Key Vault Secrets User",
        "4633458b-17de-408a-b874-0445c86b69e6",
        &[actions::SECRETS_GET, "Microsoft.KeyVault/vaults/secrets/readMetadata/action"],
    ),
    role("Storage Blob Data Owner", "b7e6dc6d-f1e8-4753-8033-0f276bb0955b", &[]),
    role("Storage Blob Data Contributor", "ba92f5b4-2d11-453d-a403-e96b0029c9fe", &[]),
    role("Storage Queue Data Contributor", "974c5e8b-45b9-4653-ba55-5f855dd0fb88", &[]),
    role("Storage Table Data Contributor", "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3", &[]),
    role("Monitoring Metrics Publisher", "3913510d-42f4-4e42-8a64-420c390055eb", &[]),
];

const fn role(name: &'static str, id: &'static str, data_actions: &'static [&'static str]) -> Role {
    Role { name, id, data_actions }
}

impl Role {
    /// The role of a definition, named by its id alone or by the resource id that ends in it.
    #[must_use]
    pub fn find(definition: &str) -> Option<Self> {
        let id = definition.rsplit('/').next().unwrap_or_default();
        ROLES.into_iter().find(|role| role.id.eq_ignore_ascii_case(id))
    }

    /// Whether it holds this data action.
    #[must_use]
    pub fn allows(&self, action: &str) -> bool {
        self.data_actions.iter().any(|pattern| fits(pattern, action))
    }
}

/// Whether an action fits a pattern. Actions are compared without regard to case.
fn fits(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    match pattern.split_once('*') {
        None => pattern == action,
        Some((before, after)) => {
            action.len() >= before.len() + after.len() && action.starts_with(before) && action.ends_with(after)
        }
    }
}

/// A role that a principal has at a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Resource id; what lies below it is meant too.
    pub scope: String,
    /// The role.
    pub role: Role,
    /// Who has it: the principal id of an identity.
    pub principal: String,
}

/// Whether a resource is this scope or lies below it, by whole segments.
fn covers(scope: &str, resource: &str) -> bool {
    let (scope, resource) = (scope.trim_end_matches('/').to_ascii_lowercase(), resource.to_ascii_lowercase());
    resource.strip_prefix(&scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why an identity may not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the principal {principal} lacks the data action {action} at {resource}; the role {role} has it")]
pub struct Denied {
    /// Who.
    pub principal: String,
    /// The data action.
    pub action: &'static str,
    /// The resource id.
    pub resource: String,
    /// The narrowest built-in role with that action.
    pub role: &'static str,
    /// Whether the principal has no role at all there.
    pub has_none: bool,
}

impl Denied {
    /// What is missing, as a happening tells it.
    pub(crate) fn detail(&self) -> Value {
        let Self { principal, action, resource, role, .. } = self;
        json!({"principal": principal, "action": action, "resource": resource, "role": role})
    }

    /// How IoT Hub says it (`Azure/azure-iot-sdk-csharp#3344`, `Azure/azure-sdk-for-net#21453`). Its words for an identity that has a
    /// role, but not this action, are not recorded.
    #[must_use]
    pub(crate) fn refusal(&self, method: &str, path: &str) -> String {
        let reason = if self.has_none { "no assigned permissions" } else { "no permission for this data action" };
        format!("Principal {} is not authorized for {method} on {path} due to {reason}", self.principal)
    }
}

/// What identities may do at one resource. The default lets each do all: roles count only where a template assigns them.
#[derive(Clone, Debug, Default)]
pub struct Access(Option<Guarded>);

#[derive(Clone, Debug)]
struct Guarded {
    resource: Arc<str>,
    assignments: Arc<[Assignment]>,
    happenings: Happenings,
}

impl Access {
    /// What these assignments allow at a resource. Refusals are told to the happenings.
    #[must_use]
    pub fn by_roles(resource: &str, assignments: Arc<[Assignment]>, happenings: Happenings) -> Self {
        Self(Some(Guarded { resource: resource.into(), assignments, happenings }))
    }

    /// Whether roles count.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a principal may do all of this at the resource, or at what is `below` it (say `eventhubs/dead-letters`).
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, principal: &str, actions: &[&'static str], below: &str) -> Result<(), Denied> {
        self.allows(principal, actions, below).inspect_err(|why| self.tell(why))
    }

    /// The same, told to nobody: for what is asked more than once.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn allows(&self, principal: &str, actions: &[&'static str], below: &str) -> Result<(), Denied> {
        actions.iter().try_for_each(|action| self.decide(principal, action, below))
    }

    /// Whether a principal may do at least one of two things there. Told to nobody.
    ///
    /// # Errors
    /// If neither, what is missing for the first.
    pub(crate) fn allows_either(&self, principal: &str, actions: [&'static str; 2], below: &str) -> Result<(), Denied> {
        let [first, second] = actions.map(|action| self.decide(principal, action, below));
        if second.is_ok() { Ok(()) } else { first }
    }

    /// Tells the happenings of a refusal.
    pub(crate) fn tell(&self, why: &Denied) {
        tracing::warn!("{why}");
        let Some(Guarded { happenings, .. }) = &self.0 else { return };
        happenings.note(Kind::Refused, None, || (format!("{} is missing for {}", why.role, why.action), why.detail()));
    }

    fn decide(&self, principal: &str, action: &'static str, below: &str) -> Result<(), Denied> {
        let Some(Guarded { resource, assignments, .. }) = &self.0 else { return Ok(()) };
        let resource = if below.is_empty() { resource.to_string() } else { format!("{resource}/{below}") };
        let mut held = assignments
            .iter()
            .filter(|assignment| assignment.principal == principal && covers(&assignment.scope, &resource))
            .peekable();
        let has_none = held.peek().is_none();
        if held.any(|assignment| assignment.role.allows(action)) {
            return Ok(());
        }
        let role = ROLES.iter().find(|role| role.allows(action)).map_or("Owner of the data plane", |role| role.name);
        Err(Denied { principal: principal.to_owned(), action, resource, role, has_none })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/h";

    fn access(scope: &str, role: &str) -> Access {
        let role = *ROLES.iter().find(|known| known.name == role).expect("it is known");
        let assignment = Assignment { scope: scope.to_owned(), role, principal: "p".to_owned() };
        Access::by_roles(HUB, [assignment].into(), Happenings::new())
    }

    #[test]
    fn a_role_allows_its_actions_and_no_others() {
        for (role, allowed, refused) in [
            ("IoT Hub Registry Contributor", actions::DEVICES_DELETE, actions::TWINS_READ),
            ("IoT Hub Twin Contributor", actions::TWINS_WRITE, actions::METHODS_INVOKE),
            ("IoT Hub Data Reader", actions::TWINS_READ, actions::TWINS_WRITE),
            ("IoT Hub Data Contributor", actions::CLOUD_TO_DEVICE_PURGE, actions::EVENTS_SEND),
            ("Azure Event Hubs Data Receiver", actions::EVENTS_RECEIVE, actions::EVENTS_SEND),
            ("Azure Event Hubs Data Sender", actions::EVENTS_SEND, actions::EVENTS_RECEIVE),
            ("Azure Event Hubs Data Owner", actions::EVENTS_RECEIVE, actions::SECRETS_GET),
            ("Key Vault Secrets User", actions::SECRETS_GET, actions::DEVICES_READ),
        ] {
            let access = access(HUB, role);
            access.check("p", &[allowed], "").expect(role);
            let denied = access.check("p", &[allowed, refused], "").expect_err(role);
            assert!(!denied.has_none && denied.action == refused, "{denied}");
            assert!(access.check("other", &[allowed], "").expect_err(role).has_none);
        }
    }

    #[test]
    fn an_assignment_holds_for_its_scope_and_below_by_whole_segments() {
        let upper = HUB.to_ascii_uppercase();
        for (scope, below, holds) in [
            (HUB, "", true),
            (upper.as_str(), "", true),
            ("/subscriptions/s/resourceGroups/g", "", true),
            ("/subscriptions/s/resourceGroups/g/", "part", true),
            ("/subscriptions/s/resourceGroups/g2", "", false),
            ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/h/part", "", false),
            ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/h/part", "part/one", true),
            ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/h/part", "party", false),
        ] {
            let allowed = access(scope, "IoT Hub Twin Contributor").check("p", &[actions::TWINS_READ], below).is_ok();
            assert_eq!(allowed, holds, "{scope} for {below}");
        }
    }

    #[test]
    fn a_refusal_names_the_narrowest_role_that_would_do() {
        for (action, role) in [
            (actions::DEVICES_WRITE, "IoT Hub Registry Contributor"),
            (actions::TWINS_READ, "IoT Hub Twin Contributor"),
            (actions::EVENTS_SEND, "Azure Event Hubs Data Sender"),
            (actions::METHODS_INVOKE, "IoT Hub Data Contributor"),
        ] {
            let access = access("/elsewhere", "Key Vault Secrets User");
            let denied = access.check("p", &[action], "").expect_err("no role");
            assert_eq!(denied.role, role);
            assert!(denied.to_string().contains(action), "{denied}");
            let Some(Guarded { happenings, .. }) = access.0 else { panic!("roles count") };
            assert!(happenings.after(0).happenings[0].title.contains(role));
        }
    }

    #[test]
    fn one_of_two_actions_is_enough_where_either_will_do() {
        let either = [actions::EVENTS_RECEIVE, actions::EVENTS_SEND];
        access(HUB, "Azure Event Hubs Data Sender").allows_either("p", either, "").expect("the second");
        access(HUB, "Azure Event Hubs Data Receiver").allows_either("p", either, "").expect("the first");
        let denied = access(HUB, "Key Vault Secrets User").allows_either("p", either, "").expect_err("neither");
        assert_eq!(denied.role, "Azure Event Hubs Data Receiver");
    }

    #[test]
    fn without_assignments_everyone_may_do_all() {
        Access::default().check("anyone", &[actions::DEVICES_DELETE], "").expect("roles are not looked at");
    }

    #[test]
    fn a_definition_is_found_by_its_id_in_any_form() {
        let id = "4633458b-17de-408a-b874-0445c86b69e6";
        for definition in [id.to_owned(), format!("/subscriptions/s/providers/x/roleDefinitions/{id}")] {
            assert_eq!(Role::find(&definition).expect("it is known").name, "Key Vault Secrets User");
        }
        assert_eq!(Role::find("00000000-0000-0000-0000-000000000000"), None);
    }
}
