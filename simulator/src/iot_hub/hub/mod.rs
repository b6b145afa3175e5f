//! What devices and services do to the hub. Each call is atomic, and its events leave in the order of the calls.

mod device;
mod devicebound;
mod methods;
mod overview;
mod service;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::counters::CounterCells;
use super::devicebound::{Alarms, Outbox};
use super::fault::FaultSwitch;
use super::hub_name::HubName;
use super::injected_fault::InjectedFaults;
use super::limits::{Billable, Billed, Excess, Limits, Operation as Limited};
use super::registry::{Device, Registry};
use super::routing::{Delivery, HubEvent, Operation, Router};
use super::sas::Policy;
use super::sessions::Sessions;
use crate::faults::Faults;
use crate::happenings::Happenings;

#[derive(Default)]
struct State {
    registry: Registry,
    sessions: Sessions,
    alarms: Alarms,
    injected: InjectedFaults,
}

impl State {
    fn twin(&self, id: &str) -> Option<Value> {
        self.registry.device(id).map(Device::twin_document)
    }
}

/// The hub behind both protocols.
pub(in crate::iot_hub) struct Hub {
    name: HubName,
    policies: Vec<Policy>,
    router: Router,
    state: Mutex<State>,
    pub(in crate::iot_hub) clock: Clock,
    pub(in crate::iot_hub) feedback: Outbox,
    /// Told when the next alarm of a mailbox comes sooner than it seemed.
    alarm_moved: Notify,
    /// Told when a device connects or subscribes: a method call may wait for it.
    came_online: Notify,
    pub(in crate::iot_hub) counters: CounterCells,
    pub(in crate::iot_hub) fault: FaultSwitch,
    pub(in crate::iot_hub) faults: Faults,
    limits: Limits,
    pub(in crate::iot_hub) happenings: Happenings,
}

impl Hub {
    pub(in crate::iot_hub) fn new(
        host_name: &str,
        policies: Vec<Policy>,
        router: Router,
        stop: CancellationToken,
        faults: Faults,
        limits: Limits,
    ) -> Self {
        Self {
            name: HubName::new(host_name),
            policies,
            router,
            state: Mutex::default(),
            clock: Clock::default(),
            feedback: Outbox::default(),
            alarm_moved: Notify::new(),
            came_online: Notify::new(),
            counters: CounterCells::default(),
            fault: FaultSwitch::new(stop),
            faults,
            limits,
            happenings: Happenings::default(),
        }
    }

    /// The same hub, which tells what happens.
    pub(in crate::iot_hub) fn telling(self, happenings: Happenings) -> Self {
        Self { happenings, ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No call leaves the state half written, so a panic elsewhere in one leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an event of the hub. Called with the state locked, so that events keep the order of the writes.
    fn emit(&self, state: &State, operation: Operation, device_id: &str, body: Value, now: OffsetDateTime) {
        let event = HubEvent { operation, hub_name: self.name.short(), device_id, body };
        self.router.emit(event, now, &|id| state.twin(id));
    }

    /// Waits until the tier lets an operation in; see [`Limits::admit`].
    pub(in crate::iot_hub) async fn admit(&self, operation: Limited, amount: u64) -> Result<(), Excess> {
        self.limits.admit(operation, amount, self.clock.now()).await
    }

    /// Counts one operation that has been done.
    pub(in crate::iot_hub) fn bill(&self, kind: Billable, bytes: usize) {
        self.limits.bill(kind, bytes, self.clock.now());
    }

    /// Fills an operation's queue for longer than a test takes.
    #[cfg(test)]
    pub(in crate::iot_hub) fn fill_up(&self, operation: Limited) {
        self.limits.fill_up(operation);
    }

    pub(in crate::iot_hub) fn billed(&self) -> Billed {
        self.limits.billed(self.clock.now())
    }

    // Stories and tests.

    pub(in crate::iot_hub) fn device_ids(&self) -> Vec<String> {
        self.state().registry.ids()
    }

    /// Delivers events in another way from now on.
    pub(in crate::iot_hub) fn set_delivery(&self, delivery: Delivery) {
        let state = self.state();
        self.router.set_delivery(delivery, &|id| state.twin(id));
    }

    pub(in crate::iot_hub) fn set_device_enabled(&self, id: &str, enabled: bool) -> bool {
        let now = self.clock.now();
        let mut state = self.state();
        let known = state.registry.set_enabled(id, enabled, now);
        if !enabled {
            self.end_session(&mut state, id, now);
        }
        if known {
            self.tell_identity(id, if enabled { "enabled" } else { "disabled" });
        }
        known
    }
}
