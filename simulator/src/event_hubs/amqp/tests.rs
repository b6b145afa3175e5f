//! The endpoint as a raw AMQP client sees it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Connection, Receiver, Sender, Session};
use fe2o3_amqp_types::definitions::Fields;
use fe2o3_amqp_types::messaging::message::__private::Serializable;
use fe2o3_amqp_types::messaging::{
    AmqpValue, Annotations, ApplicationProperties, Body, Data, Message, MessageAnnotations, Outcome, Properties, Source,
};
use fe2o3_amqp_types::primitives::{Binary, OrderedMap, SimpleValue, Symbol, Value};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_amqp::described::Described;
use serde_amqp::descriptor::Descriptor;
use sha2::Sha256;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::event_hubs::{Event, PropertyValue};

pub(super) const KEY: &str = "bm90IGEgc2VjcmV0";

pub(super) struct Client {
    _connection: ConnectionHandle<()>,
    session: SessionHandle<()>,
}

pub(super) fn token(resource: &str, key: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (resource, expiry) = (encoded(resource), time::OffsetDateTime::now_utc().unix_timestamp() + 60);
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key length");
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = encoded(&STANDARD.encode(mac.finalize().into_bytes()));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=policy")
}

impl Client {
    pub(super) async fn open(server: &AmqpServer) -> Self {
        Self::open_with(server, Some(SaslProfile::Anonymous)).await.expect("a connection")
    }

    /// `None` if it is not let in.
    pub(super) async fn open_with(server: &AmqpServer, profile: Option<SaslProfile>) -> Option<Self> {
        let url = format!("amqp://{}", server.addr());
        let builder = Connection::builder().container_id("test");
        let opened = match profile {
            Some(profile) => builder.sasl_profile(profile).open(url.as_str()).await,
            None => builder.open(url.as_str()).await,
        };
        let mut connection = opened.ok()?;
        let session = Session::begin(&mut connection).await.expect("a session");
        Some(Self { _connection: connection, session })
    }

    pub(super) async fn over<Io>(stream: Io) -> Self
    where
        Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
    {
        let builder = Connection::builder().container_id("test").sasl_profile(SaslProfile::Anonymous);
        let mut connection = builder.hostname("localhost").open_with_stream(stream).await.expect("a connection");
        let session = Session::begin(&mut connection).await.expect("a session");
        Self { _connection: connection, session }
    }

    pub(super) async fn authorized(server: &AmqpServer) -> Self {
        let mut client = Self::open(server).await;
        assert_eq!(client.put_token(&token("sb://any/hub", KEY), "amqps://any/hub").await, 202);
        client
    }

    /// Asks a node and returns status code and body of the answer.
    async fn ask(&mut self, node: &str, fields: &[(&str, &str)], body: Value) -> (i32, Value) {
        let replies = format!("replies-{node}");
        let sender = Sender::attach(&mut self.session, format!("ask-{node}"), node).await;
        let mut sender = sender.expect("a link for requests");
        let receiver = Receiver::builder().name(replies.clone()).source(node).target(replies.clone());
        let mut receiver = receiver.attach(&mut self.session).await.expect("a link for answers");
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), SimpleValue::from((*value).to_owned())));
        let request = Message::builder()
            .properties(Properties { message_id: Some(7_u64.into()), reply_to: Some(replies), ..Properties::default() })
            .application_properties(ApplicationProperties(fields.collect::<OrderedMap<_, _>>()))
            .body(AmqpValue(body))
            .build();
        sender.send(request).await.expect("the request is taken");
        let answer = receiver.recv::<Body<Value>>().await.expect("an answer");
        receiver.accept(&answer).await.expect("settled");
        let answer = answer.into_message();
        assert_eq!(answer.properties.expect("properties").correlation_id, Some(7_u64.into()));
        let code = answer.application_properties.expect("a status").0.get("status-code").cloned();
        let Some(SimpleValue::Int(code)) = code else { panic!("no status code: {code:?}") };
        sender.close().await.expect("closed");
        receiver.close().await.expect("closed");
        match answer.body {
            Body::Value(value) => (code, value.0),
            _ => (code, Value::Null),
        }
    }

    pub(super) async fn put_token(&mut self, token: &str, audience: &str) -> i32 {
        let fields = [("operation", "put-token"), ("type", "servicebus.windows.net:sastoken"), ("name", audience)];
        self.ask("$cbs", &fields, Value::String(token.to_owned())).await.0
    }

    pub(super) async fn producer(&mut self, address: &str) -> Sender {
        Sender::attach(&mut self.session, format!("to-{address}"), address).await.expect("a producer link")
    }

    /// Why a producer gets no link.
    pub(super) async fn send_refused(&mut self, address: &str) -> String {
        let refused = Sender::attach(&mut self.session, format!("refused-{address}"), address).await;
        format!("{:?}", refused.expect_err("it must not be let in"))
    }

    /// The status of a question about an Event Hub.
    pub(super) async fn read_management(&mut self, hub: &str) -> i32 {
        let fields = [("operation", "READ"), ("type", "com.microsoft:eventhub"), ("name", hub)];
        self.ask("$management", &fields, Value::Null).await.0
    }

    async fn consumer(&mut self, address: &str, selector: &str, credit: u32) -> Receiver {
        let name = format!("{address}-{credit}");
        self.reader(&name, address, selector, credit, None).await.expect("a consumer link")
    }

    /// A consumer link, or why there is none.
    pub(super) async fn reader(
        &mut self,
        name: &str,
        address: &str,
        selector: &str,
        credit: u32,
        properties: Option<Fields>,
    ) -> Result<Receiver, String> {
        let filter = "apache.org:selector-filter:string";
        let selector =
            Described { descriptor: Descriptor::Name(filter.into()), value: Value::from(selector.to_owned()) };
        let source = Source {
            address: Some(address.to_owned()),
            filter: Some(OrderedMap::from_iter([(Symbol::from(filter), Value::Described(Box::new(selector)))])),
            ..Source::default()
        };
        let builder = Receiver::builder().name(name).source(source).credit_mode(CreditMode::Manual);
        let attached = match properties {
            Some(properties) => builder.properties(properties).attach(&mut self.session).await,
            None => builder.attach(&mut self.session).await,
        };
        let mut link = attached.map_err(|refused| format!("{refused:?}"))?;
        link.set_credit(credit).await.expect("credit");
        Ok(link)
    }
}

pub(super) async fn server() -> (AmqpServer, Namespace) {
    let namespace = Namespace::new(&[("hub", 2)]).with_consumer_groups(&["g", "h"]);
    let addr = "127.0.0.1:0".parse().expect("an address");
    let policy = SasPolicy { name: "policy".to_owned(), key: KEY.to_owned() };
    let options = AmqpOptions { policies: vec![policy], ..AmqpOptions::new(addr) };
    (AmqpServer::start(options, namespace.clone()).await.expect("a free port"), namespace)
}

pub(super) fn event(body: &'static str) -> Event {
    Event { body: Bytes::from_static(body.as_bytes()), ..Event::default() }
}

pub(super) async fn body(link: &mut Receiver) -> String {
    let delivery = link.recv::<Data>().await.expect("an event");
    link.accept(&delivery).await.expect("settled");
    String::from_utf8(delivery.into_body().0.into_vec()).expect("text")
}

#[tokio::test]
async fn only_a_good_token_opens_a_hub() {
    let (server, _namespace) = server().await;
    let mut client = Client::open(&server).await;
    for (token, audience, code) in [
        (token("sb://any/hub", "wrong"), "sb://any/hub", 401),
        (token("sb://any/other", KEY), "sb://any/hub", 401),
        ("nonsense".to_owned(), "sb://any/hub", 401),
    ] {
        assert_eq!(client.put_token(&token, audience).await, code);
    }
    let refused = Sender::attach(&mut client.session, "early", "hub").await.expect_err("no token yet");
    assert!(format!("{refused:?}").contains("UnauthorizedAccess"), "{refused:?}");
    let mut client = Client::open(&server).await;
    assert_eq!(client.put_token(&token("sb://any:1234/hub", KEY), "sb://any:1234/hub").await, 202);
    client.producer("amqps://any/hub").await.send("x").await.expect("sent");
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let (server, _namespace) = server().await;
    for (address, condition) in [
        ("other", "NotFound"),
        ("a/b/c/d", "NotFound"),
        ("hub/Partitions/2", "argument-out-of-range"),
        ("hub/Partitions/x", "argument-out-of-range"),
        ("hub/ConsumerGroups/g/Partitions/0", "NotAllowed"),
    ] {
        // This client library ends the session after a refused link, so each gets a connection of its own.
        let mut client = Client::open(&server).await;
        assert_eq!(client.put_token(&token("sb://any/", KEY), "sb://any/").await, 202);
        let refused = Sender::attach(&mut client.session, "a", address).await.expect_err(address);
        assert!(format!("{refused:?}").contains(condition), "{address}: {refused:?}");
    }
    let mut client = Client::authorized(&server).await;
    let refused = Receiver::attach(&mut client.session, "b", "hub/ConsumerGroups/g/Partitions/2").await;
    let refused = format!("{:?}", refused.expect_err("no such partition"));
    assert!(refused.contains("argument-out-of-range"), "{refused}");
}

#[tokio::test]
async fn an_event_arrives_with_all_its_sections() {
    let (server, namespace) = server().await;
    let mut client = Client::authorized(&server).await;
    let mut annotations = Annotations::new();
    annotations.insert("x-opt-partition-key".into(), Value::String("k".into()));
    annotations.insert("iothub-message-source".into(), Value::String("Telemetry".into()));
    let properties = OrderedMap::from_iter([("n".to_owned(), SimpleValue::Int(5))]);
    let message = Message::builder()
        .message_annotations(MessageAnnotations(annotations))
        .properties(Properties { content_type: Some("application/json".into()), ..Properties::default() })
        .application_properties(ApplicationProperties(properties))
        .body(Data(Binary::from(b"{}".to_vec())))
        .build();
    let outcome = client.producer("hub/Partitions/1").await.send(message).await;
    assert!(matches!(outcome, Ok(Outcome::Accepted(_))), "{outcome:?}");
    let stored = namespace.hub("hub").expect("the hub").read(1, 0, 10);
    assert_eq!(
        stored[0].event,
        Event {
            body: Bytes::from_static(b"{}"),
            system: [("content-type".to_owned(), "application/json".into())].into(),
            properties: [("n".to_owned(), PropertyValue::Int(5))].into(),
            annotations: [("iothub-message-source".to_owned(), "Telemetry".into())].into(),
            partition_key: Some("k".to_owned()),
        }
    );
    assert_eq!(server.counters(), Counters { connections: 1, received: 1, sent: 0 });

    let mut consumer =
        client.consumer("hub/ConsumerGroups/$Default/Partitions/1", "amqp.annotation.x-opt-offset > '-1'", 1).await;
    let got = consumer.recv::<Data>().await.expect("an event").into_message();
    let annotations = got.message_annotations.expect("annotations").0;
    let annotation =
        |name: &str| annotations.iter().find(|(key, _)| **key == name.into()).map(|(_, value)| value.clone());
    assert_eq!(annotation("x-opt-sequence-number"), Some(Value::Long(0)));
    assert_eq!(annotation("x-opt-offset"), Some(Value::String("0".into())));
    assert_eq!(annotation("x-opt-partition-key"), Some(Value::String("k".into())));
    assert_eq!(annotation("iothub-message-source"), Some(Value::String("Telemetry".into())));
    assert!(matches!(annotation("x-opt-enqueued-time"), Some(Value::Timestamp(_))));
    assert_eq!(got.application_properties.expect("properties").0.get("n"), Some(&SimpleValue::Int(5)));
    assert_eq!(got.properties.expect("properties").content_type, Some("application/json".into()));
}

/// A batch of the events `a`, `b` and `c`.
fn batch(key: Option<&str>) -> Sendable<Body<Value>> {
    let sections = ["a", "b", "c"].map(|body| {
        let inner = Message::from(Data(Binary::from(body.as_bytes().to_vec())));
        Data(Binary::from(serde_amqp::to_vec(&Serializable(inner)).expect("encoded")))
    });
    let mut annotations = Annotations::new();
    if let Some(key) = key {
        annotations.insert("x-opt-partition-key".into(), Value::String(key.into()));
    }
    let message = Message::builder()
        .message_annotations(MessageAnnotations(annotations))
        .body(Body::<Value>::Data(sections.to_vec().into()))
        .build();
    Sendable { message, message_format: message::BATCH_FORMAT, settled: None }
}

#[tokio::test]
async fn a_batch_without_a_key_goes_whole_to_one_partition_and_the_next_one_to_the_next() {
    let (server, namespace) = server().await;
    let mut client = Client::authorized(&server).await;
    let mut producer = client.producer("hub").await;
    let hub = namespace.hub("hub").expect("the hub");
    for ends in [[3, 0], [3, 3]] {
        producer.send(batch(None)).await.expect("sent");
        assert_eq!([hub.end(0), hub.end(1)], ends);
    }
    let bodies: Vec<_> = hub.read(0, 0, 10).iter().map(|stored| stored.event.body.clone()).collect();
    assert_eq!(bodies, ["a", "b", "c"]);
    assert_eq!(server.counters().received, 6);
}

#[tokio::test]
async fn a_batch_is_taken_apart_and_goes_to_the_partition_of_its_key() {
    let (server, namespace) = server().await;
    let mut client = Client::authorized(&server).await;
    let outcome = client.producer("hub").await.send(batch(Some("k"))).await;
    assert!(matches!(outcome, Ok(Outcome::Accepted(_))), "{outcome:?}");
    let hub = namespace.hub("hub").expect("the hub");
    let bodies: Vec<_> = hub.all().iter().map(|stored| stored.event.body.clone()).collect();
    assert_eq!(bodies, ["a", "b", "c"]);
    assert!(hub.all().iter().all(|stored| stored.event.partition_key.as_deref() == Some("k")));
    assert!(hub.end(0) == 3 || hub.end(1) == 3, "one partition has them all");

    let nonsense = Message::builder().body(Body::<Value>::Data(vec![Data(Binary::from(vec![1, 2, 3]))].into())).build();
    let batch = Sendable { message: nonsense, message_format: message::BATCH_FORMAT, settled: None };
    let outcome = client.producer("hub/Partitions/0").await.send(batch).await;
    assert!(matches!(outcome, Ok(Outcome::Rejected(_))), "{outcome:?}");
}

#[tokio::test]
async fn an_event_beyond_the_limit_detaches_the_link() {
    let (server, namespace) = server().await;
    let mut client = Client::authorized(&server).await;
    let mut producer = client.producer("hub").await;
    assert_eq!(producer.max_message_size(), Some(1024 * 1024));
    producer.send(Data(Binary::from(vec![0; 1_000_000]))).await.expect("within the limit");
    let refused = producer.send(Data(Binary::from(vec![0; 1024 * 1024]))).await.expect_err("beyond the limit");
    assert!(format!("{refused:?}").contains("MessageSizeExceeded"), "{refused:?}");
    assert_eq!(namespace.hub("hub").expect("the hub").all().len(), 1);
}

#[tokio::test]
async fn credit_is_respected_and_new_events_are_waited_for() {
    let (server, namespace) = server().await;
    let hub = namespace.hub("hub").expect("the hub");
    for body in ["a", "b", "c"] {
        hub.append_to(0, event(body));
    }
    let mut client = Client::authorized(&server).await;
    let selector = "amqp.annotation.x-opt-sequence-number > '0'";
    let mut link = client.consumer("hub/ConsumerGroups/g/Partitions/0", selector, 1).await;
    assert_eq!(body(&mut link).await, "b");
    assert_eq!(server.counters().sent, 1, "more would be beyond the credit");
    link.set_credit(2).await.expect("credit");
    assert_eq!(body(&mut link).await, "c");
    let (next, ()) = tokio::join!(body(&mut link), async {
        tokio::task::yield_now().await;
        hub.append_to(0, event("d"));
    });
    assert_eq!(next, "d");
    let mut latest =
        client.consumer("hub/ConsumerGroups/h/Partitions/0", "amqp.annotation.x-opt-offset > '@latest'", 5).await;
    hub.append_to(0, event("e"));
    assert_eq!(body(&mut latest).await, "e");
}

#[tokio::test]
async fn a_hub_and_its_partitions_tell_about_themselves() {
    let (server, namespace) = server().await;
    namespace.hub("hub").expect("the hub").append_to(1, event("x"));
    let mut client = Client::authorized(&server).await;
    let of_hub = [("operation", "READ"), ("type", "com.microsoft:eventhub"), ("name", "hub")];
    let (code, Value::Map(hub)) = client.ask("$management", &of_hub, Value::Null).await else { panic!("no map") };
    assert_eq!((code, hub.get(&Value::from("partition_count".to_owned()))), (200, Some(&Value::Int(2))));
    let of_partition =
        [("operation", "READ"), ("type", "com.microsoft:partition"), ("name", "hub"), ("partition", "1")];
    let (code, Value::Map(partition)) = client.ask("$management", &of_partition, Value::Null).await else {
        panic!("no map")
    };
    let last = partition.get(&Value::from("last_enqueued_sequence_number".to_owned()));
    assert_eq!((code, last), (200, Some(&Value::Long(0))));
    let other = [("operation", "READ"), ("type", "com.microsoft:eventhub"), ("name", "other")];
    assert_eq!(client.ask("$management", &other, Value::Null).await.0, 401, "the token is for the hub only");
}

#[tokio::test]
async fn faults_reject_and_close() {
    let (server, _namespace) = server().await;
    let mut client = Client::authorized(&server).await;
    let mut producer = client.producer("hub").await;
    for (fault, condition) in [(Fault::RejectSends, "InternalError"), (Fault::Busy, "server-busy")] {
        server.set_fault(fault);
        let outcome = producer.send("x").await.expect("an outcome");
        assert!(matches!(&outcome, Outcome::Rejected(why) if format!("{why:?}").contains(condition)), "{outcome:?}");
    }
    let mut open = tokio::net::TcpStream::connect(server.addr()).await.expect("a connection");
    server.set_fault(Fault::Refuse);
    let mut refused = tokio::net::TcpStream::connect(server.addr()).await.expect("a connection");
    for stream in [&mut open, &mut refused] {
        assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)), "closed without a word");
    }
    server.set_fault(Fault::None);
    Client::authorized(&server).await.producer("hub").await.send("x").await.expect("sent");
    let addr = server.addr();
    server.shutdown().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}
