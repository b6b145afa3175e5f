//! A hub that does what the test tells it, packet by packet and request by request.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish};
use rustls::HandshakeKind;
use simulator::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{HubConfig, Pipeline, PolicyKey, ServiceAuth, Sku};
use crate::ids::{ApplicationId, DevicePrefix};
use crate::iot_hub::IotHub;

/// Far longer than any step takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One read takes a whole TLS record.
const READ_BYTES: usize = 16 * 1024;

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes soon")
}

/// Both ends of a hub: MQTT and the service API.
pub(super) struct ScriptedHub {
    mqtt: TcpListener,
    rest: TcpListener,
    acceptor: TlsAcceptor,
    ca_file: PathBuf,
}

impl ScriptedHub {
    pub(super) async fn start() -> Self {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let tls = Tls::new(&[]).expect("a certificate");
        let file = format!("scripted-hub-{}-{}.pem", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
        let ca_file = std::env::temp_dir().join(file);
        std::fs::write(&ca_file, tls.ca_pem()).expect("write the root");
        Self {
            mqtt: TcpListener::bind("127.0.0.1:0").await.expect("bind"),
            rest: TcpListener::bind("127.0.0.1:0").await.expect("bind"),
            acceptor: TlsAcceptor::from(tls.server_config().expect("a configuration")),
            ca_file,
        }
    }

    pub(super) fn client(&self) -> IotHub {
        self.client_with(|_| ())
    }

    pub(super) fn client_with(&self, edit: impl FnOnce(&mut HubConfig)) -> IotHub {
        let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        let mut config = HubConfig {
            hostname: "sim.azure-devices.net".to_owned(),
            dial_host: "localhost".to_owned(),
            mqtt_port: port(&self.mqtt),
            https_port: port(&self.rest),
            ca_file: Some(self.ca_file.clone()),
            policy_name: "bridge".to_owned(),
            policy_key: Arc::new(PolicyKey::new(b"0123456789abcdef".to_vec().into_boxed_slice())),
            service_auth: ServiceAuth::Policy,
            device_prefix: DevicePrefix::default(),
            pipeline: Pipeline::Connack,
            sku: Sku::S3,
            units: 1,
            session_linger: Duration::from_secs(5),
        };
        edit(&mut config);
        IotHub::new(&config, &ApplicationId::parse("barn").expect("valid")).expect("a client")
    }

    /// The next connection, without TLS.
    pub(super) async fn accept_tcp(&self) -> TcpStream {
        soon(self.mqtt.accept()).await.expect("a connection").0
    }

    /// The next connection, with its CONNECT.
    pub(super) async fn accept(&self) -> (Peer, Connect) {
        let tcp = self.accept_tcp().await;
        tcp.set_nodelay(true).expect("nodelay");
        let stream = soon(self.acceptor.accept(tcp)).await.expect("TLS");
        let mut peer = Peer { stream, unread: BytesMut::with_capacity(READ_BYTES) };
        let Packet::Connect(connect) = peer.one().await else { panic!("the first packet is no CONNECT") };
        (peer, connect)
    }

    /// The next session, accepted.
    pub(super) async fn welcome(&self) -> Peer {
        let (mut peer, _) = self.accept().await;
        peer.connack(ConnectReturnCode::Success).await;
        peer
    }

    /// Whether no connection comes for a while.
    pub(super) async fn is_left_alone(&self) -> bool {
        timeout(Duration::from_millis(100), self.mqtt.accept()).await.is_err()
    }

    /// Whether no call of the service API comes for a while.
    pub(super) async fn is_not_asked(&self) -> bool {
        timeout(Duration::from_millis(100), self.rest.accept()).await.is_err()
    }

    /// Takes one call of the service API and answers it.
    pub(super) async fn answer_call(&self, status: u16, headers: &str, body: &str) -> Request {
        let tcp = soon(self.rest.accept()).await.expect("a connection").0;
        let mut stream = soon(self.acceptor.accept(tcp)).await.expect("TLS");
        let request = soon(Request::read(&mut stream)).await;
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        stream.write_all(answer.as_bytes()).await.expect("write");
        stream.shutdown().await.expect("shut down");
        request
    }
}

impl Drop for ScriptedHub {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

/// One call of the service API.
pub(super) struct Request {
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
}

impl Request {
    async fn read(stream: &mut TlsStream<TcpStream>) -> Self {
        let mut bytes = BytesMut::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
                if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                    let line = text.split(" HTTP").next().unwrap_or_default().to_owned();
                    return Self { line, head, body: body.to_owned() };
                }
            }
            assert_ne!(stream.read_buf(&mut bytes).await.expect("read"), 0, "the request ends too early");
        }
    }
}

/// The hub's end of one session.
pub(super) struct Peer {
    stream: TlsStream<TcpStream>,
    unread: BytesMut,
}

impl Peer {
    /// What one read gives: everything that was written at once.
    pub(super) async fn read(&mut self) -> Vec<Packet> {
        if self.unread.is_empty() {
            self.unread.reserve(READ_BYTES);
            soon(self.stream.read_buf(&mut self.unread)).await.expect("read");
        }
        std::iter::from_fn(|| Packet::read(&mut self.unread, usize::MAX).ok()).collect()
    }

    async fn one(&mut self) -> Packet {
        while self.unread.len() < 2 {
            soon(self.stream.read_buf(&mut self.unread)).await.expect("read");
        }
        Packet::read(&mut self.unread, usize::MAX).expect("a whole packet")
    }

    /// Whether more came with the read that was looked at last.
    pub(super) fn has_more(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The PUBLISH packets of one read.
    pub(super) async fn publishes(&mut self) -> Vec<Publish> {
        let packets = self.read().await;
        packets
            .into_iter()
            .filter_map(|packet| if let Packet::Publish(it) = packet { Some(it) } else { None })
            .collect()
    }

    /// Whether nothing comes for a while.
    pub(super) async fn is_quiet(&mut self) -> bool {
        self.unread.is_empty()
            && timeout(Duration::from_millis(100), self.stream.read_buf(&mut self.unread)).await.is_err()
    }

    /// Whether the client has hung up.
    pub(super) async fn has_ended(&mut self) -> bool {
        matches!(soon(self.stream.read_buf(&mut self.unread)).await, Ok(0) | Err(_))
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("write");
        self.stream.flush().await.expect("flush");
    }

    pub(super) async fn send(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, usize::MAX).expect("encode");
        self.write(&out).await;
    }

    pub(super) async fn connack(&mut self, code: ConnectReturnCode) {
        self.send(Packet::ConnAck(ConnAck::new(code, true))).await;
    }

    pub(super) async fn puback(&mut self, message: &Publish) {
        self.send(Packet::PubAck(PubAck::new(message.pkid))).await;
    }

    /// Answers a twin request, with `$version` if there is one.
    pub(super) async fn answer_twin(&mut self, request: &Publish, status: u16, version: Option<u64>, body: &str) {
        let rid = rid(request);
        let version = version.map_or_else(String::new, |version| format!("&$version={version}"));
        let topic = format!("$iothub/twin/res/{status}/?$rid={rid}{version}");
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.send(Packet::Publish(Publish::from_bytes(topic, QoS::AtMostOnce, body))).await;
    }
}

fn rid(request: &Publish) -> &str {
    let rid = request.topic.split_once("$rid=").expect("a request id").1;
    rid.split('&').next().unwrap_or(rid)
}
