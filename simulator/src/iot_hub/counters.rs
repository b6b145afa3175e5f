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
    /// Cloud-to-device messages accepted for a device.
    c2d_accepted,
    /// Cloud-to-device messages that a device has.
    c2d_completed,
    /// Cloud-to-device messages that waited too long.
    c2d_expired,
    /// Cloud-to-device messages taken out of a queue by a purge or a clean session.
    c2d_purged,
    /// Method calls handed to a device.
    methods_called,
    /// Wills sent in the name of a device.
    wills,
    /// Faults that devices ordered by the properties of a message.
    faults_injected,
}
