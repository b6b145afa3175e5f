//! A rule: where a fault strikes, how, and how often.

use serde::{Deserialize, Serialize};

/// The longest delay: ten minutes.
pub const MAX_DELAY_MS: u64 = 600_000;
/// The longest device id (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-identity-registry.md`).
const MAX_DEVICE_BYTES: usize = 128;

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A socket of the hub, MQTT or HTTPS, has been accepted.
    Tcp,
    /// The TLS handshake on such a socket is to begin.
    Tls,
    /// A device's CONNECT has been read.
    Connect,
    /// CONNECT is to be answered.
    Connack,
    /// SUBSCRIBE is to be answered.
    Suback,
    /// Telemetry has been read and is not stored yet.
    Publish,
    /// Telemetry of quality 1 is stored and to be acknowledged.
    Puback,
    /// A device's twin request is to be answered.
    TwinAnswer,
    /// A device's DISCONNECT has been read.
    Disconnect,
    /// A call of the hub's service API.
    Rest,
    /// An AMQP link is to be attached. Other links of its session do not wait for it.
    AmqpLink,
    /// A call of The Things Stack's API.
    StackApi,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 12] = [
        Self::Tcp,
        Self::Tls,
        Self::Connect,
        Self::Connack,
        Self::Suback,
        Self::Publish,
        Self::Puback,
        Self::TwinAnswer,
        Self::Disconnect,
        Self::Rest,
        Self::AmqpLink,
        Self::StackApi,
    ];

    /// The actions that mean something here.
    #[must_use]
    pub const fn actions(self) -> &'static [Action] {
        use Action::{Close, Delay, Drop, Refuse, Throttle};
        match self {
            Self::Tcp | Self::Tls => &[Delay, Drop, Refuse],
            Self::Connect | Self::Publish | Self::Puback => &[Delay, Drop, Close],
            Self::Connack | Self::TwinAnswer | Self::Rest | Self::StackApi => &[Delay, Drop, Close, Throttle, Refuse],
            Self::Suback => &[Delay, Drop, Close, Refuse],
            Self::Disconnect => &[Delay],
            Self::AmqpLink => &[Delay, Refuse],
        }
    }

    /// Whether it is known here which device is meant.
    const fn knows_the_device(self) -> bool {
        !matches!(self, Self::Tcp | Self::Tls | Self::AmqpLink)
    }
}

/// What a fault does.
///
/// At a stage that answers (`connack`, `suback`, `puback`, `twin_answer`, `rest`, `stack_api`) the work is done before
/// `delay`, `drop` and `close`: the client loses an answer. `throttle` and `refuse` come in place of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Goes on after `delay_ms`.
    Delay,
    /// Nothing is said and the connection stays open.
    Drop,
    /// The connection is closed without a word.
    Close,
    /// CONNACK 3; 429 to twin requests and to both HTTP APIs.
    Throttle,
    /// Socket closed (`tcp`), fatal alert (`tls`), CONNACK 5, SUBACK 0x80, 503 (twin, HTTP APIs), link detached.
    Refuse,
}

/// A fault at a stage: for the next `times` calls, for a `share` of all, or, with neither, for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Where.
    pub stage: Stage,
    /// What.
    pub action: Action,
    /// Only for this device; its id in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// For so many calls, then no more; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// For this share of the calls, by chance: above 0, at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Makes chance repeatable: the same seed strikes the same calls. Without one every rule differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How long `delay` takes, in milliseconds; at most [`MAX_DELAY_MS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// Why a rule is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// The stage knows no such action.
    #[error("{action:?} means nothing at the stage {stage:?}; it takes {:?}", stage.actions())]
    Action {
        /// The stage.
        stage: Stage,
        /// The action.
        action: Action,
    },
    /// At this stage no device is known.
    #[error("at the stage {0:?} no device is known; leave `device` out")]
    DeviceUnknown(Stage),
    /// No device has such an id.
    #[error("`device` must have 1 to 128 bytes")]
    Device,
    /// The rule would never strike.
    #[error("`times` must be at least 1")]
    Times,
    /// No share of a whole.
    #[error("`share` must be above 0 and at most 1, not {0}")]
    Share(f64),
    /// Which of the two counts?
    #[error("give `times` or `share`, not both")]
    TimesAndShare,
    /// There is no chance to repeat.
    #[error("`seed` has a meaning only with `share`")]
    SeedWithoutShare,
    /// The action needs it, and no other has a use for it.
    #[error("`delay_ms` belongs to the action `delay`, and only to that")]
    DelayTime,
    /// Too long.
    #[error("`delay_ms` must be at most {MAX_DELAY_MS}, not {0}")]
    DelayTooLong(u64),
    /// Enough is enough.
    #[error("there are {max} rules already; remove some", max = super::MAX_RULES)]
    TooMany,
}

impl Rule {
    /// A rule that always strikes.
    #[must_use]
    pub const fn new(stage: Stage, action: Action) -> Self {
        Self { stage, action, device: None, times: None, share: None, seed: None, delay_ms: None }
    }

    pub(super) fn check(&self) -> Result<(), RuleError> {
        let Self { stage, action, .. } = *self;
        if !stage.actions().contains(&action) {
            return Err(RuleError::Action { stage, action });
        }
        if let Some(device) = &self.device {
            if !stage.knows_the_device() {
                return Err(RuleError::DeviceUnknown(stage));
            }
            if device.is_empty() || device.len() > MAX_DEVICE_BYTES {
                return Err(RuleError::Device);
            }
        }
        match (self.times, self.share) {
            (Some(_), Some(_)) => return Err(RuleError::TimesAndShare),
            (Some(0), None) => return Err(RuleError::Times),
            (None, Some(share)) if !(share > 0.0 && share <= 1.0) => return Err(RuleError::Share(share)),
            (_, None) if self.seed.is_some() => return Err(RuleError::SeedWithoutShare),
            _ => {}
        }
        match self.delay_ms {
            given if given.is_some() != (action == Action::Delay) => Err(RuleError::DelayTime),
            Some(millis) if millis > MAX_DELAY_MS => Err(RuleError::DelayTooLong(millis)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(text: Value) -> Rule {
        serde_json::from_value(text).expect("it has the form of a rule")
    }

    #[test]
    fn rules_are_taken_or_refused_with_a_reason() {
        let long = "d".repeat(129);
        for (text, verdict) in [
            (json!({"stage": "puback", "action": "close"}), Ok(())),
            (json!({"stage": "puback", "action": "close", "device": "d1", "times": 3}), Ok(())),
            (json!({"stage": "rest", "action": "throttle", "share": 0.1, "seed": 7}), Ok(())),
            (json!({"stage": "tcp", "action": "refuse", "share": 1}), Ok(())),
            (json!({"stage": "disconnect", "action": "delay", "delay_ms": 600_000}), Ok(())),
            (json!({"stage": "puback", "action": "close", "times": 0}), Err(RuleError::Times)),
            (json!({"stage": "puback", "action": "close", "share": 0.0}), Err(RuleError::Share(0.0))),
            (json!({"stage": "puback", "action": "close", "share": 1.1}), Err(RuleError::Share(1.1))),
            (json!({"stage": "puback", "action": "close", "share": -1.0}), Err(RuleError::Share(-1.0))),
            (json!({"stage": "puback", "action": "close", "times": 1, "share": 0.5}), Err(RuleError::TimesAndShare)),
            (json!({"stage": "puback", "action": "close", "times": 1, "seed": 1}), Err(RuleError::SeedWithoutShare)),
            (json!({"stage": "puback", "action": "close", "seed": 1}), Err(RuleError::SeedWithoutShare)),
            (json!({"stage": "puback", "action": "close", "device": ""}), Err(RuleError::Device)),
            (json!({"stage": "puback", "action": "close", "device": long}), Err(RuleError::Device)),
            (json!({"stage": "tls", "action": "drop", "device": "d1"}), Err(RuleError::DeviceUnknown(Stage::Tls))),
            (json!({"stage": "puback", "action": "delay"}), Err(RuleError::DelayTime)),
            (json!({"stage": "puback", "action": "drop", "delay_ms": 1}), Err(RuleError::DelayTime)),
            (json!({"stage": "rest", "action": "delay", "delay_ms": 600_001}), Err(RuleError::DelayTooLong(600_001))),
            (
                json!({"stage": "disconnect", "action": "refuse"}),
                Err(RuleError::Action { stage: Stage::Disconnect, action: Action::Refuse }),
            ),
        ] {
            assert_eq!(rule(text.clone()).check(), verdict, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_not_read() {
        for text in [
            json!({"stage": "puback"}),
            json!({"stage": "nowhere", "action": "close"}),
            json!({"stage": "puback", "action": "explode"}),
            json!({"stage": "puback", "action": "close", "devise": "d1"}),
            json!({"stage": "puback", "action": "close", "times": -1}),
            json!("puback"),
        ] {
            assert!(serde_json::from_value::<Rule>(text.clone()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_is_written_as_it_was_read() {
        let text = json!({"stage": "twin_answer", "action": "throttle", "device": "d1", "share": 0.5, "seed": 7});
        assert_eq!(serde_json::to_value(rule(text.clone())).expect("it is JSON"), text);
    }
}
