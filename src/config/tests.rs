//! Reads settings, refuses nonsense.

mod event_hubs;
mod secrets;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::*;
use crate::message_type::MessageType;

const PORT: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

const MINIMAL: &[(&str, &str)] = &[
    (PORT, "7071"),
    ("STACK_BASE_URL", "https://acme.eu1.cloud.thethings.industries"),
    ("STACK_APPLICATION_ID", "cold-store"),
    ("STACK_API_KEY", "NNSXS.ABCDEF.GHIJKL"),
    ("IOTHUB_HOSTNAME", "acme.azure-devices.net"),
    ("IOTHUB_POLICY_NAME", "bridge"),
    ("IOTHUB_POLICY_KEY", KEY),
    ("StackEvents__fullyQualifiedNamespace", "acme.servicebus.windows.net"),
];

/// Reads the minimal settings with these in place of, or beside, them. An empty value counts as absent.
fn read_with(changes: &[(&str, &str)]) -> Result<Config, Problems> {
    let all = MINIMAL.iter().chain(changes);
    Config::from_vars(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn config(changes: &[(&str, &str)]) -> Config {
    read_with(changes).unwrap_or_else(|problems| panic!("{changes:?}: {problems}"))
}

fn problems(changes: &[(&str, &str)]) -> Vec<String> {
    match read_with(changes) {
        Ok(_) => panic!("{changes:?} must be refused"),
        Err(problems) => problems.lines().to_vec(),
    }
}

/// The one problem that the changes make.
fn problem(changes: &[(&str, &str)]) -> String {
    match problems(changes).as_slice() {
        [one] => one.clone(),
        others => panic!("{changes:?} must make one problem, not {others:#?}"),
    }
}

fn setting_of(problem: &str) -> &str {
    problem.split(':').next().unwrap_or_default()
}

#[test]
fn the_minimal_settings_are_enough() {
    let config = config(&[]);
    assert_eq!(config.port, 7071);
    assert_eq!(config.stack.base_url.as_str(), "https://acme.eu1.cloud.thethings.industries/api/v3/");
    assert_eq!(config.stack.identity_url, config.stack.base_url);
    assert_eq!(config.stack.application_id.as_str(), "cold-store");
    assert_eq!(config.stack.api_key.expose_secret(), "NNSXS.ABCDEF.GHIJKL");
    assert_eq!(config.stack.events_target, EventsTarget::Api);
    assert!(config.stack.sync_delete && !config.stack.keep_root_keys);
    assert_eq!(config.hub.hostname, "acme.azure-devices.net");
    assert_eq!(config.hub.dial_host, config.hub.hostname);
    assert_eq!((config.hub.mqtt_port, config.hub.https_port), (8883, 443));
    assert_eq!(config.hub.policy_key.expose_secret(), b"0123456789abcdef0123456789abcdef");
    assert_eq!(config.hub.service_auth, ServiceAuth::Policy);
    assert_eq!((config.hub.pipeline, config.hub.sku, config.hub.units), (Pipeline::Connack, Sku::S1, 1));
    assert_eq!(config.hub.session_linger, Duration::from_millis(250));
    assert_eq!(config.event_hubs.parked_max_attempts, 20);
    assert_eq!(config.uplink.telemetry_body, TelemetryBody::Full);
    assert_eq!(config.uplink.telemetry_messages.len(), MessageType::ALL.len());
    assert_eq!(config.uplink.last_seen_interval, Duration::from_secs(3600));
    assert_eq!(config.uplink.dedupe_window, Duration::from_secs(900));
    assert!(config.uplink.webhook_secrets.is_empty());
    assert!(matches!(config.event_hubs.auth, EventHubsAuth::ManagedIdentity { client_id: None, .. }));
}

#[test]
fn each_minimal_setting_is_asked_for_by_name_and_with_a_remedy() {
    for (name, _) in MINIMAL {
        let told = problem(&[(name, "  ")]);
        let named = if name.starts_with("StackEvents") { "StackEvents" } else { *name };
        assert_eq!(setting_of(&told), named);
        assert!(told.contains("is missing; "), "{told}");
    }
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_table() {
    let broken: Vec<_> = [
        ("STACK_BASE_URL", "ftp://x"),
        ("STACK_IDENTITY_URL", "http://identity.example.net"),
        ("STACK_APPLICATION_ID", "Cold Store"),
        ("STACK_API_KEY", "short"),
        ("STACK_EVENTS_TARGET", "both"),
        ("SYNC_DELETE", "yes"),
        ("KEEP_ROOT_KEYS", "1"),
        ("IOTHUB_HOSTNAME", "https://acme.azure-devices.net/"),
        ("IOTHUB_POLICY_NAME", ""),
        ("IOTHUB_POLICY_KEY", "not base64"),
        ("IOTHUB_CREDENTIAL", "password"),
        ("DEVICE_ID_PREFIX", "LoRaWAN/"),
        ("IOTHUB_GATEWAY_HOSTNAME", "a b"),
        ("IOTHUB_MQTT_PORT", "0"),
        ("IOTHUB_HTTPS_PORT", "65536"),
        ("IOTHUB_PIPELINE", "all"),
        ("IOTHUB_SKU", "B1"),
        ("IOTHUB_UNITS", "201"),
        ("SESSION_LINGER_MS", "-1"),
        ("StackEvents__fullyQualifiedNamespace", "sb://acme"),
        ("EVENTHUBS_ENDPOINT", "https://acme"),
        ("WEBHOOK_SECRET_PREVIOUS", "old"),
        ("TELEMETRY_BODY", "short"),
        ("TELEMETRY_MESSAGES", "uplink"),
        ("TWIN_MESSAGES", "uplink_message,joined"),
        ("TWIN_LAST_SEEN_INTERVAL_S", "1h"),
        ("DEDUPE_WINDOW_S", "86401"),
        ("PARKED_MAX_ATTEMPTS", "0"),
        (PORT, "none"),
    ]
    .into();
    let told = problems(&broken);
    let named: Vec<_> = told.iter().map(|line| setting_of(line)).collect();
    let expected: Vec<_> = broken.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, expected, "{told:#?}");
    let text = read_with(&broken).expect_err("refused").to_string();
    assert!(text.starts_with(&format!("{} of the app settings", broken.len())), "{text}");
}

#[test]
fn the_table_names_every_setting_once() {
    let names: BTreeSet<_> = SETTINGS.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), SETTINGS.len());
    assert!(SETTINGS.iter().all(|(_, _, meaning)| !meaning.is_empty()));
}

#[test]
fn an_address_of_the_cluster_is_taken_in_any_usual_form() {
    for (given, expected) in [
        ("https://acme.example.net", "https://acme.example.net/api/v3/"),
        ("https://acme.example.net/", "https://acme.example.net/api/v3/"),
        ("https://acme.example.net/api/v3", "https://acme.example.net/api/v3/"),
        ("https://acme.example.net/api/v3/", "https://acme.example.net/api/v3/"),
        (" https://ACME.example.net ", "https://acme.example.net/api/v3/"),
        ("acme.example.net", "https://acme.example.net/api/v3/"),
        ("acme.example.net:8443", "https://acme.example.net:8443/api/v3/"),
        ("https://example.net/stack", "https://example.net/stack/api/v3/"),
        ("https://acme.example.net/api/v3?x=1#y", "https://acme.example.net/api/v3/"),
        ("http://localhost:1885", "http://localhost:1885/api/v3/"),
        ("http://127.0.0.1:1885/api/v3", "http://127.0.0.1:1885/api/v3/"),
        ("http://[::1]:1885", "http://[::1]:1885/api/v3/"),
    ] {
        assert_eq!(config(&[("STACK_BASE_URL", given)]).stack.base_url.as_str(), expected, "{given}");
        let identity = config(&[("STACK_IDENTITY_URL", given)]).stack.identity_url;
        assert_eq!(identity.as_str(), expected, "{given}");
    }
}

#[test]
fn an_address_that_would_leak_the_key_or_is_none_is_refused() {
    for (given, why) in [
        ("http://acme.example.net", "use https"),
        ("http://localhost.example.net", "use https"),
        ("http://128.0.0.1", "use https"),
        ("ftp://acme.example.net", "use https"),
        ("https://user@acme.example.net", "user name or a password"),
        ("https://user:secret@acme.example.net", "user name or a password"),
        ("user:secret@acme.example.net", "user name or a password"),
        ("http://:secret@acme.example.net", "user name or a password"),
        ("https://", "is no address"),
        ("https://a b", "is no address"),
        ("/api/v3", "is no address"),
        ("mailto://", "is no address"),
        ("https:///acme.example.net", "is no address"),
        ("https:/acme.example.net", "is no address"),
        ("https:\\\\acme.example.net", "is no address"),
        ("https://user:secret@acme.example.net:x", "is no address"),
        ("http://acme.example.net/?key=secret", "use https"),
    ] {
        for setting in ["STACK_BASE_URL", "STACK_IDENTITY_URL"] {
            let told = problem(&[(setting, given)]);
            assert!(told.starts_with(setting) && told.contains(why), "{given}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}

/// The hub as a connection string gives it; the three settings stay beside it and are not read.
fn hub(connection_string: &str) -> HubConfig {
    config(&[("IOTHUB_CONNECTION_STRING", connection_string)]).hub
}

#[test]
fn a_connection_string_is_read_in_any_order_and_case() {
    for text in [
        format!("HostName=acme.azure-devices.net;SharedAccessKeyName=bridge;SharedAccessKey={KEY}"),
        format!("SharedAccessKey={KEY};HostName=ACME.azure-devices.net;SharedAccessKeyName=bridge;"),
        format!("hostname=acme.azure-devices.net;sharedaccesskeyname=bridge;SHAREDACCESSKEY={KEY}"),
        format!(" HostName = acme.azure-devices.net ; SharedAccessKeyName = bridge ; SharedAccessKey = {KEY} "),
    ] {
        let hub = hub(&text);
        assert_eq!((hub.hostname.as_str(), hub.policy_name.as_str()), ("acme.azure-devices.net", "bridge"), "{text}");
        assert_eq!(hub.dial_host, hub.hostname);
        assert_eq!(hub.policy_key.expose_secret(), b"0123456789abcdef0123456789abcdef");
    }
}

#[test]
fn a_gateway_is_dialled_and_the_names_stay_the_hubs() {
    let text = format!(
        "HostName=acme.azure-devices.net;SharedAccessKeyName=bridge;SharedAccessKey={KEY};GatewayHostName=Edge.example.net"
    );
    let from_string = hub(&text);
    assert_eq!(from_string.hostname, "acme.azure-devices.net");
    assert_eq!(from_string.dial_host, "edge.example.net");
    let setting = ("IOTHUB_GATEWAY_HOSTNAME", "127.0.0.1");
    assert_eq!(config(&[("IOTHUB_CONNECTION_STRING", &text), setting]).hub.dial_host, "127.0.0.1");
    assert_eq!(config(&[setting]).hub.hostname, "acme.azure-devices.net");
    for bad in ["a b", "edge.example.net:8883", "https://edge", "edge..net", "edge."] {
        let told = problem(&[("IOTHUB_GATEWAY_HOSTNAME", bad)]);
        assert!(told.starts_with("IOTHUB_GATEWAY_HOSTNAME: ") && told.contains("is no host name"), "{told}");
        let text = text.replace("Edge.example.net", bad);
        let told = problem(&[("IOTHUB_CONNECTION_STRING", &text)]);
        assert!(told.starts_with("IOTHUB_CONNECTION_STRING: ") && told.contains("is no host name"), "{told}");
    }
}

#[test]
fn a_connection_string_that_cannot_work_is_refused_with_the_reason() {
    for (text, why) in [
        (format!("HostName=a.example.net;DeviceId=probe;SharedAccessKey={KEY}"), "is that of one device"),
        (format!("HostName=a.example.net;SharedAccessKey={KEY}"), "has no SharedAccessKeyName"),
        (format!("SharedAccessKeyName=bridge;SharedAccessKey={KEY}"), "has no HostName"),
        (format!("HostName=;SharedAccessKeyName=bridge;SharedAccessKey={KEY}"), "has no HostName"),
        ("HostName=a.example.net;SharedAccessKeyName=bridge".to_owned(), "has no SharedAccessKey;"),
        (format!("HostName=https://a;SharedAccessKeyName=bridge;SharedAccessKey={KEY}"), "is no host name"),
        ("HostName=a.b;SharedAccessKeyName=bridge;SharedAccessKey=c2VjcmV0".to_owned(), "16 to 64 bytes"),
        ("HostName=a.b;SharedAccessKeyName=bridge;SharedAccessKey=***".to_owned(), "not base64"),
    ] {
        let told = problem(&[("IOTHUB_CONNECTION_STRING", &text)]);
        assert!(told.starts_with("IOTHUB_CONNECTION_STRING: ") && told.contains(why), "{text}: {told}");
    }
    assert_eq!(problems(&[("IOTHUB_CONNECTION_STRING", "nonsense")]).len(), 3);
}

#[test]
fn the_service_api_is_reached_with_the_policy_or_a_managed_identity() {
    let auth = |changes: &[(&str, &str)]| config(changes).hub.service_auth;
    let managed = ("IOTHUB_CREDENTIAL", "ManagedIdentity");
    assert_eq!(auth(&[managed]), ServiceAuth::ManagedIdentity { client_id: None });
    let client_id = Some("11111111-2222-3333-4444-555555555555".to_owned());
    assert_eq!(
        auth(&[managed, ("IOTHUB_CLIENT_ID", "11111111-2222-3333-4444-555555555555")]),
        ServiceAuth::ManagedIdentity { client_id }
    );
}

#[test]
fn a_prefix_of_device_ids_is_none_by_default_and_no_match_for_the_package() {
    assert!(config(&[]).hub.device_prefix.is_empty());
    let prefix = config(&[("DEVICE_ID_PREFIX", "lorawan-")]).hub.device_prefix;
    assert_eq!(prefix.strip("lorawan-probe-1"), Some("probe-1"));
    let told = problem(&[("DEVICE_ID_PREFIX", "lorawan-"), ("STACK_EVENTS_TARGET", "package")]);
    assert!(told.starts_with("DEVICE_ID_PREFIX: cannot go with STACK_EVENTS_TARGET=package"), "{told}");
    let told = problem(&[("DEVICE_ID_PREFIX", "@Microsoft.KeyVault(x)")]);
    assert!(told.contains("Key Vault"), "{told}");
}

#[test]
fn lists_of_message_types_are_read() {
    let all: BTreeSet<_> = MessageType::ALL.into();
    for (given, expected) in [
        ("", all.clone()),
        ("all", all.clone()),
        ("All", all),
        ("none", BTreeSet::new()),
        ("uplink_message", [MessageType::UplinkMessage].into()),
        (" uplink_message , join_accept,, ", [MessageType::UplinkMessage, MessageType::JoinAccept].into()),
        ("uplink_message,uplink_message", [MessageType::UplinkMessage].into()),
    ] {
        let uplink = config(&[("TELEMETRY_MESSAGES", given), ("TWIN_MESSAGES", given)]).uplink;
        assert_eq!(uplink.telemetry_messages, expected, "{given}");
        assert_eq!(uplink.twin_messages, expected, "{given}");
    }
    for kind in MessageType::ALL {
        assert_eq!(config(&[("TWIN_MESSAGES", kind.key())]).uplink.twin_messages, [kind].into());
    }
    for given in ["uplink", "uplink_message,join", "uplink_message;join_accept", "all,uplink_message", ","] {
        let told = problem(&[("TWIN_MESSAGES", given)]);
        assert!(told.starts_with("TWIN_MESSAGES: "), "{told}");
    }
    assert!(problem(&[("TWIN_MESSAGES", "a,join_accept,b")]).contains("`a`, `b` is no message type"));
}

#[test]
fn numbers_are_held_to_their_bounds() {
    for (name, least, most) in [
        ("IOTHUB_MQTT_PORT", 1, 65535),
        ("IOTHUB_HTTPS_PORT", 1, 65535),
        ("IOTHUB_UNITS", 1, 200),
        ("SESSION_LINGER_MS", 0, 5000),
        ("PARKED_MAX_ATTEMPTS", 1, 1000),
        ("TWIN_LAST_SEEN_INTERVAL_S", 0, 86_400),
        ("DEDUPE_WINDOW_S", 0, 86_400),
        (PORT, 1, 65535),
    ] {
        for good in [least, most] {
            config(&[(name, &good.to_string())]);
        }
        for bad in
            [(least - 1).to_string(), (most + 1).to_string(), "1.5".into(), "x".into(), "9".repeat(30), "9".repeat(40)]
        {
            let told = problem(&[(name, &bad)]);
            assert!(told.starts_with(name), "{told}");
            assert_eq!(told.contains(&format!("`{bad}`")), bad.len() < 40, "{told}");
        }
    }
}

#[test]
fn words_are_read_in_any_case() {
    let config = config(&[
        ("SYNC_DELETE", "False"),
        ("KEEP_ROOT_KEYS", "TRUE"),
        ("IOTHUB_SKU", "s3"),
        ("IOTHUB_PIPELINE", "Connect"),
        ("TELEMETRY_BODY", "COMPACT"),
        ("STACK_EVENTS_TARGET", "Package"),
    ]);
    assert!(!config.stack.sync_delete && config.stack.keep_root_keys);
    assert_eq!((config.hub.sku, config.hub.pipeline), (Sku::S3, Pipeline::Connect));
    assert_eq!(config.uplink.telemetry_body, TelemetryBody::Compact);
    assert_eq!(config.stack.events_target, EventsTarget::Package);
}

#[test]
fn records_are_for_people_unless_they_are_for_queries() {
    use crate::observability::{Filter, Format, Recording};
    let recording = |format| Recording { filter: Filter::default(), format };
    assert_eq!(config(&[]).log, recording(Format::Text));
    assert_eq!(config(&[("LOG_FORMAT", "json")]).log, recording(Format::Json));
    assert_eq!(problem(&[("LOG_FORMAT", "xml")]), "LOG_FORMAT: `xml` is none of `text`, `json`");
}

#[test]
fn an_api_key_has_three_parts() {
    for bad in [
        "NNSXS",
        "NNSXS.A",
        "NNSXS.A.B.C",
        "NNSXS..B",
        "NNSXS.A.",
        "NNSXS.A B.C",
        "NNSXS.Ä.C",
        ".NNSXS.A.B",
        "NNSXS.A.B.",
    ] {
        let told = problem(&[("STACK_API_KEY", bad)]);
        assert!(told.starts_with("STACK_API_KEY: is no API key"), "{told}");
        assert!(!told.contains(bad) || bad == "NNSXS", "{told}");
    }
}

proptest! {
    #[test]
    fn any_settings_are_read_or_refused_without_a_panic(values in prop::collection::vec(any::<String>(), SETTINGS.len())) {
        let vars = SETTINGS.iter().map(|(name, ..)| (*name).to_owned()).zip(values);
        if let Err(problems) = Config::from_vars(vars) {
            prop_assert!(!problems.lines().is_empty(), "a refusal has a reason");
        }
    }
}
