//! Who may do what: the evaluated template against docs/security.md.

use std::collections::BTreeSet;

use tts_iot_hub::event_hubs::{DEAD_LETTERS, PARKED_UPLINKS, STACK_EVENTS};

use super::files::{read, table};
use super::snapshot::{Snapshot, all, text};

fn documented() -> Vec<Vec<String>> {
    table(&read("docs/security.md"), "roles")
}

#[test]
fn every_role_assignment_is_on_the_list_and_every_role_on_the_list_is_assigned() {
    let listed: BTreeSet<[String; 3]> =
        documented().iter().map(|row| [row[0].clone(), row[1].clone(), row[2].clone()]).collect();
    assert_eq!(listed.len(), documented().len(), "a row stands there twice");
    for snapshot in all() {
        let roles = snapshot.roles();
        let assigned: BTreeSet<_> = roles.iter().cloned().collect();
        assert_eq!(assigned.len(), roles.len(), "{}: a role is assigned twice", snapshot.name);
        assert_eq!(assigned, listed, "{}", snapshot.name);
    }
}

#[test]
fn every_row_says_why_and_what_fails_and_a_need_of_the_platform_has_its_source() {
    for row in documented() {
        let [.., why, fails, need] = row.as_slice() else { panic!("{row:?}") };
        assert!(!why.is_empty() && !fails.is_empty(), "{row:?}");
        assert!(need == "bridge" || need.starts_with("platform (") && need.contains("](https://"), "{row:?}");
    }
}

#[test]
fn the_app_can_not_forge_events_of_the_hub() {
    for snapshot in all() {
        let sends = |who: &str| -> BTreeSet<String> {
            let roles = snapshot.roles().into_iter();
            roles.filter(|[whose, role, _]| whose == who && role.ends_with("Sender")).map(|[.., scope]| scope).collect()
        };
        let event_hubs = |names: &[&str]| names.iter().map(|name| format!("Event Hub `{name}`")).collect();
        assert_eq!(sends("app"), event_hubs(&[PARKED_UPLINKS, DEAD_LETTERS]), "{}", snapshot.name);
        assert_eq!(sends("hub"), event_hubs(&[STACK_EVENTS]), "{}", snapshot.name);
    }
}

#[test]
fn names_of_role_assignments_are_evaluated_and_so_the_same_in_every_deployment() {
    for snapshot in all() {
        for assignment in snapshot.resources("Microsoft.Authorization/roleAssignments") {
            assert!(!text(&assignment["name"]).contains('('), "{}: {assignment}", snapshot.name);
            assert_eq!(assignment["properties"]["principalType"], "ServicePrincipal");
        }
    }
}

#[test]
fn a_new_hub_has_one_policy_with_one_right_and_an_existing_hub_is_only_referred_to() {
    let listed = table(&read("docs/security.md"), "policy");
    for snapshot in all() {
        let hubs = snapshot.resources("Microsoft.Devices/IotHubs");
        if snapshot.name == "existing-hub" {
            assert!(hubs.is_empty());
            continue;
        }
        let policies = hubs[0]["properties"]["authorizationPolicies"].as_array().expect("policies");
        let policies: Vec<_> = policies
            .iter()
            .map(|one| [&one["keyName"], &one["rights"]].map(|word| format!("`{}`", text(word))))
            .collect();
        let listed: Vec<_> = listed.iter().map(|row| [row[0].clone(), row[1].clone()]).collect();
        assert_eq!(policies, listed);
        let name = snapshot.settings().find(|(name, _)| *name == "IOTHUB_POLICY_NAME").expect("it is set").1;
        assert_eq!(policies[0][0], format!("`{name}`"));
    }
}

#[test]
fn nothing_is_opened_by_a_key_of_storage_or_event_hubs_or_by_a_password() {
    let on = |snapshot: &Snapshot, kind: &str, property: &str, wanted: bool| {
        for resource in snapshot.resources(kind) {
            assert_eq!(resource["properties"][property], wanted, "{}: {property} of {kind}", snapshot.name);
        }
        assert!(!snapshot.resources(kind).is_empty(), "{}: no {kind}", snapshot.name);
    };
    for snapshot in all() {
        on(&snapshot, "Microsoft.Storage/storageAccounts", "allowSharedKeyAccess", false);
        on(&snapshot, "Microsoft.Storage/storageAccounts", "allowBlobPublicAccess", false);
        on(&snapshot, "Microsoft.EventHub/namespaces", "disableLocalAuth", true);
        on(&snapshot, "Microsoft.Insights/components", "DisableLocalAuth", true);
        on(&snapshot, "Microsoft.KeyVault/vaults", "enableRbacAuthorization", true);
        on(&snapshot, "Microsoft.Web/sites", "httpsOnly", true);
        on(&snapshot, "Microsoft.Web/sites/basicPublishingCredentialsPolicies", "allow", false);
        let doors = snapshot.resources("Microsoft.Web/sites/basicPublishingCredentialsPolicies");
        assert_eq!(doors.len(), 2, "scm and ftp");
    }
}
