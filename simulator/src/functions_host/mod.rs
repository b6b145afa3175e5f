//! The Azure Functions host with a custom handler.
//!
//! | module | what it imitates |
//! |---|---|
//! | `app`, `function`, `retry` | `host.json` and `function.json` with their checks |
//! | `handler` | the process: start, readiness, restart, three errors stop the host |
//! | `fleet`, `scale` | several instances per function, and which of them a call goes to |
//! | `server`, `proxy`, `proxy_headers`, `answer_body`, `route` | HTTP triggers with `enableProxyingHttpRequest` |
//! | `wire`, `names` | the host's HTTP client, byte for byte |
//! | `admin` | the part of `/admin` that touches the handler |
//! | `listener` | whether the listener of an Event Hub trigger may start |
//! | `trigger`, `call` | Event Hub triggers: batches, retries, checkpoints |
//! | `envelope`, `binding_data`, `exception`, `json`, `time_span` | what goes to the handler, byte for byte |
//! | `verdict` | what the host makes of an answer |
//! | `pace` | the same, faster |
//!
//! It follows recordings of host 4.1037 with Event Hubs extension 6.5. Where it is stricter than the real host it
//! refuses to start: a missing executable, an app without functions, a binding that is not simulated.

mod admin;
mod answer_body;
mod app;
mod binding_data;
mod call;
mod envelope;
mod exception;
mod fleet;
mod function;
mod handler;
mod host;
mod json;
mod listener;
mod log;
mod names;
mod pace;
mod proxy;
mod proxy_headers;
mod retry;
mod route;
mod scale;
mod server;
mod shared;
mod time_span;
mod trigger;
mod verdict;
mod wire;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use app::StartError;
pub use host::{FunctionsHost, HostOptions};
pub use log::LogSink;
#[doc(hidden)]
pub use pace::Pace;
pub use scale::ScaleError;
pub use shared::Counters;
