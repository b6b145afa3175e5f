//! What a hub has done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter of events.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a hub has done since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters of a running hub.
        #[derive(Debug, Default)]
        pub(super) struct CounterCells {
            $(pub(super) $name: Cell,)*
        }

        impl CounterCells {
            pub(super) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// CONNECT packets answered 0.
    connects,
    /// CONNECT packets answered 5.
    connects_refused,
    /// Device-to-cloud messages stored.
    telemetry_accepted,
    /// Twins read by devices.
    twins_read,
    /// Patches of devices answered 204.
    twins_patched,
    /// Patches of devices answered 400.
    twins_refused,
    /// Identities created.
    devices_created,
    /// Identities deleted.
    devices_deleted,
    /// Connections closed because the device connected again.
    takeovers,
}
