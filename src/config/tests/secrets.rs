//! Secrets are kept, and an unresolved one is never taken for a value.

use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::super::SETTINGS;
use super::{config, problem, read_with, setting_of};

const UNRESOLVED: &str = "@Microsoft.KeyVault(SecretUri=https://acme.vault.azure.net/secrets/webhook)";

#[test]
fn an_unresolved_key_vault_reference_is_named_as_such_and_once() {
    for name in SETTINGS.iter().map(|(name, ..)| *name).filter(|name| *name != "LOG_LEVEL") {
        // A setting that is only read when another is absent.
        let aside: &[(&str, &str)] = match name {
            "StackEvents" => &[("StackEvents__fullyQualifiedNamespace", "")],
            _ => &[],
        };
        let told = problem(&[aside, &[(name, UNRESOLVED)]].concat());
        assert_eq!(setting_of(&told), name);
        assert!(told.contains("the Key Vault reference was not resolved"), "{told}");
    }
}

#[test]
fn an_unresolved_webhook_secret_never_opens_the_door() {
    assert_eq!(setting_of(&problem(&[("WEBHOOK_SECRET", UNRESOLVED)])), "WEBHOOK_SECRET");
    let told = problem(&[("WEBHOOK_SECRET", UNRESOLVED), ("WEBHOOK_SECRET_PREVIOUS", "old")]);
    assert_eq!(setting_of(&told), "WEBHOOK_SECRET");
    let told = problem(&[("WEBHOOK_SECRET", "new"), ("WEBHOOK_SECRET_PREVIOUS", UNRESOLVED)]);
    assert_eq!(setting_of(&told), "WEBHOOK_SECRET_PREVIOUS");
}

#[test]
fn during_a_rotation_both_webhook_secrets_are_accepted() {
    let secrets = |changes: &[(&str, &str)]| -> Vec<_> {
        config(changes).uplink.webhook_secrets.iter().map(|secret| secret.expose_secret().to_owned()).collect()
    };
    assert_eq!(secrets(&[("WEBHOOK_SECRET", " new ")]), ["new"]);
    assert_eq!(secrets(&[("WEBHOOK_SECRET", "new"), ("WEBHOOK_SECRET_PREVIOUS", "old")]), ["new", "old"]);
    let told = problem(&[("WEBHOOK_SECRET_PREVIOUS", "old")]);
    assert!(told.starts_with("WEBHOOK_SECRET_PREVIOUS: is given without WEBHOOK_SECRET"), "{told}");
}

/// As long as credentials are, and odd enough not to be met by chance.
fn any_secret() -> impl Strategy<Value = String> {
    "Zq[A-Za-z0-9+/=@:;.#?&% ä-]{36,60}qZ"
}

/// Forms in which a secret reaches a setting: alone, or inside a key, a connection string, an address.
fn forms_of(secret: &str) -> Vec<String> {
    vec![
        secret.to_owned(),
        format!("NNSXS.A.{secret}"),
        format!("HostName=a;SharedAccessKeyName=b;SharedAccessKey={secret}"),
        format!("HostName=a;DeviceId=b;SharedAccessKey={secret}"),
        format!("Endpoint=sb://a/;SharedAccessKeyName=b;SharedAccessKey={secret}"),
        format!("https://user:{secret}@acme.example.net"),
        format!("http://acme.example.net/?token={secret}"),
    ]
}

/// Settings whose value is a secret, whatever it looks like.
const SECRET: [&str; 6] = [
    "STACK_API_KEY",
    "IOTHUB_CONNECTION_STRING",
    "IOTHUB_POLICY_KEY",
    "StackEvents",
    "WEBHOOK_SECRET",
    "WEBHOOK_SECRET_PREVIOUS",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_secret_is_ever_shown_nor_repeated_where_it_was_given_by_mistake(secret in any_secret()) {
        for (name, ..) in SETTINGS {
            for value in forms_of(&secret) {
                let aside = match *name {
                    "StackEvents" => ("StackEvents__fullyQualifiedNamespace", ""),
                    "WEBHOOK_SECRET_PREVIOUS" => ("WEBHOOK_SECRET", "current"),
                    _ => ("LOG_LEVEL", ""),
                };
                let shown = match read_with(&[aside, (name, &value)]) {
                    Ok(config) if SECRET.contains(name) => format!("{config:?}{config:#?}"),
                    // A policy may have any name, a file any path.
                    Ok(_) => continue,
                    Err(problems) => format!("{problems}{problems:?}{:?}", problems.lines()),
                };
                prop_assert!(!shown.contains(&secret), "{} shows {}:\n{}", name, secret, shown);
            }
        }
    }

    #[test]
    fn no_byte_of_the_policy_key_is_shown(key in prop::array::uniform32(1u8..)) {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(key);
        let shown = format!("{:?}", config(&[("IOTHUB_POLICY_KEY", &text)]));
        prop_assert!(!shown.contains(&text));
        let bytes = format!("{key:?}");
        prop_assert!(!shown.contains(&bytes));
    }
}
