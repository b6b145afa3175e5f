//! Devices made in the Console: known to all servers at once.

use serde_json::{Value, json};

use super::registry::Server;
use super::{Stack, device_rules};

/// A device as its owner makes it in the Console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDevice {
    /// Its id.
    pub device_id: String,
    /// Its DevEUI.
    pub dev_eui: String,
    /// Its JoinEUI; `None`: an ABP device, which has a session from the start.
    pub join_eui: Option<String>,
    /// Its downlink formatter, such as `FORMATTER_JAVASCRIPT`; `None`: nothing encodes decoded payloads.
    pub down_formatter: Option<String>,
}

impl LocalDevice {
    /// An OTAA device with EUIs made from this number.
    #[must_use]
    pub fn otaa(device_id: &str, number: u32) -> Self {
        Self {
            device_id: device_id.to_owned(),
            dev_eui: format!("70B3D57E{number:08X}"),
            join_eui: Some("70B3D57EFFFF0001".to_owned()),
            down_formatter: None,
        }
    }

    /// An ABP device with a DevEUI made from this number.
    #[must_use]
    pub fn abp(device_id: &str, number: u32) -> Self {
        Self { join_eui: None, ..Self::otaa(device_id, number) }
    }

    /// The same device with a downlink formatter.
    #[must_use]
    pub fn with_down_formatter(self, formatter: &str) -> Self {
        Self { down_formatter: Some(formatter.to_owned()), ..self }
    }
}

impl Stack {
    /// Registers a device on all servers, as the Console does. Not counted as registered: no call of the API was made.
    ///
    /// # Errors
    /// If an id breaks the rules; the text says which.
    pub fn register_local(&self, device: &LocalDevice) -> Result<(), InvalidDevice> {
        let application = &self.shared.options.application_id;
        let ids = json!({"ids": {"dev_eui": device.dev_eui, "join_eui": device.join_eui}});
        let ids = device_rules::identifiers(&ids, application, &device.device_id)
            .map_err(|_| InvalidDevice(device.device_id.clone()))?;
        let is_otaa = device.join_eui.is_some();
        let session = (!is_otaa).then(|| json!({"dev_addr": super::ids::dev_addr()}));
        let mut world = self.shared.world();
        let mut put = |server, fields: Value| {
            let mut stored = fields;
            stored["ids"] = ids.clone();
            world.registries.put(server, &device.device_id, stored)
        };
        put(Server::Identity, json!({"name": device.device_id}));
        if is_otaa {
            put(Server::Join, json!({"root_keys": {"app_key": {"key": "5C0FFEE05C0FFEE05C0FFEE05C0FFEE0"}}}));
        }
        put(
            Server::Network,
            json!({
                "supports_join": is_otaa,
                "lorawan_version": "MAC_V1_0_3",
                "lorawan_phy_version": "PHY_V1_0_3_REV_A",
                "frequency_plan_id": "EU_863_870_TTN",
                "session": session,
            }),
        );
        let formatters = device.down_formatter.as_ref().map(|formatter| json!({"down_formatter": formatter}));
        let stored = put(Server::Application, json!({"formatters": formatters, "session": session}));
        world.activate_by_personalisation(&device.device_id, &stored);
        world.note_completion(&device.device_id);
        Ok(())
    }
}

/// A device whose id or EUI breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "register device `{0}`: its id needs 3 to 36 characters of a-z, 0-9 and single inner dashes, its EUIs 16 hex digits"
)]
pub struct InvalidDevice(String);
