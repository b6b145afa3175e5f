//! The hub as a whole goes away. What goes wrong in single exchanges is the matter of [`crate::faults`].

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the hub is away. It holds for new sockets and calls and for open sessions, until it is set again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It is not.
    #[default]
    None,
    /// Sockets are accepted, then nothing is said. What arrives meanwhile is lost.
    Silent,
    /// Sockets are closed at once, open ones too.
    Refuse,
}

/// The switch, and the sockets that it can close.
#[derive(Debug)]
pub(super) struct FaultSwitch {
    fault: watch::Sender<Fault>,
    stop: CancellationToken,
    sockets: Mutex<CancellationToken>,
}

impl FaultSwitch {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { fault: watch::Sender::default(), sockets: Mutex::new(stop.child_token()), stop }
    }

    pub(super) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
        if fault == Fault::Refuse {
            let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *sockets, self.stop.child_token()).cancel();
        }
    }

    pub(super) fn now(&self) -> Fault {
        *self.fault.borrow()
    }

    /// Cancelled when the sockets that are open now must close.
    pub(super) fn socket_token(&self) -> CancellationToken {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns once the hub is no longer silent.
    pub(super) async fn silence_lifted(&self) {
        // The sender lives as long as `self`, so waiting does not fail.
        let _ = self.fault.subscribe().wait_for(|fault| *fault != Fault::Silent).await;
    }
}
