//! Cloud-to-device messages: from the service to the device, and what became of them.

use super::{Hub, State};
use crate::iot_hub::devicebound::{self, CloudMessage, Feedback, Outcome, Token};
use crate::iot_hub::error::HubError;
use crate::iot_hub::limits::Billable;
use crate::iot_hub::registry::Device;
use time::OffsetDateTime;

impl Hub {
    /// Puts a message into the queue of a device.
    pub(in crate::iot_hub) fn send_to_device(&self, id: &str, mut message: CloudMessage) -> Result<(), HubError> {
        let bytes = devicebound::accept(id, &mut message)?;
        let now = self.clock.now();
        let mut state = self.state();
        let device = state.registry.device_mut(id).ok_or_else(|| HubError::unknown_device(id))?;
        device.mailbox_mut().add(message, now)?;
        self.bill(Billable::C2d, bytes);
        self.counters.c2d_accepted.add();
        self.set_alarm(&mut state, id);
        state.sessions.wake(id);
        Ok(())
    }

    /// Hands the next message to a connection that may have it. It is locked until it is completed, for a minute at most.
    pub(in crate::iot_hub) fn next_message(&self, id: &str, connection: u64) -> Option<(Token, CloudMessage)> {
        let now = self.clock.now();
        let mut state = self.state();
        let next = state.registry.device_mut(id)?.mailbox_mut().deliver(connection, now);
        self.set_alarm(&mut state, id);
        next
    }

    /// Completes a delivery. After its lock has ended this does nothing, and the message is delivered again.
    pub(in crate::iot_hub) fn complete(&self, id: &str, token: Token) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(device) = state.registry.device_mut(id) else { return };
        match device.mailbox_mut().complete(token) {
            Some(message) => self.settle(id, device, vec![message], Outcome::Completed, now),
            None => tracing::debug!(device = id, "a message is acknowledged too late"),
        }
        self.set_alarm(&mut state, id);
    }

    /// Empties the queue of a device. Returns how many messages were in it.
    pub(in crate::iot_hub) fn purge(&self, id: &str) -> Result<usize, HubError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.registry.known(id)?;
        Ok(self.purge_locked(&mut state, id, now))
    }

    pub(super) fn purge_locked(&self, state: &mut State, id: &str, now: OffsetDateTime) -> usize {
        let Some(device) = state.registry.device_mut(id) else { return 0 };
        let purged = device.mailbox_mut().purge();
        let count = purged.len();
        self.settle(id, device, purged, Outcome::Purged, now);
        self.set_alarm(state, id);
        count
    }

    /// Gives back what a connection holds: it has ended.
    pub(super) fn release_messages(&self, state: &mut State, id: &str, connection: u64) {
        if let Some(device) = state.registry.device_mut(id) {
            device.mailbox_mut().release(connection);
            self.set_alarm(state, id);
            state.sessions.wake(id);
        }
    }

    /// Notices, for as long as the hub runs, what expires and which locks end.
    pub(in crate::iot_hub) async fn watch_mailboxes(&self) {
        loop {
            let next = self.state().alarms.next();
            let rings = async {
                match next {
                    Some(at) => self.clock.reaches(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = rings => self.sweep_mailboxes(),
                () = self.alarm_moved.notified() => {}
            }
        }
    }

    fn sweep_mailboxes(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        while let Some(id) = state.alarms.take(now) {
            let Some(device) = state.registry.device_mut(&id) else { continue };
            let expired = device.mailbox_mut().sweep(now);
            self.settle(&id, device, expired, Outcome::Expired, now);
            self.set_alarm(&mut state, &id);
            state.sessions.wake(&id);
        }
    }

    /// Counts an outcome, and tells the senders that asked for it.
    fn settle(&self, id: &str, device: &Device, done: Vec<CloudMessage>, outcome: Outcome, now: OffsetDateTime) {
        for message in done {
            match outcome {
                Outcome::Completed => self.counters.c2d_completed.add(),
                Outcome::Expired => self.counters.c2d_expired.add(),
                Outcome::Purged => self.counters.c2d_purged.add(),
            }
            if let Some(original_message_id) = message.message_id.filter(|_| message.ack.asks_for(outcome)) {
                self.feedback.put(Feedback {
                    original_message_id,
                    device_id: id.to_owned(),
                    device_generation_id: device.generation_id().to_owned(),
                    enqueued_at: now,
                    status: outcome.name(),
                });
            }
        }
    }

    fn set_alarm(&self, state: &mut State, id: &str) {
        let at = state.registry.device(id).and_then(|device| device.mailbox().next_sweep());
        if state.alarms.set(id, at) {
            self.alarm_moved.notify_one();
        }
    }
}
