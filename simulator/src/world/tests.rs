//! A world that a template made.

use std::collections::BTreeSet;

use super::*;

const ADDED: [&str; 6] = [
    "EVENTHUBS_ENDPOINT",
    "FUNCTIONS_CUSTOMHANDLER_PORT",
    "IOTHUB_CA_FILE",
    "IOTHUB_GATEWAY_HOSTNAME",
    "IOTHUB_HTTPS_PORT",
    "IOTHUB_MQTT_PORT",
];
const CHANGED: [&str; 4] = ["IOTHUB_POLICY_KEY", "STACK_API_KEY", "STACK_APPLICATION_ID", "STACK_BASE_URL"];

fn project() -> PathBuf {
    find_app_root(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the project has a host.json")
}

fn template() -> Infra {
    Infra::read(&project().join("infra/snapshots/default.snapshot.json")).expect("it is read")
}

async fn world(infra: Infra) -> World {
    let options = WorldOptions {
        ports: Ports::default(),
        event_hubs: EventHubsOptions::default(),
        infra: Some(infra),
        app_root: project(),
        handler: Handler::ByHand,
        settings: BTreeMap::new(),
        limits: None,
        log: Box::new(|_| {}),
    };
    World::start(options).await.expect("the world starts")
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
