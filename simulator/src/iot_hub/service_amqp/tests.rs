//! The service nodes over a real socket, on a hub that is a queue of its own.

use std::collections::VecDeque;
use std::sync::Mutex;

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Connection, Session};
use fe2o3_amqp_types::messaging::{Data, Message, Outcome, Properties};
use fe2o3_amqp_types::primitives::Binary;
use serde_json::{Value as Json, json};
use time::macros::datetime;
use tokio::sync::Notify;

use super::*;
use crate::event_hubs::{AmqpOptions, AmqpServer, Namespace, SasPolicy};
use crate::iot_hub::error::Code;
use crate::iot_hub::sas::mint;

/// Takes messages for `d1` and any token that is signed with a name for a key.
#[derive(Clone, Debug, Default)]
struct FakeHub(Arc<Fake>);

#[derive(Debug, Default)]
struct Fake {
    sent: Mutex<Vec<(String, CloudMessage)>>,
    feedback: Mutex<VecDeque<Feedback>>,
    more: Notify,
    /// Seconds that its clock is before the machine's.
    skew: i64,
}

impl FakeHub {
    fn report(&self, id: &str) {
        self.0.feedback.lock().expect("no panic").push_back(Feedback {
            original_message_id: id.to_owned(),
            device_id: "d1".to_owned(),
            device_generation_id: "7".to_owned(),
            enqueued_at: datetime!(2026-03-01 08:00 UTC),
            status: "Success",
        });
        self.0.more.notify_one();
    }
}

impl Devicebound for FakeHub {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + time::Duration::seconds(self.0.skew)
    }

    fn token_opens(&self, token: &str, path: &str) -> Result<(), SasError> {
        let parsed = Token::parse(token)?;
        if parsed.policy() != Some("service") {
            return Err(SasError::UnknownPolicy);
        }
        if parsed.expiry() <= u64::try_from(self.now().unix_timestamp()).expect("after 1970") {
            return Err(SasError::Expired);
        }
        let elsewhere = token.contains("%2Fdevices") || token.contains("%2Fmessages") && !path.starts_with("messages");
        if elsewhere { Err(SasError::OutOfScope) } else { Ok(()) }
    }

    fn send<'a>(&'a self, device_id: &'a str, message: CloudMessage) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(async move {
            if device_id != "d1" {
                return Err(HubError::new(Code::DeviceNotFound, "unknown"));
            }
            self.0.sent.lock().expect("no panic").push((device_id.to_owned(), message));
            Ok(())
        })
    }

    fn feedback(&self) -> BoxFuture<'_, Vec<Feedback>> {
        Box::pin(async {
            loop {
                let taken: Vec<_> = self.0.feedback.lock().expect("no panic").drain(..).collect();
                if !taken.is_empty() {
                    return taken;
                }
                self.0.more.notified().await;
            }
        })
    }
}

async fn server() -> (AmqpServer, FakeHub, Entra) {
    let (hub, entra) = (FakeHub::default(), Entra::new());
    let nodes: Arc<dyn Service> = Arc::new(ServiceNodes::of(hub.clone(), entra.clone()));
    let addr = "127.0.0.1:0".parse().expect("an address");
    let policy = SasPolicy { name: "p".into(), key: "k".into() };
    let options = AmqpOptions { policies: vec![policy], ..AmqpOptions::new(addr) };
    let server = AmqpServer::start_beside(options, Namespace::new(&[("hub", 1)]), vec![nodes]).await;
    (server.expect("a free port"), hub, entra)
}

fn token(policy: &str, seconds: i64) -> String {
    let expiry = u64::try_from(OffsetDateTime::now_utc().unix_timestamp() + seconds).expect("after 1970");
    mint("sim.azure-devices.net", b"key", expiry, Some(policy))
}

/// A client that shows a token by SASL PLAIN.
async fn client(server: &AmqpServer, policy: &str, token: &str) -> Option<(ConnectionHandle<()>, SessionHandle<()>)> {
    let username = format!("{policy}@sas.root.sim");
    let profile = SaslProfile::Plain { username, password: token.to_owned() };
    let url = format!("amqp://{}", server.addr());
    let mut connection = Connection::builder().container_id("t").sasl_profile(profile).open(url.as_str()).await.ok()?;
    let session = Session::begin(&mut connection).await.ok()?;
    Some((connection, session))
}

fn to(device: &str) -> Message<Data> {
    let to = Some(format!("/devices/{device}/messages/devicebound"));
    let body = Data(Binary::from(b"open".to_vec()));
    Message::builder().properties(Properties { to, ..Properties::default() }).body(body).build()
}

#[tokio::test]
async fn a_message_reaches_the_hub_and_one_for_nobody_is_rejected() {
    let (server, hub, _) = server().await;
    let (_connection, mut session) = client(&server, "service", &token("service", 60)).await.expect("let in");
    let mut sender = Sender::attach(&mut session, "s", "/messages/deviceBound").await.expect("a link");
    assert!(matches!(sender.send(to("d1")).await, Ok(Outcome::Accepted(_))));
    assert_eq!(hub.0.sent.lock().expect("no panic")[0].1.body, "open");
    let Ok(Outcome::Rejected(why)) = sender.send(to("other")).await else { panic!("there is no such device") };
    assert_eq!(why.error.expect("a reason").condition, AmqpError::NotFound.into());
}

#[tokio::test]
async fn only_a_good_token_opens_the_nodes_and_only_until_it_ends() {
    let (server, _, _) = server().await;
    assert!(client(&server, "service", &token("device", 60)).await.is_none(), "the policy is another one");
    assert!(client(&server, "device", &token("device", 60)).await.is_none(), "the policy lacks the right");
    let (_connection, mut session) = client(&server, "service", &token("service", 5)).await.expect("let in");
    let mut sender = Sender::attach(&mut session, "s", "/messages/devicebound").await.expect("a link");
    let ended = format!("{:?}", sender.on_detach().await);
    assert!(ended.contains("UnauthorizedAccess"), "{ended}");
}

async fn records(link: &mut Receiver) -> (fe2o3_amqp::link::delivery::DeliveryInfo, Json) {
    let delivery = link.recv::<Data>().await.expect("feedback");
    let (info, message) = delivery.into_parts();
    let content_type = message.properties.expect("properties").content_type;
    assert_eq!(content_type, Some("application/vnd.microsoft.iothub.feedback.json".into()));
    (info, serde_json::from_slice(&message.body.0).expect("JSON"))
}

#[tokio::test]
async fn feedback_comes_once_and_again_if_nobody_settled_it() {
    let (server, hub, _) = server().await;
    let address = "/messages/serviceBound/feedback";
    hub.report("m1");
    let (connection, mut session) = client(&server, "service", &token("service", 60)).await.expect("let in");
    let mut first = Receiver::attach(&mut session, "a", address).await.expect("a link");
    let (_, unsettled) = records(&mut first).await;
    assert_eq!(
        unsettled,
        json!([{
            "originalMessageId": "m1",
            "enqueuedTimeUtc": "2026-03-01T08:00:00Z",
            "statusCode": "Success",
            "description": "Success",
            "deviceId": "d1",
            "deviceGenerationId": "7",
        }])
    );
    drop((first, session, connection));
    let (_connection, mut session) = client(&server, "service", &token("service", 60)).await.expect("let in");
    let mut second = Receiver::attach(&mut session, "b", address).await.expect("a link");
    let (info, again) = records(&mut second).await;
    assert_eq!(again, unsettled);
    second.accept(info).await.expect("settled");
    hub.report("m2");
    let (info, next) = records(&mut second).await;
    assert_eq!(next[0]["originalMessageId"], "m2");
    second.accept(info).await.expect("settled");
}

#[test]
fn a_token_holds_by_the_clock_of_the_hub_and_its_grant_ends_by_that_of_the_machine() {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let hub = FakeHub(Arc::new(Fake { skew: 3600, ..Fake::default() }));
    let nodes = ServiceNodes::of(hub, Entra::new());
    let check = |token: &str| nodes.check(&Credentials::put(token, "sim.azure-devices.net"));
    assert!(matches!(check(&token("service", 60)), Err(Refused::Expired(_))));
    let grant = check(&token("service", 3660)).expect("a minute is left");
    // The clock may have gone on while the test ran.
    assert!((now + 59..=now + 120).contains(&grant.expires_at), "{} at {now}", grant.expires_at);
}

#[test]
fn a_token_is_refused_for_the_reason_that_it_has() {
    let nodes = ServiceNodes::of(FakeHub::default(), Entra::new());
    let check = |token: &str| nodes.check(&Credentials::put(token, "sim.azure-devices.net")).expect_err("refused");
    let elsewhere = token("service", 60).replace("sim.azure-devices.net", "sim.azure-devices.net%2Fdevices");
    assert!(matches!(check(&token("service", -60)), Refused::Expired(_)));
    assert_eq!(check(&token("nobody", 60)), Refused::Signature);
    assert_eq!(check("SharedAccessSignature sr=x"), Refused::Malformed);
    assert!(matches!(check(&elsewhere), Refused::Audience(_)));
}

#[test]
fn a_bearer_token_for_the_hub_opens_its_nodes() {
    let entra = Entra::new();
    let nodes = ServiceNodes::of(FakeHub::default(), entra.clone());
    let check = |audience: &str| {
        let token = entra.mint(audience, "bridge", time::Duration::hours(1)).expect("a token");
        nodes.check(&Credentials::put(&format!("Bearer {token}"), "https://iothubs.azure.net/.default")).is_ok()
    };
    assert!(check(IOT_HUBS));
    assert!(!check(crate::entra::EVENT_HUBS));
}
