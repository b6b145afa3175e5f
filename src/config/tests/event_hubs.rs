//! How the Event Hubs namespace is reached.

use super::*;

#[test]
fn event_hubs_are_reached_by_connection_string_or_managed_identity() {
    let without = ("StackEvents__fullyQualifiedNamespace", "");
    let text = "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=bridge;SharedAccessKey=abc=";
    match config(&[without, ("StackEvents", text)]).event_hubs.auth {
        EventHubsAuth::ConnectionString(secret) => assert_eq!(secret.expose_secret(), text),
        other => panic!("{other:?}"),
    }
    match config(&[("StackEvents__clientId", "id")]).event_hubs.auth {
        EventHubsAuth::ManagedIdentity { namespace, client_id, endpoint } => {
            assert_eq!((namespace.as_str(), client_id.as_deref()), ("acme.servicebus.windows.net", Some("id")));
            assert_eq!(endpoint, None);
        }
        other => panic!("{other:?}"),
    }
    let told = problem(&[without, ("StackEvents", "acme.servicebus.windows.net")]);
    assert!(told.starts_with("StackEvents: is no connection string"), "{told}");
}

#[test]
fn the_address_to_dial_for_event_hubs_gets_its_port() {
    for (given, expected) in [
        ("amqps://acme.privatelink.example.net", "amqps://acme.privatelink.example.net:5671"),
        ("amqps://proxy:8443/", "amqps://proxy:8443/"),
        ("AMQPS://10.0.0.4", "amqps://10.0.0.4:5671"),
        ("amqp://localhost", "amqp://localhost:5672"),
        ("amqp://127.0.0.1:4711", "amqp://127.0.0.1:4711"),
        ("amqp://[::1]:4711", "amqp://[::1]:4711"),
    ] {
        match config(&[("EVENTHUBS_ENDPOINT", given)]).event_hubs.auth {
            EventHubsAuth::ManagedIdentity { endpoint: Some(url), .. } => assert_eq!(url.as_str(), expected, "{given}"),
            other => panic!("{given}: {other:?}"),
        }
    }
}

#[test]
fn a_token_for_event_hubs_never_leaves_this_machine_in_the_clear() {
    for (given, why) in [
        ("amqp://acme.servicebus.windows.net", "use amqps://"),
        ("amqp://10.0.0.4:5672", "use amqps://"),
        ("amqp://localhost.example.net", "use amqps://"),
        ("amqp://127.0.0.1@acme.example.net", "is no address to dial"),
        ("amqps://user:secret@acme.example.net", "is no address to dial"),
        ("amqps://acme.example.net/stack-events", "is no address to dial"),
        ("amqps://acme.example.net?x=1", "is no address to dial"),
        ("amqps://acme.example.net:0", "is no address to dial"),
        ("amqps://", "is no address to dial"),
        ("acme.example.net:5671", "is no address to dial"),
        ("sb://acme.example.net", "is no address to dial"),
        ("https://acme.example.net", "is no address to dial"),
    ] {
        let told = problem(&[("EVENTHUBS_ENDPOINT", given)]);
        assert!(told.starts_with("EVENTHUBS_ENDPOINT: ") && told.contains(why), "{given}: {told}");
        assert!(!told.contains("secret"), "{told}");
    }
    let text = "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=bridge;SharedAccessKey=abc=";
    let by_key = [("StackEvents__fullyQualifiedNamespace", ""), ("StackEvents", text)];
    let told = problem(&[by_key[0], by_key[1], ("EVENTHUBS_ENDPOINT", "amqps://proxy")]);
    assert!(told.contains("without StackEvents__fullyQualifiedNamespace"), "{told}");
}
