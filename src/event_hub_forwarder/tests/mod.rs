//! The forwarder against a hub and a Things Stack in memory.

mod batches;
mod decoding;
mod flow;
mod plans;
mod world;
