//! The hub as the local page shows it, and what the page does to it.

use serde_json::{Map, Value, json};

use super::Hub;
use crate::iot_hub::error::HubError;
use crate::iot_hub::twin::ServiceWrite;

/// Members of a twin that hold root or session keys of a LoRaWAN device, in any case and with or without `_`.
const KEY_NAMES: [&str; 6] = ["appkey", "nwkkey", "appskey", "fnwksintkey", "snwksintkey", "nwksenckey"];

impl Hub {
    /// Devices whose ids contain `part`, in order: their twins without metadata and without keys. Apart from them the
    /// `chosen` one, which needs not be among them.
    pub(in crate::iot_hub) fn overview(&self, part: &str, limit: usize, chosen: Option<&str>) -> Value {
        let state = self.state();
        let ids: Vec<_> = state.registry.ids().into_iter().filter(|id| id.contains(part)).collect();
        let shown = |id: &str| state.registry.device(id).map(|device| shown(device.twin_document()));
        let devices: Vec<_> = ids.iter().take(limit).filter_map(|id| shown(id)).collect();
        json!({"total": ids.len(), "devices": devices, "device": chosen.and_then(shown)})
    }

    /// Merges into the desired properties, as `PATCH /twins/{id}` does.
    pub(in crate::iot_hub) fn patch_desired(&self, id: &str, patch: &Value) -> Result<Value, HubError> {
        let write = ServiceWrite::parse(&json!({"properties": {"desired": patch}}))?;
        let mut twin = self.patch_twin(id, write, None)?;
        Ok(plain(twin["properties"]["desired"].take()))
    }

    pub(in crate::iot_hub) fn take_over(&self, id: &str) -> bool {
        let was_connected = self.state().sessions.take_over(id);
        if was_connected {
            self.counters.takeovers.add();
        }
        was_connected
    }
}

/// A twin as the page takes it.
fn shown(mut twin: Value) -> Value {
    let version = |section: &str| twin["properties"][section]["$version"].clone();
    let versions = json!({"desired": version("desired"), "reported": version("reported")});
    json!({
        "id": twin["deviceId"],
        "status": twin["status"],
        "connection": twin["connectionState"],
        "last_activity": twin["lastActivityTime"],
        "versions": versions,
        "tags": without_keys(plain(twin["tags"].take())),
        "desired": without_keys(plain(twin["properties"]["desired"].take())),
        "reported": without_keys(plain(twin["properties"]["reported"].take())),
    })
}

/// A section of a twin without `$metadata` and `$version`; nothing is an empty object.
fn plain(section: Value) -> Value {
    let Value::Object(mut members) = section else { return Map::new().into() };
    members.retain(|name, _| !name.starts_with('$'));
    members.into()
}

/// The value with a note in place of every key.
fn without_keys(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, value) in members {
                let is_key = KEY_NAMES.contains(&name.replace('_', "").to_ascii_lowercase().as_str());
                *value = if is_key { json!("(a key, not shown)") } else { without_keys(value.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_keys(item.take())),
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_shown_at_any_depth() {
        let lorawan = json!({"appKey": "5EC4E7", "app_key": {"key": "5EC4E7"}, "devEui": "70B3"});
        let sessions = json!([1, [{"appSKey": "5EC4E7"}]]);
        let shown = without_keys(json!({"lorawan": lorawan, "sessions": sessions})).to_string();
        assert!(!shown.contains("5EC4E7") && shown.contains("70B3"), "{shown}");
    }

    #[test]
    fn a_section_is_shown_without_metadata() {
        assert_eq!(plain(json!({"$metadata": {}, "$version": 3, "a": 1})), json!({"a": 1}));
        assert_eq!(plain(Value::Null), json!({}));
    }
}
