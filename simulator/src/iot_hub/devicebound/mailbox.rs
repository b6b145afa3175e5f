//! The queue of one device.

use std::collections::VecDeque;

use time::{Duration, OffsetDateTime};

use super::CloudMessage;
use crate::iot_hub::error::{Code, HubError};

/// Most messages that wait for one device, delivered ones included.
const MAX_MESSAGES: usize = 50;
/// How long a message waits if its sender does not say. (A live hub lets its owner choose 1 minute to 2 days.)
const DEFAULT_TIME_TO_LIVE: Duration = Duration::hours(1);
/// How long a delivered message waits for its PUBACK before it is delivered again.
const LOCK_TIME: Duration = Duration::minutes(1);

/// One delivery of a message: what completes it. A later delivery of the same message has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::iot_hub) struct Token(u64);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::iot_hub) enum Outcome {
    /// The device has it.
    Completed,
    /// Its time is over.
    Expired,
    /// The queue was emptied.
    Purged,
}

impl Outcome {
    /// The status code of a feedback record.
    pub(in crate::iot_hub) fn name(self) -> &'static str {
        match self {
            Self::Completed => "Success",
            Self::Expired => "Expired",
            Self::Purged => "Purged",
        }
    }
}

/// A delivered message belongs to the connection that it went to, for a while.
#[derive(Debug)]
struct Lock {
    token: Token,
    connection: u64,
    until: OffsetDateTime,
}

#[derive(Debug)]
struct Waiting {
    message: CloudMessage,
    expires_at: OffsetDateTime,
    lock: Option<Lock>,
}

/// The messages for one device, in the order they came.
#[derive(Debug, Default)]
pub(in crate::iot_hub) struct Mailbox {
    waiting: VecDeque<Waiting>,
    deliveries: u64,
}

impl Mailbox {
    pub(in crate::iot_hub) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a message, which has its id by now.
    pub(in crate::iot_hub) fn add(&mut self, message: CloudMessage, now: OffsetDateTime) -> Result<(), HubError> {
        if self.waiting.len() >= MAX_MESSAGES {
            let text = format!("the queue of the device has {MAX_MESSAGES} messages and takes no more");
            return Err(HubError::new(Code::DeviceMaximumQueueDepthExceeded, text));
        }
        let expires_at = message.expires_at.unwrap_or_else(|| now.saturating_add(DEFAULT_TIME_TO_LIVE));
        self.waiting.push_back(Waiting { message, expires_at, lock: None });
        Ok(())
    }

    /// Hands the oldest message that nobody holds to a connection.
    pub(in crate::iot_hub) fn deliver(
        &mut self,
        connection: u64,
        now: OffsetDateTime,
    ) -> Option<(Token, CloudMessage)> {
        let next = self.waiting.iter_mut().find(|next| next.lock.is_none() && next.expires_at > now)?;
        self.deliveries += 1;
        let token = Token(self.deliveries);
        next.lock = Some(Lock { token, connection, until: now.saturating_add(LOCK_TIME) });
        Some((token, next.message.clone()))
    }

    /// Completes a delivery. Nothing if its lock is lost, or the message.
    pub(in crate::iot_hub) fn complete(&mut self, token: Token) -> Option<CloudMessage> {
        let held = |waiting: &Waiting| waiting.lock.as_ref().is_some_and(|lock| lock.token == token);
        let at = self.waiting.iter().position(held)?;
        self.waiting.remove(at).map(|done| done.message)
    }

    /// Makes what a connection holds available again: the connection has ended.
    pub(in crate::iot_hub) fn release(&mut self, connection: u64) {
        self.unlock(|lock| lock.connection == connection);
    }

    /// Takes out what has expired, and makes available again what was held too long.
    pub(in crate::iot_hub) fn sweep(&mut self, now: OffsetDateTime) -> Vec<CloudMessage> {
        self.unlock(|lock| lock.until <= now);
        let mut expired = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.expires_at <= now {
                expired.push(waiting.message);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        expired
    }

    /// Takes out everything.
    pub(in crate::iot_hub) fn purge(&mut self) -> Vec<CloudMessage> {
        self.waiting.drain(..).map(|waiting| waiting.message).collect()
    }

    /// When [`sweep`](Self::sweep) has something to do next.
    pub(in crate::iot_hub) fn next_sweep(&self) -> Option<OffsetDateTime> {
        let due = |waiting: &Waiting| match &waiting.lock {
            Some(lock) => lock.until.min(waiting.expires_at),
            None => waiting.expires_at,
        };
        self.waiting.iter().map(due).min()
    }

    fn unlock(&mut self, ends: impl Fn(&Lock) -> bool) {
        for waiting in &mut self.waiting {
            waiting.lock.take_if(|lock| ends(lock));
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 09:00 UTC);

    fn message(id: &str) -> CloudMessage {
        CloudMessage { message_id: Some(id.into()), ..CloudMessage::default() }
    }

    fn mailbox(ids: &[&str]) -> Mailbox {
        let mut mailbox = Mailbox::default();
        ids.iter().for_each(|id| mailbox.add(message(id), NOW).expect("there is room"));
        mailbox
    }

    /// The ids of everything that can be delivered now.
    fn delivered(mailbox: &mut Mailbox, now: OffsetDateTime) -> Vec<String> {
        std::iter::from_fn(|| mailbox.deliver(1, now)).filter_map(|(_, message)| message.message_id).collect()
    }

    #[test]
    fn messages_are_delivered_in_order_and_once_while_locked() {
        let mut mailbox = mailbox(&["a", "b"]);
        assert_eq!(delivered(&mut mailbox, NOW), ["a", "b"]);
        assert!(mailbox.deliver(1, NOW).is_none());
        assert_eq!(mailbox.len(), 2, "they stay until they are completed");
    }

    #[test]
    fn the_fifty_first_message_is_refused() {
        let mut mailbox = mailbox(&["m"; MAX_MESSAGES]);
        let refused = mailbox.add(message("one more"), NOW).expect_err("the queue is full");
        assert_eq!(refused.code, Code::DeviceMaximumQueueDepthExceeded);
        let (token, _) = mailbox.deliver(1, NOW).expect("it waits");
        assert!(mailbox.add(message("one more"), NOW).is_err(), "a delivered one counts until it is completed");
        assert!(mailbox.complete(token).is_some());
        assert!(mailbox.add(message("one more"), NOW).is_ok());
    }

    #[test]
    fn a_lock_ends_after_a_minute_and_its_token_is_worth_nothing() {
        let mut mailbox = mailbox(&["a"]);
        let (late, _) = mailbox.deliver(1, NOW).expect("it waits");
        assert_eq!(mailbox.next_sweep(), Some(NOW + LOCK_TIME));
        assert!(mailbox.sweep(NOW + LOCK_TIME - Duration::SECOND).is_empty());
        assert!(mailbox.deliver(1, NOW).is_none());
        assert!(mailbox.sweep(NOW + LOCK_TIME).is_empty());
        assert!(mailbox.complete(late).is_none());
        let (token, _) = mailbox.deliver(1, NOW).expect("it is available again");
        assert_eq!(mailbox.complete(token), Some(message("a")));
        assert!(mailbox.complete(token).is_none());
    }

    #[test]
    fn the_end_of_a_connection_releases_what_it_held_and_only_that() {
        let mut mailbox = mailbox(&["a", "b"]);
        mailbox.deliver(1, NOW).expect("it waits");
        mailbox.deliver(2, NOW).expect("it waits");
        mailbox.release(1);
        assert_eq!(delivered(&mut mailbox, NOW), ["a"]);
    }

    #[test]
    fn a_message_expires_at_its_own_time_or_after_an_hour() {
        let mut mailbox = mailbox(&["an hour"]);
        let soon = NOW + Duration::minutes(2);
        mailbox.add(CloudMessage { expires_at: Some(soon), ..message("soon") }, NOW).expect("there is room");
        assert_eq!(mailbox.next_sweep(), Some(soon));
        assert_eq!(delivered(&mut mailbox, soon), ["an hour"], "an expired one is not delivered, swept or not");
        let ids = |expired: Vec<CloudMessage>| expired.into_iter().filter_map(|m| m.message_id).collect::<Vec<_>>();
        assert_eq!(ids(mailbox.sweep(soon)), ["soon"]);
        assert_eq!(ids(mailbox.sweep(NOW + DEFAULT_TIME_TO_LIVE)), ["an hour"], "a lock does not keep it");
        assert_eq!(mailbox.next_sweep(), None);
    }

    #[test]
    fn a_purge_takes_delivered_messages_too() {
        let mut mailbox = mailbox(&["a", "b"]);
        let (token, _) = mailbox.deliver(1, NOW).expect("it waits");
        assert_eq!(mailbox.purge().len(), 2);
        assert_eq!((mailbox.len(), mailbox.complete(token)), (0, None));
    }
}
