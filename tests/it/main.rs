//! The promises, end to end: the real binary, started by the simulated Functions host, between simulated services.
#![allow(missing_docs, reason = "a test binary has no readers of its docs")]

mod answers;
mod by_hand;
mod documents;
mod downward;
mod every_right;
mod house;
mod infra;
mod managed_identity;
mod payloads;
mod prefix;
mod recordings;
mod records;
mod rights;
mod secrets;
mod settings;
mod support;
mod upward;
mod webhook_install;
