//! On the committed snapshots, and on copies that were spoilt.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

fn snapshot(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/snapshots").join(format!("{name}.snapshot.json"))
}

fn infra() -> Infra {
    Infra::read(&snapshot("default")).expect("the default snapshot is read")
}

/// The default snapshot with the resources of a type changed.
fn changed(kind: &str, change: impl Fn(&mut Value)) -> Result<Infra, InfraError> {
    let text = std::fs::read(snapshot("default")).expect("it is committed");
    let mut document: Value = serde_json::from_slice(&text).expect("it is JSON");
    for resource in document["predictedResources"].as_array_mut().expect("a list") {
        if resource["type"] == kind {
            change(resource);
        }
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), document.to_string()).expect("it can be written");
    Infra::read(file.path())
}

/// Why it is refused then.
fn refused(kind: &str, change: impl Fn(&mut Value)) -> String {
    changed(kind, change).expect_err("it was spoilt").to_string()
}

#[test]
fn the_default_snapshot_says_what_the_bridge_has() {
    let Infra { hub, namespace, app, secrets, identities, .. } = infra();
    assert_eq!(hub.host_name, "tts-iot-hub-example.azure-devices.net");
    assert_eq!(hub.sku, (Sku::S1, 1));
    let policy = AccessPolicy { name: "tts-iot-hub".into(), rights: ["DeviceConnect".to_owned()].into() };
    assert_eq!(hub.policies, [policy]);
    assert!(hub.fallback);
    assert_eq!(hub.partitions, 4);
    let sender = identities.iter().find(|one| one.resource_id.ends_with("-hub")).expect("the hub's identity");
    let sources: Vec<_> = hub.routes.iter().map(|route| route.source).collect();
    assert_eq!(sources, [RouteSource::DeviceLifecycleEvents, RouteSource::TwinChangeEvents]);
    for route in &hub.routes {
        assert_eq!(route.event_hub.as_deref(), Some("stack-events"));
        assert_eq!(route.sender.as_ref(), Some(&sender.principal_id));
    }

    assert_eq!(namespace.host_name, "tts-iot-hub-example.servicebus.windows.net");
    assert!(!namespace.takes_keys);
    let hubs: Vec<_> = namespace
        .event_hubs
        .iter()
        .map(|hub| (hub.name.as_str(), hub.partitions, hub.consumer_groups.join(",")))
        .collect();
    let expected = [("stack-events", 4, "forwarder"), ("parked-uplinks", 4, "parked-uplinks"), ("dead-letters", 1, "")];
    assert_eq!(hubs, expected.map(|(name, partitions, groups)| (name, partitions, groups.to_owned())));

    let [own] = app.identities.as_slice() else { panic!("one identity") };
    assert_eq!(app.vault_reader.as_ref(), Some(&own.principal_id));
    assert_eq!(app.settings["IOTHUB_CLIENT_ID"], own.client_id);
    assert_eq!(app.settings["StackEvents__clientId"], own.client_id);
    assert_eq!(app.settings["IOTHUB_HOSTNAME"], hub.host_name);
    assert!(app.settings["STACK_API_KEY"].starts_with("@Microsoft.KeyVault("));
    let secrets: Vec<_> = secrets.into_iter().map(|secret| (secret.name, secret.value)).collect();
    assert_eq!(
        secrets,
        [
            ("stack-api-key".to_owned(), SecretValue::Parameter("stackApiKey".into())),
            ("iothub-policy-key".to_owned(), SecretValue::PolicyKey("tts-iot-hub".into())),
        ]
    );
}

#[test]
fn a_role_assignment_says_who_may_do_what_where_and_can_be_taken_away() {
    let infra = infra();
    let assigned = infra.assignments().iter().find(|one| one.place() == "eventhubs/dead-letters").expect("it is there");
    assert_eq!(assigned.assignment.role.name, "Azure Event Hubs Data Sender");
    assert_eq!(assigned.identity, "tts-iot-hub-example-app");
    assert!(!assigned.description.is_empty());
    let access = |infra: &Infra| infra.access(&infra.namespace.resource_id, &[], &Happenings::default());
    let send = |infra: &Infra| {
        let action = crate::entra::actions::EVENTS_SEND;
        access(infra).check(&assigned.assignment.principal, &[action], "eventhubs/dead-letters")
    };
    send(&infra).expect("the role is there");
    let without = infra.without(assigned);
    assert_eq!(without.assignments().len(), infra.assignments().len() - 1);
    assert_eq!(send(&without).expect_err("it is gone").role, "Azure Event Hubs Data Sender");

    let powerless = infra.without_policy_right("tts-iot-hub", "DeviceConnect");
    assert!(powerless.hub.policies[0].rights.is_empty());
    assert_eq!(infra.without_policy_right("other", "DeviceConnect").hub.policies, infra.hub.policies);
}

#[test]
fn the_other_sets_with_a_hub_of_their_own_are_read_too() {
    let f1 = Infra::read(&snapshot("f1")).expect("it is read");
    assert_eq!((f1.hub.sku, f1.hub.fallback), ((Sku::F1, 1), false));
    let larger = Infra::read(&snapshot("always-ready")).expect("it is read");
    assert_eq!(larger.hub.sku, (Sku::S1, 4));
    assert_eq!(larger.app.settings["TELEMETRY_BODY"], "compact");
}

#[test]
fn an_existing_hub_is_refused_for_the_snapshot_does_not_say_what_it_is() {
    let error = Infra::read(&snapshot("existing-hub")).expect_err("it has no hub").to_string();
    assert!(error.contains("has 0 resources of the type Microsoft.Devices/IotHubs"), "{error}");
    assert!(error.contains("existing hub"), "{error}");
}

#[test]
fn what_the_simulator_does_not_know_is_refused_with_its_name() {
    const HUB: &str = "Microsoft.Devices/IotHubs";
    const ROLE: &str = "Microsoft.Authorization/roleAssignments";
    let route = |change: fn(&mut Value)| refused(HUB, |hub| change(&mut hub["properties"]["routing"]["routes"][0]));
    let endpoint = |change: fn(&mut Value)| {
        refused(HUB, |hub| change(&mut hub["properties"]["routing"]["endpoints"]["eventHubs"][0]))
    };
    for (error, told) in [
        (route(|route| route["source"] = json!("DigitalTwinChangeEvents")), "DigitalTwinChangeEvents is not simulated"),
        (route(|route| route["endpointNames"] = json!(["nowhere"])), "endpoint nowhere: it is no Event Hub"),
        (endpoint(|endpoint| endpoint["authenticationType"] = json!("keyBased")), "endpoints with keys"),
        (
            endpoint(|endpoint| endpoint["endpointUri"] = json!("sb://other.servicebus.windows.net")),
            "is not the namespace",
        ),
        (
            refused(HUB, |hub| hub["properties"]["disableLocalAuth"] = json!(true)),
            "a hub without shared access policies is not simulated",
        ),
        (refused(HUB, |hub| hub["identity"] = json!({})), "the hub does not have the identity"),
        (refused(HUB, |hub| hub["properties"]["authorizationPolicies"][0]["rights"] = json!("All")), "the right All"),
        (
            refused(ROLE, |role| role["properties"]["roleDefinitionId"] = json!("/x/unheard-of")),
            "/x/unheard-of is not known",
        ),
        (refused(ROLE, |role| role["properties"]["principalId"] = json!("someone")), "no identity of the snapshot"),
        (refused(ROLE, |role| role["id"] = json!("/x")), "does not say what it is for"),
        (
            refused("Microsoft.Web/sites/config", |config| {
                config["properties"]["X"] = json!("[parameters('webhookSecret')]")
            }),
            "parameters() gives a secret",
        ),
        (
            refused("Microsoft.KeyVault/vaults/secrets", |secret| secret["properties"]["value"] = json!("[guid('x')]")),
            "neither a parameter nor the primaryKey",
        ),
        (refused("Microsoft.Web/sites", |site| site["identity"] = json!({})), "none of the app's identities"),
        (
            refused("Microsoft.Web/sites", |site| {
                site["properties"]["siteConfig"]["appSettings"] = json!([{"name": "A", "value": "b"}])
            }),
            "siteConfig.appSettings is not simulated",
        ),
        (
            refused("Microsoft.EventHub/namespaces", |one| {
                one["properties"]["disableLocalAuth"] = json!("[parameters('x')]")
            }),
            "disableLocalAuth is \"[parameters('x')]\", which is neither true nor false",
        ),
        (
            refused(HUB, |hub| hub["properties"]["disableLocalAuth"] = json!("[parameters('x')]")),
            "invalid type: string",
        ),
        (
            refused(ROLE, |role| role["properties"]["condition"] = json!("@Resource[…]")),
            "conditions of role assignments are not simulated",
        ),
        (
            refused("Microsoft.KeyVault/vaults", |vault| vault["properties"]["enableRbacAuthorization"] = json!(false)),
            "set enableRbacAuthorization",
        ),
        (refused("Microsoft.KeyVault/vaults", |vault| vault["type"] = json!("x")), "its vault is not in the snapshot"),
    ] {
        assert!(error.contains(told), "{told} in {error}");
    }
    assert!(Infra::read(Path::new("/nowhere.json")).expect_err("no file").to_string().contains("/nowhere.json"));
}

#[test]
fn expressions_in_names_of_a_hub_are_evaluated() {
    let written = changed("Microsoft.Devices/IotHubs", |hub| {
        let properties = &mut hub["properties"];
        properties["authorizationPolicies"][0]["keyName"] = json!("[format('tts-{0}', 'iot-hub')]");
        let routing = &mut properties["routing"];
        routing["endpoints"]["eventHubs"][0]["entityPath"] = json!("[concat('stack', '-events')]");
        routing["endpoints"]["eventHubs"][0]["name"] = json!("[concat('to', '-stack')]");
        for number in 0..2 {
            routing["routes"][number]["endpointNames"] = json!(["to-stack"]);
            routing["routes"][number]["name"] = json!(format!("[concat('route-', {number})]"));
        }
    });
    let hub = written.expect("it is read").hub;
    assert_eq!(hub.policies[0].name, "tts-iot-hub");
    let routes: Vec<_> = hub.routes.iter().map(|route| (route.name.as_str(), route.event_hub.as_deref())).collect();
    assert_eq!(routes, [("route-0", Some("stack-events")), ("route-1", Some("stack-events"))]);
}
