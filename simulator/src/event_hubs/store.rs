//! Events in partitions, in memory.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::watch;

/// A value of a property or an annotation.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants name AMQP types")]
pub enum PropertyValue {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    String(String),
    Timestamp(OffsetDateTime),
    Binary(Vec<u8>),
}

impl From<&str> for PropertyValue {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for PropertyValue {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

/// An event as it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The body: one data section.
    pub body: Bytes,
    /// The AMQP properties section by its hyphenated names (`message-id`, `content-type`, …).
    pub system: BTreeMap<String, PropertyValue>,
    /// Application properties.
    pub properties: BTreeMap<String, PropertyValue>,
    /// Message annotations other than the broker's own `x-opt-…`.
    pub annotations: BTreeMap<String, PropertyValue>,
    /// Chooses the partition.
    pub partition_key: Option<String>,
}

/// An event with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// What was sent.
    pub event: Event,
    /// Place in the partition, from 0.
    pub sequence_number: i64,
    /// Place in the partition's log, in bytes.
    pub offset: i64,
    /// When it arrived.
    pub enqueued_at: OffsetDateTime,
}

#[derive(Debug, Default)]
struct Partition {
    events: Vec<Arc<StoredEvent>>,
    next_offset: i64,
}

/// One Event Hub.
#[derive(Debug)]
pub struct EventHub {
    name: String,
    created_at: OffsetDateTime,
    partitions: Vec<Mutex<Partition>>,
    round_robin: AtomicUsize,
    appended: watch::Sender<u64>,
}

fn lock(partition: &Mutex<Partition>) -> MutexGuard<'_, Partition> {
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventHub {
    fn new(name: &str, partitions: usize) -> Self {
        Self {
            name: name.to_owned(),
            created_at: OffsetDateTime::now_utc(),
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            round_robin: AtomicUsize::new(0),
            appended: watch::Sender::new(0),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was made.
    #[must_use]
    pub fn created_at(&self) -> OffsetDateTime {
        self.created_at
    }

    /// How many partitions it has; their ids are `"0"`, `"1"`, ….
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Appends an event to the partition of its key, else to the next one in turn. Returns the partition.
    pub fn append(&self, event: Event) -> usize {
        let partition = match &event.partition_key {
            Some(key) => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                usize::try_from(hasher.finish() % self.partitions.len() as u64).unwrap_or(0)
            }
            None => self.round_robin.fetch_add(1, Ordering::Relaxed) % self.partitions.len(),
        };
        self.append_to(partition, event);
        partition
    }

    /// Appends an event to this partition. Returns its sequence number.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn append_to(&self, partition: usize, event: Event) -> i64 {
        let mut log = lock(&self.partitions[partition]);
        let sequence_number = log.events.len() as i64;
        let offset = log.next_offset;
        log.next_offset += event.body.len() as i64 + 64;
        log.events.push(Arc::new(StoredEvent {
            event,
            sequence_number,
            offset,
            enqueued_at: OffsetDateTime::now_utc(),
        }));
        drop(log);
        self.appended.send_modify(|count| *count += 1);
        sequence_number
    }

    /// At most `max` events of a partition from a sequence number on.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn read(&self, partition: usize, from: i64, max: usize) -> Vec<Arc<StoredEvent>> {
        let log = lock(&self.partitions[partition]);
        let from = usize::try_from(from).unwrap_or(0);
        log.events.iter().skip(from).take(max).cloned().collect()
    }

    /// All events of all partitions, partition by partition.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<StoredEvent>> {
        self.partitions.iter().flat_map(|partition| lock(partition).events.clone()).collect()
    }

    /// The sequence number that the next event of the partition gets.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn end(&self, partition: usize) -> i64 {
        lock(&self.partitions[partition]).events.len() as i64
    }

    /// Changes with every append.
    #[must_use]
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }
}

/// The Event Hubs of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    hubs: BTreeMap<String, Arc<EventHub>>,
}

impl Namespace {
    /// A namespace with these Event Hubs and their partition counts.
    #[must_use]
    pub fn new(hubs: &[(&str, usize)]) -> Self {
        let hubs =
            hubs.iter().map(|(name, partitions)| ((*name).to_owned(), Arc::new(EventHub::new(name, *partitions))));
        Self { hubs: hubs.collect() }
    }

    /// The Event Hub of this name.
    #[must_use]
    pub fn hub(&self, name: &str) -> Option<Arc<EventHub>> {
        self.hubs.get(name).cloned()
    }

    /// All of them.
    pub fn hubs(&self) -> impl Iterator<Item = &Arc<EventHub>> {
        self.hubs.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_key_keep_their_order_in_one_partition() {
        let namespace = Namespace::new(&[("h", 4)]);
        let hub = namespace.hub("h").expect("it was just made");
        let event = |body: &'static str| Event {
            body: Bytes::from_static(body.as_bytes()),
            partition_key: Some("probe-1".into()),
            ..Event::default()
        };
        let partition = hub.append(event("a"));
        assert_eq!(hub.append(event("b")), partition);
        let bodies: Vec<_> = hub.read(partition, 0, 10).iter().map(|stored| stored.event.body.clone()).collect();
        assert_eq!(bodies, ["a", "b"]);
        assert_eq!(hub.end(partition), 2);
        assert_eq!(hub.read(partition, 1, 10).len(), 1);
    }
}
