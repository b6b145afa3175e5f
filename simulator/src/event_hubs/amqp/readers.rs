//! Who reads a partition: owners by epoch, and the others.
//!
//! An owner with an epoch excludes everyone else of its consumer group from its partition. The sentences are those of the service
//! (`Azure/amqpnetlite#162`, `Azure/azure-sdk-for-java#26583`, `#12483`, `Azure/azure-sdk-for-net#33938`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fe2o3_amqp_types::definitions::{AmqpError, Error, LinkError};
use tokio::sync::watch;

use crate::amqp::error;

/// Readers without an epoch that a partition has in a consumer group
/// (<https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>).
const MAX_READERS: usize = 5;

/// A partition as a consumer group sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seat {
    pub(super) hub: String,
    /// In lower case.
    pub(super) group: String,
    pub(super) partition: usize,
}

#[derive(Debug)]
struct Reader {
    serial: u64,
    epoch: Option<i64>,
    /// Takes the reason why it must go.
    out: watch::Sender<Option<Error>>,
}

#[derive(Debug, Default)]
struct Seats {
    readers: HashMap<Seat, Vec<Reader>>,
    last_serial: u64,
}

/// The readers of a namespace.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Seats>);

/// A reader's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    readers: Arc<Readers>,
    seat: Seat,
    serial: u64,
    out: watch::Receiver<Option<Error>>,
}

impl Place {
    /// Returns when another reader takes the partition over.
    pub(super) async fn taken(&mut self) -> Error {
        loop {
            let why = self.out.borrow_and_update().clone();
            if let Some(why) = why {
                return why;
            }
            // Its sender is kept as long as this place.
            if self.out.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = self.readers.seats();
        if let Some(readers) = seats.readers.get_mut(&self.seat) {
            readers.retain(|reader| reader.serial != self.serial);
            if readers.is_empty() {
                seats.readers.remove(&self.seat);
            }
        }
    }
}

fn stolen(text: impl Into<String>) -> Error {
    error(LinkError::Stolen, text)
}

impl Readers {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a new reader its place, or says why there is none. An owner drives the readers before it out.
    pub(super) fn sit(self: &Arc<Self>, seat: Seat, epoch: Option<i64>) -> Result<Place, Error> {
        let mut seats = self.seats();
        let Seats { readers, last_serial } = &mut *seats;
        let present = readers.entry(seat.clone()).or_default();
        let owner = present.iter().filter_map(|reader| reader.epoch).max();
        match (epoch, owner) {
            (Some(new), Some(held)) if held > new => {
                return Err(stolen(format!(
                    "Receiver 'nil' with a higher epoch '{held}' already exists. Receiver 'nil' with epoch {new} cannot be created. \
                     Make sure you are creating receiver with increasing epoch value to ensure connectivity, or ensure all old epoch \
                     receivers are closed or disconnected."
                )));
            }
            (Some(new), _) => {
                for reader in present.drain(..) {
                    let old = reader.epoch.unwrap_or_default();
                    reader.out.send_replace(Some(stolen(format!(
                        "New receiver 'nil' with higher epoch of '{new}' is created hence current receiver 'nil' with epoch '{old}' is \
                         getting disconnected. If you are recreating the receiver, make sure a higher epoch is used."
                    ))));
                }
            }
            (None, Some(held)) => {
                return Err(stolen(format!(
                    "At least one receiver for the endpoint is created with epoch of '{held}', and so non-epoch receiver is not \
                     allowed. Either reconnect with a higher epoch, or make sure all epoch receivers are closed or disconnected."
                )));
            }
            (None, None) if present.len() >= MAX_READERS => {
                return Err(error(
                    AmqpError::ResourceLimitExceeded,
                    format!(
                        "Exceeded the maximum number of allowed receivers per partition in a consumer group which is {MAX_READERS}."
                    ),
                ));
            }
            (None, None) => {}
        }
        *last_serial += 1;
        let (serial, sender) = (*last_serial, watch::Sender::new(None));
        let out = sender.subscribe();
        present.push(Reader { serial, epoch, out: sender });
        drop(seats);
        Ok(Place { readers: self.clone(), seat, serial, out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(group: &str) -> Seat {
        Seat { hub: "hub".into(), group: group.into(), partition: 0 }
    }

    fn taken(place: &Place) -> bool {
        place.out.borrow().is_some()
    }

    #[test]
    fn a_higher_or_equal_epoch_takes_over_and_a_lower_one_is_refused() {
        let readers = Arc::new(Readers::default());
        let first = readers.sit(seat("g"), Some(1)).expect("nobody is there");
        let same = readers.sit(seat("g"), Some(1)).expect("the newer of two equals");
        assert!(taken(&first));
        let refused = readers.sit(seat("g"), Some(0)).expect_err("lower");
        assert_eq!(refused.condition, LinkError::Stolen.into());
        let higher = readers.sit(seat("g"), Some(5)).expect("higher");
        assert!(taken(&same) && !taken(&higher));
        readers.sit(seat("other"), Some(0)).expect("another group");
    }

    #[test]
    fn an_owner_drives_the_others_out_and_keeps_them_out_until_it_goes() {
        let readers = Arc::new(Readers::default());
        let other = readers.sit(seat("g"), None).expect("nobody is there");
        let owner = readers.sit(seat("g"), Some(0)).expect("an owner is stronger");
        assert!(taken(&other));
        assert_eq!(readers.sit(seat("g"), None).expect_err("owned").condition, LinkError::Stolen.into());
        drop(owner);
        readers.sit(seat("g"), None).expect("free again");
    }

    #[test]
    fn five_readers_share_a_partition_and_the_sixth_is_one_too_many() {
        let readers = Arc::new(Readers::default());
        let mut places: Vec<_> = (0..5).map(|_| readers.sit(seat("g"), None).expect("room")).collect();
        let refused = readers.sit(seat("g"), None).expect_err("the sixth");
        assert_eq!(refused.condition, AmqpError::ResourceLimitExceeded.into());
        places.pop();
        readers.sit(seat("g"), None).expect("room again");
        drop(places);
        assert!(readers.seats().readers.is_empty(), "nothing is left behind");
    }
}
