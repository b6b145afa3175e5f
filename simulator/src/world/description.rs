//! How clients reach what runs.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{DEAD_LETTERS, PARKED_UPLINKS, STACK_EVENTS, World};
use crate::iot_hub::BUILT_IN_EVENTS;
use crate::shell_word::shell_word;

impl World {
    /// All that a client of the simulated services needs to know.
    #[must_use]
    pub fn description(&self) -> Value {
        let policies: Vec<_> = self
            .policies
            .iter()
            .map(|policy| {
                let key = STANDARD.encode(&policy.key);
                json!({
                    "name": policy.name,
                    "key": key,
                    "connection_string": format!(
                        "HostName={};SharedAccessKeyName={};SharedAccessKey={key}",
                        self.hub_host, policy.name
                    ),
                })
            })
            .collect();
        let keys = self.events.takes_keys();
        let (webhook_url, headers) = self.webhook();
        let headers: BTreeMap<_, _> = headers.into_iter().collect();
        json!({
            "hub_host_name": self.hub_host,
            "mqtt": {"host": "localhost", "port": self.iot_hub.mqtt_addr().port()},
            "hub_https": {"host": "localhost", "port": self.iot_hub.https_addr().port()},
            "ca_file": self.ca_file(),
            "policies": policies,
            "event_hubs": {
                "port": self.event_hubs.addr().port(),
                "connection_string": keys.then(|| self.event_hubs.connection_string()),
                "amqps_port": self.event_hubs.tls_addr().map(|addr| addr.port()),
                "amqps_connection_string": self.event_hubs.tls_connection_string().filter(|_| keys),
                "built_in_endpoint": BUILT_IN_EVENTS,
                "stack_events": STACK_EVENTS,
                "parked_uplinks": PARKED_UPLINKS,
                "dead_letters": DEAD_LETTERS,
            },
            "stack": {
                "base_url": self.stack.base_url(),
                "application_id": self.application_id(),
                "api_key": self.api_key,
            },
            "functions": {"base_url": self.functions.base_url()},
            "webhook": {"url": webhook_url, "headers": headers},
        })
    }

    /// The settings, and what the platform adds, as lines that a shell or an env-file reader takes.
    #[must_use]
    pub fn env_file(&self) -> String {
        let all = self.settings.iter().chain(&self.platform);
        all.map(|(name, value)| format!("{name}={}\n", shell_word(value))).collect()
    }
}
