//! What UplinkIngress and ParkedUplinks share: the plan of an uplink and its delivery.
//!
//! [`plan`] is pure: it says what a message shall become. [`UplinkDelivery`] makes it so and says what is left.

mod compact;
mod dead_letter;
mod deliver;
mod delivered;
mod downlink_progress;
mod memory;
mod plan;
mod port;
mod reported;
#[cfg(test)]
pub(crate) mod scripted;
mod telemetry;
#[cfg(test)]
mod tests;

pub use dead_letter::dead_letter;
pub use deliver::{Origin, UplinkDelivery};
pub use delivered::{Delivered, Unfinished};
pub use downlink_progress::{DownlinkProgress, DownlinkStage};
pub use plan::{Decision, Ignored, UplinkPlan, plan};
pub use port::{DeviceHub, Failure, Landed, Refuge};
pub use reported::{Frame, Order, ReportedPlan};
pub use telemetry::TooLarge;
