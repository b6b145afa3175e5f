//! What shall become of an uplink.

use super::reported::{self, ReportedPlan};
use super::telemetry::{self, TooLarge};
use crate::config::UplinkConfig;
use crate::event_hubs::Open;
use crate::ids::EndDevice;
use crate::iot_hub::Telemetry;
use crate::message_type::MessageType;
use crate::stack::ApplicationUp;

/// Frame counters at which a session may have just begun: the webhook of the join may have been lost.
const FIRST_FRAMES: std::ops::RangeInclusive<u64> = 0..=1;

/// What shall become of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is delivered.
    Deliver(Box<UplinkPlan>),
    /// Nothing is to be done.
    Ignore(Ignored),
}

/// Why nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Newer than this version.
    #[error("this version does not know the message type")]
    UnknownType,
    /// A field mask without the message itself.
    #[error("the body holds no message; widen the webhook's field mask")]
    Empty,
    /// The settings leave it out.
    #[error("the settings TELEMETRY_MESSAGES and TWIN_MESSAGES leave `{}` out", .0.key())]
    Filtered(MessageType),
}

/// What an uplink becomes in IoT Hub.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkPlan {
    /// Its device.
    pub device: EndDevice,
    /// Its identity: equal messages have one.
    pub message_id: String,
    /// The device-to-cloud message, or why there can be none.
    pub telemetry: Option<Result<Telemetry, TooLarge>>,
    /// What is reported.
    pub reported: Option<ReportedPlan>,
    /// Whether a downlink may wait for what this message tells: that the device has a session.
    pub check_waiting_downlink: bool,
}

impl UplinkPlan {
    /// Everything that the plan asks for.
    #[must_use]
    pub fn open(&self) -> Open {
        Open {
            telemetry: self.telemetry.is_some(),
            twin: self.reported.is_some(),
            waiting_downlink: self.check_waiting_downlink,
        }
    }
}

/// Plans an uplink. The message should be [complete](ApplicationUp::complete): without a time nothing is reported.
#[must_use]
pub fn plan(up: &ApplicationUp, config: &UplinkConfig) -> Decision {
    let Some(kind) = up.kind else {
        return Decision::Ignore(if up.is_empty() { Ignored::Empty } else { Ignored::UnknownType });
    };
    let message_id = up.message_id();
    let telemetry = config
        .telemetry_messages
        .contains(&kind)
        .then(|| telemetry::telemetry(up, kind, &message_id, config.telemetry_body));
    let reported = config.twin_messages.contains(&kind).then(|| reported::reported(up, kind)).flatten();
    // Whatever the filters say: a downlink that waits must not wait for ever.
    let check_waiting_downlink = begins_a_session(up, kind);
    if telemetry.is_none() && reported.is_none() && !check_waiting_downlink {
        return Decision::Ignore(Ignored::Filtered(kind));
    }
    let device = up.device.clone();
    Decision::Deliver(Box::new(UplinkPlan { device, message_id, telemetry, reported, check_waiting_downlink }))
}

fn begins_a_session(up: &ApplicationUp, kind: MessageType) -> bool {
    match kind {
        MessageType::JoinAccept => true,
        MessageType::UplinkMessage => up.f_cnt().is_some_and(|f_cnt| FIRST_FRAMES.contains(&f_cnt)),
        _ => false,
    }
}
