//! One MQTT connection, from CONNECT to its end.

mod devicebound;
mod publish;

use std::collections::HashMap;
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

use super::accept::{self, Socket};
use super::codec::MqttCodec;
use super::connect::{Grant, Refusal};
use super::devicebound::Token;
use super::fault::Fault;
use super::hub::Hub;
use super::injected_fault::Kind;
use super::limits::{Excess, Operation};
use super::sessions::Opened;
use super::telemetry::{self, Sender};
use super::will::Will;
use crate::faults::{Fate, Stage, Strike, play};

/// How long a client may take to send CONNECT (`Azure/iotedge` settings of the MQTT head).
const FIRST_PACKET_TIME: Duration = Duration::from_secs(60);
/// The longest silence that the hub allows, whatever the client's keep-alive says.
const MAX_IDLE: Duration = Duration::from_secs(1767);
/// How long a device may read nothing while the hub has something to send: the simulator's own choice.
const SEND_TIME: Duration = Duration::from_secs(60);
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
    #[error("the device does not read")]
    DoesNotRead,
    #[error("the token has expired")]
    Expired,
    #[error("CONNECT was answered {0:?}")]
    TurnedAway(ConnectReturnCode),
    #[error("{0}")]
    Excess(#[from] Excess),
    #[error("a fault was injected")]
    Fault,
    #[error("the device ordered this fault: {0:?}")]
    Ordered(Kind),
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
    match end {
        End::Fault | End::Ordered(Kind::KillTcp) => {}
        // A used-up day shows as a reset socket (`Azure/azure-iot-sdk-python#735`).
        End::Excess(Excess::Quota) | End::Ordered(Kind::MaxMessageQuota) => {
            if let Err(error) = connection.get_ref().get_ref().0.set_zero_linger() {
                tracing::debug!(%error, "the socket is closed in order, not reset");
            }
        }
        _ => close(connection.into_inner()).await,
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
    let device = Some(&*packet.client_id);
    if !goes_on(hub.faults.at(Stage::Connect, device)).await? {
        accept::ignore::<()>(connection.get_mut()).await;
        return Err(End::Eof);
    }
    let strike = hub.faults.at(Stage::Connack, device);
    if let Some(code) = turned_away(hub, strike).await {
        send(connection, Connack::new(false, code).into()).await?;
        return Err(End::TurnedAway(code));
    }
    let session = hub.connect(&packet, socket).map(|(grant, opened)| Session::new(hub.clone(), &packet, grant, opened));
    let connack = match &session {
        Ok(session) => Some(Connack::new(session.opened.present, ConnectReturnCode::Accepted)),
        Err(refusal) => {
            tracing::debug!(client = %packet.client_id, reason = %refusal, "a connection is refused");
            refusal.code().map(|code| Connack::new(false, code))
        }
    };
    if goes_on(strike).await? {
        if let Some(connack) = connack {
            send(connection, connack.into()).await?;
        }
    } else if session.is_err() {
        accept::ignore::<()>(connection.get_mut()).await;
    }
    Ok(session?)
}

/// The answer to a CONNECT that is not looked at. Code 3 for too many connections is what production has been seen to say
/// (`Azure/azure-iot-sdk-csharp#1485`).
async fn turned_away(hub: &Hub, strike: Option<Strike>) -> Option<ConnectReturnCode> {
    match strike {
        Some(Strike::Refuse) => {
            hub.counters.connects_refused.add();
            Some(ConnectReturnCode::NotAuthorized)
        }
        Some(Strike::Throttle) => Some(ConnectReturnCode::ServerUnavailable),
        _ => hub.admit(Operation::Connect, 1).await.err().map(|_| ConnectReturnCode::ServerUnavailable),
    }
}

/// Sends a packet, unless the device does not read.
async fn send(connection: &mut Connection, packet: Packet) -> Result<(), End> {
    let sent = tokio::time::timeout(SEND_TIME, connection.send(packet)).await;
    Ok(sent.map_err(|_| End::DoesNotRead)??)
}

/// Lets a strike happen. Returns whether the exchange goes on.
async fn goes_on(strike: Option<Strike>) -> Result<bool, End> {
    match play(strike).await {
        Fate::GoesOn => Ok(true),
        Fate::Silence => Ok(false),
        Fate::Closed => Err(End::Fault),
    }
}

/// An open session.
struct Session {
    hub: Arc<Hub>,
    sender: Sender,
    opened: Opened,
    max_idle: Duration,
    /// When the token ends, by the hub's clock; `None` if that is beyond what a clock can hold.
    expires_at: Option<OffsetDateTime>,
    /// The fault that the device has ordered, and when the connection falls.
    ordered: Option<(Kind, OffsetDateTime)>,
    has_twin: bool,
    /// Sent when the connection ends without DISCONNECT.
    will: Option<Will>,
    next_pid: Pid,
    /// The cloud-to-device messages on their way, by packet id.
    deliveries: HashMap<Pid, Token>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(will) = self.will.take() {
            self.hub.execute(will, &self.sender);
        }
        self.hub.disconnect(&self.sender.device_id, self.opened.serial);
    }
}

impl Session {
    fn new(hub: Arc<Hub>, packet: &Connect, grant: Grant, opened: Opened) -> Self {
        let max_idle = match packet.keep_alive {
            0 => MAX_IDLE,
            seconds => MAX_IDLE.min(Duration::from_secs(u64::from(seconds)) * 3 / 2),
        };
        let expires_at = i64::try_from(grant.expiry).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        Self {
            hub,
            sender: grant.sender,
            opened,
            max_idle,
            expires_at,
            ordered: None,
            has_twin: grant.has_twin,
            will: grant.will,
            next_pid: Pid::default(),
            deliveries: HashMap::new(),
        }
    }

    /// Handles packets and notes until the connection ends.
    async fn run(&mut self, connection: &mut Connection) -> End {
        // A kept session has its subscription already.
        self.opened.mail.notify_one();
        let hub = self.hub.clone();
        loop {
            let (expires_at, ordered) = (self.expires_at, self.ordered);
            // These two do not wait for a packet that is being handled.
            tokio::select! {
                handled = self.next_packet(connection) => if let Err(end) = handled {
                    return end;
                },
                () = reached(&hub, ordered.map(|(_, at)| at)) => {
                    return ordered.map_or(End::Fault, |(kind, _)| End::Ordered(kind));
                }
                () = reached(&hub, expires_at) => return End::Expired,
            }
        }
    }

    /// Handles one packet, and the notes that come before it.
    async fn next_packet(&mut self, connection: &mut Connection) -> Result<(), End> {
        let idle_until = Instant::now() + self.max_idle;
        let mail = self.opened.mail.clone();
        loop {
            tokio::select! {
                packet = connection.next() => {
                    let packet = packet.ok_or(End::Eof)??;
                    // While the hub is silent, what arrives is lost.
                    return if self.is_silent() { Ok(()) } else { self.handle(packet, connection).await };
                }
                Some(note) = self.opened.notes.recv() => self.tell(note, connection).await?,
                () = mail.notified() => self.deliver(connection).await?,
                () = tokio::time::sleep_until(idle_until) => return Err(End::KeepAlive),
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
                let strike = self.strike(Stage::Suback);
                let subscribe_to = |filter: &mqtt_proto::TopicFilter, qos| match strike {
                    Some(Strike::Refuse) => None,
                    _ => self.hub.subscribe(id, serial, filter, qos),
                };
                let grant = |(filter, qos): &(mqtt_proto::TopicFilter, QoS)| match subscribe_to(filter, *qos) {
                    Some(QoS::Level0) => SubscribeReturnCode::MaxLevel0,
                    Some(_) => SubscribeReturnCode::MaxLevel1,
                    None => SubscribeReturnCode::Failure,
                };
                let granted = subscribe.topics.iter().map(grant).collect();
                if strike == Some(Strike::Refuse) || goes_on(strike).await? {
                    send(connection, Suback::new(subscribe.pid, granted).into()).await?;
                }
            }
            Packet::Unsubscribe(unsubscribe) => {
                unsubscribe.topics.iter().for_each(|filter| self.hub.unsubscribe(id, serial, filter));
                send(connection, Packet::Unsuback(unsubscribe.pid)).await?;
            }
            Packet::Pingreq => send(connection, Packet::Pingresp).await?,
            Packet::Puback(pid) => self.acknowledged(pid),
            Packet::Disconnect => {
                self.will = None;
                goes_on(self.strike(Stage::Disconnect)).await?;
                return Err(End::Disconnect);
            }
            _ => return Err(End::Protocol("a packet that a device may not send now")),
        }
        Ok(())
    }

    /// What happens to an exchange of this device that has come to a stage.
    fn strike(&self, stage: Stage) -> Option<Strike> {
        self.hub.faults.at(stage, Some(&self.sender.device_id))
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
        let qos_pid = self.next_qos_pid(quality);
        let topic = TopicName::try_from(topic).map_err(|_| End::Protocol("a request id that fits no topic"))?;
        send(connection, Publish::new(qos_pid, topic, body).into()).await
    }

    fn next_qos_pid(&mut self, quality: QoS) -> QosPid {
        if quality == QoS::Level0 {
            return QosPid::Level0;
        }
        let pid = self.next_pid;
        self.next_pid += 1;
        QosPid::Level1(pid)
    }
}

/// Returns once the hub's clock shows this time; never without one.
async fn reached(hub: &Hub, at: Option<OffsetDateTime>) {
    match at {
        Some(at) => hub.clock.reaches(at).await,
        None => std::future::pending().await,
    }
}
