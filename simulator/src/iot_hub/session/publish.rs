//! What a device publishes: telemetry, twin requests, answers to methods.

use bytes::Bytes;
use mqtt_proto::QosPid;
use mqtt_proto::v3::{Packet, Publish};

use super::{Connection, End, Session, goes_on, send};
use crate::faults::{Stage, Strike};
use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::injected_fault::{Kind, Order};
use crate::iot_hub::limits::{Billable, Operation};
use crate::iot_hub::methods::MethodAnswer;
use crate::iot_hub::property_bag::Bag;
use crate::iot_hub::telemetry::Marks;
use crate::iot_hub::topic::{self, TWIN_ANSWERS, Topic};

impl Session {
    /// Handles a PUBLISH.
    pub(super) async fn publish(&mut self, publish: Publish, connection: &mut Connection) -> Result<(), End> {
        let mut strike = None;
        let answer = match Topic::parse(&publish.topic_name, &self.sender.device_id) {
            None => return Err(End::Protocol("an unknown topic, or a property bag that cannot be read")),
            Some(Topic::Telemetry(bag)) => {
                if !self.telemetry(bag, &publish).await? {
                    return Ok(());
                }
                None
            }
            Some(Topic::ReadTwin { rid }) => {
                strike = self.strike(Stage::TwinAnswer);
                Some(self.read_twin(rid, strike).await)
            }
            Some(Topic::PatchTwin { rid, if_version }) => {
                strike = self.strike(Stage::TwinAnswer);
                let answer = self.patch_twin(rid.unwrap_or_default(), if_version, &publish.payload, strike).await;
                rid.map(|_| answer)
            }
            Some(Topic::MethodAnswer { status, rid }) => {
                let answer = MethodAnswer::parse(status, &publish.payload);
                let answer = answer.ok_or(End::Protocol("a method answer that is too large or no JSON"))?;
                let is_taken = self.hub.answer_method(&self.sender.device_id, self.opened.serial, rid, answer);
                if is_taken && !publish.payload.is_empty() {
                    self.hub.bill(Billable::Method, publish.payload.len());
                }
                None
            }
        };
        match publish.qos_pid {
            QosPid::Level0 => {}
            QosPid::Level1(pid) => send(connection, Packet::Puback(pid)).await?,
            // The gateway handles the message before it closes (`Azure/azure-iot-protocol-gateway MqttAdapter.cs`).
            QosPid::Level2(_) => return Err(End::Protocol("a publish with quality of service 2")),
        }
        // Throttled and refused requests have their answer already.
        if !matches!(strike, Some(Strike::Throttle | Strike::Refuse)) && !goes_on(strike).await? {
            return Ok(());
        }
        match answer {
            Some((topic, body)) => self.send_if_subscribed(TWIN_ANSWERS, &topic, body, connection).await,
            None => Ok(()),
        }
    }

    /// Takes a message. Returns whether it is to be acknowledged if it wants to be.
    async fn telemetry(&mut self, bag: Bag, publish: &Publish) -> Result<bool, End> {
        if self.meets_ordered_fault(&bag)? || !goes_on(self.strike(Stage::Publish)).await? {
            return Ok(false);
        }
        self.hub.admit(Operation::D2cSend, 1).await?;
        let marks = Marks { retain: publish.retain, duplicate: publish.dup, will: false };
        self.hub.store(bag, publish.payload.clone(), marks, &self.sender)?;
        Ok(publish.qos_pid == QosPid::Level0 || goes_on(self.strike(Stage::Puback)).await?)
    }

    /// Whether this telemetry orders a fault, and so is never answered. Ends the connection of a device that suffers from one.
    fn meets_ordered_fault(&mut self, bag: &Bag) -> Result<bool, End> {
        let id = &self.sender.device_id;
        if let Some(kind) = self.hub.ordered_fault(id) {
            return Err(End::Ordered(kind));
        }
        let Some(order) = Order::parse(bag) else { return Ok(false) };
        self.ordered = Some((order.kind, self.hub.order_fault(id, order)));
        Ok(true)
    }

    async fn read_twin(&self, rid: &str, strike: Option<Strike>) -> (String, Bytes) {
        let admitted = self.admit_to_twin(Operation::TwinRead, strike).await;
        match admitted.and_then(|()| self.hub.read_own_twin(&self.sender.device_id)) {
            Ok(twin) => {
                let body = twin.to_string();
                self.hub.bill(Billable::TwinRead, body.len());
                (topic::twin_answer(200, rid, None), body.into())
            }
            Err(error) => self.twin_refusal(rid, &error),
        }
    }

    async fn patch_twin(
        &self,
        rid: &str,
        if_version: Option<&str>,
        patch: &[u8],
        strike: Option<Strike>,
    ) -> (String, Bytes) {
        let admitted = self.admit_to_twin(Operation::TwinUpdate, strike).await;
        match admitted.and_then(|()| self.hub.report(&self.sender.device_id, patch, if_version)) {
            Ok(version) => (topic::twin_answer(204, rid, Some(version)), Bytes::new()),
            Err(error) => self.twin_refusal(rid, &error),
        }
    }

    fn twin_refusal(&self, rid: &str, error: &HubError) -> (String, Bytes) {
        let body = error.twin_body(self.hub.clock.now()).to_string();
        (topic::twin_answer(error.code.status().as_u16(), rid, None), body.into())
    }

    /// Waits for the tier. A used-up day is answered 403 (unverified: only telemetry has been seen then).
    async fn admit_to_twin(&self, operation: Operation, strike: Option<Strike>) -> Result<(), HubError> {
        if !self.has_twin {
            return Err(HubError::new(Code::ArgumentInvalid, "the user name of CONNECT has no api-version"));
        }
        let is_throttled = self.hub.ordered_fault(&self.sender.device_id) == Some(Kind::Throttling);
        match strike {
            Some(Strike::Refuse) => Err(HubError::new(Code::ServiceUnavailable, "the service is unavailable")),
            Some(Strike::Throttle) => Err(HubError::new(Code::ThrottlingException, "too many twin operations")),
            _ if is_throttled => Err(HubError::new(Code::ThrottlingException, "too many twin operations")),
            _ => Ok(self.hub.admit(operation, 1).await?),
        }
    }
}
