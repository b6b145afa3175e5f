//! What a delivery left undone.

use super::port::Failure;
use crate::event_hubs::Open;
use crate::failure::Class;

/// A part of an uplink that is delivered or not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Telemetry,
    Twin,
    WaitingDownlink,
}

/// What a delivery left undone; nothing at all is the normal case. One part can be open while another is refused for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// What may succeed later.
    pub open: Option<Unfinished>,
    /// What never can.
    pub never: Option<Unfinished>,
}

/// Parts that were not delivered, and why the first of them was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The parts.
    pub open: Open,
    /// The class of the first failure.
    pub class: Class,
    /// The first failure.
    pub reason: String,
}

impl Delivered {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open.is_none() && self.never.is_none()
    }

    pub(super) fn note(&mut self, part: Part, result: Result<(), Failure>) {
        let Err(Failure { class, reason, .. }) = result else { return };
        let unfinished = if class == Class::Poison { &mut self.never } else { &mut self.open };
        let open = Open { telemetry: false, twin: false, waiting_downlink: false };
        let unfinished = unfinished.get_or_insert_with(|| Unfinished { open, class, reason });
        match part {
            Part::Telemetry => unfinished.open.telemetry = true,
            Part::Twin => unfinished.open.twin = true,
            Part::WaitingDownlink => unfinished.open.waiting_downlink = true,
        }
    }
}
