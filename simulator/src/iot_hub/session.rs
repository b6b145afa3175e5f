//! One MQTT connection, from CONNECT to its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use mqtt_proto::v3::{Connack, Connect, ConnectReturnCode, Packet, Publish, Suback, SubscribeReturnCode};
use mqtt_proto::{Pid, QoS, QosPid, TopicName};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::codec::Framed;

use super::accept::Socket;
use super::codec::MqttCodec;
use super::connect::Refusal;
use super::error::{Code, HubError};
use super::fault::Fault;
use super::hub::Hub;
use super::sessions::{DesiredNote, Opened};
use super::telemetry::{self, Sender};
use super::topic::{self, DESIRED_CHANGES, TWIN_ANSWERS, Topic};

/// How long a client may take to send CONNECT (`Azure/iotedge` settings of the MQTT head).
const FIRST_PACKET_TIME: Duration = Duration::from_secs(60);
/// The longest silence that the hub allows, whatever the client's keep-alive says.
const MAX_IDLE: Duration = Duration::from_secs(1767);
/// How long a closed socket is still read, so that a reset does not overtake the last packet sent.
const LINGER: Duration = Duration::from_secs(2);

type Connection = Framed<TlsStream<TcpStream>, MqttCodec>;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the device disconnected")]
    Disconnect,
    #[error("the socket ended")]
    Eof,
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
    #[error("the first packet is not CONNECT, or it came too late")]
    NoConnect,
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("the device broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("message refused: {0}")]
    Message(#[from] telemetry::Refused),
    #[error("nothing was heard for one and a half keep-alives")]
    KeepAlive,
    #[error("the token has expired")]
    Expired,
    #[error("a fault was injected")]
    Fault,
}

/// Serves a socket until it ends.
pub(super) async fn serve(hub: Arc<Hub>, socket: Socket) {
    let Socket { stream, closed } = socket;
    let mut connection = Framed::new(stream, MqttCodec);
    let opened = tokio::select! {
        () = closed.cancelled() => return,
        opened = open(&hub, &mut connection, &closed) => opened,
    };
    let end = match opened {
        Ok(mut session) => {
            let taken_away = session.opened.closed.clone();
            tokio::select! {
                biased;
                () = taken_away.cancelled() => return, // no word to the device: the hub has none for it
                end = session.run(&mut connection) => end,
            }
        }
        Err(end) => end,
    };
    tracing::debug!(reason = %end, "a device connection ends");
    if !matches!(end, End::Fault) {
        close(connection.into_inner()).await;
    }
}

/// Closes in order: what was sent arrives, even if the device is still sending.
async fn close(mut stream: TlsStream<TcpStream>) {
    let drain = async {
        stream.shutdown().await?;
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever happens now, the socket is done with.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// Waits for CONNECT and answers it.
async fn open(
    hub: &Arc<Hub>,
    connection: &mut Connection,
    socket: &tokio_util::sync::CancellationToken,
) -> Result<Session, End> {
    let first = tokio::time::timeout(FIRST_PACKET_TIME, connection.next()).await;
    let Ok(Some(Ok(Packet::Connect(packet)))) = first else { return Err(End::NoConnect) };
    if hub.fault.now() == Fault::Silent {
        hub.fault.silence_lifted().await;
        return Err(End::Fault);
    }
    match hub.connect(&packet, socket) {
        Ok((grant, opened)) => {
            let session = Session::new(hub.clone(), &packet, grant.sender, grant.expiry, opened);
            connection.send(Connack::new(session.opened.present, ConnectReturnCode::Accepted).into()).await?;
            Ok(session)
        }
        Err(refusal) => {
            tracing::debug!(client = %packet.client_id, reason = %refusal, "a connection is refused");
            connection.send(Connack::new(false, ConnectReturnCode::NotAuthorized).into()).await?;
            Err(refusal.into())
        }
    }
}

/// An open session.
struct Session {
    hub: Arc<Hub>,
    sender: Sender,
    opened: Opened,
    max_idle: Duration,
    /// When the token ends; `None` if that is beyond what a clock can hold.
    expires_at: Option<Instant>,
    next_pid: Pid,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.disconnect(&self.sender.device_id, self.opened.serial);
    }
}

impl Session {
    fn new(hub: Arc<Hub>, packet: &Connect, sender: Sender, expiry: u64, opened: Opened) -> Self {
        let max_idle = match packet.keep_alive {
            0 => MAX_IDLE,
            seconds => MAX_IDLE.min(Duration::from_secs(u64::from(seconds)) * 3 / 2),
        };
        let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0);
        let left = Duration::from_secs(expiry.saturating_sub(now));
        let expires_at = Instant::now().checked_add(left);
        Self { hub, sender, opened, max_idle, expires_at, next_pid: Pid::default() }
    }

    /// Handles packets and notes until the connection ends.
    async fn run(&mut self, connection: &mut Connection) -> End {
        loop {
            let idle_until = Instant::now() + self.max_idle;
            if let Err(end) = self.next_packet(connection, idle_until).await {
                return end;
            }
        }
    }

    /// Handles one packet, and the notes that come before it.
    async fn next_packet(&mut self, connection: &mut Connection, idle_until: Instant) -> Result<(), End> {
        let deadline = self.expires_at.map_or(idle_until, |expiry| expiry.min(idle_until));
        loop {
            tokio::select! {
                packet = connection.next() => {
                    let packet = packet.ok_or(End::Eof)??;
                    // While the hub is silent, what arrives is lost.
                    return if self.is_silent() { Ok(()) } else { self.handle(packet, connection).await };
                }
                Some(note) = self.opened.notes.recv() => self.tell(note, connection).await?,
                () = tokio::time::sleep_until(deadline) => {
                    return Err(if deadline < idle_until { End::Expired } else { End::KeepAlive });
                }
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.hub.fault.now() == Fault::Silent
    }

    async fn handle(&mut self, packet: Packet, connection: &mut Connection) -> Result<(), End> {
        let (id, serial) = (&self.sender.device_id, self.opened.serial);
        match packet {
            Packet::Publish(publish) => return self.publish(publish, connection).await,
            Packet::Subscribe(subscribe) => {
                let grant =
                    |(filter, qos): &(mqtt_proto::TopicFilter, QoS)| match self.hub.subscribe(id, serial, filter, *qos)
                    {
                        Some(QoS::Level0) => SubscribeReturnCode::MaxLevel0,
                        Some(_) => SubscribeReturnCode::MaxLevel1,
                        None => SubscribeReturnCode::Failure,
                    };
                let granted = subscribe.topics.iter().map(grant).collect();
                connection.send(Suback::new(subscribe.pid, granted).into()).await?;
            }
            Packet::Unsubscribe(unsubscribe) => {
                unsubscribe.topics.iter().for_each(|filter| self.hub.unsubscribe(id, serial, filter));
                connection.send(Packet::Unsuback(unsubscribe.pid)).await?;
            }
            Packet::Pingreq => connection.send(Packet::Pingresp).await?,
            Packet::Puback(_) => {} // nothing is sent again in this session, so nothing waits for it
            Packet::Disconnect => return Err(End::Disconnect),
            _ => return Err(End::Protocol("a packet that a device may not send now")),
        }
        Ok(())
    }

    async fn publish(&mut self, publish: Publish, connection: &mut Connection) -> Result<(), End> {
        if matches!(publish.qos_pid, QosPid::Level2(_)) {
            return Err(End::Protocol("a publish with quality of service 2"));
        }
        let answer = match Topic::parse(&publish.topic_name, &self.sender.device_id) {
            None => return Err(End::Protocol("an unknown topic, or a property bag that cannot be read")),
            Some(Topic::Telemetry(bag)) => {
                let fault = self.hub.fault.now();
                if fault == Fault::CloseBeforePuback {
                    return Err(End::Fault);
                }
                self.hub.store(bag, publish.payload, publish.retain, &self.sender)?;
                if fault == Fault::LosePuback {
                    return Err(End::Fault);
                }
                None
            }
            Some(Topic::ReadTwin { rid }) => Some(self.read_twin(rid)),
            Some(Topic::PatchTwin { rid, if_version }) => {
                let answer = self.patch_twin(rid.unwrap_or_default(), if_version, &publish.payload);
                rid.map(|_| answer)
            }
        };
        if let QosPid::Level1(pid) = publish.qos_pid {
            connection.send(Packet::Puback(pid)).await?;
        }
        match answer {
            Some((topic, body)) => self.send_if_subscribed(TWIN_ANSWERS, &topic, body, connection).await,
            None => Ok(()),
        }
    }

    fn read_twin(&self, rid: &str) -> (String, Bytes) {
        match self.not_throttled().and_then(|()| self.hub.read_own_twin(&self.sender.device_id)) {
            Ok(twin) => (topic::twin_answer(200, rid, None), twin.to_string().into()),
            Err(error) => twin_refusal(rid, &error),
        }
    }

    fn patch_twin(&self, rid: &str, if_version: Option<&str>, patch: &[u8]) -> (String, Bytes) {
        match self.not_throttled().and_then(|()| self.hub.report(&self.sender.device_id, patch, if_version)) {
            Ok(version) => (topic::twin_answer(204, rid, Some(version)), Bytes::new()),
            Err(error) => twin_refusal(rid, &error),
        }
    }

    fn not_throttled(&self) -> Result<(), HubError> {
        match self.hub.fault.now() {
            Fault::ThrottleTwin => Err(HubError::new(Code::ThrottlingException, "too many twin operations")),
            _ => Ok(()),
        }
    }

    async fn tell(&mut self, note: DesiredNote, connection: &mut Connection) -> Result<(), End> {
        if self.is_silent() {
            return Ok(());
        }
        let topic = topic::desired_change(note.version);
        self.send_if_subscribed(DESIRED_CHANGES, &topic, note.body.into(), connection).await
    }

    /// Publishes to the device at the quality of its subscription; without one it gets nothing.
    async fn send_if_subscribed(
        &mut self,
        filter: &str,
        topic: &str,
        body: Bytes,
        connection: &mut Connection,
    ) -> Result<(), End> {
        let Some(quality) = self.hub.quality(&self.sender.device_id, filter) else { return Ok(()) };
        let qos_pid = match quality {
            QoS::Level0 => QosPid::Level0,
            _ => QosPid::Level1(self.next_pid),
        };
        self.next_pid += 1;
        let topic = TopicName::try_from(topic).map_err(|_| End::Protocol("a request id that fits no topic"))?;
        Ok(connection.send(Publish::new(qos_pid, topic, body).into()).await?)
    }
}

fn twin_refusal(rid: &str, error: &HubError) -> (String, Bytes) {
    let body = error.twin_body(OffsetDateTime::now_utc()).to_string();
    (topic::twin_answer(error.code.status().as_u16(), rid, None), body.into())
}
