//! The envelope in which the host delivers a batch (`cardinality: many`, `dataType: binary`), decoded.
//!
//! Values of `Data` and arrays of `Metadata` are JSON text inside a JSON string
//! (`Azure/azure-functions-host` ScriptInvocationContextExtensions.cs); an object is an object.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{Event, Invocation};

/// Why a body is no envelope of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct MalformedEnvelope(String);

impl fmt::Display for MalformedEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read the host's envelope: {}; function.json must say cardinality many and dataType binary", self.0)
    }
}

impl std::error::Error for MalformedEnvelope {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    /// One binding, whatever its name.
    data: HashMap<String, JsonText<Vec<String>>>,
    #[serde(default)]
    metadata: Metadata,
}

/// A batch that an operator posts to `/admin/functions/…` has none of these but `sys`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Metadata {
    partition_context: PartitionContext,
    sequence_number_array: JsonText<Vec<i64>>,
    enqueued_time_utc_array: JsonText<Vec<String>>,
    properties_array: JsonText<Vec<Map<String, Value>>>,
    system_properties_array: JsonText<Vec<Map<String, Value>>>,
    retry_context: RetryContext,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct PartitionContext {
    partition_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RetryContext {
    retry_count: u32,
}

/// A value that comes as JSON text inside a JSON string, or as itself.
#[derive(Default)]
struct JsonText<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for JsonText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = match Value::deserialize(deserializer)? {
            Value::String(text) => serde_json::from_str(&text),
            value => serde_json::from_value(value),
        };
        value.map(Self).map_err(D::Error::custom)
    }
}

/// Decodes one invocation.
///
/// # Errors
/// If the body is no envelope of a batch: then `function.json` does not say what this handler expects.
pub fn decode(invocation_id: &str, body: &[u8]) -> Result<Invocation, MalformedEnvelope> {
    let malformed = |error: &dyn fmt::Display| MalformedEnvelope(error.to_string());
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let mut bindings = envelope.data.into_values();
    let (Some(JsonText(bodies)), None) = (bindings.next(), bindings.next()) else {
        return Err(malformed(&"Data does not hold exactly one binding"));
    };
    let mut metadata = envelope.metadata;
    let mut events = Vec::with_capacity(bodies.len());
    for (index, body) in bodies.into_iter().enumerate() {
        let body = STANDARD
            .decode(body)
            .map_err(|error| MalformedEnvelope(format!("event {index} of the batch is not base64: {error}")))?;
        events.push(metadata.event(index, Bytes::from(body)));
    }
    Ok(Invocation {
        id: invocation_id.to_owned(),
        retry_count: metadata.retry_context.retry_count,
        partition_id: metadata.partition_context.partition_id,
        events,
    })
}

impl Metadata {
    fn event(&mut self, index: usize, body: Bytes) -> Event {
        fn take<T: Default>(values: &mut JsonText<Vec<T>>, index: usize) -> Option<T> {
            values.0.get_mut(index).map(std::mem::take)
        }
        Event {
            body,
            sequence_number: take(&mut self.sequence_number_array, index),
            enqueued_at: take(&mut self.enqueued_time_utc_array, index),
            properties: take(&mut self.properties_array, index).unwrap_or_default(),
            system_properties: take(&mut self.system_properties_array, index).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(name: &str) -> Invocation {
        let path = format!("{}/tests/fixtures/host/{name}.json", env!("CARGO_MANIFEST_DIR"));
        decode("an-id", &std::fs::read(path).expect("the fixture is there")).expect("a recorded envelope")
    }

    #[test]
    fn a_recorded_batch_is_decoded_event_by_event() {
        let batch = recorded("many-binary-iot");
        assert_eq!((batch.partition_id.as_str(), batch.retry_count, batch.events.len()), ("3", 0, 2));
        let [first, second] = &batch.events[..] else { panic!("two events") };
        assert_eq!(first.sequence_number, Some(1201));
        assert_eq!(first.enqueued_at.as_deref(), Some("2026-03-01T10:20:30.411"));
        assert_eq!(first.properties["alert"], "true");
        assert_eq!(first.system_properties["iothub-connection-device-id"], "dev-17");
        assert!(first.body.starts_with(br#"{"t":21.5,"seq":7"#));
        assert_eq!(second.system_properties["iothub-connection-device-id"], "dev-18");
        assert!(second.properties.is_empty());
    }

    #[test]
    fn every_recorded_form_is_decoded() {
        assert_eq!(recorded("many-binary-empty-body").events[0].body, Bytes::new());
        assert!(std::str::from_utf8(&recorded("many-binary-not-utf8").events[0].body).is_err());
        assert_eq!(recorded("many-binary-rich-properties").events[0].properties["l"], 9_007_199_254_740_993_i64);
        assert_eq!(recorded("many-binary-georeplicated-offset").events[0].sequence_number, Some(1201));
        assert_eq!(recorded("many-binary-older-annotations").events[0].sequence_number, Some(1201));
    }

    #[test]
    fn a_retry_tells_how_often_the_batch_was_tried() {
        assert_eq!(recorded("retry-first").retry_count, 0);
        assert_eq!(recorded("retry-second").retry_count, 1);
    }

    #[test]
    fn an_event_posted_by_an_operator_has_no_place_in_a_partition() {
        let batch = recorded("admin-many-binary");
        assert_eq!(batch.events.len(), 1);
        assert_eq!(batch.events[0].sequence_number, None);
        assert!(batch.events[0].system_properties.is_empty());
    }

    #[test]
    fn what_is_no_batch_is_refused_with_the_remedy() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"Data":{}}"#,
            r#"{"Data":{"events":"not json"}}"#,
            r#"{"Data":{"events":"[\"not base64!\"]"}}"#,
            r#"{"Data":{"events":"[{}]"}}"#,
            r#"{"Data":{"a":"[]","b":"[]"}}"#,
        ] {
            let error = decode("an-id", body.as_bytes()).expect_err(body);
            assert!(error.to_string().contains("dataType binary"), "{error}");
        }
    }
}
