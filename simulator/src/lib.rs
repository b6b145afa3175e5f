//! Azure IoT Hub, Azure Event Hubs, the Functions host and a small The Things Stack on one machine.
//!
//! | module | what it imitates |
//! |---|---|
//! | [`iot_hub`] | an IoT hub: devices over MQTT, the service API, message routing |
//! | [`event_hubs`] | an Event Hubs namespace: partitions, producers, consumers |
//! | `amqp` | the AMQP doors that both share |
//! | [`entra`] | bearer tokens |
//! | [`functions_host`] | the Azure Functions host with a custom handler |
//! | [`stack`] | The Things Stack: registries, downlink queues, webhooks |
//! | [`faults`] | what goes wrong on demand, at a named stage of an exchange |
//! | [`tls`] | a throw-away certificate authority |
//! | [`infra`] | what a template makes of Azure, from `bicep snapshot` |
//! | [`world`] | all of them, wired together |
//! | [`happenings`] | what happens in them, for whoever watches |
//! | [`control`] | the control API and the local page |
//! | [`service_client`] | what an operator does against the service API |
//! | [`fixtures`] | webhook bodies of the eleven message types, and nasty ones |
//! | [`demo`], [`run`] | the commands of the program |

mod amqp;
pub mod control;
pub mod demo;
pub mod entra;
pub mod event_hubs;
pub mod eventually;
pub mod faults;
pub mod fixtures;
pub mod functions_host;
pub mod happenings;
pub mod infra;
pub mod iot_hub;
pub mod run;
pub mod service_client;
mod shell_word;
pub mod stack;
pub mod tls;
pub mod world;
