//! A world that a template made.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::infra::{HubRoute, Secret, SecretValue};

const ADDED: [&str; 6] = [
    "EVENTHUBS_ENDPOINT",
    "FUNCTIONS_CUSTOMHANDLER_PORT",
    "IOTHUB_CA_FILE",
    "IOTHUB_GATEWAY_HOSTNAME",
    "IOTHUB_HTTPS_PORT",
    "IOTHUB_MQTT_PORT",
];
const CHANGED: [&str; 3] = ["IOTHUB_POLICY_KEY", "STACK_API_KEY", "STACK_BASE_URL"];

fn project() -> PathBuf {
    find_app_root(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the project has a host.json")
}

fn template() -> Infra {
    Infra::read(&project().join("infra/snapshots/default.snapshot.json")).expect("it is read")
}

async fn world(infra: Infra) -> World {
    World::start(options(infra)).await.expect("the world starts")
}

fn options(infra: Infra) -> WorldOptions {
    WorldOptions {
        ports: Ports::default(),
        event_hubs: EventHubsOptions::default(),
        infra: Some(infra),
        app_root: project(),
        handler: Handler::ByHand,
        settings: BTreeMap::new(),
        limits: None,
        without_stack_rights: Vec::new(),
        log: Box::new(|_| {}),
    }
}

async fn refused(options: WorldOptions) -> String {
    World::start(options).await.err().expect("it does not start").to_string()
}

#[tokio::test]
async fn of_a_templates_settings_only_those_change_that_lead_to_this_machine_or_to_a_secret() {
    let infra = template();
    let world = world(infra.clone()).await;
    let (given, made) = (&infra.app.settings, &world.settings);
    let added: BTreeSet<_> = made.keys().filter(|name| !given.contains_key(*name)).map(String::as_str).collect();
    assert_eq!(added, BTreeSet::from(ADDED));
    let changed: BTreeSet<_> =
        given.iter().filter(|(name, value)| made.get(*name) != Some(*value)).map(|(name, _)| name.as_str()).collect();
    assert_eq!(changed, BTreeSet::from(CHANGED));
    assert_eq!(world.application_id(), given["STACK_APPLICATION_ID"]);
    assert_ne!(world.application_id(), APPLICATION_ID, "the test tells nothing if they are the same");
    let stack = &world.description()["stack"];
    assert_eq!(
        (&stack["application_id"], &stack["api_key"]),
        (&json!(world.application_id()), &json!(made["STACK_API_KEY"]))
    );
    let policy = world.policy("tts-iot-hub").expect("it is the template's");
    assert_eq!(made["IOTHUB_POLICY_KEY"], STANDARD.encode(&policy.key));
    assert_eq!(policy.rights, crate::iot_hub::Rights { device_connect: true, ..Default::default() });
    assert!(world.policy("iothubowner").is_none(), "the hub has the template's policies only");
}

#[tokio::test]
async fn the_platform_gives_an_app_its_identity_beside_the_settings() {
    let world = world(template()).await;
    let env_file = world.env_file();
    for name in ["IDENTITY_ENDPOINT", "IDENTITY_HEADER"] {
        assert!(!world.settings.contains_key(name), "{name} is the platform's");
        assert!(env_file.contains(&format!("{name}=")), "a handler started by hand needs {name}");
    }
    assert!(world.description()["event_hubs"]["connection_string"].is_null(), "no key opens that namespace");
}

#[tokio::test]
async fn a_reference_that_the_app_may_not_read_stays_a_text() {
    let infra = template();
    let role = infra.assignments().iter().find(|one| one.assignment.role.name == "Key Vault Secrets User");
    let world = world(infra.without(role.expect("it is assigned"))).await;
    for name in ["STACK_API_KEY", "IOTHUB_POLICY_KEY"] {
        assert_eq!(world.settings[name], infra.app.settings[name]);
    }
    let told = world.happenings.after(0).happenings;
    assert!(told.iter().any(|one| one.title.contains("Key Vault Secrets User is missing")), "{told:?}");
}

#[tokio::test]
async fn the_key_of_the_stack_is_known_even_where_the_app_gets_another_or_none() {
    let mut infra = template();
    infra.app.settings.remove("STACK_API_KEY");
    let world = world(infra).await;
    assert!(world.description()["stack"]["api_key"].as_str().is_some_and(|key| key.starts_with("NNSXS.")));
}

#[tokio::test]
async fn a_secret_has_one_value_however_many_settings_refer_to_it() {
    let mut infra = template();
    let secret = infra.secrets[0].clone();
    infra.secrets.push(Secret { name: "webhook-secret".into(), value: SecretValue::Parameter("p".into()), ..secret });
    let reference = "@Microsoft.KeyVault(VaultName=tts-iot-hub-example;SecretName=webhook-secret)";
    for name in ["WEBHOOK_SECRET", "AGAIN"] {
        infra.app.settings.insert(name.to_owned(), reference.to_owned());
    }
    let world = world(infra).await;
    assert_eq!(world.settings["WEBHOOK_SECRET"], world.settings["AGAIN"]);
    assert!(!world.settings["AGAIN"].starts_with('@'), "it is resolved");
}

#[tokio::test]
async fn a_free_hub_of_a_template_has_room_for_one_endpoint_only() {
    let mut infra = template();
    infra.hub.sku.0 = crate::iot_hub::Sku::F1;
    let second = HubRoute { event_hub: Some(DEAD_LETTERS.to_owned()), ..infra.hub.routes[0].clone() };
    infra.hub.routes.push(second);
    let error = refused(options(infra.clone())).await;
    assert!(error.contains("2 custom endpoints are more than the 1 of the tier"), "{error}");
    infra.hub.sku.1 = 2;
    let error = refused(options(infra)).await;
    assert!(error.contains("F1 has 1 to 1 units, not 2"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_as_the_template_says_is_refused() {
    let mut infra = template();
    infra.namespace.event_hubs[0].name = crate::iot_hub::BUILT_IN_EVENTS.to_ascii_uppercase();
    assert!(refused(options(infra)).await.contains("built-in endpoint is called so"));
    let mut infra = template();
    infra.app.settings.remove("STACK_APPLICATION_ID");
    assert!(refused(options(infra)).await.contains("no setting STACK_APPLICATION_ID"));
    let rights = vec!["RIGHT_UNHEARD_OF".to_owned()];
    let error = refused(WorldOptions { without_stack_rights: rights, ..options(template()) }).await;
    assert!(error.contains("no right RIGHT_UNHEARD_OF"), "{error}");
}
