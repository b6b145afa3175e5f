//! How the two flows speak of one downlink: the correlation id that travels with it, and its marker in `tags.stack.downlink`.
//!
//! EventHubForwarder writes the marker; UplinkIngress makes one touch: a downlink that waits for a join becomes ready on it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::ids::DeviceId;

/// How far the newest desired downlink of a device has come: `tags.stack.downlink.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DownlinkState {
    /// The call to The Things Stack is about to be made, or was interrupted.
    Pushing,
    /// The Things Stack took it.
    Pushed,
    /// The device has no session yet: its join makes it ready.
    Waiting,
    /// The device joined: the forwarder pushes it.
    Ready,
    /// It can never be queued as it is; `error` says why.
    Failed,
}

/// The marker `tags.stack.downlink`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownlinkMarker {
    /// `$version` of the desired properties that the downlink came from.
    pub version: u64,
    /// Hash of what was applied: a change is a difference from it.
    pub hash: String,
    /// How far it has come.
    pub state: DownlinkState,
    /// Why it failed or waits; `null` removes an older reason.
    pub error: Option<String>,
}

/// The marker of these tags, if there is a readable one.
#[must_use]
pub fn marker(tags: &Map<String, Value>) -> Option<DownlinkMarker> {
    let downlink = tags.get("stack")?.get("downlink")?;
    DownlinkMarker::deserialize(downlink).ok()
}

/// The tags patch that writes this marker over an older one.
#[must_use]
pub fn marker_patch(marker: &DownlinkMarker) -> Value {
    json!({"stack": {"downlink": marker}})
}

/// The tags patch that removes the marker: nothing is desired any more.
#[must_use]
pub fn no_marker_patch() -> Value {
    json!({"stack": {"downlink": null}})
}

/// The tags patch by which a join makes a waiting downlink ready, if one waits.
#[must_use]
pub fn ready_patch(tags: &Map<String, Value>) -> Option<Value> {
    (marker(tags)?.state == DownlinkState::Waiting).then(|| json!({"stack": {"downlink": {"state": "ready"}}}))
}

/// The correlation id of the downlink of a desired version: `iothub:{device}:desired:{version}`, at most 75 characters.
#[must_use]
pub fn correlation_id(device: &DeviceId, desired_version: u64) -> String {
    format!("iothub:{device}:desired:{desired_version}")
}

/// The desired version that a correlation id of this device names; `None` if the id is not ours.
#[must_use]
pub fn desired_version(device: &DeviceId, correlation_id: &str) -> Option<u64> {
    let rest = correlation_id.strip_prefix("iothub:")?.strip_prefix(device.as_str())?;
    rest.strip_prefix(":desired:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correlation_id_leads_back_to_its_desired_version_and_no_other_device() {
        let device = DeviceId::parse("probe-0017").expect("a valid id");
        let id = correlation_id(&device, 12);
        assert_eq!(id, "iothub:probe-0017:desired:12");
        assert_eq!(desired_version(&device, &id), Some(12));
        let other = DeviceId::parse("probe-001").expect("a valid id");
        for not_ours in [id.as_str(), "as:downlink:01KGA4", "iothub:probe-001:desired:", "iothub:probe-001:desired:-1"]
        {
            assert_eq!(desired_version(&other, not_ours), None, "{not_ours}");
        }
    }

    #[test]
    fn a_written_marker_reads_back_and_removes_an_older_error() {
        let written = DownlinkMarker { version: 7, hash: "h".to_owned(), state: DownlinkState::Pushed, error: None };
        let patch = marker_patch(&written);
        assert_eq!(patch["stack"]["downlink"]["error"], Value::Null);
        assert_eq!(marker(patch.as_object().expect("an object")), Some(written));
        assert_eq!(marker(no_marker_patch().as_object().expect("an object")), None);
    }

    #[test]
    fn only_a_waiting_downlink_becomes_ready() {
        let tags = |state: &str| {
            let tags = json!({"stack": {"downlink": {"version": 3, "hash": "h", "state": state, "error": null}}});
            tags.as_object().cloned().expect("an object")
        };
        assert!(ready_patch(&tags("waiting")).is_some());
        for state in ["pushing", "pushed", "ready", "failed", "unheard-of"] {
            assert_eq!(ready_patch(&tags(state)), None, "{state}");
        }
        assert_eq!(ready_patch(&Map::new()), None);
    }
}
