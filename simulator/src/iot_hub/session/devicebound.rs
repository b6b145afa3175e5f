//! What the hub sends a device unasked: desired properties, method calls, cloud-to-device messages.

use mqtt_proto::v3::Publish;
use mqtt_proto::{Pid, QosPid, TopicName};

use super::{Connection, End, Session, send};
use crate::iot_hub::devicebound;
use crate::iot_hub::limits::Billable;
use crate::iot_hub::methods::METHOD_CALLS;
use crate::iot_hub::sessions::Note;
use crate::iot_hub::topic::{self, DESIRED_CHANGES};

impl Session {
    /// Passes on a note.
    pub(super) async fn tell(&mut self, note: Note, connection: &mut Connection) -> Result<(), End> {
        if self.is_silent() {
            return Ok(());
        }
        match note {
            Note::Desired { version, body } => {
                let topic = topic::desired_change(version);
                self.hub.bill(Billable::DesiredNotification, body.len());
                self.send_if_subscribed(DESIRED_CHANGES, &topic, body.into(), connection).await
            }
            Note::Method(call) => {
                if self.hub.quality(&self.sender.device_id, METHOD_CALLS).is_none() {
                    return Ok(());
                }
                // Calls have quality 0 at any subscription.
                self.publish_to_device(QosPid::Level0, &call.topic, call.payload, connection).await
            }
        }
    }

    /// Delivers what waits for the device, if it has subscribed to it.
    pub(super) async fn deliver(&mut self, connection: &mut Connection) -> Result<(), End> {
        let id = self.sender.device_id.clone();
        let filter = topic::messages_filter(&id);
        while let Some(quality) = self.hub.quality(&id, &filter) {
            let Some((token, message)) = self.hub.next_message(&id, self.opened.serial) else { break };
            let qos_pid = self.next_qos_pid(quality);
            if let QosPid::Level1(pid) = qos_pid {
                self.deliveries.insert(pid, token);
            }
            // What a silent hub sends is lost on the way, and sent again when the lock ends.
            if self.is_silent() {
                continue;
            }
            let topic = devicebound::topic(&id, &message);
            self.publish_to_device(qos_pid, &topic, message.body, connection).await?;
            if qos_pid == QosPid::Level0 {
                self.hub.complete(&id, token);
            }
        }
        Ok(())
    }

    /// Takes a PUBACK: it completes a cloud-to-device message, and means nothing for anything else.
    pub(super) fn acknowledged(&mut self, pid: Pid) {
        if let Some(token) = self.deliveries.remove(&pid) {
            self.hub.complete(&self.sender.device_id, token);
        }
    }

    async fn publish_to_device(
        &self,
        qos_pid: QosPid,
        topic: &str,
        body: bytes::Bytes,
        connection: &mut Connection,
    ) -> Result<(), End> {
        let topic = TopicName::try_from(topic).map_err(|_| End::Protocol("a device id that fits no topic"))?;
        send(connection, Publish::new(qos_pid, topic, body).into()).await
    }
}
