//! What devices and services do to the hub. Each call is atomic, and its events leave in the order of the calls.

mod device;
mod service;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::counters::CounterCells;
use super::fault::FaultSwitch;
use super::hub_name::HubName;
use super::registry::Registry;
use super::routing::{HubEvent, Operation, Router};
use super::sas::Policy;
use super::sessions::Sessions;

#[derive(Default)]
struct State {
    registry: Registry,
    sessions: Sessions,
}

/// The hub behind both protocols.
pub(in crate::iot_hub) struct Hub {
    name: HubName,
    policies: Vec<Policy>,
    router: Router,
    state: Mutex<State>,
    pub(in crate::iot_hub) counters: CounterCells,
    pub(in crate::iot_hub) fault: FaultSwitch,
}

impl Hub {
    pub(in crate::iot_hub) fn new(
        host_name: &str,
        policies: Vec<Policy>,
        router: Router,
        stop: CancellationToken,
    ) -> Self {
        Self {
            name: HubName::new(host_name),
            policies,
            router,
            state: Mutex::default(),
            counters: CounterCells::default(),
            fault: FaultSwitch::new(stop),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No call leaves the state half written, so a panic elsewhere in one leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an event of the hub. Called with the state locked, so that events keep the order of the writes.
    fn emit(&self, operation: Operation, device_id: &str, body: Value, now: OffsetDateTime) {
        let event = HubEvent { operation, hub_name: self.name.short(), device_id, body };
        self.router.dispatch(operation.source(), event.into_event(now));
    }

    // Stories and tests.

    pub(in crate::iot_hub) fn device_ids(&self) -> Vec<String> {
        self.state().registry.ids()
    }

    pub(in crate::iot_hub) fn set_device_enabled(&self, id: &str, enabled: bool) -> bool {
        let mut state = self.state();
        let known = state.registry.set_enabled(id, enabled, OffsetDateTime::now_utc());
        if !enabled {
            state.sessions.end(id);
        }
        known
    }
}
