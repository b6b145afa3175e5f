//! The infrastructure agrees with the code, with docs/security.md and with itself.

mod access;
mod compiler;
mod existing_hub;
pub(crate) mod files;
mod forms;
mod settings;
mod shape;
mod snapshot;
