//! `cargo xtask costs`: the tables of docs/costs.md, so that no figure there is older than its formula.

mod model;
mod prices;

use std::fmt::Write as _;

use model::{Fleet, GatewayMessage, Patch};
use prices::PRICES;

/// Devices and minutes between two uplinks of each.
const FLEETS: [Fleet; 6] = [
    Fleet { devices: 100, minutes: 60 },
    Fleet { devices: 100, minutes: 15 },
    Fleet { devices: 1_000, minutes: 60 },
    Fleet { devices: 1_000, minutes: 15 },
    Fleet { devices: 10_000, minutes: 60 },
    Fleet { devices: 10_000, minutes: 15 },
];

/// All tables, each between the marks that docs/costs.md has around it.
pub(crate) fn tables() -> String {
    let tables = [
        ("fleets", fleets()),
        ("settings", settings()),
        ("extras", extras()),
        ("free", free()),
        ("prices", prices_table()),
    ];
    tables.map(|(name, table)| format!("<!-- costs: {name} -->\n{table}<!-- /costs -->\n")).join("\n")
}

fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
    for row in rows {
        // A String takes whatever is written to it.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

fn fleets() -> String {
    let head = [
        "Devices",
        "Interval",
        "Uplinks a day",
        "Hub messages a day",
        "Twin writes a second",
        "IoT Hub",
        "Functions",
        "Event Hubs",
        "Logs",
        "Alerts",
        "Sum, USD a month",
        "USD per device",
    ];
    table(
        head,
        FLEETS.map(|fleet| {
            let hub = fleet.hub(1, Patch::Each);
            let (functions, logs) = (fleet.functions_on_demand(), fleet.logs(model::LOG_BYTES));
            let sum = hub.usd + functions + model::event_hubs() + logs + model::alerts();
            [
                grouped(fleet.devices),
                format!("{} min", fleet.minutes),
                grouped(fleet.uplinks_a_day()),
                grouped(hub.messages_a_day),
                format!("{:.2}", fleet.twin_writes_a_second()),
                format!("{} = {:.0}", hub.size, hub.usd),
                format!("{functions:.2}"),
                format!("{:.2}", model::event_hubs()),
                format!("{logs:.2}"),
                format!("{:.2}", model::alerts()),
                format!("{sum:.2}"),
                format!("{:.3}", sum / fleet.devices as f64),
            ]
        }),
    )
}

fn settings() -> String {
    let head = [
        "Devices",
        "Interval",
        "readings that change",
        "readings that stay the same",
        "`TWIN_MESSAGES=none`",
        "changing, bodies of 4 to 8 KB",
    ];
    table(
        head,
        FLEETS.map(|fleet| {
            let cell = |blocks, patch| {
                let hub = fleet.hub(blocks, patch);
                format!("{}: {} = {:.0}", grouped(hub.messages_a_day), hub.size, hub.usd)
            };
            [
                grouped(fleet.devices),
                format!("{} min", fleet.minutes),
                cell(1, Patch::Each),
                cell(1, Patch::LastSeenOnly),
                cell(1, Patch::None),
                cell(2, Patch::Each),
            ]
        }),
    )
}

fn extras() -> String {
    let head = [
        "Devices",
        "Interval",
        "Functions, on demand",
        "Functions, one instance always ready",
        "Log data, GB a month",
        "Logs, `LOG_LEVEL=info`",
        "Logs, `LOG_LEVEL=warn`",
    ];
    table(
        head,
        FLEETS.map(|fleet| {
            [
                grouped(fleet.devices),
                format!("{} min", fleet.minutes),
                format!("{:.2}", fleet.functions_on_demand()),
                format!("{:.2}", fleet.functions_always_ready()),
                format!("{:.1}", fleet.log_gb(model::LOG_BYTES)),
                format!("{:.2}", fleet.logs(model::LOG_BYTES)),
                format!("{:.2}", fleet.logs(model::REQUEST_RECORD_BYTES)),
            ]
        }),
    )
}

fn free() -> String {
    let head = [
        "Message",
        "Telemetry, bytes",
        "Billed messages per uplink",
        "without twin",
        "Uplinks a day",
        "Devices at 60 min",
        "Devices at 15 min",
    ];
    table(
        head,
        GatewayMessage::all().map(|message| {
            let billed = message.free_tier_messages(true);
            let uplinks = model::FREE_MESSAGES_A_DAY / billed;
            [
                message.what.to_owned(),
                grouped(message.bytes),
                billed.to_string(),
                message.free_tier_messages(false).to_string(),
                grouped(uplinks),
                (uplinks / 24).to_string(),
                (uplinks / 96).to_string(),
            ]
        }),
    )
}

fn prices_table() -> String {
    table(
        ["What", "List price, check", "Source"],
        PRICES.map(|price| [price.what.to_owned(), format!("{} {}", price.usd, price.unit), price.source.to_owned()]),
    )
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_costs_holds_the_tables_that_the_formulas_make() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/costs.md");
        let page = std::fs::read_to_string(page).expect("docs/costs.md");
        let made = tables();
        for table in made.split_inclusive("<!-- /costs -->\n") {
            assert!(page.contains(table.trim()), "put the output of `cargo xtask costs` into docs/costs.md:\n{table}");
        }
        assert_eq!(page.matches("<!-- /costs -->").count(), made.matches("<!-- /costs -->").count());
    }

    #[test]
    fn digits_are_grouped_from_the_end() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (1_920_000, "1 920 000")] {
            assert_eq!(grouped(number), text);
        }
    }
}
