//! Decoded payloads from a file, one JSON object with a member `decoded_payload` per line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::world::StartError;

/// One payload of the corpus.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Payload {
    #[serde(default)]
    codec: String,
    #[serde(default)]
    pub(super) f_port: u8,
    pub(super) decoded_payload: Map<String, Value>,
}

/// Payloads by the device that sends them: one device per codec.
pub(super) type Corpus = BTreeMap<String, Vec<Payload>>;

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Corpus, StartError> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let mut by_codec: BTreeMap<String, Vec<Payload>> = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let payload: Payload =
            serde_json::from_str(line).map_err(|error| format!("{}, line {}: {error}", path.display(), index + 1))?;
        by_codec.entry(payload.codec.clone()).or_default().push(payload);
    }
    let device = |number: usize| format!("codec-{number:03}");
    Ok(by_codec.into_values().enumerate().map(|(index, payloads)| (device(index + 1), payloads)).collect())
}
