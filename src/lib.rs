//! `tts-iot-hub`: the bridge between The Things Stack and Azure IoT Hub.
//!
//! Three flows use three clients; flows do not know each other, clients do not know each other, and only
//! `main` wires them; a command of `cli` may make a client of its own.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the commands beside `serve` |
//! | [`config`] | app settings → one typed [`config::Config`] |
//! | [`functions`] | the contract with the Azure Functions host |
//! | [`uplink_ingress`] | flow: a webhook becomes a short device session |
//! | [`parked_uplinks`] | flow: what could not be delivered is tried again |
//! | [`event_hub_forwarder`] | flow: an IoT Hub event becomes calls to The Things Stack |
//! | [`uplink_delivery`] | what the two uplink flows share: the plan of an uplink and its delivery |
//! | [`downlink_trace`] | how the flows speak of one downlink: correlation id and marker |
//! | [`message_type`] | the eleven types of messages |
//! | [`stack`] | client: The Things Stack, its messages and its API |
//! | [`iot_hub`] | client: Azure IoT Hub, device sessions, twins, registry |
//! | [`event_hubs`] | client: parking and dead letters |
//! | [`managed_identity`] | the tokens of the managed identity, for both Azure clients |

pub mod cli;
pub mod config;
pub mod downlink_trace;
pub mod event_hub_forwarder;
pub mod event_hubs;
pub mod failure;
pub mod functions;
pub mod ids;
pub mod iot_hub;
mod lock;
pub mod managed_identity;
pub mod message_type;
pub mod observability;
pub mod parked_uplinks;
pub mod stack;
pub mod uplink_delivery;
pub mod uplink_ingress;
