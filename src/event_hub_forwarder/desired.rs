//! `properties.desired.decodedPayload` and `rawDownlink` → one downlink, by the rules of The Things Industries
//! (`TheThingsIndustries/lorawan-stack-docs doc/content/integrations/cloud-integrations/azure-iot-hub/device-twin.md`).
//!
//! In a stored twin a desired null has removed its key, so "explicitly null" and "absent" are the same here.

use serde_json::{Map, Value, json};

use super::canonical;
use crate::stack::QueueOperation;

/// The member that a payload formatter encodes.
pub(super) const DECODED: &str = "decodedPayload";
/// The member that holds raw bytes, and options.
pub(super) const RAW: &str = "rawDownlink";
/// Bound of the API (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/messages.proto`); the data rate allows less.
const MAX_PAYLOAD_BYTES: usize = 255;
/// Reserved for the LoRaWAN test protocol (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/messages.proto`).
const TEST_PORT: u64 = 224;

/// What the desired properties ask for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// Neither member says anything.
    Nothing,
    /// This downlink.
    Downlink(Wish),
    /// Something that can never be sent, and why.
    Impossible(String),
}

/// A downlink without its correlation id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wish {
    pub(super) operation: QueueOperation,
    pub(super) f_port: Option<u8>,
    pub(super) content: Content,
    pub(super) confirmed: bool,
}

/// What a downlink carries.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    Decoded(Map<String, Value>),
}

/// Hash of the two members: what was applied last is known by it.
pub(super) fn hash(desired: &Map<String, Value>) -> String {
    let members = [DECODED, RAW].into_iter().filter_map(|name| Some((name.to_owned(), desired.get(name)?.clone())));
    canonical::hash(&Value::Object(members.collect()))
}

/// Reads the two members.
pub(super) fn wanted(desired: &Map<String, Value>) -> Wanted {
    match read(desired) {
        Ok(Some(wish)) => Wanted::Downlink(wish),
        Ok(None) => Wanted::Nothing,
        Err(reason) => Wanted::Impossible(reason),
    }
}

fn read(desired: &Map<String, Value>) -> Result<Option<Wish>, String> {
    let decoded = decoded(desired.get(DECODED))?;
    let options = match desired.get(RAW) {
        None | Some(Value::Null) => Options::default(),
        Some(Value::Object(raw)) => Options::read(raw)?,
        Some(_) => return Err(format!("desired `{RAW}` must be an object; see docs/semantics.md for its members")),
    };
    let content = match (options.bytes, decoded) {
        // Raw bytes win, as they do in The Things Stack.
        (Some(_), _) if options.f_port.is_none() => {
            return Err(format!("desired `{RAW}.framePayload` needs `{RAW}.fPort`: 1 to 223 or 225 to 255"));
        }
        (Some(bytes), _) => Content::Bytes(bytes),
        (None, Some(decoded)) => Content::Decoded(decoded),
        (None, None) if options.f_port.is_some() => {
            return Err(format!(
                "desired `{RAW}` has no `framePayload`, and `{DECODED}` gives none; an empty frame cannot be queued"
            ));
        }
        // Options alone are what nulls leave behind.
        (None, None) => return Ok(None),
    };
    Ok(Some(Wish { operation: options.operation, f_port: options.f_port, content, confirmed: options.confirmed }))
}

/// An empty object is what is left after each of its members was set to null: nothing to encode.
fn decoded(value: Option<&Value>) -> Result<Option<Map<String, Value>>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(decoded)) => Ok((!decoded.is_empty()).then(|| decoded.clone())),
        Some(_) => Err(format!("desired `{DECODED}` must be an object: what the payload formatter encodes")),
    }
}

struct Options {
    f_port: Option<u8>,
    bytes: Option<Vec<u8>>,
    confirmed: bool,
    operation: QueueOperation,
}

impl Default for Options {
    fn default() -> Self {
        Self { f_port: None, bytes: None, confirmed: false, operation: QueueOperation::Push }
    }
}

impl Options {
    fn read(raw: &Map<String, Value>) -> Result<Self, String> {
        let member = |name: &str| raw.get(name).filter(|value| !value.is_null());
        Ok(Self {
            f_port: member("fPort").map_or(Ok(None), f_port)?,
            bytes: member("framePayload").map_or(Ok(None), bytes)?,
            confirmed: match member("confirmed") {
                None => false,
                Some(value) => {
                    value.as_bool().ok_or_else(|| format!("desired `{RAW}.confirmed` must be true or false"))?
                }
            },
            operation: member("operation").map_or(Ok(QueueOperation::Push), operation)?,
        })
    }
}

/// 0 is the default of The Things Industries and means none.
fn f_port(value: &Value) -> Result<Option<u8>, String> {
    // A portal may write 15 as 15.0.
    let whole = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=255.0).contains(number));
    match whole.map(|number| number as u64) {
        Some(0) => Ok(None),
        Some(port) if port != TEST_PORT => Ok(u8::try_from(port).ok()),
        _ => Err(format!("desired `{RAW}.fPort` must be 1 to 223 or 225 to 255")),
    }
}

fn bytes(value: &Value) -> Result<Option<Vec<u8>>, String> {
    let refuse =
        || format!("desired `{RAW}.framePayload` must be hex, two digits a byte, {MAX_PAYLOAD_BYTES} bytes at most");
    let hex =
        value.as_str().filter(|text| text.is_ascii() && text.len() <= 2 * MAX_PAYLOAD_BYTES).ok_or_else(refuse)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = hex.as_bytes().chunks(2).map(|pair| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    let bytes: Vec<u8> = pairs.collect::<Option<_>>().ok_or_else(refuse)?;
    Ok((!bytes.is_empty()).then_some(bytes))
}

fn operation(value: &Value) -> Result<QueueOperation, String> {
    match value.as_str() {
        Some(word) if word.eq_ignore_ascii_case("push") => Ok(QueueOperation::Push),
        Some(word) if word.eq_ignore_ascii_case("replace") => Ok(QueueOperation::Replace),
        _ => Err(format!("desired `{RAW}.operation` must be {} or {}", json!("push"), json!("replace"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(desired: Value) -> Wanted {
        wanted(desired.as_object().expect("an object"))
    }

    fn wish(operation: QueueOperation, f_port: Option<u8>, content: Content, confirmed: bool) -> Wanted {
        Wanted::Downlink(Wish { operation, f_port, content, confirmed })
    }

    #[test]
    fn the_combinations_of_the_known_integration_mean_what_they_mean_there() {
        use QueueOperation::{Push, Replace};
        let bytes = || Content::Bytes(vec![0xBE, 0xEF]);
        let decoded = || Content::Decoded(json!({"interval": 10}).as_object().cloned().expect("an object"));
        let cases = [
            (json!({}), Wanted::Nothing),
            (json!({"interval": 600}), Wanted::Nothing),
            (json!({"rawDownlink": {}, "decodedPayload": {}}), Wanted::Nothing),
            (json!({"rawDownlink": {"confirmed": true, "id": 3}}), Wanted::Nothing),
            (json!({"rawDownlink": {"fPort": 15, "framePayload": "BEEF"}}), wish(Push, Some(15), bytes(), false)),
            (
                json!({"rawDownlink": {"fPort": 15.0, "framePayload": "beef", "confirmed": true, "operation": "replace"}}),
                wish(Replace, Some(15), bytes(), true),
            ),
            (json!({"decodedPayload": {"interval": 10}}), wish(Push, None, decoded(), false)),
            (
                json!({"decodedPayload": {"interval": 10}, "rawDownlink": {"fPort": 2, "confirmed": true}}),
                wish(Push, Some(2), decoded(), true),
            ),
            (
                json!({"decodedPayload": {"interval": 10}, "rawDownlink": {"framePayload": "", "operation": "replace"}}),
                wish(Replace, None, decoded(), false),
            ),
            (
                json!({"decodedPayload": {"interval": 10}, "rawDownlink": {"fPort": 15, "framePayload": "BEEF"}}),
                wish(Push, Some(15), bytes(), false),
            ),
        ];
        for (desired, expected) in cases {
            assert_eq!(of(desired.clone()), expected, "{desired}");
        }
    }

    #[test]
    fn an_impossible_wish_says_which_member_is_wrong() {
        let long = "00".repeat(256);
        let cases = [
            (json!({"rawDownlink": "BEEF"}), "`rawDownlink` must be an object"),
            (json!({"rawDownlink": {"fPort": 224, "framePayload": "00"}}), "`rawDownlink.fPort` must be"),
            (json!({"rawDownlink": {"fPort": 256, "framePayload": "00"}}), "`rawDownlink.fPort` must be"),
            (json!({"rawDownlink": {"fPort": -1, "framePayload": "00"}}), "`rawDownlink.fPort` must be"),
            (json!({"rawDownlink": {"fPort": "15", "framePayload": "00"}}), "`rawDownlink.fPort` must be"),
            (json!({"rawDownlink": {"fPort": 1.5, "framePayload": "00"}}), "`rawDownlink.fPort` must be"),
            (json!({"rawDownlink": {"fPort": 1, "framePayload": "0"}}), "must be hex"),
            (json!({"rawDownlink": {"fPort": 1, "framePayload": "0g"}}), "must be hex"),
            (json!({"rawDownlink": {"fPort": 1, "framePayload": "é0"}}), "must be hex"),
            (json!({"rawDownlink": {"fPort": 1, "framePayload": long}}), "255 bytes at most"),
            (json!({"rawDownlink": {"framePayload": "BEEF"}}), "needs `rawDownlink.fPort`"),
            (json!({"rawDownlink": {"fPort": 15}}), "an empty frame cannot be queued"),
            (json!({"rawDownlink": {"fPort": 15, "framePayload": "00", "confirmed": "yes"}}), "true or false"),
            (
                json!({"rawDownlink": {"fPort": 15, "framePayload": "00", "operation": "add"}}),
                "\"push\" or \"replace\"",
            ),
            (json!({"decodedPayload": [1]}), "`decodedPayload` must be an object"),
        ];
        for (desired, expected) in cases {
            match of(desired.clone()) {
                Wanted::Impossible(reason) => assert!(reason.contains(expected), "{desired}: {reason}"),
                other => panic!("{desired}: {other:?}"),
            }
        }
    }

    #[test]
    fn only_the_two_members_make_the_hash() {
        let of = |desired: Value| hash(desired.as_object().expect("an object"));
        let one = of(json!({"decodedPayload": {"a": 1}, "interval": 5}));
        assert_eq!(one, of(json!({"interval": 6, "decodedPayload": {"a": 1.0}})));
        assert_ne!(one, of(json!({"decodedPayload": {"a": 2}})));
        let id = |id: u32| of(json!({"rawDownlink": {"fPort": 1, "framePayload": "00", "id": id}}));
        assert_ne!(id(1), id(2), "another id sends the same again");
    }
}
