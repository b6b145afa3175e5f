//! TLS, bearer tokens, owners and groups, over real sockets.

use std::sync::Arc;

use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp_types::definitions::Fields;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use time::Duration;

use super::tests::{Client, KEY, body, event, server, token};
use super::*;
use crate::entra::{Access, Assignment, EVENT_HUBS, Role};
use crate::eventually::eventually;
use crate::faults::{Action, MAX_DELAY_MS, Rule, Stage};
use crate::happenings::Happenings;

const GROUP: &str = "hub/ConsumerGroups/$Default/Partitions/0";
/// The key of a policy of the hub.
const HUB_KEY: &str = "aHVi";
const OLDEST: &str = "amqp.annotation.x-opt-offset > '-1'";

fn epoch(epoch: i64) -> Fields {
    Fields::from_iter([(Symbol::from("com.microsoft:epoch"), Value::Long(epoch))])
}

#[tokio::test]
async fn the_same_namespace_is_behind_both_doors() {
    let tls = Tls::new(&[]).expect("a certificate");
    let namespace = Namespace::new(&[("hub", 1)]);
    let any = "127.0.0.1:0".parse().expect("an address");
    let policies = vec![SasPolicy { name: "policy".to_owned(), key: KEY.to_owned() }];
    let options = AmqpOptions { tls: Some((any, &tls)), policies, ..AmqpOptions::new(any) };
    let server = AmqpServer::start(options, namespace.clone()).await.expect("free ports");

    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(tls.ca_pem().as_bytes()).expect("PEM");
    roots.add(ca).expect("a certificate");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let addr = server.tls_addr().expect("a TLS door");
    let tcp = tokio::net::TcpStream::connect(addr).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake");
    let mut client = Client::over(stream).await;
    assert_eq!(client.put_token(&token("sb://any/hub", KEY), "amqps://any/hub").await, 202);
    client.producer("hub").await.send("x").await.expect("sent");
    assert_eq!(namespace.hub("hub").expect("the hub").end(0), 1);
    let string = server.tls_connection_string().expect("a TLS door");
    assert!(string.starts_with(&format!("Endpoint=sb://localhost:{}/;", addr.port())), "{string}");
}

#[tokio::test]
async fn a_bearer_token_opens_a_hub_until_it_expires_and_a_renewed_one_goes_on() {
    let (server, _namespace) = server().await;
    let mint = |seconds| server.broker.entra.mint(EVENT_HUBS, "bridge", Duration::seconds(seconds)).expect("a token");
    let mut client = Client::open(&server).await;
    assert_eq!(client.put_token("a.b.c", "amqps://any/hub").await, 401);
    let foreign = Entra::new().mint(EVENT_HUBS, "bridge", Duration::hours(1)).expect("a token");
    assert_eq!(client.put_token(&foreign, "amqps://any/hub").await, 401);

    let first = Duration::seconds(5);
    let first_ends = std::time::Instant::now() + first;
    assert_eq!(client.put_token(&mint(first.whole_seconds()), "amqps://any/hub").await, 202);
    let mut producer = client.producer("hub").await;
    assert_eq!(client.put_token(&mint(3600), "amqps://any/hub").await, 202);
    tokio::time::sleep_until((first_ends + Duration::seconds(1)).into()).await;
    producer.send("x").await.expect("the renewed token holds");
    // The newest token counts, also if it ends sooner.
    assert_eq!(client.put_token(&mint(3), "amqps://any/hub").await, 202);
    let ended = format!("{:?}", producer.on_detach().await);
    assert!(ended.contains("UnauthorizedAccess"), "{ended}");
}

#[tokio::test]
async fn a_link_that_a_fault_holds_up_holds_up_no_other_of_its_session() {
    let namespace = Namespace::new(&[("hub", 1)]);
    let policies = vec![SasPolicy { name: "policy".to_owned(), key: KEY.to_owned() }];
    let faults = Faults::default();
    let options = AmqpOptions {
        policies,
        faults: faults.clone(),
        ..AmqpOptions::new("127.0.0.1:0".parse().expect("an address"))
    };
    let server = AmqpServer::start(options, namespace).await.expect("a free port");
    let mut client = Client::authorized(&server).await;
    let delay = Rule { times: Some(1), delay_ms: Some(MAX_DELAY_MS), ..Rule::new(Stage::AmqpLink, Action::Delay) };
    faults.add(delay).expect("a sound rule");
    let limit = std::time::Duration::from_secs(60);
    let struck = eventually(limit, || faults.list().iter().any(|(_, _, hits)| *hits == 1));
    tokio::select! {
        _ = client.producer("hub") => panic!("the link is held up"),
        struck = struck => assert!(struck, "the rule strikes the first link"),
    }
    client.producer("hub/Partitions/0").await.send("x").await.expect("sent");
}

#[tokio::test]
async fn an_owner_with_a_higher_epoch_takes_a_partition_over() {
    let (server, namespace) = server().await;
    namespace.hub("hub").expect("the hub").append_to(0, event("a"));
    let mut client = Client::authorized(&server).await;
    let mut first = client.reader("first", GROUP, OLDEST, 5, Some(epoch(1))).await.expect("nobody is there");
    assert_eq!(body(&mut first).await, "a");
    for refused in [Some(epoch(0)), None] {
        // This client library ends the session after a refused link, so each gets a connection of its own.
        let mut client = Client::authorized(&server).await;
        let refused = client.reader("refused", GROUP, OLDEST, 5, refused).await.expect_err("an owner is there");
        assert!(refused.contains("Stolen"), "{refused}");
    }
    let mut second = client.reader("second", GROUP, OLDEST, 5, Some(epoch(2))).await.expect("a higher epoch");
    assert_eq!(body(&mut second).await, "a");
    let stolen = format!("{:?}", first.recv::<fe2o3_amqp_types::messaging::Data>().await.expect_err("sent away"));
    assert!(stolen.contains("Stolen"), "{stolen}");
}

#[tokio::test]
async fn a_consumer_group_that_nobody_configured_is_not_found() {
    let (server, _namespace) = server().await;
    let mut client = Client::authorized(&server).await;
    let address = "hub/ConsumerGroups/nobody/Partitions/0";
    let refused = client.reader("r", address, OLDEST, 5, None).await.expect_err("there is no such group");
    assert!(refused.contains("NotFound"), "{refused}");
}

#[tokio::test]
async fn a_client_may_show_its_policy_when_it_opens_or_do_without_a_sasl_layer() {
    let (server, _namespace) = server().await;
    let plain = |key: &str| SaslProfile::Plain { username: "policy".into(), password: key.into() };
    assert!(Client::open_with(&server, Some(plain("wrong"))).await.is_none(), "the key is another one");
    let mut client = Client::open_with(&server, Some(plain(KEY))).await.expect("let in");
    client.producer("hub").await.send("x").await.expect("sent without a token");
    let mut client = Client::open_with(&server, None).await.expect("let in, and nothing more");
    assert_eq!(client.put_token(&token("sb://any/hub", KEY), "amqps://any/hub").await, 202);
    client.producer("hub").await.send("x").await.expect("sent");
}

/// A namespace of two Event Hubs without keys, where `bridge` may send to the first and listen at the second.
async fn guarded() -> AmqpServer {
    let assignment = |role, scope: &str| Assignment {
        scope: scope.to_owned(),
        role: Role::find(role).expect("it is known"),
        principal: "bridge".to_owned(),
    };
    let assignments = [
        assignment("2b629674-e913-4c01-ae53-ef4638d8f975", "/ns/eventhubs/hub"),
        assignment("a638d3c7-ab3a-418d-83e6-5f17a39d4fde", "/ns/eventhubs/other"),
    ];
    let access = Access::by_roles("/ns", assignments.into(), Happenings::default());
    let namespace = Namespace::new(&[("hub", 1), ("other", 1)]).with_built_in_endpoint("built-in", 1);
    let namespace = namespace.guarded_by(access, false);
    let policy = |key: &str| vec![SasPolicy { name: "policy".to_owned(), key: key.to_owned() }];
    let (policies, hub_policies) = (policy(KEY), policy(HUB_KEY));
    let options =
        AmqpOptions { policies, hub_policies, ..AmqpOptions::new("127.0.0.1:0".parse().expect("an address")) };
    AmqpServer::start(options, namespace).await.expect("a free port")
}

#[tokio::test]
async fn an_identity_sends_and_listens_where_its_roles_allow_and_nowhere_else() {
    let server = guarded().await;
    let bridge = async || {
        let mut client = Client::open(&server).await;
        let token = server.broker.entra.mint(EVENT_HUBS, "bridge", Duration::hours(1)).expect("a token");
        for hub in ["hub", "other"] {
            assert_eq!(client.put_token(&token, &format!("amqps://any/{hub}")).await, 202);
        }
        client
    };
    let mut client = bridge().await;
    client.producer("hub").await.send("x").await.expect("it may send there");
    client.reader("r1", &GROUP.replace("hub/", "other/"), OLDEST, 1, None).await.expect("it may listen there");
    let refused = client.reader("r2", GROUP, OLDEST, 1, None).await.expect_err("it may not listen there");
    for part in [
        "UnauthorizedAccess",
        "Unauthorized access. 'Listen' claim(s) are required to perform this operation. Resource: ",
        "/hub/consumergroups/$default/partitions/0",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    // The client library does not take two refused links in one session.
    let refused = bridge().await.send_refused("other").await;
    assert!(refused.contains("UnauthorizedAccess") && refused.contains("'Send' claim(s)"), "{refused}");
    for hub in ["hub", "other"] {
        assert_eq!(bridge().await.read_management(hub).await, 200, "either role opens $management");
    }

    let mut stranger = Client::open(&server).await;
    let token = server.broker.entra.mint(EVENT_HUBS, "stranger", Duration::hours(1)).expect("a token");
    assert_eq!(stranger.put_token(&token, "amqps://any/hub").await, 202, "who it is is known, not what it may");
    assert_eq!(stranger.read_management("hub").await, 401);
    assert!(stranger.send_refused("hub").await.contains("UnauthorizedAccess"));
}

#[tokio::test]
async fn a_namespace_without_local_authentication_takes_no_key() {
    let server = guarded().await;
    let mut client = Client::open(&server).await;
    assert_eq!(client.put_token(&token("sb://any/hub", KEY), "amqps://any/hub").await, 401);
    let plain = SaslProfile::Plain { username: "policy".to_owned(), password: KEY.to_owned() };
    assert!(Client::open_with(&server, Some(plain)).await.is_none());
}

#[tokio::test]
async fn the_built_in_endpoint_is_open_to_policies_of_the_hub_and_to_nobody_else() {
    let server = guarded().await;
    let mut client = Client::open(&server).await;
    assert_eq!(client.put_token(&token("sb://any/hub", HUB_KEY), "amqps://any/hub").await, 401, "another Event Hub");
    assert_eq!(client.put_token(&token("sb://any/built-in", KEY), "amqps://any/built-in").await, 401, "another key");
    let bearer = server.broker.entra.mint(EVENT_HUBS, "bridge", Duration::hours(1)).expect("a token");
    assert_eq!(client.put_token(&bearer, "amqps://any/built-in").await, 202, "who it is is known");
    assert_eq!(client.read_management("built-in").await, 401, "but no identity is let in");
    assert_eq!(client.put_token(&token("sb://any/built-in", HUB_KEY), "amqps://any/built-in").await, 202);
    let group = GROUP.replace("hub/", "built-in/");
    client.reader("r", &group, OLDEST, 1, None).await.expect("a policy of the hub may read");

    let plain = SaslProfile::Plain { username: "policy".to_owned(), password: HUB_KEY.to_owned() };
    let mut client = Client::open_with(&server, Some(plain)).await.expect("let in");
    assert_eq!(client.read_management("built-in").await, 200);
    assert_eq!(client.read_management("hub").await, 401, "nothing but the endpoint");
}
