//! List prices. None was seen on a bill; all are to be checked for the region and the contract.

/// A list price.
pub(super) struct Price {
    pub(super) what: &'static str,
    pub(super) usd: f64,
    pub(super) unit: &'static str,
    pub(super) source: &'static str,
}

const HUB: &str = "azure.microsoft.com/pricing/details/iot-hub, figure unverified; 254.40 and 2544 CNY in azure.cn, copy seen 2026-11";
const FLEX: &str = "modal.com/blog/azure-function-pricing-guide, May 2025, East US";
const FLEX_UNSEEN: &str = "azure.microsoft.com/pricing/details/functions, figure unverified 2026-11";
const EVENTS: &str = "azure.microsoft.com/pricing/details/event-hubs, figure unverified; 0.19 CNY an hour and 0.18 CNY a million in azure.cn, copy seen 2026-11";
const LOGS: &str = "monitoringcost.com/azure-monitor-cost, 2026; azure.microsoft.com/pricing/details/monitor";
const ALERTS: &str = "azure.microsoft.com/pricing/details/monitor, figure unverified 2026-11";
const VAULT: &str = "learn.microsoft.com/answers/questions/5608202, copy seen 2026-11";

pub(super) const HUB_S1: Price = Price { what: "IoT Hub S1", usd: 25.0, unit: "USD per unit and month", source: HUB };
pub(super) const HUB_S2: Price = Price { what: "IoT Hub S2", usd: 250.0, unit: "USD per unit and month", source: HUB };
pub(super) const EXECUTING: Price = Price {
    what: "Functions Flex Consumption, on demand, executing (100 000 GB-s a month free, unverified)",
    usd: 0.000_026,
    unit: "USD per GB-s",
    source: FLEX,
};
pub(super) const EXECUTIONS: Price = Price {
    what: "Functions Flex Consumption, executions (on demand 250 000 a month free, unverified)",
    usd: 0.4,
    unit: "USD per million",
    source: FLEX_UNSEEN,
};
pub(super) const READY_BASELINE: Price = Price {
    what: "Functions Flex Consumption, always ready, baseline",
    usd: 0.000_004,
    unit: "USD per GB-s",
    source: FLEX_UNSEEN,
};
pub(super) const READY_EXECUTING: Price = Price {
    what: "Functions Flex Consumption, always ready, executing",
    usd: 0.000_016,
    unit: "USD per GB-s",
    source: FLEX_UNSEEN,
};
pub(super) const THROUGHPUT_UNIT: Price =
    Price { what: "Event Hubs Standard, throughput unit", usd: 0.03, unit: "USD per hour", source: EVENTS };
pub(super) const INGRESS: Price =
    Price { what: "Event Hubs Standard, events in", usd: 0.028, unit: "USD per million", source: EVENTS };
pub(super) const RULE_5_MIN: Price =
    Price { what: "alert rule on logs, every 5 minutes", usd: 1.5, unit: "USD per month", source: ALERTS };
pub(super) const RULE_15_MIN: Price = Price {
    what: "alert rule on logs, every 15 minutes or less often",
    usd: 0.5,
    unit: "USD per month",
    source: ALERTS,
};
pub(super) const RULE_METRIC: Price =
    Price { what: "alert rule on one metric", usd: 0.1, unit: "USD per month", source: ALERTS };
pub(super) const LOG_DATA: Price = Price {
    what: "Log Analytics, pay as you go, with 31 days of retention (5 GB a month free)",
    usd: 2.3,
    unit: "USD per GB",
    source: LOGS,
};
pub(super) const SECRET: Price =
    Price { what: "Key Vault Standard, operations", usd: 0.03, unit: "USD per 10 000", source: VAULT };

/// All of them, in the order of the page.
pub(super) const PRICES: [Price; 13] = [
    HUB_S1,
    HUB_S2,
    EXECUTING,
    EXECUTIONS,
    READY_BASELINE,
    READY_EXECUTING,
    THROUGHPUT_UNIT,
    INGRESS,
    LOG_DATA,
    RULE_5_MIN,
    RULE_15_MIN,
    RULE_METRIC,
    SECRET,
];
