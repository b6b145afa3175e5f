//! The Azure Functions host with a custom handler.
//!
//! | module | what it imitates |
//! |---|---|
//! | `app`, `function`, `retry` | `host.json` and `function.json` with their checks |
//! | `handler` | the process: start, readiness, restart, three errors stop the host |
//! | `proxy`, `proxy_headers`, `route` | HTTP triggers with `enableProxyingHttpRequest` |
//! | `trigger`, `call` | Event Hub triggers: batches, retries, checkpoints |
//! | `envelope`, `exception`, `json`, `time_span` | what goes to the handler, byte for byte |
//! | `verdict` | what the host makes of an answer |
//!
//! It follows recordings of host 4.1037 with Event Hubs extension 6.5. Where it is stricter than the real host it
//! refuses to start: a missing executable, an app without functions, a binding that is not simulated.

mod app;
mod call;
mod envelope;
mod exception;
mod function;
mod handler;
mod host;
mod json;
mod log;
mod proxy;
mod proxy_headers;
mod retry;
mod route;
mod shared;
mod time_span;
mod trigger;
mod verdict;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;

pub use app::StartError;
pub use host::{FunctionsHost, HostOptions};
pub use log::LogSink;
pub use shared::Counters;
