//! The Things Stack: its messages and its API.
//!
//! | module | what it is |
//! |---|---|
//! | `message` | the one message that a webhook carries |
//! | `client` | one API call: address, credential, limits |
//! | `error` | what a refusal means |
//! | `registration` | `tags.lorawan` → an end device to register |
//! | `devices` | register and delete on the four servers |
//! | `downlinks` | the downlink queue of a device |
//! | `webhooks` | the webhooks of the application, and what the API key may do |
//! | `package` | the `azureiothub` package of Cloud and Enterprise |

mod client;
mod devices;
mod downlinks;
mod error;
mod message;
mod package;
mod registration;
#[cfg(test)]
mod tests;
mod webhooks;

pub use client::Stack;
pub use downlinks::{Downlink, QueueOperation};
pub use error::{Refusal, StackError, is_no_session};
pub(crate) use message::number;
pub use message::{ApplicationUp, ForeignApplication, MalformedMessage, parse_time, without_session_keys};
pub(crate) use registration::ROOT_KEYS;
pub use registration::{Registration, TagError, VersionIdentifiers};
pub use webhooks::{FoundWebhook, KeyInfo, Webhook, WebhookUpdate};
