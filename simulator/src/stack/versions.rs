//! LoRaWAN versions, regional parameters and frequency plans: the names the API takes and the names it answers with
//! (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/lorawan.proto`).

/// Canonical name and aliases of each LoRaWAN version.
const MAC: &[(&str, &[&str])] = &[
    ("MAC_V1_0", &["1.0", "1.0.0"]),
    ("MAC_V1_0_1", &["1.0.1"]),
    ("MAC_V1_0_2", &["1.0.2"]),
    ("MAC_V1_0_3", &["1.0.3"]),
    ("MAC_V1_0_4", &["1.0.4"]),
    ("MAC_V1_1", &["1.1", "1.1.0"]),
];

/// Canonical name and aliases of each version of the regional parameters. There is no `1.0.3`, `1.0.4` or `1.1`.
const PHY: &[(&str, &[&str])] = &[
    ("PHY_V1_0", &["1.0", "1.0.0", "TS001_V1_0"]),
    ("PHY_V1_0_1", &["1.0.1", "TS001_V1_0_1"]),
    ("PHY_V1_0_2_REV_A", &["1.0.2", "1.0.2-a", "RP001_V1_0_2"]),
    ("PHY_V1_0_2_REV_B", &["1.0.2-b", "RP001_V1_0_2_REV_B"]),
    ("PHY_V1_0_3_REV_A", &["1.0.3-a", "RP001_V1_0_3_REV_A"]),
    ("PHY_V1_1_REV_A", &["1.1-a", "1.1.0-a", "RP001_V1_1_REV_A"]),
    ("PHY_V1_1_REV_B", &["1.1-b", "1.1.0-b", "RP001_V1_1_REV_B"]),
    ("RP002_V1_0_0", &[]),
    ("RP002_V1_0_1", &[]),
    ("RP002_V1_0_2", &[]),
    ("RP002_V1_0_3", &[]),
    ("RP002_V1_0_4", &[]),
];

/// Some frequency plans and their bands (`TheThingsNetwork/lorawan-frequency-plans frequency-plans.yml`).
pub(super) const FREQUENCY_PLANS: &[(&str, &str)] = &[
    ("EU_863_870", "EU_863_870"),
    ("EU_863_870_TTN", "EU_863_870"),
    ("US_902_928_FSB_2", "US_902_928"),
    ("AU_915_928_FSB_2", "AU_915_928"),
    ("AS_923", "AS_923"),
    ("AS_923_2", "AS_923_2"),
    ("IN_865_867", "IN_865_867"),
    ("KR_920_923_TTN", "KR_920_923"),
    ("CN_470_510_FSB_11", "CN_470_510"),
];

fn canonical(table: &[(&'static str, &[&str])], text: &str) -> Option<&'static str> {
    table.iter().find(|(name, aliases)| *name == text || aliases.contains(&text)).map(|(name, _)| *name)
}

/// The canonical name of a LoRaWAN version; aliases are case-sensitive.
pub(super) fn mac(text: &str) -> Option<&'static str> {
    canonical(MAC, text)
}

/// The canonical name of a version of the regional parameters.
pub(super) fn phy(text: &str) -> Option<&'static str> {
    canonical(PHY, text)
}

/// The band of a frequency plan.
pub(super) fn band(frequency_plan: &str) -> Option<&'static str> {
    FREQUENCY_PLANS.iter().find(|(id, _)| *id == frequency_plan).map(|(_, band)| *band)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_become_canonical_names() {
        for (alias, name) in [("1.0.3", Some("MAC_V1_0_3")), ("1.1", Some("MAC_V1_1")), ("MAC_V1_0", Some("MAC_V1_0"))]
        {
            assert_eq!(mac(alias), name, "{alias}");
        }
        for (alias, name) in [
            ("1.0.2", Some("PHY_V1_0_2_REV_A")),
            ("1.0.3-a", Some("PHY_V1_0_3_REV_A")),
            ("RP001_V1_1_REV_B", Some("PHY_V1_1_REV_B")),
            ("RP002_V1_0_4", Some("RP002_V1_0_4")),
            ("1.0.3", None),
            ("1.0.3-A", None),
        ] {
            assert_eq!(phy(alias), name, "{alias}");
        }
    }
}
