//! App settings → one typed [`Config`]. Every problem is reported at once, at start, with its remedy.

mod event_hubs;
mod hub;
mod loopback;
mod problems;
mod reader;
mod stack;
#[cfg(test)]
mod tests;
mod uplink;
mod webhook_install;

pub(crate) use event_hubs::PLAIN_PORT;
pub use event_hubs::{EventHubsAuth, EventHubsConfig};
pub use hub::{HubConfig, Pipeline, PolicyKey, ServiceAuth, Sku};
pub(crate) use loopback::is_loopback;
pub use problems::Problems;
pub use reader::SETTINGS;
pub use stack::{EventsTarget, StackConfig};
pub use uplink::{TelemetryBody, UplinkConfig};
pub use webhook_install::WebhookInstallConfig;

use crate::observability::{Filter, Format, Recording};
use reader::Reader;

/// Everything the bridge is told by its app settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The port on which the Functions host expects the handler.
    pub port: u16,
    /// The Things Stack.
    pub stack: StackConfig,
    /// Azure IoT Hub.
    pub hub: HubConfig,
    /// The Event Hubs namespace of the bridge.
    pub event_hubs: EventHubsConfig,
    /// What becomes of an uplink.
    pub uplink: UplinkConfig,
    /// What is recorded, and how.
    pub log: Recording,
}

impl Config {
    /// Reads the configuration from the variables of the process.
    ///
    /// # Errors
    /// All problems at once: missing, malformed and contradicting settings, each with what to do.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, Problems> {
        let mut read = Reader::new(vars);
        let port = read.port();
        let stack = StackConfig::read(&mut read);
        let hub = HubConfig::read(&mut read);
        let event_hubs = EventHubsConfig::read(&mut read);
        let uplink = UplinkConfig::read(&mut read);
        let log = recording(&mut read);
        if let (Some(stack), Some(hub)) = (&stack, &hub) {
            check_prefix(&mut read, stack, hub);
        }
        read.finish(|| {
            Some(Self { port: port?, stack: stack?, hub: hub?, event_hubs: event_hubs?, uplink: uplink?, log: log? })
        })
    }
}

/// The package itself connects to IoT Hub, under the ids of The Things Stack.
fn check_prefix(read: &mut Reader, stack: &StackConfig, hub: &HubConfig) {
    if stack.events_target == EventsTarget::Package && !hub.device_prefix.is_empty() {
        read.problem(
            "DEVICE_ID_PREFIX",
            "cannot go with STACK_EVENTS_TARGET=package, whose package knows no prefix; leave one of them out",
        );
    }
}

fn recording(read: &mut Reader) -> Option<Recording> {
    let filter = filter(read);
    let format = read.choice("LOG_FORMAT", &[("text", Format::Text), ("json", Format::Json)], Format::default());
    Some(Recording { filter: filter?, format: format? })
}

fn filter(read: &mut Reader) -> Option<Filter> {
    let Some(value) = read.optional("LOG_LEVEL") else { return Some(Filter::default()) };
    let filter = Filter::parse(&value);
    if filter.is_none() {
        read.problem("LOG_LEVEL", "is neither a level (error, warn, info, debug, trace) nor a filter such as `info,tts_iot_hub::iot_hub=debug`");
    }
    filter
}
