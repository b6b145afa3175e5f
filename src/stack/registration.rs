//! `tags.lorawan` of a twin → an end device to register.
//!
//! Fields and spellings are those of the integration of The Things Industries
//! (`TheThingsIndustries/lorawan-stack-docs doc/content/integrations/cloud-integrations/azure-iot-hub/devices.md`).

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use crate::ids::{DeviceId, Eui};

/// The members of `tags.lorawan` that hold root keys.
pub(crate) const ROOT_KEYS: [&str; 2] = ["appKey", "nwkKey"];
/// Bound of versions and band ids (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/identifiers.proto`).
const MAX_VERSION_CHARS: usize = 32;
/// Bound of a frequency plan id (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/end_device.proto`).
const MAX_FREQUENCY_PLAN_CHARS: usize = 64;

/// An end device to register; built from `tags.lorawan`. Its keys never show in `Debug`.
#[derive(Debug)]
pub struct Registration {
    /// Its id.
    pub id: DeviceId,
    /// Its DevEUI.
    pub dev_eui: Eui,
    /// Its JoinEUI.
    pub join_eui: Eui,
    /// Its LoRaWAN version, in any spelling that the API takes, such as `1.0.3`.
    pub lorawan_version: String,
    /// Its version of the regional parameters, in any spelling that the API takes, such as `1.0.3-a`.
    pub regional_parameters_version: String,
    /// Its frequency plan.
    pub frequency_plan_id: String,
    /// What the device repository calls it.
    pub version_identifiers: Option<VersionIdentifiers>,
    /// Its AppKey; none for a change of a device whose keys the Join Server has.
    pub(super) app_key: Option<SecretString>,
    /// Its NwkKey, from LoRaWAN 1.1 on.
    pub(super) nwk_key: Option<SecretString>,
}

/// What the device repository calls a device: brings its payload formatters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionIdentifiers {
    /// Brand.
    pub brand_id: String,
    /// Model.
    pub model_id: String,
    /// Hardware version.
    pub hardware_version: Option<String>,
    /// Firmware version.
    pub firmware_version: Option<String>,
    /// Band.
    pub band_id: Option<String>,
}

impl VersionIdentifiers {
    pub(super) fn to_json(&self) -> Value {
        let mut ids = json!({"brand_id": self.brand_id, "model_id": self.model_id});
        let optional = [
            ("hardware_version", &self.hardware_version),
            ("firmware_version", &self.firmware_version),
            ("band_id", &self.band_id),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                ids[name] = json!(value);
            }
        }
        ids
    }
}

/// Why no end device can be built from these tags: every problem, each with what to do. Repeats no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tags.lorawan cannot be registered: {0}")]
pub struct TagError(String);

impl Registration {
    /// Builds the registration of a device. With `keys_are_known`, root keys may be missing: the Join Server has them since an
    /// earlier registration, after which they were taken out of the tags.
    ///
    /// # Errors
    /// If a tag is missing or malformed; all such tags are named at once.
    pub fn from_tags(id: DeviceId, lorawan: &Value, keys_are_known: bool) -> Result<Self, TagError> {
        let Some(tags) = lorawan.as_object() else {
            return Err(TagError("it is no object; see docs/semantics.md for its members".to_owned()));
        };
        let mut read = Tags { tags, problems: Vec::new() };
        let dev_eui = read.eui(&["devEui"]);
        let join_eui = read.eui(&["joinEui", "appEui"]);
        let lorawan_version = read.version("lorawanVersion", "such as `1.0.3`");
        let regional_parameters_version = read.version("regionalParametersVersion", "such as `1.0.3-a`");
        let frequency_plan_id = read.text("frequencyPlanId", MAX_FREQUENCY_PLAN_CHARS, "such as `EU_863_870_TTN`");
        let app_key = read.key("appKey");
        let nwk_key = read.key("nwkKey");
        read.require_keys(keys_are_known, lorawan_version.as_deref(), app_key.as_ref(), nwk_key.as_ref());
        let version_identifiers = read.version_identifiers();
        let problems = read.problems.join("; ");
        let built = || {
            Some(Self {
                id,
                dev_eui: dev_eui?,
                join_eui: join_eui?,
                lorawan_version: lorawan_version?,
                regional_parameters_version: regional_parameters_version?,
                frequency_plan_id: frequency_plan_id?,
                version_identifiers,
                app_key,
                nwk_key,
            })
        };
        if problems.is_empty() { built().ok_or(TagError(problems)) } else { Err(TagError(problems)) }
    }

    /// Whether it brings root keys.
    #[must_use]
    pub fn has_root_keys(&self) -> bool {
        self.app_key.is_some() || self.nwk_key.is_some()
    }
}

fn is_1_1(version: &str) -> bool {
    matches!(version, "1.1" | "1.1.0" | "MAC_V1_1")
}

struct Tags<'a> {
    tags: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl Tags<'_> {
    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.tags.get(name).filter(|value| !value.is_null())
    }

    fn eui(&mut self, names: &[&str]) -> Option<Eui> {
        let name = names[0];
        let Some(value) = names.iter().find_map(|name| self.get(name)) else {
            self.problem(format!("`{name}` is missing; give its 16 hex digits"));
            return None;
        };
        let eui = value.as_str().and_then(|text| Eui::parse(text).ok());
        if eui.is_none() {
            self.problem(format!("`{name}` is no EUI; give 16 hex digits without separators"));
        }
        eui
    }

    /// 32 hex digits; its text is never repeated.
    fn key(&mut self, name: &str) -> Option<SecretString> {
        let value = self.get(name)?;
        let hex = value.as_str().filter(|text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        let key = hex.map(|text| SecretString::from(text.to_ascii_uppercase()));
        match &key {
            None => self.problem(format!("`{name}` is no key; give 32 hex digits without separators")),
            Some(key) if key.expose_secret().bytes().all(|b| b == b'0') => {
                self.problem(format!("`{name}` is all zeros; give the key of the device"));
            }
            Some(_) => {}
        }
        key
    }

    fn require_keys(
        &mut self,
        known: bool,
        version: Option<&str>,
        app_key: Option<&SecretString>,
        nwk_key: Option<&SecretString>,
    ) {
        // A key that is there and malformed has its own problem already.
        let absent = |tags: &Self, name: &str| tags.get(name).is_none();
        let neither = app_key.is_none() && nwk_key.is_none();
        if known && neither {
            return;
        }
        if absent(self, "appKey") {
            self.problem("`appKey` is missing; give its 32 hex digits".to_owned());
        }
        if version.is_some_and(is_1_1) && absent(self, "nwkKey") {
            self.problem("`nwkKey` is missing; LoRaWAN 1.1 needs it besides `appKey`".to_owned());
        }
    }

    fn text(&mut self, name: &str, max: usize, example: &str) -> Option<String> {
        let Some(value) = self.get(name) else {
            self.problem(format!("`{name}` is missing; give it, {example}"));
            return None;
        };
        let text = value.as_str().filter(|text| is_word(text, max)).map(str::to_owned);
        if text.is_none() {
            self.problem(format!("`{name}` is malformed; give a text {example}"));
        }
        text
    }

    fn version(&mut self, name: &str, example: &str) -> Option<String> {
        self.text(name, MAX_VERSION_CHARS, example)
    }

    fn version_identifiers(&mut self) -> Option<VersionIdentifiers> {
        let value = self.get("versionIdentifiers")?;
        let Some(tags) = value.as_object() else {
            self.problem(
                "`versionIdentifiers` is no object; give brandId, modelId, … in one, or leave it out".to_owned(),
            );
            return None;
        };
        let mut inner = Tags { tags, problems: Vec::new() };
        let (brand_id, model_id) = (inner.member("brandId"), inner.member("modelId"));
        for (name, missing) in [("brandId", brand_id.is_none()), ("modelId", model_id.is_none())] {
            if missing && inner.get(name).is_none() {
                inner.problem(format!(
                    "`versionIdentifiers.{name}` is missing; give it, or leave versionIdentifiers out"
                ));
            }
        }
        let hardware_version = inner.member("hardwareVersion");
        let firmware_version = inner.member("firmwareVersion");
        let band_id = inner.member("bandId");
        self.problems.append(&mut inner.problems);
        Some(VersionIdentifiers {
            brand_id: brand_id?,
            model_id: model_id?,
            hardware_version,
            firmware_version,
            band_id,
        })
    }

    fn member(&mut self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        let text = value.as_str().filter(|text| is_word(text, 36)).map(str::to_owned);
        if text.is_none() {
            self.problem(format!("`versionIdentifiers.{name}` is malformed; give a short text"));
        }
        text
    }
}

fn is_word(text: &str, max: usize) -> bool {
    !text.is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> DeviceId {
        DeviceId::parse("probe-0017").expect("a valid id")
    }

    fn tags() -> Value {
        json!({
            "devEui": "a1b2c3d4e5f60718", "joinEui": "0102030405060708", "lorawanVersion": "1.0.3",
            "regionalParametersVersion": "1.0.3-a", "appKey": "00112233445566778899aabbccddeeff",
            "frequencyPlanId": "EU_863_870_TTN",
        })
    }

    fn with(patch: Value) -> Value {
        let mut tags = tags();
        for (name, value) in patch.as_object().expect("an object") {
            tags[name] = value.clone();
        }
        tags
    }

    #[test]
    fn the_tags_of_the_known_integration_make_a_registration() {
        let tags =
            with(json!({"versionIdentifiers": {"brandId": "acme", "modelId": "probe-x", "bandId": "EU_863_870"}}));
        let registration = Registration::from_tags(probe(), &tags, false).expect("valid tags");
        assert_eq!(registration.dev_eui.to_string(), "A1B2C3D4E5F60718");
        assert_eq!(registration.lorawan_version, "1.0.3");
        let ids = registration.version_identifiers.as_ref().expect("version ids").to_json();
        assert_eq!(ids, json!({"brand_id": "acme", "model_id": "probe-x", "band_id": "EU_863_870"}));
        assert!(!format!("{registration:?}").to_lowercase().contains("00112233"), "a key shows in Debug");
    }

    #[test]
    fn app_eui_is_taken_for_join_eui() {
        let tags = with(json!({"joinEui": null, "appEui": "0000000000000000"}));
        let registration = Registration::from_tags(probe(), &tags, false).expect("valid tags");
        assert_eq!(registration.join_eui.to_string(), "0000000000000000");
    }

    #[test]
    fn every_refusal_names_the_tag_and_the_remedy_and_no_key() {
        let cases = [
            (json!({"devEui": null}), "`devEui` is missing; give its 16 hex digits"),
            (json!({"devEui": "A1-B2"}), "`devEui` is no EUI"),
            (json!({"joinEui": 12}), "`joinEui` is no EUI"),
            (json!({"appKey": null}), "`appKey` is missing"),
            (json!({"appKey": "00112233445566778899AABBCCDDEEF"}), "`appKey` is no key; give 32 hex digits"),
            (json!({"appKey": "00000000000000000000000000000000"}), "`appKey` is all zeros"),
            (json!({"lorawanVersion": "1.1.0"}), "`nwkKey` is missing; LoRaWAN 1.1 needs it"),
            (json!({"lorawanVersion": 1.1}), "`lorawanVersion` is malformed"),
            (json!({"regionalParametersVersion": null}), "`regionalParametersVersion` is missing"),
            (json!({"frequencyPlanId": ""}), "`frequencyPlanId` is malformed"),
            (json!({"versionIdentifiers": "x"}), "`versionIdentifiers` is no object"),
            (json!({"versionIdentifiers": {"brandId": "acme"}}), "`versionIdentifiers.modelId` is missing"),
        ];
        for (patch, expected) in cases {
            let error = Registration::from_tags(probe(), &with(patch.clone()), false).expect_err("invalid tags");
            let text = error.to_string();
            assert!(text.contains(expected), "{patch}: {text}");
            assert!(!text.contains("0011223344"), "{patch}: {text}");
        }
        let error = Registration::from_tags(probe(), &json!({}), false).expect_err("no tags");
        assert_eq!(error.to_string().matches("is missing").count(), 6, "{error}");
        assert!(Registration::from_tags(probe(), &json!("x"), false).is_err());
    }

    #[test]
    fn a_registered_device_needs_its_keys_no_more() {
        let tags = with(json!({"appKey": null, "frequencyPlanId": "US_902_928_FSB_2"}));
        let registration = Registration::from_tags(probe(), &tags, true).expect("keys are known");
        assert!(!registration.has_root_keys());
    }
}
