//! The webhook bodies of `tests/fixtures/webhooks`, for tests and for load.

/// One body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// Its file name without extension.
    pub name: &'static str,
    /// Its message type: the key under which the message stands.
    pub kind: &'static str,
    /// The body, byte for byte.
    pub body: &'static str,
}

impl Fixture {
    /// The body as it is for devices of another application.
    #[must_use]
    pub fn of_application(&self, id: &str) -> String {
        self.body.replace(r#""application_id": "greenhouse""#, &format!(r#""application_id": "{id}""#))
    }
}

/// The file of this folder and name; its folder is its message type unless another is given.
macro_rules! fixture {
    ($folder:literal, $name:literal) => {
        fixture!($folder, $name, $folder)
    };
    ($folder:literal, $name:literal, $kind:literal) => {
        Fixture {
            name: $name,
            kind: $kind,
            body: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../tests/fixtures/webhooks/",
                $folder,
                "/",
                $name,
                ".json"
            )),
        }
    };
}

macro_rules! nasty {
    ($name:literal) => {
        fixture!("nasty", $name, "uplink_message")
    };
}

/// Ordinary messages of all eleven types.
const WEBHOOKS: &[Fixture] = &[
    fixture!("uplink_message", "full"),
    fixture!("uplink_message", "minimal_fsk_port_0"),
    fixture!("uplink_message", "with_location"),
    fixture!("uplink_message", "with_plain_app_s_key"),
    fixture!("uplink_message", "newest_release"),
    fixture!("uplink_message", "without_decoded_payload"),
    fixture!("uplink_normalized", "measurement_1_of_3"),
    fixture!("uplink_normalized", "measurement_2_of_3"),
    fixture!("uplink_normalized", "measurement_3_of_3"),
    fixture!("join_accept", "first_join"),
    fixture!("join_accept", "rejoin"),
    fixture!("downlink_ack", "ours"),
    fixture!("downlink_ack", "foreign"),
    fixture!("downlink_nack", "ours"),
    fixture!("downlink_nack", "foreign"),
    fixture!("downlink_sent", "ours"),
    fixture!("downlink_sent", "foreign"),
    fixture!("downlink_sent", "class_c"),
    fixture!("downlink_failed", "no_device_session"),
    fixture!("downlink_failed", "too_long_for_the_data_rate"),
    fixture!("downlink_queued", "ours"),
    fixture!("downlink_queued", "foreign"),
    fixture!("downlink_queued", "with_session_fields"),
    fixture!("downlink_queue_invalidated", "two_items"),
    fixture!("location_solved", "from_payload"),
    fixture!("location_solved", "wifi"),
    fixture!("location_solved", "on_the_prime_meridian"),
    fixture!("service_data", "with_nulls"),
];

/// Uplinks whose decoded payload strains a twin.
const NASTY: &[Fixture] = &[
    nasty!("dotted_key"),
    nasty!("key_with_space_bracket_and_non_ascii"),
    nasty!("dollar_in_keys"),
    nasty!("colliding_keys"),
    nasty!("keys_differing_in_case"),
    nasty!("array_of_arrays"),
    nasty!("depth_11"),
    nasty!("null_leaf"),
    nasty!("null_top_level"),
    nasty!("largest_integer_of_a_twin"),
    nasty!("first_integer_beyond_a_twin"),
    nasty!("integer_beyond_a_float"),
    nasty!("large_exponent"),
    nasty!("smallest_float"),
    nasty!("negative_zero"),
    nasty!("empty_object"),
    nasty!("string_of_5_kb"),
    nasty!("object_of_40_kb"),
    nasty!("decoded_payload_absent"),
];

/// Ordinary messages of all eleven types.
#[must_use]
pub fn webhooks() -> Vec<Fixture> {
    WEBHOOKS.to_vec()
}

/// Uplinks whose decoded payload strains the rules of a device twin.
#[must_use]
pub fn nasty() -> Vec<Fixture> {
    NASTY.to_vec()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::stack::MESSAGE_TYPES;

    #[test]
    fn each_fixture_is_a_message_with_exactly_its_key() {
        for fixture in webhooks().into_iter().chain(nasty()) {
            let message: Value = serde_json::from_str(fixture.body).expect(fixture.name);
            let keys: Vec<_> = MESSAGE_TYPES.into_iter().filter(|key| message.get(*key).is_some()).collect();
            assert_eq!(keys, [fixture.kind], "{}", fixture.name);
            assert!(message["end_device_ids"]["device_id"].is_string(), "{}", fixture.name);
            assert!(message["received_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{}", fixture.name);
        }
    }

    #[test]
    fn each_fixture_can_be_of_another_application() {
        for fixture in webhooks().into_iter().chain(nasty()) {
            let message: Value = serde_json::from_str(&fixture.of_application("other")).expect(fixture.name);
            assert_eq!(message["end_device_ids"]["application_ids"]["application_id"], "other", "{}", fixture.name);
        }
    }

    #[test]
    fn all_eleven_types_have_a_fixture() {
        let kinds: BTreeSet<_> = webhooks().into_iter().map(|fixture| fixture.kind).collect();
        assert_eq!(kinds, MESSAGE_TYPES.into_iter().collect());
    }

    #[test]
    fn every_file_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/webhooks");
        let mut files = 0;
        for entry in fs::read_dir(root).expect("the folder of the fixtures") {
            let folder = entry.expect("an entry of the folder").path();
            if folder.is_dir() {
                files += fs::read_dir(folder).expect("a folder of fixtures").count();
            }
        }
        assert_eq!(files, WEBHOOKS.len() + NASTY.len());
    }

    #[test]
    fn the_normalized_messages_of_one_uplink_share_one_time() {
        let messages = webhooks().into_iter().filter(|fixture| fixture.kind == "uplink_normalized");
        let times: Vec<Value> = messages
            .map(|fixture| serde_json::from_str::<Value>(fixture.body).expect(fixture.name)["received_at"].take())
            .collect();
        assert_eq!(times.len(), 3);
        assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
    }
}
