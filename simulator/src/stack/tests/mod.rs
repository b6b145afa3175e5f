//! The main rules, over HTTP.

mod api;
mod support;
mod webhooks;
