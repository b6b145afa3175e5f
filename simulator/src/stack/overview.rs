//! The Things Stack as the local page shows it.

use serde_json::{Map, Value, json};

use super::Stack;
use super::registry::Server;

impl Stack {
    /// How many devices there are and have a session, and how many downlinks wait for each of the first `limit` devices
    /// for which some do.
    #[must_use]
    pub fn overview(&self, limit: usize) -> Value {
        let world = self.shared.world();
        let waiting = world.sessions.iter().filter(|(_, session)| !session.queue.is_empty());
        let queues: Map<_, _> =
            waiting.take(limit).map(|(id, session)| (id.clone(), json!(session.queue.len()))).collect();
        json!({"devices": world.registries.identity.len(), "sessions": world.sessions.len(), "queues": queues})
    }

    /// Whether any server knows the device.
    #[must_use]
    pub fn knows(&self, device: &str) -> bool {
        let world = self.shared.world();
        Server::ALL.into_iter().any(|server| world.registries.of(server).contains_key(device))
    }
}
