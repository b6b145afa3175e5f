//! Identifiers, parsed once at the edge.

use std::fmt;

/// Why a text is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct InvalidId {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

impl InvalidId {
    fn new(kind: &'static str, rule: &'static str, text: &str) -> Self {
        // A hostile text must not flood the log: the longest valid identifier here has 36 characters.
        let text = text.chars().take(64).collect();
        Self { kind, rule, text }
    }
}

const ID_RULE: &str = "3 to 36 characters of a-z, 0-9 and single inner dashes";

/// `^[a-z0-9](?:[-]?[a-z0-9]){2,}$`, at most 36 characters
/// (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/identifiers.proto`).
fn is_stack_id(text: &str) -> bool {
    let alphanumerics = text.bytes().filter(u8::is_ascii_alphanumeric).count();
    text.len() <= 36
        && alphanumerics >= 3
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! stack_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Parses the identifier.
            ///
            /// # Errors
            /// If it breaks the id rule of The Things Stack.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                if is_stack_id(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId::new($kind, ID_RULE, text))
                }
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

stack_id!(
    /// The id of an end device in The Things Stack; in IoT Hub it stands behind the [`DevicePrefix`], if there is one.
    ///
    /// Every id of The Things Stack is a valid IoT Hub device id and needs no escaping in a topic, a URL or a SAS resource.
    DeviceId,
    "end device id"
);
stack_id!(
    /// The id of an application of The Things Stack.
    ApplicationId,
    "application id"
);
stack_id!(
    /// The id of a webhook of The Things Stack.
    WebhookId,
    "webhook id"
);

/// What stands before the id of an end device in the id of its identity in IoT Hub; nothing, or such as `lorawan-`.
///
/// A policy with DeviceConnect can speak as any device of a hub. With a prefix the bridge speaks as identities with it only, so
/// that nobody who can create an end device in The Things Stack can speak as a device of another kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePrefix(String);

impl DevicePrefix {
    /// Longest prefix: with the longest id behind it, 36, it stays below the 128 characters of an IoT Hub device id.
    const MAX_CHARS: usize = 64;

    /// Parses the prefix. Its characters need no escaping in a topic, a URL or a SAS resource.
    ///
    /// # Errors
    /// If it is longer than 64 characters, or has others than a-z, 0-9, `-`, `_` and `.`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if text.len() <= Self::MAX_CHARS && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::new("prefix of device ids", "64 characters of a-z, 0-9, `-`, `_` and `.` at most", text))
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of an end device's identity in IoT Hub.
    #[must_use]
    pub fn identity_of(&self, id: &DeviceId) -> String {
        format!("{}{id}", self.0)
    }

    /// The part of an identity's id behind the prefix; `None` if it has another one: such a device is none of ours.
    #[must_use]
    pub fn strip<'a>(&self, identity: &'a str) -> Option<&'a str> {
        identity.strip_prefix(&self.0)
    }
}

/// A DevEUI or JoinEUI: 8 bytes, printed as 16 upper-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Eui(u64);

impl Eui {
    /// Parses 16 hex digits of either case.
    ///
    /// # Errors
    /// If the text is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| InvalidId::new("EUI", "16 hex digits", text))
    }
}

impl fmt::Display for Eui {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// An end device as a message of The Things Stack names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndDevice {
    /// Its id.
    pub id: DeviceId,
    /// Its DevEUI; some ABP and multicast devices have none.
    pub dev_eui: Option<Eui>,
    /// Its JoinEUI; ABP devices have none.
    pub join_eui: Option<Eui>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_follow_the_rule_of_the_things_stack() {
        let longest = "a".repeat(36);
        for good in ["abc", "eui-70b3d57ed0000001", "0-1-2", &longest] {
            assert_eq!(DeviceId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        let too_long = "a".repeat(37);
        for bad in ["", "ab", "a-b", "-abc", "abc-", "a--bc", "Abc", "a.bc", "a/bc", "a bc", &too_long] {
            assert!(DeviceId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_stands_before_ids_and_is_found_there_only() {
        let longest = "p".repeat(64);
        for good in ["", "lorawan-", "site_7.", "0", &longest] {
            let prefix = DevicePrefix::parse(good).expect(good);
            let id = DeviceId::parse("probe-1").expect("valid");
            let identity = prefix.identity_of(&id);
            assert_eq!(identity, format!("{good}probe-1"));
            assert_eq!(prefix.strip(&identity), Some("probe-1"));
        }
        let prefix = DevicePrefix::parse("lorawan-").expect("valid");
        for foreign in ["probe-1", "Lorawan-probe-1", "lorawan", "x-lorawan-probe-1", ""] {
            assert_eq!(prefix.strip(foreign), None, "{foreign}");
        }
        let too_long = "p".repeat(65);
        for bad in ["LoRa-", "a/", "a b", "a%", "a#", "a+", "ä", "a\n", &too_long] {
            assert!(DevicePrefix::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_eui_is_printed_in_upper_case_hex() {
        assert_eq!(Eui::parse("a1b2c3d4e5f60718").map(|eui| eui.to_string()), Ok("A1B2C3D4E5F60718".to_owned()));
        assert_eq!(Eui::parse("0000000000000000").map(|eui| eui.to_string()), Ok("0000000000000000".to_owned()));
        for bad in ["", "a1b2", "+1b2c3d4e5f60718", "g1b2c3d4e5f60718", "a1b2c3d4e5f607180"] {
            assert!(Eui::parse(bad).is_err(), "{bad}");
        }
    }
}
