//! Flow EventHubForwarder: decode → plan → apply → answer.
//!
//! | module | what it is |
//! |---|---|
//! | `decode` | an event of the Event Hub → what IoT Hub says happened |
//! | `desired` | desired properties → the downlink that they ask for |
//! | `plan` | pure: event and twin → the next thing to do |
//! | `apply` | executes plans |
//! | `batch` | order, parallelism, tries, and the answer to the host |
//! | `progress` | what this process remembers of events |
//! | `services` | what is needed of the clients |
//! | `tally` | what became of the events, counted |
//! | `scrub` | no root key in a dead letter |
//! | `canonical` | equal values have equal hashes |

mod apply;
mod batch;
mod canonical;
mod decode;
mod desired;
mod plan;
mod progress;
mod scrub;
mod services;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apply::Worker;
use batch::Batches;
use plan::Rules;
use services::Clients;

use crate::config::StackConfig;
use crate::event_hubs::EventHubs;
use crate::functions::{EventHubFunction, Invocation, Outcome};
use crate::ids::DevicePrefix;
use crate::iot_hub::IotHub;
use crate::stack::Stack;

/// The function that the Event Hub `stack-events` triggers.
#[derive(Debug)]
pub struct EventHubForwarder {
    batches: Batches<Clients>,
}

impl EventHubForwarder {
    /// A forwarder that works with these clients. Devices without the prefix are none of ours.
    #[must_use]
    pub fn new(
        config: &StackConfig,
        prefix: DevicePrefix,
        stack: Arc<Stack>,
        hub: Arc<IotHub>,
        event_hubs: Arc<EventHubs>,
    ) -> Self {
        let rules = Rules {
            application: config.application_id.clone(),
            prefix,
            keep_root_keys: config.keep_root_keys,
            sync_delete: config.sync_delete,
        };
        let services = Arc::new(Clients { stack, hub, event_hubs });
        Self { batches: Batches::new(Worker { services, rules, target: config.events_target }) }
    }
}

impl EventHubFunction for EventHubForwarder {
    async fn run(&self, invocation: Invocation) -> Outcome {
        self.batches.run(invocation).await
    }
}
