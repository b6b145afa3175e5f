//! The faults that a device can order for itself by telemetry with certain properties, as Microsoft's own end-to-end tests do
//! (`Azure/azure-iot-sdk-csharp e2e/test/helpers/templates/FaultInjection.cs`).
//!
//! The order itself is never answered by PUBACK. After the delay the connection falls, and until the duration is over the
//! device meets the fault.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};

use super::property_bag::Bag;

const TYPE: &str = "AzIoTHub_FaultOperationType";
const DELAY: &str = "AzIoTHub_FaultOperationDelayInSecs";
const DURATION: &str = "AzIoTHub_FaultOperationDurationInSecs";
/// The longest delay and the longest duration; longer ones are cut.
const LONGEST: Duration = Duration::DAY;

/// What goes wrong. How the connection falls, and what the device meets afterwards:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `KillTcp`: the socket breaks; new ones are closed without CONNACK.
    KillTcp,
    /// `ShutDownMqtt`: the socket is closed in order; CONNECT is answered 3.
    ShutDownMqtt,
    /// `InvokeThrottling`: twin requests are answered 429, telemetry ends the connection.
    Throttling,
    /// `InvokeMaxMessageQuota`: telemetry resets the socket.
    MaxMessageQuota,
    /// `InvokeAuthError`: CONNECT is answered 5.
    AuthError,
}

/// A fault, as a device orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) kind: Kind,
    pub(super) delay: Duration,
    duration: Duration,
}

impl Order {
    /// The order in a property bag, if there is one that concerns MQTT.
    pub(super) fn parse(bag: &Bag) -> Option<Self> {
        let value = |name| bag.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
        let kind = match value(TYPE)? {
            "KillTcp" => Kind::KillTcp,
            "ShutDownMqtt" => Kind::ShutDownMqtt,
            "InvokeThrottling" => Kind::Throttling,
            "InvokeMaxMessageQuota" => Kind::MaxMessageQuota,
            "InvokeAuthError" => Kind::AuthError,
            other => {
                tracing::debug!(fault = other, "an ordered fault means nothing to MQTT: the message is like any other");
                return None;
            }
        };
        let seconds = |name| value(name).and_then(seconds).unwrap_or_default();
        Some(Self { kind, delay: seconds(DELAY), duration: seconds(DURATION) })
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0)?;
    Some(Duration::checked_seconds_f64(seconds).map_or(LONGEST, |duration| duration.min(LONGEST)))
}

/// The ordered faults of all devices.
#[derive(Debug, Default)]
pub(super) struct InjectedFaults {
    by_device: HashMap<String, Affliction>,
}

#[derive(Debug)]
struct Affliction {
    kind: Kind,
    from: OffsetDateTime,
    until: OffsetDateTime,
}

impl InjectedFaults {
    /// Takes an order, in place of the device's one before. Returns when the connection falls.
    pub(super) fn order(&mut self, device_id: &str, order: Order, now: OffsetDateTime) -> OffsetDateTime {
        self.by_device.retain(|_, affliction| affliction.until > now);
        let from = now.saturating_add(order.delay);
        let affliction = Affliction { kind: order.kind, from, until: from.saturating_add(order.duration) };
        self.by_device.insert(device_id.to_owned(), affliction);
        from
    }

    /// What a device suffers from now.
    pub(super) fn of(&self, device_id: &str, now: OffsetDateTime) -> Option<Kind> {
        let affliction = self.by_device.get(device_id)?;
        (affliction.from <= now && now < affliction.until).then_some(affliction.kind)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 09:00 UTC);

    fn order(kind: &str, delay: &str, duration: &str) -> Option<Order> {
        let pairs =
            [(TYPE, kind), (DELAY, delay), (DURATION, duration), ("AzIoTHub_FaultOperationCloseReason", "boom")];
        Order::parse(&pairs.map(|(key, value)| (key.to_owned(), Some(value.to_owned()))).into())
    }

    #[test]
    fn orders_for_mqtt_are_understood() {
        for (name, kind) in [
            ("KillTcp", Kind::KillTcp),
            ("ShutDownMqtt", Kind::ShutDownMqtt),
            ("InvokeThrottling", Kind::Throttling),
            ("InvokeMaxMessageQuota", Kind::MaxMessageQuota),
            ("InvokeAuthError", Kind::AuthError),
        ] {
            let expected = Order { kind, delay: Duration::SECOND, duration: Duration::seconds(5) };
            assert_eq!(order(name, "1", "5"), Some(expected), "{name}");
        }
        assert_eq!(order("KillAmqpConnection", "1", "5"), None);
        assert_eq!(Order::parse(&vec![("type".into(), Some("KillTcp".into()))]), None);
    }

    #[test]
    fn odd_times_have_one_reading() {
        for (text, expected) in [
            ("0.5", Duration::milliseconds(500)),
            ("-1", Duration::ZERO),
            ("soon", Duration::ZERO),
            ("NaN", Duration::ZERO),
            ("1e300", LONGEST),
        ] {
            assert_eq!(order("KillTcp", text, "5").map(|order| order.delay), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_fault_holds_after_its_delay_for_its_duration() {
        let mut faults = InjectedFaults::default();
        let ordered = order("KillTcp", "2", "5").expect("it is an order");
        assert_eq!(faults.order("d1", ordered, NOW), NOW + Duration::seconds(2));
        for (second, expected) in [(1, None), (2, Some(Kind::KillTcp)), (6, Some(Kind::KillTcp)), (7, None)] {
            assert_eq!(faults.of("d1", NOW + Duration::seconds(second)), expected, "{second}");
        }
        assert_eq!(faults.of("d2", NOW + Duration::seconds(3)), None);
    }

    #[test]
    fn faults_that_are_over_are_forgotten() {
        let mut faults = InjectedFaults::default();
        let ordered = order("KillTcp", "0", "1").expect("it is an order");
        faults.order("d1", ordered, NOW);
        faults.order("d2", ordered, NOW + Duration::MINUTE);
        assert_eq!(faults.by_device.len(), 1);
    }
}
