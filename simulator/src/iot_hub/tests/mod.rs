//! The hub as its clients see it: over TLS, with packets and calls.

mod devices;
mod events;
mod faults;
mod service;
mod world;
