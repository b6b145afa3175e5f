//! Which field paths each server takes (`TheThingsNetwork/lorawan-stack pkg/ttnpb/field_mask_validation.go`).

use super::field_mask::Access;
use super::registry::Server;

/// `x.*` stands for `x` and everything below it.
const IDENTITY_WRITE: &[&str] = &[
    "activated_at",
    "application_server_address",
    "attributes",
    "claim_authentication_code.*",
    "description",
    "join_server_address",
    "last_seen_at",
    "locations",
    "lora_alliance_profile_ids.*",
    "name",
    "network_server_address",
    "picture",
    "serial_number",
    "service_profile_id",
    "version_ids.*",
];
const IDENTITY_READ: &[&str] = &["created_at", "ids.*", "updated_at"];
const JOIN_WRITE: &[&str] = &[
    "application_server_address",
    "application_server_id",
    "application_server_kek_label",
    "claim_authentication_code.*",
    "ids.*",
    "last_dev_nonce",
    "last_join_nonce",
    "last_rj_count_0",
    "last_rj_count_1",
    "net_id",
    "network_server_address",
    "network_server_kek_label",
    "provisioner_id",
    "provisioning_data",
    "resets_join_nonces",
    "root_keys",
    "root_keys.app_key",
    "root_keys.app_key.key",
    "root_keys.nwk_key",
    "root_keys.nwk_key.key",
    "root_keys.root_key_id",
    "used_dev_nonces",
];
const NETWORK_WRITE: &[&str] = &[
    "battery_percentage",
    "downlink_margin",
    "frequency_plan_id",
    "ids.*",
    "last_dev_status_received_at",
    "lora_alliance_profile_ids.*",
    "lorawan_phy_version",
    "lorawan_version",
    "mac_settings.*",
    "mac_state.*",
    "max_frequency",
    "min_frequency",
    "multicast",
    "pending_mac_state.*",
    "pending_session.*",
    "session.*",
    "supports_class_b",
    "supports_class_c",
    "supports_join",
    "version_ids.*",
];
const NETWORK_READ: &[&str] = &["created_at", "updated_at"];
const APPLICATION_WRITE: &[&str] = &[
    "formatters",
    "formatters.down_formatter",
    "formatters.down_formatter_parameter",
    "formatters.up_formatter",
    "formatters.up_formatter_parameter",
    "ids.*",
    "lora_alliance_profile_ids.*",
    "serial_number",
    "session.dev_addr",
    "session.keys.app_s_key",
    "session.keys.app_s_key.key",
    "session.keys.session_key_id",
    "session.last_a_f_cnt_down",
    "skip_payload_crypto",
    "skip_payload_crypto_override",
    "version_ids.*",
];
const APPLICATION_READ: &[&str] = &["pending_session.*", "session.*"];

/// The paths that a server takes, in two lists: those it writes, and those that it only reads.
pub(super) fn allowed(server: Server, access: Access) -> [&'static [&'static str]; 2] {
    let (write, read): (&[&str], &[&str]) = match server {
        Server::Identity => (IDENTITY_WRITE, IDENTITY_READ),
        Server::Join => (JOIN_WRITE, &[]),
        Server::Network => (NETWORK_WRITE, NETWORK_READ),
        Server::Application => (APPLICATION_WRITE, APPLICATION_READ),
    };
    [write, if access == Access::Read { read } else { &[] }]
}
