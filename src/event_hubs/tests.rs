//! The client against a local namespace.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};
use simulator::entra::Entra;
use simulator::event_hubs::{AmqpOptions, AmqpServer, Event, Fault, Namespace, PropertyValue, SasPolicy};

use super::*;
use crate::config::EventHubsAuth;
use crate::failure::Class;
use crate::ids::{DeviceId, Eui};

/// The largest event of the standard tier.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

async fn namespace() -> (AmqpServer, Namespace) {
    let namespace = Namespace::new(&[(PARKED_UPLINKS, 4), (DEAD_LETTERS, 1)]);
    let addr = "127.0.0.1:0".parse().expect("an address");
    let policy = SasPolicy { name: "bridge".to_owned(), key: "bm90IGEgc2VjcmV0".to_owned() };
    let server = AmqpServer::start(AmqpOptions { policies: vec![policy], ..AmqpOptions::new(addr) }, namespace.clone())
        .await
        .expect("a free port");
    (server, namespace)
}

fn client(connection_string: String) -> EventHubs {
    let auth = EventHubsAuth::ConnectionString(SecretString::from(connection_string));
    EventHubs::new(&EventHubsConfig { auth, parked_max_attempts: 20 }).expect("a good connection string")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn uplink(device: &str) -> ParkedUplink {
    ParkedUplink {
        body: Bytes::from_static(b"{\"end_device_ids\": {}, \"odd\":\t\"\xc3\xa9\"}"),
        device: EndDevice {
            id: DeviceId::parse(device).expect("a valid id"),
            dev_eui: Eui::parse("70B3D57ED0000001").ok(),
            join_eui: None,
        },
        open: Open { telemetry: true, twin: false, waiting_downlink: true },
        attempts: 3,
        first_failed_at: "2026-03-01T08:00:00Z".into(),
        first_failure: "connection refused".into(),
    }
}

fn letter(body: Bytes) -> DeadLetter {
    let properties = json!({"deviceId": "forged", "opType": "updateTwin", "count": 3, "nothing": null});
    DeadLetter {
        function: "UplinkIngress",
        reason: "r".repeat(5000),
        device_id: Some("probe-1".into()),
        body,
        properties: properties.as_object().cloned().expect("an object"),
    }
}

/// Application properties as the Functions host hands them on.
fn as_json(event: &Event) -> Map<String, Value> {
    let value = |value: &PropertyValue| match value {
        PropertyValue::String(text) => json!(text),
        PropertyValue::Long(number) => json!(number),
        PropertyValue::Int(number) => json!(number),
        other => panic!("a property of an unexpected type: {other:?}"),
    };
    event.properties.iter().map(|(name, found)| (name.clone(), value(found))).collect()
}

fn events(namespace: &Namespace, hub: &str) -> Vec<Event> {
    let hub = namespace.hub(hub).expect("a hub of the test");
    hub.all().iter().map(|stored| stored.event.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_uplink_is_read_back_as_it_was() {
    let (server, namespace) = namespace().await;
    let client = client(server.connection_string());
    let sent = uplink("probe-1");
    client.park(&sent, soon()).await.expect("parked");
    let events = events(&namespace, PARKED_UPLINKS);
    let [event] = events.as_slice() else { panic!("one event, not {}", events.len()) };
    assert_eq!(event.partition_key.as_deref(), Some("probe-1"));
    assert_eq!(event.system.get("content-type"), Some(&"application/json".into()));
    assert!(!event.properties.contains_key("joinEui"));
    assert_eq!(ParkedUplink::from_event(event.body.clone(), &as_json(event)), Ok(sent));
    client.close().await;
    let refused = client.park(&uplink("probe-1"), soon()).await;
    assert_eq!(refused, Err(EventHubsError::Closed { hub: PARKED_UPLINKS }));
}

/// Stands for the managed identity: the client library is told of an hour, however long the tokens last.
#[derive(Debug)]
struct Minted(Entra, time::Duration);

#[async_trait::async_trait]
impl TokenCredential for Minted {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let token = self.0.mint(scopes[0], "bridge", self.1).expect("a token");
        Ok(AccessToken::new(token, OffsetDateTime::now_utc() + time::Duration::hours(1)))
    }
}

/// A producer with a managed identity whose tokens last so long, at a namespace under another address.
async fn with_identity(lasting: time::Duration) -> (AmqpServer, Namespace, Producer) {
    let namespace = Namespace::new(&[(PARKED_UPLINKS, 4)]);
    let entra = Entra::new();
    let options = AmqpOptions::new("127.0.0.1:0".parse().expect("an address"));
    let policies = vec![SasPolicy { name: "unused".to_owned(), key: "bm90IGEgc2VjcmV0".to_owned() }];
    let options = AmqpOptions { policies, entra: entra.clone(), ..options };
    let server = AmqpServer::start(options, namespace.clone()).await.expect("a free port");
    let access = Access::Identity {
        namespace: "acme.servicebus.windows.net".to_owned(),
        endpoint: Some(format!("amqp://{}", server.addr()).parse().expect("an address")),
        credential: Arc::new(Minted(entra, lasting)),
    };
    let producer = Producer::new(access, PARKED_UPLINKS);
    (server, namespace, producer)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_managed_identity_another_address_can_be_dialled_and_the_names_stay_the_namespaces() {
    let (_server, namespace, producer) = with_identity(time::Duration::hours(1)).await;
    producer.send(&uplink("probe-1").to_message(), soon()).await.expect("the token is taken there");
    assert_eq!(events(&namespace, PARKED_UPLINKS).len(), 1);
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_token_has_ended_is_replaced_within_the_call() {
    let (server, namespace, producer) = with_identity(time::Duration::seconds(2)).await;
    let message = uplink("probe-1").to_message();
    producer.send(&message, soon()).await.expect("the first token is good");
    // By the clock of the machine, as for the namespace.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let opened = server.counters().connections;
    producer.send(&message, soon()).await.expect("on a fresh connection");
    assert_eq!(events(&namespace, PARKED_UPLINKS).len(), 2);
    assert!(server.counters().connections > opened, "the old one was of no use");
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_is_opened_again_within_the_call() {
    let (server, namespace) = namespace().await;
    let client = client(server.connection_string());
    client.park(&uplink("probe-1"), soon()).await.expect("parked");
    server.set_fault(Fault::Refuse);
    let deadline = Instant::now() + Duration::from_millis(400);
    let error = client.park(&uplink("probe-2"), deadline).await.expect_err("nobody listens");
    assert_eq!(error.class(), Class::Retry, "{error}");
    server.set_fault(Fault::None);
    let calls = (0..20).map(|n| {
        let (client, uplink) = (&client, uplink(&format!("later-{n}")));
        async move { client.park(&uplink, soon()).await }
    });
    for outcome in futures::future::join_all(calls).await {
        outcome.expect("parked after the outage");
    }
    // At least once: what was sent over a connection that said nothing is sent again over a new one.
    let parked: Vec<_> = events(&namespace, PARKED_UPLINKS).iter().map(as_json).collect();
    for device in ["probe-1".to_owned()].into_iter().chain((0..20).map(|n| format!("later-{n}"))) {
        assert!(parked.iter().any(|event| event["deviceId"] == device.as_str()), "{device} in {parked:?}");
    }
    assert!(server.counters().connections < 80, "one attempt at a time: {:?}", server.counters());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_namespace_does_not_hold_a_call_beyond_its_deadline() {
    let (server, _namespace) = namespace().await;
    server.set_fault(Fault::Silent);
    let client = client(server.connection_string());
    for _ in 0..2 {
        let began = Instant::now();
        let error = client.park(&uplink("probe-1"), began + Duration::from_millis(200)).await.expect_err("silence");
        assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
        assert_eq!(error.class(), Class::Retry, "{error}");
    }
    server.set_fault(Fault::None);
    client.park(&uplink("probe-1"), soon()).await.expect("parked once it speaks again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_falls_silent_is_replaced() {
    let (server, namespace) = namespace().await;
    let client = client(server.connection_string());
    client.park(&uplink("probe-1"), soon()).await.expect("parked");
    server.set_fault(Fault::Silent);
    let deadline = Instant::now() + Duration::from_millis(200);
    client.park(&uplink("probe-2"), deadline).await.expect_err("silence");
    server.set_fault(Fault::None);
    client.park(&uplink("probe-3"), soon()).await.expect("parked");
    assert!(events(&namespace, PARKED_UPLINKS).len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_in_flight_spoils_nothing() {
    let (server, namespace) = namespace().await;
    let client = client(server.connection_string());
    client.park(&uplink("probe-1"), soon()).await.expect("parked");
    // Several frames long, so that there are many places to stop at.
    let large = ParkedUplink { body: Bytes::from(vec![b'x'; 700 * 1024]), ..uplink("probe-2") };
    for microseconds in [0, 50, 200, 500, 1000, 2000, 5000] {
        let patience = Duration::from_micros(microseconds);
        let _given_up = tokio::time::timeout(patience, client.park(&large, soon())).await;
    }
    client.park(&uplink("probe-3"), soon()).await.expect("parked");
    let bodies = events(&namespace, PARKED_UPLINKS);
    assert!(bodies.iter().all(|event| event.body == large.body || event.body == uplink("probe-1").body));
    assert!(
        server.counters().connections <= PARKING_LINKS as u64 + 1,
        "no connection was lost: {:?}",
        server.counters()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_denied_at_once() {
    let (server, _namespace) = namespace().await;
    let client = client(server.connection_string().replace("bm90IGEgc2VjcmV0", "d3Jvbmc="));
    let began = Instant::now();
    let error = client.park(&uplink("probe-1"), soon()).await.expect_err("denied");
    assert_eq!(error.class(), Class::Denied, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!format!("{error} {error:?}").contains("d3Jvbmc="), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_event_hub_is_denied_at_once() {
    let addr = "127.0.0.1:0".parse().expect("an address");
    let policy = SasPolicy { name: "bridge".to_owned(), key: "key".to_owned() };
    let server =
        AmqpServer::start(AmqpOptions { policies: vec![policy], ..AmqpOptions::new(addr) }, Namespace::default())
            .await
            .expect("a free port");
    let client = client(server.connection_string());
    let error = client.park(&uplink("probe-1"), soon()).await.expect_err("no such hub");
    assert_eq!(error.class(), Class::Denied, "{error}");
    assert!(error.to_string().contains("amqp:not-found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_namespace_is_told_from_one_that_fails() {
    let (server, _namespace) = namespace().await;
    let client = client(server.connection_string());
    client.park(&uplink("probe-1"), soon()).await.expect("parked");
    for (fault, class) in [(Fault::Busy, Class::Throttled), (Fault::RejectSends, Class::Retry)] {
        server.set_fault(fault);
        let deadline = Instant::now() + Duration::from_millis(600);
        let error = client.park(&uplink("probe-1"), deadline).await.expect_err("rejected");
        assert_eq!(error.class(), class, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_body_and_properties() {
    let (server, namespace) = namespace().await;
    let client = client(server.connection_string());
    client.dead_letter(&letter(Bytes::from_static(b"{}")), soon()).await.expect("written");
    let events = events(&namespace, DEAD_LETTERS);
    let properties = as_json(&events[0]);
    assert_eq!(events[0].body, "{}");
    assert_eq!(properties["function"], "UplinkIngress");
    assert_eq!(properties["deviceId"], "probe-1", "a property of the event cannot forge one of the letter");
    assert_eq!(properties["opType"], "updateTwin");
    assert_eq!(properties["count"], 3);
    assert!(properties["reason"].as_str().is_some_and(|reason| reason.len() == 1024));
    assert!(properties["deadLetteredAt"].as_str().is_some_and(|at| at.ends_with('Z')));
    assert!(!properties.contains_key("nothing") && !properties.contains_key("bodyOmittedBytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_dead_letter_loses_only_its_body() {
    let (server, namespace) = namespace().await;
    let client = client(server.connection_string());
    let bytes = MAX_EVENT_BYTES;
    client.dead_letter(&letter(Bytes::from(vec![b'x'; bytes])), soon()).await.expect("written");
    let events = events(&namespace, DEAD_LETTERS);
    assert!(events[0].body.is_empty());
    let properties = as_json(&events[0]);
    assert_eq!(properties["bodyOmittedBytes"], bytes);
    assert_eq!(properties["opType"], "updateTwin");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uplink_larger_than_event_hubs_takes_is_poison() {
    let (server, namespace) = namespace().await;
    let client = client(server.connection_string());
    let large = ParkedUplink { body: Bytes::from(vec![b'x'; MAX_EVENT_BYTES]), ..uplink("probe-1") };
    let error = client.park(&large, soon()).await.expect_err("too large");
    assert_eq!(error.class(), Class::Poison, "{error}");
    client.park(&uplink("probe-1"), soon()).await.expect("the next one is parked");
    assert_eq!(events(&namespace, PARKED_UPLINKS).len(), 1);
}

prop_compose! {
    fn any_uplink()(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        id in "[a-z0-9]{3}(-[a-z0-9]{1,4}){0,3}",
        dev_eui in proptest::option::of(any::<u64>()),
        join_eui in proptest::option::of(any::<u64>()),
        open in any::<(bool, bool, bool)>(),
        attempts in any::<u32>(),
        first_failed_at in "\\PC{0,30}",
        first_failure in "\\PC{0,80}",
    ) -> ParkedUplink {
        let eui = |eui: Option<u64>| eui.map(|eui| Eui::parse(&format!("{eui:016x}")).expect("16 digits"));
        ParkedUplink {
            body: body.into(),
            device: EndDevice {
                id: DeviceId::parse(&id).expect("a valid id"),
                dev_eui: eui(dev_eui),
                join_eui: eui(join_eui),
            },
            open: Open { telemetry: open.0, twin: open.1, waiting_downlink: open.2 },
            attempts,
            first_failed_at,
            first_failure,
        }
    }
}

/// What an event carries, without a broker between; numbers as text if told so.
fn carried(uplink: &ParkedUplink, numbers_as_text: bool) -> Map<String, Value> {
    use azure_messaging_eventhubs::models::AmqpSimpleValue;
    let message = uplink.to_message();
    let properties = message.application_properties.as_ref().expect("properties").0.iter();
    let value = |value: &AmqpSimpleValue| match value {
        AmqpSimpleValue::String(text) => json!(text),
        AmqpSimpleValue::Long(number) if numbers_as_text => json!(number.to_string()),
        AmqpSimpleValue::Long(number) => json!(number),
        other => panic!("a property of an unexpected type: {other:?}"),
    };
    properties.map(|(name, found)| (name.clone(), value(found))).collect()
}

proptest! {
    #[test]
    fn every_parked_uplink_survives_the_round_trip(uplink in any_uplink(), numbers_as_text: bool) {
        let properties = carried(&uplink, numbers_as_text);
        prop_assert_eq!(ParkedUplink::from_event(uplink.body.clone(), &properties), Ok(uplink));
    }

    #[test]
    fn no_set_of_properties_makes_reading_panic(
        name in "deviceId|attempts|open|devEui|firstFailure",
        value in "\\PC{0,40}",
    ) {
        let mut properties = carried(&uplink("probe-1"), false);
        properties.insert(name.clone(), json!(value));
        let _read = ParkedUplink::from_event(Bytes::new(), &properties);
        properties.insert(name, json!([value]));
        prop_assert!(ParkedUplink::from_event(Bytes::new(), &properties).is_err());
    }
}
