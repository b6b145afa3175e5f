//! One MQTT session of one device, as a state machine without I/O: packets in, bytes out.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Disconnect, Packet, PubAck, Publish, Subscribe, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error as CodecError, QoS};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::debug;

use super::ask::{Queue, TelemetryAsk, TwinAsk};
use super::error::code_of;
use super::topic::{self, TwinStatus};
use super::{HubError, TwinAnswer, TwinCall};
use crate::config::Pipeline;
use crate::ids::DeviceId;

/// Largest packet taken from the hub. A twin has at most 64 KB of values in both its sections; their JSON, with metadata
/// left out, stays well below this.
const MAX_PACKET_BYTES: usize = 256 * 1024;

/// Keep-alive of the session. It never comes to a PINGREQ: an idle session ends long before.
const KEEP_ALIVE_S: u16 = 240;

/// Messages under way without PUBACK: past 16 the hub's gateway stops reading
/// (`Azure/azure-iot-protocol-gateway src/ProtocolGateway.Core/Mqtt/MqttAdapter.cs`).
const MAX_UNACKNOWLEDGED: usize = 16;

/// A hub that owes an answer and says nothing for so long is taken for dead. Longer than a webhook's budget, so that a
/// slow hub is not answered with a second connection.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// The next twin request waits so long for the answer to one whose caller has given up, and so does the end of the session:
/// the hub may still be at work on a patch that the next session's would overtake.
pub(super) const TWIN_PATIENCE: Duration = Duration::from_secs(5);

/// Version of the device API (`MicrosoftDocs/azure-docs articles/iot/iot-mqtt-connect-to-iot-hub.md`).
const API_VERSION: &str = "2021-04-12";

/// Why a session cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// CONNACK with this code.
    Refused(u8),
    /// The hub sent what MQTT does not allow, or nothing where it owes an answer.
    Fault(String),
}

/// The twin request under way. Two at once may be executed in either order (`Azure/azure-iot-sdk-c#1432`).
struct TwinUnderWay {
    rid: u32,
    sent: Instant,
    /// Gone when its caller gave up; its answer is still waited for.
    ask: Option<TwinAsk>,
}

/// One session, from CONNECT to DISCONNECT.
pub(super) struct Session {
    device: DeviceId,
    /// The id of its identity in the hub.
    identity: String,
    pipeline: Pipeline,
    accepted: bool,
    subscribed: bool,
    last_packet_id: u16,
    last_rid: u32,
    unacknowledged: BTreeMap<u16, TelemetryAsk>,
    twin: Option<TwinUnderWay>,
    silent_since: Option<Instant>,
    /// What has to be written to the hub.
    pub(super) out: BytesMut,
}

impl Session {
    /// A session whose first packet, CONNECT, is ready to be written.
    pub(super) fn new(
        device: &DeviceId,
        identity: String,
        hostname: &str,
        token: &SecretString,
        pipeline: Pipeline,
        now: Instant,
    ) -> Result<Self, CodecError> {
        let mut connect = Connect::new(identity.as_str());
        connect.keep_alive = KEEP_ALIVE_S;
        // A clean session would throw away what the cloud has queued for the device.
        connect.clean_session = false;
        connect.set_login(format!("{hostname}/{identity}/?api-version={API_VERSION}"), token.expose_secret());
        let mut out = BytesMut::with_capacity(connect.size());
        connect.write(&mut out)?;
        Ok(Self {
            device: device.clone(),
            identity,
            pipeline,
            accepted: false,
            subscribed: false,
            last_packet_id: 0,
            last_rid: rand::random(),
            unacknowledged: BTreeMap::new(),
            twin: None,
            silent_since: Some(now),
            out,
        })
    }

    /// Whether the hub has accepted the session.
    pub(super) fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Whether an answer is still waited for by someone.
    pub(super) fn is_busy(&self) -> bool {
        !self.unacknowledged.is_empty() || self.twin.as_ref().is_some_and(|twin| twin.ask.is_some())
    }

    /// Until when the answer to a twin request is awaited whose caller has given up.
    pub(super) fn awaits_twin(&self) -> Option<Instant> {
        self.twin.as_ref().filter(|twin| twin.ask.is_none()).map(|twin| twin.sent + TWIN_PATIENCE)
    }

    /// Forgets callers that have given up. Their late answers are ignored.
    pub(super) fn prune(&mut self, now: Instant) {
        self.unacknowledged.retain(|_, ask| ask.is_wanted(now));
        if let Some(twin) = &mut self.twin {
            twin.ask.take_if(|ask| !ask.is_wanted(now));
            if twin.ask.is_none() && now >= twin.sent + TWIN_PATIENCE {
                self.twin = None;
            }
        }
    }

    /// Since when the hub owes a sign of life, if that is too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_since.is_some_and(|since| now >= since + SILENCE_LIMIT)
    }

    /// When to look again, if nothing happens before.
    pub(super) fn next_look(&self, queue: &Queue) -> Option<Instant> {
        let acknowledged = self.unacknowledged.values().map(|ask| ask.deadline).min();
        let answered = self.twin.as_ref().map(|twin| match &twin.ask {
            Some(ask) => ask.deadline,
            None => twin.sent + TWIN_PATIENCE,
        });
        let slot = queue.twins.front().and_then(|ask| ask.slot).filter(|_| self.may_post() && self.twin.is_none());
        let silence = self.silent_since.map(|since| since + SILENCE_LIMIT);
        [queue.next_deadline(), acknowledged, answered, slot, silence].into_iter().flatten().min()
    }

    fn may_post(&self) -> bool {
        self.accepted || self.pipeline == Pipeline::Connect
    }

    /// Turns what may leave now into bytes: the subscription if it is needed, telemetry, one twin request.
    pub(super) fn post(&mut self, queue: &mut Queue, now: Instant) -> Result<(), CodecError> {
        if !self.may_post() {
            return Ok(());
        }
        let twin = self.next_twin(queue, now);
        if twin.is_some() && !self.subscribed {
            let mut subscribe = Subscribe::new(topic::TWIN_ANSWERS, QoS::AtMostOnce);
            subscribe.pkid = self.next_packet_id();
            subscribe.write(&mut self.out)?;
            self.subscribed = true;
        }
        while self.unacknowledged.len() < MAX_UNACKNOWLEDGED
            && let Some(ask) = queue.telemetry.pop_front()
        {
            self.post_telemetry(ask, now)?;
        }
        if let Some(ask) = twin {
            self.post_twin(ask, now)?;
        }
        Ok(())
    }

    fn post_telemetry(&mut self, ask: TelemetryAsk, now: Instant) -> Result<(), CodecError> {
        let topic = topic::telemetry_topic(&self.identity, &ask.what);
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, ask.what.body.clone());
        publish.pkid = self.next_packet_id();
        publish.write(&mut self.out)?;
        self.unacknowledged.insert(publish.pkid, ask);
        self.silent_since.get_or_insert(now);
        Ok(())
    }

    fn post_twin(&mut self, ask: TwinAsk, now: Instant) -> Result<(), CodecError> {
        self.last_rid = self.last_rid.wrapping_add(1);
        let payload = match &ask.what {
            // An empty body may be refused by a proxy between; every SDK sends one space.
            TwinCall::Read => Bytes::from_static(b" "),
            TwinCall::Patch { reported, .. } => {
                Bytes::from(serde_json::to_vec(reported).map_err(|_| CodecError::PayloadSizeIncorrect)?)
            }
        };
        let topic = topic::twin_topic(&ask.what, self.last_rid);
        Publish::from_bytes(topic, QoS::AtMostOnce, payload).write(&mut self.out)?;
        self.twin = Some(TwinUnderWay { rid: self.last_rid, sent: now, ask: Some(ask) });
        self.silent_since.get_or_insert(now);
        Ok(())
    }

    /// The next twin request, if none is under way and the pacer lets it go.
    fn next_twin(&self, queue: &mut Queue, now: Instant) -> Option<TwinAsk> {
        while self.twin.is_none() {
            let ask = queue.twins.front_mut()?;
            if ask.slot.is_none() {
                ask.slot = ask.rate().reserve(now, ask.deadline);
            }
            let slot = ask.slot;
            if slot.is_some_and(|slot| slot > now) {
                return None;
            }
            let ask = queue.twins.pop_front()?;
            if slot.is_some() {
                return Some(ask);
            }
            ask.done(Err(HubError::Paced { device: self.device.clone(), what: "twin request" }));
        }
        None
    }

    fn next_packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        self.last_packet_id
    }

    /// Takes every whole packet out of what was read.
    pub(super) fn take_all(&mut self, incoming: &mut BytesMut, now: Instant) -> Result<(), Broken> {
        loop {
            match Packet::read(incoming, MAX_PACKET_BYTES) {
                Ok(packet) => self.take(packet, now)?,
                Err(CodecError::InsufficientBytes(_)) => return Ok(()),
                Err(error) => return Err(Broken::Fault(format!("the hub sent a broken packet: {error}"))),
            }
        }
    }

    fn take(&mut self, packet: Packet, now: Instant) -> Result<(), Broken> {
        match packet {
            Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, .. }) if !self.accepted => {
                debug!(device = %self.device, "session accepted");
                self.accepted = true;
            }
            Packet::ConnAck(ConnAck { code, .. }) if !self.accepted => return Err(Broken::Refused(code as u8)),
            _ if !self.accepted => return Err(Broken::Fault("the hub's first packet is no CONNACK".to_owned())),
            Packet::PubAck(PubAck { pkid }) => self.acknowledged(pkid),
            Packet::Publish(publish) => self.published(publish, now)?,
            Packet::SubAck(ack) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                return Err(Broken::Fault("the hub refused the subscription to twin answers".to_owned()));
            }
            Packet::SubAck(_) | Packet::PingResp => {}
            other => return Err(Broken::Fault(format!("the hub sent an unexpected packet: {}", name_of(&other)))),
        }
        self.silent_since = self.owes().then_some(now);
        Ok(())
    }

    /// Whether the hub owes an answer.
    fn owes(&self) -> bool {
        !self.unacknowledged.is_empty() || self.twin.is_some()
    }

    fn acknowledged(&mut self, packet_id: u16) {
        // Unknown ids are those of callers that have given up.
        if let Some(ask) = self.unacknowledged.remove(&packet_id) {
            debug!(device = %self.device, message_id = ask.what.message_id, "telemetry acknowledged");
            ask.done(Ok(()));
        }
    }

    fn published(&mut self, publish: Publish, now: Instant) -> Result<(), Broken> {
        // Whatever else arrives is for another client of this device, whose subscriptions we inherit with its session.
        // It is not acknowledged: that would take a cloud-to-device message off its queue.
        if !topic::is_twin_answer(&publish.topic) {
            return Ok(());
        }
        if publish.qos == QoS::AtLeastOnce {
            let acknowledge = PubAck::new(publish.pkid).write(&mut self.out);
            acknowledge.map_err(|error| Broken::Fault(error.to_string()))?;
        }
        let status = topic::twin_status(&publish.topic);
        let answered = self.twin.take_if(|twin| status.is_some_and(|status| status.rid == twin.rid));
        if let (Some(TwinUnderWay { ask: Some(ask), .. }), Some(status)) = (answered, status) {
            debug!(device = %self.device, status = status.status, "twin answered");
            match status.status {
                429 => ask.rate().refused(now),
                _ => ask.rate().granted(),
            }
            let answer = twin_answer(&self.device, &ask.what, status, &publish.payload);
            ask.done(answer);
        }
        Ok(())
    }

    /// Puts what was not answered back to the front of the queue, in its order.
    pub(super) fn rescue(&mut self, queue: &mut Queue) {
        // Packet ids rise in one session, unless 65 535 messages wrapped them: then the order of two messages may change.
        for (_, ask) in std::mem::take(&mut self.unacknowledged).into_iter().rev() {
            queue.telemetry.push_front(ask);
        }
        if let Some(ask) = self.twin.take().and_then(|twin| twin.ask) {
            queue.twins.push_front(ask);
        }
    }

    /// Makes DISCONNECT the session's last packet.
    pub(super) fn end(&mut self) -> Result<(), CodecError> {
        Disconnect.write(&mut self.out).map(drop)
    }
}

/// Packets carry payloads: only their names are for messages.
fn name_of(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => "one of QoS 2",
        Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::UnsubAck(_) => "one of subscriptions",
        Packet::PingReq => "PINGREQ",
        Packet::Disconnect => "DISCONNECT",
        Packet::Publish(_) | Packet::PubAck(_) | Packet::SubAck(_) | Packet::PingResp => "one that is expected",
    }
}

fn twin_answer(device: &DeviceId, call: &TwinCall, status: TwinStatus, body: &[u8]) -> Result<TwinAnswer, HubError> {
    let garbled = |what| HubError::Garbled { device: device.clone(), what };
    match (status.status, call) {
        (200..=299, TwinCall::Read) => read_twin(body).ok_or_else(|| garbled("twin")),
        (200..=299, TwinCall::Patch { .. }) => {
            let version = status.version.ok_or_else(|| garbled("version of the patched twin"))?;
            Ok(TwinAnswer::Patched { version })
        }
        (status, _) => Err(HubError::Twin { device: device.clone(), status, code: code_of(body) }),
    }
}

fn read_twin(body: &[u8]) -> Option<TwinAnswer> {
    let mut twin: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let Value::Object(mut reported) = twin.remove("reported")? else { return None };
    let version = reported.remove("$version")?.as_u64()?;
    Some(TwinAnswer::Read { reported, version })
}
