//! A running hub, a device client and a service client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, StatusCode};
use mqtt_proto::v3::{Connack, Connect, ConnectReturnCode, Packet, Publish, Suback, Subscribe};
use mqtt_proto::{Pid, QoS, QosPid};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::Framed;

use crate::event_hubs::{Namespace, StoredEvent};
use crate::faults::{Faults, Rule};
use crate::iot_hub::codec::MqttCodec;
use crate::iot_hub::sas::mint;
use crate::iot_hub::topic::{DESIRED_CHANGES, TWIN_ANSWERS};
use crate::iot_hub::{BUILT_IN_EVENTS, IotHub, IotHubOptions, Policy, Rights, Route, RouteSource};
use crate::tls::Tls;

pub(super) const HOST: &str = "sim.azure-devices.net";
pub(super) const STACK_EVENTS: &str = "stack-events";
/// Far beyond what a loopback answer takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// 2100-01-01.
pub(super) const FAR_FUTURE: u64 = 4_102_444_800;

pub(super) fn key(policy: &str) -> Vec<u8> {
    format!("the key of the policy {policy}").into_bytes()
}

pub(super) fn fleet_token() -> String {
    mint(&format!("{HOST}/devices"), &key("device"), FAR_FUTURE, Some("device"))
}

fn options() -> IotHubOptions {
    let none = Rights::default();
    let policy = |name: &str, rights| Policy { name: name.into(), key: key(name), rights };
    let all = Rights { registry_read: true, registry_write: true, service_connect: true, device_connect: true };
    let route = |source, condition: &str| Route {
        name: format!("{source:?}"),
        source,
        condition: condition.into(),
        event_hub: STACK_EVENTS.into(),
        sender: None,
    };
    let any = "127.0.0.1:0".parse().expect("it is an address");
    IotHubOptions {
        host_name: HOST.into(),
        mqtt_addr: any,
        https_addr: any,
        policies: vec![
            policy("owner", all),
            policy("device", Rights { device_connect: true, ..none }),
            policy("registryReadWrite", Rights { registry_read: true, registry_write: true, ..none }),
            policy("service", Rights { service_connect: true, ..none }),
        ],
        routes: vec![
            route(RouteSource::DeviceLifecycleEvents, ""),
            route(RouteSource::TwinChangeEvents, "IS_OBJECT($body.properties.desired) OR IS_OBJECT($body.tags)"),
        ],
        fallback: true,
        size: None,
        limits: None,
        faults: Faults::default(),
        entra: crate::entra::Entra::new(),
        access: crate::entra::Access::default(),
        happenings: crate::happenings::Happenings::default(),
    }
}

/// A hub and its clients.
pub(super) struct World {
    pub(super) hub: IotHub,
    pub(super) faults: Faults,
    namespace: Namespace,
    http: reqwest::Client,
    tls: TlsConnector,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut IotHubOptions)) -> Self {
        let tls = Tls::new(&[HOST]).expect("the names are valid");
        let namespace = Namespace::new(&[(BUILT_IN_EVENTS, 4), (STACK_EVENTS, 4)]);
        let mut options = options();
        change(&mut options);
        let faults = options.faults.clone();
        let hub = IotHub::start(options, &tls, namespace.clone()).await.expect("the hub starts");

        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(tls.ca_pem().as_bytes()).expect("it is a certificate");
        roots.add(root).expect("it is a certificate");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let root = reqwest::Certificate::from_pem(tls.ca_pem().as_bytes()).expect("it is a certificate");
        let http = reqwest::Client::builder().tls_certs_only([root]).timeout(PATIENCE).build();
        let http = http.expect("the settings are valid");
        Self { hub, faults, namespace, http, tls: TlsConnector::from(Arc::new(config)) }
    }

    pub(super) fn fault(&self, rule: Rule) {
        self.faults.add(rule).expect("the rule is sound");
    }

    /// A service call by the policy `owner`.
    pub(super) async fn call(&self, method: Method, path: &str, if_match: &str, body: Value) -> (StatusCode, Value) {
        let request = self.request(method, path, &mint(HOST, &key("owner"), FAR_FUTURE, Some("owner")));
        let request = if if_match.is_empty() { request } else { request.header("If-Match", if_match) };
        let response = request.json(&body).send().await.expect("the hub answers");
        let status = response.status();
        (status, response.json().await.unwrap_or_default())
    }

    pub(super) fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        self.request_with(method, path, "?api-version=2021-04-12", token)
    }

    pub(super) fn request_with(&self, method: Method, path: &str, query: &str, token: &str) -> reqwest::RequestBuilder {
        let url = format!("https://localhost:{}{path}{query}", self.hub.https_addr().port());
        self.http.request(method, url).header("Authorization", token)
    }

    pub(super) async fn create(&self, id: &str) -> Value {
        let (status, device) = self.call(Method::PUT, &format!("/devices/{id}"), "", json!({"deviceId": id})).await;
        assert_eq!(status, StatusCode::OK, "{device}");
        device
    }

    pub(super) async fn patch_twin(&self, id: &str, patch: Value) -> Value {
        let (status, twin) = self.call(Method::PATCH, &format!("/twins/{id}"), "", patch).await;
        assert_eq!(status, StatusCode::OK, "{twin}");
        twin
    }

    /// The events of an Event Hub once there are this many.
    pub(super) async fn events(&self, hub: &str, count: usize) -> Vec<Arc<StoredEvent>> {
        let hub = self.namespace.hub(hub).expect("it was made with the world");
        let mut appended = hub.appended();
        let arrived = appended.wait_for(|_| hub.all().len() >= count);
        tokio::time::timeout(PATIENCE, arrived).await.expect("the events arrive").expect("the hub is there");
        hub.all()
    }

    pub(super) fn event_count(&self, hub: &str) -> usize {
        self.namespace.hub(hub).expect("it was made with the world").all().len()
    }

    /// A TLS socket to the MQTT port; `None` if the hub does not let it open.
    pub(super) async fn socket(&self) -> Option<Connection> {
        let tcp = TcpStream::connect(self.hub.mqtt_addr()).await.ok()?;
        let name = ServerName::try_from(HOST).expect("it is a name");
        Some(Framed::new(self.tls.connect(name, tcp).await.ok()?, MqttCodec))
    }

    /// Why no TLS socket to the MQTT port opens.
    pub(super) async fn tls_error(&self) -> String {
        let tcp = TcpStream::connect(self.hub.mqtt_addr()).await.expect("the hub listens");
        let name = ServerName::try_from(HOST).expect("it is a name");
        self.tls.connect(name, tcp).await.expect_err("the handshake fails").to_string()
    }

    /// Connects a device with the fleet token.
    pub(super) async fn device(&self, id: &str) -> Device {
        let (device, connack) = self.connect(connect(id, &fleet_token())).await;
        assert_eq!(connack.code, ConnectReturnCode::Accepted);
        device
    }

    /// Sends CONNECT and does not wait.
    pub(super) async fn dial(&self, packet: Connect) -> Device {
        let id = packet.client_id.to_string();
        let connection = self.socket().await.expect("the hub accepts");
        let mut device = Device { id, connection, next_pid: Pid::default() };
        device.send(packet.into()).await;
        device
    }

    pub(super) async fn connect(&self, packet: Connect) -> (Device, Connack) {
        let mut device = self.dial(packet).await;
        let Packet::Connack(connack) = device.receive().await else { panic!("the first packet is CONNACK") };
        (device, connack)
    }
}

type Connection = Framed<TlsStream<TcpStream>, MqttCodec>;

/// A CONNECT packet with clean session 1.
pub(super) fn connect(id: &str, token: &str) -> Connect {
    let mut connect = Connect::new(id.into(), 60);
    connect.username = Some(format!("{HOST}/{id}/?api-version=2021-04-12").into());
    connect.password = Some(Bytes::copy_from_slice(token.as_bytes()));
    connect
}

/// A device's connection.
pub(super) struct Device {
    id: String,
    connection: Connection,
    next_pid: Pid,
}

impl Device {
    pub(super) fn take_pid(&mut self) -> Pid {
        let pid = self.next_pid;
        self.next_pid += 1;
        pid
    }

    pub(super) async fn send(&mut self, packet: Packet) {
        self.connection.send(packet).await.expect("the socket takes the packet");
    }

    pub(super) async fn receive(&mut self) -> Packet {
        let packet = tokio::time::timeout(PATIENCE, self.connection.next()).await.expect("the hub answers");
        packet.expect("the socket is open").expect("the packet is valid")
    }

    /// Returns once the hub has closed the socket without another word.
    pub(super) async fn is_closed(&mut self) {
        let packet = tokio::time::timeout(PATIENCE, self.connection.next()).await.expect("the hub closes");
        assert!(matches!(packet, None | Some(Err(_))), "{packet:?}");
    }

    /// Returns once the hub has reset the socket.
    pub(super) async fn is_reset(&mut self) {
        let packet = tokio::time::timeout(PATIENCE, self.connection.next()).await.expect("the hub closes");
        let error = packet.expect("a reset is an error").expect_err("the hub says nothing");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }

    /// Returns after a time without a word from the hub and with the socket open.
    pub(super) async fn hears_nothing_for(&mut self, time: Duration) {
        let packet = tokio::time::timeout(time, self.connection.next()).await;
        assert!(packet.is_err(), "{packet:?}");
    }

    pub(super) fn publish(&mut self, topic: &str, qos: QoS, body: &[u8]) -> Publish {
        let qos_pid = match qos {
            QoS::Level0 => QosPid::Level0,
            QoS::Level1 => QosPid::Level1(self.take_pid()),
            QoS::Level2 => QosPid::Level2(self.take_pid()),
        };
        Publish::new(qos_pid, topic.try_into().expect("it is a topic"), Bytes::copy_from_slice(body))
    }

    /// Sends telemetry with quality 1 and a property bag, and does not wait.
    pub(super) async fn send_telemetry(&mut self, bag: &str, body: &[u8]) -> Pid {
        let topic = format!("devices/{}/messages/events/{bag}", self.id);
        let publish = self.publish(&topic, QoS::Level1, body);
        let pid = publish.qos_pid.pid().expect("quality 1 has one");
        self.send(publish.into()).await;
        pid
    }

    /// Sends telemetry and waits for its PUBACK.
    pub(super) async fn telemetry(&mut self, bag: &str, body: &[u8]) {
        let pid = self.send_telemetry(bag, body).await;
        assert_eq!(self.receive().await, Packet::Puback(pid));
    }

    pub(super) async fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Suback {
        self.send_subscribe(filters).await;
        let Packet::Suback(suback) = self.receive().await else { panic!("the next packet is SUBACK") };
        suback
    }

    /// Subscribes and does not wait.
    pub(super) async fn send_subscribe(&mut self, filters: &[(&str, QoS)]) {
        let filter = |(filter, qos): &(&str, QoS)| ((*filter).try_into().expect("it is a filter"), *qos);
        let subscribe = Subscribe::new(self.take_pid(), filters.iter().map(filter).collect());
        self.send(subscribe.into()).await;
    }

    pub(super) async fn watch_twin(&mut self) {
        self.subscribe(&[(TWIN_ANSWERS, QoS::Level0), (DESIRED_CHANGES, QoS::Level0)]).await;
    }

    /// What the hub publishes next: topic and body.
    pub(super) async fn hears(&mut self) -> (String, Bytes) {
        let Packet::Publish(publish) = self.receive().await else { panic!("the next packet is PUBLISH") };
        (publish.topic_name.to_string(), publish.payload)
    }

    /// Makes a twin request with quality 0: `GET/?$rid=…` or `PATCH/properties/reported/?$rid=…`.
    pub(super) async fn twin(&mut self, request: &str, body: &[u8]) -> (String, Bytes) {
        let publish = self.publish(&format!("$iothub/twin/{request}"), QoS::Level0, body);
        self.send(publish.into()).await;
        self.hears().await
    }

    /// Reports properties and does not wait.
    pub(super) async fn send_patch(&mut self, patch: &Value) {
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=p";
        let publish = self.publish(topic, QoS::Level0, patch.to_string().as_bytes());
        self.send(publish.into()).await;
    }

    pub(super) async fn patch(&mut self, patch: &Value) -> (String, Bytes) {
        self.twin("PATCH/properties/reported/?$rid=p", patch.to_string().as_bytes()).await
    }
}
