//! What stands behind a refused session: the hub says the same to an unknown device, a disabled one and a bad token.

use std::sync::Mutex;
use std::time::Duration;

use moka::sync::Cache;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tracing::{info, warn};

use super::HubError;

use super::pace::Pace;
use super::registry::Registry;
use crate::ids::{ApplicationId, DeviceId, EndDevice};
use crate::lock::lock;

/// How long a refusal that the registry cannot explain is remembered: a rotated key must not become a registry storm.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Devices whose refusal is remembered, most; the oldest are forgotten first.
const MAX_REMEMBERED: u64 = 10_000;

/// What the registry says of a device whose session was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It did not exist and does now.
    Created,
    /// It exists and may connect.
    Enabled,
    /// It exists and may not connect.
    Disabled,
}

/// Asks the registry for a device, and creates one that it does not know.
pub(super) async fn establish(
    registry: &Registry,
    pace: &Pace,
    application: &ApplicationId,
    device: &EndDevice,
) -> Result<Standing, HubError> {
    let id = &device.id;
    let standing = |enabled| if enabled { Standing::Enabled } else { Standing::Disabled };
    if let Some(identity) = registry.identity(pace, id).await? {
        return Ok(standing(identity.enabled));
    }
    if !registry.create_identity(pace, id).await? {
        // Someone was faster. That identity is theirs, and so are its tags.
        let identity = registry.identity(pace, id).await?;
        return Ok(identity.map_or(Standing::Created, |identity| standing(identity.enabled)));
    }
    info!(device = %id, "device created in IoT Hub");
    let tags = stack_tags(application, device, OffsetDateTime::now_utc());
    if let Err(error) = registry.patch_tags(pace, id, &tags, None).await {
        // The device works without them; only queries of the fleet by these tags miss it.
        warn!(device = %id, %error, "the created device could not be tagged");
    }
    Ok(Standing::Created)
}

/// `stack {applicationId, devEui, joinEui}`, so that fleets can be queried by them, and `createdAt`, by which the forwarder tells
/// an identity that was made while its deletion was under way from one that was made later.
fn stack_tags(application: &ApplicationId, device: &EndDevice, now: OffsetDateTime) -> Value {
    let mut stack = Map::new();
    stack.insert("applicationId".to_owned(), application.as_str().into());
    let euis = [("devEui", device.dev_eui), ("joinEui", device.join_eui)];
    stack.extend(euis.into_iter().filter_map(|(name, eui)| Some((name.to_owned(), Value::String(eui?.to_string())))));
    // RFC 3339 has no year beyond 9999: the only way this can fail.
    stack.extend(now.format(&Rfc3339).ok().map(|now| ("createdAt".to_owned(), Value::String(now))));
    json!({ "stack": stack })
}

/// Refusals that the registry could not explain: the token is wrong, or the clock.
#[derive(Debug)]
pub(super) struct Denials {
    devices: Cache<DeviceId, ()>,
    /// Until when every refusal is put down to the token. A session that is accepted ends it.
    hub: Mutex<Option<Instant>>,
    warned: Mutex<Option<Instant>>,
}

impl Denials {
    pub(super) fn new() -> Self {
        let devices = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(REMEMBERED).build();
        Self { devices, hub: Mutex::new(None), warned: Mutex::new(None) }
    }

    /// Whether asking the registry about a refusal of this device would only repeat what is known.
    pub(super) fn is_known(&self, device: &DeviceId, now: Instant) -> bool {
        lock(&self.hub).is_some_and(|until| now < until) || self.devices.contains_key(device)
    }

    /// The registry found nothing wrong with this device.
    pub(super) fn suspect(&self, device: &DeviceId) {
        self.devices.insert(device.clone(), ());
    }

    /// A device that exists and is enabled was refused again.
    pub(super) fn remember(&self, error: &HubError, device: &DeviceId, now: Instant) {
        self.suspect(device);
        *lock(&self.hub) = Some(now + REMEMBERED);
        let mut warned = lock(&self.warned);
        if warned.is_none_or(|at| now >= at + REMEMBERED) {
            *warned = Some(now);
            warn!(%device, %error, "session denied");
        }
    }

    /// A session was accepted: the token is good.
    pub(super) fn disproved(&self, device: &DeviceId) {
        *lock(&self.hub) = None;
        self.devices.invalidate(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Eui;

    #[test]
    fn tags_name_the_application_the_euis_that_there_are_and_the_time() {
        let application = ApplicationId::parse("barn").expect("valid");
        let id = DeviceId::parse("eui-1").expect("valid");
        let dev_eui = Some(Eui::parse("70b3d57ed0000001").expect("valid"));
        let device = EndDevice { id, dev_eui, join_eui: None };
        let now = OffsetDateTime::from_unix_timestamp(1_770_091_506).expect("a time");
        let expected = json!({"stack": {
            "applicationId": "barn", "devEui": "70B3D57ED0000001", "createdAt": "2026-02-03T04:05:06Z",
        }});
        assert_eq!(stack_tags(&application, &device, now), expected);
    }

    #[test]
    fn a_denial_is_remembered_for_a_minute_or_until_a_session_is_accepted() {
        let [first, second] = ["eui-1", "eui-2"].map(|id| DeviceId::parse(id).expect("valid"));
        let denials = Denials::new();
        let now = Instant::now();
        assert!(!denials.is_known(&first, now));
        denials.remember(&HubError::Denied { device: first.clone() }, &first, now);
        assert!(denials.is_known(&first, now) && denials.is_known(&second, now));
        assert!(!denials.is_known(&second, now + REMEMBERED));
        denials.disproved(&second);
        assert!(denials.is_known(&first, now) && !denials.is_known(&second, now));
    }
}
