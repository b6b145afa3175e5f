//! The hub as its clients see it: over TLS, with packets and calls.

mod bearer;
mod connects;
mod devicebound;
mod devices;
mod events;
mod faults;
mod happenings;
mod limits;
mod methods;
mod ordered_faults;
mod service;
mod stages;
mod wills;
mod world;
