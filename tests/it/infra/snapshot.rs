//! The template as `bicep snapshot` evaluates it.

use serde_json::Value;
use simulator::entra::Role;

use super::files::json;

/// The committed sets of parameters.
pub(crate) const SETS: [&str; 4] = ["default", "existing-hub", "f1", "always-ready"];

/// One evaluated set of parameters.
pub(crate) struct Snapshot {
    pub(crate) name: &'static str,
    pub(crate) value: Value,
}

/// All of them.
pub(crate) fn all() -> Vec<Snapshot> {
    SETS.map(|name| Snapshot { name, value: json(&format!("infra/snapshots/{name}.snapshot.json")) }).into()
}

impl Snapshot {
    /// The resources of a type.
    pub(crate) fn resources(&self, kind: &str) -> Vec<&Value> {
        let all = self.value["predictedResources"].as_array().expect("resources");
        all.iter().filter(|resource| resource["type"] == kind).collect()
    }

    /// The resource of a type whose name ends with this.
    pub(crate) fn resource(&self, kind: &str, name: &str) -> &Value {
        let found = self.resources(kind);
        let mut found = found.into_iter().filter(|resource| text(&resource["name"]).ends_with(name));
        let one = found.next().unwrap_or_else(|| panic!("{}: no {kind} {name}", self.name));
        assert!(found.next().is_none(), "{}: several {kind} {name}", self.name);
        one
    }

    /// The app settings.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let settings = &self.resource("Microsoft.Web/sites/config", "/appsettings")["properties"];
        let settings = settings.as_object().unwrap_or_else(|| panic!("{}: settings are not evaluated", self.name));
        settings.iter().map(|(name, value)| (name.as_str(), text(value)))
    }

    /// Who, role, scope: in the words of docs/security.md.
    pub(crate) fn roles(&self) -> Vec<[String; 3]> {
        let assignments = self.resources("Microsoft.Authorization/roleAssignments");
        assignments.into_iter().map(|assignment| self.role(assignment)).collect()
    }

    fn role(&self, assignment: &Value) -> [String; 3] {
        let principal = text(&assignment["properties"]["principalId"]);
        let identities = self.resources("Microsoft.ManagedIdentity/userAssignedIdentities");
        let identity =
            identities.into_iter().find(|identity| principal.contains(&format!("'{}'", text(&identity["id"]))));
        let identity = text(&identity.unwrap_or_else(|| panic!("whose is {principal}?"))["name"]);
        let (_, who) = identity.rsplit_once('-').expect("a name with a suffix");

        let role = text(&assignment["properties"]["roleDefinitionId"]);
        let role = Role::find(role).unwrap_or_else(|| panic!("what role is {role}?")).name;

        let id = text(&assignment["id"]);
        let (scope, _) = id.split_once("/providers/Microsoft.Authorization/").expect("an assignment on a resource");
        let (_, scope) = scope.split_once("/providers/").unwrap_or_else(|| panic!("{scope} is more than a resource"));
        let scope = match scope.split('/').collect::<Vec<_>>()[..] {
            ["Microsoft.Devices", "IotHubs", _] => "IoT Hub".to_owned(),
            ["Microsoft.EventHub", "namespaces", _, "eventhubs", name] => format!("Event Hub `{name}`"),
            ["Microsoft.KeyVault", "vaults", _] => "Key Vault".to_owned(),
            ["Microsoft.Storage", "storageAccounts", _] => "storage account".to_owned(),
            ["Microsoft.Insights", "components", _] => "Application Insights".to_owned(),
            _ => panic!("a role on {scope}, which no role here may open"),
        };
        [who.to_owned(), role.to_owned(), scope]
    }
}

/// A JSON string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
