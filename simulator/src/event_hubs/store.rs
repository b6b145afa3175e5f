//! Events in partitions, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::happened::Teller;
use crate::happenings::{Happenings, Kind};

/// Bytes that a partition keeps, unless it is told otherwise: some ten thousand events, and little beside the memory of a laptop.
pub const RETAINED_BYTES: u64 = 16 * 1024 * 1024;
/// What an event weighs beside its texts and bytes: its place, its maps, its allocations.
const EVENT_OVERHEAD_BYTES: u64 = 512;
/// The same for a property.
const PROPERTY_OVERHEAD_BYTES: u64 = 96;

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
    Uuid(uuid::Uuid),
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

impl Event {
    /// About how much memory it takes.
    fn weight(&self) -> u64 {
        let text = |value: &PropertyValue| match value {
            PropertyValue::String(text) => text.len(),
            PropertyValue::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        let properties = self.system.iter().chain(&self.properties).chain(&self.annotations);
        let properties: u64 =
            properties.map(|(name, value)| PROPERTY_OVERHEAD_BYTES + (name.len() + text(value)) as u64).sum();
        EVENT_OVERHEAD_BYTES + self.body.len() as u64 + properties
    }
}

/// How far a partition has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Sequence number of the oldest event that is kept.
    pub begin: i64,
    /// Sequence number that the next event gets.
    pub end: i64,
    /// Offset of the newest event; -1 if there was none.
    pub last_offset: i64,
    /// When the newest event arrived; 1970 if there was none.
    pub last_enqueued_at: OffsetDateTime,
}

#[derive(Debug)]
struct Partition {
    events: VecDeque<Arc<StoredEvent>>,
    state: PartitionState,
    next_offset: i64,
    weight: u64,
}

impl Default for Partition {
    fn default() -> Self {
        let state = PartitionState { begin: 0, end: 0, last_offset: -1, last_enqueued_at: OffsetDateTime::UNIX_EPOCH };
        Self { events: VecDeque::new(), state, next_offset: 0, weight: 0 }
    }
}

impl Partition {
    fn push(&mut self, event: Event, retained: u64) -> i64 {
        let (sequence_number, offset, enqueued_at) = (self.state.end, self.next_offset, OffsetDateTime::now_utc());
        self.next_offset += event.body.len() as i64 + 64;
        self.weight += event.weight();
        self.state = PartitionState {
            end: sequence_number + 1,
            last_offset: offset,
            last_enqueued_at: enqueued_at,
            ..self.state
        };
        self.events.push_back(Arc::new(StoredEvent { event, sequence_number, offset, enqueued_at }));
        // The newest event stays, whatever it weighs.
        while self.weight > retained && self.events.len() > 1 {
            if let Some(oldest) = self.events.pop_front() {
                self.weight -= oldest.event.weight();
                self.state.begin = oldest.sequence_number + 1;
            }
        }
        sequence_number
    }

    /// Where an event is among those that are kept; the oldest stands in for what is gone.
    fn index(&self, sequence_number: i64) -> usize {
        usize::try_from(sequence_number - self.state.begin).unwrap_or(0)
    }
}

/// One Event Hub.
#[derive(Debug)]
pub struct EventHub {
    name: String,
    created_at: OffsetDateTime,
    partitions: Vec<Mutex<Partition>>,
    retained_bytes: AtomicU64,
    round_robin: AtomicUsize,
    appended: watch::Sender<u64>,
    teller: Teller,
}

fn lock(partition: &Mutex<Partition>) -> MutexGuard<'_, Partition> {
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventHub {
    pub(super) fn new(name: &str, partitions: usize) -> Self {
        Self {
            name: name.to_owned(),
            created_at: OffsetDateTime::now_utc(),
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            retained_bytes: AtomicU64::new(RETAINED_BYTES),
            round_robin: AtomicUsize::new(0),
            appended: watch::Sender::new(0),
            teller: Teller::default(),
        }
    }

    /// Tells these happenings of every event from now on, as this kind. Only the first call counts.
    pub fn tell(&self, kind: Kind, happenings: Happenings) {
        self.teller.set(kind, happenings);
    }

    /// Lets every partition keep its newest events up to this many bytes.
    pub(super) fn retain(&self, bytes: u64) {
        self.retained_bytes.store(bytes, Ordering::Relaxed);
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
        let partition = self.choose(event.partition_key.as_deref());
        self.append_to(partition, event);
        partition
    }

    /// Appends events that came together, one right behind the other: to this partition, else to that of their key, else to
    /// the next one in turn. The first key that one of them has is the key of all. Returns the partition.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn append_batch(&self, partition: Option<usize>, events: Vec<Event>) -> usize {
        let key = events.iter().find_map(|event| event.partition_key.as_deref());
        let partition = partition.unwrap_or_else(|| self.choose(key));
        for event in &events {
            self.teller.appended(&self.name, event);
        }
        let retained = self.retained_bytes.load(Ordering::Relaxed);
        let mut log = lock(&self.partitions[partition]);
        for event in events {
            log.push(event, retained);
        }
        drop(log);
        self.appended.send_modify(|count| *count += 1);
        partition
    }

    /// Appends an event to this partition, and lets go of the oldest ones beyond the retention. Returns its sequence number.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn append_to(&self, partition: usize, event: Event) -> i64 {
        self.teller.appended(&self.name, &event);
        let retained = self.retained_bytes.load(Ordering::Relaxed);
        let sequence_number = lock(&self.partitions[partition]).push(event, retained);
        self.appended.send_modify(|count| *count += 1);
        sequence_number
    }

    fn choose(&self, key: Option<&str>) -> usize {
        match key {
            Some(key) => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                usize::try_from(hasher.finish() % self.partitions.len() as u64).unwrap_or(0)
            }
            None => self.round_robin.fetch_add(1, Ordering::Relaxed) % self.partitions.len(),
        }
    }

    /// At most `max` events of a partition from a sequence number on; from the oldest that is kept, if that one is gone.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn read(&self, partition: usize, from: i64, max: usize) -> Vec<Arc<StoredEvent>> {
        let log = lock(&self.partitions[partition]);
        let from = log.index(from).min(log.events.len());
        log.events.range(from..).take(max).cloned().collect()
    }

    /// All events that are kept, partition by partition.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<StoredEvent>> {
        self.partitions.iter().flat_map(|partition| lock(partition).events.clone()).collect()
    }

    /// The sequence number of the first event that fits, else the one that the next event gets. Events that fit must come
    /// after those that do not.
    ///
    /// # Panics
    /// If there is no such partition.
    pub(crate) fn find(&self, partition: usize, fits: impl Fn(&StoredEvent) -> bool) -> i64 {
        let log = lock(&self.partitions[partition]);
        let index = log.events.partition_point(|stored| !fits(stored));
        log.events.get(index).map_or(log.state.end, |stored| stored.sequence_number)
    }

    /// How far the partition has come.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn state(&self, partition: usize) -> PartitionState {
        lock(&self.partitions[partition]).state
    }

    /// The sequence number that the next event of the partition gets.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn end(&self, partition: usize) -> i64 {
        self.state(partition).end
    }

    /// Changes with every append.
    #[must_use]
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_hubs::Namespace;

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

    #[test]
    fn a_partition_keeps_its_newest_events_and_a_reader_behind_starts_at_the_oldest() {
        let namespace = Namespace::new(&[("h", 1)]).with_retention(10 * 1024);
        let hub = namespace.hub("h").expect("it was just made");
        for number in 0..1000 {
            assert_eq!(hub.append_to(0, Event { body: vec![0; 512].into(), ..Event::default() }), number);
        }
        let state = hub.state(0);
        assert_eq!((state.begin, state.end, state.last_offset), (990, 1000, 999 * (512 + 64)));
        let numbers =
            |from, max| -> Vec<i64> { hub.read(0, from, max).iter().map(|stored| stored.sequence_number).collect() };
        assert_eq!(numbers(0, 2), [990, 991], "what is gone is skipped");
        assert_eq!(numbers(998, 9), [998, 999]);
        assert_eq!(numbers(1000, 9), [0; 0]);
        assert_eq!(hub.all().len(), 10);
        assert_eq!(hub.find(0, |stored| stored.offset > 995 * (512 + 64)), 996);
        hub.append_to(0, Event { body: vec![0; 1024 * 1024].into(), ..Event::default() });
        assert_eq!(numbers(0, 9), [1000], "the newest stays, whatever it weighs");
    }
}
