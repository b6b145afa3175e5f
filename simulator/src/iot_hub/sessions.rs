//! The MQTT sessions of a hub: at most one connection per device, and what outlives it.

use std::collections::HashMap;
use std::sync::Arc;

use mqtt_proto::QoS;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::methods::{METHOD_CALLS, MethodAnswer, MethodCall, MethodRequest};

/// Most topic filters of one session (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-direct-methods.md`).
const MAX_SUBSCRIPTIONS: usize = 5;
/// Notes that wait for a slow socket. More are lost, as the hub does not queue them either.
const MAX_WAITING_NOTES: usize = 64;
/// Method calls of one connection that wait for their answer.
const MAX_OPEN_CALLS: usize = 64;

/// What a connected device is told at once or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A change of desired properties.
    Desired { version: u64, body: String },
    /// A method call.
    Method(MethodCall),
}

/// Why a method is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotCalled {
    /// The device is not connected, or has not subscribed to calls.
    Offline,
    /// Too many calls are open, or the device does not read.
    Busy,
}

/// A connection as the session table sees it.
struct Live {
    serial: u64,
    closed: CancellationToken,
    notes: mpsc::Sender<Note>,
    mail: Arc<Notify>,
    /// Who waits for the answer to a method call, by request id.
    calls: HashMap<String, oneshot::Sender<MethodAnswer>>,
}

/// The session of a device: its subscriptions, and its connection if there is one.
struct Session {
    live: Option<Live>,
    subscriptions: Vec<(String, QoS)>,
    /// Whether it outlives its connection (clean session 0).
    kept: bool,
}

/// What a new connection gets.
#[derive(Debug)]
pub(super) struct Opened {
    /// Tells this connection from a later one of the same device.
    pub(super) serial: u64,
    /// Cancelled when the hub wants the connection closed.
    pub(super) closed: CancellationToken,
    pub(super) notes: mpsc::Receiver<Note>,
    /// Told when there may be a cloud-to-device message.
    pub(super) mail: Arc<Notify>,
    /// Whether the session was there before.
    pub(super) present: bool,
    /// Whether another connection had to go.
    pub(super) took_over: bool,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    by_device: HashMap<String, Session>,
    serial: u64,
    calls: u64,
}

impl Sessions {
    /// Opens a connection; the device's older one is closed. `socket` is cancelled when the socket must close.
    pub(super) fn open(&mut self, device_id: &str, clean: bool, socket: &CancellationToken) -> Opened {
        self.serial += 1;
        let old = self.by_device.remove(device_id);
        let took_over = old.as_ref().and_then(|old| old.live.as_ref()).map(|live| live.closed.cancel()).is_some();
        let kept = old.filter(|old| old.kept && !clean);
        let present = kept.is_some();
        let (sender, notes) = mpsc::channel(MAX_WAITING_NOTES);
        let (closed, mail) = (socket.child_token(), Arc::new(Notify::new()));
        let live = Live {
            serial: self.serial,
            closed: closed.clone(),
            notes: sender,
            mail: mail.clone(),
            calls: HashMap::new(),
        };
        let session = Session {
            live: Some(live),
            subscriptions: kept.map(|old| old.subscriptions).unwrap_or_default(),
            kept: !clean,
        };
        self.by_device.insert(device_id.to_owned(), session);
        Opened { serial: self.serial, closed, notes, mail, present, took_over }
    }

    /// Notes that a connection has ended. Returns whether it was the device's current one.
    pub(super) fn close(&mut self, device_id: &str, serial: u64) -> bool {
        let Some(session) = self.by_device.get_mut(device_id) else { return false };
        if session.live.as_ref().is_none_or(|live| live.serial != serial) {
            return false;
        }
        session.live = None;
        if !session.kept {
            self.by_device.remove(device_id);
        }
        true
    }

    /// Closes the connection of a device as a newer one would; a kept session stays. Returns whether there was one.
    pub(super) fn take_over(&self, device_id: &str) -> bool {
        let live = self.by_device.get(device_id).and_then(|session| session.live.as_ref());
        live.map(|live| live.closed.cancel()).is_some()
    }

    /// Closes the connection of a device that may no longer connect, and forgets its session. Returns whether there was a
    /// connection: for that one, [`close`](Self::close) finds nothing any more.
    pub(super) fn end(&mut self, device_id: &str) -> bool {
        let live = self.by_device.remove(device_id).and_then(|session| session.live);
        live.map(|live| live.closed.cancel()).is_some()
    }

    /// The session, if this connection is still its current one.
    fn current(&mut self, device_id: &str, serial: u64) -> Option<&mut Session> {
        self.by_device
            .get_mut(device_id)
            .filter(|session| session.live.as_ref().is_some_and(|live| live.serial == serial))
    }

    /// Adds a subscription and returns the granted quality: at most 1. `None` if there are too many.
    pub(super) fn subscribe(&mut self, device_id: &str, serial: u64, filter: &str, qos: QoS) -> Option<QoS> {
        let session = self.current(device_id, serial)?;
        let granted = qos.min(QoS::Level1);
        let subscriptions = &mut session.subscriptions;
        match subscriptions.iter().position(|(known, _)| known == filter) {
            Some(known) => subscriptions[known].1 = granted,
            None if subscriptions.len() >= MAX_SUBSCRIPTIONS => return None,
            None => subscriptions.push((filter.to_owned(), granted)),
        }
        Some(granted)
    }

    pub(super) fn unsubscribe(&mut self, device_id: &str, serial: u64, filter: &str) {
        if let Some(session) = self.current(device_id, serial) {
            session.subscriptions.retain(|(known, _)| known != filter);
        }
    }

    /// The quality at which a filter is subscribed.
    pub(super) fn quality(&self, device_id: &str, filter: &str) -> Option<QoS> {
        let subscriptions = &self.by_device.get(device_id)?.subscriptions;
        subscriptions.iter().find(|(known, _)| known == filter).map(|(_, qos)| *qos)
    }

    fn live(&self, device_id: &str) -> Option<&Live> {
        self.by_device.get(device_id)?.live.as_ref()
    }

    /// Tells a connected device something.
    pub(super) fn notify(&self, device_id: &str, note: Note) {
        if self.live(device_id).is_some_and(|live| live.notes.try_send(note).is_err()) {
            tracing::debug!(device = device_id, "a note is lost: the device does not read");
        }
    }

    /// Tells a connection to look for cloud-to-device messages.
    pub(super) fn wake(&self, device_id: &str) {
        if let Some(live) = self.live(device_id) {
            live.mail.notify_one();
        }
    }

    /// Sends a method call to a connected device that has subscribed to calls. The receiver fails when the connection ends.
    pub(super) fn call(
        &mut self,
        device_id: &str,
        request: &MethodRequest,
    ) -> Result<oneshot::Receiver<MethodAnswer>, NotCalled> {
        self.quality(device_id, METHOD_CALLS).ok_or(NotCalled::Offline)?;
        let session = self.by_device.get_mut(device_id).ok_or(NotCalled::Offline)?;
        let live = session.live.as_mut().ok_or(NotCalled::Offline)?;
        live.calls.retain(|_, caller| !caller.is_closed());
        if live.calls.len() >= MAX_OPEN_CALLS {
            return Err(NotCalled::Busy);
        }
        self.calls += 1;
        let call = MethodCall::new(request, self.calls);
        live.notes.try_send(Note::Method(call)).map_err(|_| NotCalled::Busy)?;
        let (caller, answer) = oneshot::channel();
        live.calls.insert(format!("{:x}", self.calls), caller);
        Ok(answer)
    }

    /// Takes out who waits for the answer to a call.
    pub(super) fn take_call(
        &mut self,
        device_id: &str,
        serial: u64,
        rid: &str,
    ) -> Option<oneshot::Sender<MethodAnswer>> {
        self.current(device_id, serial)?.live.as_mut()?.calls.remove(rid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: &str = "$iothub/twin/res/#";

    fn open(sessions: &mut Sessions, clean: bool) -> Opened {
        sessions.open("d1", clean, &CancellationToken::new())
    }

    #[test]
    fn a_new_connection_closes_the_old_one_and_only_that() {
        let mut sessions = Sessions::default();
        let first = open(&mut sessions, true);
        let other = sessions.open("d2", true, &CancellationToken::new());
        let second = open(&mut sessions, true);
        assert!(!first.took_over && second.took_over);
        assert!(first.closed.is_cancelled() && !second.closed.is_cancelled() && !other.closed.is_cancelled());
        assert!(!sessions.close("d1", first.serial), "the old connection's end does not end the new one");
        assert!(sessions.close("d1", second.serial));
    }

    #[test]
    fn only_a_kept_session_is_present_later() {
        for (first_clean, second_clean, present) in
            [(true, true, false), (true, false, false), (false, true, false), (false, false, true)]
        {
            let mut sessions = Sessions::default();
            let first = open(&mut sessions, first_clean);
            sessions.subscribe("d1", first.serial, FILTER, QoS::Level0);
            sessions.close("d1", first.serial);
            assert_eq!(open(&mut sessions, second_clean).present, present, "{first_clean} {second_clean}");
            assert_eq!(sessions.quality("d1", FILTER).is_some(), present);
        }
    }

    #[test]
    fn five_subscriptions_are_granted_at_most_quality_1() {
        let mut sessions = Sessions::default();
        let serial = open(&mut sessions, true).serial;
        assert_eq!(sessions.subscribe("d1", serial, FILTER, QoS::Level2), Some(QoS::Level1));
        for n in 0..4 {
            assert_eq!(sessions.subscribe("d1", serial, &format!("t/{n}"), QoS::Level0), Some(QoS::Level0));
        }
        assert_eq!(sessions.subscribe("d1", serial, "t/4", QoS::Level0), None);
        assert_eq!(sessions.subscribe("d1", serial, "t/0", QoS::Level1), Some(QoS::Level1), "no new one");
        sessions.unsubscribe("d1", serial, "t/0");
        assert_eq!(sessions.subscribe("d1", serial, "t/4", QoS::Level0), Some(QoS::Level0));
    }

    #[test]
    fn an_ended_session_is_closed_and_forgotten() {
        let mut sessions = Sessions::default();
        let first = open(&mut sessions, false);
        assert!(sessions.end("d1"), "it was connected");
        assert!(first.closed.is_cancelled());
        assert!(!sessions.close("d1", first.serial) && !sessions.end("d1"));
        let second = open(&mut sessions, false);
        assert!(!second.present);
        sessions.close("d1", second.serial);
        assert!(!sessions.end("d1"), "a kept session is no connection");
    }
}
