//! The app settings of the template against the settings of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use tts_iot_hub::config::Config;

use super::files::{json, rows};
use super::snapshot::{all, text};
use crate::support::handler;

const REFERENCE: &str = "@Microsoft.KeyVault(";

/// Settings that the Functions host reads, not the bridge.
const OF_THE_PLATFORM: [&str; 6] = [
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__credential",
    "StackEvents__credential",
];

/// Read by nobody: its change makes the app look up its secrets.
const SECRETS_VERSION: &str = "SECRETS_VERSION";

/// The table that `tts-iot-hub settings` prints: name to default.
fn settings_of_the_code() -> BTreeMap<String, String> {
    let output = Command::new(handler()).arg("settings").output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    rows(&table).into_iter().map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone())).collect()
}

#[test]
fn every_setting_that_is_set_is_one_that_somebody_reads() {
    let known = settings_of_the_code();
    let mut known: BTreeSet<&str> = known.keys().map(String::as_str).collect();
    known.extend(OF_THE_PLATFORM);
    known.insert(SECRETS_VERSION);
    for snapshot in all() {
        let unknown: Vec<_> = snapshot.settings().map(|(name, _)| name).filter(|name| !known.contains(name)).collect();
        assert_eq!(unknown, Vec::<&str>::new(), "{}", snapshot.name);
    }
}

#[test]
fn every_setting_that_is_required_is_set_and_so_are_those_of_the_platform() {
    let code = settings_of_the_code();
    let required = code.iter().filter(|(_, default)| *default == "required").map(|(name, _)| name.as_str());
    let required: Vec<_> = required.chain(OF_THE_PLATFORM).collect();
    for snapshot in all() {
        let set: BTreeSet<_> = snapshot.settings().map(|(name, _)| name).collect();
        let missing: Vec<_> = required.iter().filter(|name| !set.contains(**name)).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", snapshot.name);
        // Flex Consumption has them elsewhere, and refuses to be deployed with them.
        for name in ["FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_EXTENSION_VERSION", "WEBSITE_RUN_FROM_PACKAGE"] {
            assert!(!set.contains(name), "{}: {name}", snapshot.name);
        }
    }
}

#[test]
fn the_bridge_starts_with_the_settings_as_they_are() {
    for snapshot in all() {
        let value = |name: &str, value: &str| match (name, value) {
            ("STACK_API_KEY", _) => "NNSXS.EXAMPLE.EXAMPLE".to_owned(),
            (_, value) if value.starts_with(REFERENCE) => "c2l4dGVlbiBieXRlcyBvciBtb3Jl".to_owned(),
            (_, value) if value.starts_with('[') => "11111111-2222-3333-4444-555555555555".to_owned(),
            (_, value) => value.to_owned(),
        };
        let mut settings: BTreeMap<_, _> =
            snapshot.settings().map(|(name, given)| (name.to_owned(), value(name, given))).collect();
        settings.insert("FUNCTIONS_CUSTOMHANDLER_PORT".to_owned(), "7071".to_owned());
        let config = Config::from_vars(settings).unwrap_or_else(|problems| panic!("{}: {problems}", snapshot.name));
        if snapshot.name == "f1" {
            assert_ne!(config.stack.identity_url, config.stack.base_url);
        }
    }
}

#[test]
fn a_setting_that_is_a_secret_is_a_reference_to_a_secret_that_the_template_makes() {
    // Not a secret where local authentication is off: it says where to send.
    let is_secret = |name: &str| {
        let words = ["KEY", "SECRET", "PASSWORD", "TOKEN", "CONNECTION_STRING", "SECRET_PREVIOUS"];
        words.iter().any(|word| name.ends_with(word)) && name != "APPLICATIONINSIGHTS_CONNECTION_STRING"
    };
    for snapshot in all() {
        let secrets = snapshot.resources("Microsoft.KeyVault/vaults/secrets");
        let secrets: BTreeSet<_> = secrets.iter().map(|secret| text(&secret["name"])).collect();
        let referred: BTreeSet<_> = snapshot.settings().filter(|(_, value)| value.starts_with(REFERENCE)).collect();
        for (name, value) in &referred {
            assert!(is_secret(name), "{}: {name} needs no reference", snapshot.name);
            let parts = value.strip_prefix(REFERENCE).and_then(|rest| rest.strip_suffix(')')).expect("its form");
            let (vault, secret) = parts.split_once(';').expect("two parts");
            let secret = secret.strip_prefix("SecretName=").expect("a name");
            let vault = vault.strip_prefix("VaultName=").expect("a vault");
            assert!(secrets.contains(format!("{vault}/{secret}").as_str()), "{}: {value}", snapshot.name);
        }
        let plain = snapshot.settings().filter(|(name, value)| is_secret(name) && !value.starts_with(REFERENCE));
        assert_eq!(plain.collect::<Vec<_>>(), vec![], "{}", snapshot.name);
        assert_eq!(referred.len(), secrets.len(), "{}: a secret that nobody reads", snapshot.name);
    }
}

#[test]
fn a_webhook_secret_is_set_by_reference_and_only_if_there_is_one() {
    // Its presence depends on a secure parameter, which a snapshot does not evaluate.
    let template = json("infra/main.json");
    let settings = &template["resources"]["app"]["properties"]["parameters"]["bridgeSettings"]["value"];
    for (setting, parameter, secret) in [
        ("WEBHOOK_SECRET", "webhookSecret", "webhook-secret"),
        ("WEBHOOK_SECRET_PREVIOUS", "webhookSecretPrevious", "webhook-secret-previous"),
    ] {
        let wanted = format!(
            "if(empty(parameters('{parameter}')), createObject(), createObject('{setting}', format(variables('secretReference'), '{secret}')))"
        );
        assert!(text(settings).contains(&wanted), "{settings}");
        for snapshot in all() {
            assert!(snapshot.settings().all(|(name, _)| name != setting), "{}", snapshot.name);
        }
    }
    assert!(text(&template["variables"]["secretReference"]).contains(REFERENCE));
}

#[test]
fn a_secret_goes_into_the_key_vault_and_nowhere_else() {
    let template = json("infra/main.json");
    let parameters = template["parameters"].as_object().expect("parameters");
    let secure: Vec<_> =
        parameters.iter().filter(|(_, about)| about["type"] == "securestring").map(|(name, _)| name.as_str()).collect();
    assert_eq!(secure, ["stackApiKey", "webhookSecret", "webhookSecretPrevious"]);

    let mut used = vec![];
    for (name, resource) in template["resources"].as_object().expect("resources") {
        // The templates within have parameters of their own.
        let mut outer = resource.clone();
        outer["properties"]["template"] = Value::Null;
        used.push((name.as_str(), outer.to_string()));
    }
    used.push(("outputs", template["outputs"].to_string()));
    used.push(("variables", template["variables"].to_string()));
    for secret in secure {
        let given = format!("parameters('{secret}')");
        // Whether there is one may be told.
        let users = used.iter().filter(|(_, text)| text.replace(&format!("empty({given})"), "").contains(&given));
        assert_eq!(users.map(|(name, _)| *name).collect::<Vec<_>>(), ["secrets"], "{secret}");
    }
    for snapshot in all() {
        let text = snapshot.value.to_string();
        assert!(!text.contains("NNSXS"), "{}", snapshot.name);
        let outputs = snapshot.value["outputs"].to_string().to_lowercase();
        assert!(!outputs.contains("listkeys") && !outputs.contains("/secrets/"), "{outputs}");
    }
}
