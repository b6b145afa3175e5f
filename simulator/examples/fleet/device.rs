//! One device: connect, send, report, stay, leave.

use std::time::Duration;

use bytes::Bytes;
use mqtt_proto::v3::{Connect, ConnectReturnCode, Packet, Publish, Subscribe};
use mqtt_proto::{Pid, QoS, QosPid};
use rustls_pki_types::ServerName;
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::client::TlsStream;

use super::Failure;
use super::hub::Hub;

/// How long one step may take: more than any answer under load.
const STEP_TIME: Duration = Duration::from_secs(60);
/// Longer than a wave takes, so that no device has to send a PINGREQ.
const KEEP_ALIVE_SECONDS: u16 = 1177;

/// An open session.
pub(crate) struct Session {
    stream: BufStream<TlsStream<TcpStream>>,
}

/// Opens a session; returns once telemetry and patch are answered.
pub(crate) async fn open(hub: &Hub, id: &str, handshakes: &Semaphore) -> Result<Session, Failure> {
    let mut session = {
        let _turn = handshakes.acquire().await?;
        within(connect(hub, id)).await?
    };
    let filter = "$iothub/twin/res/#".try_into()?;
    session.send(Subscribe::new(Pid::try_from(1)?, vec![(filter, QoS::Level0)]).into()).await?;
    session.publish(&format!("devices/{id}/messages/events/"), 2, br#"{"temperature":21.5}"#).await?;
    session.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", 3, br#"{"temperature":21.5}"#).await?;
    within(session.answers()).await?;
    Ok(session)
}

async fn connect(hub: &Hub, id: &str) -> Result<Session, Failure> {
    let tcp = TcpStream::connect((hub.mqtt.0.as_str(), hub.mqtt.1)).await?;
    let tls = hub.tls.connect(ServerName::try_from(hub.name.clone())?, tcp).await?;
    let mut session = Session { stream: BufStream::new(tls) };
    let mut connect = Connect::new(id.into(), KEEP_ALIVE_SECONDS);
    connect.username = Some(format!("{}/{id}/?api-version=2021-04-12", hub.name).into());
    connect.password = Some(Bytes::copy_from_slice(hub.fleet_token.as_bytes()));
    session.send(connect.into()).await?;
    match session.receive().await? {
        Packet::Connack(connack) if connack.code == ConnectReturnCode::Accepted => Ok(session),
        other => Err(format!("refused: {other:?}").into()),
    }
}

async fn within<T>(step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(STEP_TIME, step).await.map_err(|_| "no answer in time")?
}

impl Session {
    async fn send(&mut self, packet: Packet) -> Result<(), Failure> {
        use tokio::io::AsyncWriteExt as _;
        packet.encode_async(&mut self.stream).await?;
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> Result<Packet, Failure> {
        Ok(Packet::decode_async(&mut self.stream).await?)
    }

    async fn publish(&mut self, topic: &str, pid: u16, body: &'static [u8]) -> Result<(), Failure> {
        let qos_pid = QosPid::Level1(Pid::try_from(pid)?);
        self.send(Publish::new(qos_pid, topic.try_into()?, Bytes::from_static(body)).into()).await
    }

    /// Waits for SUBACK, both PUBACKs and the answer to the patch, in any order.
    async fn answers(&mut self) -> Result<(), Failure> {
        let (mut subscribed, mut acknowledged, mut patched) = (false, 0, false);
        while !(subscribed && acknowledged == 2 && patched) {
            match self.receive().await? {
                Packet::Suback(_) => subscribed = true,
                Packet::Puback(_) => acknowledged += 1,
                Packet::Publish(answer) if answer.topic_name.starts_with("$iothub/twin/res/204/") => patched = true,
                other => return Err(format!("not expected: {other:?}").into()),
            }
        }
        Ok(())
    }

    /// Says goodbye and waits for the hub to close.
    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        self.send(Packet::Disconnect).await?;
        match within(self.receive()).await {
            Ok(packet) => Err(format!("after DISCONNECT: {packet:?}").into()),
            Err(_) => Ok(()),
        }
    }
}
