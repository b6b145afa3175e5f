//! The formulas.
//!
//! Sources: what a hub's message is, and the sizes' quotas, `MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-pricing.md`
//! and `iot-hub-devguide-quotas-throttling.md`; what Flex Consumption bills, `includes/functions-flex-consumption-billing-table.md`.

use serde_json::Value;

use super::prices::{
    EXECUTING, EXECUTIONS, HUB_S1, HUB_S2, LOG_DATA, Price, READY_BASELINE, READY_EXECUTING, RULE_5_MIN, RULE_15_MIN,
    RULE_METRIC, THROUGHPUT_UNIT,
};

const DAYS_A_MONTH: u64 = 30;
const SECONDS_A_DAY: u64 = 86_400;
const SECONDS_A_MONTH: u64 = DAYS_A_MONTH * SECONDS_A_DAY;

/// Messages that a unit of a size takes in a day.
const S1_MESSAGES_A_DAY: u64 = 400_000;
const S2_MESSAGES_A_DAY: u64 = 6_000_000;
/// What the free size takes, in blocks of [`FREE_BLOCK_BYTES`].
pub(super) const FREE_MESSAGES_A_DAY: u64 = 8_000;
const FREE_BLOCK_BYTES: u64 = 512;

/// Memory of an instance, as the template sets it.
const INSTANCE_GB: f64 = 0.5;
/// The shortest time that an instance is billed for once something executes on it.
const SHORTEST_ACTIVITY_S: u64 = 1;
/// Free each month, on demand.
const FREE_GB_S: f64 = 100_000.0;
const FREE_EXECUTIONS: f64 = 250_000.0;

/// Assumed, to be measured with the query on the page: the host's record of a request, and the bridge's line on a webhook.
pub(super) const REQUEST_RECORD_BYTES: u64 = 900;
pub(super) const LOG_BYTES: u64 = REQUEST_RECORD_BYTES + 600;
/// Free each month.
const FREE_LOG_GB: f64 = 5.0;

/// The default of `TWIN_LAST_SEEN_INTERVAL_S`.
const LAST_SEEN_INTERVAL_S: u64 = 3_600;

/// Devices that send at one interval.
#[derive(Clone, Copy)]
pub(super) struct Fleet {
    pub(super) devices: u64,
    pub(super) minutes: u64,
}

/// What becomes of the twin.
#[derive(Clone, Copy)]
pub(super) enum Patch {
    /// Readings change: one write per uplink.
    Each,
    /// They do not, and the instance lives on: `lastSeenAt` alone.
    LastSeenOnly,
    /// `TWIN_MESSAGES=none`.
    None,
}

/// What a hub must take, and its cheapest size.
pub(super) struct Hub {
    pub(super) messages_a_day: u64,
    pub(super) size: String,
    pub(super) usd: f64,
}

impl Fleet {
    pub(super) fn uplinks_a_day(self) -> u64 {
        self.devices * 24 * 60 / self.minutes
    }

    fn uplinks_a_month(self) -> u64 {
        self.uplinks_a_day() * DAYS_A_MONTH
    }

    /// With one write per uplink, on average.
    pub(super) fn twin_writes_a_second(self) -> f64 {
        self.uplinks_a_day() as f64 / SECONDS_A_DAY as f64
    }

    /// With telemetry of so many 4 KB blocks. A twin write is one block.
    pub(super) fn hub(self, telemetry_blocks: u64, patch: Patch) -> Hub {
        let uplinks = self.uplinks_a_day();
        let patches = match patch {
            Patch::Each => uplinks,
            // The first uplink at which the interval is over.
            Patch::LastSeenOnly => uplinks / LAST_SEEN_INTERVAL_S.div_ceil(self.minutes * 60),
            Patch::None => 0,
        };
        let messages_a_day = uplinks * telemetry_blocks + patches;
        let sized = |name: &str, quota: u64, price: Price| {
            let units = messages_a_day.div_ceil(quota);
            (format!("{units} × {name}"), units as f64 * price.usd)
        };
        let s1 = sized("S1", S1_MESSAGES_A_DAY, HUB_S1);
        let s2 = sized("S2", S2_MESSAGES_A_DAY, HUB_S2);
        let (size, usd) = if s2.1 < s1.1 { s2 } else { s1 };
        Hub { messages_a_day, size, usd }
    }

    /// At most: as if no two uplinks shared a second, up to an instance that is busy all month.
    fn gb_s(self) -> f64 {
        (self.uplinks_a_month() * SHORTEST_ACTIVITY_S).min(SECONDS_A_MONTH) as f64 * INSTANCE_GB
    }

    pub(super) fn functions_on_demand(self) -> f64 {
        let executions = self.uplinks_a_month() as f64;
        (self.gb_s() - FREE_GB_S).max(0.0) * EXECUTING.usd
            + (executions - FREE_EXECUTIONS).max(0.0) / 1e6 * EXECUTIONS.usd
    }

    /// With one instance; nothing is free then.
    pub(super) fn functions_always_ready(self) -> f64 {
        SECONDS_A_MONTH as f64 * INSTANCE_GB * READY_BASELINE.usd
            + self.gb_s() * READY_EXECUTING.usd
            + self.uplinks_a_month() as f64 / 1e6 * EXECUTIONS.usd
    }

    pub(super) fn log_gb(self, bytes: u64) -> f64 {
        (self.uplinks_a_month() * bytes) as f64 / 1e9
    }

    pub(super) fn logs(self, bytes: u64) -> f64 {
        (self.log_gb(bytes) - FREE_LOG_GB).max(0.0) * LOG_DATA.usd
    }
}

/// One throughput unit for a month. Its events are few: parked uplinks and twin changes.
pub(super) fn event_hubs() -> f64 {
    (DAYS_A_MONTH * 24) as f64 * THROUGHPUT_UNIT.usd
}

/// The alert rules that the template makes, by its evaluated default.
pub(super) fn alerts() -> f64 {
    const TEMPLATE: &str = include_str!("../../../infra/snapshots/default.snapshot.json");
    let template: Value = serde_json::from_str(TEMPLATE).expect("the snapshot is JSON");
    let resources = template["predictedResources"].as_array().expect("the snapshot lists resources");
    let price = |resource: &Value| match resource["type"].as_str() {
        Some("Microsoft.Insights/metricAlerts") => RULE_METRIC.usd,
        Some("Microsoft.Insights/scheduledQueryRules") => {
            match resource["properties"]["evaluationFrequency"].as_str() {
                Some("PT5M") => RULE_5_MIN.usd,
                _ => RULE_15_MIN.usd,
            }
        }
        _ => 0.0,
    };
    resources.iter().map(price).sum()
}

/// The size of telemetry, by two messages of the tests.
pub(super) struct GatewayMessage {
    pub(super) what: &'static str,
    /// Body, and properties.
    pub(super) bytes: u64,
}

impl GatewayMessage {
    pub(super) fn all() -> [Self; 3] {
        const ONE: &str = include_str!("../../../tests/fixtures/webhooks/uplink_message/with_location.json");
        const THREE: &str = include_str!("../../../tests/fixtures/webhooks/uplink_message/full.json");
        [
            Self { what: "small, one gateway", bytes: bytes(ONE, usize::MAX) },
            Self { what: "with every field, three gateways", bytes: bytes(THREE, usize::MAX) },
            // The first is the best.
            Self { what: "the same, `TELEMETRY_BODY=compact`", bytes: bytes(THREE, 1) },
        ]
    }

    /// On the free size, with or without a twin write of one block.
    pub(super) fn free_tier_messages(&self, twin: bool) -> u64 {
        self.bytes.div_ceil(FREE_BLOCK_BYTES) + u64::from(twin)
    }
}

/// Assumed: what the application and system properties of telemetry add.
const PROPERTY_BYTES: u64 = 300;

fn bytes(message: &str, gateways: usize) -> u64 {
    // The files are indented; The Things Stack sends none of that.
    let mut message: Value = serde_json::from_str(message).expect("the fixture is JSON");
    if let Some(metadata) = message.pointer_mut("/uplink_message/rx_metadata").and_then(Value::as_array_mut) {
        metadata.truncate(gateways);
    }
    message.to_string().len() as u64 + PROPERTY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: Fleet = Fleet { devices: 10_000, minutes: 15 };
    const SMALL: Fleet = Fleet { devices: 100, minutes: 60 };

    #[test]
    fn the_cheapest_size_that_takes_a_day_is_chosen() {
        for (fleet, blocks, patch, messages, size, usd) in [
            (SMALL, 1, Patch::Each, 4_800, "1 × S1", 25.0),
            (BIG, 1, Patch::None, 960_000, "3 × S1", 75.0),
            (BIG, 1, Patch::LastSeenOnly, 1_200_000, "3 × S1", 75.0),
            (BIG, 1, Patch::Each, 1_920_000, "5 × S1", 125.0),
            (BIG, 4, Patch::Each, 4_800_000, "1 × S2", 250.0),
        ] {
            let hub = fleet.hub(blocks, patch);
            assert_eq!((hub.messages_a_day, hub.size.as_str(), hub.usd), (messages, size, usd));
        }
        // At an hour, each uplink brings a new `lastSeenAt`.
        assert_eq!(SMALL.hub(1, Patch::LastSeenOnly).messages_a_day, 4_800);
    }

    #[test]
    fn functions_are_free_for_few_and_bounded_for_many() {
        assert_eq!(SMALL.functions_on_demand(), 0.0);
        // Busy all month: (2 592 000 s × 0.5 GB − 100 000) × 0.000026 + (28.8 − 0.25) × 0.4.
        assert!((BIG.functions_on_demand() - (31.096 + 11.42)).abs() < 0.001, "{}", BIG.functions_on_demand());
        // 5.184 of baseline, 72 000 executions of half a GB-s each.
        assert!((SMALL.functions_always_ready() - (5.184 + 0.576 + 0.0288)).abs() < 0.0001);
    }

    #[test]
    fn the_alert_rules_are_those_of_the_template() {
        // Five rules every 5 minutes, six less often, three on metrics.
        assert!((alerts() - (5.0 * 1.5 + 6.0 * 0.5 + 3.0 * 0.1)).abs() < 0.001, "{}", alerts());
    }

    #[test]
    fn the_messages_of_the_tests_have_the_sizes_that_the_page_counts_with() {
        let [one, three, compact] = GatewayMessage::all();
        assert!(one.bytes < compact.bytes && compact.bytes < three.bytes);
        let gateway = (three.bytes - compact.bytes) / 2;
        let with_gateways = |gateways: u64| compact.bytes + (gateways - 1) * gateway;
        assert!(with_gateways(5) <= 4_096 && with_gateways(6) > 4_096, "the page: the sixth begins the second block");
        assert!(three.free_tier_messages(true) == three.free_tier_messages(false) + 1);
    }
}
